//! What a decoder-only model is made of, as its own file describes it: one description for all the
//! architectures that the engine computes itself. Holds numbers only: no weights, no file.

use super::plan::{Sizes, within};
use super::rope::RopeSpec;
use crate::limits::MODEL_FEED_FORWARD_MAX;

/// The families of models that the engine computes itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Architecture {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
    Gemma3,
    Phi3,
}

/// Each family with the names that GGUF and `config.json` give it.
const NAMES: [(Architecture, &str, &[&str]); 6] = [
    (Architecture::Llama, "llama", &[]),
    (Architecture::Mistral, "mistral", &[]),
    (Architecture::Qwen2, "qwen2", &[]),
    (Architecture::Qwen3, "qwen3", &[]),
    (Architecture::Gemma3, "gemma3", &["gemma3_text"]),
    (Architecture::Phi3, "phi3", &[]),
];

impl Architecture {
    /// The family called `name` in a model file, if it is one of these.
    pub fn named(name: &str) -> Option<Architecture> {
        let known = NAMES.iter().find(|row| row.1 == name || row.2.contains(&name));
        known.map(|row| row.0)
    }

    /// All their names.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|row| row.1)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|row| row.0 == self).expect("every family has its row in NAMES").1
    }
}

/// What stands between the two halves of the feed-forward part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + exp(-x))`.
    Silu,
    /// Gaussian error linear unit, by its approximation with tanh.
    GeluTanh,
}

/// What is special about one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerSpec {
    /// Tokens that a token sees, itself among them; `None`: all before it.
    pub window: Option<usize>,
    /// Which of [`Spec::ropes`] turns its queries and keys.
    pub rope: usize,
}

/// The description of a model. Sizes count numbers, not bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// Its family.
    pub architecture: Architecture,
    /// Longest sequence that it was made for, tokens.
    pub context_length: usize,
    /// Tokens that it knows.
    pub vocabulary: usize,
    /// Numbers that stand for a token between the layers.
    pub width: usize,
    /// Numbers in the middle of the feed-forward part.
    pub feed_forward: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values; a divisor of `heads`.
    pub kv_heads: usize,
    /// Numbers of one head.
    pub head_width: usize,
    /// Its layers.
    pub layers: Vec<LayerSpec>,
    /// The rotations that its layers use.
    pub ropes: Vec<RopeSpec>,
    /// What keeps a norm from dividing by 0.
    pub norm_epsilon: f32,
    /// Added to every weight of a norm.
    pub norm_offset: f32,
    /// Queries and keys are normed, head by head, before they are turned.
    pub qk_norm: bool,
    /// What attention and feed-forward give back is normed before it is added.
    pub post_norms: bool,
    /// What an embedding is multiplied with.
    pub embedding_scale: f32,
    /// What the product of query and key is multiplied with.
    pub attention_scale: f32,
    /// Logits `x` become `cap * tanh(x / cap)`.
    pub logit_cap: Option<f32>,
    /// Between gate and up.
    pub activation: Activation,
    /// The head that makes logits is the embedding.
    pub tied: bool,
    /// Query, key and value are one matrix in the file; gate and up another.
    pub fused: bool,
    /// Rows of query and key stand in pairs (0, 1), (2, 3), … that turn together, not (0, half),
    /// (1, half + 1), …: the order that llama.cpp gives llamas.
    pub paired_rows: bool,
}

impl Spec {
    /// Numbers of all queries of a token.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_width
    }

    /// Numbers of all keys of a token; as many of values.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_width
    }

    /// The sizes that every decoder has.
    pub(super) fn sizes(&self) -> Sizes {
        Sizes {
            layers: self.layers.len(),
            width: self.width,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_width: self.head_width,
            context_length: self.context_length,
            vocabulary: self.vocabulary,
        }
    }

    /// That the sizes fit each other and the worker's bounds.
    ///
    /// # Errors
    /// What was expected and found.
    pub fn check(&self) -> Result<(), String> {
        self.sizes().check()?;
        within("a feed-forward length", self.feed_forward, MODEL_FEED_FORWARD_MAX)?;
        if self.layers.iter().any(|layer| layer.window == Some(0)) {
            return Err("expected a sliding window of at least 1 token, found 0".to_owned());
        }
        for (what, number) in [
            ("the norms' epsilon", self.norm_epsilon),
            ("the embeddings' scale", self.embedding_scale),
            ("the attention's scale", self.attention_scale),
            ("the logits' cap", self.logit_cap.unwrap_or(1.0)),
        ] {
            if !(number.is_finite() && number > 0.0) {
                return Err(format!("expected a positive number as {what}, found {number}"));
            }
        }
        self.ropes.iter().try_for_each(|rope| rope.check(self.head_width))
    }
}
