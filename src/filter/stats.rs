//! What is counted: of each filter, across reloads as long as its name stays in the chain, and of
//! what became of narrations, by kind and sink. Counts only; holds no text of any narration.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use super::chain::Verdict;
use crate::limits::SHADOW_SAMPLES_MAX;
use crate::narration::vocabulary::types::{Context, Narration};
use crate::narration::{Fact, Sinks};

/// What one filter did.
#[derive(Default)]
pub struct Stats {
    calls: AtomicU64,
    busy_ns: AtomicU64,
    failures: AtomicU64,
    drops: AtomicU64,
    differences: AtomicU64,
    samples: Mutex<VecDeque<Difference>>,
}

/// The counts of one filter at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Counts {
    /// Calls, failed ones included.
    pub calls: u64,
    /// Time spent in them, µs.
    pub busy_us: u64,
    /// Calls that failed.
    pub failures: u64,
    /// Narrations that it left no sink.
    pub drops: u64,
    /// Narrations and texts that it would have changed, as a shadow.
    pub shadow_differences: u64,
    /// The latest of them, without their texts.
    pub shadow_samples: Vec<Difference>,
}

/// What a shadow would have changed of one narration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Difference {
    /// Sequence number of the narration; 0: of generated text.
    pub sequence: u64,
    /// Kind of the fact, or `text`.
    pub kind: String,
    /// What would be other: `fact`, `target`, `sinks`, `human`, `cute`, `story`, `text`.
    pub changed: Vec<&'static str>,
}

impl Stats {
    /// Counts a call.
    pub fn call(&self, took: Duration, failed: bool) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.busy_ns.fetch_add(ns, Ordering::Relaxed);
        self.failures.fetch_add(u64::from(failed), Ordering::Relaxed);
    }

    /// Counts a narration that was left no sink.
    pub fn drop_one(&self) {
        self.drops.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts what a shadow would have changed, if anything.
    pub fn compare(&self, context: &Context, before: &Narration, after: &Narration) {
        let parts = [
            ("fact", before.fact != after.fact),
            ("target", before.target != after.target),
            ("sinks", before.sinks != after.sinks),
            ("human", before.human != after.human),
            ("cute", before.cute != after.cute),
            ("story", before.story != after.story),
        ];
        let changed: Vec<_> =
            parts.into_iter().filter_map(|(part, other)| other.then_some(part)).collect();
        if !changed.is_empty() {
            let (sequence, kind) = (context.sequence, context.kind.clone());
            self.differ(Difference { sequence, kind, changed });
        }
    }

    /// Counts a difference.
    pub fn differ(&self, difference: Difference) {
        self.differences.fetch_add(1, Ordering::Relaxed);
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() == SHADOW_SAMPLES_MAX {
            samples.pop_front();
        }
        samples.push_back(difference);
    }

    /// The counts now.
    pub fn counts(&self) -> Counts {
        Counts {
            calls: self.calls.load(Ordering::Relaxed),
            busy_us: self.busy_ns.load(Ordering::Relaxed) / 1_000,
            failures: self.failures.load(Ordering::Relaxed),
            drops: self.drops.load(Ordering::Relaxed),
            shadow_differences: self.differences.load(Ordering::Relaxed),
            shadow_samples: self
                .samples
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .iter()
                .cloned()
                .collect(),
        }
    }
}

/// What became of narrations, by kind.
pub struct Decisions(Vec<[AtomicU64; 4]>);

/// What became of the narrations of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Decided {
    /// Kind of the fact.
    pub kind: &'static str,
    /// Went to stdout.
    pub stdout: u64,
    /// Went to the stream of its request.
    pub sse: u64,
    /// Went nowhere.
    pub dropped: u64,
    /// Was withheld, since a filter failed.
    pub withheld: u64,
}

impl Default for Decisions {
    fn default() -> Self {
        Decisions(Fact::KINDS.iter().map(|_| Default::default()).collect())
    }
}

impl Decisions {
    /// Counts what became of a narration of the kind at `place` in [`Fact::KINDS`].
    pub fn count(&self, place: usize, verdict: &Verdict) {
        let Some([stdout, sse, dropped, withheld]) = self.0.get(place) else { return };
        let add = |counter: &AtomicU64| {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        match verdict {
            Verdict::Dropped => add(dropped),
            Verdict::Withheld(_) => add(withheld),
            Verdict::Deliver(narration) => {
                if narration.sinks & Sinks::STDOUT == Sinks::STDOUT {
                    add(stdout);
                }
                if narration.sinks & Sinks::SSE == Sinks::SSE {
                    add(sse);
                }
            }
        }
    }

    /// The kinds of which there were any.
    pub fn all(&self) -> Vec<Decided> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let each = Fact::KINDS.iter().zip(&self.0).map(|(kind, [stdout, sse, dropped, held])| {
            let (stdout, sse) = (read(stdout), read(sse));
            Decided { kind, stdout, sse, dropped: read(dropped), withheld: read(held) }
        });
        each.filter(|d| d.stdout + d.sse + d.dropped + d.withheld > 0).collect()
    }
}
