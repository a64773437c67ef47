//! When a request that was refused may come again, for `Retry-After`: by what is measured, not by a
//! number that somebody once chose. Refuses nothing itself.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::App;
use crate::limits::RETRY_AFTER_S_MAX;
use crate::narration::facts::WorkerState;

/// Seconds until this worker takes work again; while it drains, until it is gone and whatever replaces
/// it may be asked. At least 1.
pub fn after_s(app: &App) -> u64 {
    let seconds = match app.state() {
        WorkerState::Ready => app.queue.seconds_for(1).unwrap_or(1.0), // one job ends, one is let in
        WorkerState::Draining => drained_in(app),
        WorkerState::Loading => loaded_in(app),
        // What has lasted so long is most likely to last as long again.
        WorkerState::Stalled => app.pulse.step_time().as_secs_f64(),
        WorkerState::Failed => RETRY_AFTER_S_MAX as f64,
    };
    (seconds.ceil() as u64).clamp(1, RETRY_AFTER_S_MAX)
}

/// Until the jobs that are left have ended, at the latest when the grace is over.
fn drained_in(app: &App) -> f64 {
    let (running, waiting) = app.queue.lengths();
    let until = app.life.drains_until.get();
    let left = until.map_or(0.0, |u| u.saturating_duration_since(Instant::now()).as_secs_f64());
    app.queue.seconds_for(running + waiting).map_or(left, |ended| ended.min(left))
}

/// Until the model is read, at the rate so far.
fn loaded_in(app: &App) -> f64 {
    let (done, total) = &app.life.loading;
    let (done, total) = (done.load(Ordering::Relaxed), total.load(Ordering::Relaxed));
    if done == 0 {
        return 1.0;
    }
    app.life.began.elapsed().as_secs_f64() * total.saturating_sub(done) as f64 / done as f64
}
