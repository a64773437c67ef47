//! E-mail addresses, from their `@` outwards. It never takes a version or a revision (`pkg@1.2.3`,
//! `model@main`) for a domain.

use super::{Family, Find, Scan};

/// Longest local part that is taken, bytes: twice what an address may have.
pub(super) const LOCAL_BYTES_MAX: usize = 128;

/// The address around an `@`.
pub(super) fn find(scan: &Scan, at: usize) -> Option<Find> {
    around(scan, at, at + 1, |c| is_local(c) || c == '%')
}

/// The same for an `@` in a query string: `%40`.
pub(super) fn find_encoded(scan: &Scan, at: usize) -> Option<Find> {
    if scan.begins(at, b"%40") { around(scan, at, at + 3, is_local) } else { None }
}

fn around(scan: &Scan, at: usize, behind: usize, local: impl Fn(char) -> bool) -> Option<Find> {
    let mut length = 0;
    for c in scan.text.get(scan.floor..at)?.chars().rev().take_while(|&c| local(c)) {
        if length + c.len_utf8() > LOCAL_BYTES_MAX {
            // It would begin within a word, and what stands before would read otherwise without the rest.
            let sign = scan.text[at - length..at].find(['_', '+', '-']);
            length -= sign.map_or(0, |sign| sign + 1);
            break;
        }
        length += c.len_utf8();
    }
    if length == 0 {
        return None;
    }
    Some(Find::new(at - length, domain(scan, behind)?, Family::Email))
}

fn is_local(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '.' | '_' | '+' | '-')
}

/// End of the domain; where there is none, of the part before a text that the operator denies.
fn domain(scan: &Scan, from: usize) -> Option<usize> {
    let rest = scan.text.get(from..)?;
    let behind = rest.trim_start_matches(|c: char| c.is_alphanumeric() || matches!(c, '.' | '-'));
    if behind.is_empty() {
        scan.meet_end();
    }
    let domain = &rest[..rest.len() - behind.len()];
    let domain = domain.split("..").next().unwrap_or(domain).trim_end_matches('.');
    if !domain.is_empty() && scan.is_cut(from + domain.len()) {
        return Some(from + domain.len());
    }
    let end = top_level_end(domain).or_else(|| {
        let denied = (0..domain.len()).find(|place| scan.denied(from + place).is_some())?;
        top_level_end(domain.get(..denied)?)
    });
    end.map(|end| from + end)
}

/// End of the last label that can be a top-level domain.
fn top_level_end(domain: &str) -> Option<usize> {
    let mut end = None;
    let mut label_start = 0;
    for label in domain.split('.').take_while(|label| !label.is_empty()) {
        if label_start > 0 {
            end = top_level(label).map(|length| label_start + length).or(end);
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
    let ascii = label.bytes().take_while(u8::is_ascii_alphabetic).count();
    if ascii > 0 {
        // A digit would make it a version; letters of another script are no part of it.
        let next = label.as_bytes().get(ascii);
        return (ascii > 1 && next.is_none_or(|byte| !byte.is_ascii_digit())).then_some(ascii);
    }
    let other = label.len() - label.trim_start_matches(char::is_alphabetic).len();
    (label[..other].chars().nth(1).is_some()).then_some(other)
}
