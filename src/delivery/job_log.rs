//! A job's log: its finished frames, append-only. Every reader is an index into it, so back-pressure,
//! resume and replay are one mechanism. Waits for nobody.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use crate::limits::FRAMES_BESIDE_TOKENS_MAX;

/// The frames of one job, from `started` to its one terminal frame.
pub struct JobLog {
    frames: Mutex<Frames>,
    readers: AtomicUsize,
    changed: watch::Sender<usize>,
}

#[derive(Default)]
struct Frames {
    all: Vec<Bytes>,
    narrations: usize,
    bytes: usize,
    ended: bool,
}

impl JobLog {
    /// An empty log.
    pub fn new() -> Arc<Self> {
        let changed = watch::Sender::new(0);
        Arc::new(JobLog { frames: Mutex::default(), readers: AtomicUsize::new(0), changed })
    }

    /// Appends the frame that `make` builds for its number. After the terminal frame nothing follows.
    pub fn append(&self, make: impl FnOnce(usize) -> Bytes) {
        self.add(make, false, false);
    }

    /// Appends a narration; says whether it still fitted.
    pub fn append_narration(&self, make: impl FnOnce(usize) -> Bytes) -> bool {
        self.add(make, true, false)
    }

    /// Appends the terminal frame.
    pub fn finish(&self, make: impl FnOnce(usize) -> Bytes) {
        self.add(make, false, true);
    }

    fn add(&self, make: impl FnOnce(usize) -> Bytes, narration: bool, last: bool) -> bool {
        let mut frames = self.lock();
        if frames.ended || (narration && frames.narrations >= FRAMES_BESIDE_TOKENS_MAX) {
            return false;
        }
        let frame = make(frames.all.len() + 1);
        frames.narrations += usize::from(narration);
        frames.bytes += frame.len();
        frames.all.push(frame);
        frames.ended = last;
        let length = frames.all.len();
        drop(frames);
        self.changed.send_replace(length);
        true
    }

    /// Whether the terminal frame is there.
    pub fn ended(&self) -> bool {
        self.lock().ended
    }

    /// Frames so far.
    pub fn frames(&self) -> usize {
        self.lock().all.len()
    }

    /// Bytes of all frames.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// A reader that has read the first `after` frames already.
    pub fn reader(self: &Arc<Self>, after: usize) -> Reader {
        self.readers.fetch_add(1, Ordering::AcqRel);
        Reader { log: Arc::clone(self), next: after, changed: self.changed.subscribe() }
    }

    /// Whether nobody reads it any more.
    pub fn unread(&self) -> bool {
        self.readers.load(Ordering::Acquire) == 0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Frames> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An index into a job's log.
pub struct Reader {
    log: Arc<JobLog>,
    next: usize,
    changed: watch::Receiver<usize>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.log.readers.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Reader {
    /// The next frame, as soon as there is one; none after the terminal frame.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.changed.mark_unchanged();
            {
                let frames = self.log.lock();
                if let Some(frame) = frames.all.get(self.next) {
                    self.next += 1;
                    return Some(frame.clone());
                }
                if frames.ended {
                    return None;
                }
            }
            // The log, which this reader holds, holds the sender.
            self.changed.changed().await.ok()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_reader_gets_every_frame_once_from_where_it_stands() {
        let log = JobLog::new();
        let mut early = log.reader(0);
        let waiting = tokio::spawn(async move {
            let mut got = Vec::new();
            while let Some(frame) = early.next().await {
                got.push(frame);
            }
            got
        });
        for n in 0..50 {
            log.append(|id| Bytes::from(format!("{n}:{id}")));
            tokio::task::yield_now().await;
        }
        log.finish(|id| Bytes::from(format!("end:{id}")));
        log.append(|_| Bytes::from("never"));
        let got = waiting.await.expect("the reader ends");
        assert_eq!(got.len(), 51);
        assert_eq!(got[50], "end:51");
        let mut late = log.reader(50);
        assert_eq!(late.next().await.expect("the last frame"), "end:51");
        assert!(late.next().await.is_none());
    }
}
