//! Attention against plain arithmetic in f64, and the promise that neither company, nor chunks, nor
//! threads change a bit.

use super::*;

/// A model's shape, and how its cache is kept.
#[derive(Clone, Copy, Debug)]
struct Shape {
    heads: usize,
    kv_heads: usize,
    dim: usize,
    tokens: usize,
    kind: KvKind,
    window: Option<usize>,
    soft_cap: Option<f32>,
    style: RopeStyle,
    pairs: usize,
}

const PLAIN: Shape = Shape {
    heads: 9,
    kv_heads: 3,
    dim: 64,
    tokens: 32,
    kind: KvKind::F32,
    window: None,
    soft_cap: None,
    style: RopeStyle::Halves,
    pairs: 32,
};

/// A sequence: queries, keys, values of every position, with its angles.
struct Sequence {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    cos: Vec<f32>,
    sin: Vec<f32>,
    length: usize,
}

impl Sequence {
    fn random(shape: Shape, length: usize, random: &mut ChaCha8Rng) -> Self {
        let angles = (0..length * shape.pairs).map(|at| {
            let (position, pair) = (at / shape.pairs, at % shape.pairs);
            position as f32 / 100_f32.powf(pair as f32 / shape.pairs as f32)
        });
        let angles: Vec<f32> = angles.collect();
        Sequence {
            q: floats(length * shape.heads * shape.dim, random),
            k: floats(length * shape.kv_heads * shape.dim, random),
            v: floats(length * shape.kv_heads * shape.dim, random),
            cos: angles.iter().map(|angle| angle.cos()).collect(),
            sin: angles.iter().map(|angle| angle.sin()).collect(),
            length,
        }
    }
}

fn pool(shape: Shape, blocks: usize) -> KvPool {
    KvPool::new(shape.kind, 2, shape.kv_heads, shape.dim, shape.tokens, blocks).unwrap()
}

/// Rows `from..to` of each sequence in one call.
fn attend(
    kernel: &mut Kernel,
    shape: Shape,
    pool: &mut KvPool,
    parts: &[(&Sequence, std::ops::Range<usize>, &[u32])],
) -> Vec<f32> {
    let (mut q, mut k, mut v, mut cos, mut sin) = (vec![], vec![], vec![], vec![], vec![]);
    let (wide, narrow) = (shape.heads * shape.dim, shape.kv_heads * shape.dim);
    for (sequence, rows, _) in parts {
        q.extend(&sequence.q[rows.start * wide..rows.end * wide]);
        k.extend(&sequence.k[rows.start * narrow..rows.end * narrow]);
        v.extend(&sequence.v[rows.start * narrow..rows.end * narrow]);
        cos.extend(&sequence.cos[rows.start * shape.pairs..rows.end * shape.pairs]);
        sin.extend(&sequence.sin[rows.start * shape.pairs..rows.end * shape.pairs]);
    }
    let spans: Vec<Span<'_>> = parts
        .iter()
        .map(|(_, rows, blocks)| Span { position: rows.start, rows: rows.len(), blocks })
        .collect();
    let mut y = vec![f32::NAN; q.len()];
    kernel.attention(Attention {
        layer: 1,
        heads: shape.heads,
        q: &mut q,
        k: &mut k,
        v: &v,
        q_norm: None,
        k_norm: None,
        rope: Some(Rope { cos: &cos, sin: &sin, pairs: shape.pairs, style: shape.style }),
        scale: 0.125,
        window: shape.window,
        soft_cap: shape.soft_cap,
        pool,
        spans: &spans,
        y: &mut y,
    });
    y
}

fn turned(shape: Shape, head: &[f32], cos: &[f32], sin: &[f32]) -> Vec<f64> {
    let mut out: Vec<f64> = head.iter().copied().map(f64::from).collect();
    for at in 0..shape.pairs {
        let (a, b) = match shape.style {
            RopeStyle::Halves => (at, at + shape.pairs),
            RopeStyle::Interleaved => (2 * at, 2 * at + 1),
        };
        let (c, s) = (f64::from(cos[at]), f64::from(sin[at]));
        (out[a], out[b]) = (out[a] * c - out[b] * s, out[a] * s + out[b] * c);
    }
    out
}

/// Softmax over whole rows in f64.
fn reference(shape: Shape, of: &Sequence) -> Vec<f64> {
    let (dim, group) = (shape.dim, shape.heads / shape.kv_heads);
    let angles = |p: usize| p * shape.pairs..(p + 1) * shape.pairs;
    let turn = |all: &[f32], heads: usize, p: usize, head: usize| {
        let first = (p * heads + head) * dim;
        turned(shape, &all[first..first + dim], &of.cos[angles(p)], &of.sin[angles(p)])
    };
    let mut y = vec![];
    for p in 0..of.length {
        for head in 0..shape.heads {
            let query = turn(&of.q, shape.heads, p, head);
            let seen = shape.window.map_or(0, |window| (p + 1).saturating_sub(window));
            let scores: Vec<f64> = (seen..=p)
                .map(|t| {
                    let key = turn(&of.k, shape.kv_heads, t, head / group);
                    let score = query.iter().zip(&key).map(|(q, k)| q * k).sum::<f64>() * 0.125;
                    let cap = shape.soft_cap.map(f64::from);
                    cap.map_or(score, |cap| cap * (score / cap).tanh())
                })
                .collect();
            let most = scores.iter().copied().fold(f64::MIN, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
            let total: f64 = weights.iter().sum();
            for d in 0..dim {
                let value = |t: usize| of.v[(t * shape.kv_heads + head / group) * dim + d];
                let sum = weights.iter().enumerate().map(|(at, w)| w * f64::from(value(seen + at)));
                y.push(sum.sum::<f64>() / total);
            }
        }
    }
    y
}

fn shapes() -> Vec<Shape> {
    let mut shapes = vec![PLAIN];
    shapes.push(Shape { kind: KvKind::F16, ..PLAIN });
    shapes.push(Shape { kind: KvKind::Q8, tokens: 16, ..PLAIN });
    shapes.push(Shape { heads: 4, kv_heads: 4, dim: 8, pairs: 4, tokens: 16, ..PLAIN });
    shapes.push(Shape { heads: 4, kv_heads: 1, dim: 80, pairs: 16, tokens: 64, ..PLAIN });
    shapes.push(Shape { window: Some(40), style: RopeStyle::Interleaved, ..PLAIN });
    shapes.push(Shape { soft_cap: Some(1.5), tokens: 128, kind: KvKind::F16, ..PLAIN });
    shapes.push(Shape { heads: 8, kv_heads: 1, dim: 128, pairs: 64, window: Some(200), ..PLAIN });
    shapes.push(Shape { heads: 2, kv_heads: 2, dim: 24, pairs: 8, kind: KvKind::Q8, ..PLAIN });
    shapes
}

#[test]
fn attention_is_that_of_plain_arithmetic() {
    for isa in Isa::available() {
        let mut kernel = Kernel::with_isa(2, isa);
        for shape in shapes() {
            let mut random = ChaCha8Rng::seed_from_u64(71);
            let sequence = Sequence::random(shape, 290, &mut random);
            let mut pool = pool(shape, 24);
            let blocks: Vec<u32> = (0..290_u32.div_ceil(shape.tokens as u32)).rev().collect();
            let y = attend(&mut kernel, shape, &mut pool, &[(&sequence, 0..290, &blocks)]);
            let bound = match shape.kind {
                KvKind::F32 => 2e-5,
                KvKind::F16 => 4e-3,
                KvKind::Q8 => 6e-2,
            };
            for (at, (got, want)) in y.iter().zip(reference(shape, &sequence)).enumerate() {
                let off = (f64::from(*got) - want).abs();
                assert!(off <= bound, "{isa:?} {shape:?} at {at}: {got} instead of {want}");
            }
        }
    }
}

#[test]
fn neither_chunks_nor_company_nor_threads_change_a_bit() {
    for isa in Isa::available() {
        for shape in shapes() {
            let mut random = ChaCha8Rng::seed_from_u64(72);
            let one = Sequence::random(shape, 300, &mut random);
            let other = Sequence::random(shape, 300, &mut random);
            let per = shape.tokens as u32;
            let own: Vec<u32> = (0..300_u32.div_ceil(per)).map(|block| 2 * block).collect();
            let others: Vec<u32> = (0..300_u32.div_ceil(per)).map(|block| 2 * block + 1).collect();
            let mut whole_kernel = Kernel::with_isa(1, isa);
            let whole =
                attend(&mut whole_kernel, shape, &mut pool(shape, 40), &[(&one, 0..300, &own)]);
            for threads in [1, 2, 3] {
                let mut kernel = Kernel::with_isa(threads, isa);
                let mut pool = pool(shape, 40);
                let (mut at, mut y) = (0, vec![]);
                while at < 300 {
                    let step = random.random_range(1..=70_usize).min(300 - at);
                    let step = if at > 200 { 1 } else { step };
                    let parts =
                        [(&other, at..at + step, &others[..]), (&one, at..at + step, &own[..])];
                    let both = attend(&mut kernel, shape, &mut pool, &parts);
                    y.extend_from_slice(&both[both.len() / 2..]);
                    at += step;
                }
                assert_eq!(bits(&y), bits(&whole), "{isa:?} {shape:?}, {threads} threads");
            }
        }
    }
}

#[test]
fn a_copied_block_continues_as_the_first_would() {
    let mut random = ChaCha8Rng::seed_from_u64(73);
    let mut kernel = Kernel::new(2);
    let sequence = Sequence::random(PLAIN, 40, &mut random);
    let mut pool = pool(PLAIN, 6);
    attend(&mut kernel, PLAIN, &mut pool, &[(&sequence, 0..39, &[0, 1])]);
    pool.copy(1, 4);
    let first = attend(&mut kernel, PLAIN, &mut pool, &[(&sequence, 39..40, &[0, 1])]);
    let second = attend(&mut kernel, PLAIN, &mut pool, &[(&sequence, 39..40, &[0, 4])]);
    assert_eq!(bits(&first), bits(&second));
}

#[test]
fn norms_of_heads_come_before_positions() {
    let mut random = ChaCha8Rng::seed_from_u64(74);
    let mut kernel = Kernel::new(1);
    let shape = Shape { pairs: 0, ..PLAIN };
    let sequence = Sequence::random(shape, 1, &mut random);
    let weight = floats(64, &mut random);
    let (mut q, mut k) = (sequence.q.clone(), sequence.k.clone());
    let (mut y, mut pool) = (vec![0.0; q.len()], pool(shape, 1));
    kernel.attention(Attention {
        layer: 0,
        heads: 9,
        q: &mut q,
        k: &mut k,
        v: &sequence.v,
        q_norm: Some(Norm { weight: &weight, epsilon: 1e-6 }),
        k_norm: None,
        rope: None,
        scale: 1.0,
        window: None,
        soft_cap: None,
        pool: &mut pool,
        spans: &[Span { position: 0, rows: 1, blocks: &[0] }],
        y: &mut y,
    });
    let mut normed = vec![0.0; q.len()];
    kernel.norm(&sequence.q, Norm { weight: &weight, epsilon: 1e-6 }, &mut normed, false);
    assert_eq!(bits(&q), bits(&normed));
    assert_eq!(k, sequence.k);
    // One token: its value, whatever the score.
    for (head, y) in y.chunks(64).enumerate() {
        assert_eq!(y, &sequence.v[head / 3 * 64..][..64]);
    }
}

#[test]
fn odd_sizes_of_a_pool_are_refused() {
    for tokens in [0, 8, 48, 256] {
        assert!(KvPool::new(KvKind::F16, 1, 1, 64, tokens, 1).is_err(), "{tokens}");
    }
    for dim in [0, 4, 12, 1024] {
        assert!(KvPool::new(KvKind::F16, 1, 1, dim, 32, 1).is_err(), "{dim}");
    }
    assert!(KvPool::new(KvKind::F32, 1_000, 1_000, 512, 128, usize::MAX / 2).is_err());
}

#[test]
#[should_panic(expected = "a block is written by one sequence")]
fn two_sequences_cannot_write_one_block() {
    let mut random = ChaCha8Rng::seed_from_u64(75);
    let sequence = Sequence::random(PLAIN, 4, &mut random);
    let parts = [(&sequence, 0..4, &[0_u32][..]), (&sequence, 0..4, &[0_u32][..])];
    attend(&mut Kernel::new(1), PLAIN, &mut pool(PLAIN, 1), &parts);
}
