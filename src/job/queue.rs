//! The bounded queue between the server and the engine. Handing in never waits: a full queue is an
//! answer. Only the engine takes out, and always the first: nobody is overtaken.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Job;
use crate::limits::ENDS_MEASURED_MAX;

/// Jobs that wait for the engine, and a count of those that it runs.
pub struct Queue {
    inner: Mutex<Inner>,
    changed: Condvar,
    jobs_max: usize,
}

struct Inner {
    waiting: VecDeque<Waiting>,
    running: usize,
    /// Jobs that the engine can run at one time.
    slots: usize,
    closed: bool,
    /// Time in which something ran.
    busy: BusyClock,
    /// When the last jobs ended by that clock, the latest last.
    ends: VecDeque<Duration>,
}

/// Goes while something runs: idle time says nothing of how fast jobs end.
#[derive(Default)]
struct BusyClock {
    before: Duration,
    since: Option<Instant>,
}

impl BusyClock {
    fn start(&mut self) {
        self.since.get_or_insert_with(Instant::now);
    }

    fn stop(&mut self) {
        self.before = self.now();
        self.since = None;
    }

    fn now(&self) -> Duration {
        self.before + self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

struct Waiting {
    job: Job,
    /// The place it was last told of.
    told: Option<usize>,
}

/// Where a job stands that has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its place in the queue, from 1.
    pub position: usize,
    /// Jobs to be served before it, running ones included.
    pub ahead: usize,
}

/// Why a job was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// As many wait as may.
    Full,
    /// The worker takes no more work.
    Closed,
}

impl Queue {
    /// A queue for at most `jobs_max` waiting jobs.
    pub fn new(jobs_max: usize) -> Self {
        let inner = Inner {
            waiting: VecDeque::new(),
            running: 0,
            slots: 1,
            closed: false,
            busy: BusyClock::default(),
            ends: VecDeque::new(),
        };
        Queue { inner: Mutex::new(inner), changed: Condvar::new(), jobs_max }
    }

    /// Says how many jobs the engine can run at one time, so that it is known who has to wait.
    pub fn serve_at_once(&self, slots: usize) {
        self.lock().slots = slots;
    }

    /// Hands a job in. `place` is told under the lock where it stands if it has to wait, so that
    /// nothing of the job's engine can be told before.
    pub fn push(&self, job: Job, place: impl FnOnce(&Job, Option<Place>)) -> Result<(), Refused> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(Refused::Closed);
        }
        if inner.waiting.len() >= self.jobs_max {
            return Err(Refused::Full);
        }
        let before = inner.waiting.len();
        let waits = before > 0 || inner.running >= inner.slots;
        let stands = Place { position: before + 1, ahead: before + inner.running };
        place(&job, waits.then_some(stands));
        inner.waiting.push_back(Waiting { job, told: waits.then_some(stands.position) });
        self.changed.notify_all();
        Ok(())
    }

    /// The first job, if there is one and `fits` says that there is room for it; it counts as running
    /// from now on. With `wait`, waits for one.
    pub fn take(&self, wait: bool, fits: impl FnOnce(&Job) -> bool) -> Option<Job> {
        let mut inner = self.lock();
        if wait {
            let idle = |inner: &mut Inner| inner.waiting.is_empty() && !inner.closed;
            inner = self.changed.wait_while(inner, idle).unwrap_or_else(PoisonError::into_inner);
        }
        if !fits(&inner.waiting.front()?.job) {
            return None;
        }
        let first = inner.waiting.pop_front()?;
        inner.running += 1;
        inner.busy.start();
        Some(first.job)
    }

    /// Tells waiting jobs where they stand, where that is news: the first four places one by one,
    /// those behind each time that a quarter of the way is done.
    pub fn tell_places(&self, mut tell: impl FnMut(&Job, Place)) {
        let mut inner = self.lock();
        let running = inner.running;
        for (before, waiting) in inner.waiting.iter_mut().enumerate() {
            let position = before + 1;
            let news = waiting
                .told
                .is_none_or(|told| position < told && (position <= 4 || position * 4 <= told * 3));
            if news {
                waiting.told = Some(position);
                tell(&waiting.job, Place { position, ahead: before + running });
            }
        }
    }

    /// A job that was taken has ended.
    pub fn done(&self) {
        let mut inner = self.lock();
        inner.running -= 1;
        if inner.ends.len() == ENDS_MEASURED_MAX {
            inner.ends.pop_front();
        }
        let now = inner.busy.now();
        inner.ends.push_back(now);
        if inner.running == 0 {
            inner.busy.stop();
        }
        self.changed.notify_all();
    }

    /// Jobs that end in a second while some run, measured over the last ones; none before two have
    /// ended.
    pub fn ends_per_second(&self) -> Option<f64> {
        let inner = self.lock();
        let (first, count) = (*inner.ends.front()?, inner.ends.len() - 1);
        // Up to now, not to the last end: a queue that stands still has to show.
        let span = inner.busy.now().saturating_sub(first);
        (count > 0).then(|| count as f64 / span.as_secs_f64().max(1e-3))
    }

    /// Time in which so many jobs end by the measured rate, s; none before there is one.
    pub fn seconds_for(&self, jobs: usize) -> Option<f64> {
        self.ends_per_second().map(|rate| jobs as f64 / rate)
    }

    /// Takes out the waiting jobs that somebody has ended.
    pub fn take_ended(&self) -> Vec<Job> {
        let mut inner = self.lock();
        let mut ended = Vec::new();
        if inner.waiting.iter().any(|waiting| waiting.job.ended_waiting_by().is_some()) {
            let all = std::mem::take(&mut inner.waiting).into_iter();
            let (out, waiting) = all.partition(|waiting| waiting.job.ended_waiting_by().is_some());
            inner.waiting = waiting;
            let out: VecDeque<Waiting> = out;
            ended.extend(out.into_iter().map(|waiting| waiting.job));
            self.changed.notify_all();
        }
        ended
    }

    /// The place of the job of that name among those that wait, from 1.
    pub fn position(&self, job_id: &str) -> Option<usize> {
        let named = |waiting: &Waiting| waiting.job.feed.scope().job_id.as_deref() == Some(job_id);
        self.lock().waiting.iter().position(named).map(|at| at + 1)
    }

    /// Jobs running and waiting.
    pub fn lengths(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.running, inner.waiting.len())
    }

    /// Takes no more jobs; what is in it is still served.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Whether nothing waits or runs within `limit`.
    pub fn drained_within(&self, limit: Duration) -> bool {
        let busy = |inner: &mut Inner| inner.running > 0 || !inner.waiting.is_empty();
        let (guard, timeout) = self
            .changed
            .wait_timeout_while(self.lock(), limit, busy)
            .unwrap_or_else(PoisonError::into_inner);
        drop(guard);
        !timeout.timed_out()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_stands_while_nothing_runs() {
        let mut clock = BusyClock::default();
        let pause = || std::thread::sleep(Duration::from_millis(20));
        pause();
        assert_eq!(clock.now(), Duration::ZERO);
        clock.start();
        pause();
        clock.start(); // a second job beside the first
        clock.stop();
        let busy = clock.now();
        assert!(busy >= Duration::from_millis(20), "{busy:?}");
        pause();
        assert_eq!(clock.now(), busy);
        clock.start();
        pause();
        assert!(clock.now() >= busy + Duration::from_millis(20));
    }
}
