//! A job: one accepted request, its states, who may end it, and the bounded queue to the engine.
//! Knows nothing of HTTP and computes nothing.

mod queue;
mod registry;

pub use queue::{Place, Queue, Refused};
pub use registry::{Record, Registry, State};

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use serde::Deserialize;

use crate::clock;
use crate::delivery::Feed;
use crate::error::Result;
use crate::measure::Operation;
use crate::narration::facts::CancelledBy;
use crate::private::Private;

/// How tokens are chosen. Values out of range act as the nearest one in range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0 means greedy: always the likeliest, no draw.
    pub temperature: f64,
    /// The smallest set of likeliest tokens that holds this probability is kept; 1 keeps all, 0
    /// only the likeliest.
    pub top_p: f64,
    /// So many likeliest tokens are kept; 0 keeps all.
    pub top_k: u32,
    /// Tokens less likely than this part of the likeliest are dropped; 0 drops none.
    pub min_p: f64,
    /// Positive logits of tokens in the history are divided by it, negative ones multiplied, once
    /// a token; 1 changes nothing, below 1 invites repetition, 0 acts as a thousandth.
    pub repetition_penalty: f64,
    /// Where the draws start; equal seeds draw equally.
    pub seed: u64,
}

/// How tokens are chosen and when to stop: what a request may ask of the engine.
#[derive(Clone)]
pub struct Wish {
    /// Tokens it may generate.
    pub max_tokens: u32,
    /// How its tokens are chosen.
    pub sampling: Sampling,
    /// Strings that end the text.
    pub stop: Vec<Private>,
    /// Tokens between two progress narrations; 0: none.
    pub progress_every: u32,
    /// Tells how likely each token was, with so many likeliest ones beside it.
    pub logprobs: Option<u32>,
    /// Added to the logits of these tokens before anything else is done with them.
    pub logit_bias: Vec<(u32, f32)>,
    /// What the text has to be, where it isn't free.
    pub grammar: Option<Grammar>,
}

/// What a text has to be.
#[derive(Clone)]
pub enum Grammar {
    /// Any JSON object.
    JsonObject,
    /// JSON that this schema describes.
    JsonSchema(serde_json::Value),
}

/// Holds a text to a grammar, token by token. Made of a [`Grammar`] before the job is handed in, since
/// it takes time.
pub trait Constraint: Send {
    /// The tokens that may come next: bit `t % 32` of word `t / 32` for token `t`; those beyond may not.
    ///
    /// # Errors
    /// [`crate::error::Kind::Inference`] if that can't be said within bounds.
    fn allowed(&mut self) -> Result<&[u32]>;

    /// The token that was chosen, one of the allowed ones; whether the text is complete with it, so
    /// that nothing may follow.
    ///
    /// # Errors
    /// As [`Constraint::allowed`].
    fn take(&mut self, token: u32) -> Result<bool>;
}

/// What happens to a job whose last reader is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnDisconnect {
    /// It ends.
    #[default]
    Cancel,
    /// It goes on; its log can be read later.
    Continue,
}

/// One accepted request on its way to the engine.
pub struct Job {
    /// Its way to its readers.
    pub feed: Feed,
    /// The prompt, tokens.
    pub prompt: Vec<u32>,
    /// Length of the prompt, characters.
    pub prompt_chars: u32,
    /// What it asks for.
    pub wish: Wish,
    /// Holds its text to the wish's grammar.
    pub constraint: Option<Box<dyn Constraint>>,
    /// Ends it before its time.
    pub cancel: Cancel,
    /// When it ends at the latest.
    pub deadline: Instant,
    /// When it ends at the latest if the engine has not taken it up.
    pub wait_until: Instant,
    /// When it was accepted.
    pub accepted: Instant,
    /// What it is, for those who measure.
    pub operation: Operation,
}

impl Job {
    /// Who ended it, if anybody did; the deadline counts.
    pub fn ended_by(&self) -> Option<CancelledBy> {
        self.cancel
            .by()
            .or_else(|| (clock::now() >= self.deadline).then_some(CancelledBy::Deadline))
    }

    /// The same while it waits, which it may not do for ever.
    pub fn ended_waiting_by(&self) -> Option<CancelledBy> {
        self.ended_by()
            .or_else(|| (clock::now() >= self.wait_until).then_some(CancelledBy::Deadline))
    }
}

/// Ends a job before its time. The first to call it is told as the one who did.
#[derive(Clone, Default)]
pub struct Cancel(Arc<AtomicU8>);

const WHO: [CancelledBy; 4] =
    [CancelledBy::Client, CancelledBy::Disconnect, CancelledBy::Deadline, CancelledBy::Shutdown];

impl Cancel {
    /// Ends the job at its next step.
    pub fn cancel(&self, by: CancelledBy) {
        let code = WHO.iter().position(|who| *who == by).map_or(0, |at| at as u8 + 1);
        // Whoever comes second changes nothing.
        let _ = self.0.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Who ended it, if anybody did.
    pub fn by(&self) -> Option<CancelledBy> {
        WHO.get(usize::from(self.0.load(Ordering::Acquire)).wrapping_sub(1)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_to_cancel_is_the_one_who_did() {
        let cancel = Cancel::default();
        assert_eq!(cancel.by(), None);
        cancel.cancel(CancelledBy::Disconnect);
        cancel.cancel(CancelledBy::Shutdown);
        assert_eq!(cancel.by(), Some(CancelledBy::Disconnect));
    }
}
