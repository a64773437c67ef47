//! What the scheduler asks of a model: logits for tokens, from keys and values kept in blocks. The
//! one place where a faster decoder, or another architecture, comes in. Knows no text, no sampling,
//! and not whose a block is.

use crate::error::Result;

/// Tokens of one sequence that come next in it.
pub struct Chunk<'a> {
    /// The sequence's blocks, in order: token `n` of it lies in block `blocks[n / block_tokens]`.
    /// There are enough for `position + tokens.len()`; what lies before `position` was written by
    /// earlier steps, perhaps of another sequence that begins alike. No other chunk of the step
    /// writes to a block that this one names.
    pub blocks: &'a [u32],
    /// Index in the sequence of the first of these tokens.
    pub position: usize,
    /// The tokens, at least one.
    pub tokens: &'a [u32],
    /// Whether the logits after the last of them are wanted.
    pub logits: bool,
}

/// What a decoder may take for its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Chunks that one step has at most.
    pub sequences: usize,
    /// Memory for keys and values, bytes.
    pub kv_bytes: u64,
}

/// A model that continues several sequences at once. It stores keys and values where it is told to
/// and decides nothing: who owns which block, and when, is the scheduler's.
///
/// What it computes for a chunk depends on that chunk alone, to the last bit: neither the other
/// chunks of a step nor the numbers of the blocks may change a logit.
pub trait Decoder: Send {
    /// Longest sequence, tokens.
    fn context_length(&self) -> usize;

    /// Tokens in the vocabulary: the width of a row of logits.
    fn vocabulary(&self) -> usize;

    /// Tokens that one block holds.
    fn block_tokens(&self) -> usize;

    /// Blocks that there are, numbered from 0.
    fn blocks(&self) -> usize;

    /// Whether blocks may be copied, and belong to several sequences that begin alike.
    fn shares_blocks(&self) -> bool {
        true
    }

    /// Chunks that one step takes.
    fn sequences(&self) -> usize;

    /// Memory that is really taken on the device, bytes: weights, blocks that were ever written,
    /// and what the steps work on.
    fn resident_bytes(&self) -> u64;

    /// One step. Fills `logits` with a row for each chunk that wants one, in order.
    ///
    /// # Errors
    /// [`crate::error::Kind::OutOfMemory`] or [`crate::error::Kind::Inference`]; what the step's
    /// chunks had written then counts as lost, other blocks stay as they were.
    fn step(&mut self, chunks: &[Chunk<'_>], logits: &mut Logits) -> Result<()>;

    /// Makes block `to` hold what block `from` holds.
    ///
    /// # Errors
    /// As [`Decoder::step`].
    fn copy_block(&mut self, from: u32, to: u32) -> Result<()>;
}

/// Rows of logits, in a buffer that is kept from step to step.
#[derive(Default)]
pub struct Logits {
    values: Vec<f32>,
    vocabulary: usize,
}

impl Logits {
    /// No rows; whatever the buffer held is gone.
    pub fn clear(&mut self, vocabulary: usize) {
        self.values.clear();
        self.vocabulary = vocabulary;
    }

    /// A further row, all zero, for a decoder to write to.
    pub fn push(&mut self) -> &mut [f32] {
        let begin = self.values.len();
        self.values.resize(begin + self.vocabulary, 0.0);
        &mut self.values[begin..]
    }

    /// Further rows, all zero, as one slice: for a decoder that writes them in one go.
    pub fn push_rows(&mut self, rows: usize) -> &mut [f32] {
        let begin = self.values.len();
        self.values.resize(begin + rows * self.vocabulary, 0.0);
        &mut self.values[begin..]
    }

    /// The rows, in order; empty where a row has no width.
    pub fn rows_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.values.chunks_exact_mut(self.vocabulary.max(1))
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.values.len() / self.vocabulary.max(1)
    }

    /// Row `at`; panics beyond the last.
    pub fn row(&self, at: usize) -> &[f32] {
        &self.values[at * self.vocabulary..(at + 1) * self.vocabulary]
    }
}
