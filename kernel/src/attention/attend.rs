//! What one member does of an attention call: norms, angles and storing, then scores, softmax and
//! weighted sums of its tasks, then partial results joined. Lays out nothing.

use std::sync::atomic::Ordering;

use super::super::kv::KvKind;
use super::super::rows::{Norm, Rope, exp, norm_in_place, rope};
use super::super::simd::{LANES, Simd, Work};
use super::super::team::Member;
use super::segment::{Eight, Full, Half, Stored, segment};
use super::{Call, SEGMENT, Task};

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
