//! The chain: filters in order, and what one narration becomes on its way through them. One chain
//! handles one event wholly; a reload makes another chain and never changes this one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::component::{Component, Failure, Instance};
use super::host::Host;
use super::stats::Stats;
use crate::fault;
use crate::limits::{FILTER_FAILURES_MAX, FILTER_INSTANCES_MAX};
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
    /// Whether generated text goes through it.
    pub text: bool,
    /// Whether it works on copies, whose fate is only counted.
    pub shadow: bool,
    /// Where its code comes from: a path, or `builtin:` and a name.
    pub source: String,
    /// Generation of the chain in which it began to serve as it is.
    pub since: u64,
    /// What it did so far.
    pub stats: Arc<Stats>,
    failures: AtomicU32,
}

impl Entry {
    /// A place for `component` under `name`, of which nothing was counted yet.
    pub fn new(
        name: Arc<str>,
        component: Arc<Component>,
        config: String,
        on_failure: OnFailure,
        timeout: Duration,
        memory_mib: u64,
    ) -> Self {
        Entry {
            name,
            component,
            config,
            on_failure,
            timeout,
            memory_mib,
            text: false,
            shadow: false,
            source: String::new(),
            since: 0,
            stats: Arc::default(),
            failures: AtomicU32::new(0),
        }
    }

    /// Whether it failed too often to be called again.
    pub fn quarantined(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= FILTER_FAILURES_MAX
    }

    /// A fresh instance of this filter.
    pub fn start(&self, host: &Host) -> Result<Instance, Failure> {
        Instance::start(host, &self.component, &self.name, self.memory_mib, &self.config)
    }

    /// The instance that a job has, or a fresh one.
    pub(super) fn serve(
        &self,
        host: &Host,
        slot: &mut Option<Instance>,
    ) -> Result<Instance, Fault> {
        if self.quarantined() {
            return Err(Failure("is quarantined until the next reload".into()).into());
        }
        match slot.take() {
            Some(instance) => Ok(instance),
            None if host.has_room(self.component.weight()) => Ok(self.start(host)?),
            None => {
                if !self.shadow {
                    host.turn_away();
                }
                Err(Fault::NoRoom)
            }
        }
    }

    /// Ends a row of failures.
    pub(super) fn count_success(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// Counts a fault, if it is the filter's; the one that quarantines it is to be told.
    pub(super) fn count_fault(&self, fault: &Fault) -> Option<Fact> {
        let Fault::Filter(failure) = fault else { return None };
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

/// Why a filter had no part in a narration, or in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It failed.
    Filter(Failure),
    /// As many instances live as may: the worker's own fault, which counts for no quarantine.
    NoRoom,
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Fault::Filter(failure)
    }
}

impl Fault {
    /// One line for the operator.
    pub fn reason(self) -> String {
        match self {
            Fault::Filter(Failure(reason)) => reason,
            Fault::NoRoom => {
                format!("has no room: {FILTER_INSTANCES_MAX} instances of filters live")
            }
        }
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

    /// The engine that they run in.
    pub fn host(&self) -> &Host {
        &self.host
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
            fault::place("filter");
            match self.step(entry, slot, context, &narration) {
                Ok(mut returned) => {
                    returned.sinks = narrow(narration.sinks, returned.sinks);
                    clean::narration(&mut returned);
                    if entry.shadow {
                        entry.stats.compare(context, &narration, &returned);
                    } else {
                        narration = returned;
                    }
                }
                Err(fault) => {
                    if let Some(fact) = entry.count_fault(&fault) {
                        tell(fact);
                    }
                    if entry.on_failure == OnFailure::Withhold && !entry.shadow {
                        let (filter, reason) = (entry.name.to_string(), fault.reason());
                        return Verdict::Withheld(Withheld { filter, reason });
                    }
                }
            }
            if narration.sinks == Sinks::empty() {
                entry.stats.drop_one();
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
    ) -> Result<Narration, Fault> {
        let mut instance = entry.serve(&self.host, slot)?;
        let began = Instant::now();
        let returned = instance.narrate(context, narration, entry.timeout);
        entry.stats.call(began.elapsed(), returned.is_err());
        let returned = returned?;
        entry.count_success();
        *slot = Some(instance);
        Ok(returned)
    }
}

/// Sinks open before and after: what was closed stays closed.
fn narrow(before: Sinks, after: Sinks) -> Sinks {
    before & after
}
