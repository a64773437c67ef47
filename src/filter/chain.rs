//! The chain: filters in order, and what one narration becomes on its way through them. One chain
//! handles one event wholly; a reload makes another chain and never changes this one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::component::{Component, Failure, Instance};
use super::host::Host;
use crate::limits::FILTER_FAILURES_MAX;
use crate::narration::facts::FilterQuarantined;
use crate::narration::wire::Withheld;
use crate::narration::{Context, Fact, Narration, Sinks, clean};

/// What becomes of a narration whose filter failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// Streams get nothing; stdout gets who and when, and that it was withheld.
    #[default]
    Withhold,
    /// It goes on as if the filter were not there.
    Skip,
}

/// One place in the chain.
pub struct Entry {
    /// Name of the filter in this chain.
    pub name: Arc<str>,
    /// Its code.
    pub component: Arc<Component>,
    /// Its configuration, a JSON object.
    pub config: String,
    /// What its failure does.
    pub on_failure: OnFailure,
    /// Time that a call may take.
    pub timeout: Duration,
    /// Memory that an instance may hold, MiB.
    pub memory_mib: u64,
    failures: AtomicU32,
}

impl Entry {
    /// A place for `component` under `name`.
    pub const fn new(
        name: Arc<str>,
        component: Arc<Component>,
        config: String,
        on_failure: OnFailure,
        timeout: Duration,
        memory_mib: u64,
    ) -> Self {
        let failures = AtomicU32::new(0);
        Entry { name, component, config, on_failure, timeout, memory_mib, failures }
    }

    /// Whether it failed too often to be called again.
    pub fn quarantined(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= FILTER_FAILURES_MAX
    }

    /// A fresh instance of this filter.
    pub fn start(&self, host: &Host) -> Result<Instance, Failure> {
        Instance::start(host, &self.component, &self.name, self.memory_mib, &self.config)
    }

    /// Counts a failure; the one that quarantines the filter is to be told.
    fn count_failure(&self, failure: &Failure) -> Option<Fact> {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        (failures == FILTER_FAILURES_MAX).then(|| {
            Fact::FilterQuarantined(FilterQuarantined {
                name: self.name.to_string(),
                failures,
                reason: failure.0.clone(),
            })
        })
    }
}

/// What the chain decided about one narration.
#[derive(Debug)]
pub enum Verdict {
    /// It goes where its sinks say.
    Deliver(Narration),
    /// No sink is left.
    Dropped,
    /// A filter failed, and what it would have taken out can't be known.
    Withheld(Withheld),
}

/// Filters in order.
pub struct Chain {
    host: Arc<Host>,
    entries: Vec<Entry>,
    generation: u64,
}

/// The instances that serve one job, made when they are first needed.
#[derive(Default)]
pub struct Instances {
    generation: u64,
    slots: Vec<Option<Instance>>,
}

impl Chain {
    /// A chain of these filters; `generation` counts the chains of this worker, from 1.
    pub const fn new(host: Arc<Host>, entries: Vec<Entry>, generation: u64) -> Self {
        Chain { host, entries, generation }
    }

    /// The filters in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Which chain of this worker it is, from 1.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Leads one narration through the filters, with the instances of its job. What the operators have
    /// to know besides is handed to `tell`.
    pub fn narrate(
        &self,
        instances: &mut Instances,
        context: &Context,
        mut narration: Narration,
        tell: &mut dyn FnMut(Fact),
    ) -> Verdict {
        if instances.generation != self.generation {
            instances.slots.clear();
            instances.slots.resize_with(self.entries.len(), || None);
            instances.generation = self.generation;
        }
        clean::narration(&mut narration);
        for (entry, slot) in self.entries.iter().zip(&mut instances.slots) {
            if !entry.component.wants(&context.kind) {
                continue;
            }
            match self.step(entry, slot, context, &narration) {
                Ok(mut returned) => {
                    returned.sinks = narrow(narration.sinks, returned.sinks);
                    narration = returned;
                    clean::narration(&mut narration);
                }
                Err(failure) => {
                    if let Some(fact) = entry.count_failure(&failure) {
                        tell(fact);
                    }
                    if entry.on_failure == OnFailure::Withhold {
                        let filter = entry.name.to_string();
                        return Verdict::Withheld(Withheld { filter, reason: failure.0 });
                    }
                }
            }
            if narration.sinks == Sinks::empty() {
                return Verdict::Dropped;
            }
        }
        Verdict::Deliver(narration)
    }

    /// One filter's part. A failed instance is gone; the next narration starts a fresh one.
    fn step(
        &self,
        entry: &Entry,
        slot: &mut Option<Instance>,
        context: &Context,
        narration: &Narration,
    ) -> Result<Narration, Failure> {
        if entry.quarantined() {
            return Err(Failure("is quarantined until the next reload".into()));
        }
        let mut instance = match slot.take() {
            Some(instance) => instance,
            None => entry.start(&self.host)?,
        };
        let returned = instance.narrate(context, narration, entry.timeout)?;
        if entry.failures.load(Ordering::Relaxed) != 0 {
            entry.failures.store(0, Ordering::Relaxed);
        }
        *slot = Some(instance);
        Ok(returned)
    }
}

/// Sinks open before and after: what was closed stays closed.
fn narrow(before: Sinks, after: Sinks) -> Sinks {
    before & after
}
