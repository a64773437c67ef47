//! The narrator: says who told a fact and when, and hands it on. Telling never blocks and never
//! fails its caller; what becomes of the fact is decided elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::fact::{target, voice};
use super::vocabulary::facts::Fact;
use super::vocabulary::types::{Context, Narration, Sinks};

/// Which request a fact belongs to. Empty for the worker's own life.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The job, once there is one.
    pub job_id: Option<String>,
    /// The request's correlation id.
    pub correlation_id: Option<String>,
    /// The request's W3C trace id, where it came with one.
    pub trace_id: Option<String>,
}

/// A fact that has been told: stamped, not yet worded, with every sink open that exists for it.
#[derive(Clone, Debug)]
pub struct Told {
    /// Who told it, and when.
    pub context: Context,
    /// The fact and its target; no text yet.
    pub narration: Narration,
}

/// A fact that is being told: it gets its number and its time when it takes its place among the others,
/// so that the order of numbers is the order of places, whoever else tells at that moment.
pub struct Telling<'n> {
    told: Told,
    count: &'n AtomicU64,
}

impl Telling<'_> {
    /// The fact with the next number and the time. To be called where its place is taken.
    pub fn stamp(mut self) -> Told {
        self.told.context.sequence = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        self.told.context.timestamp_us = now_us();
        self.told
    }
}

/// Where told facts go. Taking one in must neither block nor fail.
pub trait Outlet: Send + Sync {
    /// Takes in a fact of the worker's own life.
    fn accept(&self, telling: Telling<'_>);
}

/// For whoever has no readers: a trial, a test, a benchmark. What is told there counts and is gone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nowhere;

impl Outlet for Nowhere {
    fn accept(&self, telling: Telling<'_>) {
        drop(telling.stamp());
    }
}

/// Tells facts in the worker's name. Cheap to clone.
#[derive(Clone)]
pub struct Narrator {
    shared: Arc<Shared>,
}

struct Shared {
    worker_id: String,
    told: AtomicU64,
    outlet: Arc<dyn Outlet>,
}

impl Narrator {
    /// A narrator in the name of `worker_id`.
    pub fn new(worker_id: String, outlet: Arc<dyn Outlet>) -> Self {
        Narrator { shared: Arc::new(Shared { worker_id, told: AtomicU64::new(0), outlet }) }
    }

    /// Name of the worker.
    pub fn worker_id(&self) -> &str {
        &self.shared.worker_id
    }

    /// Tells a fact of the worker's own life.
    pub fn tell(&self, fact: Fact) {
        self.shared.outlet.accept(self.telling(fact, &Scope::default()));
    }

    /// A fact with its scope, for a caller that stamps it and hands it on itself.
    ///
    /// Facts of a request may go to its stream as well as to stdout, others to stdout alone.
    pub fn telling(&self, fact: Fact, scope: &Scope) -> Telling<'_> {
        let voice = voice(&fact);
        let of_request = scope.correlation_id.is_some();
        let otherwise = scope.job_id.as_deref().unwrap_or(if of_request {
            "request"
        } else {
            &self.shared.worker_id
        });
        let target = target(&fact, otherwise);
        let context = Context {
            sequence: 0,
            timestamp_us: 0,
            worker_id: self.shared.worker_id.clone(),
            job_id: scope.job_id.clone(),
            correlation_id: scope.correlation_id.clone(),
            trace_id: scope.trace_id.clone(),
            kind: fact.kind().to_owned(),
            severity: voice.severity,
            actor: voice.actor.to_owned(),
            action: voice.action.to_owned(),
        };
        let sinks = if of_request { Sinks::STDOUT | Sinks::SSE } else { Sinks::STDOUT };
        let narration =
            Narration { fact, target, sinks, human: String::new(), cute: None, story: None };
        Telling { told: Told { context, narration }, count: &self.shared.told }
    }
}

/// Microseconds since 1970-01-01T00:00:00Z; 0 on a clock that stands before it.
fn now_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::narration::vocabulary::facts::{Cpu, PromptTokenized};

    #[derive(Default)]
    struct Collected(Mutex<Vec<Told>>);

    impl Outlet for Collected {
        fn accept(&self, telling: Telling<'_>) {
            self.0.lock().expect("no test panics while holding it").push(telling.stamp());
        }
    }

    #[test]
    fn sequence_counts_every_fact_of_any_scope() {
        let outlet = Arc::new(Collected::default());
        let narrator = Narrator::new("w".into(), outlet.clone());
        narrator.tell(Fact::CpuReady(Cpu::sample()));
        let scope = Scope {
            job_id: Some("j".into()),
            correlation_id: Some("c".into()),
            ..Scope::default()
        };
        let told = narrator.telling(Fact::PromptTokenized(PromptTokenized::sample()), &scope);
        let told = told.stamp();
        narrator.tell(Fact::CpuReady(Cpu::sample()));
        let collected = outlet.0.lock().expect("no test panics while holding it");
        let sequences: Vec<u64> = collected.iter().map(|t| t.context.sequence).collect();
        assert_eq!(sequences, [1, 3]);
        assert_eq!(told.context.sequence, 2);
        assert_eq!(told.narration.sinks, Sinks::STDOUT | Sinks::SSE);
        assert_eq!(collected[0].narration.sinks, Sinks::STDOUT);
        assert_eq!(told.narration.target, "j");
    }
}
