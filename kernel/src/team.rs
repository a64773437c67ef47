//! A team of threads that computes together: awake within a step, asleep between requests. One job
//! runs at a time, its caller takes part. Waiting spins for a bounded time, then gives the core away.

use std::any::Any;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle, Thread};

use crate::limits::{TEAM_SPINS_MAX, TEAM_THREADS_MAX, TEAM_YIELDS_MAX};

/// What one member does; borrowed for the time of [`Team::run`] alone.
type Job = *const (dyn Fn(&Member<'_>) + Sync);

/// Threads that run one function at the same time, each with its own [`Member`].
pub struct Team {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    threads: usize,
    /// Counts jobs; a change is the call to work.
    epoch: AtomicU32,
    job: UnsafeCell<Option<Job>>,
    /// Workers that are still in the current job.
    busy: AtomicUsize,
    closing: AtomicBool,
    arrived: AtomicUsize,
    generation: AtomicU32,
    /// Set by a member that panicked, so that nobody waits for it at a barrier.
    broken: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// For each worker: whether it sleeps.
    asleep: Vec<AtomicBool>,
}

// SAFETY: `job` is written by the one caller of `run` (which has `&mut Team`) while no worker is in a
// job, and read by workers only between the release of `epoch` and that of `busy`. What it points to
// is `Sync`. Everything else in it is `Sync` by itself.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer is used only while `run` keeps what it points to alive.
unsafe impl Send for Shared {}

/// One member of the team within a job.
pub struct Member<'a> {
    /// Which one, from 0; 0 is the caller of the job.
    pub index: usize,
    shared: &'a Shared,
}

/// Spins for a bounded time, then yields for a bounded time; `false` when both are used up.
fn wait_for(mut there: impl FnMut() -> bool) -> bool {
    for _ in 0..TEAM_SPINS_MAX {
        if there() {
            return true;
        }
        std::hint::spin_loop();
    }
    for _ in 0..TEAM_YIELDS_MAX {
        if there() {
            return true;
        }
        thread::yield_now();
    }
    false
}

impl Member<'_> {
    /// Members of the team.
    pub fn of(&self) -> usize {
        self.shared.threads
    }

    /// This member's part of `items`, in order and as even as whole items allow.
    pub fn share(&self, items: usize) -> Range<usize> {
        let at = |index: usize| items * index / self.of();
        at(self.index)..at(self.index + 1)
    }

    /// Waits until every member is here. What they wrote before is seen by all after.
    pub fn barrier(&self) {
        let shared = self.shared;
        if shared.threads == 1 {
            return;
        }
        let generation = shared.generation.load(Ordering::Acquire);
        if shared.arrived.fetch_add(1, Ordering::AcqRel) + 1 == shared.threads {
            shared.arrived.store(0, Ordering::Relaxed);
            shared.generation.store(generation.wrapping_add(1), Ordering::Release);
            return;
        }
        // The others compute within this job: giving the core away is enough, sleep is not needed.
        while !wait_for(|| shared.generation.load(Ordering::Acquire) != generation) {
            assert!(!shared.broken.load(Ordering::Acquire), "another thread of the team panicked");
        }
    }
}

impl Team {
    /// A team of `threads` (at least one, the caller's own).
    ///
    /// # Panics
    /// Where the system gives no thread.
    pub fn new(threads: usize) -> Self {
        let threads = threads.clamp(1, TEAM_THREADS_MAX);
        let shared = Arc::new(Shared {
            threads,
            epoch: AtomicU32::new(0),
            job: UnsafeCell::new(None),
            busy: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            arrived: AtomicUsize::new(0),
            generation: AtomicU32::new(0),
            broken: AtomicBool::new(false),
            panic: Mutex::new(None),
            asleep: (1..threads).map(|_| AtomicBool::new(false)).collect(),
        });
        let workers = (1..threads)
            .map(|index| {
                let shared = Arc::clone(&shared);
                thread::Builder::new()
                    .name(format!("kernel-{index}"))
                    .spawn(move || work(&shared, index))
                    .expect("the system gives a thread at start")
            })
            .collect();
        Team { shared, workers }
    }

    /// Members, with the caller.
    pub fn threads(&self) -> usize {
        self.shared.threads
    }

    /// Runs `job` once on every member and returns when all have ended. A panic in it is the caller's.
    pub fn run(&mut self, job: impl Fn(&Member<'_>) + Sync) {
        let shared = &*self.shared;
        let caller = Member { index: 0, shared };
        if self.workers.is_empty() {
            return job(&caller);
        }
        let job: &(dyn Fn(&Member<'_>) + Sync) = &job;
        // SAFETY: only the lifetime is changed. `join` below returns after every worker has left the
        // job, also when this member's part panics, so nobody uses the pointer after this call.
        let lent: Job = unsafe { std::mem::transmute(std::ptr::from_ref(job)) };
        // SAFETY: no worker reads it now: all left the last job, and the epoch has not moved yet.
        unsafe { *shared.job.get() = Some(lent) };
        shared.busy.store(self.workers.len(), Ordering::Relaxed);
        shared.epoch.fetch_add(1, Ordering::SeqCst);
        for (worker, asleep) in self.workers.iter().zip(&shared.asleep) {
            if asleep.load(Ordering::SeqCst) {
                worker.thread().unpark();
            }
        }
        let own = catch_unwind(AssertUnwindSafe(|| job(&caller)));
        if own.is_err() {
            shared.broken.store(true, Ordering::Release);
        }
        while !wait_for(|| shared.busy.load(Ordering::Acquire) == 0) {}
        if shared.broken.swap(false, Ordering::AcqRel) {
            shared.arrived.store(0, Ordering::Relaxed);
            let theirs = shared.panic.lock().map_or(None, |mut panic| panic.take());
            resume_unwind(own.err().or(theirs).unwrap_or_else(|| Box::new("a thread panicked")));
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            Thread::unpark(worker.thread());
            // It has caught its panics; there is nothing left to hear.
            let _ = worker.join();
        }
    }
}

/// A worker's life: wait for the epoch to move, do the job, say so.
fn work(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        let moved = || shared.epoch.load(Ordering::SeqCst) != seen;
        if !wait_for(moved) {
            let asleep = &shared.asleep[index - 1];
            asleep.store(true, Ordering::SeqCst);
            while shared.epoch.load(Ordering::SeqCst) == seen {
                thread::park();
            }
            asleep.store(false, Ordering::SeqCst);
        }
        seen = seen.wrapping_add(1);
        if shared.closing.load(Ordering::SeqCst) {
            return;
        }
        // SAFETY: `run` wrote it before it moved the epoch, and keeps what it points to alive until
        // `busy` is 0.
        let job = unsafe { &*(*shared.job.get()).expect("a job comes with every epoch") };
        let done = catch_unwind(AssertUnwindSafe(|| job(&Member { index, shared })));
        if let Err(panic) = done {
            if let Ok(mut first) = shared.panic.lock() {
                first.get_or_insert(panic);
            }
            shared.broken.store(true, Ordering::Release);
        }
        shared.busy.fetch_sub(1, Ordering::Release);
    }
}

/// A slice that the members of a job write in parts that do not meet.
#[derive(Clone, Copy)]
pub struct Parts<T> {
    first: *mut T,
    len: usize,
}

// SAFETY: every access is `unsafe` and promises that no two members hold the same part.
unsafe impl<T: Send> Sync for Parts<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Parts<T> {}

impl<T> Parts<T> {
    /// The parts of `whole`, which stays borrowed by the caller while they are used.
    pub fn of(whole: &mut [T]) -> Self {
        Parts { first: whole.as_mut_ptr(), len: whole.len() }
    }

    /// One part.
    ///
    /// # Safety
    /// What the parts were made of still lives, and no other reference into `range` exists meanwhile.
    #[allow(clippy::mut_from_ref)] // it is what this type is for
    #[inline(always)]
    pub unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "a part lies inside its whole");
        // SAFETY: inside, by the line above; alone, by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(range.start), range.len()) }
    }

    /// All of it, to read, once everybody has written.
    ///
    /// # Safety
    /// What the parts were made of still lives, and nobody writes meanwhile (a barrier lies between).
    #[inline(always)]
    pub unsafe fn whole(&self) -> &[T] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts(self.first, self.len) }
    }
}
