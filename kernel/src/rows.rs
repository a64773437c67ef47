//! What happens to rows of floats between the products: norms, rope, gates, and activations made
//! into 8-bit numbers. One row at a time, always in the same order. Knows no threads.

use super::layout::BLOCK;
use super::simd::{LANES, Simd};
use super::tile::{ActBlock, GROUP};

/// Which function gates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x · sigmoid(x)`.
    Silu,
    /// GELU in its form with tanh.
    GeluTanh,
}

/// A root mean square norm.
#[derive(Clone, Copy)]
pub struct Norm<'a> {
    /// What the normed values are multiplied with; as long as a row, or as a head.
    pub weight: &'a [f32],
    /// Added to the mean of squares.
    pub epsilon: f32,
}

/// Which dimensions of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeStyle {
    /// `i` and `i + pairs`.
    Halves,
    /// `2i` and `2i + 1`.
    Interleaved,
}

/// Rotary positions: the angles of every row of a step.
#[derive(Clone, Copy)]
pub struct Rope<'a> {
    /// Cosines, rows × pairs.
    pub cos: &'a [f32],
    /// Sines, rows × pairs.
    pub sin: &'a [f32],
    /// Pairs that turn; dimensions from `2 · pairs` on stay.
    pub pairs: usize,
    /// Which dimensions are a pair.
    pub style: RopeStyle,
}

/// Sixteen values from `at`, zeros after the end.
///
/// # Safety
/// The instruction set is there.
#[inline(always)]
pub unsafe fn load<S: Simd>(from: &[f32], at: usize) -> S::F {
    // SAFETY: sixteen values are there, or a copy of what is there with zeros behind.
    unsafe {
        if from.len() - at >= LANES {
            return S::load(from.as_ptr().add(at));
        }
        let mut rest = [0.0; LANES];
        rest[..from.len() - at].copy_from_slice(&from[at..]);
        S::load(rest.as_ptr())
    }
}

/// Sixteen values to `at`, or as many as there is room for.
///
/// # Safety
/// The instruction set is there.
#[inline(always)]
pub unsafe fn store<S: Simd>(to: &mut [f32], at: usize, value: S::F) {
    // SAFETY: sixteen values have room, or they go through a copy that has.
    unsafe {
        if to.len() - at >= LANES {
            return S::store(to.as_mut_ptr().add(at), value);
        }
        let mut rest = [0.0; LANES];
        S::store(rest.as_mut_ptr(), value);
        let left = to.len() - at;
        to[at..].copy_from_slice(&rest[..left]);
    }
}

/// `1 / sqrt(mean of squares + epsilon)`.
///
/// # Safety
/// The instruction set is there.
#[inline(always)]
pub unsafe fn norm_scale<S: Simd>(x: &[f32], epsilon: f32) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let mut squares = S::splat(0.0);
        for at in (0..x.len()).step_by(LANES) {
            let part = load::<S>(x, at);
            squares = S::fma(part, part, squares);
        }
        // Lengths of rows are exact in f32.
        1.0 / (S::sum(squares) / x.len() as f32 + epsilon).sqrt()
    }
}

/// `y = norm(x)`, or `y += norm(x)`.
///
/// # Safety
/// The instruction set is there.
#[inline(always)]
pub unsafe fn norm<S: Simd>(x: &[f32], norm: Norm<'_>, y: &mut [f32], add: bool) {
    // SAFETY: the caller's promise.
    unsafe {
        let scale = S::splat(norm_scale::<S>(x, norm.epsilon));
        for at in (0..x.len()).step_by(LANES) {
            let part = S::mul(load::<S>(x, at), scale);
            let mut value = S::mul(part, load::<S>(norm.weight, at));
            if add {
                value = S::add(load::<S>(y, at), value);
            }
            store::<S>(y, at, value);
        }
    }
}

/// `x = norm(x)`, in place.
///
/// # Safety
/// The instruction set is there.
#[inline(always)]
pub unsafe fn norm_in_place<S: Simd>(x: &mut [f32], norm: Norm<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        let scale = S::splat(norm_scale::<S>(x, norm.epsilon));
        for at in (0..x.len()).step_by(LANES) {
            let part = S::mul(load::<S>(x, at), scale);
            store::<S>(x, at, S::mul(part, load::<S>(norm.weight, at)));
        }
    }
}

/// Turns one head by the angles of its row.
///
/// # Safety
/// The instruction set is there. (It asks for none by itself; the order of sums is the compiler's.)
#[inline(always)]
pub unsafe fn rope<S: Simd>(head: &mut [f32], cos: &[f32], sin: &[f32], style: RopeStyle) {
    let pairs = cos.len();
    if style == RopeStyle::Halves && pairs.is_multiple_of(LANES) && head.len() >= 2 * pairs {
        for at in (0..pairs).step_by(LANES) {
            // SAFETY: the caller's promise; both halves have `pairs` values.
            unsafe {
                let (a, b) = (load::<S>(head, at), load::<S>(head, pairs + at));
                let (c, s) = (load::<S>(cos, at), load::<S>(sin, at));
                let minus = S::sub(S::splat(0.0), S::mul(b, s));
                store::<S>(head, at, S::fma(a, c, minus));
                store::<S>(head, pairs + at, S::fma(a, s, S::mul(b, c)));
            }
        }
        return;
    }
    for at in 0..pairs {
        let (first, second) = match style {
            RopeStyle::Halves => (at, at + pairs),
            RopeStyle::Interleaved => (2 * at, 2 * at + 1),
        };
        let (a, b) = (head[first], head[second]);
        head[first] = a * cos[at] - b * sin[at];
        head[second] = a * sin[at] + b * cos[at];
    }
}

/// eˣ of every lane, to about one unit in the last place; 0 from −87 down.
///
/// The range is halved to ±ln 2 / 2, where a polynomial does (Cody and Waite's way, coefficients of
/// the Taylor series up to x⁷).
///
/// # Safety
/// The instruction set is there.
#[inline(always)]
pub unsafe fn exp<S: Simd>(x: S::F) -> S::F {
    // SAFETY: the caller's promise.
    unsafe {
        let bounded = S::max(S::splat(-87.0), S::min(S::splat(88.0), x));
        let n = S::round(S::mul(bounded, S::splat(std::f32::consts::LOG2_E)));
        let rest = S::fma(n, S::splat(-0.693_359_4), bounded);
        let rest = S::fma(n, S::splat(2.121_944_4e-4), rest);
        let mut sum = S::splat(1.0 / 5040.0);
        for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            sum = S::fma(sum, rest, S::splat(coefficient));
        }
        S::where_above(x, -87.0, S::mul(sum, S::power_of_two(n)))
    }
}

/// `activation(gate) · up`.
///
/// # Safety
/// The instruction set is there.
#[inline(always)]
pub unsafe fn gate<S: Simd>(x: S::F, up: S::F, activation: Activation) -> S::F {
    // SAFETY: the caller's promise.
    unsafe {
        let bent = match activation {
            Activation::Silu => x,
            Activation::GeluTanh => {
                // 0.5 · (1 + tanh u) is sigmoid(2u), u = sqrt(2/π) · (x + 0.044715 x³).
                let cube = S::mul(S::mul(x, x), S::mul(x, S::splat(0.044_715)));
                S::mul(S::add(x, cube), S::splat(1.595_769))
            }
        };
        let e = exp::<S>(S::sub(S::splat(0.0), bent));
        S::mul(S::div(x, S::add(S::splat(1.0), e)), up)
    }
}

/// Makes row `row` of a group into numbers, 32 values a block: `scale` is the largest magnitude
/// divided by 127. What is no number, or infinite, makes its block's scale so.
///
/// # Safety
/// The instruction set is there.
#[inline(always)]
pub unsafe fn quantize<S: Simd>(x: &[f32], blocks: &mut [ActBlock], row: usize) {
    debug_assert!(row < GROUP && x.len() == blocks.len() * BLOCK, "whole blocks of one row");
    for (x, block) in x.chunks_exact(BLOCK).zip(blocks) {
        // SAFETY: the caller's promise; a block has 32 values.
        unsafe {
            let (a, b) = (S::load(x.as_ptr()), S::load(x.as_ptr().add(LANES)));
            let most = S::largest(S::max(S::abs(a), S::abs(b)));
            // Nothing so small is worth a number, and its inverse would be infinite.
            let (scale, inverse) =
                if most < 1e-30 { (0.0, 0.0) } else { (most / 127.0, 127.0 / most) };
            let a_rounded = S::round(S::mul(a, S::splat(inverse)));
            let b_rounded = S::round(S::mul(b, S::splat(inverse)));
            let quants = block.quants[row].as_mut_ptr();
            S::store_i8(quants, a_rounded);
            S::store_i8(quants.add(LANES), b_rounded);
            let sums = [S::sum(a_rounded), S::sum(b_rounded)];
            // Zero, unless a value is none: then it must not be lost.
            let odd = S::sum(S::mul(S::add(a, b), S::splat(0.0)));
            block.scale[row] = scale + odd;
            block.sum[row] = (scale + odd) * (sums[0] + sums[1]);
            #[allow(clippy::cast_possible_truncation)] // whole, below 2¹²
            for (half, sum) in sums.into_iter().enumerate() {
                block.halves[half][row] = sum as i32;
            }
        }
    }
}

/// Bends values so that none exceeds `cap`: `cap · tanh(value / cap)`.
pub fn soft_cap(values: &mut [f32], cap: f32) {
    for value in values {
        *value = cap * (*value / cap).tanh();
    }
}
