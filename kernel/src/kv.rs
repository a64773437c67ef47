//! The memory of keys and values: a pool of blocks of a fixed number of tokens. Who holds which block
//! is the scheduler's affair; here they are only stored and copied.

use super::layout::LINE;
use super::memory::Region;
use super::simd::{LANES, Simd};
use crate::error::{Error, Fault, Result};
use crate::limits::{HEAD_DIM_MAX, KV_BLOCK_TOKENS_MAX};

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvKind {
    /// As they are computed.
    F32,
    /// 16-bit floats.
    F16,
    /// 8-bit numbers, a scale per 32 values of a head.
    Q8,
}

/// Keys and values of all layers, in blocks of `block_tokens` tokens.
///
/// A block holds, for every layer and head, keys in chunks of 16 tokens, each dimensions × tokens (so
/// that 16 tokens meet one value of a query), and values as tokens × dimensions.
pub struct KvPool {
    kind: KvKind,
    layers: usize,
    heads: usize,
    dim: usize,
    block_tokens: usize,
    blocks: usize,
    /// Bytes of one head of one layer in one block: keys, values, scales.
    head_bytes: usize,
    bytes: Region,
}

/// Where a head's keys, values and their scales lie in a block.
#[derive(Clone, Copy)]
pub struct HeadAt {
    /// Chunks of 16 tokens, each dimensions × tokens.
    pub keys: *const u8,
    /// tokens × padded dimensions.
    pub values: *const u8,
    /// Scales of keys: parts of a head × tokens.
    pub key_scales: *const f32,
    /// Scales of values: parts of a head × tokens.
    pub value_scales: *const f32,
}

impl KvKind {
    /// Bytes of a value.
    pub const fn size(self) -> usize {
        match self {
            KvKind::F32 => 4,
            KvKind::F16 => 2,
            KvKind::Q8 => 1,
        }
    }
}

impl KvPool {
    /// A pool of `blocks` blocks. Its memory is the system's until a block is written.
    ///
    /// # Errors
    /// Sizes that the kernels don't have, or more memory than there is.
    pub fn new(
        kind: KvKind,
        layers: usize,
        kv_heads: usize,
        head_dim: usize,
        block_tokens: usize,
        blocks: usize,
    ) -> Result<Self> {
        let odd_tokens = block_tokens == 0
            || !block_tokens.is_multiple_of(LANES)
            || block_tokens > KV_BLOCK_TOKENS_MAX
            || !KV_BLOCK_TOKENS_MAX.is_multiple_of(block_tokens);
        if odd_tokens {
            return Err(Error::new(
                Fault::Setting,
                format!("KV blocks of {block_tokens} tokens; choose 16, 32, 64 or 128"),
            ));
        }
        if head_dim == 0 || !head_dim.is_multiple_of(8) || head_dim > HEAD_DIM_MAX {
            let most = HEAD_DIM_MAX;
            return Err(Error::new(
                Fault::Weights,
                format!("heads of {head_dim} values; expected a multiple of 8 up to {most}"),
            ));
        }
        let padded = head_dim.next_multiple_of(LANES);
        let scales = if kind == KvKind::Q8 { 2 * 4 * (padded / part(padded)) } else { 0 };
        let values = (head_dim + padded) * kind.size();
        let head_bytes = ((values + scales) * block_tokens).next_multiple_of(LINE);
        let bytes = [kv_heads, layers, blocks]
            .iter()
            .try_fold(head_bytes, |bytes, &by| bytes.checked_mul(by))
            .ok_or_else(|| Error::new(Fault::Memory, "a KV cache larger than memory can be"))?;
        let bytes = Region::new(bytes).ok_or_else(|| {
            let what = "bytes for the KV cache cannot be had; ask for fewer tokens";
            Error::new(Fault::Memory, format!("{bytes} {what}"))
        })?;
        Ok(KvPool {
            kind,
            layers,
            heads: kv_heads,
            dim: head_dim,
            block_tokens,
            blocks,
            head_bytes,
            bytes,
        })
    }

    /// Tokens in a block.
    pub fn block_tokens(&self) -> usize {
        self.block_tokens
    }

    /// Blocks in the pool.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Bytes of a block, all layers, keys and values.
    pub fn block_bytes(&self) -> usize {
        self.head_bytes * self.heads * self.layers
    }

    /// How keys and values are kept.
    pub fn kind(&self) -> KvKind {
        self.kind
    }

    /// Heads of keys and values.
    pub fn kv_heads(&self) -> usize {
        self.heads
    }

    /// Values of a head.
    pub fn head_dim(&self) -> usize {
        self.dim
    }

    /// Copies a whole block, all layers.
    ///
    /// # Panics
    /// Where there is no such block.
    pub fn copy(&mut self, from: u32, to: u32) {
        let bytes = self.block_bytes();
        let (from, to) = (from as usize * bytes, to as usize * bytes);
        self.bytes.whole().copy_within(from..from + bytes, to);
    }

    /// Values of a head, filled up to whole vectors.
    pub(super) fn padded_dim(&self) -> usize {
        self.dim.next_multiple_of(LANES)
    }

    /// Values that share a scale: whole vectors.
    pub(super) fn part(&self) -> usize {
        part(self.padded_dim())
    }

    /// Scales of a head.
    pub(super) fn parts(&self) -> usize {
        self.padded_dim() / self.part()
    }

    /// Where one head of one layer lies in a block.
    ///
    /// # Panics
    /// Where there is no such block, layer or head.
    #[inline(always)]
    pub(super) fn head(&self, block: u32, layer: usize, head: usize) -> HeadAt {
        let block = block as usize;
        assert!(block < self.blocks && layer < self.layers && head < self.heads, "in the pool");
        let at = ((block * self.layers + layer) * self.heads + head) * self.head_bytes;
        let keys = self.bytes.first().as_ptr().cast_const().wrapping_add(at);
        let values = keys.wrapping_add(self.dim * self.block_tokens * self.kind.size());
        let size = self.padded_dim() * self.block_tokens * self.kind.size();
        let key_scales = values.wrapping_add(size).cast::<f32>();
        let value_scales = key_scales.wrapping_add(self.parts() * self.block_tokens);
        HeadAt { keys, values, key_scales, value_scales }
    }

    /// The pool as something that the members of a team write in parts.
    pub(super) fn writable(&mut self) -> Writable {
        // What `head` gives is derived from this pointer's memory again, see `put`.
        Writable { first: self.bytes.first().as_ptr() }
    }

    /// Stores a token's key and value of one head.
    ///
    /// # Safety
    /// `to` is this pool's; `token` is below `block_tokens`; nobody reads or writes this token's
    /// values meanwhile; the instruction set is there.
    #[inline(always)]
    pub(super) unsafe fn put<S: Simd>(
        &self,
        to: Writable,
        at: HeadAt,
        token: usize,
        key: &[f32],
        value: &[f32],
    ) {
        let base = self.bytes.first().as_ptr().cast_const();
        let key_at = |d: usize| token / LANES * LANES * self.dim + d * LANES + token % LANES;
        // SAFETY: all offsets are inside the head's part of the block, as `head` lays it out; they
        // are taken from the pointer that may write.
        unsafe {
            let place = |at: *const u8| to.first.add(at.offset_from_unsigned(base));
            let (keys, values) = (place(at.keys), place(at.values));
            let values = values.add(token * self.padded_dim() * self.kind.size());
            match self.kind {
                KvKind::F32 => {
                    for (d, (&key, &value)) in key.iter().zip(value).enumerate() {
                        keys.cast::<f32>().add(key_at(d)).write(key);
                        values.cast::<f32>().add(d).write(value);
                    }
                }
                KvKind::F16 => {
                    for d in (0..self.dim).step_by(LANES) {
                        let end = (d + LANES).min(self.dim);
                        let (key, value) = (halves::<S>(&key[d..end]), halves::<S>(&value[d..end]));
                        for (lane, (key, value)) in key.into_iter().zip(value).enumerate() {
                            if d + lane < end {
                                keys.cast::<u16>().add(key_at(d + lane)).write(key);
                                values.cast::<u16>().add(d + lane).write(value);
                            }
                        }
                    }
                }
                KvKind::Q8 => {
                    let key_scales = place(at.key_scales.cast()).cast::<f32>();
                    let value_scales = place(at.value_scales.cast()).cast::<f32>();
                    for (part, d) in (0..self.dim).step_by(self.part()).enumerate() {
                        let end = (d + self.part()).min(self.dim);
                        let (by, scale) = scale_of(&key[d..end]);
                        key_scales.add(part * self.block_tokens + token).write(scale);
                        for (d, &key) in (d..).zip(&key[d..end]) {
                            keys.cast::<i8>().add(key_at(d)).write(number(key * by));
                        }
                        let (by, scale) = scale_of(&value[d..end]);
                        value_scales.add(part * self.block_tokens + token).write(scale);
                        for (d, &value) in (d..).zip(&value[d..end]) {
                            values.cast::<i8>().add(d).write(number(value * by));
                        }
                    }
                }
            }
        }
    }
}

/// Values of a head of `padded` that share a scale: whole vectors.
fn part(padded: usize) -> usize {
    if padded.is_multiple_of(32) { 32 } else { LANES }
}

/// Sixteen 16-bit floats of up to sixteen values.
#[inline(always)]
unsafe fn halves<S: Simd>(values: &[f32]) -> [u16; LANES] {
    let (mut whole, mut halves) = ([0.0; LANES], [0; LANES]);
    whole[..values.len()].copy_from_slice(values);
    // SAFETY: the caller has the instruction set; both arrays have sixteen values.
    unsafe { S::store_f16(halves.as_mut_ptr(), S::load(whole.as_ptr())) };
    halves
}

/// What to multiply with before rounding, and what a number then stands for.
fn scale_of(values: &[f32]) -> (f32, f32) {
    let most = values.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    // What is no number must not be lost: it makes the scale so.
    let odd = values.iter().sum::<f32>() * 0.0;
    if most < 1e-30 { (0.0, odd) } else { (127.0 / most, most / 127.0 + odd) }
}

#[allow(clippy::cast_possible_truncation)] // it saturates
fn number(value: f32) -> i8 {
    value.round_ties_even() as i8
}

/// The pool's memory, to be written in parts that do not meet.
#[derive(Clone, Copy)]
pub struct Writable {
    first: *mut u8,
}

// SAFETY: it is used by `put` alone, whose callers promise that parts do not meet.
unsafe impl Send for Writable {}
// SAFETY: as above.
unsafe impl Sync for Writable {}
