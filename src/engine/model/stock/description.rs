//! Which architectures candle computes for the engine, and what of a model's own description it does not
//! honour, so that such a model is refused. Reads no weight.

use candle_core::{DType, Device};
use serde_json::{Map, Value};

use super::super::plan::{Sizes, within};
use super::super::rope::Scaling;
use super::super::spec::{Architecture, Spec};
use super::super::weights::Weights;
use super::{Build, folders, quantized};
use crate::engine::gguf::{DType as Stored, Gguf, shown};
use crate::limits::MODEL_FEED_FORWARD_MAX;

/// An architecture in one form of file.
pub(crate) struct Row {
    /// Its name in the file.
    pub(super) name: &'static str,
    pub(super) build: Build,
    /// What the settings say where `config.json` leaves it open: keys with their JSON.
    pub(super) defaults: &'static [(&'static str, &'static str)],
    /// Settings that candle does not honour: they have to be missing, null, false or empty.
    pub(super) fixed: &'static [&'static str],
    /// Whether heads may be of another width than their share of the embedding.
    pub(super) wide_heads: bool,
    /// Computed in 32 bits on every device: in 16, candle's model mixes both up.
    pub(super) full_precision: bool,
    /// Longest sequence that candle's model has room for.
    pub(super) context_max: usize,
}

/// A model that candle computes.
pub(crate) struct Description {
    row: &'static Row,
    settings: Map<String, Value>,
    /// Its sizes; the context ends where a sliding window would begin to slide.
    pub(crate) sizes: Sizes,
}

/// The row of the architecture `name` for folders, or for GGUF files.
pub(in super::super) fn row(name: &str, gguf: bool) -> Option<&'static Row> {
    let rows = if gguf { quantized::ROWS } else { folders::ROWS };
    rows.iter().find(|row| row.name == name)
}

/// The names of the architectures that only candle computes.
pub(in super::super) fn names() -> impl Iterator<Item = &'static str> {
    let all = folders::ROWS.iter().chain(quantized::ROWS).map(|row| row.name);
    all.filter(|name| Architecture::named(name).is_none())
}

/// Whether a setting says nothing.
fn silent(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

impl Description {
    /// The model whose `config.json` holds `text`.
    ///
    /// # Errors
    /// A text: what is missing, out of bounds, or not honoured by candle.
    pub(in super::super) fn of_folder(
        row: &'static Row,
        text: &Map<String, Value>,
    ) -> Result<Description, String> {
        let mut settings = text.clone();
        // Newer files keep what belongs to the rotation in an object.
        if let Some(Value::Object(rope)) = text.get("rope_parameters") {
            for key in ["rope_theta", "partial_rotary_factor"] {
                if let Some(value) = rope.get(key) {
                    settings.entry(key).or_insert_with(|| value.clone());
                }
            }
            if rope.get("rope_type").is_some_and(|kind| kind != "default") {
                settings.insert("rope_scaling".to_owned(), Value::Object(rope.clone()));
            }
        }
        // Today's name of what published files call otherwise.
        if let (Some(experts), true) = (text.get("num_local_experts"), row.name == "qwen3_moe") {
            settings.entry("num_experts").or_insert_with(|| experts.clone());
        }
        scaled(row, &mut settings)?;
        for (key, json) in row.defaults {
            let default = || serde_json::from_str(json).unwrap_or(Value::Null);
            let value = settings.entry(*key).or_insert_with(default);
            if value.is_null() {
                *value = default();
            }
        }
        for key in row.fixed {
            if let Some(found) = settings.get(*key).filter(|value| !silent(value)) {
                return Err(format!(
                    "'{key}' is {}, which the decoder of {} does not honour",
                    shown(&found.to_string()),
                    row.name
                ));
            }
        }
        let mut sizes = sizes(row, &settings)?;
        let window = settings.get("sliding_window").and_then(Value::as_u64);
        let slides = settings.get("use_sliding_window") != Some(&Value::Bool(false));
        if let Some(window) = window.filter(|window| slides && *window > 0) {
            sizes.context_length = sizes.context_length.min(window as usize);
        }
        Ok(Description { row, settings, sizes })
    }

    /// The model in `gguf`, of an architecture that only candle computes.
    ///
    /// # Errors
    /// As [`Description::of_folder`].
    pub(in super::super) fn of_gguf(row: &'static Row, gguf: &Gguf) -> Result<Description, String> {
        let size = |key: &str| {
            let key = format!("{}.{key}", row.name);
            let number = gguf.uint(&key).map_err(|error| error.to_string())?;
            Ok::<_, String>(usize::try_from(number).unwrap_or(usize::MAX))
        };
        let vocabulary = gguf.tensors().iter().find(|tensor| tensor.name == "token_embd.weight");
        let (width, heads) = (size("embedding_length")?, size("attention.head_count")?);
        let sizes = Sizes {
            layers: size("block_count")?,
            width,
            heads,
            kv_heads: size("attention.head_count_kv").unwrap_or(heads),
            head_width: width / heads.max(1),
            context_length: size("context_length")?.min(row.context_max),
            vocabulary: vocabulary
                .map_or(0, |tensor| tensor.shape.first().map_or(0, |rows| *rows as usize)),
        };
        sizes.check()?;
        quantized::check(row, gguf)?;
        Ok(Description { row, settings: Map::new(), sizes })
    }

    /// A model that the engine computes itself on the CPU, by candle: `text` is its `config.json`
    /// where it has one.
    ///
    /// # Errors
    /// As [`Description::of_folder`].
    pub(in super::super) fn of_spec(
        row: &'static Row,
        spec: &Spec,
        text: Option<&Map<String, Value>>,
    ) -> Result<Description, String> {
        let mut description = match text {
            Some(text) => Description::of_folder(row, text)?,
            None => Description { row, settings: Map::new(), sizes: spec.sizes() },
        };
        let plain = |scaling: &Scaling| {
            let llama3 = matches!(scaling, Scaling::Llama3 { .. }) && text.is_some();
            matches!(scaling, Scaling::None) || (llama3 && row.name == "llama")
        };
        if spec.ropes.len() != 1 || !spec.ropes.iter().all(|rope| plain(&rope.scaling)) {
            return Err(format!("the decoder of {} does not honour its rotation", row.name));
        }
        let sizes = &mut description.sizes;
        if !row.wide_heads && sizes.head_width * sizes.heads != sizes.width {
            return Err(format!("the decoder of {} does not honour its heads' width", row.name));
        }
        let windows = spec.layers.iter().filter_map(|layer| layer.window);
        let most = windows.min().unwrap_or(usize::MAX).min(row.context_max);
        sizes.context_length = sizes.context_length.min(most);
        Ok(description)
    }

    /// Its architecture's name.
    pub(in super::super) fn architecture(&self) -> &'static str {
        self.row.name
    }

    pub(super) fn build(&self) -> Build {
        self.row.build
    }

    pub(super) fn row(&self) -> &'static Row {
        self.row
    }

    /// The settings as candle's model wants them, for sequences of so many tokens.
    pub(super) fn settings(&self, context_length: usize) -> Value {
        let mut settings = self.settings.clone();
        settings.insert("max_position_embeddings".to_owned(), context_length.into());
        Value::Object(settings)
    }

    /// In what form it is computed: in 32 bits on the CPU, on cards as most of its weights are kept.
    pub(super) fn dtype(&self, weights: &Weights, device: &Device) -> DType {
        let bytes = |stored: Stored| -> u64 {
            weights.infos().filter(|info| info.dtype == stored).map(|info| info.bytes).sum()
        };
        let gguf = matches!(self.row.build, Build::Gguf(_));
        if device.is_cpu() || self.row.full_precision || gguf {
            return DType::F32;
        }
        let all =
            [(Stored::F32, DType::F32), (Stored::F16, DType::F16), (Stored::BF16, DType::BF16)];
        all.into_iter().max_by_key(|(stored, _)| bytes(*stored)).map_or(DType::F32, |best| best.1)
    }
}

/// Takes care of a stretched rotation: only the decoder of llama knows one, that of Llama 3.
fn scaled(row: &Row, settings: &mut Map<String, Value>) -> Result<(), String> {
    let Some(scaling) = settings.get("rope_scaling") else { return Ok(()) };
    let kind = scaling.get("rope_type").or_else(|| scaling.get("type"));
    match kind.and_then(Value::as_str) {
        Some("llama3") if row.name == "llama" => Ok(()),
        None | Some("default") => {
            settings.remove("rope_scaling");
            Ok(())
        }
        Some(kind) => {
            let kind = shown(kind);
            Err(format!("the decoder of {} does not honour the rotation '{kind}'", row.name))
        }
    }
}

fn sizes(row: &Row, settings: &Map<String, Value>) -> Result<Sizes, String> {
    let size_opt = |key: &str| {
        let number = settings.get(key).and_then(Value::as_u64);
        number.map(|number| usize::try_from(number).unwrap_or(usize::MAX))
    };
    let size = |key: &str| {
        size_opt(key).ok_or_else(|| format!("expected a whole number at '{key}', found none"))
    };
    let (width, heads) = (size("hidden_size")?, size("num_attention_heads")?);
    let head_width = size_opt("head_dim").unwrap_or(width / heads.max(1));
    if !row.wide_heads && head_width.checked_mul(heads) != Some(width) {
        let found = format!("{heads} heads of {head_width} for a width of {width}");
        return Err(format!("the decoder of {} does not honour {found}", row.name));
    }
    let sizes = Sizes {
        layers: size("num_hidden_layers")?,
        width,
        heads,
        kv_heads: size_opt("num_key_value_heads").unwrap_or(heads),
        head_width,
        context_length: size("max_position_embeddings")?.min(row.context_max),
        vocabulary: size("vocab_size")?,
    };
    sizes.check()?;
    within("a feed-forward length", size("intermediate_size")?, MODEL_FEED_FORWARD_MAX)?;
    Ok(sizes)
}
