//! Makes chains out of what an operator deployed, and puts them in service. If anything is wrong with
//! a new one, the last good one stays and the reason is told. Never runs on a serving thread.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;

use super::builtin;
use super::chain::{Chain, Entry, OnFailure};
use super::component::{Component, Failure, digest};
use super::host::Host;
use super::manifest::{self, Source, Spec};
use super::state::{Rejection, Reloaded};
use super::stats::Decisions;
use super::trial;
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::limits::{COMPONENTS_RECENT_MAX, FILTER_FILE_BYTES_MAX};
use crate::narration::facts::{FilterLoaded, FilterRejected};
use crate::narration::{Fact, Narrator, fact};

/// The chain in service, and how the next one is made.
pub struct Chains {
    host: Arc<Host>,
    folder: Option<PathBuf>,
    current: ArcSwap<Chain>,
    generations: AtomicU64,
    reloading: Mutex<()>,
    decisions: Decisions,
    /// Components that served lately, so that going back to one needs no compiler.
    recent: Mutex<VecDeque<Arc<Component>>>,
    pub(super) watching: AtomicBool,
    /// Whether the chain in service comes out of a manifest.
    by_manifest: AtomicBool,
    pub(super) last_reload: Mutex<Option<Reloaded>>,
    pub(super) last_rejection: Mutex<Option<Rejection>>,
}

/// What was refused, for the log and for the fact.
struct Rejected {
    name: String,
    path: String,
    reason: String,
}

impl Chains {
    /// An empty holder: until [`Chains::reload`], narrations pass unworded.
    pub fn new(host: Arc<Host>, folder: Option<PathBuf>) -> Self {
        let current = ArcSwap::from_pointee(Chain::new(Arc::clone(&host), Vec::new(), 0));
        Chains {
            host,
            folder,
            current,
            generations: AtomicU64::new(0),
            reloading: Mutex::new(()),
            decisions: Decisions::default(),
            recent: Mutex::default(),
            watching: AtomicBool::new(false),
            by_manifest: AtomicBool::new(false),
            last_reload: Mutex::default(),
            last_rejection: Mutex::default(),
        }
    }

    /// The chain in service.
    pub fn current(&self) -> Arc<Chain> {
        self.current.load_full()
    }

    /// The engine that the filters run in.
    pub const fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// What became of narrations so far.
    pub const fn decisions(&self) -> &Decisions {
        &self.decisions
    }

    /// The folder that filters are deployed to.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Makes the chain that is wanted now and puts it in service, or tells why not and keeps the old.
    pub fn reload(&self, narrator: &Narrator) -> Result<()> {
        let _one_at_a_time = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let began = Instant::now();
        let old = self.current();
        let generation = self.generations.load(Ordering::Relaxed) + 1;
        match self.build(&old, generation, narrator) {
            Ok(entries) => {
                self.generations.store(generation, Ordering::Relaxed);
                let chain = Arc::new(Chain::new(Arc::clone(&self.host), entries, generation));
                self.current.store(Arc::clone(&chain));
                for entry in chain.entries() {
                    if entry.since == generation {
                        narrator.tell(Fact::FilterLoaded(FilterLoaded {
                            name: entry.name.to_string(),
                            digest: entry.component.digest().to_owned(),
                            generation,
                            duration_ms: fact::millis(began.elapsed()),
                        }));
                    }
                }
                let by_manifest = manifest::present(self.folder.as_deref());
                self.by_manifest.store(by_manifest, Ordering::Relaxed);
                self.note_reload(generation, began.elapsed());
                Ok(())
            }
            Err(rejected) => {
                let line = format!("{} ({}): {}", rejected.name, rejected.path, rejected.reason);
                self.tell_rejection(rejected, narrator);
                Err(Error::new(Kind::Filter, line))
            }
        }
    }

    /// The default chain, for the last words of a worker whose own filters can't be loaded. False: not
    /// even that one works, and nothing may be worded.
    pub fn fall_back(&self, narrator: &Narrator) -> bool {
        let _one_at_a_time = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let none = self.current();
        let specs = manifest::read(None).unwrap_or_default();
        let entries: Result<Vec<Entry>, Rejected> =
            specs.into_iter().map(|spec| self.entry(spec, &none, u64::MAX, narrator)).collect();
        let Ok(entries) = entries else { return false };
        self.current.store(Arc::new(Chain::new(Arc::clone(&self.host), entries, u64::MAX)));
        true
    }

    fn build(
        &self,
        old: &Chain,
        generation: u64,
        narrator: &Narrator,
    ) -> Result<Vec<Entry>, Rejected> {
        let specs = manifest::read(self.folder.as_deref()).map_err(|failure| Rejected {
            name: manifest::FILE.to_owned(),
            path: self.folder.as_ref().map_or_else(String::new, |path| path.display().to_string()),
            reason: failure.0,
        })?;
        specs.into_iter().map(|spec| self.entry(spec, old, generation, narrator)).collect()
    }

    fn tell_rejection(&self, rejected: Rejected, narrator: &Narrator) {
        let Rejected { name, path, reason } = rejected;
        self.note_rejection(&name, &path, &reason);
        narrator.tell(Fact::FilterRejected(FilterRejected { name, path, reason }));
    }

    /// One filter, compiled or taken over, tried on a sample of every fact.
    fn entry(
        &self,
        spec: Spec,
        old: &Chain,
        generation: u64,
        narrator: &Narrator,
    ) -> Result<Entry, Rejected> {
        let path = spec.source.to_string();
        let rejected =
            |Failure(reason)| Rejected { name: spec.name.clone(), path: path.clone(), reason };
        let component = match self.component(&spec, old) {
            Err(failure) if spec.required => {
                // The running one stays, and the operator is told.
                let running = old.entries().iter().find(|entry| *entry.name == *spec.name);
                let component = running.map(|entry| Arc::clone(&entry.component));
                let refusal = rejected(failure);
                let Some(component) = component else { return Err(refusal) };
                self.tell_rejection(refusal, narrator);
                component
            }
            other => other.map_err(rejected)?,
        };
        if spec.on_failure == OnFailure::Skip && component.description().redacts {
            return Err(rejected(Failure(
                "takes things out, so its failure can't let a narration through: \
                 remove `on-failure = \"skip\"`"
                    .into(),
            )));
        }
        if spec.text && !component.takes_text() {
            return Err(rejected(Failure(
                "does not export rbees:narration/text, so no text can go through it: remove \
                 `text = true`"
                    .into(),
            )));
        }
        let known = old.entries().iter().find(|known| *known.name == *spec.name);
        let mut entry = Entry::new(
            spec.name.as_str().into(),
            component,
            spec.config.clone(),
            spec.on_failure,
            spec.timeout,
            spec.memory_mib,
        );
        (entry.text, entry.shadow) = (spec.text, spec.shadow);
        (entry.source, entry.since) = (path.clone(), generation);
        if let Some(known) = known {
            entry.stats = Arc::clone(&known.stats);
        }
        match known.filter(|known| same(known, &entry)) {
            Some(known) => entry.since = known.since,
            None => try_on_samples(&self.host, &entry).map_err(rejected)?,
        }
        Ok(entry)
    }

    fn component(&self, spec: &Spec, old: &Chain) -> Result<Arc<Component>, Failure> {
        let bytes = match &spec.source {
            Source::Builtin(name) => builtin::component(name).unwrap_or_default().to_vec(),
            Source::File(path) => read_file(path)?,
        };
        let digest = digest(&bytes);
        if let Some(pin) = spec.sha256.as_ref().filter(|pin| **pin != digest) {
            return Err(Failure(format!("has SHA-256 {digest}, but is pinned to {pin}")));
        }
        if let Some(known) = old.entries().iter().find(|entry| entry.component.digest() == digest) {
            return Ok(Arc::clone(&known.component));
        }
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = recent.iter().find(|component| component.digest() == digest) {
            return Ok(Arc::clone(known));
        }
        let component = Arc::new(Component::load(&self.host, &bytes, spec.memory_mib)?);
        if recent.len() == COMPONENTS_RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back(Arc::clone(&component));
        Ok(component)
    }

    /// Whether the chain that is wanted now can be made without a compiler.
    pub(super) fn knows_what_is_wanted(&self) -> bool {
        let Ok(specs) = manifest::read(self.folder.as_deref()) else { return false };
        // A file that is gone may be on its way back: only patience tells.
        let current = self.current();
        let stays = |entry: &Entry| specs.iter().any(|spec| *spec.name == *entry.name);
        let manifest = manifest::present(self.folder.as_deref());
        if manifest != self.by_manifest.load(Ordering::Relaxed)
            || !current.entries().iter().all(stays)
        {
            return false;
        }
        specs.iter().all(|spec| match &spec.source {
            Source::Builtin(_) => true,
            Source::File(path) => read_file(path).is_ok_and(|bytes| {
                let digest = digest(&bytes);
                let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
                let known = recent.iter().any(|component| component.digest() == digest);
                known || self.host.has_compiled(&digest)
            }),
        })
    }

    /// Notes whether changes come as file events; else they are polled for.
    pub(super) fn note_watching(&self, events: bool) {
        self.watching.store(events, Ordering::Relaxed);
    }
}

fn same(a: &Entry, b: &Entry) -> bool {
    a.name == b.name && a.component.digest() == b.component.digest() && a.config == b.config
}

/// The bytes of a filter's file, at most as many as are loaded.
pub fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    let unreadable = |e: std::io::Error| Failure(format!("can't be read: {e}"));
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(Failure("is no ordinary file".into()));
    }
    files::read(path, FILTER_FILE_BYTES_MAX).map_err(unreadable)
}

/// Runs one sample of every fact through the filter alone.
fn try_on_samples(host: &Host, entry: &Entry) -> Result<(), Failure> {
    let _timed = host.awake();
    let mut instance = entry.start(host)?;
    for sample in Fact::samples() {
        let kind = sample.kind();
        let told = trial::told(sample);
        if entry.component.wants(kind) {
            instance.narrate(&told.context, &told.narration, entry.timeout).map_err(|failure| {
                Failure(format!("failed on a trial {kind}: {}", failure.0))
                    .with(instance.complaint())
            })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::{Instances, Verdict};
    use crate::narration::{Nowhere, wire};

    #[test]
    fn a_secret_broken_by_an_escape_sequence_is_still_redacted() {
        let told = trial::told(Fact::samples().swap_remove(0));
        let narrator = Narrator::new("worker".into(), Arc::new(Nowhere));
        let chains = Chains::new(Arc::new(Host::new().expect("wasm runs")), None);
        chains.reload(&narrator).expect("the default chain is sound");
        let _timed = chains.host().awake();
        let secret = "ghp_4fK9wQz7TnB2mXc8RjL5vHs3YpD6gAe1UoWi";
        for broken in ["\u{1b}[0m", "\u{202e}", "\u{200e}", "\u{7}"] {
            let mut narration = told.narration.clone();
            narration.target = format!("{}{broken}{}", &secret[..12], &secret[12..]);
            let chain = chains.current();
            let context = told.context.clone();
            let mut instances = Instances::default();
            let verdict = chain.narrate(&mut instances, &context, narration, &mut |_| {});
            let Verdict::Deliver(out) = verdict else { panic!("{verdict:?}") };
            let line = wire::line(&context, &out);
            assert!(!line.contains(&secret[12..]), "{line}");
        }
    }
}
