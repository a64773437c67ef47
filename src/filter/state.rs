//! How the filters are at one moment, for people and programs that look from outside: what `GET /filters`
//! answers. Shows names, digests, counts and reasons; no text of any narration.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use utoipa::ToSchema;

use super::chain::{Entry, OnFailure};
use super::reload::Chains;
use super::stats::{Counts, Decided};
use crate::limits::FACT_CHARS_MAX;
use crate::measure::FilterFigures;
use crate::narration::{clean, fact, wire};

/// The chain in service.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ChainState {
    /// Counts the chains of this worker, from 1.
    pub generation: u64,
    /// Version of the contract that the worker speaks.
    pub contract: &'static str,
    /// The folder that filters are deployed to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// How changes of the folder are noticed: `events`, or `poll` alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watching: Option<&'static str>,
    /// The filters in order.
    pub filters: Vec<FilterState>,
    /// The latest chain that was put in service.
    pub last_reload: Option<Reloaded>,
    /// The latest that was refused.
    pub last_rejection: Option<Rejection>,
    /// What became of narrations so far, by kind.
    pub decisions: Vec<Decided>,
}

/// One filter of the chain.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FilterState {
    /// Its name in the chain.
    pub name: String,
    /// The name that it gives itself.
    pub filter: String,
    /// Its own version.
    pub version: String,
    /// Path of its file, or `builtin:` and a name.
    pub source: String,
    /// SHA-256 of its file, hexadecimal.
    pub digest: String,
    /// Generation of the chain since which it serves as it is.
    pub generation: u64,
    /// What its failure does: `withhold` or `skip`.
    pub on_failure: &'static str,
    /// Time that a call may take, ms.
    pub timeout_ms: u64,
    /// Memory that an instance may hold, MiB.
    pub memory_mib: u64,
    /// Whether it says that it takes things out.
    pub redacts: bool,
    /// Whether generated text goes through it.
    pub text: bool,
    /// Whether it works on copies.
    pub shadow: bool,
    /// Whether it failed too often to be called.
    pub quarantined: bool,
    /// What it did since its name came into the chain.
    #[serde(flatten)]
    pub counts: Counts,
}

/// A chain that was put in service.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Reloaded {
    /// Its generation.
    pub generation: u64,
    /// When, RFC 3339.
    pub at: String,
    /// How long it took to make, ms.
    pub duration_ms: f64,
}

/// A filter, or the manifest, that was refused.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Rejection {
    /// Its name.
    pub name: String,
    /// Path of the file.
    pub path: String,
    /// What was expected, what was found, and what to do.
    pub reason: String,
    /// When, RFC 3339.
    pub at: String,
}

impl Chains {
    /// How the filters are now.
    pub fn state(&self) -> ChainState {
        let chain = self.current();
        ChainState {
            generation: chain.generation(),
            contract: super::component::CONTRACT,
            folder: self.folder().map(|path| path.display().to_string()),
            watching: self
                .folder()
                .map(|_| if self.watching.load(Ordering::Relaxed) { "events" } else { "poll" }),
            filters: chain.entries().iter().map(FilterState::of).collect(),
            last_reload: lock(&self.last_reload).clone(),
            last_rejection: lock(&self.last_rejection).clone(),
            decisions: self.decisions().all(),
        }
    }

    pub(super) fn note_reload(&self, generation: u64, took: Duration) {
        let duration_ms = fact::millis(took);
        *lock(&self.last_reload) = Some(Reloaded { generation, at: now(), duration_ms });
    }

    pub(super) fn note_rejection(&self, name: &str, path: &str, reason: &str) {
        let safe = |text| clean::line(text, FACT_CHARS_MAX).into_owned();
        *lock(&self.last_rejection) =
            Some(Rejection { name: safe(name), path: safe(path), reason: safe(reason), at: now() });
    }
}

impl FilterState {
    /// What is measured of it.
    pub fn figures(&self) -> FilterFigures {
        FilterFigures {
            calls: self.counts.calls,
            busy_us: self.counts.busy_us,
            failures: self.counts.failures,
            drops: self.counts.drops,
            differences: self.counts.shadow_differences,
            quarantined: self.quarantined,
            generation: self.generation,
        }
    }

    fn of(entry: &Entry) -> Self {
        let description = entry.component.description();
        let safe = |text: &str| clean::line(text, FACT_CHARS_MAX).into_owned();
        FilterState {
            name: safe(&entry.name),
            filter: safe(&description.name),
            version: safe(&description.version),
            source: safe(&entry.source),
            digest: entry.component.digest().to_owned(),
            generation: entry.since,
            on_failure: match entry.on_failure {
                OnFailure::Withhold => "withhold",
                OnFailure::Skip => "skip",
            },
            timeout_ms: u64::try_from(entry.timeout.as_millis()).unwrap_or(u64::MAX),
            memory_mib: entry.memory_mib,
            redacts: description.redacts,
            text: entry.text,
            shadow: entry.shadow,
            quarantined: entry.quarantined(),
            counts: entry.stats.counts(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    wire::timestamp(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}
