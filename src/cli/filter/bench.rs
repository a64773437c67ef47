//! `filter bench`: what a filter costs. Times calls in its own process, on the thread it runs on;
//! compares with nothing and asserts nothing.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use serde::{Serialize, Serializer};

use super::paint::{self, Paint};
use super::report::out;
use super::subject::{Subject, SubjectFlags};
use crate::error::{Error, Kind, Result};
use crate::filter::component::Failure;

/// What to measure.
#[derive(Args)]
pub struct BenchFlags {
    #[command(flatten)]
    subject: SubjectFlags,
    /// Calls to time
    #[arg(long, value_name = "N", default_value_t = 20_000,
        value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    calls: u32,
    /// Write one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// What a filter costs.
#[derive(Serialize)]
pub struct Cost {
    /// Calls that were timed.
    pub calls: usize,
    /// One call, half of them within this.
    #[serde(rename = "call_median_us", serialize_with = "us")]
    pub call_median: Duration,
    /// One call, 99 of 100 within this.
    #[serde(rename = "call_p99_us", serialize_with = "us")]
    pub call_p99: Duration,
    /// A fresh, configured instance, half of them within this.
    #[serde(rename = "start_median_us", serialize_with = "us")]
    pub start_median: Duration,
    /// A fresh instance, 99 of 100 within this.
    #[serde(rename = "start_p99_us", serialize_with = "us")]
    pub start_p99: Duration,
    /// Compiling and describing.
    #[serde(rename = "load_us", serialize_with = "us")]
    pub load: Duration,
    /// Memory of the instance after all calls.
    pub memory_bytes: usize,
}

fn us<S: Serializer>(duration: &Duration, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_f64((duration.as_secs_f64() * 1e9).round() / 1e3)
}

/// Starts that are timed; they cost more than calls.
const STARTS: usize = 200;
/// Longest that one of the two loops goes on.
const PATIENCE: Duration = Duration::from_secs(20);

/// Measures a filter on samples of the kinds it wants.
pub fn cost(subject: &Subject, calls: usize) -> Result<Cost, Failure> {
    let _timed = subject.host.awake();
    let wanted = subject.wanted();
    let mut starts = Vec::with_capacity(STARTS);
    let until = Instant::now() + PATIENCE;
    while starts.len() < STARTS && Instant::now() < until {
        let began = Instant::now();
        let instance = subject.start()?;
        starts.push(began.elapsed());
        drop(instance);
    }
    let mut instance = subject.start()?;
    let mut times = Vec::with_capacity(calls);
    let until = Instant::now() + PATIENCE;
    for told in wanted.iter().cycle().take(calls) {
        let began = Instant::now();
        let narration = subject.call(&mut instance, told)?;
        times.push(began.elapsed());
        drop(narration);
        if Instant::now() > until {
            break;
        }
    }
    starts.sort_unstable();
    times.sort_unstable();
    let at = |sorted: &[Duration], percent: usize| {
        sorted.get(sorted.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default()
    };
    Ok(Cost {
        calls: times.len(),
        call_median: at(&times, 50),
        call_p99: at(&times, 99),
        start_median: at(&starts, 50),
        start_p99: at(&starts, 99),
        load: subject.loading,
        memory_bytes: instance.memory_bytes(),
    })
}

/// Measures and prints.
pub fn run(flags: BenchFlags) -> Result<ExitCode> {
    let subject = flags.subject.load()?;
    let calls = usize::try_from(flags.calls).unwrap_or(usize::MAX);
    let file = flags.subject.file.display();
    let cost = cost(&subject, calls)
        .map_err(|failure| Error::new(Kind::Filter, format!("{file}: {}", failure.0)))?;
    let text = if flags.json {
        serde_json::to_string(&cost)
            .map_err(|e| Error::new(Kind::Internal, "the figures are no JSON").because(e))?
    } else {
        for_people(&cost, subject.bytes, &file.to_string())
    };
    out(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn for_people(cost: &Cost, bytes: usize, file: &str) -> String {
    let row = |what: &str, half: Duration, most: Option<Duration>| {
        vec![what.to_owned(), paint::time(half), most.map_or(String::new(), paint::time)]
    };
    let mut rows = vec![
        row("a call", cost.call_median, Some(cost.call_p99)),
        row("a fresh instance", cost.start_median, Some(cost.start_p99)),
        row("compile and describe, once", cost.load, None),
    ];
    rows.push(vec!["memory of an instance".into(), paint::bytes(cost.memory_bytes), String::new()]);
    rows.push(vec!["file".into(), paint::bytes(bytes), String::new()]);
    let title = format!("{file}: {} calls on samples of the facts it wants", cost.calls);
    let lines = paint::table(&["", "median", "99 of 100"], &rows);
    format!("{}\n{}", Paint::for_stdout().bold(&title), lines.join("\n"))
}
