//! From logits to the next token: bias, repetition penalty, grammar, temperature, top-k, top-p, min-p,
//! one draw.
//! Never panics on odd logits, never sorts more of the vocabulary than the settings ask for, and
//! never depends on anything but its own seed, settings and arguments.

use std::cmp::Ordering;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::error::{Error, Kind, Result};
use crate::job::Sampling;

/// The smallest repetition penalty that is applied: 0 asks for as much repetition as there is, and
/// a division by this gives it without an infinity.
const REPETITION_PENALTY_MIN: f64 = 1e-3;
/// Candidates sorted at first in search of the top-p set; eight times as many each further try.
const TOP_P_CANDIDATES: usize = 256;

/// Chooses the tokens of one sequence.
pub struct Sampler {
    sampling: Sampling,
    bias: Vec<(u32, f32)>,
    random: ChaCha8Rng,
    /// Tokens that may be drawn, with their logits; kept between calls for its memory.
    candidates: Vec<(u32, f32)>,
    /// For each token the round in which the penalty last met it: finds the distinct ones.
    met: Vec<u32>,
    round: u32,
}

impl Sampler {
    /// A sampler at the start of its draws.
    pub fn new(sampling: Sampling) -> Self {
        Sampler {
            sampling,
            bias: Vec::new(),
            random: ChaCha8Rng::seed_from_u64(sampling.seed),
            candidates: Vec::new(),
            met: Vec::new(),
            round: 0,
        }
    }

    /// The same with something added to the logits of some tokens.
    pub fn with_bias(mut self, bias: Vec<(u32, f32)>) -> Self {
        self.bias = bias;
        self
    }

    /// The next token, given the logits of the whole vocabulary (changed in place), the tokens that
    /// the penalty applies to, and as bits the tokens that may come, where not all may. One draw a
    /// call, none when greedy. Between equal logits, the lower token wins. NaN counts as impossible.
    ///
    /// # Errors
    /// [`Kind::Inference`] if no logit is a number above minus infinity.
    pub fn sample(
        &mut self,
        logits: &mut [f32],
        history: &[u32],
        allowed: Option<&[u32]>,
    ) -> Result<u32> {
        for &(token, bias) in &self.bias {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit += bias;
            }
        }
        self.penalize(logits, history);
        if let Some(allowed) = allowed {
            forbid_others(logits, allowed);
        }
        let best = likeliest(logits).ok_or_else(|| {
            Error::new(
                Kind::Inference,
                format!(
                    "expected a probability for one of {} tokens, found only NaN or nothing; \
                     the model's weights may be damaged: fetch the model again",
                    logits.len()
                ),
            )
        })?;
        if self.sampling.temperature.is_nan() || self.sampling.temperature <= 0.0 {
            return Ok(best);
        }
        let draw = unit(self.random.next_u64());
        self.keep(logits);
        Ok(self.pick(draw).unwrap_or(best))
    }

    fn penalize(&mut self, logits: &mut [f32], history: &[u32]) {
        let penalty = self.sampling.repetition_penalty.max(REPETITION_PENALTY_MIN) as f32;
        if penalty == 1.0 {
            return;
        }
        if self.met.len() < logits.len() || self.round == u32::MAX {
            self.met.clear();
            self.met.resize(logits.len(), 0);
            self.round = 0;
        }
        self.round += 1;
        for &token in history {
            let index = token as usize;
            let Some(logit) = logits.get_mut(index) else { continue };
            if std::mem::replace(&mut self.met[index], self.round) != self.round {
                let scaled = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
                *logit = scaled.clamp(f32::MIN, f32::MAX);
            }
        }
    }

    /// Fills `candidates` with the tokens that top-k and top-p keep, the likeliest first where an
    /// order was needed to find them.
    fn keep(&mut self, logits: &[f32]) {
        let possible = logits.iter().enumerate().filter(|(_, logit)| **logit > f32::NEG_INFINITY);
        let possible = possible.map(|(token, logit)| (token as u32, logit.min(f32::MAX)));
        self.candidates.clear();
        self.candidates.extend(possible);
        let top_k = self.sampling.top_k as usize;
        if top_k > 0 && top_k < self.candidates.len() {
            self.candidates.select_nth_unstable_by(top_k - 1, likelier);
            self.candidates.truncate(top_k);
            self.candidates.sort_unstable_by(likelier);
        }
        if self.sampling.top_p < 1.0 {
            self.keep_top_p();
        }
    }

    /// Cuts `candidates` down to the smallest set of likeliest that holds `top_p`.
    fn keep_top_p(&mut self) {
        let top = self.top();
        let weigh = |logit: f32| weight(logit, top, self.sampling.temperature);
        let total: f64 = self.candidates.iter().map(|(_, logit)| weigh(*logit)).sum();
        let wanted = self.sampling.top_p * total;
        let mut sorted = 0;
        let mut sum = 0.0;
        while sorted < self.candidates.len() {
            let rest = &mut self.candidates[sorted..];
            let count = rest.len().min(sorted.saturating_mul(7).max(TOP_P_CANDIDATES));
            if count < rest.len() {
                rest.select_nth_unstable_by(count - 1, likelier);
            }
            rest[..count].sort_unstable_by(likelier);
            for index in sorted..sorted + count {
                sum += weigh(self.candidates[index].1);
                if sum >= wanted {
                    self.candidates.truncate(index + 1);
                    return;
                }
            }
            sorted += count;
        }
    }

    /// The candidate that `draw`, from 0 to 1, falls on; those below min-p count nothing.
    fn pick(&self, draw: f64) -> Option<u32> {
        let top = self.top();
        let weigh = |logit: f32| {
            // The likeliest weighs 1, so that min-p is a bound on the weight itself.
            let weight = weight(logit, top, self.sampling.temperature);
            if weight >= self.sampling.min_p || logit == top { weight } else { 0.0 }
        };
        let total: f64 = self.candidates.iter().map(|(_, logit)| weigh(*logit)).sum();
        let mut left = draw * total;
        let mut last = None;
        for &(token, logit) in &self.candidates {
            let weight = weigh(logit);
            if weight > 0.0 {
                left -= weight;
                last = Some(token);
                if left < 0.0 {
                    break;
                }
            }
        }
        last
    }

    fn top(&self) -> f32 {
        self.candidates.iter().map(|(_, logit)| *logit).fold(f32::NEG_INFINITY, f32::max)
    }
}

/// Makes impossible what is not allowed.
fn forbid_others(logits: &mut [f32], allowed: &[u32]) {
    for (block, logits) in logits.chunks_mut(32).enumerate() {
        let bits = allowed.get(block).copied().unwrap_or(0);
        if bits != u32::MAX {
            let impossible = |(bit, _): &(usize, &mut f32)| bits >> bit & 1 == 0;
            let impossible = logits.iter_mut().enumerate().filter(impossible);
            impossible.for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
        }
    }
}

/// The index of the greatest logit, the lowest of equals; none if all are NaN or minus infinity.
fn likeliest(logits: &[f32]) -> Option<u32> {
    let mut best = None;
    let mut most = f32::NEG_INFINITY;
    for (token, &logit) in logits.iter().enumerate() {
        if logit > most {
            best = Some(token as u32);
            most = logit;
        }
    }
    best
}

/// An order in which the likelier comes first, and of equals the lower token.
fn likelier(a: &(u32, f32), b: &(u32, f32)) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// The softmax numerator: 1 for the greatest logit.
fn weight(logit: f32, top: f32, temperature: f64) -> f64 {
    ((f64::from(logit) - f64::from(top)) / temperature).exp()
}

/// A number from 0 up to, but not, 1, out of the upper 53 bits.
fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Sampling = Sampling {
        temperature: 1.0,
        top_p: 1.0,
        top_k: 0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        seed: 7,
    };

    /// How often each token comes in 20,000 draws from the same logits, as parts of 1.
    fn frequencies(sampling: Sampling, logits: &[f32], history: &[u32]) -> Vec<f64> {
        const DRAWS: usize = 20_000;
        let mut sampler = Sampler::new(sampling);
        let mut counts = vec![0.0; logits.len()];
        for _ in 0..DRAWS {
            let token =
                sampler.sample(&mut logits.to_vec(), history, None).expect("logits are numbers");
            counts[token as usize] += 1.0 / DRAWS as f64;
        }
        counts
    }

    fn check(sampling: Sampling, logits: &[f32], history: &[u32], expected: &[f64]) {
        let found = frequencies(sampling, logits, history);
        for (token, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!((found - expected).abs() < 0.015, "token {token}: {found} for {expected}");
            assert!(*expected > 0.0 || *found == 0.0, "token {token} must never come");
        }
    }

    fn logs(probabilities: &[f64]) -> Vec<f32> {
        probabilities.iter().map(|p| p.ln() as f32).collect()
    }

    #[test]
    fn draws_follow_the_softmax() {
        check(PLAIN, &logs(&[0.1, 0.2, 0.3, 0.4]), &[], &[0.1, 0.2, 0.3, 0.4]);
    }

    #[test]
    fn temperature_flattens_and_sharpens() {
        let logits = logs(&[0.2, 0.8]);
        check(Sampling { temperature: 2.0, ..PLAIN }, &logits, &[], &[1.0 / 3.0, 2.0 / 3.0]);
        check(Sampling { temperature: 0.5, ..PLAIN }, &logits, &[], &[1.0 / 17.0, 16.0 / 17.0]);
        check(Sampling { temperature: 1e-300, ..PLAIN }, &logits, &[], &[0.0, 1.0]);
    }

    #[test]
    fn temperature_zero_takes_the_lowest_of_the_likeliest() {
        let mut sampler = Sampler::new(Sampling { temperature: 0.0, ..PLAIN });
        assert_eq!(sampler.sample(&mut [1.0, 3.0, f32::NAN, 3.0], &[], None).ok(), Some(1));
        assert_eq!(sampler.sample(&mut [f32::NEG_INFINITY, -5.0], &[], None).ok(), Some(1));
    }

    #[test]
    fn top_k_keeps_the_likeliest_and_ties_go_by_index() {
        let logits = logs(&[0.1, 0.2, 0.3, 0.4]);
        check(Sampling { top_k: 2, ..PLAIN }, &logits, &[], &[0.0, 0.0, 3.0 / 7.0, 4.0 / 7.0]);
        check(Sampling { top_k: 2, ..PLAIN }, &[1.0; 4], &[], &[0.5, 0.5, 0.0, 0.0]);
        check(Sampling { top_k: 9, ..PLAIN }, &logits, &[], &[0.1, 0.2, 0.3, 0.4]);
    }

    #[test]
    fn top_p_keeps_the_smallest_set_that_holds_it() {
        let logits = logs(&[0.1, 0.2, 0.3, 0.4]);
        check(Sampling { top_p: 0.69, ..PLAIN }, &logits, &[], &[0.0, 0.0, 3.0 / 7.0, 4.0 / 7.0]);
        check(
            Sampling { top_p: 0.71, ..PLAIN },
            &logits,
            &[],
            &[0.0, 2.0 / 9.0, 3.0 / 9.0, 4.0 / 9.0],
        );
        check(Sampling { top_p: 0.0, ..PLAIN }, &logits, &[], &[0.0, 0.0, 0.0, 1.0]);
    }

    #[test]
    fn min_p_is_measured_against_the_likeliest() {
        let logits = logs(&[0.1, 0.19, 0.31, 0.4]);
        check(
            Sampling { min_p: 0.5, ..PLAIN },
            &logits,
            &[],
            &[0.0, 0.0, 31.0 / 71.0, 40.0 / 71.0],
        );
        check(Sampling { min_p: 1.0, ..PLAIN }, &logits, &[], &[0.0, 0.0, 0.0, 1.0]);
    }

    #[test]
    fn top_k_comes_before_top_p_and_temperature_before_both() {
        // Of the two that top-k leaves (4/7 and 3/7), the likeliest alone holds a half.
        let sampling = Sampling { top_k: 2, top_p: 0.5, ..PLAIN };
        check(sampling, &logs(&[0.1, 0.2, 0.3, 0.4]), &[], &[0.0, 0.0, 0.0, 1.0]);
        // At temperature 1/2, 0.6 against 0.4 becomes 9 to 4, which holds 0.65; before it doesn't.
        let sampling = Sampling { temperature: 0.5, top_p: 0.65, ..PLAIN };
        check(sampling, &logs(&[0.4, 0.6]), &[], &[0.0, 1.0]);
    }

    #[test]
    fn the_penalty_meets_each_token_once() {
        let sampling = Sampling { repetition_penalty: 2.0, ..PLAIN };
        let mut sampler = Sampler::new(sampling);
        let mut logits = [4.0, -4.0, 4.0];
        sampler.sample(&mut logits, &[0, 0, 1, 0, 99], None).expect("logits are numbers");
        assert_eq!(logits, [2.0, -8.0, 4.0]);
        let mut logits = [4.0, -4.0, 4.0];
        sampler.sample(&mut logits, &[2], None).expect("logits are numbers");
        assert_eq!(logits, [4.0, -4.0, 2.0]);
    }

    #[test]
    fn a_penalty_of_zero_repeats_without_infinities() {
        let mut sampler = Sampler::new(Sampling { repetition_penalty: 0.0, ..PLAIN });
        let mut logits = [f32::MAX, f32::MIN, 0.0, 1.0];
        assert_eq!(sampler.sample(&mut logits, &[0, 1, 2, 3], None).ok(), Some(0));
        assert!(logits.iter().all(|logit| logit.is_finite()), "{logits:?}");
    }

    #[test]
    fn odd_logits_never_panic() {
        let nothing = [f32::NAN, f32::NEG_INFINITY];
        for temperature in [0.0, 1.0, f64::NAN] {
            let mut sampler = Sampler::new(Sampling { temperature, ..PLAIN });
            let error =
                sampler.sample(&mut nothing.to_vec(), &[], None).expect_err("nothing to choose");
            assert_eq!(error.kind(), Kind::Inference);
            assert!(sampler.sample(&mut [], &[], None).is_err());
            assert_eq!(sampler.sample(&mut [f32::NAN, -1e30], &[], None).ok(), Some(1));
            assert_eq!(sampler.sample(&mut [f32::INFINITY, 1.0], &[], None).ok(), Some(0));
        }
        let odd = [f64::NAN, f64::INFINITY, -1.0];
        for value in odd {
            let sampling =
                Sampling { top_p: value, min_p: value, repetition_penalty: value, ..PLAIN };
            let mut sampler = Sampler::new(sampling);
            assert!(sampler.sample(&mut [1.0, 2.0], &[0], None).expect("a token") < 2);
        }
    }

    #[test]
    fn equal_seeds_draw_equally_and_filters_leave_the_draws_alone() {
        let logits: Vec<f32> = (0..1_000).map(|i| ((i * 37) % 101) as f32 / 10.0).collect();
        let draws = |sampling| -> Vec<u32> {
            let mut sampler = Sampler::new(sampling);
            (0..50)
                .map(|_| sampler.sample(&mut logits.clone(), &[], None).expect("a token"))
                .collect()
        };
        assert_eq!(draws(PLAIN), draws(PLAIN));
        assert_ne!(draws(PLAIN), draws(Sampling { seed: 8, ..PLAIN }));
        // One draw a token, whatever the settings: the generators stay in step.
        let mut one = Sampler::new(PLAIN);
        let mut other = Sampler::new(Sampling { top_k: 1, top_p: 0.1, min_p: 0.5, ..PLAIN });
        for _ in 0..10 {
            one.sample(&mut logits.clone(), &[], None).expect("a token");
            other.sample(&mut logits.clone(), &[1, 2], None).expect("a token");
        }
        assert_eq!(one.random.next_u64(), other.random.next_u64());
    }

    #[test]
    fn bias_comes_first_and_what_is_not_allowed_never_comes() {
        let sampling = Sampling { temperature: 0.0, ..PLAIN };
        let mut biased = Sampler::new(sampling).with_bias(vec![(1, 5.0), (99, 5.0), (2, -100.0)]);
        assert_eq!(biased.sample(&mut [4.0, 0.0, 9.0], &[], None).ok(), Some(1));
        // The penalty halves what the bias has raised.
        let halving = Sampling { repetition_penalty: 2.0, ..sampling };
        let mut biased = Sampler::new(halving).with_bias(vec![(1, 6.0)]);
        assert_eq!(biased.sample(&mut [4.0, 0.0], &[1], None).ok(), Some(0));
        let mut bits = vec![0; 3];
        for token in [3, 40, 95] {
            bits[token / 32] |= 1 << (token % 32);
        }
        for seed in 0..200 {
            let mut sampler = Sampler::new(Sampling { seed, repetition_penalty: 1.5, ..PLAIN });
            let token = sampler.sample(&mut [1.0; 100], &[5, 3], Some(&bits)).expect("a token");
            assert!([3, 40, 95].contains(&token), "{token}");
        }
        let nothing = Sampler::new(PLAIN).sample(&mut [1.0; 100], &[], Some(&[]));
        assert_eq!(nothing.expect_err("nothing is allowed").kind(), Kind::Inference);
    }

    #[test]
    fn partial_sorting_equals_a_full_sort() {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        for round in 0..40 {
            let flat = if round % 2 == 0 { 1.0 } else { 8.0 };
            let logits: Vec<f32> =
                (0..5_000).map(|_| (random.next_u32() % 1_000) as f32 / 1_000.0 * flat).collect();
            let top_p = 0.05 + 0.9 * unit(random.next_u64());
            let mut all: Vec<(u32, f32)> = (0u32..).zip(logits.iter().copied()).collect();
            all.sort_by(likelier);
            let top = all[0].1;
            let total: f64 = all.iter().map(|(_, logit)| weight(*logit, top, 1.0)).sum();
            let mut sum = 0.0;
            let short = all.iter().take_while(|(_, logit)| {
                sum += weight(*logit, top, 1.0);
                sum < top_p * total
            });
            let expected = short.count() + 1;
            let mut sampler = Sampler::new(Sampling { top_p, ..PLAIN });
            sampler.keep(&logits);
            // The total is summed in another order, so the border may move by rounding alone.
            assert!(sampler.candidates.len().abs_diff(expected) <= 1, "round {round}");
            assert_eq!(sampler.candidates, all[..sampler.candidates.len()], "round {round}");
        }
    }
}
