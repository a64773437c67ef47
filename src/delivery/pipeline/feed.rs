//! A job's entrance to its lane, for whoever makes and computes it. Words nothing and delivers nothing.

use std::sync::Arc;

use super::{Item, Line, Pipeline, lane_of};
use crate::delivery::event::{Code, End, Failure, TokenLogprob};
use crate::measure::{self, Outcome, Served};
use crate::narration::{Fact, Narrator, Scope};
use crate::private::Private;

/// A job's way to its readers. Nothing here waits or fails.
#[derive(Clone)]
pub struct Feed {
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) narrator: Narrator,
    pub(super) scope: Scope,
    pub(super) line: Line,
}

impl Feed {
    /// Tells a fact of this job.
    pub fn tell(&self, fact: Fact) {
        let job = Some(self.line.clone());
        let telling = self.narrator.telling(fact, &self.scope);
        let lane = lane_of(self.line.number);
        self.pipeline.push_fact(lane, telling, |told| Item::Told { told, job });
    }

    /// Hands on generated text; `index` counts tokens from 0, `logprobs` tells of the tokens that the
    /// text is made of.
    pub fn token(&self, text: String, index: u32, logprobs: Vec<TokenLogprob>) {
        let (job, text) = (self.line.clone(), Private::new(text));
        self.push(Item::Token { job, text, index, logprobs });
    }

    /// Says how it goes.
    pub fn metrics(&self, tokens_per_sec: f64, resident_bytes: u64) {
        self.push(Item::Metrics { job: self.line.clone(), tokens_per_sec, resident_bytes });
    }

    /// Ends the job; nothing of it follows. `served` is what became of it.
    pub fn end(&self, end: Result<End, Failure>, served: &Served) {
        measure::job_ended(outcome(&end), served);
        self.push(Item::End { job: self.line.clone(), end });
    }

    /// Whether its log has ended, so that nothing of it would reach anybody.
    pub fn ended(&self) -> bool {
        self.line.log.ended()
    }

    /// Whose facts these are.
    pub const fn scope(&self) -> &Scope {
        &self.scope
    }

    fn push(&self, item: Item) {
        self.pipeline.push(lane_of(self.line.number), item);
    }
}

/// How a job's end counts.
const fn outcome(end: &Result<End, Failure>) -> Outcome {
    match end {
        Ok(_) => Outcome::Completed,
        Err(failure) => match failure.code {
            Code::Cancelled => Outcome::Cancelled,
            Code::Timeout => Outcome::Timeout,
            Code::VramOom | Code::InferenceFailed => Outcome::Failed,
            Code::ShuttingDown => Outcome::ShuttingDown,
        },
    }
}
