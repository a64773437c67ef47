//! The description of a model out of the `config.json` of a Hugging Face folder. Keys and defaults
//! are those of the configuration classes of `transformers`, in the form of today (`rope_parameters`)
//! and in the older one (`rope_theta`, `rope_scaling`). Never runs code that a folder names.

use std::path::Path;

use serde_json::{Map, Value};

use super::plan::Plan;
use super::rope::{RopeSpec, Scaling, long_magnitude};
use super::spec::{Activation, Architecture, LayerSpec, Spec};
use super::stock::{self, Description};
use super::weights::Weights;
use crate::error::{Error, Kind, Result};
use crate::limits::{CONFIG_JSON_BYTES_MAX, MODEL_LAYERS_MAX};

/// The file's name in a folder.
pub(super) const FILE: &str = "config.json";

/// What the configuration of Gemma 3 leaves out where it is `transformers`' default.
const GEMMA3_DEFAULTS: [(&str, f64); 9] = [
    ("num_attention_heads", 8.0),
    ("num_key_value_heads", 4.0),
    ("head_dim", 256.0),
    ("vocab_size", 262_208.0),
    ("max_position_embeddings", 131_072.0),
    ("rms_norm_eps", 1e-6),
    ("query_pre_attn_scalar", 256.0),
    ("sliding_window", 4_096.0),
    ("sliding_window_pattern", 6.0),
];

/// A configuration: one JSON object.
pub(super) struct Config {
    all: Map<String, Value>,
    /// The object that describes the language model: the whole, or its `text_config`.
    text: Map<String, Value>,
}

fn wrong(problem: impl std::fmt::Display) -> Error {
    Error::new(Kind::Model, format!("{FILE}: {problem}; fetch the model again or take another"))
}

impl Config {
    /// Reads the configuration in `folder`.
    ///
    /// # Errors
    /// [`Kind::Model`] where it is missing, too long or no JSON object.
    pub(super) fn read(folder: &Path) -> Result<Config> {
        let bytes = super::folder::bounded(&folder.join(FILE), CONFIG_JSON_BYTES_MAX)?;
        let all: Map<String, Value> = serde_json::from_slice(&bytes).map_err(|error| {
            wrong(format_args!("expected a JSON object: {}", super::shown(&error.to_string())))
        })?;
        let text = match all.get("text_config") {
            Some(Value::Object(text)) => text.clone(),
            _ => all.clone(),
        };
        Ok(Config { all, text })
    }

    /// The architecture, as the file calls it.
    pub(super) fn architecture(&self) -> Result<&str> {
        let name = self.all.get("model_type").and_then(Value::as_str);
        name.ok_or_else(|| wrong("expected a text at 'model_type', found none"))
    }

    /// Tokens that end a generation, as the configuration has them: a number or a list of them.
    pub(super) fn ends(&self) -> Vec<u32> {
        let ids = self.text.get("eos_token_id").or_else(|| self.all.get("eos_token_id"));
        token_ids(ids)
    }

    fn number(&self, key: &str) -> Option<f64> {
        let gemma = || {
            let known = GEMMA3_DEFAULTS.iter().find(|row| row.0 == key);
            known.filter(|_| self.architecture().is_ok_and(|name| name.starts_with("gemma3")))
        };
        match self.text.get(key) {
            Some(Value::Null) => None,
            Some(number) => number.as_f64(),
            None => gemma().map(|row| row.1),
        }
    }

    fn size(&self, key: &str) -> Result<usize> {
        match self.number(key) {
            Some(number) if number >= 0.0 && number.fract() == 0.0 && number < 1e12 => {
                Ok(number as usize)
            }
            found => Err(wrong(format_args!(
                "expected a whole number that isn't negative at '{key}', found {}",
                found.map_or_else(|| "none".to_owned(), |number| number.to_string())
            ))),
        }
    }

    fn size_opt(&self, key: &str) -> Result<Option<usize>> {
        self.number(key).map(|_| self.size(key)).transpose()
    }

    fn flag(&self, key: &str) -> Option<bool> {
        self.text.get(key).or_else(|| self.all.get(key)).and_then(Value::as_bool)
    }

    /// The description, for a model whose tensors are `weights`.
    ///
    /// # Errors
    /// [`Kind::Model`] for an architecture that the engine does not know (the known ones are named),
    /// for what is missing, and for sizes that do not fit each other.
    pub(super) fn plan(&self, weights: &Weights) -> Result<Plan> {
        let name = self.architecture()?;
        if let Some(architecture) = Architecture::named(name) {
            return self.spec(architecture, weights).map(Plan::Own);
        }
        let row = stock::row(name, false).ok_or_else(|| wrong(super::unknown(name)))?;
        Description::of_folder(row, &self.text).map(Plan::Stock).map_err(wrong)
    }

    /// The same model, whose description is `spec`, by candle.
    ///
    /// # Errors
    /// A text: what candle does not honour.
    pub(super) fn stock(&self, spec: &Spec) -> std::result::Result<Description, String> {
        let row = super::elsewhere(spec, false)?;
        Description::of_spec(row, spec, Some(&self.text))
    }

    fn spec(&self, architecture: Architecture, weights: &Weights) -> Result<Spec> {
        for (key, what) in [
            ("attn_logit_softcapping", "caps the products of queries and keys"),
            ("use_bidirectional_attention", "sees tokens that come later"),
        ] {
            let found =
                self.text.get(key).is_some_and(|v| !v.is_null() && v != &Value::Bool(false));
            if found {
                return Err(wrong(format_args!("'{key}': its attention {what}, which none does")));
            }
        }
        let (width, heads) = (self.size("hidden_size")?, self.size("num_attention_heads")?);
        let head_width = self.size_opt("head_dim")?.unwrap_or_else(|| width / heads.max(1));
        let gemma = architecture == Architecture::Gemma3;
        let by = if gemma { self.size("query_pre_attn_scalar")? } else { head_width };
        let spec = Spec {
            architecture,
            context_length: self.size("max_position_embeddings")?,
            vocabulary: self.size("vocab_size")?,
            width,
            feed_forward: self.size("intermediate_size")?,
            heads,
            kv_heads: self.size_opt("num_key_value_heads")?.unwrap_or(heads),
            head_width,
            layers: self.layers(architecture)?,
            ropes: self.ropes(architecture, head_width)?,
            norm_epsilon: self.number("rms_norm_eps").unwrap_or(1e-6) as f32,
            norm_offset: if gemma { 1.0 } else { 0.0 },
            qk_norm: matches!(architecture, Architecture::Qwen3 | Architecture::Gemma3),
            post_norms: gemma,
            embedding_scale: if gemma { (width as f32).sqrt() } else { 1.0 },
            attention_scale: 1.0 / (by as f32).sqrt(),
            logit_cap: self.number("final_logit_softcapping").map(|cap| cap as f32),
            activation: self.activation(gemma)?,
            fused: architecture == Architecture::Phi3,
            paired_rows: false,
            tied: self
                .flag("tie_word_embeddings")
                .unwrap_or_else(|| weights.info("lm_head.weight").is_none()),
        };
        spec.check().map_err(wrong)?;
        Ok(spec)
    }

    fn activation(&self, gemma: bool) -> Result<Activation> {
        let key = if gemma { "hidden_activation" } else { "hidden_act" };
        let name = self.text.get(key).and_then(Value::as_str);
        match (name, gemma) {
            (Some("silu" | "swish"), _) | (None, false) => Ok(Activation::Silu),
            (Some("gelu_pytorch_tanh" | "gelu_new"), _) | (None, true) => Ok(Activation::GeluTanh),
            (Some(other), _) => Err(wrong(format_args!(
                "the activation '{}' is unknown; known: silu, gelu_pytorch_tanh",
                super::shown(other)
            ))),
        }
    }

    /// Which layers see a window, and how wide.
    fn layers(&self, architecture: Architecture) -> Result<Vec<LayerSpec>> {
        let layers = self.size("num_hidden_layers")?;
        if layers > MODEL_LAYERS_MAX {
            let text = format!("expected at most {MODEL_LAYERS_MAX} layers, found {layers}");
            return Err(wrong(text));
        }
        let window = match architecture {
            Architecture::Llama => None,
            Architecture::Qwen2 | Architecture::Qwen3
                if self.flag("use_sliding_window") != Some(true) =>
            {
                None
            }
            _ => self.size_opt("sliding_window")?,
        };
        let listed = self.text.get("layer_types").and_then(Value::as_array);
        let pattern = self.size_opt("sliding_window_pattern")?.unwrap_or(0);
        let first_local = self.size_opt("max_window_layers")?.unwrap_or(0);
        let local = |at: usize| match (architecture, listed.and_then(|all| all.get(at))) {
            (Architecture::Gemma3 | Architecture::Qwen2 | Architecture::Qwen3, Some(kind)) => {
                match kind.as_str() {
                    Some("sliding_attention") => Ok(true),
                    Some("full_attention") => Ok(false),
                    _ => Err(wrong("'layer_types' has an unknown kind of layer")),
                }
            }
            (Architecture::Gemma3, None) => Ok(!(at + 1).is_multiple_of(pattern)),
            (Architecture::Qwen2 | Architecture::Qwen3, None) => Ok(at >= first_local),
            _ => Ok(true),
        };
        let own_rope = architecture == Architecture::Gemma3;
        (0..layers)
            .map(|at| {
                let local = local(at)?;
                let window = window.filter(|_| local);
                Ok(LayerSpec { window, rope: usize::from(own_rope && local) })
            })
            .collect()
    }

    fn ropes(&self, architecture: Architecture, head_width: usize) -> Result<Vec<RopeSpec>> {
        let object = |value: Option<&Value>| match value {
            Some(Value::Object(map)) => map.clone(),
            _ => Map::new(),
        };
        let new = object(self.text.get("rope_parameters"));
        if architecture != Architecture::Gemma3 {
            let old = object(self.text.get("rope_scaling"));
            let rope = if new.is_empty() { old } else { new };
            return Ok(vec![self.rope(architecture, &rope, "rope_theta", 1e4, head_width)?]);
        }
        let mut global = object(new.get("full_attention"));
        let local = object(new.get("sliding_attention"));
        if global.is_empty() {
            global = object(self.text.get("rope_scaling"));
        }
        Ok(vec![
            self.rope(architecture, &global, "rope_theta", 1e6, head_width)?,
            self.rope(architecture, &local, "rope_local_base_freq", 1e4, head_width)?,
        ])
    }

    /// One rotation by its own keys; `base` is what the older form calls its base in the whole.
    fn rope(
        &self,
        architecture: Architecture,
        keys: &Map<String, Value>,
        base: &str,
        default: f64,
        head_width: usize,
    ) -> Result<RopeSpec> {
        let number = |key: &str| keys.get(key).and_then(Value::as_f64);
        let share = number("partial_rotary_factor")
            .or_else(|| self.number("partial_rotary_factor"))
            .unwrap_or(1.0);
        let dimensions = (head_width as f64 * share) as usize;
        let base = number("rope_theta").or_else(|| self.number(base)).unwrap_or(default);
        Ok(RopeSpec { dimensions, base, scaling: self.scaling(architecture, keys)? })
    }

    fn scaling(&self, architecture: Architecture, keys: &Map<String, Value>) -> Result<Scaling> {
        let number = |key: &str| keys.get(key).and_then(Value::as_f64);
        let needed = |key: &str| {
            number(key).ok_or_else(|| wrong(format_args!("expected '{key}' for its rotation")))
        };
        let context = self.size("max_position_embeddings")?;
        let original = || {
            let own = number("original_max_position_embeddings")
                .or_else(|| self.number("original_max_position_embeddings"));
            own.map_or(context, |tokens| tokens as usize)
        };
        let kind = keys.get("rope_type").or_else(|| keys.get("type")).and_then(Value::as_str);
        // Early configurations of Phi-3 call the same scaling by other names.
        let long = architecture == Architecture::Phi3 && matches!(kind, Some("su" | "yarn"));
        match kind {
            None | Some("default") => Ok(Scaling::None),
            Some("linear") => Ok(Scaling::Linear(needed("factor")?)),
            Some("llama3") => Ok(Scaling::Llama3 {
                factor: needed("factor")?,
                low: needed("low_freq_factor")?,
                high: needed("high_freq_factor")?,
                original: original(),
            }),
            Some(kind) if long || kind == "longrope" => {
                let (short, long) = (floats(keys, "short_factor")?, floats(keys, "long_factor")?);
                let original = original();
                let factor = number("factor").unwrap_or(context as f64 / original.max(1) as f64);
                let rule = || long_magnitude(factor, original);
                let magnitude = number("attention_factor").unwrap_or_else(rule);
                Ok(Scaling::Long { short, long, original, magnitude })
            }
            Some("yarn") => Ok(Scaling::Yarn {
                factor: needed("factor")?,
                fast: number("beta_fast").unwrap_or(32.0),
                slow: number("beta_slow").unwrap_or(1.0),
                original: original(),
                magnitude: number("attention_factor"),
            }),
            Some(other) => Err(wrong(format_args!(
                "the rotation's scaling '{}' is unknown; known: default, linear, llama3, yarn, \
                 longrope",
                super::shown(other)
            ))),
        }
    }
}

fn floats(keys: &Map<String, Value>, key: &str) -> Result<Vec<f32>> {
    let list = keys.get(key).and_then(Value::as_array);
    let numbers = list.map(|list| list.iter().map(|number| number.as_f64().map(|n| n as f32)));
    numbers
        .and_then(Iterator::collect::<Option<Vec<f32>>>)
        .ok_or_else(|| wrong(format_args!("expected a list of numbers at '{key}'")))
}

/// Ids of tokens, written as one number or as a list.
pub(super) fn token_ids(value: Option<&Value>) -> Vec<u32> {
    let one = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Some(Value::Array(ids)) => ids.iter().filter_map(one).collect(),
        Some(id) => one(id).into_iter().collect(),
        None => Vec::new(),
    }
}
