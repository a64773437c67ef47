//! What a request to OpenAI's endpoints may say. Everything that is accepted either acts, or is on the
//! short list of fields that change nothing in an answer; the rest is refused by name.

use std::collections::BTreeMap;

use serde_json::{Map, Number, Value};

use super::Endpoint;
use crate::http::fields::{Fields, Null, Violation};
use crate::http::request::{Asked, Prompt, drawn_seed, messages, sampling, stop, text};
use crate::job::{Grammar, OnDisconnect, Wish};
use crate::limits::{
    COMPLETION_LOGPROBS_MAX, COMPLETION_TOKENS, JOB_TIMEOUT_MS_MAX, LOGIT_BIAS_ABS_MAX,
    LOGIT_BIAS_MAX, LOGPROBS_MAX, METADATA_MAX, MODEL_NAME_CHARS_MAX, OUTPUT_TOKENS_MAX,
    PROGRESS_EVERY_TOKENS,
};

/// How the answer is to look.
pub struct Answer {
    /// The model that was named.
    pub model: String,
    /// In chunks, as it comes.
    pub stream: bool,
    /// With a chunk that counts tokens.
    pub usage: bool,
    /// With the request's narrations.
    pub narration: bool,
    /// With how likely its tokens were.
    pub logprobs: bool,
}

/// Checks the body; says everything that is wrong with it.
pub fn parse(endpoint: Endpoint, body: &[u8]) -> Result<(Asked, Answer), Vec<Violation>> {
    let mut fields = Fields::read(body, Null::Absent)?;
    let mut answer = answer(&mut fields);
    let prompt = match endpoint {
        Endpoint::Chat => {
            fields.require("messages");
            messages(&mut fields).map(Prompt::Chat)
        }
        Endpoint::Completions => {
            fields.require("prompt");
            text(&mut fields, true).map(Prompt::Text)
        }
    };
    let max_tokens = max_tokens(endpoint, &mut fields);
    let seed = seed(&mut fields);
    let wish = Wish {
        max_tokens: max_tokens.unwrap_or(1),
        sampling: sampling(&mut fields, seed),
        stop: stop(&mut fields, true),
        progress_every: PROGRESS_EVERY_TOKENS,
        logprobs: logprobs(endpoint, &mut fields),
        logit_bias: logit_bias(&mut fields),
        grammar: match endpoint {
            Endpoint::Chat => grammar(&mut fields),
            Endpoint::Completions => None,
        },
    };
    answer.logprobs = wish.logprobs.is_some();
    let timeout_ms = fields.integer("timeout_ms", 1, JOB_TIMEOUT_MS_MAX);
    unsupported(endpoint, &mut fields);
    without_effect(&mut fields);
    match (fields.finish(), prompt) {
        (violations, Some(prompt)) if violations.is_empty() => {
            let any_length = max_tokens.is_none();
            let on_disconnect = OnDisconnect::Cancel;
            let asked = Asked { job_id: None, prompt, wish, any_length, on_disconnect, timeout_ms };
            Ok((asked, answer))
        }
        (violations, _) => Err(violations),
    }
}

fn answer(fields: &mut Fields) -> Answer {
    fields.require("model");
    let model = fields.take::<String>("model", "a string").unwrap_or_default();
    if fields.seen("model") && !(1..=MODEL_NAME_CHARS_MAX).contains(&model.chars().count()) {
        fields.wrong("model", "length", &format!("has 1 to {MODEL_NAME_CHARS_MAX} characters"));
    }
    let stream = fields.take::<bool>("stream", "true or false").unwrap_or(false);
    let mut answer = Answer { model, stream, usage: false, narration: false, logprobs: false };
    if let Some(mut options) = fields.object("stream_options", Null::Absent) {
        if !stream {
            fields.wrong("stream_options", "stream", "is for `stream: true` only");
        }
        answer.usage = options.take("include_usage", "true or false").unwrap_or(false);
        answer.narration = options.take("include_narration", "true or false").unwrap_or(false);
        options.only("include_obfuscation", &["false"]);
        fields.absorb(options);
    }
    answer
}

/// How many tokens may come; none: what fits.
fn max_tokens(endpoint: Endpoint, fields: &mut Fields) -> Option<u32> {
    let most = u64::from(OUTPUT_TOKENS_MAX);
    let old = fields.integer("max_tokens", 1, most);
    match endpoint {
        Endpoint::Chat => {
            let new = fields.integer("max_completion_tokens", 1, most);
            if old.is_some() && new.is_some() && old != new {
                let message = "says the same as max_completion_tokens, or is left out";
                fields.wrong("max_tokens", "conflict", message);
            }
            new.or(old)
        }
        Endpoint::Completions => Some(old.unwrap_or(u64::from(COMPLETION_TOKENS))),
    }
    .map(|tokens| tokens as u32)
}

/// OpenAI's seeds have a sign.
fn seed(fields: &mut Fields) -> u64 {
    let expected = "an integer of 64 bits";
    let Some(given) = fields.take::<Number>("seed", expected) else { return drawn_seed() };
    given.as_u64().or_else(|| given.as_i64().map(i64::cast_unsigned)).unwrap_or_else(|| {
        fields.wrong("seed", "type", &format!("is {expected}"));
        0
    })
}

/// How many likeliest tokens are told beside each; none: nothing is told.
fn logprobs(endpoint: Endpoint, fields: &mut Fields) -> Option<u32> {
    if endpoint == Endpoint::Completions {
        let most = u64::from(COMPLETION_LOGPROBS_MAX);
        return fields.integer("logprobs", 0, most).map(|count| count as u32);
    }
    let asked = fields.take::<bool>("logprobs", "true or false").unwrap_or(false);
    let count = fields.integer("top_logprobs", 0, u64::from(LOGPROBS_MAX)).unwrap_or(0);
    if count > 0 && !asked {
        fields.wrong("top_logprobs", "logprobs", "is for `logprobs: true` only");
    }
    asked.then_some(count as u32)
}

/// What is added to the logits of which tokens.
fn logit_bias(fields: &mut Fields) -> Vec<(u32, f32)> {
    let expected = format!(
        "an object from tokens' numbers to numbers from -{LOGIT_BIAS_ABS_MAX} to \
         {LOGIT_BIAS_ABS_MAX}"
    );
    let Some(given) = fields.take::<BTreeMap<String, f32>>("logit_bias", &expected) else {
        return Vec::new();
    };
    if given.len() > LOGIT_BIAS_MAX {
        fields.wrong("logit_bias", "length", &format!("names at most {LOGIT_BIAS_MAX} tokens"));
    }
    let read = |(token, bias): (String, f32)| {
        let sound = bias.abs() <= LOGIT_BIAS_ABS_MAX; // not so of NaN
        Some((token.parse().ok()?, bias)).filter(|_| sound)
    };
    let bias: Option<Vec<(u32, f32)>> = given.into_iter().map(read).collect();
    bias.unwrap_or_else(|| {
        fields.wrong("logit_bias", "range", &format!("is {expected}"));
        Vec::new()
    })
}

/// What the text has to be.
fn grammar(fields: &mut Fields) -> Option<Grammar> {
    let mut format = fields.object("response_format", Null::Absent)?;
    let kinds = "text, json_object or json_schema";
    format.require("type");
    let kind = format.take::<String>("type", kinds).unwrap_or_default();
    let grammar = match kind.as_str() {
        "json_object" => Some(Grammar::JsonObject),
        "json_schema" => schema(&mut format),
        "text" => None,
        _ => {
            if format.seen("type") {
                format.wrong("type", "value", &format!("is {kinds}"));
            }
            None
        }
    };
    fields.absorb(format);
    grammar
}

/// The schema of a `response_format`. Its text is held to it, strictly or not.
fn schema(format: &mut Fields) -> Option<Grammar> {
    format.require("json_schema");
    let mut schema = format.object("json_schema", Null::Absent)?;
    schema.require("name");
    schema.require("schema");
    let _ = schema.take::<String>("name", "a string");
    let _ = schema.take::<String>("description", "a string");
    let _ = schema.take::<bool>("strict", "true or false");
    let read = schema.take::<Map<String, Value>>("schema", "a JSON Schema, an object");
    format.absorb(schema);
    read.map(|schema| Grammar::JsonSchema(Value::Object(schema)))
}

/// What this worker can't do: refused, unless the value asks for nothing.
fn unsupported(endpoint: Endpoint, fields: &mut Fields) {
    fields.only("n", &["1"]);
    fields.only("frequency_penalty", &["0"]);
    fields.only("presence_penalty", &["0"]);
    match endpoint {
        Endpoint::Chat => {
            fields.only("tools", &["[]"]);
            fields.only("tool_choice", &["\"none\"", "\"auto\""]);
            fields.only("functions", &["[]"]);
            fields.only("function_call", &["\"none\"", "\"auto\""]);
            fields.only("modalities", &["[\"text\"]"]);
            fields.only("reasoning_effort", &["\"none\""]);
            fields.only("verbosity", &["\"medium\""]);
            for name in ["audio", "prediction", "web_search_options", "moderation"] {
                fields.only(name, &[]);
            }
        }
        Endpoint::Completions => {
            fields.only("best_of", &["1"]);
            fields.only("echo", &["false"]);
            fields.only("suffix", &["\"\""]);
        }
    }
}

/// What an account or a cache elsewhere would use, and what has nothing to act on here: the answer is
/// the same without it.
fn without_effect(fields: &mut Fields) {
    for name in ["user", "safety_identifier", "prompt_cache_key"] {
        let _ = fields.take::<String>(name, "a string");
    }
    let metadata = fields.take::<BTreeMap<String, String>>("metadata", "an object of strings");
    if metadata.is_some_and(|metadata| metadata.len() > METADATA_MAX) {
        fields.wrong("metadata", "length", &format!("has at most {METADATA_MAX} entries"));
    }
    let _ = fields.take::<bool>("parallel_tool_calls", "true or false");
    fields.only("store", &["false"]);
    fields.only("service_tier", &["\"auto\"", "\"default\""]);
    fields.only("prompt_cache_retention", &["\"in_memory\"", "\"in-memory\""]);
}
