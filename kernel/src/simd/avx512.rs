//! The sixteen lanes as one register of AVX-512, byte products by VNNI.

use std::arch::asm;
use std::arch::x86_64::*;

use super::super::kind::Kind;
use super::super::tile::{Format, Operands, Products, TileFn, tile};
use super::{Simd, Work};

/// AVX-512 with VNNI.
#[derive(Clone, Copy)]
pub struct Avx512;

/// Does `work` with AVX-512.
///
/// # Safety
/// The processor has the features named here; and what `work` asks for.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c,bmi2")]
pub unsafe fn run<W: Work>(work: W) {
    // SAFETY: the caller's promise.
    unsafe { work.run::<Avx512>() }
}

/// Left to itself, the compiler takes the four numbers through a general register where there are
/// minima, which is half as fast as the instruction's own way to spread them.
///
/// # Safety
/// The processor has the features named here, and `row` has four numbers in group `G`.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn dot<const G: usize>(mut sum: __m512i, codes: __m512i, row: *const i8) -> __m512i {
    // SAFETY: it reads the four numbers, and nothing else but its operands.
    unsafe {
        asm!(
            "vpdpbusd {sum}, {codes}, dword ptr [{row} + 4 * {group}]{{1to16}}",
            sum = inout(zmm_reg) sum,
            codes = in(zmm_reg) codes,
            row = in(reg) row,
            group = const G,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    sum
}

const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

#[allow(clippy::undocumented_unsafe_blocks)] // `Simd` says what the caller promises
impl Simd for Avx512 {
    type F = __m512;
    type I = __m512i;
    type B = __m512i;

    #[inline(always)]
    unsafe fn splat(value: f32) -> __m512 {
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: __m512) {
        unsafe { _mm512_storeu_ps(to, value) }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }
    #[inline(always)]
    unsafe fn store_f16(to: *mut u16, value: __m512) {
        unsafe {
            _mm256_storeu_si256(to.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value))
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> __m512 {
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    unsafe fn load_u8(from: *const u8) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()))) }
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))) }
    }
    #[inline(always)]
    unsafe fn store_i8(to: *mut i8, value: __m512) {
        unsafe {
            let bytes = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(value));
            _mm_storeu_si128(to.cast(), bytes);
        }
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn min(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn abs(a: __m512) -> __m512 {
        unsafe { _mm512_abs_ps(a) }
    }
    #[inline(always)]
    unsafe fn round(a: __m512) -> __m512 {
        unsafe { _mm512_roundscale_ps::<NEAREST>(a) }
    }
    #[inline(always)]
    unsafe fn power_of_two(n: __m512) -> __m512 {
        unsafe {
            let biased = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
        }
    }
    #[inline(always)]
    unsafe fn where_above(a: __m512, bound: f32, then: __m512) -> __m512 {
        unsafe {
            let above = _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(a, _mm512_set1_ps(bound));
            _mm512_maskz_mov_ps(above, then)
        }
    }
    #[inline(always)]
    unsafe fn keep(a: __m512, first: usize, end: usize, other: f32) -> __m512 {
        let kept = (0xffff_u32 >> (16 - end.min(16))) & (0xffff_u32 << first.min(16));
        unsafe { _mm512_mask_mov_ps(_mm512_set1_ps(other), kept as u16, a) }
    }
    #[inline(always)]
    unsafe fn sum(a: __m512) -> f32 {
        unsafe {
            let half = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            super::avx2::sum_of_eight(half)
        }
    }
    #[inline(always)]
    unsafe fn largest(a: __m512) -> f32 {
        unsafe {
            let half = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            super::avx2::largest_of_eight(half)
        }
    }
    #[inline(always)]
    unsafe fn splat_int(value: i32) -> __m512i {
        unsafe { _mm512_set1_epi32(value) }
    }
    #[inline(always)]
    unsafe fn to_float(a: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(a) }
    }
    #[inline(always)]
    unsafe fn bytes(from: *const u8) -> __m512i {
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn and(a: __m512i, mask: u8) -> __m512i {
        unsafe { _mm512_and_si512(a, _mm512_set1_epi8(mask.cast_signed())) }
    }
    #[inline(always)]
    unsafe fn or(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_or_si512(a, b) }
    }
    #[inline(always)]
    unsafe fn shift_right<const BITS: u32>(a: __m512i) -> __m512i {
        unsafe { _mm512_srli_epi16::<BITS>(a) }
    }
    #[inline(always)]
    unsafe fn shift_left<const BITS: u32>(a: __m512i) -> __m512i {
        unsafe { _mm512_slli_epi16::<BITS>(a) }
    }
    #[inline(always)]
    unsafe fn dot<const WIDE: bool, const G: usize>(
        sum: __m512i,
        codes: __m512i,
        row: *const i8,
    ) -> __m512i {
        unsafe { dot::<G>(sum, codes, row) }
    }
    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
}

/// The kernel for tiles of `kind`.
pub fn tile_fn(kind: Kind) -> TileFn {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c,bmi2")]
    unsafe fn with<F: Format>(of: &Operands, out: &mut Products) {
        // SAFETY: the caller's promise.
        unsafe { tile::<Avx512, F>(of, out) }
    }
    crate::tile::tile_table!(kind, with)
}
