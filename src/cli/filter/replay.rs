//! `filter replay`: recorded facts through a chain as it would be in service, or through two of them
//! to show what a change of policy changes. Delivers nothing and asks no worker.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use clap::Args;
use serde_json::{Value, json};

use super::paint::{self, Paint};
use super::{check, lint, report};
use crate::error::{Error, Kind, Result};
use crate::filter::compile::Compiler;
use crate::filter::{Chain, Chains, Host, Instances, Verdict};
use crate::limits::RECORD_LINE_BYTES_MAX;
use crate::narration::{Context, Narrator, Outlet, Telling, Told, recorded, wire};

/// Which recording, and through which chains.
#[derive(Args)]
pub struct ReplayFlags {
    /// Recording of `serve --record`
    events: PathBuf,
    /// Folder of filters, as for `serve`; without it: the default chain
    #[arg(long, value_name = "DIR")]
    filters: Option<PathBuf>,
    /// Another folder (or `default`): show only what its chain does differently; exit code 1 if anything
    #[arg(long, value_name = "DIR")]
    diff: Option<PathBuf>,
    /// Write a JSON object a line
    #[arg(long)]
    json: bool,
}

/// Replays a recording.
pub fn run(flags: ReplayFlags) -> Result<ExitCode> {
    let mut left = Replay::new(flags.filters.as_deref())?;
    let mut right = flags.diff.as_deref().map(|folder| Replay::new(Some(folder))).transpose()?;
    let paint = Paint::for_stdout();
    let mut tally = Tally::default();
    for told in Recording::open(&flags.events)? {
        let told = told?;
        let outcome = left.narrate(&told);
        let Some(right) = &mut right else {
            report::out(&one(&told.context, &outcome, flags.json, paint))?;
            tally.count(&outcome);
            continue;
        };
        let other = right.narrate(&told);
        tally.compare(&outcome, &other);
        let differences = differences(&outcome, &other);
        if !differences.is_empty() {
            report::out(&two(&told.context, &differences, flags.json, paint))?;
        }
    }
    left.complain();
    if let Some(right) = &right {
        right.complain();
    }
    if !flags.json {
        report::out(&paint.dim(&tally.told(right.is_some())))?;
    }
    Ok(ExitCode::from(u8::from(tally.differ > 0)))
}

/// A recording, a told fact a line.
struct Recording {
    path: PathBuf,
    lines: BufReader<File>,
    line: usize,
}

impl Recording {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| {
            Error::new(Kind::Config, format!("{} can't be read: {e}", path.display()))
        })?;
        Ok(Recording { path: path.to_owned(), lines: BufReader::new(file), line: 0 })
    }

    /// The next line, at most as long as one is written.
    fn next_line(&mut self) -> std::result::Result<Option<String>, String> {
        let mut line = Vec::new();
        let limit = RECORD_LINE_BYTES_MAX as u64 + 1;
        let read = self.lines.by_ref().take(limit).read_until(b'\n', &mut line);
        self.line += 1;
        if read.map_err(|error| error.to_string())? == 0 {
            return Ok(None);
        }
        if line.len() > RECORD_LINE_BYTES_MAX {
            return Err(format!("has more than {RECORD_LINE_BYTES_MAX} bytes"));
        }
        String::from_utf8(line).map(Some).map_err(|_| "is no UTF-8".to_owned())
    }
}

impl Iterator for Recording {
    type Item = Result<Told>;

    fn next(&mut self) -> Option<Self::Item> {
        let told = loop {
            match self.next_line() {
                Ok(None) => return None,
                Ok(Some(line)) if line.trim().is_empty() => {}
                Ok(Some(line)) => break recorded::read(&line),
                Err(reason) => break Err(reason),
            }
        };
        let place = format!("{} line {}", self.path.display(), self.line);
        Some(told.map_err(|reason| {
            let hint = "expected is what `serve --record` writes";
            Error::new(Kind::Config, format!("{place} is no recorded fact: {reason}; {hint}"))
        }))
    }
}

/// What the filters' host tells while it loads and runs a chain.
#[derive(Default)]
struct Overheard(Mutex<Vec<Told>>);

impl Outlet for Overheard {
    fn accept(&self, telling: Telling<'_>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(telling.stamp());
    }
}

/// A chain, and the instances of each job in it, as the pipeline keeps them.
struct Replay {
    chain: Arc<Chain>,
    chains: Chains,
    jobs: HashMap<String, Instances>,
    own: Instances,
    quarantined: Vec<String>,
}

impl Replay {
    fn new(folder: Option<&Path>) -> Result<Self> {
        let folder = folder.filter(|folder| folder.as_os_str() != "default").map(Path::to_owned);
        if let Some(folder) = folder.as_ref().filter(|folder| !folder.is_dir()) {
            return Err(Error::new(Kind::Config, format!("{}: no such folder", folder.display())));
        }
        let host = Host::new()?.compiling(Compiler::own(), None);
        let chains = Chains::new(Arc::new(host), folder);
        chains.reload(&Narrator::new("replay".into(), Arc::new(Overheard::default())))?;
        let chain = chains.current();
        let jobs = HashMap::new();
        Ok(Replay { chain, chains, jobs, own: Instances::default(), quarantined: Vec::new() })
    }

    fn narrate(&mut self, told: &Told) -> Verdict {
        let _timed = self.chains.host().awake();
        let instances = match &told.context.job_id {
            Some(job) => self.jobs.entry(job.clone()).or_default(),
            None => &mut self.own,
        };
        let mut facts = Vec::new();
        let mut tell = |fact| facts.push(fact);
        let verdict =
            self.chain.narrate(instances, &told.context, told.narration.clone(), &mut tell);
        if let (Some(job), true) = (&told.context.job_id, is_last(&told.context.kind)) {
            self.jobs.remove(job);
        }
        self.quarantined.extend(facts.iter().filter_map(|fact| match fact {
            crate::narration::Fact::FilterQuarantined(filter) => {
                Some(format!("{} is quarantined: {}", filter.name, filter.reason))
            }
            _ => None,
        }));
        verdict
    }

    /// What went wrong with the filters themselves.
    fn complain(&self) {
        for line in &self.quarantined {
            eprintln!("rbees-workerd: {line}");
        }
    }
}

/// Whether a job tells nothing after a fact of this kind.
fn is_last(kind: &str) -> bool {
    matches!(kind, "inference-completed" | "inference-failed" | "inference-cancelled")
}

fn name(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Deliver(_) => "delivered",
        Verdict::Dropped => "dropped",
        Verdict::Withheld(_) => "withheld",
    }
}

/// An outcome as readers of it see it, field by field.
fn fields(verdict: &Verdict) -> Vec<(String, String)> {
    match verdict {
        Verdict::Dropped => vec![("goes to".into(), "nowhere".into())],
        Verdict::Withheld(withheld) => vec![
            ("goes to".into(), "withheld".into()),
            ("reason".into(), format!("{} {}", withheld.filter, withheld.reason)),
        ],
        Verdict::Deliver(narration) => {
            let mut fields = vec![("goes to".into(), lint::sinks(narration.sinks).join(" "))];
            fields.extend(lint::texts(narration));
            fields
        }
    }
}

/// Fields that differ: name, here, there.
fn differences(left: &Verdict, right: &Verdict) -> Vec<(String, Option<String>, Option<String>)> {
    let (left_fields, right_fields) = (fields(left), fields(right));
    let value = |fields: &[(String, String)], name: &str| {
        fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    };
    let delivered = |verdict: &Verdict| matches!(verdict, Verdict::Deliver(_));
    let both = delivered(left) && delivered(right);
    let mut found: Vec<(String, Option<String>, Option<String>)> = Vec::new();
    for (name, _) in left_fields.iter().chain(&right_fields) {
        let (here, there) = (value(&left_fields, name), value(&right_fields, name));
        let seen = found.iter().any(|(known, ..)| known == name);
        // What is not delivered at all has no other fields to compare.
        if here != there && !seen && (both || name == "goes to" || name == "reason") {
            found.push((name.clone(), here, there));
        }
    }
    if let (Verdict::Deliver(left), Verdict::Deliver(right)) = (left, right)
        && found.is_empty()
        && check::changed(left, right).iter().any(|name| name.starts_with("fact"))
    {
        let json = |fact| serde_json::to_string(fact).ok();
        found.push(("fact".into(), json(&left.fact), json(&right.fact)));
    }
    found
}

/// One outcome as a line.
fn one(context: &Context, verdict: &Verdict, as_json: bool, paint: Paint) -> String {
    if as_json {
        let narration = match verdict {
            Verdict::Deliver(narration) => serde_json::from_str(&wire::line(context, narration)),
            Verdict::Withheld(held) => serde_json::from_str(&wire::withheld_line(context, held)),
            Verdict::Dropped => Ok(Value::Null),
        };
        let sinks = match verdict {
            Verdict::Deliver(narration) => lint::sinks(narration.sinks),
            _ => Vec::new(),
        };
        let sequence = context.sequence;
        return json!({"sequence": sequence, "kind": context.kind, "outcome": name(verdict),
            "sinks": sinks, "narration": narration.unwrap_or_default()})
        .to_string();
    }
    let (goes, text) = match verdict {
        Verdict::Deliver(told) => (lint::sinks(told.sinks).join(" "), told.human.clone()),
        Verdict::Dropped => ("nowhere".to_owned(), String::new()),
        Verdict::Withheld(held) => {
            (paint.red("withheld"), format!("filter {} {}", held.filter, held.reason))
        }
    };
    let number = paint.dim(&format!("{:>6}", context.sequence));
    let line = format!("{number}  {:<20}  {goes:<10}  {text}", context.kind);
    line.trim_end().to_owned()
}

/// The differences of one fact.
fn two(
    context: &Context,
    differences: &[(String, Option<String>, Option<String>)],
    as_json: bool,
    paint: Paint,
) -> String {
    if as_json {
        let changes: serde_json::Map<String, Value> = differences
            .iter()
            .map(|(name, here, there)| (name.clone(), json!([here, there])))
            .collect();
        let (sequence, kind) = (context.sequence, &context.kind);
        return json!({"sequence": sequence, "kind": kind, "differs": changes}).to_string();
    }
    let of = context.job_id.as_ref().map_or(String::new(), |job| format!(", job {job}"));
    let mut text = paint.bold(&format!("{} {}{of}", context.sequence, context.kind));
    for (name, here, there) in differences {
        let absent = || "(none)".to_owned();
        let here = paint.red(&format!("- {}", here.clone().unwrap_or_else(absent)));
        let there = paint.green(&format!("+ {}", there.clone().unwrap_or_else(absent)));
        let name = paint::cut(name, 24);
        text.push_str(&format!("\n  {name:<10} {here}\n  {:<10} {there}", ""));
    }
    text
}

/// How many went which way.
#[derive(Default)]
struct Tally {
    facts: u64,
    dropped: u64,
    withheld: u64,
    differ: u64,
    rerouted: u64,
}

impl Tally {
    fn count(&mut self, verdict: &Verdict) {
        self.facts += 1;
        match verdict {
            Verdict::Deliver(_) => {}
            Verdict::Dropped => self.dropped += 1,
            Verdict::Withheld(_) => self.withheld += 1,
        }
    }

    fn compare(&mut self, left: &Verdict, right: &Verdict) {
        self.count(right);
        let differences = differences(left, right);
        self.differ += u64::from(!differences.is_empty());
        self.rerouted += u64::from(differences.iter().any(|(name, ..)| name == "goes to"));
    }

    fn told(&self, compared: bool) -> String {
        let Tally { facts, dropped, withheld, differ, rerouted } = self;
        if compared {
            let same = facts - differ;
            let worded = differ - rerouted;
            format!(
                "{facts} facts: {same} the same, {differ} differ ({rerouted} go elsewhere, {worded} read differently)"
            )
        } else {
            format!("{facts} facts: {dropped} dropped, {withheld} withheld")
        }
    }
}
