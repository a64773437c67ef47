//! What one member does of an attention call: norms, angles and storing, then scores, softmax and
//! weighted sums of its tasks, then partial results joined. Lays out nothing.

use std::sync::atomic::Ordering;

use super::super::kv::{HeadAt, KvKind};
use super::super::rows::{Norm, Rope, exp, norm_in_place, rope};
use super::super::simd::{LANES, Simd, Work};
use super::super::team::Member;
use super::{Call, SEGMENT, Span, Task};

/// A member's part of the call.
pub struct Part<'a, 'b> {
    /// The call.
    pub call: &'b Call<'a>,
    /// The member.
    pub member: &'b Member<'b>,
    /// Its own memory.
    pub scratch: &'b mut [f32],
}

impl Work for Part<'_, '_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Part { call, member, scratch } = self;
        // SAFETY: the instruction set is there, and the pieces of each phase do not meet: rows and
        // heads are shared out in the first, tasks by a counter in the second, heads in the third;
        // barriers lie between.
        unsafe {
            prepare::<S>(call, member);
            member.barrier();
            match call.pool.kind() {
                KvKind::F32 => tasks::<S, Full>(call, scratch),
                KvKind::F16 => tasks::<S, Half>(call, scratch),
                KvKind::Q8 => tasks::<S, Eight>(call, scratch),
            }
            if !call.joins.is_empty() {
                member.barrier();
                for at in member.share(call.joins.len()) {
                    join::<S>(call, &call.joins[at], scratch);
                }
            }
        }
    }
}

/// Norms, turns and stores: one head of keys of one row with its queries after the other.
#[inline(always)]
unsafe fn prepare<S: Simd>(call: &Call<'_>, member: &Member<'_>) {
    let (dim, kv_heads) = (call.dim, call.pool.kv_heads());
    let mut spans = call.spans.iter();
    let (mut span, mut before) = (spans.next(), 0);
    for at in member.share(call.rows * kv_heads) {
        let (row, head) = (at / kv_heads, at % kv_heads);
        while let Some(now) = span.filter(|now| row >= before + now.rows) {
            before += now.rows;
            span = spans.next();
        }
        let Some(span) = span else { return };
        let position = span.position + row - before;
        // SAFETY: each (row, head) is one member's, with the queries of its group; the token's place
        // in the pool likewise, as no two rows have the same position of a sequence.
        unsafe {
            let first = (row * call.heads + head * call.group) * dim;
            let queries = call.q.part(first..first + call.group * dim);
            let key = call.k.part(at * dim..(at + 1) * dim);
            for query in queries.chunks_exact_mut(dim) {
                turn::<S>(query, call.q_norm, call.rope, row);
            }
            turn::<S>(key, call.k_norm, call.rope, row);
            let tokens = call.pool.block_tokens();
            let to = call.pool.head(span.blocks[position / tokens], call.layer, head);
            let value = &call.v[at * dim..(at + 1) * dim];
            call.pool.put::<S>(call.writable, to, position % tokens, key, value);
        }
    }
}

#[inline(always)]
unsafe fn turn<S: Simd>(
    head: &mut [f32],
    norm: Option<Norm<'_>>,
    angles: Option<Rope<'_>>,
    row: usize,
) {
    // SAFETY: the instruction set is there.
    unsafe {
        if let Some(norm) = norm {
            norm_in_place::<S>(head, norm);
        }
        if let Some(angles) = angles {
            let range = row * angles.pairs..(row + 1) * angles.pairs;
            rope::<S>(head, &angles.cos[range.clone()], &angles.sin[range], angles.style);
        }
    }
}

/// How values of the pool become floats.
trait Stored {
    const SIZE: usize;
    const SCALED: bool;
    unsafe fn load<S: Simd>(from: *const u8) -> S::F;
}

struct Full;
struct Half;
struct Eight;

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

/// Takes tasks until there are none.
#[inline(always)]
unsafe fn tasks<S: Simd, K: Stored>(call: &Call<'_>, scratch: &mut [f32]) {
    loop {
        let at = call.next.fetch_add(1, Ordering::Relaxed);
        let Some(task) = call.tasks.get(at) else { return };
        // SAFETY: the counter gives each task once; its rows and head, or its partial results, are
        // nobody else's.
        unsafe { one::<S, K>(call, task, scratch) };
    }
}

/// One task: each segment, joined to those before it, or left as a partial result.
#[inline(always)]
unsafe fn one<S: Simd, K: Stored>(call: &Call<'_>, task: &Task, scratch: &mut [f32]) {
    let count = task.rows * call.group;
    let size = call.padded + LANES;
    let (scores, rest) = scratch.split_at_mut(count * SEGMENT);
    let (own, rest) = rest.split_at_mut(count * size);
    // SAFETY: the caller's promise.
    unsafe {
        if let Some(partial) = task.partial {
            let to = call.partials.part(partial..partial + count * size);
            segment::<S, K>(call, task, task.segments.0, scores, to);
            return;
        }
        let total = &mut rest[..count * size];
        for at in task.segments.0..task.segments.1 {
            let to = if at == task.segments.0 { &mut *total } else { &mut *own };
            segment::<S, K>(call, task, at, scores, to);
            if at > task.segments.0 {
                for (total, own) in total.chunks_exact_mut(size).zip(own.chunks_exact(size)) {
                    add::<S>(total, own);
                }
            }
        }
        finish::<S>(call, task, total);
    }
}

/// Joins the partial results of a task's segments, in order.
#[inline(always)]
unsafe fn join<S: Simd>(call: &Call<'_>, task: &Task, scratch: &mut [f32]) {
    let length = task.rows * call.group * (call.padded + LANES);
    let total = &mut scratch[..length];
    let first = task.partial.unwrap_or_default();
    // SAFETY: all tasks have ended, so partial results are only read; this task's rows and head are
    // this member's.
    unsafe {
        for at in 0..task.segments.1 - task.segments.0 {
            let partial = &call.partials.whole()[first + at * length..][..length];
            if at == 0 {
                total.copy_from_slice(partial);
                continue;
            }
            let size = call.padded + LANES;
            for (total, own) in total.chunks_exact_mut(size).zip(partial.chunks_exact(size)) {
                add::<S>(total, own);
            }
        }
        finish::<S>(call, task, total);
    }
}

/// Joins a query's result of a segment, `own`, to that of those before it, `total`: sums over values,
/// then the largest score and the sum of weights.
#[inline(always)]
unsafe fn add<S: Simd>(total: &mut [f32], own: &[f32]) {
    let padded = total.len() - LANES;
    let (most, most_own) = (total[padded], own[padded]);
    if most_own == f32::NEG_INFINITY {
        return;
    }
    if most == f32::NEG_INFINITY {
        total.copy_from_slice(own);
        return;
    }
    let joint = if most > most_own { most } else { most_own };
    // SAFETY: the instruction set is there; lengths are whole vectors.
    unsafe {
        let by = exp::<S>(S::splat(most - joint));
        let by_own = exp::<S>(S::splat(most_own - joint));
        for at in (0..padded).step_by(LANES) {
            let sum = S::mul(S::load(total.as_ptr().add(at)), by);
            let sum = S::fma(S::load(own.as_ptr().add(at)), by_own, sum);
            S::store(total.as_mut_ptr().add(at), sum);
        }
        let weights = S::mul(S::splat(total[padded + 1]), by);
        let weights = S::fma(S::splat(own[padded + 1]), by_own, weights);
        let mut lanes = [0.0; LANES];
        S::store(lanes.as_mut_ptr(), weights);
        (total[padded], total[padded + 1]) = (joint, lanes[0]);
    }
}

/// Divides by the sum of weights and writes the rows' result.
#[inline(always)]
unsafe fn finish<S: Simd>(call: &Call<'_>, task: &Task, total: &mut [f32]) {
    let size = call.padded + LANES;
    for (at, total) in total.chunks_exact_mut(size).enumerate() {
        let row = task.row.0 + at / call.group;
        let head = task.head * call.group + at % call.group;
        let first = (row * call.heads + head) * call.dim;
        // SAFETY: the rows and heads of a task are its own.
        let y = unsafe { call.y.part(first..first + call.dim) };
        let weights = total[call.padded + 1];
        for (y, sum) in y.iter_mut().zip(total.iter()) {
            *y = sum / weights;
        }
    }
}

/// All queries of a task over one segment.
#[inline(always)]
unsafe fn segment<S: Simd, K: Stored>(
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
        for chunk in (first..end).step_by(LANES) {
            let keys = Chunk::at(call, span, begin + chunk, task.head);
            let mut query = 0;
            while query < count {
                query += match count - query {
                    8.. => score::<S, K, 8>(call, task, &keys, query, chunk, scores),
                    4.. => score::<S, K, 4>(call, task, &keys, query, chunk, scores),
                    3 => score::<S, K, 3>(call, task, &keys, query, chunk, scores),
                    2 => score::<S, K, 2>(call, task, &keys, query, chunk, scores),
                    _ => score::<S, K, 1>(call, task, &keys, query, chunk, scores),
                };
            }
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
            query += match count - query {
                4.. => weigh::<S, K, 4>(call, task, (begin, first, end), query, scores, to),
                3 => weigh::<S, K, 3>(call, task, (begin, first, end), query, scores, to),
                2 => weigh::<S, K, 2>(call, task, (begin, first, end), query, scores, to),
                _ => weigh::<S, K, 1>(call, task, (begin, first, end), query, scores, to),
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

/// Scores of `N` queries with sixteen tokens; masks come later.
#[inline(always)]
unsafe fn score<S: Simd, K: Stored, const N: usize>(
    call: &Call<'_>,
    task: &Task,
    keys: &Chunk,
    query: usize,
    chunk: usize,
    scores: &mut [f32],
) -> usize {
    // SAFETY: a chunk has dim × 16 keys; queries are rows and heads of the task, which are only read
    // since the barrier.
    unsafe {
        let q: [*const f32; N] = std::array::from_fn(|i| {
            let row = task.row.0 + (query + i) / call.group;
            let head = task.head * call.group + (query + i) % call.group;
            call.q.whole().as_ptr().add((row * call.heads + head) * call.dim)
        });
        let from = keys.head.keys.add(keys.token * call.dim * K::SIZE);
        let mut sums = [S::splat(0.0); N];
        let part = if K::SCALED { call.pool.part() } else { call.dim };
        for (at, first) in (0..call.dim).step_by(part).enumerate() {
            let mut own = if K::SCALED { [S::splat(0.0); N] } else { sums };
            for d in first..(first + part).min(call.dim) {
                let key = K::load::<S>(from.add(d * LANES * K::SIZE));
                for i in 0..N {
                    own[i] = S::fma(key, S::splat(*q[i].add(d)), own[i]);
                }
            }
            if K::SCALED {
                let scales = keys.head.key_scales.add(at * call.pool.block_tokens() + keys.token);
                let scales = S::load(scales);
                for i in 0..N {
                    sums[i] = S::fma(own[i], scales, sums[i]);
                }
            } else {
                sums = own;
            }
        }
        for (i, sum) in sums.into_iter().enumerate() {
            let mut score = S::mul(sum, S::splat(call.scale));
            if let Some(cap) = call.soft_cap {
                // tanh u is 1 − 2 / (e²ᵘ + 1).
                let e = exp::<S>(S::mul(score, S::splat(2.0 / cap)));
                let part = S::div(S::splat(2.0), S::add(e, S::splat(1.0)));
                score = S::mul(S::splat(cap), S::sub(S::splat(1.0), part));
            }
            S::store(scores.as_mut_ptr().add((query + i) * SEGMENT + chunk), score);
        }
        N
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
            for lane in 0..LANES.min(end - chunk) {
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
