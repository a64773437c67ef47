//! A job's log: its events, append-only. Every reader is an index into it, so back-pressure, resume,
//! replay and other forms of the same stream are one mechanism. Waits for nobody.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::event::{End, Event, Failure};
use crate::limits::FRAMES_BESIDE_TOKENS_MAX;

/// The events of one job, from `started` to its one last event.
pub struct JobLog {
    events: Mutex<Events>,
    readers: AtomicUsize,
    changed: watch::Sender<usize>,
}

#[derive(Default)]
struct Events {
    all: Vec<Arc<Event>>,
    narrations: usize,
    bytes: usize,
    tokens: u32,
    end: Option<Result<End, Failure>>,
}

impl JobLog {
    /// An empty log.
    pub fn new() -> Arc<Self> {
        let changed = watch::Sender::new(0);
        Arc::new(JobLog { events: Mutex::default(), readers: AtomicUsize::new(0), changed })
    }

    /// Appends an event; says whether it still fitted: nothing follows the last one, and narrations
    /// are bounded in number.
    pub fn append(&self, event: Event) -> bool {
        let mut events = self.lock();
        let narration = matches!(event, Event::Narration(_));
        if events.end.is_some() || (narration && events.narrations >= FRAMES_BESIDE_TOKENS_MAX) {
            return false;
        }
        match &event {
            Event::Token(token) => events.tokens = token.i + 1,
            Event::End(end) => {
                events.tokens = end.tokens_out;
                events.end = Some(Ok(end.clone()));
            }
            Event::Error(failure) => events.end = Some(Err(failure.clone())),
            _ => {}
        }
        events.narrations += usize::from(narration);
        events.bytes += event.bytes();
        events.all.push(Arc::new(event));
        let length = events.all.len();
        drop(events);
        self.changed.send_replace(length);
        true
    }

    /// Whether the last event is there.
    pub fn ended(&self) -> bool {
        self.lock().end.is_some()
    }

    /// How it ended, if it has.
    pub fn end(&self) -> Option<Result<End, Failure>> {
        self.lock().end.clone()
    }

    /// Events so far.
    pub fn events(&self) -> usize {
        self.lock().all.len()
    }

    /// Tokens whose text is sure, so far.
    pub fn tokens(&self) -> u32 {
        self.lock().tokens
    }

    /// Bytes of all events.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// A reader that has read the first `after` events already.
    pub fn reader(self: &Arc<Self>, after: usize) -> Reader {
        self.readers.fetch_add(1, Ordering::AcqRel);
        Reader { log: Arc::clone(self), next: after, changed: self.changed.subscribe() }
    }

    /// Whether nobody reads it any more.
    pub fn unread(&self) -> bool {
        self.readers.load(Ordering::Acquire) == 0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// The next event with its number, counted from 1, as soon as there is one; none after the last.
    pub async fn next(&mut self) -> Option<(usize, Arc<Event>)> {
        loop {
            self.changed.mark_unchanged();
            {
                let events = self.log.lock();
                if let Some(event) = events.all.get(self.next) {
                    self.next += 1;
                    return Some((self.next, Arc::clone(event)));
                }
                if events.end.is_some() {
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
    use crate::delivery::event::{Code, Token};

    fn token(i: u32) -> Event {
        Event::Token(Token { t: "a".into(), i, logprobs: Vec::new() })
    }

    fn end() -> Event {
        Event::Error(Failure { code: Code::Timeout, message: String::new(), retriable: true })
    }

    #[tokio::test]
    async fn every_reader_gets_every_event_once_from_where_it_stands() {
        let log = JobLog::new();
        let mut early = log.reader(0);
        let waiting = tokio::spawn(async move {
            let mut got = Vec::new();
            while let Some((id, event)) = early.next().await {
                got.push((id, event.name()));
            }
            got
        });
        for n in 0..50 {
            log.append(token(n));
            tokio::task::yield_now().await;
        }
        assert!(log.append(end()));
        assert!(!log.append(token(50)));
        let got = waiting.await.expect("the reader ends");
        assert_eq!(got.len(), 51);
        assert_eq!(got[50], (51, "error"));
        assert!(got.iter().zip(1..).all(|((id, _), expected)| *id == expected));
        let mut late = log.reader(50);
        assert_eq!(late.next().await.expect("the last event").0, 51);
        assert!(late.next().await.is_none());
        assert_eq!(log.tokens(), 50);
    }

    #[test]
    fn narrations_are_bounded_and_tokens_are_not() {
        let log = JobLog::new();
        for _ in 0..FRAMES_BESIDE_TOKENS_MAX {
            assert!(log.append(Event::Narration("{}".into())));
        }
        assert!(!log.append(Event::Narration("{}".into())));
        assert!(log.append(token(0)));
        assert!(log.append(end()));
        assert_eq!(log.events(), FRAMES_BESIDE_TOKENS_MAX + 2);
    }
}
