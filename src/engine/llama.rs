//! candle-transformers' quantized llama behind the decoder's trait: right, and one sequence at a time.
//! Holds no kernels of its own.

use candle_core::quantized::gguf_file::Content;
use candle_core::{Device, Tensor};
use candle_transformers::models::quantized_llama::{MAX_SEQ_LEN, ModelWeights};

use super::decoder::{Budget, Chunk, Decoder, Logits};
use super::gguf::Gguf;
use crate::error::{Error, Kind, Result};

/// A llama of one sequence.
pub struct Llama {
    weights: ModelWeights,
    device: Device,
    context_length: usize,
    /// Tokens that there is memory for.
    block_tokens: usize,
    vocabulary: usize,
    weight_bytes: u64,
    /// Bytes that one token takes in the KV cache.
    token_bytes: u64,
    cached: usize,
}

impl Llama {
    /// Loads the weights through `reader`, after `gguf` was found to be sound.
    pub fn load<R: std::io::Read + std::io::Seek>(
        gguf: &Gguf,
        reader: &mut R,
        device: &Device,
        budget: Budget,
    ) -> Result<Self> {
        let damaged = |e: candle_core::Error| {
            gguf.error("its weights do not make a llama; check the file's origin").because(e)
        };
        let content = Content::read(reader).map_err(damaged)?;
        let weights = ModelWeights::from_gguf(content, reader, device).map_err(damaged)?;
        let uint = |key: &str| gguf.uint(&format!("llama.{key}"));
        let heads = uint("attention.head_count")?.max(1);
        let width = uint("embedding_length")? / heads;
        let token_bytes = uint("block_count")? * uint("attention.head_count_kv")? * width * 2 * 4;
        let embedding = gguf.tensors().iter().find(|tensor| tensor.name == "token_embd.weight");
        let vocabulary = embedding.and_then(|tensor| tensor.shape.first()).copied().unwrap_or(0);
        let vocabulary = usize::try_from(vocabulary).unwrap_or(usize::MAX);
        let context = usize::try_from(uint("context_length")?).unwrap_or(usize::MAX);
        let context = context.min(MAX_SEQ_LEN);
        let room = usize::try_from(budget.kv_bytes / token_bytes.max(1)).unwrap_or(usize::MAX);
        Ok(Llama {
            weights,
            device: device.clone(),
            context_length: context,
            block_tokens: room.clamp(1, context.max(1)),
            vocabulary,
            weight_bytes: weight_bytes(gguf),
            token_bytes,
            cached: 0,
        })
    }
}

/// Weights as candle keeps them: the file's blocks, but embedding and norms as f32.
fn weight_bytes(gguf: &Gguf) -> u64 {
    let tensors = gguf.tensors();
    let tied = !tensors.iter().any(|tensor| tensor.name == "output.weight");
    tensors
        .iter()
        .map(|tensor| match tensor.name.as_str() {
            "token_embd.weight" if tied => tensor.elements() * 4 + tensor.bytes,
            "token_embd.weight" => tensor.elements() * 4,
            name if name.ends_with("norm.weight") => tensor.elements() * 4,
            _ => tensor.bytes,
        })
        .sum()
}

impl Decoder for Llama {
    fn context_length(&self) -> usize {
        self.context_length
    }

    fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// candle keeps the keys and values itself, of one sequence: all of it counts as one block.
    fn block_tokens(&self) -> usize {
        self.block_tokens
    }

    fn blocks(&self) -> usize {
        1
    }

    fn sequences(&self) -> usize {
        1
    }

    fn resident_bytes(&self) -> u64 {
        self.weight_bytes + self.cached as u64 * self.token_bytes
    }

    fn step(&mut self, chunks: &[Chunk<'_>], logits: &mut Logits) -> Result<()> {
        logits.clear(self.vocabulary);
        for chunk in chunks {
            let failed = |e: candle_core::Error| {
                Error::new(Kind::Inference, "the model's computation failed").because(e)
            };
            let row = self.forward(chunk).map_err(failed)?;
            self.cached = chunk.position + chunk.tokens.len();
            if chunk.logits {
                let place = logits.push();
                if row.len() != place.len() {
                    return Err(Error::new(
                        Kind::Inference,
                        format!("expected {} logits, found {}", place.len(), row.len()),
                    ));
                }
                place.copy_from_slice(&row);
            }
        }
        Ok(())
    }

    fn copy_block(&mut self, from: u32, to: u32) -> Result<()> {
        // There is only one.
        if (from, to) == (0, 0) {
            return Ok(());
        }
        Err(Error::new(Kind::Inference, format!("there is no block {}", from.max(to))))
    }
}

impl Llama {
    fn forward(&mut self, chunk: &Chunk<'_>) -> candle_core::Result<Vec<f32>> {
        let mut logits = Vec::new();
        // candle keeps a mask for every (tokens, length) that it meets, for ever: whole chunks at
        // multiples of their size and single tokens keep them few.
        let whole = chunk.tokens.len() == crate::limits::PREFILL_CHUNK_TOKENS;
        let size = if whole { chunk.tokens.len() } else { 1 };
        for (at, tokens) in chunk.tokens.chunks(size).enumerate() {
            let input = Tensor::new(tokens, &self.device)?.unsqueeze(0)?;
            // At position 0, candle forgets the sequence before.
            let output = self.weights.forward(&input, chunk.position + at * size)?;
            if chunk.logits && at * size + tokens.len() == chunk.tokens.len() {
                logits = output.squeeze(0)?.to_vec1::<f32>()?;
            }
        }
        Ok(logits)
    }
}
