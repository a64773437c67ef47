//! `filter check`: loads one filter as the worker would, leads every kind of fact through it, and
//! collects what it does to each and what is wrong with that. Prints through `report`.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::bench::{self, Cost};
use super::lint::{self, Problem, Severity};
use super::subject::{Subject, SubjectFlags};
use super::{canary, report, stream};
use crate::error::Result;
use crate::filter::chain::{Entry, OnFailure};
use crate::filter::compile::Compiler;
use crate::filter::component::{CONTRACT, Component, Failure, Instance};
use crate::filter::trial::{self, End};
use crate::filter::{Host, builtin};
use crate::narration::{Fact, Narration, Sinks, Told};

/// What to check, and how to show it.
#[derive(Args)]
pub struct CheckFlags {
    #[command(flatten)]
    subject: SubjectFlags,
    /// Show narrations without words, as the first filter of a chain gets them
    #[arg(long)]
    first: bool,
    /// Write one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Everything that was found out.
#[derive(Serialize)]
pub struct Report {
    /// The file as it was named.
    pub file: String,
    /// Name and version that the filter gives itself.
    pub name: String,
    /// See `name`.
    pub version: String,
    /// Version of the contract that it was built for.
    pub contract: &'static str,
    /// Whether the file is a core module.
    pub core_module: bool,
    /// Functions it asks the worker for, by interface.
    pub imports: Vec<String>,
    /// Size of the file.
    pub bytes: usize,
    /// SHA-256 of the file, as `sha256` in filters.toml takes it.
    pub sha256: String,
    /// Whether it says that it takes things out.
    pub redacts: bool,
    /// Kinds it asks for; none: all.
    pub kinds: Option<Vec<String>>,
    /// JSON Schema of its configuration.
    pub config_schema: serde_json::Value,
    /// Whether generated text can go through it.
    pub takes_text: bool,
    /// What it does to a sample of each kind.
    pub facts: Vec<Row>,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// What it costs, if it ran.
    pub cost: Option<Cost>,
}

/// What became of a sample of one kind.
#[derive(Serialize)]
pub struct Row {
    /// The kind.
    pub kind: String,
    /// What was done.
    pub verdict: Verdict,
    /// Sinks open before and after.
    pub sinks: (Vec<&'static str>, Vec<&'static str>),
    /// Fields that are not as they were.
    pub changed: Vec<String>,
    /// The texts that came out.
    pub human: String,
    /// See `human`.
    pub cute: Option<String>,
    /// See `human`.
    pub story: Option<String>,
}

/// What a filter did to a narration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It was not asked for.
    NotWanted,
    /// It came out as it went in.
    Same,
    /// Something is different.
    Changed,
    /// No sink is left.
    Dropped,
    /// The call failed.
    Failed,
}

/// Checks a filter; 1 where something is wrong with it.
pub fn run(flags: CheckFlags) -> Result<ExitCode> {
    let subject = flags.subject.load()?;
    let words = if flags.first { None } else { Some(words()?) };
    let report = Check::new(&subject, words.as_ref()).run(flags.subject.file.display().to_string());
    report::print(&report, flags.json)?;
    Ok(ExitCode::from(u8::from(!report.problems.is_empty())))
}

/// The embedded storyteller, which words what is shown to the filter.
fn words() -> Result<(Host, Entry)> {
    let refused = |Failure(reason)| {
        crate::error::Error::new(crate::error::Kind::Internal, format!("the storyteller {reason}"))
    };
    let host = Host::new()?.compiling(Compiler::own(), None);
    let bytes = builtin::component("storyteller").unwrap_or_default();
    let component =
        Component::load(&host, bytes, crate::limits::FILTER_MEMORY_MIB).map_err(refused)?;
    let timeout = std::time::Duration::from_millis(crate::limits::FILTER_CALL_MS_MAX);
    let memory = crate::limits::FILTER_MEMORY_MIB;
    let entry = Entry::new(
        "storyteller".into(),
        std::sync::Arc::new(component),
        "{}".into(),
        OnFailure::Withhold,
        timeout,
        memory,
    );
    Ok((host, entry))
}

/// A check that runs.
struct Check<'s> {
    subject: &'s Subject,
    words: Option<(&'s Host, &'s Entry, Instance)>,
    running: Option<Instance>,
    problems: Vec<Problem>,
}

impl<'s> Check<'s> {
    fn new(subject: &'s Subject, words: Option<&'s (Host, Entry)>) -> Self {
        let words = words.and_then(|(host, entry)| Some((host, entry, entry.start(host).ok()?)));
        Check { subject, words, running: None, problems: Vec::new() }
    }

    fn run(mut self, file: String) -> Report {
        let component = &self.subject.entry.component;
        let description = component.description().clone();
        let config_schema = serde_json::from_str(&description.config_schema);
        let mut facts = Vec::new();
        {
            let _timed = self.subject.host.awake();
            let _worded = self.words.as_ref().map(|(host, ..)| host.awake());
            if config_schema.is_err() {
                self.problem("describe", "schema", "`config-schema` is no JSON".into(), SCHEMA);
            }
            self.check_kinds(description.kinds.as_deref().unwrap_or_default());
            match self.subject.start() {
                Err(failure) => self.failed("configure", "configure", failure, CONFIGURE),
                Ok(instance) => {
                    self.running = Some(instance);
                    facts = Fact::samples().into_iter().map(|fact| self.row(fact)).collect();
                    self.extremes();
                    if description.redacts {
                        self.canaries();
                    }
                    stream::problems(self.subject).into_iter().for_each(|found| self.add(found));
                }
            }
        }
        let cost = if facts.iter().any(|row| row.verdict == Verdict::Failed) || facts.is_empty() {
            None
        } else {
            bench::cost(self.subject, COST_CALLS).ok()
        };
        Report {
            file,
            name: description.name,
            version: description.version,
            contract: CONTRACT,
            core_module: self.subject.core_module,
            imports: imports(component, &self.subject.host),
            bytes: self.subject.bytes,
            sha256: component.digest().to_owned(),
            redacts: description.redacts,
            kinds: description.kinds,
            takes_text: component.takes_text(),
            config_schema: config_schema.unwrap_or_default(),
            facts,
            problems: self.problems,
            cost,
        }
    }

    fn check_kinds(&mut self, kinds: &[String]) {
        for kind in kinds.iter().filter(|kind| !Fact::KINDS.contains(&kind.as_str())) {
            let message = format!("asks for the kind `{kind}`, which this worker never tells");
            self.problem("describe", "unknown-kind", message, KINDS);
        }
    }

    /// What becomes of a sample.
    fn row(&mut self, fact: Fact) -> Row {
        let kind = fact.kind().to_owned();
        let told = self.worded(fact);
        let before = told.narration.clone();
        let mut row = Row {
            kind: kind.clone(),
            verdict: Verdict::NotWanted,
            sinks: (lint::sinks(before.sinks), lint::sinks(before.sinks)),
            changed: Vec::new(),
            human: before.human.clone(),
            cute: before.cute.clone(),
            story: before.story.clone(),
        };
        if !self.subject.entry.component.wants(&kind) {
            return row;
        }
        let Some(after) = self.tried(&kind, &told) else {
            row.verdict = Verdict::Failed;
            return row;
        };
        row.changed = changed(&before, &after);
        row.verdict = match () {
            () if before.sinks & after.sinks == Sinks::empty() => Verdict::Dropped,
            () if row.changed.is_empty() => Verdict::Same,
            () => Verdict::Changed,
        };
        row.sinks.1 = lint::sinks(before.sinks & after.sinks);
        (row.human, row.cute, row.story) = (after.human, after.cute, after.story);
        row
    }

    /// Every case of an enum, and both ends of every kind.
    fn extremes(&mut self) {
        for fact in Fact::cases() {
            let kind = fact.kind();
            if !self.subject.entry.component.wants(kind) {
                continue;
            }
            let least = trial::pushed(&fact, End::Least);
            let most = trial::pushed(&fact, End::Most);
            for (variant, fact) in [("", &fact), (", smallest", &least), (", largest", &most)] {
                let told = self.worded(fact.clone());
                self.tried(&format!("{kind}{variant}"), &told);
            }
        }
    }

    /// Secrets planted in every text.
    fn canaries(&mut self) {
        for canary in canary::all() {
            for fact in Fact::samples() {
                let kind = fact.kind().to_owned();
                if !self.subject.entry.component.wants(&kind) {
                    continue;
                }
                let mut told = self.worded(fact);
                canary.plant(&mut told.narration);
                let Some(after) = self.called(&kind, &told) else { continue };
                if after.sinks == Sinks::empty() {
                    continue; // nobody reads it
                }
                for field in canary.seen(&after) {
                    let message = format!("a planted {} got through", canary.family);
                    self.add(Problem {
                        severity: Severity::Error,
                        code: "leak",
                        message,
                        place: kind.clone(),
                        field: Some(field),
                        excerpt: None,
                        advice: "it says `redacts: true`, so it has to take this out of every text",
                        more: Vec::new(),
                    });
                }
            }
        }
    }

    /// A narration as the filter gets it.
    fn worded(&mut self, fact: Fact) -> Told {
        let mut told = trial::told(fact);
        if let Some((_, entry, storyteller)) = &mut self.words
            && let Ok(mut worded) =
                storyteller.narrate(&told.context, &told.narration, entry.timeout)
        {
            worded.sinks &= told.narration.sinks;
            told.narration = worded;
        }
        told
    }

    /// Calls the filter and judges what it made of the narration.
    fn tried(&mut self, place: &str, told: &Told) -> Option<Narration> {
        let after = self.called(place, told)?;
        for problem in lint::problems(place, &told.narration, &after) {
            self.add(problem);
        }
        Some(after)
    }

    /// Calls the filter; after a failure the next call gets a fresh instance, as in the worker.
    fn called(&mut self, place: &str, told: &Told) -> Option<Narration> {
        let mut instance = match self.running.take().map_or_else(|| self.subject.start(), Ok) {
            Ok(instance) => instance,
            Err(failure) => {
                self.failed("configure", "configure", failure, CONFIGURE);
                return None;
            }
        };
        match self.subject.call(&mut instance, told) {
            Ok(after) => {
                self.running = Some(instance);
                Some(after)
            }
            Err(failure) => {
                self.failed(place, "call-failed", failure, CALL);
                None
            }
        }
    }

    fn failed(&mut self, place: &str, code: &'static str, failure: Failure, advice: &'static str) {
        let problem =
            Problem { severity: Severity::Error, ..plain(place, code, failure.0, advice) };
        self.add(problem);
    }

    fn problem(&mut self, place: &str, code: &'static str, message: String, advice: &'static str) {
        self.add(plain(place, code, message, advice));
    }

    /// Keeps a problem; one that is there already gets another place.
    fn add(&mut self, problem: Problem) {
        let same = |known: &&mut Problem| {
            (known.code, &known.field) == (problem.code, &problem.field)
                && (problem.code != "call-failed" || known.message == problem.message)
        };
        match self.problems.iter_mut().find(same) {
            Some(known) if known.place == problem.place => {}
            Some(known) if known.more.contains(&problem.place) => {}
            Some(known) => known.more.push(problem.place),
            None => self.problems.push(problem),
        }
    }
}

/// What it asks the worker for; the contract's types are no functions.
fn imports(component: &Component, host: &Host) -> Vec<String> {
    let types = |name: &String| {
        ["facts", "types"].iter().any(|t| {
            name.strip_prefix("rbees:narration/")
                .is_some_and(|name| name.starts_with(&format!("{t}@")))
        })
    };
    component.imports(host).into_iter().filter(|name| !types(name)).collect()
}

const COST_CALLS: usize = 2_000;
const SCHEMA: &str = "return a JSON Schema, `{}` where there is nothing to configure";
const KINDS: &str = "see the cases of `fact` in wit/: it would never be called for this one";
const CONFIGURE: &str =
    "the worker would refuse this filter; --config says what to configure it with";
const CALL: &str = "the worker would refuse this filter, as it tries it on a sample of every fact";

fn plain(place: &str, code: &'static str, message: String, advice: &'static str) -> Problem {
    Problem {
        severity: Severity::Warning,
        code,
        message,
        place: place.to_owned(),
        field: None,
        excerpt: None,
        advice,
        more: Vec::new(),
    }
}

/// Names of the fields that are not as they were.
pub fn changed(before: &Narration, after: &Narration) -> Vec<String> {
    let mut names = Vec::new();
    if before.sinks & after.sinks != before.sinks {
        names.push("sinks".to_owned());
    }
    let (old, new) = (lint::texts(before), lint::texts(after));
    let value = |texts: &[(String, String)], name: &str| {
        texts.iter().find(|(known, _)| known == name).map(|(_, text)| text.clone())
    };
    for (name, _) in old.iter().chain(&new) {
        if value(&old, name) != value(&new, name) && !names.contains(name) {
            names.push(name.clone());
        }
    }
    if before.fact != after.fact && !names.iter().any(|name| name.starts_with("fact")) {
        names.push("fact".to_owned());
    }
    names
}
