//! The one JSON form of a narration, as lines on stdout and as events on a stream. Every string that
//! passes is made safe on the way, whatever a filter returned. Reads no clock, does no I/O.

use std::io;

use serde::Serialize;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter};

use super::clean::{self, Cleaner};
use super::vocabulary::facts::Fact;
use super::vocabulary::types::{Context, Narration, Severity};
use crate::limits::{CUTE_CHARS_MAX, FACT_CHARS_MAX, HUMAN_CHARS_MAX, STORY_CHARS_MAX};

/// Version of the record.
const VERSION: u32 = 1;

/// What a failed filter kept back, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Withheld {
    /// The filter that failed.
    pub filter: String,
    /// How it failed.
    pub reason: String,
}

#[derive(Serialize)]
struct Record<'a> {
    v: u32,
    sequence: u64,
    timestamp: String,
    worker_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
    severity: Severity,
    actor: &'a str,
    action: &'a str,
    #[serde(flatten)]
    rest: Rest<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Rest<'a> {
    Worded {
        target: &'a str,
        human: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        cute: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        story: Option<&'a str>,
        fact: FactOnWire<'a>,
    },
    Withheld {
        withheld: &'a Withheld,
    },
}

/// A fact as `{"<kind>": {…}}`; a younger kind keeps its own name and fields.
struct FactOnWire<'a>(&'a Fact);

impl Serialize for FactOnWire<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Fact::Other(other) => {
                let fields: serde_json::Value =
                    serde_json::from_str(&other.json).unwrap_or(serde_json::Value::Null);
                serializer.collect_map([(other.name.as_str(), fields)])
            }
            fact => fact.serialize(serializer),
        }
    }
}

/// One narration as a line of JSON, without its newline.
pub fn line(context: &Context, narration: &Narration) -> String {
    let human = clean::line(&narration.human, HUMAN_CHARS_MAX);
    let cute = narration.cute.as_deref().map(|text| clean::line(text, CUTE_CHARS_MAX));
    let story = narration.story.as_deref().map(|text| clean::line(text, STORY_CHARS_MAX));
    json(&record(
        context,
        Rest::Worded {
            target: &narration.target,
            human: &human,
            cute: cute.as_deref(),
            story: story.as_deref(),
            fact: FactOnWire(&narration.fact),
        },
    ))
}

/// What stdout gets where a filter failed closed: the context, without text and without the fact.
pub fn withheld_line(context: &Context, withheld: &Withheld) -> String {
    json(&record(context, Rest::Withheld { withheld }))
}

/// The same object as an event of a stream carries it: with its `type`.
pub fn event(line: &str) -> String {
    format!("{{\"type\":\"narration\",{}", line.strip_prefix('{').unwrap_or(line))
}

fn record<'a>(context: &'a Context, rest: Rest<'a>) -> Record<'a> {
    Record {
        v: VERSION,
        sequence: context.sequence,
        timestamp: timestamp(context.timestamp_us),
        worker_id: &context.worker_id,
        job_id: context.job_id.as_deref(),
        correlation_id: context.correlation_id.as_deref(),
        trace_id: context.trace_id.as_deref(),
        severity: context.severity,
        actor: &context.actor,
        action: &context.action,
        rest,
    }
}

/// RFC 3339 in UTC with microseconds.
pub fn timestamp(us: u64) -> String {
    let us = i64::try_from(us).unwrap_or(i64::MAX);
    jiff::Timestamp::from_microsecond(us)
        .map_or_else(|_| "1970-01-01T00:00:00.000000Z".to_owned(), |time| format!("{time:.6}"))
}

fn json(record: &Record<'_>) -> String {
    let mut bytes = Vec::with_capacity(640);
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, Safe::default());
    match record.serialize(&mut serializer) {
        // The formatter writes whole characters only.
        Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => {
            tracing::error!(%error, "a narration could not be written as JSON");
            format!("{{\"v\":{VERSION},\"sequence\":{}}}", record.sequence)
        }
    }
}

/// A JSON formatter that makes every string safe and bounded while it writes.
#[derive(Default)]
struct Safe {
    cleaner: Cleaner,
    chars: usize,
}

impl Safe {
    fn write<W: ?Sized + io::Write>(&mut self, writer: &mut W, c: char) -> io::Result<()> {
        let Some(c) = self.cleaner.pass(c) else { return Ok(()) };
        if self.chars == FACT_CHARS_MAX {
            return Ok(());
        }
        self.chars += 1;
        match c {
            '"' => writer.write_all(b"\\\""),
            '\\' => writer.write_all(b"\\\\"),
            c => writer.write_all(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

impl Formatter for Safe {
    fn begin_string<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        *self = Safe::default();
        CompactFormatter.begin_string(writer)
    }

    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        fragment.chars().try_for_each(|c| self.write(writer, c))
    }

    fn write_char_escape<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        let c = match escape {
            CharEscape::Quote => '"',
            CharEscape::ReverseSolidus => '\\',
            CharEscape::Solidus => '/',
            CharEscape::Backspace => '\u{8}',
            CharEscape::FormFeed => '\u{c}',
            CharEscape::LineFeed => '\n',
            CharEscape::CarriageReturn => '\r',
            CharEscape::Tab => '\t',
            CharEscape::AsciiControl(byte) => char::from(byte),
        };
        self.write(writer, c)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::narration::vocabulary::facts::{Other, StopReason};

    fn narration(fact: Fact) -> Narration {
        Narration { fact, human: "It works.".into(), cute: None, ..Narration::sample() }
    }

    #[test]
    fn facts_carry_their_kind_and_numbers() {
        let fact = Fact::samples()
            .into_iter()
            .find(|fact| fact.kind() == "inference-completed")
            .expect("the vocabulary has it");
        let line = line(&Context::sample(), &narration(fact));
        let value: serde_json::Value = serde_json::from_str(&line).expect("valid JSON");
        let fields = &value["fact"]["inference-completed"];
        assert_eq!(fields["tokens_out"], 42);
        assert_eq!(fields["stop_reason"], "max-tokens");
        assert_eq!(serde_json::json!(StopReason::MaxTokens), "max-tokens");
        assert_eq!(value["v"], 1);
        assert!(event(&line).starts_with("{\"type\":\"narration\",\"v\":1,"));
    }

    #[test]
    fn every_kind_goes_out_and_comes_back() {
        for fact in Fact::samples() {
            let text = serde_json::to_string(&fact).expect("facts are plain data");
            let back: Fact = serde_json::from_str(&text).expect("what was written can be read");
            assert_eq!(back, fact);
            assert!(text.contains(fact.kind()), "{text}");
        }
    }

    #[test]
    fn hostile_text_in_any_field_stays_one_safe_line() {
        let evil = "a\x1b[2J\n\u{202e}b\u{2028}\"c\\\u{85}";
        let mut told = narration(Fact::Other(Other {
            name: evil.into(),
            json: "{\"k\":\"\\u001b[1mv\\n\"}".into(),
        }));
        told.target = evil.repeat(1_000);
        told.human = evil.into();
        let mut context = Context::sample();
        context.worker_id = evil.into();
        let line = line(&context, &told);
        assert!(
            !line.contains(|c: char| c.is_control() || "\u{202e}\u{2028}".contains(c)),
            "{line}"
        );
        let value: serde_json::Value = serde_json::from_str(&line).expect("valid JSON");
        assert_eq!(value["human"], "a b \"c\\ ");
        assert_eq!(value["target"].as_str().map(|t| t.chars().count()), Some(FACT_CHARS_MAX));
    }

    #[test]
    fn time_is_rfc_3339_with_microseconds() {
        assert_eq!(timestamp(1_764_000_000_000_001), "2025-11-24T16:00:00.000001Z");
    }

    #[test]
    fn withheld_shows_no_fact_and_no_text() {
        let withheld = Withheld { filter: "redact".into(), reason: "trap".into() };
        let line = withheld_line(&Context::sample(), &withheld);
        let value: serde_json::Value = serde_json::from_str(&line).expect("valid JSON");
        assert_eq!(value["withheld"]["filter"], "redact");
        for absent in ["fact", "human", "target", "cute", "story"] {
            assert!(value.get(absent).is_none(), "{absent} in {line}");
        }
    }
}
