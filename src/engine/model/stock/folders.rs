//! The architectures that candle computes out of a folder, one row each, and how their models are made.

use std::sync::Arc;

use candle_core::{DType, Device, Result};
use candle_nn::VarBuilder;
use candle_transformers::models::{
    gemma2, llama, mistral, mixtral, olmo2, phi3, qwen2, qwen3, qwen3_moe, stable_lm, starcoder2,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::super::weights::Weights;
use super::description::Row;
use super::tensors::{Shelf, Tensors};
use super::{Build, Fresh, Step, step};
use crate::engine::gguf::shown;
use crate::error::{Error, Kind};

/// A row without anything special, for the others to differ from.
const PLAIN: Row = Row {
    name: "",
    build: Build::Folder(|_, _| candle_core::bail!("no architecture")),
    defaults: &[("rope_theta", "10000.0"), ("hidden_act", "\"silu\"")],
    fixed: &[],
    wide_heads: false,
    full_precision: false,
    context_max: usize::MAX,
};

/// Each architecture; those that the engine computes itself are for other devices.
pub(super) const ROWS: &[Row] = &[
    Row {
        name: "gemma2",
        build: Build::Folder(gemma2),
        defaults: &[
            ("rope_theta", "10000.0"),
            ("attention_bias", "false"),
            ("hidden_activation", "\"gelu_pytorch_tanh\""),
            ("tie_word_embeddings", "true"),
        ],
        fixed: &["use_bidirectional_attention"],
        wide_heads: true,
        ..PLAIN
    },
    Row {
        name: "mixtral",
        build: Build::Folder(mixtral),
        defaults: &[
            ("rope_theta", "1000000.0"),
            ("hidden_act", "\"silu\""),
            ("use_flash_attn", "false"),
        ],
        ..PLAIN
    },
    Row {
        name: "olmo2",
        build: Build::Folder(olmo2),
        defaults: &[
            ("rope_theta", "10000.0"),
            ("hidden_act", "\"silu\""),
            ("attention_bias", "false"),
            ("tie_word_embeddings", "false"),
        ],
        fixed: &["clip_qkv"],
        full_precision: true,
        ..PLAIN
    },
    Row {
        name: "qwen3_moe",
        build: Build::Folder(qwen3_moe),
        defaults: &[
            ("rope_theta", "10000.0"),
            ("hidden_act", "\"silu\""),
            ("attention_bias", "false"),
            ("tie_word_embeddings", "false"),
            ("use_sliding_window", "false"),
            ("max_window_layers", "0"),
            ("decoder_sparse_step", "1"),
            ("norm_topk_prob", "false"),
        ],
        fixed: &["mlp_only_layers"],
        wide_heads: true,
        ..PLAIN
    },
    Row {
        name: "stablelm",
        build: Build::Folder(stable_lm),
        defaults: &[
            ("rope_theta", "10000.0"),
            ("hidden_act", "\"silu\""),
            ("partial_rotary_factor", "0.25"),
            ("layer_norm_eps", "1e-5"),
            ("use_cache", "true"),
        ],
        fixed: &["qk_layernorm", "use_parallel_residual"],
        ..PLAIN
    },
    Row {
        name: "starcoder2",
        build: Build::Folder(starcoder2),
        defaults: &[
            ("rope_theta", "10000.0"),
            ("hidden_act", "\"gelu_pytorch_tanh\""),
            ("norm_epsilon", "1e-5"),
            ("use_bias", "true"),
            ("tie_word_embeddings", "true"),
        ],
        ..PLAIN
    },
    Row { name: "llama", build: Build::Folder(llama), ..PLAIN },
    Row { name: "mistral", build: Build::Folder(mistral), wide_heads: true, ..PLAIN },
    Row {
        name: "qwen2",
        build: Build::Folder(qwen2),
        defaults: &[
            ("rope_theta", "10000.0"),
            ("hidden_act", "\"silu\""),
            ("tie_word_embeddings", "false"),
            ("use_sliding_window", "false"),
            ("sliding_window", "4096"),
            ("max_window_layers", "28"),
        ],
        ..PLAIN
    },
    Row {
        name: "qwen3",
        build: Build::Folder(qwen3),
        defaults: &[
            ("rope_theta", "10000.0"),
            ("hidden_act", "\"silu\""),
            ("attention_bias", "false"),
            ("tie_word_embeddings", "false"),
            ("use_sliding_window", "false"),
            ("max_window_layers", "28"),
        ],
        wide_heads: true,
        ..PLAIN
    },
    Row { name: "phi3", build: Build::Folder(phi3), ..PLAIN },
];

/// Reads the weights, and makes a first model to see whether they suffice and all have a part.
pub(super) fn load(
    build: fn(&Value, VarBuilder<'static>) -> Result<Step>,
    settings: Value,
    weights: &Weights,
    dtype: DType,
    device: &Device,
    progress: &mut dyn FnMut(u64),
) -> crate::error::Result<(Fresh, u64)> {
    let tensors = Arc::new(Tensors::read(weights, dtype, device, progress)?);
    let shelf = Box::new(Shelf(Arc::clone(&tensors)));
    let builder = VarBuilder::from_backend(shelf, dtype, device.clone());
    drop(build(&settings, builder.clone()).map_err(|error| unmade(&error))?);
    let tied = settings.get("tie_word_embeddings") == Some(&Value::Bool(true));
    // Angles that early models keep are computed anew.
    let left = tensors
        .left(|name| name.ends_with("rotary_emb.inv_freq") || (tied && name == "lm_head.weight"));
    if let Some(name) = left {
        let text = format!("tensor '{}' has no part in this architecture", shown(&name));
        return Err(Error::new(Kind::Model, text + "; take another model"));
    }
    let bytes = tensors.bytes();
    Ok((Box::new(move || build(&settings, builder.clone())), bytes))
}

/// A model that candle could not make out of its files.
pub(super) fn unmade(error: &candle_core::Error) -> Error {
    let text = error.to_string();
    let line = shown(text.lines().next().unwrap_or_default());
    let kind = match text.to_lowercase().contains("out of memory") {
        true => Kind::OutOfMemory,
        false => Kind::Model,
    };
    Error::new(kind, format!("the model can't be made: {line}; fetch it again or take another"))
}

/// The settings as the model's own type.
fn read<T: DeserializeOwned>(settings: &Value) -> Result<T> {
    T::deserialize(settings)
        .map_err(|error| candle_core::Error::Msg(format!("config.json: {error}")))
}

fn gemma2(settings: &Value, weights: VarBuilder<'static>) -> Result<Step> {
    let config: gemma2::Config = read(settings)?;
    if config.query_pre_attn_scalar != config.head_dim {
        // The largest Gemma 2; candle's attention knows no other scale.
        candle_core::bail!("config.json: 'query_pre_attn_scalar' that is not 'head_dim'");
    }
    let mut model = gemma2::Model::new(false, &config, weights)?;
    step(move |tokens, at| model.forward(tokens, at))
}

fn mixtral(settings: &Value, weights: VarBuilder<'static>) -> Result<Step> {
    let mut settings = settings.clone();
    if settings.get("sliding_window").is_none_or(Value::is_null) {
        // A window that never slides: candle's model wants a number.
        settings["sliding_window"] = settings["max_position_embeddings"].clone();
    }
    let mut model = mixtral::Model::new(&read(&settings)?, weights)?;
    step(move |tokens, at| model.forward(tokens, at))
}

fn olmo2(settings: &Value, weights: VarBuilder<'static>) -> Result<Step> {
    let mut model = olmo2::Model::new(&read(settings)?, weights)?;
    step(move |tokens, at| model.forward(tokens, at))
}

fn qwen3_moe(settings: &Value, weights: VarBuilder<'static>) -> Result<Step> {
    let mut model = qwen3_moe::ModelForCausalLM::new(&read(settings)?, weights)?;
    step(move |tokens, at| model.forward(tokens, at))
}

fn stable_lm(settings: &Value, weights: VarBuilder<'static>) -> Result<Step> {
    let mut model = stable_lm::Model::new(&read(settings)?, weights)?;
    step(move |tokens, at| model.forward(tokens, at))
}

fn starcoder2(settings: &Value, weights: VarBuilder<'static>) -> Result<Step> {
    let mut model = starcoder2::Model::new(&read(settings)?, weights)?;
    step(move |tokens, at| model.forward(tokens, at))
}

fn llama(settings: &Value, weights: VarBuilder<'static>) -> Result<Step> {
    let config = read::<llama::LlamaConfig>(settings)?.into_config(false);
    let (dtype, device) = (weights.dtype(), weights.device().clone());
    let mut cache = llama::Cache::new(true, dtype, &config, &device)?;
    let model = llama::Llama::load(weights, &config)?;
    step(move |tokens, at| model.forward(tokens, at, &mut cache))
}

fn mistral(settings: &Value, weights: VarBuilder<'static>) -> Result<Step> {
    let mut model = mistral::Model::new(&read(settings)?, weights)?;
    step(move |tokens, at| model.forward(tokens, at))
}

fn qwen2(settings: &Value, weights: VarBuilder<'static>) -> Result<Step> {
    let mut model = qwen2::ModelForCausalLM::new(&read(settings)?, weights)?;
    step(move |tokens, at| model.forward(tokens, at))
}

fn qwen3(settings: &Value, weights: VarBuilder<'static>) -> Result<Step> {
    let mut model = qwen3::ModelForCausalLM::new(&read(settings)?, weights)?;
    step(move |tokens, at| model.forward(tokens, at))
}

fn phi3(settings: &Value, weights: VarBuilder<'static>) -> Result<Step> {
    let mut model = phi3::Model::new(&read(settings)?, weights)?;
    step(move |tokens, at| model.forward(tokens, at))
}
