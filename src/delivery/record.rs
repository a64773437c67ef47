//! The recording of `serve --record`: every told fact before any filter, a line each, in a file that only
//! its owner may read. Written by a thread of its own, so that nobody waits; what can't be written is
//! counted. At most two files are kept: the one being written and the one before.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result};
use crate::limits::{RECORD_FACTS_MAX, RECORD_FILE_BYTES_MAX, RECORD_LINE_BYTES_MAX};
use crate::narration::{Told, recorded};

/// Takes in facts to be recorded.
pub struct Recorder {
    facts: SyncSender<Told>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    waiting: AtomicUsize,
    lost: AtomicU64,
}

impl Recorder {
    /// Begins a recording at `path`; what lies there is set aside as `path.1`.
    pub fn start(path: &Path) -> Result<Self> {
        Self::start_with(path, RECORD_FILE_BYTES_MAX)
    }

    fn start_with(path: &Path, bytes_max: u64) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let (facts, taken) = sync_channel(RECORD_FACTS_MAX);
        let file = Tape::begin(path, bytes_max).map_err(|error| {
            let message = format!("--record {} can't be written: {error}", path.display());
            Error::new(Kind::Config, message)
        })?;
        let writer = Writer { file, facts: taken, shared: Arc::clone(&shared) };
        thread::Builder::new()
            .name("record".into())
            .spawn(move || writer.run())
            .map_err(|e| Error::new(Kind::Internal, "the recorder can't start").because(e))?;
        Ok(Recorder { facts, shared })
    }

    /// Takes in a fact; never waits.
    pub fn record(&self, told: &Told) {
        self.shared.waiting.fetch_add(1, Ordering::AcqRel);
        if self.facts.try_send(told.clone()).is_err() {
            self.shared.waiting.fetch_sub(1, Ordering::AcqRel);
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What was lost since the last call.
    pub fn take_lost(&self) -> Option<u64> {
        Some(self.shared.lost.swap(0, Ordering::Relaxed)).filter(|lost| *lost > 0)
    }

    /// Waits until everything taken in is written, at most for `limit`.
    pub fn flush(&self, limit: Duration) {
        let until = Instant::now() + limit;
        while self.shared.waiting.load(Ordering::Acquire) > 0 && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The thread that writes.
struct Writer {
    file: Tape,
    facts: Receiver<Told>,
    shared: Arc<Shared>,
}

impl Writer {
    fn run(mut self) {
        let mut broken = false;
        while let Ok(first) = self.facts.recv() {
            let (mut count, mut failed) = (0, 0);
            for told in std::iter::once(first).chain(self.facts.try_iter()) {
                count += 1;
                failed += u64::from(self.file.write(&recorded::line(&told)).is_err());
            }
            let flushed = self.file.flush();
            if flushed.is_err() || failed > 0 {
                self.shared.lost.fetch_add(failed.max(1), Ordering::Relaxed);
                if !broken {
                    tracing::warn!("the recording can't be written; facts are missing in it");
                }
            }
            broken = flushed.is_err() || failed > 0;
            self.shared.waiting.fetch_sub(count, Ordering::AcqRel);
        }
    }
}

/// The file being written.
struct Tape {
    path: PathBuf,
    file: BufWriter<File>,
    bytes: u64,
    bytes_max: u64,
}

impl Tape {
    fn begin(path: &Path, bytes_max: u64) -> io::Result<Self> {
        if path.exists() {
            std::fs::rename(path, before(path))?;
        }
        let file = BufWriter::new(create(path)?);
        Ok(Tape { path: path.to_owned(), file, bytes: 0, bytes_max })
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        let bytes = line.len() + 1;
        if line.is_empty() || bytes > RECORD_LINE_BYTES_MAX {
            return Err(io::Error::other("the line is too long"));
        }
        if self.bytes + bytes as u64 > self.bytes_max {
            self.file.flush()?;
            *self = Tape::begin(&self.path, self.bytes_max)?;
        }
        self.file.write_all(line.as_bytes())?;
        self.file.write_all(b"\n")?;
        self.bytes += bytes as u64;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Where a recording goes when a new one begins in its place.
fn before(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// A new file that nobody else may read. One that appeared meanwhile, or a link, is an error.
fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::trial;
    use crate::narration::Fact;

    #[test]
    fn facts_are_recorded_in_order_in_at_most_two_private_files() {
        let folder = std::env::temp_dir().join(format!("rbees-record-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(&folder).expect("a temporary folder");
        let path = folder.join("events.ndjson");
        std::fs::write(&path, "an older one\n").expect("a temporary file");
        let recorder = Recorder::start_with(&path, 16 * 1024).expect("it can be written");
        let samples: Vec<Told> = Fact::samples().into_iter().map(trial::told).collect();
        for told in samples.iter().cycle().take(500) {
            recorder.record(told);
            recorder.flush(Duration::from_secs(60));
        }
        assert_eq!(recorder.take_lost(), None);
        let mut read: Vec<String> = Vec::new();
        for path in [before(&path), path.clone()] {
            let text = std::fs::read_to_string(&path).expect("it was written");
            assert!(text.len() <= 16 * 1024 && text.ends_with('\n'), "{} bytes", text.len());
            read.extend(text.lines().map(str::to_owned));
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt as _;
                let mode = std::fs::metadata(&path).expect("it was written").permissions().mode();
                assert_eq!(mode & 0o777, 0o600);
            }
        }
        let last: Vec<&Told> = samples.iter().cycle().take(500).collect();
        for (line, told) in read.iter().zip(&last[500 - read.len()..]) {
            assert_eq!(recorded::read(line).expect("a fact").narration, told.narration);
        }
        assert_eq!(std::fs::read_dir(&folder).expect("the folder").count(), 2);
        std::fs::remove_dir_all(&folder).expect("it was made above");
    }
}
