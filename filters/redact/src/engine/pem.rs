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
    if scan.before(at) == b'-' || !scan.begins(at, b"----") {
        return None;
    }
    let begin = at + scan.count(at, LABEL_BYTES_MAX, |byte| byte == b'-');
    let begin = begin + usize::from(scan.byte(begin) == Some(b' '));
    if !scan.begins(begin, b"BEGIN ") {
        return None;
    }
    let label = label_of(scan, begin + 6);
    label.windows(11).any(|words| words == b"PRIVATE KEY").then_some(begin)
}

/// The label up to its dashes.
fn label_of<'t>(scan: &Scan<'_, 't>, from: usize) -> &'t [u8] {
    let is_label = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b' ';
    &scan.bytes[from..from + scan.count(from, LABEL_BYTES_MAX, is_label)]
}

/// End of the last dash behind `END`.
fn end(scan: &Scan, from: usize) -> usize {
    closing(scan, from).unwrap_or_else(|| {
        scan.meet_end();
        scan.text.len()
    })
}

/// The same, where the key ends.
pub(super) fn closing(scan: &Scan, from: usize) -> Option<usize> {
    let body = &scan.text[from..];
    let found = match (body.find("--END "), body.find("-- END ")) {
        (Some(near), Some(spaced)) => near.min(spaced),
        (near, spaced) => near.or(spaced)?,
    };
    // The label begins behind two dashes and ends with the next.
    let word = from + found + 2;
    let label = word + label_of(scan, word).len();
    Some(label + scan.count(label, usize::MAX, |byte| byte == b'-'))
}
