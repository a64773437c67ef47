//! Private keys in PEM, of all kinds, and their cousins of PGP and SSH2. It never touches a certificate
//! or a public key.

use super::{Family, Find, Scan};

/// Longest label between the dashes, bytes.
const LABEL_BYTES_MAX: usize = 64;

/// The private key whose first dash stands here. One that is cut reaches to the end of the text.
pub(super) fn find(scan: &Scan, at: usize) -> Option<Find> {
    Some(Find::new(at, end(scan, begin(scan, at)?), Family::PrivateKey))
}

/// Where the label of the private key begins whose first dash stands here.
pub(super) fn begin(scan: &Scan, at: usize) -> Option<usize> {
    let rest = scan.rest(at);
    if !rest.starts_with(b"----") || scan.before(at) == b'-' {
        return None;
    }
    let begin = rest.iter().take(LABEL_BYTES_MAX).take_while(|&&byte| byte == b'-').count();
    let begin = begin + usize::from(rest.get(begin) == Some(&b' '));
    let label = rest.get(begin..)?.strip_prefix(b"BEGIN ")?;
    label_of(label).windows(11).any(|words| words == b"PRIVATE KEY").then_some(at + begin)
}

/// The label up to its dashes.
fn label_of(rest: &[u8]) -> &[u8] {
    let length = rest
        .iter()
        .take(LABEL_BYTES_MAX)
        .take_while(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || **byte == b' ')
        .count();
    &rest[..length]
}

/// End of the last dash behind `END`.
fn end(scan: &Scan, from: usize) -> usize {
    let body = &scan.text[from..];
    let Some(found) = body.find("--END ").or_else(|| body.find("-- END ")) else {
        return scan.text.len();
    };
    // The label begins behind two dashes and ends with the next.
    let word = from + found + 2;
    let label = label_of(scan.rest(word)).len();
    let dashes = scan.rest(word + label).iter().take_while(|&&byte| byte == b'-').count();
    word + label + dashes
}
