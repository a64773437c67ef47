//! The architectures that candle computes out of a GGUF file, one row each. Its loader reads through the
//! handle whose header our own reader has checked, after all weights were found to be numbers.

use std::fs::File;

use candle_core::quantized::gguf_file::Content;
use candle_core::{Device, Result};
use candle_transformers::models::{quantized_llama, quantized_phi, quantized_qwen3};

use super::super::weights::{Weights, finite};
use super::description::{Description, Row};
use super::folders::unmade;
use super::{Build, Fresh, step};
use crate::engine::gguf::{DType, Gguf, shown};
use crate::error::{Error, Kind};
use crate::limits::LOAD_SLAB_BYTES;

const PLAIN: Row = Row {
    name: "",
    build: Build::Gguf(phi2),
    defaults: &[],
    fixed: &[],
    wide_heads: false,
    full_precision: false,
    context_max: usize::MAX,
};

/// Each architecture; those that the engine computes itself are for other devices.
pub(super) const ROWS: &[Row] = &[
    Row {
        name: "phi2",
        build: Build::Gguf(phi2),
        context_max: quantized_phi::MAX_SEQ_LEN,
        ..PLAIN
    },
    Row {
        name: "llama",
        build: Build::Gguf(llama),
        context_max: quantized_llama::MAX_SEQ_LEN,
        ..PLAIN
    },
    Row { name: "qwen3", build: Build::Gguf(qwen3), wide_heads: true, ..PLAIN },
];

/// The parts of a layer that each architecture computes with.
const PARTS: [(&str, &[&str]); 3] = [
    ("phi2", &["attn_norm", "attn_qkv", "attn_output", "ffn_up", "ffn_down"]),
    ("llama", &LLAMA),
    (
        "qwen3",
        &[
            "attn_norm",
            "attn_q",
            "attn_k",
            "attn_v",
            "attn_output",
            "ffn_norm",
            "ffn_gate",
            "ffn_up",
            "ffn_down",
            "attn_q_norm",
            "attn_k_norm",
        ],
    ),
];

const LLAMA: [&str; 9] = [
    "attn_norm",
    "attn_q",
    "attn_k",
    "attn_v",
    "attn_output",
    "ffn_norm",
    "ffn_gate",
    "ffn_up",
    "ffn_down",
];

/// That the file asks for nothing that candle's model leaves out.
///
/// # Errors
/// A text that says what.
pub(in super::super) fn check(row: &Row, gguf: &Gguf) -> std::result::Result<(), String> {
    let parts = PARTS.iter().find(|known| known.0 == row.name).map_or(&[][..], |known| known.1);
    let biases: &[&str] = match row.name {
        "phi2" => parts,
        _ => &[],
    };
    for tensor in gguf.tensors() {
        let mut words = tensor.name.split('.');
        let known = match (words.next(), words.next(), words.next(), words.next()) {
            (Some("blk"), Some(_), Some(part), Some("weight")) => parts.contains(&part),
            (Some("blk"), Some(_), Some(part), Some("bias")) => biases.contains(&part),
            (Some("token_embd" | "output" | "output_norm"), Some("weight"), None, _) => true,
            (Some("output" | "output_norm"), Some("bias"), None, _) => row.name == "phi2",
            _ => false,
        };
        if !known {
            let name = shown(&tensor.name);
            return Err(format!("tensor '{name}' has no part in the decoder of {}", row.name));
        }
    }
    let base = gguf.float_opt(&format!("{}.rope.freq_base", row.name)).unwrap_or(1e4);
    if row.name == "phi2" && base != 1e4 {
        return Err(format!("the decoder of phi2 does not honour the rotation's base {base}"));
    }
    Ok(())
}

/// Looks at all weights, then lets candle read them.
pub(super) fn load(
    build: fn(Content, &mut File, &Device) -> Result<Fresh>,
    description: &Description,
    weights: &Weights,
    device: &Device,
    progress: &mut dyn FnMut(u64),
) -> crate::error::Result<(Fresh, u64)> {
    let (mut slab, mut done, mut bytes) = (Vec::new(), 0, 0);
    for info in weights.infos() {
        let block = info.dtype.block_bytes();
        let (mut at, step) = (0, (LOAD_SLAB_BYTES / block).max(1) * block);
        while at < info.bytes {
            let length = step.min(info.bytes - at);
            weights.read(info, at, length, &mut slab)?;
            if !finite(info.dtype, &slab) {
                let name = shown(&info.name);
                let text = format!("tensor '{name}' holds numbers that are none, or infinite");
                return Err(Error::new(Kind::Model, text + "; fetch or convert the model again"));
            }
            at += length;
            done += length;
            progress(done);
        }
        // Floats are widened, and so is the table of embeddings.
        let wide = matches!(info.dtype, DType::F32 | DType::F16 | DType::BF16);
        bytes += if wide { info.elements() * 4 } else { info.bytes };
        bytes += if info.name == "token_embd.weight" { info.elements() * 4 } else { 0 };
    }
    let mut file = weights.file()?;
    let content = Content::read(&mut file).map_err(|error| unmade(&error))?;
    let name = description.row().name;
    tracing::debug!(architecture = name, "candle reads the weights");
    let fresh = build(content, &mut file, device).map_err(|error| unmade(&error))?;
    Ok((fresh, bytes))
}

fn phi2(content: Content, file: &mut File, device: &Device) -> Result<Fresh> {
    let whole = quantized_phi::ModelWeights::from_gguf(content, file, device)?;
    Ok(Box::new(move || {
        let mut model = whole.clone();
        step(move |tokens, at| model.forward(tokens, at))
    }))
}

fn llama(content: Content, file: &mut File, device: &Device) -> Result<Fresh> {
    let whole = quantized_llama::ModelWeights::from_gguf(content, file, device)?;
    Ok(Box::new(move || {
        let mut model = whole.clone();
        step(move |tokens, at| model.forward(tokens, at))
    }))
}

fn qwen3(content: Content, file: &mut File, device: &Device) -> Result<Fresh> {
    let whole = quantized_qwen3::ModelWeights::from_gguf(content, file, device)?;
    Ok(Box::new(move || {
        let mut model = whole.clone();
        step(move |tokens, at| model.forward(tokens, at))
    }))
}
