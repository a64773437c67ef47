//! Rotary position embeddings (Su et al., "RoFormer", 2021) and the ways in which models stretch
//! them. A rotation becomes one angle per token and pair of numbers. Never sees a weight.

use std::f64::consts::PI;

use crate::limits::CONTEXT_TOKENS_MAX;

/// How the rotation of a model is stretched to longer sequences than it was trained with first.
#[derive(Clone, Debug, PartialEq)]
pub enum Scaling {
    /// Not at all.
    None,
    /// All angles divided by one factor (Chen et al., "Position Interpolation", 2023).
    Linear(f64),
    /// Slow angles divided by `factor`, fast ones kept, those between mixed: Llama 3.1.
    Llama3 {
        /// Divides the slow angles.
        factor: f64,
        /// Turns within `original` below which an angle is slow.
        low: f64,
        /// Turns within `original` above which an angle is fast.
        high: f64,
        /// Longest sequence of the first training, tokens.
        original: usize,
    },
    /// As above by a ramp over the pairs, and longer vectors (Peng et al., "YaRN", 2023).
    Yarn {
        /// Divides the slow angles.
        factor: f64,
        /// Turns within `original` above which an angle is kept.
        fast: f64,
        /// Turns within `original` below which an angle is divided.
        slow: f64,
        /// Longest sequence of the first training, tokens.
        original: usize,
        /// What the turned vectors are multiplied with; `None`: by the paper's rule.
        magnitude: Option<f64>,
    },
    /// A divisor for each pair, one set for short contexts, one for long (Ding et al.,
    /// "LongRoPE", 2024).
    Long {
        /// For contexts of up to `original` tokens.
        short: Vec<f32>,
        /// For longer ones.
        long: Vec<f32>,
        /// Longest sequence of the first training, tokens.
        original: usize,
        /// What the turned vectors are multiplied with.
        magnitude: f64,
    },
    /// A divisor for each pair, whatever the context: how GGUF keeps Llama 3.1's.
    Divisors(Vec<f32>),
}

/// One rotation.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeSpec {
    /// Numbers of a head that turn, from its first on; an even number.
    pub dimensions: usize,
    /// The wavelengths' base.
    pub base: f64,
    /// How it is stretched.
    pub scaling: Scaling,
}

/// A rotation ready to be used.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Angle per token of each pair, radians.
    pub angles: Vec<f32>,
    /// What the turned numbers are multiplied with.
    pub magnitude: f32,
}

impl RopeSpec {
    /// That it can be computed for heads of `head_width` numbers.
    pub(super) fn check(&self, head_width: usize) -> Result<(), String> {
        let dimensions = self.dimensions;
        if dimensions == 0 || !dimensions.is_multiple_of(2) || dimensions > head_width {
            return Err(format!(
                "expected an even number from 2 to {head_width} of turning dimensions, found \
                 {dimensions}"
            ));
        }
        let positive = |what: &str, number: f64| match number.is_finite() && number > 0.0 {
            true => Ok(()),
            false => Err(format!("expected a positive number as {what}, found {number}")),
        };
        let original = |tokens: usize| match (2..=CONTEXT_TOKENS_MAX).contains(&tokens) {
            true => Ok(()),
            false => Err(format!("expected an original context of 2 or more, found {tokens}")),
        };
        positive("the rotation's base less 1", self.base - 1.0)?;
        match &self.scaling {
            Scaling::None => Ok(()),
            Scaling::Linear(factor) => positive("the rotation's factor", *factor),
            Scaling::Llama3 { factor, low, high, original: tokens } => {
                positive("the rotation's factor", *factor)?;
                positive("the low-frequency factor", *low)?;
                positive("high- minus low-frequency factor", high - low)?;
                original(*tokens)
            }
            Scaling::Yarn { factor, fast, slow, original: tokens, magnitude } => {
                positive("the rotation's factor", *factor)?;
                positive("beta_fast", *fast)?;
                positive("beta_slow", *slow)?;
                positive("the rotation's magnitude", magnitude.unwrap_or(1.0))?;
                original(*tokens)
            }
            Scaling::Long { short, long, original: tokens, magnitude } => {
                positive("the rotation's magnitude", *magnitude)?;
                original(*tokens)?;
                divisors(short, dimensions)?;
                divisors(long, dimensions)
            }
            Scaling::Divisors(all) => divisors(all, dimensions),
        }
    }

    /// The rotation for sequences of up to `context` tokens.
    pub fn table(&self, context: usize) -> Rope {
        let plain: Vec<f64> = (0..self.dimensions / 2)
            .map(|pair| self.base.powf(-((2 * pair) as f64) / self.dimensions as f64))
            .collect();
        let divided = |divisors: &[f32]| -> Vec<f64> {
            plain.iter().zip(divisors).map(|(angle, by)| angle / f64::from(*by)).collect()
        };
        let (angles, magnitude) = match &self.scaling {
            Scaling::None => (plain, 1.0),
            Scaling::Linear(factor) => (plain.iter().map(|angle| angle / factor).collect(), 1.0),
            Scaling::Divisors(all) => (divided(all), 1.0),
            Scaling::Llama3 { factor, low, high, original } => {
                let one = |angle: &f64| {
                    let turns = *original as f64 * angle / (2.0 * PI);
                    let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                    (1.0 - kept) * angle / factor + kept * angle
                };
                (plain.iter().map(one).collect(), 1.0)
            }
            Scaling::Yarn { factor, fast, slow, original, magnitude } => {
                let ramp = self.ramp(*fast, *slow, *original);
                let one = |(angle, kept): (&f64, f64)| (1.0 - kept) * angle / factor + kept * angle;
                let rule = if *factor > 1.0 { 0.1 * factor.ln() + 1.0 } else { 1.0 };
                (plain.iter().zip(ramp).map(one).collect(), magnitude.unwrap_or(rule))
            }
            Scaling::Long { short, long, original, magnitude } => {
                (divided(if context > *original { long } else { short }), *magnitude)
            }
        };
        let angles = angles.into_iter().map(|angle| angle as f32).collect();
        Rope { angles, magnitude: magnitude as f32 }
    }

    /// How much of each pair's own angle stays, from 1 (all) to 0.
    fn ramp(&self, fast: f64, slow: f64, original: usize) -> Vec<f64> {
        let dimensions = self.dimensions as f64;
        let pair_with = |turns: f64| {
            dimensions * (original as f64 / (turns * 2.0 * PI)).ln() / (2.0 * self.base.ln())
        };
        let low = pair_with(fast).floor().max(0.0);
        let mut high = pair_with(slow).ceil().min(dimensions - 1.0);
        if low == high {
            high += 0.001; // the ramp would be a step, its slope a division by 0
        }
        let pairs = 0..self.dimensions / 2;
        pairs.map(|pair| 1.0 - ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0)).collect()
    }
}

/// What LongRoPE's vectors are multiplied with where the file does not say.
pub(super) fn long_magnitude(factor: f64, original: usize) -> f64 {
    if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / (original as f64).ln()).sqrt() }
}

fn divisors(all: &[f32], dimensions: usize) -> Result<(), String> {
    if all.len() != dimensions / 2 || all.iter().any(|by| !(by.is_finite() && *by > 0.0)) {
        let (expected, found) = (dimensions / 2, all.len());
        return Err(format!(
            "expected {expected} positive divisors of the rotation, found {found} numbers"
        ));
    }
    Ok(())
}
