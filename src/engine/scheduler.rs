//! The engine's thread: steps over slots. A job joins at a step and leaves when it ends; the prompt is
//! computed in chunks between the steps of others. Never waits for a client, a filter or a sink.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::Language;
use super::decoder::{Chunk, Decoder, Logits};
use super::logprobs::Logprobs;
use super::sampler::Sampler;
use super::stop::StopMatcher;
use super::text::TextStream;
use crate::delivery::event::{Code, End, Failure, StopReason as WireStop, TokenLogprob};
use crate::error::{Error, Kind, Result};
use crate::job::{Job, Queue};
use crate::limits::PREFILL_CHUNK_TOKENS;
use crate::measure;
use crate::narration::facts::{
    CacheReset, CancelledBy, FailureCode, InferenceCancelled, InferenceCompleted, InferenceFailed,
    InferenceStarted, PrefillProgress, StopReason, TokensGenerated,
};
use crate::narration::{Fact, fact};

/// What others may see of the engine while it works.
pub struct Pulse {
    /// Memory of weights and caches, bytes.
    pub resident_bytes: AtomicU64,
    origin: Instant,
    /// When the step that runs began, µs after `origin`; 0: none runs.
    step_began_us: AtomicU64,
}

impl Default for Pulse {
    fn default() -> Self {
        Pulse {
            resident_bytes: AtomicU64::new(0),
            origin: Instant::now(),
            step_began_us: AtomicU64::new(0),
        }
    }
}

impl Pulse {
    /// How long the step that runs has been running; a hung engine shows in nothing else.
    pub fn step_time(&self) -> Duration {
        match self.step_began_us.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            began => self.origin.elapsed().saturating_sub(Duration::from_micros(began)),
        }
    }

    fn step_begins(&self) {
        let now = u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX).max(1);
        self.step_began_us.store(now, Ordering::Relaxed);
    }

    fn step_ended(&self) {
        self.step_began_us.store(0, Ordering::Relaxed);
    }
}

/// Starts the thread, which serves `queue` until it is closed and empty.
pub fn spawn(
    decoder: Box<dyn Decoder>,
    language: Arc<Language>,
    queue: Arc<Queue>,
    pulse: Arc<Pulse>,
    finished: impl Fn(&Job) + Send + 'static,
) -> Result<thread::JoinHandle<()>> {
    let finished = Box::new(finished);
    let slots = (0..decoder.sequences()).map(|_| None).collect();
    let mut engine =
        Engine { decoder, language, queue, pulse, finished, slots, logits: Logits::default() };
    thread::Builder::new()
        .name("engine".into())
        .spawn(move || engine.run())
        .map_err(|e| Error::new(Kind::Internal, "the engine's thread can't start").because(e))
}

struct Engine {
    decoder: Box<dyn Decoder>,
    language: Arc<Language>,
    queue: Arc<Queue>,
    pulse: Arc<Pulse>,
    finished: Box<dyn Fn(&Job) + Send>,
    slots: Vec<Option<Slot>>,
    logits: Logits,
}

/// One job in the engine.
struct Slot {
    job: Job,
    sampler: Sampler,
    logprobs: Option<Logprobs>,
    /// Log probabilities of the tokens whose text is still to be sent.
    told: Vec<TokenLogprob>,
    text: TextStream,
    stop: StopMatcher,
    /// Prompt and generated tokens; those before `computed` are in the KV cache.
    tokens: Vec<u32>,
    computed: usize,
    generated: u32,
    began: Instant,
    first: Option<Instant>,
    last: Instant,
}

/// How a job's part in the engine ends.
enum Outcome {
    Done(StopReason, Option<usize>),
    Cancelled(CancelledBy),
    Failed(Error),
}

impl Engine {
    fn run(&mut self) {
        loop {
            if !self.admit() {
                return;
            }
            self.sweep();
            self.pulse.step_begins();
            let stepped = catch_unwind(AssertUnwindSafe(|| self.step()));
            self.pulse.step_ended();
            if stepped.is_err() {
                self.fail_all(&Error::new(Kind::Inference, "the model's computation panicked"));
            }
        }
    }

    /// Fills free slots from the queue; waits for work if there is none. False: there will be none.
    fn admit(&mut self) -> bool {
        loop {
            let idle = self.slots.iter().all(Option::is_none);
            let Some(free) = self.slots.iter().position(Option::is_none) else { return true };
            match self.queue.take(idle) {
                Some(job) => self.slots[free] = Some(Slot::begin(job)),
                None => return !idle,
            }
        }
    }

    /// Ends what somebody has ended, in the queue and in the slots.
    fn sweep(&mut self) {
        for job in self.queue.take_ended() {
            let by = job.ended_waiting_by().unwrap_or(CancelledBy::Client);
            cancelled(&job, by, 0);
            (self.finished)(&job);
        }
        for at in 0..self.slots.len() {
            let by = self.slots[at].as_ref().and_then(|slot| slot.job.ended_by());
            let ended = self.slots[at].as_ref().is_some_and(|slot| slot.job.feed.ended());
            if let Some(by) = by {
                self.finish(at, Outcome::Cancelled(by));
            } else if ended {
                let why = "a filter failed on the generated text, the rest of which is withheld";
                self.finish(at, Outcome::Failed(Error::new(Kind::Inference, why)));
            }
        }
    }

    /// One step: a token for each job that decodes, and one chunk of one prompt.
    fn step(&mut self) {
        let blocks: Vec<u32> = (0..fact::count(self.slots.len())).collect();
        let (mut chunks, mut plan) = (Vec::new(), Vec::new());
        let mut prefilling = false;
        for (at, slot) in self.slots.iter().enumerate() {
            let Some(slot) = slot else { continue };
            let left = &slot.tokens[slot.computed..];
            if left.len() > 1 && std::mem::replace(&mut prefilling, true) {
                continue; // one prompt at a time
            }
            let take = left.len().min(PREFILL_CHUNK_TOKENS);
            plan.push((at, take, take == left.len()));
            chunks.push(Chunk {
                blocks: &blocks[at..=at],
                position: slot.computed,
                tokens: &left[..take],
                logits: take == left.len(),
            });
        }
        if chunks.is_empty() {
            return;
        }
        let result = self.decoder.step(&chunks, &mut self.logits);
        self.pulse.resident_bytes.store(self.decoder.resident_bytes(), Ordering::Relaxed);
        match result {
            Ok(()) => self.take_in(&plan),
            Err(error) => {
                tracing::error!(error = error.trail(), "a step failed");
                self.fail_all(&error);
            }
        }
    }

    /// Ends every running job for a step that failed; which of them made it fail can't be known.
    fn fail_all(&mut self, error: &Error) {
        for at in 0..self.slots.len() {
            self.finish(at, Outcome::Failed(Error::new(error.kind(), error.to_string())));
        }
    }

    /// Turns the logits of a step into tokens and text.
    fn take_in(&mut self, plan: &[(usize, usize, bool)]) {
        let mut logits = std::mem::take(&mut self.logits);
        let mut rows = logits.rows_mut();
        for &(at, took, wanted) in plan {
            let Some(slot) = self.slots[at].as_mut() else { continue };
            slot.computed += took;
            slot.tell_prefill();
            if !wanted {
                continue;
            }
            let outcome = match rows.next() {
                Some(row) => slot.next_token(row, &self.language, &self.pulse),
                None => Some(Outcome::Failed(Error::new(
                    Kind::Internal,
                    "the decoder returned fewer logits than were asked for",
                ))),
            };
            if let Some(outcome) = outcome {
                self.finish(at, outcome);
            }
        }
        drop(rows);
        self.logits = logits;
    }

    fn finish(&mut self, at: usize, outcome: Outcome) {
        let Some(mut slot) = self.slots[at].take() else { return };
        measure::inference(slot.began.elapsed());
        match outcome {
            Outcome::Done(reason, stop) => slot.complete(reason, stop, &self.pulse),
            Outcome::Cancelled(by) => cancelled(&slot.job, by, slot.generated),
            Outcome::Failed(error) => slot.fail(&error),
        }
        (self.finished)(&slot.job);
        self.queue.done();
    }
}

impl Slot {
    fn begin(mut job: Job) -> Self {
        let tokens = std::mem::take(&mut job.prompt);
        measure::prompt(tokens.len());
        let prompt_tokens = fact::count(tokens.len());
        job.feed.tell(Fact::InferenceStarted(InferenceStarted {
            prompt_chars: job.prompt_chars,
            prompt_tokens,
            max_tokens: job.wish.max_tokens,
        }));
        job.feed.tell(Fact::CacheReset(CacheReset {
            reused_tokens: 0,
            tokens_to_compute: prompt_tokens,
        }));
        let bias = std::mem::take(&mut job.wish.logit_bias);
        let sampler = Sampler::new(job.wish.sampling).with_bias(bias);
        let logprobs = job.wish.logprobs.map(|count| Logprobs::new(count as usize));
        let stop = StopMatcher::new(&job.wish.stop);
        Slot {
            sampler,
            logprobs,
            told: Vec::new(),
            stop,
            text: TextStream::new(),
            tokens,
            computed: 0,
            generated: 0,
            began: Instant::now(),
            first: None,
            last: Instant::now(),
            job,
        }
    }

    const fn prompt_tokens(&self) -> usize {
        self.tokens.len() - self.generated as usize
    }

    /// Tells how far the prompt is, once a chunk, while it is being computed.
    fn tell_prefill(&self) {
        let total = self.prompt_tokens();
        if self.generated == 0 && total > PREFILL_CHUNK_TOKENS {
            self.job.feed.tell(Fact::PrefillProgress(PrefillProgress {
                tokens_done: fact::count(self.computed),
                tokens_total: fact::count(total),
            }));
        }
    }

    /// Chooses the next token and hands on the text that is sure by now.
    fn next_token(
        &mut self,
        logits: &mut [f32],
        language: &Language,
        pulse: &Pulse,
    ) -> Option<Outcome> {
        let (token, complete) = match self.choose(logits) {
            Ok(chosen) => chosen,
            Err(error) => return Some(Outcome::Failed(error)),
        };
        if language.tokenizer.ends(token) {
            return Some(Outcome::Done(StopReason::Eos, None));
        }
        self.tokens.push(token);
        self.generated += 1;
        let before = std::mem::replace(&mut self.last, Instant::now());
        match self.first {
            Some(_) => measure::next_token(self.last.saturating_duration_since(before)),
            None => measure::first_token(self.last.saturating_duration_since(self.job.accepted)),
        }
        self.first.get_or_insert(self.last);
        if let Some(logprobs) = &self.logprobs {
            self.told.push(logprobs.of(token, &language.tokenizer));
        }
        let text = self.text.push(language.tokenizer.token_bytes(token));
        let step = self.stop.push(&text);
        self.send(step.text);
        if let Some(matched) = step.matched {
            return Some(Outcome::Done(StopReason::StopSequence, Some(matched)));
        }
        let every = self.job.wish.progress_every;
        if every > 0 && self.generated.is_multiple_of(every) {
            let rate = self.rate();
            self.job.feed.tell(Fact::TokensGenerated(TokensGenerated {
                tokens: self.generated,
                tokens_per_second: rate,
            }));
            self.job.feed.metrics(rate, pulse.resident_bytes.load(Ordering::Relaxed));
        }
        if complete {
            return Some(Outcome::Done(StopReason::Eos, None));
        }
        (self.generated >= self.job.wish.max_tokens)
            .then_some(Outcome::Done(StopReason::MaxTokens, None))
    }

    /// The next token, and whether the text is complete with it, as its grammar has it.
    fn choose(&mut self, logits: &mut [f32]) -> Result<(u32, bool)> {
        if let Some(logprobs) = &mut self.logprobs {
            logprobs.keep(logits);
        }
        let Some(constraint) = &mut self.job.constraint else {
            return Ok((self.sampler.sample(logits, &self.tokens, None)?, false));
        };
        let token = self.sampler.sample(logits, &self.tokens, Some(constraint.allowed()?))?;
        Ok((token, constraint.take(token)?))
    }

    fn send(&mut self, text: String) {
        if !text.is_empty() {
            let index = self.generated.saturating_sub(1);
            self.job.feed.token(text, index, std::mem::take(&mut self.told));
        }
    }

    fn decode_time(&self) -> Duration {
        self.first.map_or(Duration::ZERO, |first| self.last.saturating_duration_since(first))
    }

    /// Tokens a second since the first one, which took no decoding.
    fn rate(&self) -> f64 {
        fact::rounded(
            f64::from(self.generated.saturating_sub(1)) / self.decode_time().as_secs_f64(),
        )
    }

    fn complete(&mut self, reason: StopReason, stop: Option<usize>, pulse: &Pulse) {
        if reason != StopReason::StopSequence {
            // What was held back is part of the text after all; it may still hold a stop string.
            let tail = self.text.finish();
            let step = self.stop.push(&tail);
            let rest = step.text + &self.stop.finish();
            self.send(rest);
        }
        let (feed, rate) = (&self.job.feed, self.rate());
        let first = self.first.unwrap_or(self.last);
        feed.metrics(rate, pulse.resident_bytes.load(Ordering::Relaxed));
        feed.tell(Fact::InferenceCompleted(InferenceCompleted {
            prompt_tokens: fact::count(self.prompt_tokens()),
            tokens_out: self.generated,
            time_to_first_token_ms: fact::millis(
                first.saturating_duration_since(self.job.accepted),
            ),
            decode_ms: fact::millis(self.decode_time()),
            tokens_per_second: rate,
            stop_reason: reason,
        }));
        feed.end(Ok(End {
            tokens_out: self.generated,
            decode_time_ms: fact::millis(self.decode_time()),
            stop_reason: match reason {
                StopReason::MaxTokens => WireStop::MaxTokens,
                StopReason::StopSequence => WireStop::StopSequence,
                StopReason::Eos => WireStop::Eos,
            },
            stop_sequence_matched: stop.and_then(|at| self.job.wish.stop.get(at).cloned()),
        }));
    }

    fn fail(&self, error: &Error) {
        let (code, wire, retriable) = match error.kind() {
            Kind::OutOfMemory => (FailureCode::VramOom, Code::VramOom, true),
            _ => (FailureCode::InferenceFailed, Code::InferenceFailed, false),
        };
        let feed = &self.job.feed;
        feed.tell(Fact::InferenceFailed(InferenceFailed {
            code,
            reason: error.to_string(),
            tokens_out: self.generated,
        }));
        feed.end(Err(Failure { code: wire, message: error.to_string(), retriable }));
    }
}

/// Ends a job that somebody has ended.
fn cancelled(job: &Job, by: CancelledBy, tokens_out: u32) {
    job.feed.tell(Fact::InferenceCancelled(InferenceCancelled { by, tokens_out }));
    let (code, message, retriable) = match by {
        CancelledBy::Client => (Code::Cancelled, "cancelled on request", false),
        CancelledBy::Disconnect => (Code::Cancelled, "cancelled: its reader is gone", true),
        CancelledBy::Deadline => (Code::Timeout, "its deadline came before its end", true),
        CancelledBy::Shutdown => (Code::ShuttingDown, "the worker shuts down", true),
    };
    job.feed.end(Err(Failure { code, message: message.into(), retriable }));
}
