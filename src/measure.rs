//! What the worker measures of itself: the name, help and buckets of every metric, and the text that
//! Prometheus reads. Whatever happens is counted where it happens. Waits for nobody.

pub mod otlp;

use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::error::{Error, Kind, Result};
use crate::limits::KV_BLOCK_TOKENS;

/// Requests that have ended, by `outcome`.
pub const REQUESTS: &str = "worker_requests_total";
/// Tokens of prompts that the engine took up.
pub const TOKENS_IN: &str = "worker_tokens_in_total";
/// Tokens generated.
pub const TOKENS_GENERATED: &str = "worker_tokens_generated_total";
/// A job's time in the engine, ms.
pub const INFERENCE_DURATION: &str = "worker_inference_duration_ms";
/// From a request's acceptance to its first token, s.
pub const FIRST_TOKEN: &str = "worker_time_to_first_token_seconds";
/// Between two tokens of a job, s.
pub const INTER_TOKEN: &str = "worker_inter_token_seconds";
/// Jobs that wait for the engine.
pub const QUEUE_DEPTH: &str = "worker_queue_depth";
/// Jobs that the engine computes.
pub const ACTIVE_JOBS: &str = "worker_active_jobs";
/// Memory of the model and its caches, bytes.
pub const RESIDENT_BYTES: &str = "worker_resident_bytes";
/// Age of the process, s.
pub const UPTIME: &str = "worker_uptime_seconds";
/// Blocks of the KV cache, by `state`: `held` by running jobs, `kept` for prompts to come, `free`.
pub const KV_BLOCKS: &str = "worker_kv_blocks";
/// Tokens that one such block holds.
pub const KV_BLOCK_SIZE: &str = "worker_kv_block_tokens";
/// Tokens of prompts that the prefix cache had, so that they were not computed.
pub const PREFIX_REUSED: &str = "worker_prefix_reused_tokens_total";
/// Narrations delivered, by `kind` and `sink`.
pub const NARRATIONS: &str = "worker_narrations_total";
/// Narrations lost, by `sink`.
pub const NARRATIONS_LOST: &str = "worker_narrations_lost_total";

/// Calls of a filter, by `filter`, like all of these.
pub const FILTER_CALLS: &str = "worker_filter_calls_total";
/// Time spent in them, s.
pub const FILTER_BUSY: &str = "worker_filter_busy_seconds";
/// Calls that failed.
pub const FILTER_FAILURES: &str = "worker_filter_failures_total";
/// Narrations that it left no sink.
pub const FILTER_DROPS: &str = "worker_filter_drops_total";
/// What a shadow would have changed.
pub const FILTER_DIFFERENCES: &str = "worker_filter_shadow_differences_total";
/// Whether it is not called any more.
pub const FILTER_QUARANTINED: &str = "worker_filter_quarantined";
/// Chain since which it serves as it is.
pub const FILTER_GENERATION: &str = "worker_filter_generation";

/// Steps that fit a small model on a busy CPU and a large one on a card alike, s.
const SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Whole jobs, ms.
const JOB_MS: [f64; 13] = [
    10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0, 30_000.0, 60_000.0,
    300_000.0,
];

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With all that was asked for.
    Completed,
    /// Somebody ended it.
    Cancelled,
    /// Its deadline came.
    Timeout,
    /// The computation failed, or memory did not suffice.
    Failed,
    /// The worker ended before it.
    ShuttingDown,
    /// It never became a job.
    Rejected,
}

impl Outcome {
    const ALL: [Outcome; 6] = [
        Outcome::Completed,
        Outcome::Cancelled,
        Outcome::Timeout,
        Outcome::Failed,
        Outcome::ShuttingDown,
        Outcome::Rejected,
    ];

    /// The value of the label `outcome`.
    const fn label(self) -> &'static str {
        match self {
            Outcome::Completed => "completed",
            Outcome::Cancelled => "cancelled",
            Outcome::Timeout => "timeout",
            Outcome::Failed => "failed",
            Outcome::ShuttingDown => "shutting_down",
            Outcome::Rejected => "rejected",
        }
    }
}

/// A request was refused before it became a job.
pub fn request_rejected() {
    counter!(REQUESTS, "outcome" => Outcome::Rejected.label()).increment(1);
}

/// A job has ended.
pub fn job_ended(outcome: Outcome, served: &Served) {
    counter!(REQUESTS, "outcome" => outcome.label()).increment(1);
    otlp::record(outcome, served);
}

/// What a job was asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// To go on with a conversation.
    Chat,
    /// To go on with a text.
    TextCompletion,
}

/// What became of one job, as a whole.
#[derive(Clone, Copy, Debug)]
pub struct Served {
    /// What it was asked to do.
    pub operation: Operation,
    /// Tokens of its prompt.
    pub tokens_in: u32,
    /// Tokens generated.
    pub tokens_out: u32,
    /// From its acceptance to its end.
    pub took: Duration,
    /// From its acceptance to its first token, where there was one.
    pub first_token: Option<Duration>,
    /// From its first token to its last.
    pub decode: Duration,
}

/// The engine took up a prompt.
pub fn prompt(tokens: usize) {
    counter!(TOKENS_IN).increment(tokens as u64);
}

/// A job's first token came so long after its request was accepted.
pub fn first_token(after: Duration) {
    counter!(TOKENS_GENERATED).increment(1);
    histogram!(FIRST_TOKEN).record(after.as_secs_f64());
}

/// A further token came so long after the one before.
pub fn next_token(after: Duration) {
    counter!(TOKENS_GENERATED).increment(1);
    histogram!(INTER_TOKEN).record(after.as_secs_f64());
}

/// A job was in the engine for so long.
pub fn inference(took: Duration) {
    histogram!(INFERENCE_DURATION).record(took.as_secs_f64() * 1_000.0);
}

/// A narration of that kind was handed to `sink`.
pub fn narration(kind: &str, sink: &'static str) {
    counter!(NARRATIONS, "kind" => kind.to_owned(), "sink" => sink).increment(1);
}

/// So many narrations were lost on their way to `sink`.
pub fn narrations_lost(count: u64, sink: &'static str) {
    counter!(NARRATIONS_LOST, "sink" => sink).increment(count);
}

/// What one filter did, since its name came into the chain.
#[derive(Clone, Copy, Debug)]
pub struct FilterFigures {
    /// Calls, failed ones included.
    pub calls: u64,
    /// Time spent in them, µs.
    pub busy_us: u64,
    /// Calls that failed.
    pub failures: u64,
    /// Narrations that it left no sink.
    pub drops: u64,
    /// What it would have changed as a shadow.
    pub differences: u64,
    /// Whether it failed too often to be called.
    pub quarantined: bool,
    /// Generation of the chain since which it serves as it is.
    pub generation: u64,
}

/// Sets the series of one filter to what was counted elsewhere.
pub fn filter(name: &str, figures: FilterFigures) {
    let series = [
        (FILTER_CALLS, figures.calls),
        (FILTER_FAILURES, figures.failures),
        (FILTER_DROPS, figures.drops),
        (FILTER_DIFFERENCES, figures.differences),
    ];
    for (metric, value) in series {
        counter!(metric, "filter" => name.to_owned()).absolute(value);
    }
    gauge!(FILTER_BUSY, "filter" => name.to_owned()).set(figures.busy_us as f64 / 1e6);
    let quarantined = f64::from(u8::from(figures.quarantined));
    gauge!(FILTER_QUARANTINED, "filter" => name.to_owned()).set(quarantined);
    gauge!(FILTER_GENERATION, "filter" => name.to_owned()).set(figures.generation as f64);
}

/// What is looked at rather than counted.
pub struct Gauges {
    /// Jobs that the engine computes.
    pub active_jobs: usize,
    /// Jobs that wait for it.
    pub queue_depth: usize,
    /// Memory of the model and its caches, bytes.
    pub resident_bytes: u64,
    /// Age of the process.
    pub uptime: Duration,
    /// The KV cache.
    pub kv: KvBlocks,
}

/// Whose the blocks of the KV cache are.
#[derive(Clone, Copy, Debug)]
pub struct KvBlocks {
    /// Held by running jobs.
    pub held: usize,
    /// Kept for prompts that begin alike; free as soon as somebody needs them.
    pub kept: usize,
    /// All there are.
    pub total: usize,
    /// Tokens of prompts that were found in it, since the start.
    pub reused_tokens: u64,
}

/// Everything measured, as text.
#[derive(Clone)]
pub struct Exporter(PrometheusHandle);

/// Takes up measuring, once a process. What is counted before is not seen.
///
/// # Errors
/// [`Kind::Internal`] where something in the process measures already.
pub fn install() -> Result<Exporter> {
    let internal = |what: &str| Error::new(Kind::Internal, format!("metrics can't start: {what}"));
    let buckets = |name: &str, steps: &[f64]| (Matcher::Full(name.to_owned()), steps.to_vec());
    let mut builder = PrometheusBuilder::new();
    for (name, steps) in [
        buckets(INFERENCE_DURATION, &JOB_MS),
        buckets(FIRST_TOKEN, &SECONDS),
        buckets(INTER_TOKEN, &SECONDS),
    ] {
        builder = builder
            .set_buckets_for_metric(name, &steps)
            .map_err(|e| internal("a histogram has no buckets").because(e))?;
    }
    let recorder = builder.build_recorder();
    let exporter = Exporter(recorder.handle());
    metrics::set_global_recorder(recorder)
        .map_err(|_| internal("something measures in this process already"))?;
    describe();
    Ok(exporter)
}

/// Says what each metric is, and shows counters before they have counted anything.
fn describe() {
    describe_counter!(REQUESTS, "Requests that have ended, by outcome.");
    describe_counter!(TOKENS_IN, "Tokens of prompts that the engine took up.");
    describe_counter!(TOKENS_GENERATED, "Tokens generated.");
    describe_histogram!(INFERENCE_DURATION, "Time of a job in the engine, in milliseconds.");
    describe_histogram!(FIRST_TOKEN, "From the acceptance of a request to its first token.");
    describe_histogram!(INTER_TOKEN, "Time between two tokens of a job.");
    describe_gauge!(QUEUE_DEPTH, "Jobs that wait for the engine.");
    describe_gauge!(ACTIVE_JOBS, "Jobs that the engine computes.");
    describe_gauge!(RESIDENT_BYTES, "Memory of the model and its caches.");
    describe_gauge!(UPTIME, "Age of the process.");
    describe_gauge!(KV_BLOCKS, "Blocks of the KV cache, by state.");
    describe_gauge!(KV_BLOCK_SIZE, "Tokens that one block of the KV cache holds.");
    describe_counter!(PREFIX_REUSED, "Tokens of prompts found in the prefix cache.");
    describe_counter!(NARRATIONS, "Narrations delivered, by kind and sink.");
    describe_counter!(NARRATIONS_LOST, "Narrations lost, by sink.");
    describe_counter!(FILTER_CALLS, "Calls of a filter.");
    describe_gauge!(FILTER_BUSY, "Time spent in the calls of a filter.");
    describe_counter!(FILTER_FAILURES, "Calls of a filter that failed.");
    describe_counter!(FILTER_DROPS, "Narrations that a filter left no sink.");
    describe_counter!(FILTER_DIFFERENCES, "What a shadow filter would have changed.");
    describe_gauge!(FILTER_QUARANTINED, "Whether a filter failed too often to be called.");
    describe_gauge!(FILTER_GENERATION, "Chain since which a filter serves as it is.");
    for outcome in Outcome::ALL {
        counter!(REQUESTS, "outcome" => outcome.label()).increment(0);
    }
    for name in [TOKENS_IN, TOKENS_GENERATED, PREFIX_REUSED] {
        counter!(name).increment(0);
    }
    for sink in ["stdout", "sse", "pipeline"] {
        narrations_lost(0, sink);
    }
    for name in [INFERENCE_DURATION, FIRST_TOKEN, INTER_TOKEN] {
        let _ = histogram!(name);
    }
}

impl Exporter {
    /// Everything, in Prometheus' text format 0.0.4.
    pub fn text(&self, now: &Gauges) -> String {
        gauge!(ACTIVE_JOBS).set(now.active_jobs as f64);
        gauge!(QUEUE_DEPTH).set(now.queue_depth as f64);
        gauge!(RESIDENT_BYTES).set(now.resident_bytes as f64);
        gauge!(UPTIME).set(now.uptime.as_secs_f64());
        gauge!(KV_BLOCK_SIZE).set(KV_BLOCK_TOKENS as f64);
        let KvBlocks { held, kept, total, reused_tokens } = now.kv;
        let free = total.saturating_sub(held + kept);
        for (state, blocks) in [("held", held), ("kept", kept), ("free", free)] {
            gauge!(KV_BLOCKS, "state" => state).set(blocks as f64);
        }
        counter!(PREFIX_REUSED).absolute(reused_tokens);
        self.0.render()
    }

    /// Sorts what was measured since the last time into the histograms: while nobody reads, this alone
    /// keeps it from piling up.
    pub fn tidy(&self) {
        self.0.run_upkeep();
    }
}
