//! Passwords in URLs: `scheme://user:password@host`. The scheme, the user and the host stay.

use super::{Family, Find, Scan};

/// How far behind the first slash the `@` of a password that holds slashes is looked for.
const SLASHED_BYTES_MAX: usize = 256;

/// Where the parts of an authority stand.
#[derive(Default)]
struct Authority {
    colon: Option<usize>,
    at_sign: Option<usize>,
    end: usize,
}

/// The password in the URL whose `://` stands here.
pub(super) fn find(scan: &Scan, at: usize) -> Option<Find> {
    let from = at + 3;
    let Authority { colon, at_sign, end } = authority(scan, from);
    let start = colon? + 1;
    let end = match at_sign {
        Some(at_sign) => at_sign,
        None if looks_like_a_port(scan, from, start) => return None,
        None if scan.is_cut(end) => end,
        None => behind_a_slash(scan, end)?,
    };
    (start < end && scan.mark(start).is_none()).then_some(Find::new(start, end, Family::Password))
}

/// Reads up to the path, or up to what was replaced before.
fn authority(scan: &Scan, from: usize) -> Authority {
    let mut found = Authority { end: from, ..Authority::default() };
    while let Some(byte) = scan.byte(found.end) {
        let here = found.end;
        match byte {
            b'@' => found.at_sign = Some(here),
            b'\\' if found.colon.is_none() => break,
            b':' if found.colon.is_none() => found.colon = Some(here),
            _ if !is_authority(scan, here) || scan.is_cut(here) || scan.ends(here) => break,
            _ => {}
        }
        found.end += 1;
    }
    // A colon behind the `@` is the port's.
    if let (Some(colon), Some(at_sign)) = (found.colon, found.at_sign)
        && colon > at_sign
    {
        found.colon = None;
    }
    found
}

fn is_authority(scan: &Scan, at: usize) -> bool {
    is_slashed(scan, at) && !matches!(scan.bytes[at], b'/' | b'?' | b'#')
}

/// Whether a byte can be part of a password that was written with slashes unescaped. What a home folder
/// became can't: its slash had ended the authority.
fn is_slashed(scan: &Scan, at: usize) -> bool {
    match scan.bytes[at] {
        b'~' => scan.byte(at + 1).is_some_and(|byte| byte.is_ascii_alphanumeric()),
        byte => byte > b' ' && !matches!(byte, b'"' | b'\'' | b'`' | b'<' | b'>'),
    }
}

fn looks_like_a_port(scan: &Scan, from: usize, start: usize) -> bool {
    scan.byte(from) == Some(b'[') || scan.byte(start).is_none_or(|byte| byte.is_ascii_digit())
}

/// A password that was written with slashes unescaped: up to its `@`.
fn behind_a_slash(scan: &Scan, from: usize) -> Option<usize> {
    let limit = scan.bytes.len().min(from + SLASHED_BYTES_MAX);
    if limit < from + SLASHED_BYTES_MAX {
        scan.meet_end();
    }
    let end = (from..limit).find(|&at| scan.bytes[at] == b'@' || !is_slashed(scan, at))?;
    (scan.bytes[end] == b'@' && (from..end).all(|at| !scan.ends(at))).then_some(end)
}
