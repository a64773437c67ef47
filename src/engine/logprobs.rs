//! How likely the model held its tokens: natural logarithms of the probabilities as the model gave
//! them, before bias, grammar, penalty, temperature and filters. Changes no logit.

use super::tokenizer::Tokenizer;
use crate::delivery::event::{Logprob, TokenLogprob};

/// What a token that can't come is told as; JSON has no minus infinity.
const IMPOSSIBLE: f64 = -9_999.0;

/// One row of logits as the model gave it, in a buffer that is kept from token to token.
pub struct Logprobs {
    alternatives: usize,
    logits: Vec<f32>,
}

impl Logprobs {
    /// Tells of each token with so many likeliest ones beside it.
    pub const fn new(alternatives: usize) -> Self {
        Logprobs { alternatives, logits: Vec::new() }
    }

    /// Keeps the row, before anybody changes it.
    pub fn keep(&mut self, logits: &[f32]) {
        self.logits.clear();
        self.logits.extend(logits.iter().map(|l| if l.is_nan() { f32::NEG_INFINITY } else { *l }));
    }

    /// The token that was chosen from the row, and the likeliest ones, likeliest first; of equals the
    /// lower token.
    pub fn of(&self, chosen: u32, tokenizer: &Tokenizer) -> TokenLogprob {
        let top = self.logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weigh = |logit: f32| (f64::from(logit) - f64::from(top)).exp();
        let norm = f64::from(top) + self.logits.iter().map(|l| weigh(*l)).sum::<f64>().ln();
        let tell = |token: u32| {
            let logit = self.logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
            let logprob = f64::from(logit) - norm;
            let bytes = tokenizer.token_bytes(token).to_vec();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let logprob = if logprob > IMPOSSIBLE { logprob } else { IMPOSSIBLE };
            Logprob { text, bytes, logprob }
        };
        let top = self.likeliest().into_iter().map(tell).collect();
        TokenLogprob { chosen: tell(chosen), top }
    }

    fn likeliest(&self) -> Vec<u32> {
        let likelier = |a: &u32, b: &u32| {
            let logit = |token: &u32| self.logits[*token as usize];
            logit(b).total_cmp(&logit(a)).then(a.cmp(b))
        };
        let mut tokens: Vec<u32> = (0..).take(self.logits.len()).collect();
        let count = self.alternatives.min(tokens.len());
        if count == 0 {
            return Vec::new();
        }
        if count < tokens.len() {
            tokens.select_nth_unstable_by(count - 1, likelier);
            tokens.truncate(count);
        }
        tokens.sort_unstable_by(likelier);
        tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::gguf::tests::{Scratch, support};

    fn tokenizer() -> Tokenizer {
        let file = Scratch::new(&support::tiny_llama(1));
        Tokenizer::from_gguf(&file.read().expect("a sound file")).expect("a known tokenizer")
    }

    #[test]
    fn probabilities_sum_to_one_and_the_likeliest_come_first() {
        let tokenizer = tokenizer();
        let logits: Vec<f32> = (0..271).map(|i| ((i * 37) % 101) as f32 / 9.0).collect();
        let mut logprobs = Logprobs::new(271);
        logprobs.keep(&logits);
        let told = logprobs.of(68, &tokenizer);
        let sum: f64 = told.top.iter().map(|t| t.logprob.exp()).sum();
        assert!((sum - 1.0).abs() < 1e-9, "{sum}");
        assert!(told.top.windows(2).all(|pair| pair[0].logprob >= pair[1].logprob));
        assert_eq!((told.chosen.text.as_str(), told.chosen.bytes.as_slice()), ("A", &b"A"[..]));
        // log(e^a / Σ e^x), by hand from the other side: differences of logs are those of logits.
        let difference = told.top[0].logprob - told.chosen.logprob;
        assert!((difference - f64::from(100.0 / 9.0 - logits[68])).abs() < 1e-5, "{difference}");
    }

    #[test]
    fn odd_logits_are_told_as_numbers() {
        let tokenizer = tokenizer();
        let mut logprobs = Logprobs::new(2);
        logprobs.keep(&[f32::NAN, 0.0, f32::NEG_INFINITY, 0.0]);
        let told = logprobs.of(2, &tokenizer);
        assert_eq!(told.chosen.logprob, IMPOSSIBLE);
        assert!(told.top.iter().all(|t| (t.logprob + 2f64.ln()).abs() < 1e-12));
        logprobs.keep(&[]);
        assert!(logprobs.of(0, &tokenizer).top.is_empty());
    }
}
