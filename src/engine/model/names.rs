//! What the tensors of a model are called: by llama.cpp in GGUF, by Hugging Face in safetensors.

use super::spec::Spec;
use super::weights::Weights;

/// A tensor's part in a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(super) enum Part {
    Embedding,
    OutputNorm,
    Head,
    AttentionNorm,
    Query,
    Key,
    Value,
    QueryKeyValue,
    AttentionOut,
    QueryNorm,
    KeyNorm,
    PostAttentionNorm,
    FeedForwardNorm,
    Gate,
    Up,
    GateUp,
    Down,
    PostFeedForwardNorm,
}

/// Each part with its names; those of a layer stand behind the layer's own.
const NAMES: [(Part, &str, &str); 18] = [
    (Part::Embedding, "token_embd", "embed_tokens"),
    (Part::OutputNorm, "output_norm", "norm"),
    (Part::Head, "output", "lm_head"),
    (Part::AttentionNorm, "attn_norm", "input_layernorm"),
    (Part::Query, "attn_q", "self_attn.q_proj"),
    (Part::Key, "attn_k", "self_attn.k_proj"),
    (Part::Value, "attn_v", "self_attn.v_proj"),
    (Part::QueryKeyValue, "attn_qkv", "self_attn.qkv_proj"),
    (Part::AttentionOut, "attn_output", "self_attn.o_proj"),
    (Part::QueryNorm, "attn_q_norm", "self_attn.q_norm"),
    (Part::KeyNorm, "attn_k_norm", "self_attn.k_norm"),
    (Part::PostAttentionNorm, "post_attention_norm", "post_attention_layernorm"),
    (Part::FeedForwardNorm, "ffn_norm", "post_attention_layernorm"),
    (Part::Gate, "ffn_gate", "mlp.gate_proj"),
    (Part::Up, "ffn_up", "mlp.up_proj"),
    (Part::GateUp, "ffn_up", "mlp.gate_up_proj"),
    (Part::Down, "ffn_down", "mlp.down_proj"),
    (Part::PostFeedForwardNorm, "post_ffw_norm", "post_feedforward_layernorm"),
];

/// Where the tensors of Hugging Face's models may stand, by what wraps the language model.
const WRAPS: [(&str, &str); 3] =
    [("model.", ""), ("language_model.model.", "language_model."), ("model.language_model.", "")];

/// The way in which one model names its tensors.
pub(super) enum Names {
    /// As in GGUF.
    Gguf,
    /// As in safetensors: before the model's tensors, before its head; whether what attention gives
    /// back is normed, by which the norm after it got its name.
    HuggingFace(&'static str, &'static str, bool),
}

impl Names {
    /// The names in the safetensors `weights`, by where the embedding stands.
    pub(super) fn hugging_face(weights: &Weights, spec: &Spec) -> Names {
        let stands = |wrap: &&(&str, &str)| {
            weights.info(&format!("{}embed_tokens.weight", wrap.0)).is_some()
        };
        let (model, head) = WRAPS.iter().find(stands).unwrap_or(&WRAPS[0]);
        Names::HuggingFace(model, head, spec.post_norms)
    }

    /// The name of the weights of `part`; of a layer's part in `layer`.
    pub(super) fn weight(&self, part: Part, layer: usize) -> String {
        self.stem(part, layer) + ".weight"
    }

    /// The name of what is added to the product with `part`.
    pub(super) fn bias(&self, part: Part, layer: usize) -> String {
        self.stem(part, layer) + ".bias"
    }

    /// What the names of all tensors of layers begin with.
    pub(super) fn layers(&self) -> String {
        match self {
            Names::Gguf => "blk.".to_owned(),
            Names::HuggingFace(model, ..) => format!("{model}layers."),
        }
    }

    fn stem(&self, part: Part, layer: usize) -> String {
        let row = NAMES.iter().find(|row| row.0 == part).expect("every part has its row in NAMES");
        let whole = matches!(part, Part::Embedding | Part::OutputNorm | Part::Head);
        match self {
            Names::Gguf if whole => row.1.to_owned(),
            Names::Gguf => format!("blk.{layer}.{}", row.1),
            Names::HuggingFace(_, head, _) if part == Part::Head => format!("{head}{}", row.2),
            Names::HuggingFace(model, ..) if whole => format!("{model}{}", row.2),
            Names::HuggingFace(model, _, true) if part == Part::FeedForwardNorm => {
                format!("{model}layers.{layer}.pre_feedforward_layernorm")
            }
            Names::HuggingFace(model, ..) => format!("{model}layers.{layer}.{}", row.2),
        }
    }
}
