//! The forward pass: tokens of several sequences through all layers, keys and values in blocks, by
//! the kernels. One pass for all architectures; what differs is in the description. Decides nothing
//! about blocks and samples nothing. Allocates a list of spans a step, once its buffers have grown.

use super::build::{Layer, Parts};
use super::rope::Rope;
use super::spec::{Activation, Spec};
use crate::engine::decoder::{Budget, Chunk, Decoder, Logits};
use crate::error::{Error, Kind, Result};
use crate::limits::KV_BLOCK_TOKENS;
use rbees_kernel::{
    Activation as Gate, Attention, Floats, Input, Kernel, KvKind, KvPool, Matrix, Norm, Product,
    Rope as Angles, RopeStyle, Span, soft_cap,
};

/// A model in memory.
pub struct Transformer {
    spec: Spec,
    parts: Parts,
    ropes: Vec<Rope>,
    kernel: Kernel,
    pool: KvPool,
    context_length: usize,
    sequences: usize,
    weight_bytes: u64,
    /// By block: whether it was ever written, so that the system has given memory for it.
    written: Vec<bool>,
    buffers: Buffers,
}

/// What a step writes to; a row for each token of it.
#[derive(Default)]
struct Buffers {
    /// The stream between the layers.
    x: Floats,
    /// What attention or feed-forward gives back, where it is normed before it is added.
    y: Floats,
    query: Floats,
    key: Floats,
    value: Floats,
    attended: Floats,
    gated: Floats,
    /// Numbers in all of these when they were longest; they never give memory back.
    most: usize,
    /// Cosines and sines of each rotation.
    turns: Vec<(Vec<f32>, Vec<f32>)>,
}

/// How the keys and values are to be kept, and by how many threads the work is done.
#[derive(Clone, Copy)]
pub(crate) struct Means {
    pub(crate) kv: KvKind,
    pub(crate) threads: usize,
    pub(crate) budget: Budget,
}

impl Transformer {
    /// Puts the weights together with memory for keys and values.
    ///
    /// # Errors
    /// [`Kind::OutOfMemory`] where `means` leaves no room for one block.
    pub(super) fn new(spec: Spec, parts: Parts, means: Means) -> Result<Transformer> {
        let (layers, kv_heads, width) = (spec.layers.len(), spec.kv_heads, spec.head_width);
        let pool = |blocks| KvPool::new(means.kv, layers, kv_heads, width, KV_BLOCK_TOKENS, blocks);
        let block_bytes = pool(1)?.block_bytes() as u64;
        let budget = means.budget;
        let room = usize::try_from(budget.kv_bytes / block_bytes.max(1)).unwrap_or(usize::MAX);
        let of_one = spec.context_length.div_ceil(KV_BLOCK_TOKENS);
        // What all sequences can fill at their longest, and one more for a copy of a shared block.
        let blocks = room.min(of_one.saturating_mul(budget.sequences.max(1)).saturating_add(1));
        if blocks == 0 {
            let text = format!(
                "expected room for keys and values of at least {KV_BLOCK_TOKENS} tokens, \
                 {block_bytes} bytes, found {}; allow more",
                budget.kv_bytes
            );
            return Err(Error::new(Kind::OutOfMemory, text));
        }
        let context_length = spec.context_length.min(blocks * KV_BLOCK_TOKENS);
        let ropes: Vec<Rope> = spec.ropes.iter().map(|rope| rope.table(context_length)).collect();
        let turns = ropes.iter().map(|_| Default::default()).collect();
        Ok(Transformer {
            weight_bytes: parts.bytes(),
            written: vec![false; blocks],
            pool: pool(blocks)?,
            kernel: Kernel::new(means.threads),
            buffers: Buffers { turns, ..Buffers::default() },
            sequences: budget.sequences.max(1),
            context_length,
            ropes,
            parts,
            spec,
        })
    }

    /// That every chunk lies within the model's bounds.
    fn check(&self, chunks: &[Chunk<'_>]) -> Result<()> {
        let wrong = |what: String| Err(Error::new(Kind::Internal, format!("a step {what}")));
        if chunks.len() > self.sequences {
            return wrong(format!("has {} sequences of {}", chunks.len(), self.sequences));
        }
        for chunk in chunks {
            let end = chunk.position.saturating_add(chunk.tokens.len());
            if chunk.tokens.is_empty() || end > self.context_length {
                return wrong(format!("reaches token {end} of {}", self.context_length));
            }
            if let Some(token) = chunk.tokens.iter().find(|t| **t as usize >= self.spec.vocabulary)
            {
                return wrong(format!("has token {token} of {}", self.spec.vocabulary));
            }
            let blocks = self.pool.blocks();
            let short = chunk.blocks.len() * KV_BLOCK_TOKENS < end;
            if short || chunk.blocks.iter().any(|block| *block as usize >= blocks) {
                return wrong(format!("names blocks that are none of {blocks} or too few"));
            }
        }
        Ok(())
    }

    /// Writes the embedding of every token, and the angles of its place.
    fn begin(&mut self, chunks: &[Chunk<'_>], rows: usize) {
        let Transformer { spec, parts, ropes, buffers, .. } = self;
        buffers.resize(spec, rows);
        let tokens = chunks.iter().flat_map(|chunk| chunk.tokens);
        for (row, token) in buffers.x.chunks_exact_mut(spec.width).zip(tokens) {
            parts.embedding.row(*token as usize, row);
            if spec.embedding_scale != 1.0 {
                row.iter_mut().for_each(|number| *number *= spec.embedding_scale);
            }
        }
        for (rope, (cos, sin)) in ropes.iter().zip(&mut buffers.turns) {
            let Rope { angles, magnitude } = rope;
            cos.clear();
            sin.clear();
            let places = chunks.iter().flat_map(|c| c.position..c.position + c.tokens.len());
            for place in places {
                for angle in angles {
                    let (s, c) = (place as f32 * angle).sin_cos();
                    cos.push(c * magnitude);
                    sin.push(s * magnitude);
                }
            }
        }
    }

    /// A layer up to what its attention finds.
    fn attend(&mut self, at: usize, spans: &[Span<'_>]) {
        let Transformer { spec, parts, ropes, kernel, pool, buffers, .. } = self;
        let layer = &parts.layers[at];
        let Buffers { x, query, key, value, attended, turns, .. } = buffers;
        let input = Input { x, norm: Some(normed(spec, &layer.attention_norm)) };
        kernel.products(
            input,
            &mut [
                product(&layer.query, query, false),
                product(&layer.key, key, false),
                product(&layer.value, value, false),
            ],
        );
        let (cos, sin) = &turns[layer.spec.rope];
        let style = match spec.paired_rows {
            true => RopeStyle::Interleaved,
            false => RopeStyle::Halves,
        };
        let pairs = ropes[layer.spec.rope].angles.len();
        kernel.attention(Attention {
            layer: at,
            heads: spec.heads,
            q: query,
            k: key,
            v: value,
            q_norm: layer.head_norms.as_ref().map(|norms| normed(spec, &norms.0)),
            k_norm: layer.head_norms.as_ref().map(|norms| normed(spec, &norms.1)),
            rope: Some(Angles { cos, sin, pairs, style }),
            scale: spec.attention_scale,
            window: layer.spec.window,
            soft_cap: None,
            pool,
            spans,
            y: attended,
        });
    }

    /// The rest of a layer, for the first rows of the buffer.
    fn feed_forward(&mut self, at: usize, rows: usize) {
        let Transformer { spec, parts, kernel, buffers, .. } = self;
        let layer = &parts.layers[at];
        let x = &mut buffers.x[..rows * spec.width];
        let post = if spec.post_norms { rows * spec.width } else { 0 };
        let y = &mut buffers.y[..post];
        let attended = &buffers.attended[..rows * spec.query_width()];
        let gated = &mut buffers.gated[..rows * spec.feed_forward];
        let post = layer.post_norms.as_ref().map(|norms| normed(spec, &norms.0));
        add(kernel, Input { x: attended, norm: None }, &layer.out, post, y, x);
        let activation = match spec.activation {
            Activation::Silu => Gate::Silu,
            Activation::GeluTanh => Gate::GeluTanh,
        };
        let input = Input { x, norm: Some(normed(spec, &layer.feed_forward_norm)) };
        kernel.gated(input, &layer.gate, &layer.up, activation, gated);
        let post = layer.post_norms.as_ref().map(|norms| normed(spec, &norms.1));
        add(kernel, Input { x: gated, norm: None }, &layer.down, post, y, x);
    }

    /// Leads the tokens of all chunks through the layers. What comes out stays in the buffer: of
    /// `every` token, or of the last one of each chunk that wants logits; how many these are.
    pub(super) fn pass(&mut self, chunks: &[Chunk<'_>], every: bool) -> Result<usize> {
        self.check(chunks)?;
        let spans: Vec<Span<'_>> = chunks
            .iter()
            .map(|chunk| Span {
                position: chunk.position,
                rows: chunk.tokens.len(),
                blocks: chunk.blocks,
            })
            .collect();
        let mut rows = chunks.iter().map(|chunk| chunk.tokens.len()).sum();
        self.begin(chunks, rows);
        for layer in 0..self.spec.layers.len() {
            self.attend(layer, &spans);
            if !every && layer + 1 == self.spec.layers.len() {
                rows = self.gather(chunks);
            }
            if rows > 0 {
                self.feed_forward(layer, rows);
            }
        }
        Ok(rows)
    }

    /// Moves the last row of each chunk that wants logits to the front; how many there are.
    fn gather(&mut self, chunks: &[Chunk<'_>]) -> usize {
        let (mut wanted, mut end) = (0, 0);
        for chunk in chunks {
            end += chunk.tokens.len();
            if chunk.logits {
                let Buffers { x, attended, .. } = &mut self.buffers;
                for (rows, width) in [(x, self.spec.width), (attended, self.spec.query_width())] {
                    rows.copy_within((end - 1) * width..end * width, wanted * width);
                }
                wanted += 1;
            }
        }
        wanted
    }

    /// The logits of the first rows of the buffer.
    pub(super) fn head(&mut self, rows: usize, logits: &mut Logits) {
        let Transformer { spec, parts, kernel, buffers, .. } = self;
        logits.clear(spec.vocabulary);
        if rows == 0 {
            return;
        }
        let y = logits.push_rows(rows);
        let norm = Some(normed(spec, &parts.output_norm));
        let input = Input { x: &buffers.x[..rows * spec.width], norm };
        let matrix = parts.head.as_ref().unwrap_or(&parts.embedding);
        kernel.products(input, &mut [Product { matrix, bias: None, y: &mut *y, add: false }]);
        if let Some(cap) = spec.logit_cap {
            soft_cap(y, cap);
        }
    }
}

fn normed<'a>(spec: &Spec, weight: &'a [f32]) -> Norm<'a> {
    Norm { weight, epsilon: spec.norm_epsilon }
}

fn product<'a>(linear: &'a super::build::Linear, y: &'a mut [f32], add: bool) -> Product<'a> {
    Product { matrix: &linear.matrix, bias: linear.bias.as_deref(), y, add }
}

/// Adds the product to the stream `x`, through a norm by way of `y` where there is one.
fn add(
    kernel: &mut Kernel,
    input: Input<'_>,
    linear: &super::build::Linear,
    post: Option<Norm<'_>>,
    y: &mut [f32],
    x: &mut [f32],
) {
    match post {
        None => kernel.products(input, &mut [product(linear, x, true)]),
        Some(norm) => {
            kernel.products(input, &mut [product(linear, y, false)]);
            kernel.norm(y, norm, x, true);
        }
    }
}

impl Buffers {
    fn resize(&mut self, spec: &Spec, rows: usize) {
        let mut numbers = 0;
        let post = if spec.post_norms { spec.width } else { 0 };
        for (buffer, width) in [
            (&mut self.x, spec.width),
            (&mut self.y, post),
            (&mut self.query, spec.query_width()),
            (&mut self.key, spec.kv_width()),
            (&mut self.value, spec.kv_width()),
            (&mut self.attended, spec.query_width()),
            (&mut self.gated, spec.feed_forward),
        ] {
            buffer.resize(rows * width);
            numbers += rows * width;
        }
        self.most = self.most.max(numbers);
    }

    /// Memory that they hold, bytes.
    fn bytes(&self) -> u64 {
        let turns = self.turns.iter().map(|(cos, sin)| cos.capacity() + sin.capacity());
        ((self.most + turns.sum::<usize>()) * size_of::<f32>()) as u64
    }
}

impl Parts {
    /// Memory of all weights.
    pub(super) fn bytes(&self) -> u64 {
        let floats = |vector: &[f32]| size_of_val(vector) as u64;
        let layer = |layer: &Layer| -> u64 {
            let linear = [&layer.query, &layer.key, &layer.value, &layer.out, &layer.down];
            let linear = linear
                .iter()
                .map(|linear| linear.matrix.bytes() + linear.bias.as_deref().map_or(0, floats));
            let pairs = [&layer.head_norms, &layer.post_norms];
            let pairs = pairs.iter().filter_map(|pair| pair.as_ref());
            let pairs = pairs.map(|(a, b)| floats(a) + floats(b));
            let norms = floats(&layer.attention_norm) + floats(&layer.feed_forward_norm);
            linear.chain(pairs).sum::<u64>() + norms + layer.gate.bytes() + layer.up.bytes()
        };
        self.embedding.bytes()
            + self.head.as_ref().map_or(0, Matrix::bytes)
            + floats(&self.output_norm)
            + self.layers.iter().map(layer).sum::<u64>()
    }
}

impl Decoder for Transformer {
    fn context_length(&self) -> usize {
        self.context_length
    }

    fn vocabulary(&self) -> usize {
        self.spec.vocabulary
    }

    fn block_tokens(&self) -> usize {
        KV_BLOCK_TOKENS
    }

    fn blocks(&self) -> usize {
        self.pool.blocks()
    }

    fn sequences(&self) -> usize {
        self.sequences
    }

    fn resident_bytes(&self) -> u64 {
        let written = self.written.iter().filter(|written| **written).count();
        self.weight_bytes + (self.pool.block_bytes() * written) as u64 + self.buffers.bytes()
    }

    fn step(&mut self, chunks: &[Chunk<'_>], logits: &mut Logits) -> Result<()> {
        let rows = self.pass(chunks, false)?;
        self.head(rows, logits);
        for chunk in chunks {
            let end = chunk.position + chunk.tokens.len();
            let blocks = chunk.position / KV_BLOCK_TOKENS..end.div_ceil(KV_BLOCK_TOKENS);
            chunk.blocks[blocks].iter().for_each(|block| self.written[*block as usize] = true);
        }
        Ok(())
    }

    fn copy_block(&mut self, from: u32, to: u32) -> Result<()> {
        let blocks = self.pool.blocks();
        if from as usize >= blocks || to as usize >= blocks {
            let text = format!("block {from} can't be copied to {to}: there are {blocks}");
            return Err(Error::new(Kind::Internal, text));
        }
        self.pool.copy(from, to);
        self.written[to as usize] = true;
        Ok(())
    }
}
