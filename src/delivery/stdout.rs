//! stdout: narrations, a line each, and nothing else ever. Written by a thread of its own, so that a
//! reader who stops reading stops nobody; what can't be written is counted.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::error::{Error, Kind, Result};
use crate::fault;
use crate::limits::STDOUT_LINES_MAX;
use crate::measure;
use crate::narration::{Context, Narration, Severity, clean, wire};

/// How narrations look on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One JSON object a line, for programs.
    Json,
    /// The plain sentence, for people.
    Human,
    /// The metaphor, where there is one.
    Cute,
    /// The spoken line, where there is one.
    Story,
}

/// The queue in front of stdout.
pub struct Stdout {
    form: Form,
    colour: bool,
    lines: Mutex<Lines>,
    changed: Condvar,
    lost: AtomicU64,
    broken: AtomicBool,
}

#[derive(Default)]
struct Lines {
    waiting: VecDeque<String>,
    writing: bool,
}

impl Stdout {
    /// Starts the thread that writes to `sink`.
    pub fn spawn(form: Form, colour: bool, sink: impl Write + Send + 'static) -> Result<Arc<Self>> {
        let stdout = Arc::new(Stdout {
            form,
            colour,
            lines: Mutex::default(),
            changed: Condvar::new(),
            lost: AtomicU64::new(0),
            broken: AtomicBool::new(false),
        });
        let writer = Arc::clone(&stdout);
        thread::Builder::new()
            .name("stdout".into())
            .spawn(move || writer.write_all(sink))
            .map_err(|e| Error::new(Kind::Internal, "the stdout thread can't start").because(e))?;
        Ok(stdout)
    }

    /// Queues a worded narration; `json` is its line.
    pub fn narration(&self, context: &Context, narration: &Narration, json: &str) {
        match self.form {
            Form::Json => self.push(json.to_owned()),
            form => self.push(for_people(form, self.colour, context, narration)),
        }
    }

    /// Queues what is left of a withheld narration; `json` is its line.
    pub fn withheld(&self, context: &Context, withheld: &wire::Withheld, json: &str) {
        let text = match self.form {
            Form::Json => json.to_owned(),
            _ => format!(
                "{}  withheld: filter {} {}",
                clock(context),
                clean::line(&withheld.filter, 64),
                clean::line(&withheld.reason, 200)
            ),
        };
        self.push(text);
    }

    fn push(&self, line: String) {
        let mut lines = self.lock();
        if lines.waiting.len() >= STDOUT_LINES_MAX {
            self.lose(1);
            return;
        }
        lines.waiting.push_back(line);
        self.changed.notify_all();
    }

    fn lose(&self, count: u64) {
        self.lost.fetch_add(count, Ordering::Relaxed);
        measure::narrations_lost(count, "stdout");
    }

    /// What was lost since the last call, provided that there is room again to tell of it.
    pub fn take_lost(&self) -> Option<u64> {
        // Telling a broken sink of its losses would only be the next loss.
        if self.lost.load(Ordering::Relaxed) == 0
            || self.broken.load(Ordering::Relaxed)
            || self.lock().waiting.len() > STDOUT_LINES_MAX / 2
        {
            return None;
        }
        Some(self.lost.swap(0, Ordering::Relaxed)).filter(|lost| *lost > 0)
    }

    /// Waits until everything queued is written, at most for `limit`.
    pub fn flush(&self, limit: Duration) {
        let busy = |lines: &mut Lines| !lines.waiting.is_empty() || lines.writing;
        drop(self.changed.wait_timeout_while(self.lock(), limit, busy));
    }

    fn write_all(&self, mut sink: impl Write) {
        loop {
            let batch: Vec<String> = {
                let mut lines = self.lock();
                lines.writing = false;
                self.changed.notify_all();
                let idle = |lines: &mut Lines| lines.waiting.is_empty();
                let mut lines =
                    self.changed.wait_while(lines, idle).unwrap_or_else(PoisonError::into_inner);
                lines.writing = true;
                lines.waiting.drain(..).collect()
            };
            let count = batch.len() as u64;
            // A sink that panics is one that fails: this thread has to go on.
            let write = || write_batch(&mut sink, batch);
            let written = catch_unwind(AssertUnwindSafe(write))
                .unwrap_or_else(|_| Err(io::Error::other("writing panicked")));
            let broken_before = self.broken.swap(written.is_err(), Ordering::Relaxed);
            if let Err(error) = written {
                self.lose(count);
                if !broken_before {
                    tracing::warn!(%error, "stdout can't be written; narrations to it are lost");
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write_batch(sink: &mut impl Write, batch: Vec<String>) -> io::Result<()> {
    fault::step("stdout").map_err(io::Error::other)?;
    let mut text = batch.join("\n");
    text.push('\n');
    sink.write_all(text.as_bytes())?;
    sink.flush()
}

/// One line for a person: time, actor, and the sentence in the form asked for.
fn for_people(form: Form, colour: bool, context: &Context, narration: &Narration) -> String {
    let text = match form {
        Form::Cute => narration.cute.as_deref(),
        Form::Story => narration.story.as_deref(),
        Form::Json | Form::Human => None,
    };
    let text = clean::line(text.unwrap_or(&narration.human), crate::limits::STORY_CHARS_MAX);
    let actor = clean::line(&context.actor, 24);
    let code = match context.severity {
        Severity::Error => "31",
        Severity::Warn => "33",
        Severity::Info => "36",
        Severity::Debug => "2",
    };
    if colour {
        format!("\x1b[2m{}\x1b[0m  \x1b[{code}m{actor:<14}\x1b[0m  {text}", clock(context))
    } else {
        format!("{}  {actor:<14}  {text}", clock(context))
    }
}

/// Time of day in UTC with milliseconds.
fn clock(context: &Context) -> String {
    let timestamp = wire::timestamp(context.timestamp_us);
    timestamp.get(11..23).unwrap_or("").to_owned()
}
