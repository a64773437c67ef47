//! What others may see of the engine while it works. Read without waiting for it, so that a hung
//! engine can be seen too.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::engine::kv::Counts;

/// The engine as others see it.
pub struct Pulse {
    /// Memory of weights and caches, bytes.
    pub resident_bytes: AtomicU64,
    /// KV blocks that running requests hold.
    pub blocks_held: AtomicUsize,
    /// KV blocks kept for prompts to come.
    pub blocks_kept: AtomicUsize,
    /// KV blocks there are.
    pub blocks_total: AtomicUsize,
    /// Tokens of prompts that the prefix cache had.
    pub reused_tokens: AtomicU64,
    origin: Instant,
    /// When the step that runs began, µs after `origin`; 0: none runs.
    step_began_us: AtomicU64,
}

impl Default for Pulse {
    fn default() -> Self {
        Pulse {
            resident_bytes: AtomicU64::new(0),
            blocks_held: AtomicUsize::new(0),
            blocks_kept: AtomicUsize::new(0),
            blocks_total: AtomicUsize::new(0),
            reused_tokens: AtomicU64::new(0),
            origin: Instant::now(),
            step_began_us: AtomicU64::new(0),
        }
    }
}

impl Pulse {
    /// How long the step that runs has been running; a hung engine shows in nothing else.
    pub fn step_time(&self) -> Duration {
        match self.step_began_us.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            began => self.origin.elapsed().saturating_sub(Duration::from_micros(began)),
        }
    }

    pub(super) fn step_begins(&self) {
        let now = u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX).max(1);
        self.step_began_us.store(now, Ordering::Relaxed);
    }

    pub(super) fn step_ended(&self, resident_bytes: u64, blocks: Counts) {
        self.step_began_us.store(0, Ordering::Relaxed);
        self.resident_bytes.store(resident_bytes, Ordering::Relaxed);
        self.blocks_held.store(blocks.held, Ordering::Relaxed);
        self.blocks_kept.store(blocks.kept, Ordering::Relaxed);
        self.blocks_total.store(blocks.total, Ordering::Relaxed);
    }
}
