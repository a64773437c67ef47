//! The sixteen lanes as two registers of AVX2, in the same order of operations as AVX-512, so that
//! both give the same bits.

use std::arch::x86_64::*;

use super::super::kind::Kind;
use super::super::tile::{Format, Operands, Products, TileFn, tile};
use super::{Simd, Work};

/// AVX2 with FMA and F16C; with byte products in one instruction where there is AVX-VNNI.
#[derive(Clone, Copy)]
pub struct Avx2<const VNNI: bool>;

/// Does `work` with AVX2.
///
/// # Safety
/// The processor has the features named here; and what `work` asks for.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn run<W: Work>(work: W) {
    // SAFETY: the caller's promise.
    unsafe { work.run::<Avx2<false>>() }
}

/// Eight lanes, halves added to halves.
#[inline(always)]
pub unsafe fn sum_of_eight(a: __m256) -> f32 {
    // SAFETY: the caller has AVX2.
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
    }
}

/// The largest of eight lanes.
#[inline(always)]
pub unsafe fn largest_of_eight(a: __m256) -> f32 {
    // SAFETY: the caller has AVX2.
    unsafe {
        let four = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
        let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
    }
}

const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

type Pair = [__m256; 2];
type Ints = [__m256i; 2];

macro_rules! both {
    ($f:ident, $($arg:expr),+) => {
        [$f($($arg[0]),+), $f($($arg[1]),+)]
    };
}

#[allow(clippy::undocumented_unsafe_blocks)] // `Simd` says what the caller promises
impl<const VNNI: bool> Simd for Avx2<VNNI> {
    type F = Pair;
    type I = Ints;
    type B = Ints;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Pair {
        unsafe { [_mm256_set1_ps(value); 2] }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Pair {
        unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: Pair) {
        unsafe {
            _mm256_storeu_ps(to, value[0]);
            _mm256_storeu_ps(to.add(8), value[1]);
        }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Pair {
        unsafe {
            let low = _mm_loadu_si128(from.cast());
            [_mm256_cvtph_ps(low), _mm256_cvtph_ps(_mm_loadu_si128(from.add(8).cast()))]
        }
    }
    #[inline(always)]
    unsafe fn store_f16(to: *mut u16, value: Pair) {
        unsafe {
            _mm_storeu_si128(to.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value[0]));
            _mm_storeu_si128(
                to.add(8).cast(),
                _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value[1]),
            );
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Pair {
        unsafe {
            let eight = |at: *const u16| {
                let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(at.cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
            };
            [eight(from), eight(from.add(8))]
        }
    }
    #[inline(always)]
    unsafe fn load_u8(from: *const u8) -> Pair {
        unsafe {
            let low = _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast()));
            let high = _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.add(8).cast()));
            [_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high)]
        }
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Pair {
        unsafe {
            let low = _mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()));
            let high = _mm256_cvtepi8_epi32(_mm_loadl_epi64(from.add(8).cast()));
            [_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high)]
        }
    }
    #[inline(always)]
    unsafe fn store_i8(to: *mut i8, value: Pair) {
        unsafe {
            let [low, high] = both!(_mm256_cvtps_epi32, value);
            // Packing works within halves: the permutation puts the sixteen in order.
            let words = _mm256_permute4x64_epi64::<0b1101_1000>(_mm256_packs_epi32(low, high));
            let (first, second) =
                (_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(to.cast(), _mm_packs_epi16(first, second));
        }
    }
    #[inline(always)]
    unsafe fn add(a: Pair, b: Pair) -> Pair {
        unsafe { both!(_mm256_add_ps, a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: Pair, b: Pair) -> Pair {
        unsafe { both!(_mm256_sub_ps, a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: Pair, b: Pair) -> Pair {
        unsafe { both!(_mm256_mul_ps, a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: Pair, b: Pair) -> Pair {
        unsafe { both!(_mm256_div_ps, a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: Pair, b: Pair, c: Pair) -> Pair {
        unsafe { both!(_mm256_fmadd_ps, a, b, c) }
    }
    #[inline(always)]
    unsafe fn max(a: Pair, b: Pair) -> Pair {
        unsafe { both!(_mm256_max_ps, a, b) }
    }
    #[inline(always)]
    unsafe fn min(a: Pair, b: Pair) -> Pair {
        unsafe { both!(_mm256_min_ps, a, b) }
    }
    #[inline(always)]
    unsafe fn abs(a: Pair) -> Pair {
        let sign = unsafe { [_mm256_set1_ps(-0.0); 2] };
        unsafe { both!(_mm256_andnot_ps, sign, a) }
    }
    #[inline(always)]
    unsafe fn round(a: Pair) -> Pair {
        unsafe { [_mm256_round_ps::<NEAREST>(a[0]), _mm256_round_ps::<NEAREST>(a[1])] }
    }
    #[inline(always)]
    unsafe fn power_of_two(n: Pair) -> Pair {
        unsafe {
            let eight = |n: __m256| {
                let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
            };
            [eight(n[0]), eight(n[1])]
        }
    }
    #[inline(always)]
    unsafe fn where_above(a: Pair, bound: f32, then: Pair) -> Pair {
        unsafe {
            let eight = |a: __m256, then: __m256| {
                _mm256_and_ps(_mm256_cmp_ps::<_CMP_NLE_UQ>(a, _mm256_set1_ps(bound)), then)
            };
            [eight(a[0], then[0]), eight(a[1], then[1])]
        }
    }
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)] // lanes: 0 to 16
    unsafe fn keep(a: Pair, first: usize, end: usize, other: f32) -> Pair {
        let (first, end) = (first.min(16) as i32, end.min(16) as i32);
        unsafe {
            let eight = |a: __m256, base: i32| {
                let lane = _mm256_add_epi32(
                    _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
                    _mm256_set1_epi32(base),
                );
                let from = _mm256_cmpgt_epi32(lane, _mm256_set1_epi32(first - 1));
                let below = _mm256_cmpgt_epi32(_mm256_set1_epi32(end), lane);
                let kept = _mm256_castsi256_ps(_mm256_and_si256(from, below));
                _mm256_blendv_ps(_mm256_set1_ps(other), a, kept)
            };
            [eight(a[0], 0), eight(a[1], 8)]
        }
    }
    #[inline(always)]
    unsafe fn sum(a: Pair) -> f32 {
        unsafe { sum_of_eight(_mm256_add_ps(a[0], a[1])) }
    }
    #[inline(always)]
    unsafe fn largest(a: Pair) -> f32 {
        unsafe { largest_of_eight(_mm256_max_ps(a[0], a[1])) }
    }
    #[inline(always)]
    unsafe fn splat_int(value: i32) -> Ints {
        unsafe { [_mm256_set1_epi32(value); 2] }
    }
    #[inline(always)]
    unsafe fn to_float(a: Ints) -> Pair {
        unsafe { both!(_mm256_cvtepi32_ps, a) }
    }
    #[inline(always)]
    unsafe fn bytes(from: *const u8) -> Ints {
        unsafe { [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(32).cast())] }
    }
    #[inline(always)]
    unsafe fn and(a: Ints, mask: u8) -> Ints {
        let mask = unsafe { [_mm256_set1_epi8(mask.cast_signed()); 2] };
        unsafe { both!(_mm256_and_si256, a, mask) }
    }
    #[inline(always)]
    unsafe fn or(a: Ints, b: Ints) -> Ints {
        unsafe { both!(_mm256_or_si256, a, b) }
    }
    #[inline(always)]
    #[allow(clippy::cast_possible_wrap)] // a few bits
    unsafe fn shift_right<const BITS: u32>(a: Ints) -> Ints {
        let count = unsafe { _mm_cvtsi32_si128(BITS as i32) };
        unsafe { [_mm256_srl_epi16(a[0], count), _mm256_srl_epi16(a[1], count)] }
    }
    #[inline(always)]
    #[allow(clippy::cast_possible_wrap)] // a few bits
    unsafe fn shift_left<const BITS: u32>(a: Ints) -> Ints {
        let count = unsafe { _mm_cvtsi32_si128(BITS as i32) };
        unsafe { [_mm256_sll_epi16(a[0], count), _mm256_sll_epi16(a[1], count)] }
    }
    #[inline(always)]
    unsafe fn dot<const WIDE: bool, const G: usize>(
        sum: Ints,
        codes: Ints,
        row: *const i8,
    ) -> Ints {
        unsafe {
            let four = _mm256_set1_epi32(row.cast::<i32>().add(G).read_unaligned());
            if VNNI {
                return [
                    _mm256_dpbusd_avx_epi32(sum[0], codes[0], four),
                    _mm256_dpbusd_avx_epi32(sum[1], codes[1], four),
                ];
            }
            let ones = _mm256_set1_epi16(1);
            let pairs = |codes: __m256i| _mm256_madd_epi16(_mm256_maddubs_epi16(codes, four), ones);
            // Two products of 8-bit codes can exceed 16 bits, where the instruction saturates: the
            // seven low bits and the highest one go through it apart.
            let eight = |sum: __m256i, codes: __m256i| {
                if WIDE {
                    let low = _mm256_and_si256(codes, _mm256_set1_epi8(0x7f));
                    let high = _mm256_andnot_si256(_mm256_set1_epi8(0x7f), codes);
                    let high =
                        _mm256_and_si256(_mm256_srli_epi16::<1>(high), _mm256_set1_epi8(0x40));
                    let twice = _mm256_slli_epi32::<1>(pairs(high));
                    _mm256_add_epi32(sum, _mm256_add_epi32(pairs(low), twice))
                } else {
                    _mm256_add_epi32(sum, pairs(codes))
                }
            };
            [eight(sum[0], codes[0]), eight(sum[1], codes[1])]
        }
    }
    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
}

/// The kernel for tiles of `kind`.
pub fn tile_fn(kind: Kind) -> TileFn {
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn with<F: Format>(of: &Operands, out: &mut Products) {
        // SAFETY: the caller's promise.
        unsafe { tile::<Avx2<false>, F>(of, out) }
    }
    crate::tile::tile_table!(kind, with)
}

/// The same with AVX-VNNI.
pub fn tile_fn_vnni(kind: Kind) -> TileFn {
    #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
    unsafe fn with<F: Format>(of: &Operands, out: &mut Products) {
        // SAFETY: the caller's promise.
        unsafe { tile::<Avx2<true>, F>(of, out) }
    }
    crate::tile::tile_table!(kind, with)
}
