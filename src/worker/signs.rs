//! Signs from the system that the worker should end: signals, and the end of its parent process.
//! Acts on none of them.

use std::os::unix::process::parent_id;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::{Error, Kind, Result};
use crate::limits::PARENT_POLL_MS;
use crate::narration::facts::ShutdownCause;

/// SIGTERM, SIGINT, and the parent process where it is watched. What comes before anybody waits for it
/// is not lost.
pub struct Signs {
    terminate: Signal,
    interrupt: Signal,
    parent: Option<u32>,
}

impl Signs {
    /// Listens from now on; `with_parent` watches the process that is the parent now.
    pub fn new(with_parent: bool) -> Result<Self> {
        let on = |kind| {
            signal(kind)
                .map_err(|e| Error::new(Kind::Internal, "signals can't be listened to").because(e))
        };
        Ok(Signs {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            parent: with_parent.then(parent_id),
        })
    }

    /// Waits for the first of them.
    pub async fn any(&mut self) -> ShutdownCause {
        let parent = self.parent;
        tokio::select! {
            () = self.signal() => ShutdownCause::Signal,
            () = gone(parent) => ShutdownCause::ParentGone,
        }
    }

    /// Waits for the next signal.
    pub async fn signal(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// SIGHUP: somebody wants the filters to be loaded anew.
pub struct Hangups(Signal);

impl Hangups {
    /// Listens from now on.
    pub fn new() -> Result<Self> {
        signal(SignalKind::hangup())
            .map(Hangups)
            .map_err(|e| Error::new(Kind::Internal, "signals can't be listened to").because(e))
    }

    /// Does `act` for each of them, one after the other, on a thread that may take its time.
    pub fn each(mut self, runtime: &Runtime, act: impl Fn() + Clone + Send + 'static) {
        runtime.spawn(async move {
            while self.0.recv().await.is_some() {
                let _ = tokio::task::spawn_blocking(act.clone()).await;
            }
        });
    }
}

/// Waits until this process has another parent than `parent`, as the orphan of one that ended has.
async fn gone(parent: Option<u32>) {
    let Some(parent) = parent else { return std::future::pending().await };
    while parent_id() == parent {
        tokio::time::sleep(Duration::from_millis(PARENT_POLL_MS)).await;
    }
}
