//! What `filter check` tries on a filter of generated text: pieces as a model makes them, cut anywhere,
//! through the worker's own way of text. Judges what comes out; it words nothing.

use std::sync::Arc;

use super::canary;
use super::lint::{Problem, Severity};
use super::subject::Subject;
use crate::filter::chain::{Chain, Entry, OnFailure};
use crate::filter::{Stopped, TextRun};
use crate::limits::FILTER_TEXT_HELD_BYTES_MAX;

/// What a model might say: nothing of it is secret.
const PLAIN: &str = "The bees return at dusk. \u{201c}How many?\u{201d} asks the keeper: 1,024 \
    drops, as ever \u{1f41d}.\n\n```rust\nfn main() { println!(\"{}\", 6 * 7); }\n```\nGrüße aus Łódź!";
/// Its place in problems.
const PLACE: &str = "text";
const CUTS: &str = "a model cuts text anywhere: keep what is undecided for the next push";
const LEAK: &str = "it says `redacts: true`: hold back what may be the beginning of a secret";
const FAILED: &str = "the worker would end the job with an error, and let nothing more of it out";

/// All that is wrong with what it does to text; nothing where it takes none.
pub fn problems(subject: &Subject) -> Vec<Problem> {
    if !subject.entry.component.takes_text() {
        return Vec::new();
    }
    let through = |pieces: &[&str]| through(subject, pieces);
    let mut found = Vec::new();
    match through(&[PLAIN]) {
        Err(stopped) => return vec![failed(&stopped)],
        Ok(whole) => found.extend(cuts(&whole, &through)),
    }
    if subject.entry.component.description().redacts {
        found.extend(leaks(&through));
    }
    found.extend(endless(&through));
    found
}

/// One text, in pieces, through a fresh instance.
fn through(subject: &Subject, pieces: &[&str]) -> Result<String, Stopped> {
    let known = &subject.entry;
    let mut entry = Entry::new(
        Arc::clone(&known.name),
        Arc::clone(&known.component),
        known.config.clone(),
        OnFailure::Withhold,
        known.timeout,
        known.memory_mib,
    );
    entry.text = true;
    let chain = Arc::new(Chain::new(Arc::clone(&subject.host), vec![entry], 1));
    let Some(mut run) = TextRun::begin(&chain) else { return Ok(pieces.concat()) };
    let mut out = String::new();
    for piece in pieces {
        out.push_str(&run.push(piece, &mut |_| {})?);
    }
    out.push_str(&run.finish(&mut |_| {})?);
    Ok(out)
}

/// How a text can be cut: in two at each place, and into its characters.
fn ways(text: &str) -> Vec<Vec<&str>> {
    let places = text.char_indices().map(|(at, _)| at).skip(1);
    let mut ways: Vec<Vec<&str>> = places.map(|at| vec![&text[..at], &text[at..]]).collect();
    ways.push(text.split("").filter(|piece| !piece.is_empty()).collect());
    ways
}

/// Whether what comes out depends on where the text is cut.
fn cuts(whole: &str, through: &dyn Fn(&[&str]) -> Result<String, Stopped>) -> Option<Problem> {
    for pieces in ways(PLAIN) {
        match through(&pieces) {
            Err(stopped) => return Some(failed(&stopped)),
            Ok(out) if out != whole => {
                let message = format!("cut into {} pieces, another text comes out", pieces.len());
                return Some(problem(Severity::Warning, "text-cuts", message, Some(out), CUTS));
            }
            Ok(_) => {}
        }
    }
    None
}

/// Planted secrets that come out, however they are cut.
fn leaks(through: &dyn Fn(&[&str]) -> Result<String, Stopped>) -> Vec<Problem> {
    let mut found = Vec::new();
    for canary in canary::all() {
        let text = format!("Here it is: {} , as you asked.", canary.text);
        let leaked = ways(&text).into_iter().find_map(|pieces| match through(&pieces) {
            Err(stopped) => Some(failed(&stopped)),
            Ok(out) if out.contains(&canary.secret) => {
                let pieces = pieces.len();
                let message = format!("a planted {} got through, cut in {pieces}", canary.family);
                let leak = problem(Severity::Error, "leak", message, None, LEAK);
                Some(Problem { place: format!("{PLACE}, {}", canary.family), ..leak })
            }
            Ok(_) => None,
        });
        found.extend(leaked);
    }
    found
}

/// Long plain texts, with and without an end of a word: to hold them for ever is a failure.
fn endless(through: &dyn Fn(&[&str]) -> Result<String, Stopped>) -> Option<Problem> {
    ["honey", "honey ", "\u{1f41d}\n"].iter().find_map(|piece| {
        let pieces = vec![*piece; 2 * FILTER_TEXT_HELD_BYTES_MAX / piece.len()];
        through(&pieces).err().map(|stopped| failed(&stopped))
    })
}

fn failed(stopped: &Stopped) -> Problem {
    let message = stopped.withheld.reason.clone();
    problem(Severity::Error, "text-failed", message, None, FAILED)
}

fn problem(
    severity: Severity,
    code: &'static str,
    message: String,
    excerpt: Option<String>,
    advice: &'static str,
) -> Problem {
    let (place, more) = (PLACE.to_owned(), Vec::new());
    Problem { severity, code, message, place, field: None, excerpt, advice, more }
}
