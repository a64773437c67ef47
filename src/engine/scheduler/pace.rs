//! How many tokens of prompts a step takes: as many as this machine computes in the time that others
//! may be kept waiting. No result depends on it, only who waits how long. Reads no clock.

use std::time::Duration;

use crate::limits::{
    PREFILL_ALONE_MS, PREFILL_BESIDE_MS, PREFILL_CHUNK_TOKENS, PREFILL_CHUNK_TOKENS_MIN,
};

/// What a measured rate counts against those before it.
const NEWS: f64 = 0.3;
/// Pieces are whole numbers of these: rows that share one look at the weights.
const ROWS: usize = 8;

/// The rate at which prompts are computed, as far as it is known.
pub(super) struct Pace {
    most: usize,
    tokens_per_ms: f64,
    /// The last piece that was measured: the next is at most twice as long.
    last: usize,
}

impl Pace {
    /// Begins with [`PREFILL_CHUNK_TOKENS`]; never takes more than `most`.
    pub(super) fn new(most: usize) -> Self {
        Pace { most, tokens_per_ms: 0.0, last: PREFILL_CHUNK_TOKENS / 2 }
    }

    /// Tokens of prompts that the next step may take, beside sequences that decode or not.
    pub(super) fn tokens(&self, beside: bool) -> usize {
        let ms = if beside { PREFILL_BESIDE_MS } else { PREFILL_ALONE_MS };
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // it saturates
        let within = (self.tokens_per_ms * ms as f64) as usize;
        let within = within.min(2 * self.last) / ROWS * ROWS;
        let least =
            if self.tokens_per_ms > 0.0 { PREFILL_CHUNK_TOKENS_MIN } else { PREFILL_CHUNK_TOKENS };
        within.max(least).min(self.most)
    }

    /// Hears how long a step took that computed `tokens` of prompts, whatever else it did.
    pub(super) fn took(&mut self, tokens: usize, time: Duration) {
        // A short piece says little: what a step costs in any case would pass for slowness.
        if tokens < PREFILL_CHUNK_TOKENS_MIN {
            return;
        }
        let now = tokens as f64 / (time.as_secs_f64() * 1e3).max(1e-3);
        let known = self.tokens_per_ms > 0.0;
        self.tokens_per_ms += if known { NEWS } else { 1.0 } * (now - self.tokens_per_ms);
        self.last = tokens.max(PREFILL_CHUNK_TOKENS / 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps of a machine that computes `tokens_per_ms`: what it takes alone, then beside others.
    fn settled(tokens_per_ms: f64, most: usize) -> (usize, usize) {
        let mut pace = Pace::new(most);
        assert_eq!(pace.tokens(false), PREFILL_CHUNK_TOKENS.min(most));
        for _ in 0..20 {
            let tokens = pace.tokens(false);
            pace.took(tokens, Duration::from_secs_f64(tokens as f64 / tokens_per_ms / 1e3));
        }
        (pace.tokens(false), pace.tokens(true))
    }

    #[test]
    fn a_piece_takes_the_time_that_others_may_wait() {
        let (alone, beside) = settled(2.0, 100_000);
        let expected = |ms: u64| 2 * usize::try_from(ms).expect("it is small");
        assert!(alone <= expected(PREFILL_ALONE_MS) && alone + ROWS > expected(PREFILL_ALONE_MS));
        assert!(
            beside <= expected(PREFILL_BESIDE_MS) && beside + ROWS > expected(PREFILL_BESIDE_MS)
        );
    }

    #[test]
    fn it_is_never_shorter_than_the_least_nor_longer_than_the_most() {
        assert_eq!(settled(0.001, 512), (PREFILL_CHUNK_TOKENS_MIN, PREFILL_CHUNK_TOKENS_MIN));
        assert_eq!(settled(1e6, 512), (512, 512));
    }

    #[test]
    fn it_grows_by_doubling_at_most() {
        let mut pace = Pace::new(100_000);
        pace.took(PREFILL_CHUNK_TOKENS, Duration::from_nanos(1));
        assert_eq!(pace.tokens(false), 2 * PREFILL_CHUNK_TOKENS);
    }
}
