//! Decoders of `candle-transformers`: architectures that the engine does not compute itself, and all of
//! them on a graphics card. One sequence at a time, each with a cache of its own; nothing is shared
//! between sequences. What candle's model would compute otherwise than its makers do is refused.

mod description;
mod folders;
mod quantized;
mod tensors;
#[cfg(test)]
mod tests;

pub(crate) use description::Description;
pub(super) use description::{Row, names, row};
pub(super) use quantized::check;

use std::fs::File;

use candle_core::quantized::gguf_file::Content;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;

use super::weights::Weights;
use crate::engine::decoder::{Budget, Chunk, Decoder, Logits};
use crate::error::{Error, Kind, Result};

/// A model with the keys and values of one sequence: tokens (1 × n) and where they begin in it, to the
/// logits after the last of them.
type Step = Box<dyn FnMut(&Tensor, usize) -> candle_core::Result<Tensor> + Send>;

/// Makes a model without keys and values; all of them share their weights.
type Fresh = Box<dyn Fn() -> candle_core::Result<Step> + Send>;

/// A model's function as a [`Step`].
fn step(
    forward: impl FnMut(&Tensor, usize) -> candle_core::Result<Tensor> + Send + 'static,
) -> candle_core::Result<Step> {
    Ok(Box::new(forward))
}

/// How a model is made out of its file.
#[derive(Clone, Copy)]
enum Build {
    /// Of `config.json` and safetensors.
    Folder(fn(&serde_json::Value, VarBuilder<'static>) -> candle_core::Result<Step>),
    /// Of a GGUF file.
    Gguf(fn(Content, &mut File, &Device) -> candle_core::Result<Fresh>),
}

/// A model of candle's in memory.
pub(super) struct Stock {
    fresh: Fresh,
    device: Device,
    slots: Vec<Option<Slot>>,
    context_length: usize,
    vocabulary: usize,
    weight_bytes: u64,
    kv_token_bytes: u64,
}

/// A sequence.
struct Slot {
    step: Step,
    /// Tokens whose keys and values it has.
    length: usize,
    /// What it was given last, and what came out: a step that failed for another sequence's sake is
    /// asked for again.
    last: Vec<u32>,
    logits: Vec<f32>,
}

/// What there is room for: sequences, and the tokens of each. Rather few of full length than many
/// short ones.
fn room(context: usize, kv_token_bytes: u64, budget: Budget) -> Result<(usize, usize)> {
    let tokens = budget.kv_bytes / kv_token_bytes.max(1);
    let tokens = usize::try_from(tokens).unwrap_or(usize::MAX);
    let sequences = (tokens / context.max(1)).clamp(1, budget.sequences.max(1));
    match context.min(tokens / sequences) {
        0 => Err(Error::new(
            Kind::OutOfMemory,
            format!(
                "expected room for keys and values of at least one token, {kv_token_bytes} bytes, \
                 found {}; allow more",
                budget.kv_bytes
            ),
        )),
        context => Ok((sequences, context)),
    }
}

fn failed(error: &candle_core::Error) -> Error {
    let text = error.to_string();
    let line = super::shown(text.lines().next().unwrap_or_default());
    let kind = match text.to_lowercase().contains("out of memory") {
        true => Kind::OutOfMemory,
        false => Kind::Inference,
    };
    Error::new(kind, format!("the step failed on the device: {line}"))
}

impl Stock {
    /// Reads the weights onto `device`; `progress` hears how many bytes have been read.
    ///
    /// # Errors
    /// [`Kind::Model`] for weights that are missing, of another shape, no numbers, or without a part
    /// in the computation; [`Kind::OutOfMemory`].
    pub(super) fn new(
        description: &Description,
        weights: &Weights,
        device: &Device,
        budget: Budget,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Stock> {
        let dtype = description.dtype(weights, device);
        let kv_token_bytes = (description.sizes.kv_numbers() * dtype.size_in_bytes()) as u64;
        let (sequences, context_length) =
            room(description.sizes.context_length, kv_token_bytes, budget)?;
        let (fresh, weight_bytes) = match description.build() {
            Build::Folder(build) => {
                let settings = description.settings(context_length);
                folders::load(build, settings, weights, dtype, device, progress)?
            }
            Build::Gguf(build) => quantized::load(build, description, weights, device, progress)?,
        };
        Ok(Stock {
            fresh,
            device: device.clone(),
            slots: (0..sequences).map(|_| None).collect(),
            context_length,
            vocabulary: description.sizes.vocabulary,
            weight_bytes,
            kv_token_bytes,
        })
    }

    /// The slot of a chunk, taken out: what fails or panics in the middle does not come back.
    fn take(&mut self, chunk: &Chunk<'_>) -> Result<(usize, Slot)> {
        let wrong = |what: String| Err(Error::new(Kind::Internal, format!("a step {what}")));
        let end = chunk.position.saturating_add(chunk.tokens.len());
        if chunk.tokens.is_empty() || end > self.context_length {
            return wrong(format!("reaches token {end} of {}", self.context_length));
        }
        if let Some(token) = chunk.tokens.iter().find(|t| **t as usize >= self.vocabulary) {
            return wrong(format!("has token {token} of {}", self.vocabulary));
        }
        let at = match chunk.blocks {
            [block] if (*block as usize) < self.slots.len() => *block as usize,
            _ => return wrong(format!("names blocks that are not one of {}", self.slots.len())),
        };
        let follows = |slot: &mut Slot| slot.length == chunk.position || slot.repeats(chunk);
        match self.slots[at].take_if(follows) {
            Some(slot) => Ok((at, slot)),
            None if chunk.position == 0 => {
                let step = (self.fresh)().map_err(|error| failed(&error))?;
                Ok((at, Slot { step, length: 0, last: Vec::new(), logits: Vec::new() }))
            }
            None => wrong(format!("begins at token {}, whose past is gone", chunk.position)),
        }
    }
}

impl Slot {
    /// Whether it has done just this.
    fn repeats(&self, chunk: &Chunk<'_>) -> bool {
        self.length == chunk.position + chunk.tokens.len() && self.last == chunk.tokens
    }

    fn advance(&mut self, chunk: &Chunk<'_>, device: &Device) -> candle_core::Result<()> {
        let tokens = Tensor::new(chunk.tokens, device)?.unsqueeze(0)?;
        let logits = (self.step)(&tokens, chunk.position)?;
        self.logits = logits.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?;
        self.length = chunk.position + chunk.tokens.len();
        self.last = chunk.tokens.to_vec();
        Ok(())
    }
}

impl Decoder for Stock {
    fn context_length(&self) -> usize {
        self.context_length
    }

    fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// A block is a whole sequence: the cache is candle's own, and in one piece.
    fn block_tokens(&self) -> usize {
        self.context_length
    }

    fn blocks(&self) -> usize {
        self.slots.len()
    }

    fn shares_blocks(&self) -> bool {
        false
    }

    fn sequences(&self) -> usize {
        self.slots.len()
    }

    fn resident_bytes(&self) -> u64 {
        let tokens: usize = self.slots.iter().flatten().map(|slot| slot.length).sum();
        self.weight_bytes + tokens as u64 * self.kv_token_bytes
    }

    fn step(&mut self, chunks: &[Chunk<'_>], logits: &mut Logits) -> Result<()> {
        logits.clear(self.vocabulary);
        for chunk in chunks {
            let (at, mut slot) = self.take(chunk)?;
            if !slot.repeats(chunk) {
                slot.advance(chunk, &self.device).map_err(|error| failed(&error))?;
            }
            if slot.logits.len() != self.vocabulary {
                let (found, expected) = (slot.logits.len(), self.vocabulary);
                let text = format!("expected {expected} logits, found {found}");
                return Err(Error::new(Kind::Internal, text));
            }
            if chunk.logits {
                logits.push().copy_from_slice(&slot.logits);
            }
            self.slots[at] = Some(slot);
        }
        Ok(())
    }

    fn copy_block(&mut self, _: u32, _: u32) -> Result<()> {
        let text = "a sequence of this decoder can't be copied; please report this";
        Err(Error::new(Kind::Internal, text))
    }
}
