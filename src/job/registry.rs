//! The jobs that are known by name: running ones, and finished ones for a while, within bounds of
//! count, bytes and time. Starts and ends nothing itself.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Cancel, OnDisconnect};
use crate::clock;
use crate::delivery::JobLog;
use crate::limits::{FINISHED_BYTES_MAX, FINISHED_JOB_S, FINISHED_JOBS_MAX};

/// What is known of a job by its name.
#[derive(Clone)]
pub struct Record {
    /// Its frames.
    pub log: Arc<JobLog>,
    /// Ends it.
    pub cancel: Cancel,
    /// What happens when nobody reads it any more.
    pub on_disconnect: OnDisconnect,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits or runs.
    Active,
    /// Its terminal frame is written.
    Finished,
}

impl Record {
    /// How far it is.
    pub fn state(&self) -> State {
        if self.log.ended() { State::Finished } else { State::Active }
    }
}

/// Jobs by name.
#[derive(Default)]
pub struct Registry(Mutex<Known>);

#[derive(Default)]
struct Known {
    jobs: HashMap<String, Record>,
    finished: VecDeque<(String, Instant)>,
}

impl Registry {
    /// Makes a job known. False: one of that name is known already.
    pub fn insert(&self, id: &str, record: Record) -> bool {
        let mut known = self.lock();
        known.forget_old();
        if known.jobs.contains_key(id) {
            return false;
        }
        known.jobs.insert(id.to_owned(), record);
        true
    }

    /// The job of that name.
    pub fn get(&self, id: &str) -> Option<Record> {
        let mut known = self.lock();
        known.forget_old();
        known.jobs.get(id).cloned()
    }

    /// Forgets a job that was never let in.
    pub fn remove(&self, id: &str) {
        self.lock().jobs.remove(id);
    }

    /// Every job that has not ended.
    pub fn active(&self) -> Vec<Record> {
        let known = self.lock();
        known.jobs.values().filter(|job| job.state() == State::Active).cloned().collect()
    }

    /// Whether any job's log is being read.
    pub fn any_reader(&self) -> bool {
        self.lock().jobs.values().any(|job| !job.log.unread())
    }

    /// Lets the time of a job that has ended begin to run out.
    pub fn finished(&self, id: &str) {
        let mut known = self.lock();
        if known.jobs.contains_key(id) {
            known.finished.push_back((id.to_owned(), clock::now()));
            known.forget_old();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn forget_old(&mut self) {
        // Counted now, not when the job ended: its last frames may have come after that.
        let logs = self.finished.iter().filter_map(|(id, _)| self.jobs.get(id));
        let mut bytes: usize = logs.map(|job| job.log.bytes()).sum();
        while let Some((id, since)) = self.finished.front() {
            let old = clock::now().saturating_duration_since(*since)
                > Duration::from_secs(FINISHED_JOB_S);
            let many = self.finished.len() > FINISHED_JOBS_MAX;
            if !old && !many && bytes <= FINISHED_BYTES_MAX {
                return;
            }
            bytes -= self.jobs.remove(id).map_or(0, |job| job.log.bytes()).min(bytes);
            self.finished.pop_front();
        }
    }
}
