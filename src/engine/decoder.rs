//! What the scheduler asks of a model: logits for tokens. The one place where a faster decoder, or
//! another architecture, comes in. Knows no text and no sampling.

use crate::error::Result;

/// Tokens of one sequence that come next in it.
pub struct Chunk<'a> {
    /// The sequence, from 0 to [`Decoder::slots`].
    pub slot: usize,
    /// Index in the sequence of the first of these tokens; 0 begins a new one.
    pub position: usize,
    /// The tokens.
    pub tokens: &'a [u32],
    /// Whether the logits after the last of them are wanted.
    pub logits: bool,
}

/// A model that continues several sequences at once.
pub trait Decoder: Send {
    /// Sequences that it holds at one time.
    fn slots(&self) -> usize;

    /// Longest sequence, tokens.
    fn context_length(&self) -> usize;

    /// Memory of weights and caches on the device, bytes.
    fn resident_bytes(&self) -> u64;

    /// One step: for each chunk that wants them the logits over the vocabulary, in order.
    fn step(&mut self, chunks: &[Chunk<'_>]) -> Result<Vec<Vec<f32>>>;

    /// The sequence in `slot` is over; its cache may go.
    fn release(&mut self, slot: usize);
}
