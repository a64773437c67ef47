//! Attention of a task's queries over one segment of tokens: scores, softmax, weighted sums. Memory of
//! what comes next is asked for on the way. Joins nothing.

use super::super::kv::HeadAt;
use super::super::layout::LINE;
use super::super::rows::exp;
use super::super::simd::{LANES, Simd};
use super::{Call, SEGMENT, Span, Task};

/// How values of the pool become floats.
pub trait Stored {
    /// Bytes of a value.
    const SIZE: usize;
    /// Whether there are scales.
    const SCALED: bool;
    /// Sixteen values, without their scales.
    ///
    /// # Safety
    /// They are there, and so is the instruction set.
    unsafe fn load<S: Simd>(from: *const u8) -> S::F;
}

/// 32-bit floats.
pub struct Full;
/// 16-bit floats.
pub struct Half;
/// 8-bit numbers with scales.
pub struct Eight;

#[allow(clippy::undocumented_unsafe_blocks)] // sixteen values are there: the caller's promise
impl Stored for Full {
    const SIZE: usize = 4;
    const SCALED: bool = false;
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const u8) -> S::F {
        unsafe { S::load(from.cast()) }
    }
}

#[allow(clippy::undocumented_unsafe_blocks)] // as above
impl Stored for Half {
    const SIZE: usize = 2;
    const SCALED: bool = false;
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const u8) -> S::F {
        unsafe { S::load_f16(from.cast()) }
    }
}

#[allow(clippy::undocumented_unsafe_blocks)] // as above
impl Stored for Eight {
    const SIZE: usize = 1;
    const SCALED: bool = true;
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const u8) -> S::F {
        unsafe { S::load_i8(from.cast()) }
    }
}

/// All queries of a task over one segment: for each, into `to`, the weighted sum of values, then the
/// largest score and the sum of weights.
///
/// # Safety
/// The instruction set is there, and nobody writes what the task reads.
#[inline(always)]
pub unsafe fn segment<S: Simd, K: Stored>(
    call: &Call<'_>,
    task: &Task,
    at: usize,
    scores: &mut [f32],
    to: &mut [f32],
) {
    let span = &call.spans[task.span];
    let first_position = span.position + task.row.1;
    let begin = at * SEGMENT;
    // Tokens of the segment that any of the rows sees, in whole chunks at the beginning.
    let first = call.first_seen(first_position).saturating_sub(begin) / LANES * LANES;
    let end = (first_position + task.rows - begin).min(SEGMENT);
    let count = task.rows * call.group;
    let size = call.padded + LANES;
    // SAFETY: positions below `end` have blocks; scores have a segment for each query.
    unsafe {
        let mut chunk = first;
        while chunk < end {
            // Few queries leave the adders idle: then four chunks of tokens go together.
            let four = S::SHARES && count < 8 && chunk + 3 * LANES < end;
            let at = (begin, chunk);
            let mut query = 0;
            while query < count {
                let left = count - query;
                query += match (four, left) {
                    (true, 3..) => score::<S, K, 3, 4>(call, task, at, query, scores),
                    (true, _) => score::<S, K, 1, 4>(call, task, at, query, scores),
                    (false, 8..) if S::SHARES => score::<S, K, 8, 1>(call, task, at, query, scores),
                    (false, 3..) if S::SHARES => score::<S, K, 3, 1>(call, task, at, query, scores),
                    _ => score::<S, K, 1, 1>(call, task, at, query, scores),
                };
            }
            chunk += if four { 4 * LANES } else { LANES };
        }
        for query in 0..count {
            let position = first_position + query / call.group;
            let seen = (call.first_seen(position), position + 1);
            let seen = (seen.0.saturating_sub(begin), seen.1.saturating_sub(begin));
            let scores = &mut scores[query * SEGMENT..(query + 1) * SEGMENT];
            let (most, sum) = soften::<S>(scores, (first, end), seen);
            let to = &mut to[query * size..(query + 1) * size];
            (to[call.padded], to[call.padded + 1]) = (most, sum);
        }
        let mut query = 0;
        while query < count {
            query += if !S::SHARES || count - query < 3 {
                weigh::<S, K, 1>(call, task, (begin, first, end), query, scores, to)
            } else {
                weigh::<S, K, 3>(call, task, (begin, first, end), query, scores, to)
            };
        }
    }
}

/// Sixteen tokens in a block.
struct Chunk {
    head: HeadAt,
    token: usize,
}

impl Chunk {
    #[inline(always)]
    fn at(call: &Call<'_>, span: &Span<'_>, position: usize, head: usize) -> Self {
        let tokens = call.pool.block_tokens();
        let block = span.blocks[position / tokens];
        Chunk { head: call.pool.head(block, call.layer, head), token: position % tokens }
    }
}

/// Scores of `N` queries with `C` chunks of sixteen tokens; masks come later. Asks for the values of
/// these tokens on the way.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // several arrays and pointers go along
unsafe fn score<S: Simd, K: Stored, const N: usize, const C: usize>(
    call: &Call<'_>,
    task: &Task,
    (begin, chunk): (usize, usize),
    query: usize,
    scores: &mut [f32],
) -> usize {
    let span = &call.spans[task.span];
    // SAFETY: a chunk has dim × 16 keys; queries are rows and heads of the task, which are only read
    // since the barrier.
    unsafe {
        let q: [*const f32; N] = std::array::from_fn(|i| {
            let row = task.row.0 + (query + i) / call.group;
            let head = task.head * call.group + (query + i) % call.group;
            call.q.whole().as_ptr().add((row * call.heads + head) * call.dim)
        });
        let chunks: [Chunk; C] =
            std::array::from_fn(|c| Chunk::at(call, span, begin + chunk + c * LANES, task.head));
        let from: [*const u8; C] =
            std::array::from_fn(|c| chunks[c].head.keys.add(chunks[c].token * call.dim * K::SIZE));
        let ahead: [*const u8; C] = std::array::from_fn(|c| {
            chunks[c].head.values.add(chunks[c].token * call.padded * K::SIZE)
        });
        let stride = LANES * call.padded * K::SIZE / call.dim;
        let mut sums = [[S::splat(0.0); C]; N];
        let part = if K::SCALED { call.pool.part() } else { call.dim };
        for (at, first) in (0..call.dim).step_by(part).enumerate() {
            let mut own = if K::SCALED { [[S::splat(0.0); C]; N] } else { sums };
            for d in first..(first + part).min(call.dim) {
                let asks = query == 0 && (d * stride).is_multiple_of(LINE);
                let mut keys = [S::splat(0.0); C];
                for c in 0..C {
                    keys[c] = K::load::<S>(from[c].add(d * LANES * K::SIZE));
                    if asks {
                        S::prefetch(ahead[c].add(d * stride));
                    }
                }
                for i in 0..N {
                    let by = S::splat(*q[i].add(d));
                    for c in 0..C {
                        own[i][c] = S::fma(keys[c], by, own[i][c]);
                    }
                }
            }
            if K::SCALED {
                for c in 0..C {
                    let at = at * call.pool.block_tokens() + chunks[c].token;
                    let scales = S::load(chunks[c].head.key_scales.add(at));
                    for i in 0..N {
                        sums[i][c] = S::fma(own[i][c], scales, sums[i][c]);
                    }
                }
            } else {
                sums = own;
            }
        }
        for i in 0..N {
            for c in 0..C {
                let to = scores.as_mut_ptr().add((query + i) * SEGMENT + chunk + c * LANES);
                S::store(to, bent::<S>(call, sums[i][c]));
            }
        }
        N
    }
}

/// Scores as softmax takes them: scaled, and bent below the cap where there is one.
#[inline(always)]
unsafe fn bent<S: Simd>(call: &Call<'_>, sums: S::F) -> S::F {
    // SAFETY: the instruction set is there.
    unsafe {
        let score = S::mul(sums, S::splat(call.scale));
        let Some(cap) = call.soft_cap else { return score };
        // tanh u is 1 − 2 / (e²ᵘ + 1).
        let e = exp::<S>(S::mul(score, S::splat(2.0 / cap)));
        let part = S::div(S::splat(2.0), S::add(e, S::splat(1.0)));
        S::mul(S::splat(cap), S::sub(S::splat(1.0), part))
    }
}

/// Softmax's numerators in place of scores; the largest score and the numerators' sum. Tokens outside
/// of `seen` weigh nothing.
#[inline(always)]
unsafe fn soften<S: Simd>(
    scores: &mut [f32],
    (first, end): (usize, usize),
    seen: (usize, usize),
) -> (f32, f32) {
    // SAFETY: `end`, rounded up to a chunk, is within the segment.
    unsafe {
        let mut most = S::splat(f32::NEG_INFINITY);
        for chunk in (first..end).step_by(LANES) {
            let from = scores.as_mut_ptr().add(chunk);
            let (low, high) = (seen.0.saturating_sub(chunk), seen.1.saturating_sub(chunk));
            let score = S::keep(S::load(from), low, high, f32::NEG_INFINITY);
            S::store(from, score);
            most = S::max(most, score);
        }
        let most = S::largest(most);
        let shift = if most == f32::NEG_INFINITY { 0.0 } else { most };
        let mut sum = S::splat(0.0);
        for chunk in (first..end).step_by(LANES) {
            let from = scores.as_mut_ptr().add(chunk);
            let weight = exp::<S>(S::sub(S::load(from), S::splat(shift)));
            S::store(from, weight);
            sum = S::add(sum, weight);
        }
        (most, S::sum(sum))
    }
}

/// Values of a segment, weighed for `N` queries.
#[inline(always)]
unsafe fn weigh<S: Simd, K: Stored, const N: usize>(
    call: &Call<'_>,
    task: &Task,
    range: (usize, usize, usize),
    query: usize,
    scores: &[f32],
    to: &mut [f32],
) -> usize {
    let mut at = 0;
    while at < call.padded {
        // SAFETY: as for `segment`; vectors from `at` on are within the padded values.
        unsafe {
            if call.padded - at >= 4 * LANES {
                weigh_vectors::<S, K, N, 4>(call, task, range, (query, at), scores, to);
                at += 4 * LANES;
            } else {
                weigh_vectors::<S, K, N, 1>(call, task, range, (query, at), scores, to);
                at += LANES;
            }
        }
    }
    N
}

#[inline(always)]
#[allow(clippy::needless_range_loop)] // two arrays and a pointer go along
unsafe fn weigh_vectors<S: Simd, K: Stored, const N: usize, const D: usize>(
    call: &Call<'_>,
    task: &Task,
    (begin, first, end): (usize, usize, usize),
    (query, at): (usize, usize),
    scores: &[f32],
    to: &mut [f32],
) {
    let span = &call.spans[task.span];
    let size = call.padded + LANES;
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[S::splat(0.0); D]; N];
        for chunk in (first..end).step_by(LANES) {
            let values = Chunk::at(call, span, begin + chunk, task.head);
            // The keys that come next, in this task or in the next one.
            let next = begin + chunk + SEGMENT;
            let asks = query == 0 && at == 0 && next < span.position + span.rows;
            let ahead = Chunk::at(call, span, if asks { next } else { begin + chunk }, task.head);
            let ahead = ahead.head.keys.add(ahead.token * call.dim * K::SIZE);
            for lane in 0..LANES.min(end - chunk) {
                if asks {
                    for line in (0..call.dim * K::SIZE).step_by(LINE) {
                        S::prefetch(ahead.add(lane * call.dim * K::SIZE + line));
                    }
                }
                let token = values.token + lane;
                let from = values.head.values.add((token * call.padded + at) * K::SIZE);
                let weights = scores.as_ptr().add(query * SEGMENT + chunk + lane);
                for d in 0..D {
                    let value = K::load::<S>(from.add(d * LANES * K::SIZE));
                    let mut by = 1.0;
                    if K::SCALED {
                        let part = (at + d * LANES) / call.pool.part();
                        let tokens = call.pool.block_tokens();
                        by = *values.head.value_scales.add(part * tokens + token);
                    }
                    for i in 0..N {
                        let mut weight = *weights.add(i * SEGMENT);
                        if K::SCALED {
                            weight *= by;
                        }
                        sums[i][d] = S::fma(value, S::splat(weight), sums[i][d]);
                    }
                }
            }
        }
        for i in 0..N {
            for d in 0..D {
                let at = (query + i) * size + at + d * LANES;
                S::store(to.as_mut_ptr().add(at), sums[i][d]);
            }
        }
    }
}
