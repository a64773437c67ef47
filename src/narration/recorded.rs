//! A told fact as a line of a recording: what the narrator handed on, before any filter. Not made safe
//! and not redacted, so whoever writes it keeps it private. Does no I/O.

use serde::{Deserialize, Serialize};

use super::narrator::Told;
use super::vocabulary::facts::Fact;
use super::vocabulary::types::{Context, Narration, Sinks};

/// Version of the line.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Written<'t> {
    v: u32,
    context: &'t Context,
    target: &'t str,
    sinks: Vec<Sink>,
    fact: &'t Fact,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    v: u32,
    context: Context,
    target: String,
    sinks: Vec<Sink>,
    fact: Fact,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Sink {
    Stdout,
    Sse,
}

/// A told fact as a line of JSON, without its newline.
pub fn line(told: &Told) -> String {
    let Told { context, narration } = told;
    let sinks = [(Sink::Stdout, Sinks::STDOUT), (Sink::Sse, Sinks::SSE)];
    let open = sinks.into_iter().filter(|(_, flag)| narration.sinks & *flag == *flag);
    let written = Written {
        v: VERSION,
        context,
        target: &narration.target,
        sinks: open.map(|(sink, _)| sink).collect(),
        fact: &narration.fact,
    };
    serde_json::to_string(&written).unwrap_or_else(|error| {
        tracing::error!(%error, "a fact could not be written as JSON");
        String::new()
    })
}

/// The told fact of a line. The error says what is wrong with it.
pub fn read(line: &str) -> Result<Told, String> {
    let Read { v, context, target, sinks, fact } =
        serde_json::from_str(line).map_err(|error| error.to_string())?;
    if v != VERSION {
        return Err(format!("is of version {v} of recordings; this worker reads {VERSION}"));
    }
    if context.kind != fact.kind() && !matches!(fact, Fact::Other(_)) {
        return Err(format!("calls a fact of kind {} {}", fact.kind(), context.kind));
    }
    let sinks = sinks.into_iter().fold(Sinks::empty(), |open, sink| match sink {
        Sink::Stdout => open | Sinks::STDOUT,
        Sink::Sse => open | Sinks::SSE,
    });
    let narration =
        Narration { fact, target, sinks, human: String::new(), cute: None, story: None };
    Ok(Told { context, narration })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_recorded_and_read_back() {
        for fact in Fact::samples() {
            let mut told = Told { context: Context::sample(), narration: Narration::sample() };
            told.context.kind = fact.kind().to_owned();
            told.narration =
                Narration { fact, human: String::new(), cute: None, story: None, ..told.narration };
            told.narration.sinks = Sinks::SSE;
            let back = read(&line(&told)).expect("what was written can be read");
            assert_eq!(back.context, told.context);
            assert_eq!(back.narration, told.narration);
        }
    }

    #[test]
    fn a_line_that_is_wrong_says_how() {
        let good = line(&Told { context: Context::sample(), narration: Narration::sample() });
        for (line, expected) in [
            ("{}".to_owned(), "missing field"),
            (good.replace("\"v\":1", "\"v\":2"), "version 2"),
            (good.replace("\"v\":1", "\"v\":1,\"x\":1"), "unknown field `x`"),
            ("no JSON".to_owned(), "expected"),
        ] {
            let error = read(&line).expect_err("it is wrong");
            assert!(error.contains(expected), "{error}");
        }
    }
}
