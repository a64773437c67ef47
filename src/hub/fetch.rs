//! One file from a hub: continued where it broke off, checked by length and digest, and named only
//! then. Writes to its own partial file, never past the length that the listing gave.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::RANGE;
use sha2::{Digest as _, Sha256};

use super::listing::Remote;
use super::{Hub, Wanted};
use crate::error::{Error, Kind, Result};
use crate::limits::{HUB_BACKOFF_MS, HUB_TRIES_MAX};

/// Hears how a download goes.
pub trait Meter {
    /// A file of so many bytes begins, with so many there already.
    fn begin(&mut self, name: &str, bytes: u64, done: u64);
    /// So many bytes of it are there.
    fn at(&mut self, done: u64);
    /// It is whole; `fetched` says whether that took a download.
    fn end(&mut self, name: &str, fetched: bool);
}

/// Why a try ended.
enum Broken {
    /// Another try may do better.
    Off(Error),
    /// None will.
    Final(Error),
}

/// Fetches `remote` to `path`.
pub async fn file(
    hub: &Hub,
    wanted: &Wanted,
    commit: &str,
    remote: &Remote,
    path: &Path,
    meter: &mut dyn Meter,
) -> Result<()> {
    if is_whole(path, remote)? {
        meter.end(&remote.name, false);
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|e| unwritable(folder, e))?;
    }
    // The commit is part of the name: what was begun of another version is of no use.
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".{}.part", &commit[..commit.len().min(12)]));
    let partial = PathBuf::from(partial);
    let source = format!("{}/resolve/{commit}/{}", wanted.repo, encoded(&remote.name));
    let mut tries = 0;
    loop {
        match continue_to(hub, &source, remote, &partial, meter).await {
            Ok(()) => break,
            Err(Broken::Final(error)) => return Err(error),
            Err(Broken::Off(error)) => {
                tries += 1;
                if tries >= HUB_TRIES_MAX {
                    return Err(error);
                }
                tokio::time::sleep(Duration::from_millis(HUB_BACKOFF_MS << tries)).await;
            }
        }
    }
    if !is_whole(&partial, remote)? {
        // What is wrong in it can't be known, so that none of it is of use.
        std::fs::remove_file(&partial).map_err(|e| unwritable(&partial, e))?;
        let what = format!("sent other bytes of {} than it lists; fetch it again", remote.name);
        return Err(hub.error(&what));
    }
    std::fs::rename(&partial, path).map_err(|e| unwritable(path, e))?;
    meter.end(&remote.name, true);
    Ok(())
}

/// Adds to the partial file what is missing.
async fn continue_to(
    hub: &Hub,
    source: &str,
    remote: &Remote,
    partial: &Path,
    meter: &mut dyn Meter,
) -> Result<(), Broken> {
    let off = |e: reqwest::Error| {
        let what = format!("{} broke off; run the same command again to continue", remote.name);
        Broken::Off(hub.error(&what).because(e.without_url()))
    };
    let fatal = |e: std::io::Error| Broken::Final(unwritable(partial, e));
    let mut options = OpenOptions::new();
    let mut out = options.create(true).truncate(false).write(true).open(partial).map_err(fatal)?;
    let mut done = out.seek(SeekFrom::End(0)).map_err(fatal)?;
    if done > remote.bytes {
        out.set_len(0).and_then(|()| out.rewind()).map_err(fatal)?;
        done = 0;
    }
    meter.begin(&remote.name, remote.bytes, done);
    if done == remote.bytes {
        return Ok(());
    }
    let mut request = hub.get(source).map_err(Broken::Final)?;
    if done > 0 {
        request = request.header(RANGE, format!("bytes={done}-"));
    }
    let mut response = request.send().await.map_err(off)?;
    match response.status().as_u16() {
        206 if begins_at(&response, done) => {}
        // It knows no ranges, so all of it comes again.
        200 => {
            out.set_len(0).and_then(|()| out.rewind()).map_err(fatal)?;
            done = 0;
        }
        status @ (408 | 429 | 500..=599) => {
            let what = format!("answered {status} for {}; try again later", remote.name);
            return Err(Broken::Off(hub.error(&what)));
        }
        status => {
            let what = format!("answered {status} for {}; is HF_TOKEN needed?", remote.name);
            return Err(Broken::Final(hub.error(&what)));
        }
    }
    while let Some(piece) = response.chunk().await.map_err(off)? {
        done += piece.len() as u64;
        if done > remote.bytes {
            let what = format!("sends more of {} than it lists; fetch it again", remote.name);
            drop(out);
            std::fs::remove_file(partial).map_err(fatal)?;
            return Err(Broken::Final(hub.error(&what)));
        }
        out.write_all(&piece).map_err(fatal)?;
        meter.at(done);
    }
    out.sync_all().map_err(fatal)?;
    if done < remote.bytes {
        let what = format!("{} broke off; run the same command again to continue", remote.name);
        return Err(Broken::Off(hub.error(&what)));
    }
    Ok(())
}

/// Whether a partial answer continues where it was asked to.
fn begins_at(response: &reqwest::Response, at: u64) -> bool {
    let range = response.headers().get(reqwest::header::CONTENT_RANGE);
    let range = range.and_then(|range| range.to_str().ok()).unwrap_or_default();
    range.strip_prefix("bytes ").and_then(|rest| rest.split('-').next()) == Some(&at.to_string())
}

/// Whether the file has the length and, where it is known, the digest that the hub lists.
fn is_whole(path: &Path, remote: &Remote) -> Result<bool> {
    let Ok(mut file) = File::open(path) else { return Ok(false) };
    let unreadable = |e| unwritable(path, e);
    if file.metadata().map_err(unreadable)?.len() != remote.bytes {
        return Ok(false);
    }
    let Some(expected) = &remote.sha256 else { return Ok(true) };
    let (mut digest, mut piece) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut piece).map_err(unreadable)? {
            0 => break,
            read => digest.update(&piece[..read]),
        }
    }
    let found: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(found == *expected)
}

fn unwritable(path: &Path, error: std::io::Error) -> Error {
    let what = format!("{} can't be used: {error}; choose another --into", path.display());
    Error::new(Kind::Config, what).because(error)
}

/// A path as a URL has it; `/` stays.
fn encoded(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
    name.bytes()
        .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}
