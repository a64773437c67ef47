//! Bearer and basic credentials, wherever their scheme is named. It never takes a word of prose
//! (`bearer authentication`, `basic auth`) for a credential.

use super::{Family, Find, Scan, looks_random};

/// Most base64 characters that are decoded to see whether they hold `user:password`.
const BASIC_CHARS_MAX: usize = 96;

/// Whether the name of a scheme may begin with this byte.
pub(super) const fn may_begin(byte: u8) -> bool {
    matches!(byte, b'b' | b'B')
}

/// Whether the name of a scheme may begin with these two bytes.
pub(super) const fn may_begin_with(first: u8, second: u8) -> bool {
    may_begin(first) && matches!(second, b'a' | b'A' | b'e' | b'E')
}

/// The credential behind the scheme that is named here.
pub(super) fn find(scan: &Scan, at: usize) -> Option<Find> {
    let (name, basic) = if names(scan, at, b"bearer") {
        (at + 6, false)
    } else if names(scan, at, b"basic") {
        (at + 5, true)
    } else {
        return None;
    };
    let from = name + usize::from(scan.byte(name) == Some(b':'));
    let start = scan.blanks(from);
    if start == from {
        return None;
    }
    let end = scan.run(start, is_token);
    let cut = scan.is_cut(end) && end > start;
    let replaced = scan.byte(end).is_some() && scan.ends(end);
    let end = scan.trimmed(start, end);
    let token = scan.bytes.get(start..end)?;
    let credential = if basic { !replaced && holds_password(token) } else { looks_random(token) };
    (credential || cut && token.len() >= 4).then_some(Find::new(start, end, Family::Credential))
}

/// Whether a scheme is named here, in upper or lower case.
fn names(scan: &Scan, at: usize, scheme: &[u8]) -> bool {
    scan.starts_with(at, scheme, u8::to_ascii_lowercase)
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._+/=-".contains(&byte)
}

/// Whether base64 holds printable text with a colon.
fn holds_password(token: &[u8]) -> bool {
    let mut colon = false;
    for group in token[..token.len().min(BASIC_CHARS_MAX)].chunks(4) {
        let sextets: Vec<u32> = group.iter().map_while(|&byte| sextet(byte)).collect();
        let bits =
            sextets.iter().fold(0, |bits, sextet| bits << 6 | sextet) << (24 - 6 * sextets.len());
        for &byte in bits.to_be_bytes()[1..].iter().take(sextets.len() * 6 / 8) {
            if !(b' '..0x7f).contains(&byte) {
                return false;
            }
            colon |= byte == b':';
        }
    }
    colon
}

fn sextet(byte: u8) -> Option<u32> {
    Some(
        match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        }
        .into(),
    )
}
