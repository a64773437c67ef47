//! What happens in a job, as its readers see it: typed events, in order, from `started` to one `end`
//! or `error`. How they look on the wire is each reader's own. No `Debug`: they hold generated text.

use serde::Serialize;
use utoipa::ToSchema;

/// One event of a job's stream.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Event {
    /// The first: the job exists.
    Started(Box<Started>),
    /// A narration, as the JSON of its event.
    #[serde(skip)]
    Narration(Box<str>),
    /// Text that is sure.
    Token(Token),
    /// How it goes.
    Metrics(Metrics),
    /// The last of a job that ended well.
    End(End),
    /// The last of a job that did not.
    Error(Failure),
}

/// The job exists.
#[derive(Clone, Serialize, ToSchema)]
pub struct Started {
    /// Name of the job.
    #[schema(example = "01a20849-7ceb-77fb-9608-fa3cf9b55e43")]
    pub job_id: String,
    /// Name of the model.
    pub model: String,
    /// When, RFC 3339.
    #[schema(format = DateTime)]
    pub started_at: String,
    /// Seed in use, given or drawn.
    pub seed: u64,
}

/// Text that is sure, in whole characters.
#[derive(Serialize, ToSchema)]
pub struct Token {
    /// The text.
    #[schema(example = " Paris")]
    pub t: String,
    /// Index of the token that completed it, from 0.
    pub i: u32,
    /// How likely the tokens were that it is made of, where the request asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<TokenLogprob>,
}

/// A token, and how likely the model held it. It repeats text, so it has no `Debug`; whoever changes
/// the text of a stream has to leave it out.
#[derive(Clone, Serialize, ToSchema)]
pub struct Logprob {
    /// Its text; what is no character becomes U+FFFD.
    pub text: String,
    /// Its bytes; none for control tokens.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability, before bias, penalty and filters.
    pub logprob: f64,
}

/// A token that was chosen, and the likeliest ones in its place.
#[derive(Clone, Serialize, ToSchema)]
pub struct TokenLogprob {
    /// The one that was chosen.
    #[serde(flatten)]
    pub chosen: Logprob,
    /// The likeliest, likeliest first; as many as the request asked for.
    pub top: Vec<Logprob>,
}

/// How a job goes.
#[derive(Clone, Copy, Serialize, ToSchema)]
pub struct Metrics {
    /// Rate of decoding, tokens a second.
    pub tokens_per_sec: f64,
    /// Memory of the model and its caches, bytes.
    pub resident_bytes: u64,
}

/// How a job ended well. It may repeat a stop string, so it has no `Debug`.
#[derive(Clone, Serialize, ToSchema)]
pub struct End {
    /// Tokens generated.
    pub tokens_out: u32,
    /// From the first token to the last, ms.
    pub decode_time_ms: f64,
    /// Why it ended.
    pub stop_reason: StopReason,
    /// The stop string that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub stop_sequence_matched: Option<String>,
}

/// Why a job ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum StopReason {
    /// As many tokens as were allowed.
    MaxTokens,
    /// A stop string.
    StopSequence,
    /// The model was done.
    Eos,
}

/// How a job ended badly.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Failure {
    /// Which failure.
    pub code: Code,
    /// What happened, for the user.
    pub message: String,
    /// Whether the same request may succeed later.
    pub retriable: bool,
}

/// Failures that a client tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// The device's memory did not suffice.
    VramOom,
    /// Somebody ended it.
    Cancelled,
    /// Its deadline came.
    Timeout,
    /// The computation failed.
    InferenceFailed,
    /// The worker ends.
    ShuttingDown,
}

impl Code {
    /// The code as it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Code::VramOom => "VRAM_OOM",
            Code::Cancelled => "CANCELLED",
            Code::Timeout => "TIMEOUT",
            Code::InferenceFailed => "INFERENCE_FAILED",
            Code::ShuttingDown => "SHUTTING_DOWN",
        }
    }
}

impl Event {
    /// Its name, which its JSON has as `type`.
    pub const fn name(&self) -> &'static str {
        match self {
            Event::Started(_) => "started",
            Event::Narration(_) => "narration",
            Event::Token(_) => "token",
            Event::Metrics(_) => "metrics",
            Event::End(_) => "end",
            Event::Error(_) => "error",
        }
    }

    /// Whether nothing can follow it.
    pub const fn is_last(&self) -> bool {
        matches!(self, Event::End(_) | Event::Error(_))
    }

    /// Its JSON, with its `type`.
    pub fn json(&self) -> String {
        if let Event::Narration(json) = self {
            return json.to_string();
        }
        serde_json::to_string(self).unwrap_or_else(|error| {
            tracing::error!(%error, "an event could not be written as JSON");
            format!("{{\"type\":\"{}\"}}", self.name())
        })
    }

    /// Memory that it holds, bytes.
    pub fn bytes(&self) -> usize {
        let text = match self {
            Event::Started(started) => {
                started.job_id.len() + started.model.len() + started.started_at.len()
            }
            Event::Narration(json) => json.len(),
            Event::Token(token) => {
                let told = |logprob: &Logprob| size_of::<Logprob>() + 2 * logprob.bytes.len();
                let tops = token.logprobs.iter().flat_map(|token| &token.top);
                let chosen = token.logprobs.iter().map(|token| &token.chosen);
                token.t.len() + chosen.chain(tops).map(told).sum::<usize>()
            }
            Event::Metrics(_) => 0,
            Event::End(end) => end.stop_sequence_matched.as_ref().map_or(0, String::len),
            Event::Error(failure) => failure.message.len(),
        };
        size_of::<Event>() + text
    }
}
