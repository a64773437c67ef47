//! Small files read whole, within a bound: configuration, manifests, components. A file that grows
//! while it is read can't get past the bound. Never follows what is in a file.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// The bytes of the file at `path`, at most `bytes_max` of them.
///
/// # Errors
/// As the system says; [`io::ErrorKind::FileTooLarge`] with the bound where there are more bytes.
pub fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        let what = format!("it has more than the {bytes_max} bytes that are read");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    Ok(bytes)
}

/// The same as text.
///
/// # Errors
/// As [`read`]; [`io::ErrorKind::InvalidData`] where it is no UTF-8.
pub fn text(path: &Path, bytes_max: u64) -> io::Result<String> {
    String::from_utf8(read(path, bytes_max)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is no text in UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_over_the_bound_is_refused() {
        let path = std::env::temp_dir().join(format!("rbees-files-{}", uuid::Uuid::now_v7()));
        std::fs::write(&path, "four").expect("a temporary file can be written");
        assert_eq!(text(&path, 4).expect("it fits"), "four");
        let refused = read(&path, 3).expect_err("it does not fit");
        assert_eq!(refused.kind(), io::ErrorKind::FileTooLarge);
        std::fs::write(&path, b"\xff").expect("a temporary file can be written");
        assert_eq!(text(&path, 4).expect_err("no text").kind(), io::ErrorKind::InvalidData);
        let _ = std::fs::remove_file(path);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_file_without_an_end_is_read_no_further_than_the_bound() {
        let refused = read(Path::new("/dev/zero"), 64).expect_err("it has no end");
        assert_eq!(refused.kind(), io::ErrorKind::FileTooLarge);
    }
}
