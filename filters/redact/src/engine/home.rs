//! Home folders in paths: the name goes, the rest of the path stays. `/home/ada/m.gguf` becomes
//! `~/m.gguf`. It never touches a path of a URL.

use super::{Find, Scan, Verdict};

/// Longest name of a user with a blank in it, bytes.
const SPACED_BYTES_MAX: usize = 64;
/// Folders that belong to nobody.
const SHARED: [&str; 5] = ["Shared", "Public", "Default", "Default User", "All Users"];
/// Where home folders may stand besides the root.
const ROOTS: [&str; 6] = ["/var", "/export", "/mnt", "/net", "/cygdrive", "/System/Volumes/Data"];

/// The home folder whose path has a separator here.
pub(super) fn find(scan: &Scan, at: usize) -> Option<Find> {
    let (start, name) = if scan.begins(at, b"/home/") {
        (unix_start(scan, at)?, at + 6)
    } else if scan.begins(at, b"/Users/") {
        (windows_start(scan, at).or_else(|| unix_start(scan, at))?, at + 7)
    } else {
        let width = scan.count(at, 5, |byte| byte == b'\\');
        let users = scan.starts_with(at + width, b"users", u8::to_ascii_lowercase);
        if !(1..=4).contains(&width) || !users {
            return None;
        }
        let after = at + width + 5;
        if !scan.begins(after, &scan.bytes[at..at + width]) {
            return None;
        }
        (windows_start(scan, at)?, after + width)
    };
    let end = name_end(scan, name, scan.bytes[at] == b'\\')?;
    Some(Find { start, end, verdict: Verdict::Tilde })
}

/// Start of a path from the root: nothing of a path may stand before it, but a known root may.
fn unix_start(scan: &Scan, at: usize) -> Option<usize> {
    let read = &scan.bytes[scan.floor..at];
    // A drive as a folder: `/mnt/c/Users/…`
    let read = match read {
        [rest @ .., b'/', drive] if drive.is_ascii_alphabetic() => rest,
        _ => read,
    };
    let root = ROOTS.iter().find(|root| read.ends_with(root.as_bytes()));
    let read = &read[..read.len() - root.map_or(0, |root| root.len())];
    let start = scan.floor + read.len();
    let before = scan.before(start);
    let in_path = before.is_ascii_alphanumeric() || b"._-~/\\%".contains(&before);
    (!in_path || read.ends_with(b"file://")).then_some(start)
}

/// Start of a path that begins with a drive.
fn windows_start(scan: &Scan, at: usize) -> Option<usize> {
    let [.., drive, b':'] = scan.bytes[scan.floor..at] else { return None };
    let start = at - 2;
    (drive.is_ascii_alphabetic() && !scan.before(start).is_ascii_alphanumeric()).then_some(start)
}

/// End of the user's name, where there is one.
fn name_end(scan: &Scan, from: usize, windows: bool) -> Option<usize> {
    let spaced = if windows { spaced_name_end(scan, from) } else { None };
    let end = spaced.unwrap_or_else(|| {
        let end = scan.run(from, is_name);
        scan.trimmed(from, end)
    });
    let name = scan.text.get(from..end)?;
    (!name.is_empty() && !SHARED.contains(&name)).then_some(end)
}

/// End of a name with blanks: only where a separator shows that the path goes on.
fn spaced_name_end(scan: &Scan, from: usize) -> Option<usize> {
    let end = from + scan.count(from, SPACED_BYTES_MAX, |byte| is_name(byte) || byte == b' ');
    (scan.byte(end) == Some(b'\\') && (from..end).all(|at| !scan.ends(at))).then_some(end)
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80 || b"._-+@".contains(&byte)
}
