//! A test alone: hostile characters in every text of every kind of fact, through the default chain and
//! past it, in every form of stdout and on a stream: a line stays a line, a frame a frame.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::event::Event;
use super::frame;
use super::stdout::{Form, Stdout};
use crate::filter::{Chains, Host, Instances, Verdict, trial};
use crate::narration::{Fact, Narration, Narrator, Nowhere, Told, wire};

/// Controls, escape sequences, bidirectional marks and line ends, each around a letter.
const HOSTILE: [&str; 16] = [
    "\0",
    "\u{7}",
    "\u{8}",
    "\r\n",
    "\n\ndata: x\n\n",
    "\u{1b}[2J",
    "\u{1b}]0;t\u{7}",
    "\u{1b}",
    "\u{7f}",
    "\u{85}",
    "\u{9b}31m",
    "\u{202e}",
    "\u{2066}",
    "\u{200f}",
    "\u{2028}",
    "\u{feff}",
];

/// What was written, shared with the test.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no writer panics").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Every text of every kind made hostile, and the words too.
fn hostile() -> Vec<Told> {
    let mut all = Vec::new();
    for mark in HOSTILE {
        for fact in Fact::samples() {
            let mut told = trial::told(fact);
            told.narration.cute = Some("c 🐝".into());
            told.narration.story = Some("s".into());
            told.narration.texts(&mut |text| {
                *text = if text == "{}" {
                    serde_json::json!({ "k": format!("a{mark}b") }).to_string()
                } else {
                    format!("a{mark}b{mark}")
                };
            });
            all.push(told);
        }
    }
    all
}

fn is_safe(line: &str) -> bool {
    !line.contains(|c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}')
            || matches!(c, '\u{2028}' | '\u{2029}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    })
}

fn check(form: Form, told: &[(Told, Narration)]) {
    let paper = Paper::default();
    let stdout = Stdout::spawn(form, false, paper.clone()).expect("a thread");
    for (told, narration) in told {
        let json = wire::line(&told.context, narration);
        stdout.narration(&told.context, narration, &json);
        stdout.flush(Duration::from_secs(60)); // one at a time: its queue is bounded
        let frame = frame::frame(2, &Event::Narration(wire::event(&json).into()));
        let text = std::str::from_utf8(&frame).expect("UTF-8");
        let lines: Vec<&str> = text.split('\n').collect();
        assert_eq!(lines.len(), 5, "{} became {text:?}", told.context.kind);
        assert!(lines.iter().all(|line| is_safe(line)), "{text:?}");
    }
    let paper = paper.0.lock().expect("no writer panics").clone();
    let text = String::from_utf8(paper).expect("UTF-8");
    assert_eq!(text.matches('\n').count(), told.len(), "{form:?}: a line an event");
    if let Some(line) = text.lines().find(|line| !is_safe(line)) {
        panic!("{form:?}: {line:?}");
    }
}

#[test]
fn no_field_in_any_form_or_sink_breaks_a_line_or_a_frame() {
    let chains = Chains::new(Arc::new(Host::new().expect("wasm runs")), None);
    chains.reload(&Narrator::new("w".into(), Arc::new(Nowhere))).expect("the chain is sound");
    let _timed = chains.host().awake();
    let mut instances = Instances::default();
    let past: Vec<(Told, Narration)> =
        hostile().into_iter().map(|told| (told.clone(), told.narration)).collect();
    let mut through = Vec::new();
    for told in hostile() {
        let mut unworded = told.narration.clone();
        (unworded.human, unworded.cute, unworded.story) = (String::new(), None, None);
        match chains.current().narrate(&mut instances, &told.context, unworded, &mut |_| {}) {
            Verdict::Deliver(narration) => through.push((told, narration)),
            other => panic!("{}: {other:?}", told.context.kind),
        }
    }
    for form in [Form::Json, Form::Human, Form::Cute, Form::Story] {
        check(form, &past);
        check(form, &through);
    }
}
