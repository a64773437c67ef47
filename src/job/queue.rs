//! The bounded queue between the server and the engine. Handing in never waits: a full queue is an
//! answer. Only the engine takes out.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};

use super::Job;

/// Jobs that wait for the engine, and a count of those that it runs.
pub struct Queue {
    inner: Mutex<Inner>,
    changed: Condvar,
    jobs_max: usize,
}

#[derive(Default)]
struct Inner {
    waiting: VecDeque<Job>,
    running: usize,
    closed: bool,
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
        Queue { inner: Mutex::default(), changed: Condvar::new(), jobs_max }
    }

    /// Hands a job in. `place` is told how many jobs come before it, under the lock, so that nothing
    /// of the job's engine can be told before.
    pub fn push(&self, job: Job, place: impl FnOnce(&Job, usize)) -> Result<(), Refused> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(Refused::Closed);
        }
        if inner.waiting.len() >= self.jobs_max {
            return Err(Refused::Full);
        }
        place(&job, inner.waiting.len() + inner.running);
        inner.waiting.push_back(job);
        self.changed.notify_all();
        Ok(())
    }

    /// The next job, which counts as running from now on; waits for one if `wait`. None: there is none,
    /// or the queue is closed and empty.
    pub fn take(&self, wait: bool) -> Option<Job> {
        let mut inner = self.lock();
        if wait {
            let idle = |inner: &mut Inner| inner.waiting.is_empty() && !inner.closed;
            inner = self.changed.wait_while(inner, idle).unwrap_or_else(PoisonError::into_inner);
        }
        let job = inner.waiting.pop_front()?;
        inner.running += 1;
        Some(job)
    }

    /// A job that was taken has ended.
    pub fn done(&self) {
        self.lock().running -= 1;
        self.changed.notify_all();
    }

    /// Takes out the waiting jobs that somebody has ended.
    pub fn take_ended(&self) -> Vec<Job> {
        let mut inner = self.lock();
        let (ended, waiting) = std::mem::take(&mut inner.waiting)
            .into_iter()
            .partition(|job| job.ended_waiting_by().is_some());
        inner.waiting = waiting;
        let ended: VecDeque<Job> = ended;
        if !ended.is_empty() {
            self.changed.notify_all();
        }
        ended.into()
    }

    /// The place of the job of that name among those that wait, from 1.
    pub fn position(&self, job_id: &str) -> Option<usize> {
        let named = |job: &Job| job.feed.scope().job_id.as_deref() == Some(job_id);
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
    pub fn drained_within(&self, limit: std::time::Duration) -> bool {
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
