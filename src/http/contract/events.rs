//! What streams carry, as the contract shows it. The types themselves are the delivery's and the
//! vocabulary's; here they only get their common names.

use serde::Deserialize;
use utoipa::ToSchema;

use crate::delivery::event::{End, Failure, Metrics, Started, Token};
use crate::narration::{Fact, Severity};

/// One event of a job's stream: `started` first, `end` or `error` last, each once. The name in the
/// stream's `event:` line is the same as `type`; `id:` counts from 1.
#[derive(ToSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum StreamEvent {
    /// The job exists.
    Started(Started),
    /// The worker tells what it does for this request.
    Narration(Box<Narration>),
    /// Text that is sure.
    Token(Token),
    /// How it goes.
    Metrics(Metrics),
    /// The job ended well; nothing follows.
    End(End),
    /// The job did not; nothing follows.
    Error(Failure),
}

/// A narration: what the worker did, as a typed fact, and in words that filters chose.
#[derive(Deserialize, ToSchema)]
pub struct Narration {
    /// Version of this record.
    #[schema(example = 1)]
    pub v: u32,
    /// Counts every fact that this worker told, from 1.
    pub sequence: u64,
    /// When it happened, RFC 3339 with microseconds.
    #[schema(format = DateTime)]
    pub timestamp: String,
    /// The worker.
    pub worker_id: String,
    /// The job, on facts of a request that became one.
    #[serde(default)]
    pub job_id: Option<String>,
    /// The request's correlation id.
    #[serde(default)]
    pub correlation_id: Option<String>,
    /// The request's W3C trace id, where it came with one.
    #[serde(default)]
    pub trace_id: Option<String>,
    /// How much it asks for attention.
    pub severity: Severity,
    /// Part of the worker that acts.
    #[schema(example = "candle-backend")]
    pub actor: String,
    /// What it does.
    #[schema(example = "token_generate")]
    pub action: String,
    /// The thing acted on.
    pub target: String,
    /// The plain sentence.
    #[schema(example = "Generating: 20 tokens so far, at 25.5 tokens/s.")]
    pub human: String,
    /// A gentle metaphor.
    #[serde(default)]
    pub cute: Option<String>,
    /// Attributed speech.
    #[serde(default)]
    pub story: Option<String>,
    /// What happened: `{"<kind>": {…}}`.
    pub fact: Fact,
}
