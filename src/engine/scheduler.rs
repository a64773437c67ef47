//! The engine's thread: joint steps over all running sequences. A job joins at a step and leaves when
//! it ends; prompts are computed in pieces beside the tokens of others, each in its turn. Never waits
//! for a client, a filter or a sink.

mod pace;
mod pulse;
mod sequence;

pub use pulse::Pulse;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Instant;

use self::pace::Pace;
use self::sequence::{Outcome, Sequence, cancelled, waited};
use super::Language;
use super::decoder::{Chunk, Decoder, Logits};
use super::kv::{Begin, Blocks};
use crate::error::{Error, Kind, Result};
use crate::fault;
use crate::job::{Job, Queue};
use crate::narration::facts::{CancelledBy, RequestQueued};
use crate::narration::{Fact, fact};

/// How the engine serves.
#[derive(Clone, Copy, Debug)]
pub struct Serving {
    /// Sequences that run at one time; no more than the decoder's.
    pub slots: usize,
    /// Whether the blocks of finished sequences are kept for prompts that begin alike.
    pub prefix_cache: bool,
    /// Most tokens of prompts in one step.
    pub prefill_tokens_max: usize,
}

/// Starts the thread, which serves `queue` until it is closed and empty. `died` is called if it panics where
/// nothing can: nobody is served any more then.
pub fn spawn(
    decoder: Box<dyn Decoder>,
    language: Arc<Language>,
    serving: Serving,
    queue: Arc<Queue>,
    pulse: Arc<Pulse>,
    finished: impl Fn(&Job) + Send + 'static,
    died: impl FnOnce() + Send + 'static,
) -> Result<thread::JoinHandle<()>> {
    let mut engine = Engine::new(decoder, language, serving, queue, pulse, Box::new(finished));
    thread::Builder::new()
        .name("engine".into())
        .spawn(move || {
            if catch_unwind(AssertUnwindSafe(|| engine.run())).is_err() {
                tracing::error!("the engine panicked; the worker can't go on");
                died();
            }
        })
        .map_err(|e| Error::new(Kind::Internal, "the engine's thread can't start").because(e))
}

struct Engine {
    decoder: Box<dyn Decoder>,
    language: Arc<Language>,
    queue: Arc<Queue>,
    pulse: Arc<Pulse>,
    finished: Box<dyn Fn(&Job) + Send>,
    slots: usize,
    blocks: Blocks,
    running: Vec<Sequence>,
    logits: Logits,
    /// Pieces of prompts computed so far; says whose turn it is.
    turns: u64,
    pace: Pace,
}

/// What a step computes of one sequence.
#[derive(Clone, Copy)]
struct Part {
    /// Index in `running`.
    at: usize,
    tokens: usize,
    /// Whether these are the last tokens known, so that the next is wanted.
    last: bool,
}

impl Engine {
    fn new(
        decoder: Box<dyn Decoder>,
        language: Arc<Language>,
        serving: Serving,
        queue: Arc<Queue>,
        pulse: Arc<Pulse>,
        finished: Box<dyn Fn(&Job) + Send>,
    ) -> Self {
        let slots = serving.slots.min(decoder.sequences()).max(1);
        queue.serve_at_once(slots);
        let keep = serving.prefix_cache && decoder.shares_blocks();
        let blocks = Blocks::new(decoder.blocks(), decoder.block_tokens(), keep);
        pulse.step_ended(decoder.resident_bytes(), blocks.counts());
        Engine {
            decoder,
            language,
            queue,
            pulse,
            finished,
            slots,
            blocks,
            running: Vec::with_capacity(slots),
            logits: Logits::default(),
            turns: 0,
            pace: Pace::new(serving.prefill_tokens_max),
        }
    }

    fn run(&mut self) {
        while self.admit() {
            fault::place("engine");
            self.sweep();
            self.pulse.step_begins();
            self.step();
            self.leave();
            self.pulse.step_ended(self.decoder.resident_bytes(), self.blocks.counts());
        }
    }

    /// Takes in what there is room for; waits for work if there is none. False: there will be none.
    fn admit(&mut self) -> bool {
        loop {
            let idle = self.running.is_empty();
            if self.running.len() >= self.slots {
                break;
            }
            let (blocks, mut begin) = (&mut self.blocks, None);
            let fits = |job: &Job| {
                begin = blocks.begin(&job.prompt, job.prompt.len() + job.wish.max_tokens as usize);
                // With nothing running there is all the room there will ever be.
                begin.is_some() || idle
            };
            match (self.queue.take(idle, fits), begin) {
                (Some(job), Some(begin)) => self.join(job, begin),
                (Some(job), None) => self.refuse(&job),
                (None, _) if idle => return false,
                (None, _) => break,
            }
        }
        self.queue.tell_places(|job, place| {
            job.feed.tell(Fact::RequestQueued(RequestQueued {
                position: fact::count(place.position),
                ahead: fact::count(place.ahead),
            }));
        });
        true
    }

    fn join(&mut self, job: Job, begin: Begin) {
        let copied = begin.copy.map_or(Ok(()), |(from, to)| {
            let copy = || {
                fault::step("copy")?;
                self.decoder.copy_block(from, to)
            };
            catch_unwind(AssertUnwindSafe(copy)).unwrap_or_else(|_| Err(panicked()))
        });
        self.pulse.reused_tokens.fetch_add(begin.reused as u64, Ordering::Relaxed);
        let mut sequence = Sequence::begin(job, begin.table, begin.reused);
        sequence.outcome = copied.err().map(Outcome::Failed);
        self.running.push(sequence);
    }

    /// Ends a job that does not fit at all; it should have been refused before.
    fn refuse(&self, job: &Job) {
        let what = "the memory for keys and values does not suffice; send less or raise --kv-mib";
        sequence::failed(job, &Error::new(Kind::OutOfMemory, what), &waited(job));
        (self.finished)(job);
        self.queue.done();
    }

    /// Ends what somebody has ended, in the queue and among the running.
    fn sweep(&mut self) {
        for job in self.queue.take_ended() {
            let by = job.ended_waiting_by().unwrap_or(CancelledBy::Client);
            cancelled(&job, by, &waited(&job));
            (self.finished)(&job);
        }
        for sequence in &mut self.running {
            if sequence.outcome.is_some() {
                continue;
            }
            sequence.outcome = sequence.job.ended_by().map(Outcome::Cancelled);
            if sequence.outcome.is_none() && sequence.job.feed.ended() {
                let why = "a filter failed on the generated text, the rest of which is withheld";
                sequence.outcome = Some(Outcome::Failed(Error::new(Kind::Inference, why)));
            }
        }
        self.leave();
    }

    /// One step: a token for each sequence that decodes, and pieces of prompts, as many tokens
    /// together as the pace allows.
    fn step(&mut self) {
        let parts = self.plan();
        if parts.is_empty() {
            return;
        }
        let began = Instant::now();
        match self.compute(&parts) {
            Ok(()) => {
                let prompts = parts.iter().map(|part| part.tokens).filter(|tokens| *tokens > 1);
                self.pace.took(prompts.sum(), began.elapsed());
                self.take_in(&parts);
            }
            // Which of them made the step fail is found out one by one: the others go on.
            Err(_) if parts.len() > 1 => {
                for part in parts {
                    match self.compute(&[part]) {
                        Ok(()) => self.take_in(&[part]),
                        Err(error) => self.lose(part, error),
                    }
                }
            }
            Err(error) => self.lose(parts[0], error),
        }
    }

    /// What the next step computes, with room for it in the tables.
    fn plan(&mut self) -> Vec<Part> {
        let decoding = |s: &Sequence| s.left() == 1;
        let mut prompts: Vec<usize> =
            (0..self.running.len()).filter(|at| !decoding(&self.running[*at])).collect();
        prompts.sort_by_key(|at| self.running[*at].turn);
        let tokens = (0..self.running.len()).filter(|at| decoding(&self.running[*at]));
        let tokens: Vec<usize> = tokens.collect();
        let mut budget = self.pace.tokens(!tokens.is_empty());
        let mut parts = Vec::with_capacity(self.running.len());
        for at in tokens.into_iter().chain(prompts) {
            let sequence = &mut self.running[at];
            let left = sequence.left();
            let take = if left == 1 { 1 } else { left.min(budget) };
            if take == 0 {
                break;
            }
            if left > 1 {
                budget -= take;
                self.turns += 1;
                sequence.turn = self.turns;
            }
            match self.blocks.grow(&mut sequence.table, sequence.computed + take) {
                Ok(()) => parts.push(Part { at, tokens: take, last: take == left }),
                Err(error) => sequence.outcome = Some(Outcome::Failed(error)),
            }
        }
        parts
    }

    fn compute(&mut self, parts: &[Part]) -> Result<()> {
        let chunks: Vec<Chunk<'_>> = parts
            .iter()
            .map(|part| {
                let sequence = &self.running[part.at];
                let begin = sequence.computed;
                Chunk {
                    blocks: &sequence.table.blocks,
                    position: begin,
                    tokens: &sequence.tokens[begin..begin + part.tokens],
                    logits: part.last,
                }
            })
            .collect();
        let (decoder, logits) = (&mut self.decoder, &mut self.logits);
        let step = || {
            fault::step("step")?;
            decoder.step(&chunks, logits)
        };
        let result = catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|_| Err(panicked()));
        let wanted = parts.iter().filter(|part| part.last).count();
        match result {
            Ok(()) if logits.rows() < wanted => Err(Error::new(
                Kind::Internal,
                format!("expected {wanted} rows of logits, found {}", logits.rows()),
            )),
            Err(error) => {
                tracing::error!(error = error.trail(), "a step failed");
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    /// Turns the logits of a step into tokens and text.
    fn take_in(&mut self, parts: &[Part]) {
        let mut rows = self.logits.rows_mut();
        for part in parts {
            let sequence = &mut self.running[part.at];
            sequence.computed += part.tokens;
            self.blocks.keep_full(&mut sequence.table, &sequence.tokens, sequence.computed);
            sequence.tell_prefill(part.last);
            let Some(row) = part.last.then(|| rows.next()).flatten() else { continue };
            let next = || sequence.next_token(row, &self.language, &self.pulse);
            // What goes wrong here is of this sequence alone.
            let outcome = catch_unwind(AssertUnwindSafe(next));
            self.running[part.at].outcome =
                outcome.unwrap_or_else(|_| Some(Outcome::Failed(panicked())));
        }
    }

    /// A sequence whose step failed ends; what it wrote last counts for nothing.
    fn lose(&mut self, part: Part, error: Error) {
        self.running[part.at].outcome = Some(Outcome::Failed(error));
    }

    /// Lets go those that have ended, and keeps their blocks for prompts that begin alike.
    fn leave(&mut self) {
        for at in (0..self.running.len()).rev() {
            if self.running[at].outcome.is_none() {
                continue;
            }
            let mut sequence = self.running.remove(at);
            let table = std::mem::take(&mut sequence.table);
            let outcome = sequence.outcome.take();
            if matches!(outcome, Some(Outcome::Failed(_))) {
                self.blocks.abandon(table);
            } else {
                self.blocks.end(table, &sequence.tokens, sequence.computed);
            }
            let end = || sequence.end(outcome, &self.pulse);
            if catch_unwind(AssertUnwindSafe(end)).is_err() {
                sequence::failed(&sequence.job, &panicked(), &sequence.served());
            }
            (self.finished)(&sequence.job);
            self.queue.done();
        }
    }
}

fn panicked() -> Error {
    Error::new(Kind::Inference, "the model's computation panicked")
}

#[cfg(test)]
mod tests;
