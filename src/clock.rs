//! Time as jobs and the engine see it, so that a test can have one of its own. Knows no wall clock.

use std::time::Instant;

/// The time now.
#[inline]
pub fn now() -> Instant {
    #[cfg(test)]
    if let Some(now) = tests::paused() {
        return now;
    }
    Instant::now()
}

#[cfg(test)]
pub(crate) mod tests {
    //! A clock that stands until it is moved, for one thread.

    use std::cell::Cell;
    use std::time::{Duration, Instant};

    thread_local! {
        static PAUSED: Cell<Option<Instant>> = const { Cell::new(None) };
    }

    pub fn paused() -> Option<Instant> {
        PAUSED.get()
    }

    /// This thread's clock stands, until it is dropped.
    pub struct Paused(());

    /// Stands the clock of this thread.
    pub fn stand() -> Paused {
        PAUSED.set(Some(Instant::now()));
        Paused(())
    }

    impl Paused {
        pub fn advance(&self, by: Duration) {
            PAUSED.set(PAUSED.get().map(|now| now + by));
        }
    }

    impl Drop for Paused {
        fn drop(&mut self) {
            PAUSED.set(None);
        }
    }
}
