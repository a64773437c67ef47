//! How a model is to be computed: by the engine's own decoder or by one of candle's, and the sizes that
//! are known of it either way. Reads no file.

use super::spec::Spec;
use super::stock::Description;
use crate::limits::{
    CONTEXT_TOKENS_MAX, MODEL_HEAD_WIDTH_MAX, MODEL_HEADS_MAX, MODEL_LAYERS_MAX,
    MODEL_VOCABULARY_MAX, MODEL_WIDTH_MAX,
};

/// What computes a model.
pub(crate) enum Plan {
    /// The engine's own decoder.
    Own(Spec),
    /// A decoder of `candle-transformers`.
    Stock(Description),
}

/// Sizes that decide what a model takes; they count numbers, not bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Layers.
    pub layers: usize,
    /// Numbers that stand for a token between the layers.
    pub width: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Numbers of one head.
    pub head_width: usize,
    /// Longest sequence, tokens.
    pub context_length: usize,
    /// Tokens that it knows.
    pub vocabulary: usize,
}

impl Sizes {
    /// Numbers of the keys and the values of a token, all layers together.
    pub fn kv_numbers(&self) -> usize {
        2 * self.layers * self.kv_heads * self.head_width
    }

    /// That they lie within the worker's bounds and fit each other.
    ///
    /// # Errors
    /// What was expected and found.
    pub(super) fn check(&self) -> Result<(), String> {
        for (what, found, most) in [
            ("layers", self.layers, MODEL_LAYERS_MAX),
            ("an embedding length", self.width, MODEL_WIDTH_MAX),
            ("heads", self.heads, MODEL_HEADS_MAX),
            ("heads of keys and values", self.kv_heads, MODEL_HEADS_MAX),
            ("a head width", self.head_width, MODEL_HEAD_WIDTH_MAX),
            ("a vocabulary", self.vocabulary, MODEL_VOCABULARY_MAX),
            ("a context length", self.context_length, CONTEXT_TOKENS_MAX),
        ] {
            within(what, found, most)?;
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            let (heads, kv) = (self.heads, self.kv_heads);
            return Err(format!("{heads} heads can't share {kv} heads of keys and values evenly"));
        }
        match self.head_width.is_multiple_of(2) {
            true => Ok(()),
            false => Err(format!("expected an even head width, found {}", self.head_width)),
        }
    }
}

impl Plan {
    /// The architecture's name.
    pub(crate) fn architecture(&self) -> &'static str {
        match self {
            Plan::Own(spec) => spec.architecture.name(),
            Plan::Stock(description) => description.architecture(),
        }
    }

    /// The sizes.
    pub(crate) fn sizes(&self) -> Sizes {
        match self {
            Plan::Own(spec) => spec.sizes(),
            Plan::Stock(description) => description.sizes,
        }
    }

    /// Bytes of the keys and values of a token on the CPU.
    pub(crate) fn kv_token_bytes(&self) -> u64 {
        let bytes = match self {
            Plan::Own(_) => size_of::<half::f16>(),
            Plan::Stock(_) => size_of::<f32>(),
        };
        (self.sizes().kv_numbers() * bytes) as u64
    }
}

/// That a size is from 1 to `most`.
///
/// # Errors
/// What was expected and found.
pub(super) fn within(what: &str, found: usize, most: usize) -> Result<(), String> {
    match (1..=most).contains(&found) {
        true => Ok(()),
        false => Err(format!("expected {what} from 1 to {most}, found {found}")),
    }
}
