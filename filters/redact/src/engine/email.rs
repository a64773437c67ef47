//! E-mail addresses, from their `@` outwards. It never takes a version or a revision (`pkg@1.2.3`,
//! `model@main`) for a domain.

use super::{Family, Find, Scan};

/// The address around an `@`.
pub(super) fn find(scan: &Scan, at: usize) -> Option<Find> {
    around(scan, at, at + 1, |c| is_local(c) || c == '%')
}

/// The same for an `@` in a query string: `%40`.
pub(super) fn find_encoded(scan: &Scan, at: usize) -> Option<Find> {
    if scan.rest(at).starts_with(b"%40") { around(scan, at, at + 3, is_local) } else { None }
}

fn around(scan: &Scan, at: usize, behind: usize, local: impl Fn(char) -> bool) -> Option<Find> {
    let before = scan.text.get(scan.floor..at)?.chars().rev();
    let length: usize = before.take_while(|&c| local(c)).map(char::len_utf8).sum();
    let end = domain(scan, behind)?;
    (length > 0).then_some(Find::new(at - length, end, Family::Email))
}

fn is_local(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '.' | '_' | '+' | '-')
}

/// End of the domain: the last label that can be a top-level domain.
fn domain(scan: &Scan, from: usize) -> Option<usize> {
    let rest = scan.text.get(from..)?;
    let domain = rest.trim_start_matches(|c: char| c.is_alphanumeric() || matches!(c, '.' | '-'));
    let domain = rest[..rest.len() - domain.len()].trim_end_matches('.');
    if !domain.is_empty() && scan.is_cut(from + domain.len()) {
        return Some(from + domain.len());
    }
    let mut end = None;
    let mut label_start = 0;
    for label in domain.split('.').take_while(|label| !label.is_empty()) {
        if label_start > 0 {
            end = top_level(label).map(|length| from + label_start + length).or(end);
        }
        label_start += label.len() + 1;
    }
    end
}

/// Length of the top-level domain that a label begins with.
fn top_level(label: &str) -> Option<usize> {
    if label.starts_with("xn--") {
        return Some(label.len());
    }
    let after = label.trim_start_matches(char::is_alphabetic);
    let length = label.len() - after.len();
    let letters = label[..length].chars().take(2).count();
    (letters == 2 && (after.is_empty() || after.starts_with('-'))).then_some(length)
}
