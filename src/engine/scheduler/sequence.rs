//! One job in the engine: its tokens, what chooses the next one, and the text on its way out. Computes
//! nothing and owns no blocks but its table.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Pulse;
use crate::clock;
use crate::delivery::event::{Code, End, Failure, StopReason as WireStop, TokenLogprob};
use crate::engine::Language;
use crate::engine::kv::Table;
use crate::engine::logprobs::Logprobs;
use crate::engine::sampler::Sampler;
use crate::engine::stop::StopMatcher;
use crate::engine::text::TextStream;
use crate::error::{Error, Kind, Result};
use crate::fault;
use crate::job::Job;
use crate::limits::{PREFILL_CHUNK_TOKENS, PREFILL_PROGRESS_MS_MIN};
use crate::measure::{self, Served};
use crate::narration::facts::{
    CacheReset, CancelledBy, FailureCode, InferenceCancelled, InferenceCompleted, InferenceFailed,
    InferenceStarted, PrefillProgress, StopReason, TokensGenerated,
};
use crate::narration::{Fact, fact};

/// One job in the engine.
pub(super) struct Sequence {
    pub(super) job: Job,
    pub(super) table: Table,
    /// Prompt and generated tokens; those before `computed` have keys and values.
    pub(super) tokens: Vec<u32>,
    pub(super) computed: usize,
    pub(super) generated: u32,
    /// When its prompt was last worked on, by a count of such turns.
    pub(super) turn: u64,
    /// How it ends, once that is known.
    pub(super) outcome: Option<Outcome>,
    /// Tokens of the prompt that needed no computing.
    reused: usize,
    sampler: Sampler,
    logprobs: Option<Logprobs>,
    /// Log probabilities of the tokens whose text is still to be sent.
    untold: Vec<TokenLogprob>,
    text: TextStream,
    stop: StopMatcher,
    began: Instant,
    first: Option<Instant>,
    last: Instant,
    /// When it was last told how far the prompt is.
    told: Option<Instant>,
}

/// How a job's part in the engine ends.
pub(super) enum Outcome {
    Done(StopReason, Option<usize>),
    Cancelled(CancelledBy),
    Failed(Error),
}

impl Sequence {
    /// Takes up a job whose first `reused` tokens have keys and values in `table`.
    pub(super) fn begin(mut job: Job, table: Table, reused: usize) -> Self {
        let tokens = std::mem::take(&mut job.prompt);
        measure::prompt(tokens.len());
        let prompt_tokens = fact::count(tokens.len());
        job.feed.tell(Fact::InferenceStarted(InferenceStarted {
            prompt_chars: job.prompt_chars,
            prompt_tokens,
            max_tokens: job.wish.max_tokens,
        }));
        let reused_tokens = fact::count(reused);
        let tokens_to_compute = prompt_tokens.saturating_sub(reused_tokens);
        job.feed.tell(Fact::CacheReset(CacheReset { reused_tokens, tokens_to_compute }));
        let bias = std::mem::take(&mut job.wish.logit_bias);
        Sequence {
            sampler: Sampler::new(job.wish.sampling).with_bias(bias),
            logprobs: job.wish.logprobs.map(|count| Logprobs::new(count as usize)),
            stop: StopMatcher::new(&job.wish.stop),
            text: TextStream::new(),
            untold: Vec::new(),
            table,
            tokens,
            computed: reused,
            reused,
            generated: 0,
            turn: 0,
            outcome: None,
            began: clock::now(),
            first: None,
            last: clock::now(),
            told: None,
            job,
        }
    }

    /// Tokens that are known and not computed yet; 1 while it decodes.
    pub(super) const fn left(&self) -> usize {
        self.tokens.len() - self.computed
    }

    const fn prompt_tokens(&self) -> usize {
        self.tokens.len() - self.generated as usize
    }

    /// Tells how far the prompt is: after its first piece, its last, and now and then between them.
    pub(super) fn tell_prefill(&mut self, last: bool) {
        let total = self.prompt_tokens() - self.reused;
        if self.generated > 0 || total <= PREFILL_CHUNK_TOKENS {
            return;
        }
        let pause = Duration::from_millis(PREFILL_PROGRESS_MS_MIN);
        if !last
            && self.told.is_some_and(|told| clock::now().saturating_duration_since(told) < pause)
        {
            return;
        }
        self.told = Some(clock::now());
        self.job.feed.tell(Fact::PrefillProgress(PrefillProgress {
            tokens_done: fact::count(self.computed - self.reused),
            tokens_total: fact::count(total),
        }));
    }

    /// Chooses the next token and hands on the text that is sure by now.
    pub(super) fn next_token(
        &mut self,
        logits: &mut [f32],
        language: &Language,
        pulse: &Pulse,
    ) -> Option<Outcome> {
        // Rows may be wider than the vocabulary: what fills them up is no token.
        let known = logits.len().min(language.tokenizer.vocabulary() as usize);
        let logits = &mut logits[..known];
        language.tokenizer.forbid_gaps(logits);
        let (token, complete) = match self.choose(logits) {
            Ok(chosen) => chosen,
            Err(error) => return Some(Outcome::Failed(error)),
        };
        if language.tokenizer.ends(token) {
            return Some(Outcome::Done(StopReason::Eos, None));
        }
        self.tokens.push(token);
        self.generated += 1;
        let before = std::mem::replace(&mut self.last, clock::now());
        match self.first {
            Some(_) => measure::next_token(self.last.saturating_duration_since(before)),
            None => measure::first_token(self.last.saturating_duration_since(self.job.accepted)),
        }
        self.first.get_or_insert(self.last);
        if let Some(logprobs) = &self.logprobs {
            self.untold.push(logprobs.of(token, &language.tokenizer));
        }
        let text = self.text.push(language.tokenizer.token_bytes(token));
        let step = self.stop.push(&text);
        self.send(step.text);
        if let Some(matched) = step.matched {
            return Some(Outcome::Done(StopReason::StopSequence, Some(matched)));
        }
        self.tell_progress(pulse);
        if complete {
            return Some(Outcome::Done(StopReason::Eos, None));
        }
        (self.generated >= self.job.wish.max_tokens)
            .then_some(Outcome::Done(StopReason::MaxTokens, None))
    }

    /// The next token, and whether the text is complete with it, as its grammar has it.
    fn choose(&mut self, logits: &mut [f32]) -> Result<(u32, bool)> {
        fault::step("sample")?;
        if let Some(logprobs) = &mut self.logprobs {
            logprobs.keep(logits);
        }
        let Some(constraint) = &mut self.job.constraint else {
            return Ok((self.sampler.sample(logits, &self.tokens, None)?, false));
        };
        let token = self.sampler.sample(logits, &self.tokens, Some(constraint.allowed()?))?;
        Ok((token, constraint.take(token)?))
    }

    fn tell_progress(&self, pulse: &Pulse) {
        let every = self.job.wish.progress_every;
        if every > 0 && self.generated.is_multiple_of(every) {
            let rate = self.rate();
            self.job.feed.tell(Fact::TokensGenerated(TokensGenerated {
                tokens: self.generated,
                tokens_per_second: rate,
            }));
            self.job.feed.metrics(rate, pulse.resident_bytes.load(Ordering::Relaxed));
        }
    }

    fn send(&mut self, text: String) {
        if !text.is_empty() {
            let index = self.generated.saturating_sub(1);
            self.job.feed.token(text, index, std::mem::take(&mut self.untold));
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

    /// Ends the job as `outcome` has it.
    pub(super) fn end(&mut self, outcome: Option<Outcome>, pulse: &Pulse) {
        measure::inference(clock::now().saturating_duration_since(self.began));
        match outcome {
            Some(Outcome::Done(reason, stop)) => self.complete(reason, stop, pulse),
            Some(Outcome::Cancelled(by)) => cancelled(&self.job, by, &self.served()),
            Some(Outcome::Failed(error)) => failed(&self.job, &error, &self.served()),
            None => {}
        }
    }

    /// What became of it so far.
    pub(super) fn served(&self) -> Served {
        let since = |moment: Instant| moment.saturating_duration_since(self.job.accepted);
        Served {
            tokens_in: fact::count(self.prompt_tokens()),
            tokens_out: self.generated,
            first_token: self.first.map(since),
            decode: self.decode_time(),
            ..waited(&self.job)
        }
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
        let end = End {
            tokens_out: self.generated,
            decode_time_ms: fact::millis(self.decode_time()),
            stop_reason: match reason {
                StopReason::MaxTokens => WireStop::MaxTokens,
                StopReason::StopSequence => WireStop::StopSequence,
                StopReason::Eos => WireStop::Eos,
            },
            stop_sequence_matched: stop
                .and_then(|at| self.job.wish.stop.get(at))
                .map(|stop| stop.expose().to_owned()),
        };
        feed.end(Ok(end), &self.served());
    }
}

/// What became of a job that only waited.
pub(super) fn waited(job: &Job) -> Served {
    Served {
        operation: job.operation,
        tokens_in: fact::count(job.prompt.len()),
        tokens_out: 0,
        took: clock::now().saturating_duration_since(job.accepted),
        first_token: None,
        decode: Duration::ZERO,
    }
}

/// Ends a job that failed.
pub(super) fn failed(job: &Job, error: &Error, served: &Served) {
    let tokens_out = served.tokens_out;
    let (code, wire, retriable) = match error.kind() {
        Kind::OutOfMemory => (FailureCode::VramOom, Code::VramOom, true),
        _ => (FailureCode::InferenceFailed, Code::InferenceFailed, false),
    };
    let reason = error.to_string();
    job.feed.tell(Fact::InferenceFailed(InferenceFailed { code, reason, tokens_out }));
    job.feed.end(Err(Failure { code: wire, message: error.to_string(), retriable }), served);
}

/// Ends a job that somebody has ended.
pub(super) fn cancelled(job: &Job, by: CancelledBy, served: &Served) {
    let tokens_out = served.tokens_out;
    job.feed.tell(Fact::InferenceCancelled(InferenceCancelled { by, tokens_out }));
    let (code, message, retriable) = match by {
        CancelledBy::Client => (Code::Cancelled, "cancelled on request", false),
        CancelledBy::Disconnect => (Code::Cancelled, "cancelled: its reader is gone", true),
        CancelledBy::Deadline => (Code::Timeout, "its deadline came before its end", true),
        CancelledBy::Shutdown => (Code::ShuttingDown, "the worker shuts down", true),
    };
    job.feed.end(Err(Failure { code, message: message.into(), retriable }), served);
}
