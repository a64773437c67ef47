//! Notices that an operator has deployed something: file events as hints, a slow poll for where none
//! come. Compares what the files are, not what the events say; loads nothing itself.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::manifest::{self, Source};
use super::reload::Chains;
use crate::error::{Error, Kind, Result};
use crate::limits::{LINKS_MAX, RELOAD_DEBOUNCE_MS, RELOAD_POLL_MS, RELOAD_QUIET_MS};
use crate::narration::Narrator;

/// What a file is, as far as a look at it tells; a change of its content changes one of these.
type Fingerprint = Vec<(PathBuf, u64, std::time::SystemTime, (u64, i64, i64))>;

/// What an event says of the files.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hint {
    /// A file was closed by its writer, or moved into place: it is whole.
    Whole,
    /// Somebody writes.
    Writing,
    /// Something else.
    Other,
}

/// Watches the folder of `chains` in a thread of its own, for the worker's whole life. With `poll` no
/// file events are asked for.
pub fn spawn(chains: Arc<Chains>, narrator: Narrator, poll: bool) -> Result<()> {
    let Some(folder) = chains.folder().map(Path::to_owned) else { return Ok(()) };
    // Before the thread: what changes from now on is a change.
    let seen = fingerprint(&folder);
    let (sender, hints) = mpsc::sync_channel(64);
    let mut watch =
        Watch { chains, narrator, folder, poll, seen, sender, hints, eyes: None, told: false };
    watch.open_eyes();
    thread::Builder::new()
        .name("filter-watch".into())
        .spawn(move || {
            loop {
                watch.turn();
            }
        })
        .map(drop)
        .map_err(|e| Error::new(Kind::Internal, "the filters' watcher can't start").because(e))
}

struct Watch {
    chains: Arc<Chains>,
    narrator: Narrator,
    folder: PathBuf,
    poll: bool,
    seen: Fingerprint,
    /// One channel for all watchers, one after the other, so that no hint is lost between two.
    sender: mpsc::SyncSender<Hint>,
    hints: mpsc::Receiver<Hint>,
    /// Asks for file events; none where they are polled for.
    eyes: Option<RecommendedWatcher>,
    /// Whether it was said that changes are polled for.
    told: bool,
}

impl Watch {
    /// Waits for a hint, or for the poll's time, and looks.
    fn turn(&mut self) {
        let period = Duration::from_millis(RELOAD_POLL_MS);
        let hint = self.hints.recv_timeout(period).unwrap_or(Hint::Other);
        let now = fingerprint(&self.folder);
        if now == self.seen {
            return;
        }
        let writing = self.hints.try_iter().any(|hint| hint == Hint::Writing);
        let hint = if writing { Hint::Writing } else { hint };
        // What is whole and known needs neither patience nor a compiler.
        let now = if hint == Hint::Whole && self.chains.knows_what_is_wanted() {
            now
        } else {
            self.settled(now, hint)
        };
        self.seen = now;
        if let Err(error) = self.chains.reload(&self.narrator) {
            tracing::warn!(%error, "filters not reloaded; the last good chain serves");
        }
        // Links may lead elsewhere now, and a folder that was replaced is watched no more.
        self.open_eyes();
    }

    /// Waits until nobody writes and nothing has changed for a while.
    fn settled(&self, mut last: Fingerprint, mut hint: Hint) -> Fingerprint {
        let mut since = Instant::now();
        loop {
            thread::sleep(Duration::from_millis(RELOAD_DEBOUNCE_MS));
            let hints = self.hints.try_iter().filter(|hint| *hint != Hint::Other);
            hint = hints.last().unwrap_or(hint);
            let now = fingerprint(&self.folder);
            if now != last {
                (last, since) = (now, Instant::now());
            }
            // Only a file that was seen to be closed is sure to be whole.
            let quiet = if hint == Hint::Whole { RELOAD_DEBOUNCE_MS } else { RELOAD_QUIET_MS };
            if since.elapsed() >= Duration::from_millis(quiet) {
                return last;
            }
        }
    }

    /// Asks for events of every folder through which the files are reached.
    fn open_eyes(&mut self) {
        if !self.poll {
            // The old one goes when the new one sees.
            let eyes = open_eyes(&folders(&self.folder), self.sender.clone());
            let failed = eyes.as_ref().err().map(ToString::to_string);
            self.eyes = eyes.ok();
            if let Some(error) = failed.filter(|_| !self.told) {
                tracing::warn!(error, "no file events: changes of filters are polled for");
                self.told = true;
            }
        } else if !self.told {
            tracing::warn!("changes of filters are polled for, as --filters-poll asks");
            self.told = true;
        }
        self.chains.note_watching(self.eyes.is_some());
    }
}

fn open_eyes(
    folders: &BTreeSet<PathBuf>,
    sender: mpsc::SyncSender<Hint>,
) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let hint = match event.map(|event| event.kind) {
            Ok(EventKind::Access(AccessKind::Close(AccessMode::Write)))
            | Ok(EventKind::Modify(ModifyKind::Name(_))) => Hint::Whole,
            Ok(EventKind::Access(_)) => return, // our own reading makes these
            Ok(EventKind::Modify(ModifyKind::Data(_)) | EventKind::Create(_)) => Hint::Writing,
            _ => Hint::Other,
        };
        let _ = sender.try_send(hint); // where many wait, one less changes nothing
    })?;
    for folder in folders {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

/// The files that the chain comes from, by the paths that name them; others in the folder are nobody's
/// business, such as what an editor writes before it renames it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut paths = vec![folder.join(manifest::FILE)];
    if let Ok(specs) = manifest::read(Some(folder)) {
        paths.extend(specs.into_iter().filter_map(|spec| match spec.source {
            Source::File(path) => Some(path),
            Source::Builtin(_) => None,
        }));
    }
    paths
}

/// The folder itself, and that of every hop of every link on the way to a file.
fn folders(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::from([folder.to_owned()]);
    for mut path in files(folder).into_iter().chain([folder.to_owned()]) {
        for _ in 0..LINKS_MAX {
            let Some(parent) = path.parent().map(Path::to_owned) else { break };
            let parent = if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent };
            if parent.is_dir() {
                found.insert(parent.clone());
            }
            let Ok(target) = std::fs::read_link(&path) else { break };
            path = parent.join(target);
        }
    }
    found
}

/// Looks at every file that the chain could come from, through links.
fn fingerprint(folder: &Path) -> Fingerprint {
    let look = |path: PathBuf| {
        let meta = std::fs::metadata(&path).ok().filter(std::fs::Metadata::is_file)?;
        let modified = meta.modified().unwrap_or(std::time::UNIX_EPOCH);
        Some((path, meta.len(), modified, identity(&meta)))
    };
    files(folder).into_iter().filter_map(look).collect()
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
