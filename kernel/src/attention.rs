//! Attention of the rows of a step over keys and values in blocks. Tokens are taken in segments of a
//! fixed length, counted from the sequence's start: softmax within a segment, then segments joined in
//! order. So a row's result depends on nothing but its own sequence. Scores are never kept whole.

use std::sync::atomic::AtomicUsize;

use super::kv::{KvPool, Writable};
use super::memory::Floats;
use super::rows::{Norm, Rope};
use super::simd::LANES;
use super::team::Parts;
use crate::limits::KV_BLOCK_TOKENS_MAX;

mod attend;
mod segment;

pub use attend::Part;

/// Tokens that share one softmax before segments are joined.
const SEGMENT: usize = KV_BLOCK_TOKENS_MAX;
/// Queries that are computed together, as far as rows of one head's group go.
const QUERIES: usize = 24;
/// Below this many tasks for each thread, segments become tasks of their own.
const TASKS_MIN: usize = 4;

/// Rows of one sequence in a step.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// Position of the first of its rows.
    pub position: usize,
    /// Rows.
    pub rows: usize,
    /// Blocks of the sequence: `blocks[i]` holds positions from `i · block_tokens` on.
    pub blocks: &'a [u32],
}

/// What [`super::Kernel::attention`] computes.
pub struct Attention<'a> {
    /// Layer, from 0.
    pub layer: usize,
    /// Heads of queries: a multiple of the pool's heads.
    pub heads: usize,
    /// Queries, rows × (heads · dim); normed and turned in place.
    pub q: &'a mut [f32],
    /// Keys, rows × (kv heads · dim); normed and turned in place.
    pub k: &'a mut [f32],
    /// Values, rows × (kv heads · dim).
    pub v: &'a [f32],
    /// Norm of each head's queries.
    pub q_norm: Option<Norm<'a>>,
    /// Norm of each head's keys.
    pub k_norm: Option<Norm<'a>>,
    /// Positions.
    pub rope: Option<Rope<'a>>,
    /// What scores are multiplied with.
    pub scale: f32,
    /// Tokens that a row sees, itself among them; all before it where there is none.
    pub window: Option<usize>,
    /// Largest magnitude of a score, approached by tanh.
    pub soft_cap: Option<f32>,
    /// Where keys and values are kept; the new ones are stored first.
    pub pool: &'a mut KvPool,
    /// Sequences, in the order of their rows.
    pub spans: &'a [Span<'a>],
    /// Result, rows × (heads · dim).
    pub y: &'a mut [f32],
}

/// A part of the work: rows of one sequence, one head of keys, a range of segments.
#[derive(Clone, Copy)]
pub struct Task {
    span: usize,
    /// Row in the step, and row in the span.
    row: (usize, usize),
    rows: usize,
    head: usize,
    segments: (usize, usize),
    /// Where its partial results lie; `None` where the whole is one task.
    partial: Option<usize>,
}

/// Memory of the calls, kept from one to the next.
#[derive(Default)]
pub struct Scratch {
    /// Blocks that are written, to see that nobody else writes them.
    written: Vec<u32>,
    tasks: Vec<Task>,
    /// Tasks whose partial results are to be joined, one for each (rows, head).
    joins: Vec<Task>,
    partials: Floats,
    /// Scores, sums and maxima of one member.
    members: Vec<Floats>,
}

/// The constant part of a call, as all members see it.
pub struct Call<'a> {
    layer: usize,
    heads: usize,
    group: usize,
    dim: usize,
    padded: usize,
    q: Parts<f32>,
    k: Parts<f32>,
    v: &'a [f32],
    q_norm: Option<Norm<'a>>,
    k_norm: Option<Norm<'a>>,
    rope: Option<Rope<'a>>,
    scale: f32,
    window: Option<usize>,
    soft_cap: Option<f32>,
    pool: &'a KvPool,
    writable: Writable,
    spans: &'a [Span<'a>],
    rows: usize,
    y: Parts<f32>,
    tasks: &'a [Task],
    joins: &'a [Task],
    partials: Parts<f32>,
    next: &'a AtomicUsize,
}

impl<'a> Call<'a> {
    /// Checks sizes and lays out the tasks.
    ///
    /// # Panics
    /// Where sizes do not belong together, or two rows go to one place of the pool: that is a mistake
    /// of the caller, not of the model.
    pub fn new(
        a: Attention<'a>,
        scratch: &'a mut Scratch,
        threads: usize,
        next: &'a AtomicUsize,
    ) -> (Self, &'a mut [Floats]) {
        let rows = a.spans.iter().map(|span| span.rows).sum::<usize>();
        let (dim, kv_heads) = (a.pool.head_dim(), a.pool.kv_heads());
        assert!(kv_heads > 0 && a.heads.is_multiple_of(kv_heads), "query heads in even groups");
        assert!(a.q.len() == rows * a.heads * dim && a.y.len() == a.q.len(), "queries of all rows");
        assert!(a.k.len() == rows * kv_heads * dim && a.v.len() == a.k.len(), "keys of all rows");
        for norm in a.q_norm.iter().chain(&a.k_norm) {
            assert!(norm.weight.len() == dim, "a norm as long as a head");
        }
        if let Some(rope) = &a.rope {
            let angles = rows * rope.pairs;
            assert!(2 * rope.pairs <= dim && rope.cos.len() == angles, "angles of all rows");
            assert!(rope.sin.len() == angles, "angles of all rows");
        }
        for span in a.spans {
            let room = span.blocks.len() * a.pool.block_tokens();
            assert!(span.position + span.rows <= room, "blocks for all positions of a sequence");
            assert!(span.blocks.iter().all(|&at| (at as usize) < a.pool.blocks()), "in the pool");
        }
        scratch.check_writes(a.spans, a.pool.block_tokens());
        let group = a.heads / kv_heads;
        let padded = a.pool.padded_dim();
        scratch.lay_out(a.spans, kv_heads, group, padded, a.window, threads);
        let writable = a.pool.writable();
        let Scratch { tasks, joins, partials, members, .. } = scratch;
        let call = Call {
            layer: a.layer,
            heads: a.heads,
            group,
            dim,
            padded,
            q: Parts::of(a.q),
            k: Parts::of(a.k),
            v: a.v,
            q_norm: a.q_norm,
            k_norm: a.k_norm,
            rope: a.rope,
            scale: a.scale,
            window: a.window,
            soft_cap: a.soft_cap,
            pool: a.pool,
            writable,
            spans: a.spans,
            rows,
            y: Parts::of(a.y),
            tasks,
            joins,
            partials: Parts::of(partials),
            next,
        };
        (call, members)
    }

    /// First position that a row at `position` sees.
    fn first_seen(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }
}

impl Scratch {
    /// Two rows must never be stored at one place: their threads would write it at the same time.
    fn check_writes(&mut self, spans: &[Span<'_>], tokens: usize) {
        self.written.clear();
        for span in spans.iter().filter(|span| span.rows > 0) {
            let last = (span.position + span.rows - 1) / tokens;
            self.written.extend(&span.blocks[span.position / tokens..=last]);
        }
        self.written.sort_unstable();
        let alone = self.written.windows(2).all(|pair| pair[0] != pair[1]);
        assert!(alone, "a block is written by one sequence, once");
    }

    /// Tasks for all sequences. Segments are tasks of their own where there are few rows.
    fn lay_out(
        &mut self,
        spans: &[Span<'_>],
        kv_heads: usize,
        group: usize,
        padded: usize,
        window: Option<usize>,
        threads: usize,
    ) {
        let tile = (QUERIES / group).max(1);
        let whole: usize = spans.iter().map(|span| span.rows.div_ceil(tile) * kv_heads).sum();
        let split = threads > 1 && whole < TASKS_MIN * threads;
        self.tasks.clear();
        self.joins.clear();
        let (mut step_row, mut partial) = (0, 0);
        for (at, span) in spans.iter().enumerate() {
            for row in (0..span.rows).step_by(tile) {
                let rows = tile.min(span.rows - row);
                let first = span.position + row;
                let seen = window.map_or(0, |window| (first + 1).saturating_sub(window));
                let segments = (seen / SEGMENT, (first + rows).div_ceil(SEGMENT));
                for head in 0..kv_heads {
                    let row = (step_row + row, row);
                    let task = Task { span: at, row, rows, head, segments, partial: None };
                    if !split || segments.1 - segments.0 == 1 {
                        self.tasks.push(task);
                        continue;
                    }
                    self.joins.push(Task { partial: Some(partial), ..task });
                    for segment in segments.0..segments.1 {
                        let segments = (segment, segment + 1);
                        self.tasks.push(Task { segments, partial: Some(partial), ..task });
                        partial += rows * group * (padded + LANES);
                    }
                }
            }
            step_row += span.rows;
        }
        // The longest come last in a prompt; taken first, they leave no thread alone at the end.
        self.tasks.reverse();
        if self.partials.len() < partial {
            self.partials.resize(partial);
        }
        let queries = tile * group;
        self.members.resize_with(threads, Floats::default);
        for member in &mut self.members {
            let own = queries * (SEGMENT + 2 * (padded + LANES));
            if member.len() < own {
                member.resize(own);
            }
        }
    }
}
