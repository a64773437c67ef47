//! What is wrong with a narration that came out of a filter: length, tense, emoji, speech, controls.
//! Judges only what the filter itself wrote.

use serde::Serialize;
use serde_json::Value;

use crate::limits::{CUTE_CHARS_MAX, FACT_CHARS_MAX, HUMAN_CHARS_MAX, STORY_CHARS_MAX};
use crate::narration::{Narration, Sinks, clean};

/// How much a problem matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Readers get something else than the filter wrote, or read it with a frown.
    Warning,
    /// The worker would refuse the filter, withhold the narration, or let out a secret.
    Error,
}

/// Something wrong, and where.
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    /// How much it matters.
    pub severity: Severity,
    /// Its name, for those who look it up.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// Kind of fact and variant of it, or the call.
    pub place: String,
    /// Field of the narration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The text in question.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub excerpt: Option<String>,
    /// What to do.
    pub advice: &'static str,
    /// Other places with the same problem.
    pub more: Vec<String>,
}

/// All texts of a narration by the name of their field.
pub fn texts(narration: &Narration) -> Vec<(String, String)> {
    let mut texts = vec![
        ("target".to_owned(), narration.target.clone()),
        ("human".to_owned(), narration.human.clone()),
    ];
    texts.extend(narration.cute.clone().map(|text| ("cute".to_owned(), text)));
    texts.extend(narration.story.clone().map(|text| ("story".to_owned(), text)));
    if let Ok(fact) = serde_json::to_value(&narration.fact) {
        fields(&mut texts, "fact", &fact);
    }
    texts
}

fn fields(texts: &mut Vec<(String, String)>, place: &str, value: &Value) {
    match value {
        Value::String(text) => texts.push((place.to_owned(), text.clone())),
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                fields(texts, &format!("{place}[{at}]"), item);
            }
        }
        Value::Object(map) => {
            for (name, field) in map {
                fields(texts, &format!("{place}.{name}"), field);
            }
        }
        _ => {}
    }
}

/// Everything wrong with what a filter made of a narration; `place` says which one it was.
pub fn problems(place: &str, before: &Narration, after: &Narration) -> Vec<Problem> {
    let problem = |severity, code, field: &str, excerpt: &str, message: String, advice| Problem {
        severity,
        code,
        message,
        place: place.to_owned(),
        field: Some(field.to_owned()),
        excerpt: Some(clean::line(excerpt, 240).into_owned()),
        advice,
        more: Vec::new(),
    };
    let mut found = Vec::new();
    let known = texts(before);
    let kind = before.fact.kind();
    for (field, text) in texts(after) {
        if known.iter().any(|(name, same)| *name == field && *same == text) {
            continue;
        }
        let most = match field.as_str() {
            "human" => HUMAN_CHARS_MAX,
            "cute" => CUTE_CHARS_MAX,
            "story" => STORY_CHARS_MAX,
            _ => FACT_CHARS_MAX,
        };
        let chars = text.chars().count();
        if chars > most {
            let message = format!("`{field}` has {chars} characters, readers get {most}");
            let advice = "shorten it; the worker cuts it off otherwise";
            found.push(problem(Severity::Warning, "too-long", &field, &text, message, advice));
        }
        if clean::line(&text, usize::MAX) != text {
            let message = format!("`{field}` holds controls, escapes or line breaks");
            let advice = "leave them out; the worker drops them, so readers see something else";
            found.push(problem(Severity::Warning, "control", &field, &text, message, advice));
        }
        if let Some((code, message, advice)) = style(kind, &field, &text) {
            found.push(problem(Severity::Warning, code, &field, &text, message, advice));
        }
    }
    let opened = after.sinks & !before.sinks;
    if opened != Sinks::empty() {
        let message = format!("opens {}, which was closed", sinks(opened).join(" and "));
        let advice = "filters only narrow; the worker keeps it closed";
        found.push(problem(Severity::Warning, "opened-sink", "sinks", "", message, advice));
    }
    found
}

/// What spec and style of narrations ask of a text.
fn style(kind: &str, field: &str, text: &str) -> Option<(&'static str, String, &'static str)> {
    match field {
        "cute" if !text.chars().any(is_emoji) => Some((
            "no-emoji",
            "`cute` has no emoji".to_owned(),
            "it is a gentle metaphor with at least one",
        )),
        "cute" if text.contains(['"', '“', '”', '«']) => Some((
            "speech",
            "`cute` holds speech".to_owned(),
            "speech belongs to `story`; `cute` is a metaphor without dialogue",
        )),
        "story" if !text.contains(['"', '“', '”', '«']) => Some((
            "no-speech",
            "`story` holds no speech".to_owned(),
            "it is quoted speech with its speaker; leave it out where nobody speaks",
        )),
        "human" if text.is_empty() => Some((
            "no-words",
            "`human` was emptied".to_owned(),
            "close the sinks instead, if nobody is to read it",
        )),
        "human" => tense(kind, text),
        _ => None,
    }
}

/// Present tense while it runs, past tense once done; never the future.
fn tense(kind: &str, text: &str) -> Option<(&'static str, String, &'static str)> {
    let first = text.split_whitespace().next().unwrap_or("").trim_end_matches([':', ',']);
    let lower = text.to_lowercase();
    let done = ["-completed", "-loaded", "-failed", "-cancelled", "-rejected", "-accepted"]
        .iter()
        .any(|end| kind.ends_with(end));
    let running = kind.ends_with("-progress") || kind.ends_with("-started") || kind == "startup";
    let message = if lower.contains(" will ") || lower.contains("going to ") {
        "`human` tells the future".to_owned()
    } else if done && first.len() > 4 && first.ends_with("ing") {
        format!("`human` says \"{first}\" of something that is over")
    } else if running && first.len() > 3 && first.ends_with("ed") {
        format!("`human` says \"{first}\" of something that goes on")
    } else {
        return None;
    };
    Some(("tense", message, "present tense while it runs, past tense once it is done"))
}

/// Whether a character is shown as a picture.
const fn is_emoji(c: char) -> bool {
    matches!(c, '\u{1f000}'..='\u{1faff}' | '\u{2600}'..='\u{27bf}' | '\u{2300}'..='\u{23ff}'
        | '\u{2b00}'..='\u{2bff}' | '\u{2190}'..='\u{21ff}' | '\u{3030}' | '\u{303d}')
}

/// Names of the open sinks.
pub fn sinks(open: Sinks) -> Vec<&'static str> {
    let mut names = Vec::new();
    if open & Sinks::STDOUT != Sinks::empty() {
        names.push("stdout");
    }
    if open & Sinks::SSE != Sinks::empty() {
        names.push("sse");
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: &str, change: impl Fn(&mut Narration), expected: &[&str]) {
        let fact = crate::narration::Fact::samples().into_iter().find(|f| f.kind() == kind);
        let before = crate::filter::trial::told(fact.expect("a kind")).narration;
        let mut after = before.clone();
        change(&mut after);
        let codes: Vec<&str> = problems("here", &before, &after).iter().map(|p| p.code).collect();
        assert_eq!(codes, expected);
    }

    #[test]
    fn each_fault_is_found_by_its_name() {
        let kind = "inference-completed";
        check(kind, |_| {}, &[]);
        check(kind, |n| n.human = "Generated 3 tokens.".into(), &[]);
        check(kind, |n| n.human = "x".repeat(101), &["too-long"]);
        check(kind, |n| n.human = "two\nlines".into(), &["control"]);
        check(kind, |n| n.human = "Generating tokens.".into(), &["tense"]);
        check(kind, |n| n.human = "It will end.".into(), &["tense"]);
        check("model-load-started", |n| n.human = "Loaded it.".into(), &["tense"]);
        check(kind, |n| n.cute = Some("A jar.".into()), &["no-emoji"]);
        check(kind, |n| n.cute = Some("\"A jar\" 🍯".into()), &["speech"]);
        check(kind, |n| n.cute = Some("A jar 🍯".into()), &[]);
        check(kind, |n| n.story = Some("He spoke.".into()), &["no-speech"]);
        check("startup", |n| n.target = "\u{1b}[1mx".into(), &["control"]);
    }

    #[test]
    fn a_sink_that_was_closed_stays_closed() {
        let fact = crate::narration::Fact::samples().swap_remove(0);
        let mut before = crate::filter::trial::told(fact).narration;
        before.sinks = Sinks::SSE;
        let mut after = before.clone();
        after.sinks = Sinks::STDOUT | Sinks::SSE;
        assert_eq!(problems("here", &before, &after)[0].code, "opened-sink");
    }
}
