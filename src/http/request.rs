//! What a request may say. Every field is checked by itself, so that all that is wrong is said at
//! once. Never repeats a value.

use std::collections::HashSet;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::engine::template::Message;
use crate::job::{OnDisconnect, Sampling, Wish};
use crate::limits::{
    JOB_ID_BYTES_MAX, JOB_TIMEOUT_MS_MAX, MESSAGES_MAX, OUTPUT_TOKENS_MAX, PROGRESS_EVERY_TOKENS,
    PROMPT_CHARS_MAX, STOP_CHARS_MAX, STOP_STRINGS_MAX,
};
use crate::private::Private;

/// One thing that a request did wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The field, or the part of the request.
    pub field: String,
    /// Which rule: `type`, `range`, `length`, `required`, `unknown`, ….
    pub constraint: String,
    /// What is expected.
    pub message: String,
}

impl Violation {
    /// `field` breaks `constraint`; `message` says what is expected.
    pub fn new(field: &str, constraint: &str, message: &str) -> Self {
        let (field, constraint) = (clip(field), constraint.to_owned());
        Violation { field, constraint, message: message.to_owned() }
    }
}

/// Names of unknown fields come from outside: short and harmless.
fn clip(field: &str) -> String {
    crate::narration::clean::line(field, 64).into_owned()
}

/// What the text to continue is.
pub enum Prompt {
    /// Text as it is.
    Text(Private),
    /// A conversation, for the model's own template.
    Chat(Vec<Message>),
}

/// A checked `POST /execute`.
pub struct Execute {
    /// Name that the client gives the job.
    pub job_id: Option<String>,
    /// What to continue.
    pub prompt: Prompt,
    /// How, and how far.
    pub wish: Wish,
    /// What happens when nobody reads any more.
    pub on_disconnect: OnDisconnect,
    /// Deadline of the whole job, ms.
    pub timeout_ms: Option<u64>,
}

/// Checks the body of `POST /execute`; says everything that is wrong with it.
pub fn parse_execute(body: &[u8]) -> Result<Execute, Vec<Violation>> {
    let mut fields = Fields::read(body)?;
    let job_id = fields.take::<String>("job_id", "a string");
    if job_id.as_deref().is_some_and(|id| !is_job_id(id)) {
        fields.wrong("job_id", "pattern", "is 1 to 256 of A-Z a-z 0-9 . _ : -");
    }
    let prompt = prompt(&mut fields);
    let max_tokens = fields.integer("max_tokens", 1, u64::from(OUTPUT_TOKENS_MAX));
    if max_tokens.is_none() && !fields.seen("max_tokens") {
        fields.wrong("max_tokens", "required", "is needed");
    }
    let wish = Wish {
        max_tokens: max_tokens.unwrap_or(1) as u32,
        sampling: Sampling {
            temperature: fields.number("temperature", 0.0, 2.0).unwrap_or(1.0),
            top_p: fields.number("top_p", 0.0, 1.0).unwrap_or(1.0),
            top_k: fields.integer("top_k", 0, u64::from(u32::MAX)).unwrap_or(0) as u32,
            min_p: fields.number("min_p", 0.0, 1.0).unwrap_or(0.0),
            repetition_penalty: fields.number("repetition_penalty", 0.0, 2.0).unwrap_or(1.0),
            // A drawn seed fits a JavaScript number, so that every client can send it back.
            seed: fields
                .integer("seed", 0, u64::MAX)
                .unwrap_or_else(|| rand::random_range(0..1_u64 << 53)),
        },
        stop: stop(&mut fields),
        progress_every: fields
            .integer("progress_every", 0, u64::from(OUTPUT_TOKENS_MAX))
            .map_or(PROGRESS_EVERY_TOKENS, |n| n as u32),
        logprobs: None,
        logit_bias: Vec::new(),
        grammar: None,
    };
    let on_disconnect = fields.take("on_disconnect", "`cancel` or `continue`").unwrap_or_default();
    let timeout_ms = fields.integer("timeout_ms", 1, JOB_TIMEOUT_MS_MAX);
    match (fields.finish(), prompt) {
        (violations, Some(prompt)) if violations.is_empty() => {
            Ok(Execute { job_id, prompt, wish, on_disconnect, timeout_ms })
        }
        (violations, _) => Err(violations),
    }
}

/// Checks the body of `POST /cancel`.
pub fn parse_cancel(body: &[u8]) -> Result<String, Vec<Violation>> {
    let mut fields = Fields::read(body)?;
    let job_id = fields.take::<String>("job_id", "a string");
    if job_id.is_none() && !fields.seen("job_id") {
        fields.wrong("job_id", "required", "is needed");
    }
    let violations = fields.finish();
    job_id.filter(|_| violations.is_empty()).ok_or(violations)
}

fn is_job_id(id: &str) -> bool {
    (1..=JOB_ID_BYTES_MAX).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b))
}

/// The prompt or the messages: exactly one of them.
fn prompt(fields: &mut Fields) -> Option<Prompt> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Said {
        role: String,
        content: String,
    }
    let text = fields.take::<String>("prompt", "a string").map(Private::new);
    let said = fields.take::<Vec<Said>>("messages", "a list of {role, content}");
    if fields.seen("prompt") == fields.seen("messages") {
        fields.wrong("prompt", "exactly one", "give either `prompt` or `messages`");
        return None;
    }
    if let Some(text) = text {
        if !(1..=PROMPT_CHARS_MAX).contains(&text.chars()) {
            fields.wrong("prompt", "length", "has 1 to 32768 characters");
        }
        return Some(Prompt::Text(text));
    }
    let said = said?;
    let chars: usize = said.iter().map(|m| m.content.chars().count()).sum();
    if !(1..=MESSAGES_MAX).contains(&said.len()) || chars > PROMPT_CHARS_MAX {
        fields.wrong("messages", "length", "has 1 to 512 messages, 32768 characters together");
    }
    if said.iter().any(|m| !matches!(m.role.as_str(), "system" | "user" | "assistant" | "tool")) {
        fields.wrong("messages", "role", "roles are system, user, assistant, tool");
    }
    Some(Prompt::Chat(
        said.into_iter().map(|m| Message { role: m.role, content: m.content }).collect(),
    ))
}

fn stop(fields: &mut Fields) -> Vec<String> {
    let stop = fields.take::<Vec<String>>("stop", "a list of strings").unwrap_or_default();
    if stop.len() > STOP_STRINGS_MAX {
        fields.wrong("stop", "length", "has at most 4 strings");
    }
    if stop.iter().any(|s| !(1..=STOP_CHARS_MAX).contains(&s.chars().count())) {
        fields.wrong("stop", "length", "each stop string has 1 to 32 characters");
    }
    stop
}

/// The fields of a JSON object, each still as it was written.
struct Fields {
    raw: Vec<(String, Box<RawValue>)>,
    taken: HashSet<&'static str>,
    wrong: Vec<Violation>,
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Vec<(String, Box<RawValue>)>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(pairs)
            }
        }
        let raw = deserializer.deserialize_map(Pairs)?;
        Ok(Fields { raw, taken: HashSet::new(), wrong: Vec::new() })
    }
}

impl Fields {
    fn read(body: &[u8]) -> Result<Self, Vec<Violation>> {
        serde_json::from_slice(body).map_err(|e| {
            let place =
                format!("is a JSON object; line {}, column {} is not", e.line(), e.column());
            vec![Violation::new("body", "json", &place)]
        })
    }

    fn wrong(&mut self, field: &str, constraint: &str, message: &str) {
        self.wrong.push(Violation::new(field, constraint, message));
    }

    /// Whether the field was given, even if it was null or wrong.
    fn seen(&self, name: &str) -> bool {
        self.raw.iter().any(|(known, _)| known == name)
    }

    /// The field's value, where it is there and of its type.
    fn take<T: serde::de::DeserializeOwned>(
        &mut self,
        name: &'static str,
        expected: &str,
    ) -> Option<T> {
        self.taken.insert(name);
        let mut values = self.raw.iter().filter(|(known, _)| known == name).map(|(_, raw)| raw);
        let value = values.next()?;
        if values.next().is_some() {
            self.wrong(name, "unique", "is given once");
            return None;
        }
        match serde_json::from_str(value.get()) {
            Ok(value) => Some(value),
            Err(_) => {
                self.wrong(name, "type", &format!("is {expected}"));
                None
            }
        }
    }

    fn number(&mut self, name: &'static str, min: f64, max: f64) -> Option<f64> {
        let expected = format!("a number from {min} to {max}");
        let value: f64 = self.take(name, &expected)?;
        if !(min..=max).contains(&value) {
            self.wrong(name, "range", &format!("is {expected}"));
        }
        Some(value.abs()) // -0 is 0
    }

    fn integer(&mut self, name: &'static str, min: u64, max: u64) -> Option<u64> {
        let expected = format!("an integer from {min} to {max}");
        let value: u64 = self.take(name, &expected)?;
        if !(min..=max).contains(&value) {
            self.wrong(name, "range", &format!("is {expected}"));
        }
        Some(value)
    }

    fn finish(mut self) -> Vec<Violation> {
        for (name, _) in &self.raw {
            if !self.taken.contains(name.as_str()) {
                self.wrong.push(Violation::new(name, "unknown", "is no field of this request"));
            }
        }
        self.wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expected: &[(&str, &str)]) {
        let found = parse_execute(body.as_bytes()).err().unwrap_or_default();
        let found: Vec<(&str, &str)> =
            found.iter().map(|v| (v.field.as_str(), v.constraint.as_str())).collect();
        assert_eq!(found, expected, "of {body}");
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        check(r#"{"prompt":"a","max_tokens":1}"#, &[]);
        check("{", &[("body", "json")]);
        check("[]", &[("body", "json")]);
        check(
            r#"{"max_tokens":0,"temperature":3,"surprise":1}"#,
            &[
                ("prompt", "exactly one"),
                ("max_tokens", "range"),
                ("temperature", "range"),
                ("surprise", "unknown"),
            ],
        );
        check(r#"{"prompt":"a","prompt":"b","max_tokens":1}"#, &[("prompt", "unique")]);
        check(r#"{"prompt":"","max_tokens":1}"#, &[("prompt", "length")]);
        check(r#"{"prompt":"a"}"#, &[("max_tokens", "required")]);
        check(r#"{"prompt":"a","max_tokens":1,"stop":["","a"]}"#, &[("stop", "length")]);
        check(r#"{"prompt":"a","max_tokens":1,"job_id":"a b"}"#, &[("job_id", "pattern")]);
    }

    #[test]
    fn odd_numbers_are_refused_by_the_name_of_their_field() {
        for field in ["max_tokens", "temperature", "top_p", "top_k", "seed", "timeout_ms", "min_p"]
        {
            for odd in ["1e400", "\"1\"", "null", "[]", "-1", "1e308", "9223372036854775808000"] {
                let body = format!("{{\"prompt\":\"a\",\"max_tokens\":1,\"{field}\":{odd}}}");
                let body = body.replace("\"max_tokens\":1,\"max_tokens\"", "\"max_tokens\"");
                let found = parse_execute(body.as_bytes()).err().unwrap_or_default();
                assert!(found.iter().any(|v| v.field == field), "{field} = {odd}: {found:?}");
            }
        }
    }
}
