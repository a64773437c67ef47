//! The frames of a job's stream: typed events as server-sent events. Each has `data`, then `id`, then
//! `event`, and is written whole. Knows no client and no clock.

use bytes::Bytes;
use serde::Serialize;

use crate::limits::RETRY_MS;

/// An event of a job's stream, but for narrations, which have their JSON already.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Event<'a> {
    /// The first: the job exists.
    Started {
        /// Name of the job.
        job_id: &'a str,
        /// Name of the model.
        model: &'a str,
        /// When, RFC 3339.
        started_at: String,
        /// Seed in use, given or drawn.
        seed: u64,
    },
    /// Text that is sure, in whole characters.
    Token {
        /// The text.
        t: &'a str,
        /// Index of the token that completed it, from 0.
        i: u32,
        /// How likely the tokens were that it is made of, where the request asked.
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        logprobs: &'a [TokenLogprob],
    },
    /// How it goes.
    Metrics {
        /// Rate of decoding, tokens a second.
        tokens_per_sec: f64,
        /// Memory of the model and its caches, bytes.
        resident_bytes: u64,
    },
    /// The last of a job that ended well.
    End(End),
    /// The last of a job that did not.
    Error(Failure),
}

/// A token, and how likely the model held it. It repeats text, so it has no `Debug`; whoever changes
/// the text of a stream has to leave it out.
#[derive(Clone, Serialize)]
pub struct Logprob {
    /// Its text; what is no character becomes U+FFFD.
    pub text: String,
    /// Its bytes; none for control tokens.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability, before bias, penalty and filters.
    pub logprob: f64,
}

/// A token that was chosen, and the likeliest ones in its place.
#[derive(Clone, Serialize)]
pub struct TokenLogprob {
    /// The one that was chosen.
    #[serde(flatten)]
    pub chosen: Logprob,
    /// The likeliest, likeliest first; as many as the request asked for.
    pub top: Vec<Logprob>,
}

/// How a job ended well.
#[derive(Clone, Debug, Serialize)]
pub struct End {
    /// Tokens generated.
    pub tokens_out: u32,
    /// From the first token to the last, ms.
    pub decode_time_ms: f64,
    /// Why it ended.
    pub stop_reason: StopReason,
    /// The stop string that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_sequence_matched: Option<String>,
}

/// Why a job ended well, in the words of spec/http.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
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
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// Which failure.
    pub code: Code,
    /// What happened, for the user.
    pub message: String,
    /// Whether the same request may succeed later.
    pub retriable: bool,
}

/// Failures that a client tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
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

impl Event<'_> {
    const fn name(&self) -> &'static str {
        match self {
            Event::Started { .. } => "started",
            Event::Token { .. } => "token",
            Event::Metrics { .. } => "metrics",
            Event::End(_) => "end",
            Event::Error(_) => "error",
        }
    }
}

/// The event as frame number `id`.
pub fn event(id: usize, event: &Event<'_>) -> Bytes {
    let json = serde_json::to_string(event).unwrap_or_else(|error| {
        tracing::error!(%error, "an event could not be written as JSON");
        "{}".to_owned()
    });
    frame(id, event.name(), &json)
}

/// A narration, whose JSON is given, as frame number `id`.
pub fn narration(id: usize, json: &str) -> Bytes {
    frame(id, "narration", json)
}

fn frame(id: usize, name: &str, json: &str) -> Bytes {
    let retry = if id == 1 { format!("retry: {RETRY_MS}\n") } else { String::new() };
    // `data` first: some clients take an id as read as soon as its line has come.
    Bytes::from(format!("data: {json}\nid: {id}\nevent: {name}\n{retry}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_whole_and_in_the_order_that_clients_bear() {
        let frame = event(1, &Event::Token { t: "a\n\"b", i: 0, logprobs: &[] });
        assert_eq!(
            frame,
            "data: {\"type\":\"token\",\"t\":\"a\\n\\\"b\",\"i\":0}\nid: 1\nevent: token\nretry: 1000\n\n"
        );
        let end =
            Event::Error(Failure { code: Code::VramOom, message: "full".into(), retriable: true });
        let text = String::from_utf8_lossy(&event(2, &end)).into_owned();
        assert!(text.contains("\"type\":\"error\",\"code\":\"VRAM_OOM\""), "{text}");
        assert!(!text.contains("retry:"), "{text}");
    }
}
