//! Notices that an operator has deployed something: file events as hints, a slow poll for where none
//! come. Compares what the files are, not what the events say; loads nothing itself.

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use notify::{RecursiveMode, Watcher as _};

use super::reload::Chains;
use crate::error::{Error, Kind, Result};
use crate::limits::{RELOAD_DEBOUNCE_MS, RELOAD_POLL_MS};
use crate::narration::Narrator;

/// What a file is, as far as a look at it tells; a change of its content changes one of these.
type Fingerprint = Vec<(PathBuf, u64, std::time::SystemTime, (u64, i64, i64))>;

/// Watches the folder of `chains` in a thread of its own, for the worker's whole life.
pub fn spawn(chains: Arc<Chains>, narrator: Narrator) -> Result<()> {
    let Some(folder) = chains.folder().map(Path::to_owned) else { return Ok(()) };
    let mut seen = fingerprint(&folder);
    thread::Builder::new()
        .name("filter-watch".into())
        .spawn(move || {
            let (hint, hints) = mpsc::sync_channel(1);
            let watcher = watch(&folder, hint);
            loop {
                // A hint or the poll: either way the files are looked at.
                if let Err(mpsc::RecvTimeoutError::Disconnected) =
                    hints.recv_timeout(Duration::from_millis(RELOAD_POLL_MS))
                {
                    thread::sleep(Duration::from_millis(RELOAD_POLL_MS)); // nothing watches: poll
                }
                let now = settle(&folder, &hints);
                if now != seen {
                    seen = now;
                    if let Err(error) = chains.reload(&narrator) {
                        tracing::warn!(%error, "filters not reloaded; the last good chain serves");
                    }
                }
                let _ = &watcher;
            }
        })
        .map(drop)
        .map_err(|e| Error::new(Kind::Internal, "the filters' watcher can't start").because(e))
}

fn watch(folder: &Path, hint: mpsc::SyncSender<()>) -> Option<notify::RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |_| {
        let _ = hint.try_send(()); // one waiting hint is as good as many
    })
    .inspect_err(|error| tracing::warn!(%error, "no file events: changes of filters are polled"))
    .ok()?;
    watcher
        .watch(folder, RecursiveMode::NonRecursive)
        .inspect_err(
            |error| tracing::warn!(%error, "no file events: changes of filters are polled"),
        )
        .ok()?;
    Some(watcher)
}

/// Waits until the files have not changed for the debounce time.
fn settle(folder: &Path, hints: &mpsc::Receiver<()>) -> Fingerprint {
    let mut last = fingerprint(folder);
    loop {
        thread::sleep(Duration::from_millis(RELOAD_DEBOUNCE_MS));
        while hints.try_recv().is_ok() {}
        let now = fingerprint(folder);
        if now == last {
            return now;
        }
        last = now;
    }
}

/// Looks at every file that the chain could come from, through links.
fn fingerprint(folder: &Path) -> Fingerprint {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .map(|listing| listing.filter_map(|entry| entry.ok().map(|e| e.path())).collect())
        .unwrap_or_default();
    if let Ok(specs) = super::manifest::read(Some(folder)) {
        paths.extend(specs.into_iter().filter_map(|spec| match spec.source {
            super::manifest::Source::File(path) => Some(path),
            super::manifest::Source::Builtin(_) => None,
        }));
    }
    paths.sort();
    paths.dedup();
    paths
        .into_iter()
        .filter_map(|path| {
            let meta = std::fs::metadata(&path).ok()?;
            meta.is_file().then(|| {
                let modified = meta.modified().unwrap_or(std::time::UNIX_EPOCH);
                (path, meta.len(), modified, identity(&meta))
            })
        })
        .collect()
}

/// Inode and time of change, which betray a file of the same size and time of modification.
#[cfg(unix)]
fn identity(meta: &std::fs::Metadata) -> (u64, i64, i64) {
    use std::os::unix::fs::MetadataExt as _;
    (meta.ino(), meta.ctime(), meta.ctime_nsec())
}

#[cfg(not(unix))]
fn identity(_: &std::fs::Metadata) -> (u64, i64, i64) {
    (0, 0, 0)
}
