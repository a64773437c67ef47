//! What our own requests may say, and what they share with OpenAI's: prompt, messages, stop strings,
//! sampling. Never repeats a value.

use serde::Deserialize;

use super::fields::{Fields, Null, Violation};
use crate::engine::template::Message;
use crate::job::{OnDisconnect, Sampling, Wish};
use crate::limits::{
    JOB_ID_BYTES_MAX, JOB_TIMEOUT_MS_MAX, MESSAGES_MAX, OUTPUT_TOKENS_MAX, PROGRESS_EVERY_TOKENS,
    PROMPT_CHARS_MAX, STOP_CHARS_MAX, STOP_STRINGS_MAX,
};
use crate::measure::Operation;
use crate::private::Private;

/// What the text to continue is.
pub enum Prompt {
    /// Text as it is.
    Text(Private),
    /// A conversation, for the model's own template.
    Chat(Vec<Message>),
}

impl Prompt {
    /// The field that it came in.
    pub const fn field(&self) -> &'static str {
        match self {
            Prompt::Text(_) => "prompt",
            Prompt::Chat(_) => "messages",
        }
    }

    /// What is asked for by it.
    pub const fn operation(&self) -> Operation {
        match self {
            Prompt::Text(_) => Operation::TextCompletion,
            Prompt::Chat(_) => Operation::Chat,
        }
    }
}

/// A checked request for inference.
pub struct Asked {
    /// Name that the client gives the job.
    pub job_id: Option<String>,
    /// What to continue.
    pub prompt: Prompt,
    /// How, and how far: where `any_length`, as far as fits.
    pub wish: Wish,
    /// Whether the request left it open how far.
    pub any_length: bool,
    /// What happens when nobody reads any more.
    pub on_disconnect: OnDisconnect,
    /// Deadline of the whole job, ms.
    pub timeout_ms: Option<u64>,
}

/// Checks the body of `POST /execute`; says everything that is wrong with it.
pub fn parse_execute(body: &[u8]) -> Result<Asked, Vec<Violation>> {
    let mut fields = Fields::read(body, Null::Wrong)?;
    let job_id = fields.take::<String>("job_id", "a string");
    if job_id.as_deref().is_some_and(|id| !is_job_id(id)) {
        fields.wrong("job_id", "pattern", "is 1 to 256 of A-Z a-z 0-9 . _ : -");
    }
    let prompt = prompt(&mut fields);
    let max_tokens = fields.integer("max_tokens", 1, u64::from(OUTPUT_TOKENS_MAX));
    fields.require("max_tokens");
    let wish = Wish {
        max_tokens: max_tokens.unwrap_or(1) as u32,
        sampling: {
            let seed = fields.integer("seed", 0, u64::MAX).unwrap_or_else(drawn_seed);
            sampling(&mut fields, seed)
        },
        stop: stop(&mut fields, false),
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
            Ok(Asked { job_id, prompt, wish, any_length: false, on_disconnect, timeout_ms })
        }
        (violations, _) => Err(violations),
    }
}

/// Checks the body of `POST /cancel`.
pub fn parse_cancel(body: &[u8]) -> Result<String, Vec<Violation>> {
    let mut fields = Fields::read(body, Null::Wrong)?;
    let job_id = fields.take::<String>("job_id", "a string");
    fields.require("job_id");
    let violations = fields.finish();
    job_id.filter(|_| violations.is_empty()).ok_or(violations)
}

fn is_job_id(id: &str) -> bool {
    (1..=JOB_ID_BYTES_MAX).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b))
}

/// A seed for who gave none: it fits a JavaScript number, so that every client can send it back.
pub fn drawn_seed() -> u64 {
    rand::random_range(0..1_u64 << 53)
}

/// How tokens are chosen.
pub fn sampling(fields: &mut Fields, seed: u64) -> Sampling {
    Sampling {
        temperature: fields.number("temperature", 0.0, 2.0).unwrap_or(1.0),
        top_p: fields.number("top_p", 0.0, 1.0).unwrap_or(1.0),
        top_k: fields.integer("top_k", 0, u64::from(u32::MAX)).unwrap_or(0) as u32,
        min_p: fields.number("min_p", 0.0, 1.0).unwrap_or(0.0),
        repetition_penalty: fields.number("repetition_penalty", 0.0, 2.0).unwrap_or(1.0),
        seed,
    }
}

/// The prompt or the messages: exactly one of them.
fn prompt(fields: &mut Fields) -> Option<Prompt> {
    if fields.seen("prompt") == fields.seen("messages") {
        fields.wrong("prompt", "exactly one", "give either `prompt` or `messages`");
        fields.allow(["prompt", "messages"]);
        return None;
    }
    if fields.seen("messages") {
        return messages(fields).map(Prompt::Chat);
    }
    text(fields, false).map(Prompt::Text)
}

/// A prompt as it is; `listed` takes it as the only one of a list, too.
pub fn text(fields: &mut Fields, listed: bool) -> Option<Private> {
    let text = if listed {
        match fields.take::<OneOrMany>("prompt", "a string, or a list of one string")? {
            OneOrMany::One(text) => text,
            OneOrMany::Many(mut texts) if texts.len() == 1 => texts.remove(0),
            OneOrMany::Many(_) => {
                fields.wrong("prompt", "length", "is a string, or a list of one string");
                return None;
            }
        }
    } else {
        fields.take::<String>("prompt", "a string")?
    };
    let text = Private::new(text);
    if !(1..=PROMPT_CHARS_MAX).contains(&text.chars()) {
        fields.wrong("prompt", "length", &format!("has 1 to {PROMPT_CHARS_MAX} characters"));
    }
    Some(text)
}

/// A conversation.
pub fn messages(fields: &mut Fields) -> Option<Vec<Message>> {
    let parts = fields.objects("messages", Null::Absent)?;
    if !(1..=MESSAGES_MAX).contains(&parts.len()) {
        fields.wrong("messages", "length", &format!("has 1 to {MESSAGES_MAX} messages"));
    }
    let mut said = Vec::with_capacity(parts.len().min(MESSAGES_MAX));
    for mut part in parts.into_iter().take(MESSAGES_MAX) {
        said.push(message(&mut part));
        fields.absorb(part);
    }
    let chars: usize = said.iter().map(|m| m.content.chars().count()).sum();
    if chars > PROMPT_CHARS_MAX {
        let message = format!("have {PROMPT_CHARS_MAX} characters together");
        fields.wrong("messages", "length", &message);
    }
    Some(said)
}

/// One message. What clients send back with an answer of ours, without meaning anything by it, is let
/// through where it is empty.
fn message(part: &mut Fields) -> Message {
    part.require("role");
    part.require("content");
    let role = part.take::<String>("role", "a string").unwrap_or_default();
    let role = match role.as_str() {
        "developer" => "system".to_owned(), // the newer name of the same
        "system" | "user" | "assistant" | "tool" => role,
        _ => {
            if part.seen("role") {
                let roles = "is system, developer, user, assistant or tool";
                part.wrong("role", "role", roles);
            }
            role
        }
    };
    let content = part.take::<Content>("content", "a string or a list of {type: \"text\", text}");
    if role == "tool" {
        let _ = part.take::<String>("tool_call_id", "a string"); // the template shows the text alone
    }
    part.only("tool_calls", &["[]"]);
    part.only("annotations", &["[]"]);
    part.only("refusal", &[]);
    part.only("audio", &[]);
    part.only("function_call", &[]);
    part.only("name", &[]);
    Message { role, content: content.map(Content::text).unwrap_or_default() }
}

/// What a message says: text, or a list of pieces of text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Whole(String),
    Pieces(Vec<Piece>),
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
enum Piece {
    Text { text: String },
}

impl Content {
    fn text(self) -> String {
        match self {
            Content::Whole(text) => text,
            Content::Pieces(pieces) => {
                pieces.into_iter().map(|Piece::Text { text }| text).collect()
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// Strings that end the text; `one` lets a single one stand for itself.
pub fn stop(fields: &mut Fields, one: bool) -> Vec<Private> {
    let expected = if one { "a string or a list of strings" } else { "a list of strings" };
    let stop = match fields.take("stop", expected) {
        Some(OneOrMany::Many(stop)) => stop,
        Some(OneOrMany::One(stop)) if one => vec![stop],
        Some(OneOrMany::One(_)) => {
            fields.wrong("stop", "type", &format!("is {expected}"));
            Vec::new()
        }
        None => Vec::new(),
    };
    if stop.len() > STOP_STRINGS_MAX {
        fields.wrong("stop", "length", &format!("has at most {STOP_STRINGS_MAX} strings"));
    }
    if stop.iter().any(|s| !(1..=STOP_CHARS_MAX).contains(&s.chars().count())) {
        let message = format!("each stop string has 1 to {STOP_CHARS_MAX} characters");
        fields.wrong("stop", "length", &message);
    }
    stop.into_iter().map(Private::new).collect()
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
        check(r#"{"prompt":"a","max_tokens":1,"stop":"a"}"#, &[("stop", "type")]);
    }

    #[test]
    fn messages_are_checked_one_by_one() {
        check(r#"{"messages":[{"role":"user","content":"a"}],"max_tokens":1}"#, &[]);
        check(
            r#"{"messages":[{"role":"developer","content":[{"type":"text","text":"a"}]},
                {"role":"assistant","content":"a","refusal":null,"tool_calls":[]}],"max_tokens":1}"#,
            &[],
        );
        check(
            r#"{"messages":[{"role":"bee","content":"a"},{"role":"user"},
                {"role":"user","content":[{"type":"image_url","image_url":{}}]},
                {"role":"user","content":"a","name":"b","buzz":1}],"max_tokens":1}"#,
            &[
                ("messages[0].role", "role"),
                ("messages[1].content", "required"),
                ("messages[2].content", "type"),
                ("messages[3].name", "unsupported"),
                ("messages[3].buzz", "unknown"),
            ],
        );
        check(r#"{"messages":[],"max_tokens":1}"#, &[("messages", "length")]);
        check(r#"{"messages":"a","max_tokens":1}"#, &[("messages", "type")]);
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
