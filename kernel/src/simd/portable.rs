//! The sixteen lanes in plain Rust: what every other form is tested against, and what runs where the
//! processor has none of their instructions.

use half::f16;

use super::super::kind::Kind;
use super::super::tile::{Format, Operands, Products, TileFn, tile};
use super::Simd;

/// Plain Rust.
#[derive(Clone, Copy)]
pub struct Portable;

type F = [f32; 16];

#[inline(always)]
fn each(f: impl FnMut(usize) -> f32) -> F {
    std::array::from_fn(f)
}

#[inline(always)]
unsafe fn read<T: Copy, const N: usize>(from: *const T) -> [T; N] {
    // SAFETY: `Simd` says that N values can be read; an array of them is aligned as one is.
    unsafe { from.cast::<[T; N]>().read_unaligned() }
}

#[inline(always)]
fn pairs(a: [u8; 64], f: impl Fn(u16) -> u16) -> [u8; 64] {
    let mut out = a;
    for pair in out.chunks_exact_mut(2) {
        let shifted = f(u16::from_le_bytes([pair[0], pair[1]])).to_le_bytes();
        pair.copy_from_slice(&shifted);
    }
    out
}

/// Halves are added to halves, as the vector forms do.
#[inline(always)]
fn fold(mut a: F, f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = 8;
    while width > 0 {
        for lane in 0..width {
            a[lane] = f(a[lane], a[lane + width]);
        }
        width /= 2;
    }
    a[0]
}

#[allow(clippy::undocumented_unsafe_blocks)] // each reads or writes what `Simd` says it may
impl Simd for Portable {
    type F = F;
    type I = [i32; 16];
    type B = [u8; 64];
    const SHARES: bool = false;

    #[inline(always)]
    unsafe fn splat(value: f32) -> F {
        [value; 16]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> F {
        unsafe { read(from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: F) {
        unsafe { to.cast::<F>().write_unaligned(value) }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> F {
        unsafe { read::<u16, 16>(from) }.map(|bits| f16::from_bits(bits).to_f32())
    }
    #[inline(always)]
    unsafe fn store_f16(to: *mut u16, value: F) {
        let halves = value.map(|value| f16::from_f32(value).to_bits());
        unsafe { to.cast::<[u16; 16]>().write_unaligned(halves) }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> F {
        unsafe { read::<u16, 16>(from) }.map(|bits| f32::from_bits(u32::from(bits) << 16))
    }
    #[inline(always)]
    unsafe fn load_u8(from: *const u8) -> F {
        unsafe { read::<u8, 16>(from) }.map(f32::from)
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> F {
        unsafe { read::<i8, 16>(from) }.map(f32::from)
    }
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)] // it saturates, as is meant
    unsafe fn store_i8(to: *mut i8, value: F) {
        let bytes = value.map(|value| value.round_ties_even() as i8);
        unsafe { to.cast::<[i8; 16]>().write_unaligned(bytes) }
    }
    #[inline(always)]
    unsafe fn add(a: F, b: F) -> F {
        each(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn sub(a: F, b: F) -> F {
        each(|i| a[i] - b[i])
    }
    #[inline(always)]
    unsafe fn mul(a: F, b: F) -> F {
        each(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn div(a: F, b: F) -> F {
        each(|i| a[i] / b[i])
    }
    #[inline(always)]
    unsafe fn fma(a: F, b: F, c: F) -> F {
        each(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn max(a: F, b: F) -> F {
        each(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    unsafe fn min(a: F, b: F) -> F {
        each(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    unsafe fn abs(a: F) -> F {
        a.map(f32::abs)
    }
    #[inline(always)]
    unsafe fn round(a: F) -> F {
        a.map(f32::round_ties_even)
    }
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // whole, −126 to 127
    unsafe fn power_of_two(n: F) -> F {
        n.map(|n| f32::from_bits(((n as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    unsafe fn where_above(a: F, bound: f32, then: F) -> F {
        each(|i| if a[i] <= bound { 0.0 } else { then[i] })
    }
    #[inline(always)]
    unsafe fn keep(a: F, first: usize, end: usize, other: f32) -> F {
        each(|i| if i >= first && i < end { a[i] } else { other })
    }
    #[inline(always)]
    unsafe fn sum(a: F) -> f32 {
        fold(a, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn largest(a: F) -> f32 {
        fold(a, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn splat_int(value: i32) -> [i32; 16] {
        [value; 16]
    }
    #[inline(always)]
    #[allow(clippy::cast_precision_loss)] // as the instruction does
    unsafe fn to_float(a: [i32; 16]) -> F {
        a.map(|value| value as f32)
    }
    #[inline(always)]
    unsafe fn bytes(from: *const u8) -> [u8; 64] {
        unsafe { read(from) }
    }
    #[inline(always)]
    unsafe fn and(a: [u8; 64], mask: u8) -> [u8; 64] {
        a.map(|byte| byte & mask)
    }
    #[inline(always)]
    unsafe fn or(a: [u8; 64], b: [u8; 64]) -> [u8; 64] {
        std::array::from_fn(|i| a[i] | b[i])
    }
    #[inline(always)]
    unsafe fn shift_right<const BITS: u32>(a: [u8; 64]) -> [u8; 64] {
        pairs(a, |pair| pair >> BITS)
    }
    #[inline(always)]
    unsafe fn shift_left<const BITS: u32>(a: [u8; 64]) -> [u8; 64] {
        pairs(a, |pair| pair << BITS)
    }
    #[inline(always)]
    unsafe fn dot<const WIDE: bool, const G: usize>(
        sum: [i32; 16],
        codes: [u8; 64],
        row: *const i8,
    ) -> [i32; 16] {
        let four = unsafe { row.cast::<[i8; 4]>().add(G).read() }.map(i32::from);
        std::array::from_fn(|lane| {
            let codes = &codes[lane * 4..lane * 4 + 4];
            (0..4).fold(sum[lane], |sum, i| sum + i32::from(codes[i]) * four[i])
        })
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {}
}

/// The kernel for tiles of `kind`.
pub fn tile_fn(kind: Kind) -> TileFn {
    unsafe fn with<F: Format>(of: &Operands, out: &mut Products) {
        // SAFETY: the caller's promise.
        unsafe { tile::<Portable, F>(of, out) }
    }
    crate::tile::tile_table!(kind, with)
}
