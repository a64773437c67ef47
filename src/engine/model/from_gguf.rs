//! The description of a model out of a GGUF file's metadata. Keys are those of the GGUF
//! specification and of llama.cpp's `llama-arch.cpp`; what a key means where files differ from the
//! models' own configuration is said at the place. Reads no weight but the rotations' divisors.

use super::plan::Plan;
use super::rope::{RopeSpec, Scaling, long_magnitude};
use super::spec::{Activation, Architecture, LayerSpec, Spec};
use super::stock::{self, Description};
use super::weights::Weights;
use crate::engine::gguf::Gguf;
use crate::error::Result;
use crate::limits::MODEL_LAYERS_MAX;

/// A base of rotations where the file names none.
const ROPE_BASE: f64 = 10_000.0;
/// Every how many layers Gemma 3 looks at everything, where the file does not say.
const GEMMA3_PATTERN: usize = 6;
/// Layers of the one Gemma 3 whose attention is scaled by another rule: 27B.
const GEMMA3_27B_LAYERS: usize = 62;

/// The metadata of one architecture.
struct Keys<'a> {
    gguf: &'a Gguf,
    prefix: &'a str,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    fn size(&self, name: &str) -> Result<usize> {
        self.gguf.uint(&self.key(name)).map(|number| usize::try_from(number).unwrap_or(usize::MAX))
    }

    fn size_opt(&self, name: &str) -> Option<usize> {
        let number = self.gguf.uint_opt(&self.key(name))?;
        Some(usize::try_from(number).unwrap_or(usize::MAX))
    }

    fn float_opt(&self, name: &str) -> Option<f64> {
        self.gguf.float_opt(&self.key(name))
    }
}

/// The description in `gguf`, whose tensors are `weights`.
///
/// # Errors
/// [`crate::error::Kind::Model`] for an architecture that the engine does not know (the known ones
/// are named), for metadata that is missing, and for sizes that do not fit each other.
pub(super) fn plan(gguf: &Gguf, weights: &Weights) -> Result<Plan> {
    let name = gguf.architecture()?;
    if let Some(architecture) = Architecture::named(name) {
        return spec(architecture, gguf, weights).map(Plan::Own);
    }
    let row = stock::row(name, true).ok_or_else(|| gguf.error(super::unknown(name)))?;
    let stock = Description::of_gguf(row, gguf);
    stock.map(Plan::Stock).map_err(|text| gguf.error(text + "; take another model"))
}

/// The same model, whose description is `spec`, by candle.
///
/// # Errors
/// A text: what candle does not honour.
pub(super) fn stock(spec: &Spec, gguf: &Gguf) -> std::result::Result<Description, String> {
    let row = super::elsewhere(spec, true)?;
    stock::check(row, gguf)?;
    Description::of_spec(row, spec, None)
}

fn spec(architecture: Architecture, gguf: &Gguf, weights: &Weights) -> Result<Spec> {
    let prefix = gguf.architecture()?;
    let keys = Keys { gguf, prefix };
    let (width, heads) = (keys.size("embedding_length")?, keys.size("attention.head_count")?);
    let layers = keys.size("block_count")?;
    if layers > MODEL_LAYERS_MAX {
        let text = format!("expected at most {MODEL_LAYERS_MAX} layers, found {layers}");
        return Err(gguf.error(text + "; take another model"));
    }
    let head_width = keys.size_opt("attention.key_length").unwrap_or_else(|| width / heads.max(1));
    let value_width = keys.size_opt("attention.value_length").unwrap_or(head_width);
    if value_width != head_width {
        return Err(gguf.error(format_args!(
            "expected heads of one width, found {head_width} for keys and {value_width} for \
             values; take another model"
        )));
    }
    let gemma = architecture == Architecture::Gemma3;
    let mut spec = Spec {
        architecture,
        context_length: keys.size("context_length")?,
        vocabulary: vocabulary(gguf)?,
        width,
        feed_forward: keys.size("feed_forward_length")?,
        heads,
        kv_heads: keys.size_opt("attention.head_count_kv").unwrap_or(heads),
        head_width,
        layers: vec![LayerSpec { window: window(&keys), rope: 0 }; layers],
        ropes: vec![rope(&keys, head_width, weights)?],
        norm_epsilon: keys.float_opt("attention.layer_norm_rms_epsilon").unwrap_or(0.0) as f32,
        // The converter has already added Gemma's 1 to the weights of its norms.
        norm_offset: 0.0,
        qk_norm: matches!(architecture, Architecture::Qwen3 | Architecture::Gemma3),
        post_norms: gemma,
        embedding_scale: if gemma { (width as f32).sqrt() } else { 1.0 },
        attention_scale: attention_scale(&keys, head_width, width / heads.max(1), layers, gemma),
        logit_cap: keys.float_opt("final_logit_softcapping").map(|cap| cap as f32),
        activation: if gemma { Activation::GeluTanh } else { Activation::Silu },
        fused: architecture == Architecture::Phi3,
        tied: weights.info("output.weight").is_none(),
        paired_rows: matches!(architecture, Architecture::Llama | Architecture::Mistral),
    };
    if gemma {
        local_layers(&keys, &mut spec);
    }
    spec.check().map_err(|text| gguf.error(text + "; convert the model again"))?;
    Ok(spec)
}

fn vocabulary(gguf: &Gguf) -> Result<usize> {
    let embedding = gguf.tensors().iter().find(|tensor| tensor.name == "token_embd.weight");
    match embedding.map(|tensor| tensor.shape.as_slice()) {
        Some([rows, _]) => Ok(usize::try_from(*rows).unwrap_or(usize::MAX)),
        _ => Err(gguf.error(
            "expected the matrix 'token_embd.weight' among the tensors, found none; \
             fetch or convert the model again",
        )),
    }
}

/// The sliding window of all layers. llama.cpp writes none for Mistral and 0 for "none".
fn window(keys: &Keys<'_>) -> Option<usize> {
    keys.size_opt("attention.sliding_window").filter(|window| *window > 0)
}

fn attention_scale(
    keys: &Keys<'_>,
    head_width: usize,
    share: usize,
    layers: usize,
    gemma: bool,
) -> f32 {
    // GGUF has no key for the number by which Gemma's 27B differs; llama.cpp goes by its layers.
    let by = if gemma && layers == GEMMA3_27B_LAYERS { share } else { head_width };
    let given = keys.float_opt("attention.scale").filter(|scale| *scale != 0.0);
    given.map_or_else(|| 1.0 / (by as f32).sqrt(), |scale| scale as f32)
}

/// Gemma 3: every sixth layer sees everything, the others a window, with a rotation of their own.
fn local_layers(keys: &Keys<'_>, spec: &mut Spec) {
    let pattern = keys.size_opt("attention.sliding_window_pattern").unwrap_or(GEMMA3_PATTERN);
    let listed = keys.gguf.bytes_opt(&keys.key("attention.sliding_window_pattern"));
    let base = keys.float_opt("rope.freq_base_swa").unwrap_or(ROPE_BASE);
    let dimensions = spec.ropes[0].dimensions;
    spec.ropes.push(RopeSpec { dimensions, base, scaling: Scaling::None });
    for (at, layer) in spec.layers.iter_mut().enumerate() {
        let local = match listed.and_then(|listed| listed.get(at)) {
            Some(local) => *local != 0,
            None => !(at + 1).is_multiple_of(pattern),
        };
        match local {
            true => layer.rope = 1,
            false => layer.window = None,
        }
    }
}

fn rope(keys: &Keys<'_>, head_width: usize, weights: &Weights) -> Result<RopeSpec> {
    let dimensions = keys.size_opt("rope.dimension_count").unwrap_or(head_width);
    let base = keys.float_opt("rope.freq_base").unwrap_or(ROPE_BASE);
    Ok(RopeSpec { dimensions, base, scaling: scaling(keys, weights)? })
}

fn scaling(keys: &Keys<'_>, weights: &Weights) -> Result<Scaling> {
    if let Some(all) = weights.vector_opt("rope_freqs.weight")? {
        return Ok(Scaling::Divisors(all));
    }
    let original = keys.size_opt("rope.scaling.original_context_length");
    let context = keys.size("context_length")?;
    let magnitude = keys.float_opt("rope.scaling.attn_factor").filter(|factor| *factor != 0.0);
    let short = weights.vector_opt("rope_factors_short.weight")?;
    if let (Some(short), Some(long)) = (short, weights.vector_opt("rope_factors_long.weight")?) {
        let original = original.unwrap_or(context);
        let rule = || long_magnitude(context as f64 / original.max(1) as f64, original);
        let magnitude = magnitude.unwrap_or_else(rule);
        return Ok(Scaling::Long { short, long, original, magnitude });
    }
    let factor = keys.float_opt("rope.scaling.factor").filter(|factor| *factor != 0.0);
    let factor = factor.or_else(|| keys.float_opt("rope.scale_linear"));
    let kind = keys.gguf.text_opt(&keys.key("rope.scaling.type"));
    match (kind, factor) {
        (Some("none"), _) | (_, None) => Ok(Scaling::None),
        (None | Some("linear"), Some(factor)) => Ok(Scaling::Linear(factor)),
        (Some("yarn"), Some(factor)) => Ok(Scaling::Yarn {
            factor,
            fast: keys.float_opt("rope.scaling.yarn_beta_fast").unwrap_or(32.0),
            slow: keys.float_opt("rope.scaling.yarn_beta_slow").unwrap_or(1.0),
            original: original.unwrap_or(context),
            // llama.cpp multiplies the file's number with the paper's.
            magnitude: magnitude.map(|by| by * (0.1 * factor.max(1.0).ln() + 1.0)),
        }),
        (Some(other), Some(_)) => Err(keys.gguf.error(format_args!(
            "the rotation's scaling '{}' is unknown; known: none, linear, yarn, and longrope by \
             its two tensors; take another model",
            super::shown(other)
        ))),
    }
}
