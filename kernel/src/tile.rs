//! The innermost kernel: one tile of 16 rows of weights times up to eight rows of activations. Lanes
//! are rows of weights, and every lane adds its columns in order: so no sum depends on how many rows
//! of activations go together, or on where they stand. Knows no threads.

use super::kind::Kind;
use super::layout::{BLOCK, LINE, TILE_ROWS};
use super::simd::{Isa, Simd};

/// Rows of activations that share one look at the weights.
pub const GROUP: usize = 8;

/// Thirty-two columns of eight rows of activations, as 8-bit numbers.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct ActBlock {
    /// The numbers, a row after the other.
    pub quants: [[i8; BLOCK]; GROUP],
    /// What one of them stands for.
    pub scale: [f32; GROUP],
    /// Sum of the values (scale included).
    pub sum: [f32; GROUP],
    /// Sums of the numbers: of the first 16 and of the last 16.
    pub halves: [[i32; GROUP]; 2],
}

impl ActBlock {
    /// All zero.
    pub const ZERO: ActBlock = ActBlock {
        quants: [[0; BLOCK]; GROUP],
        scale: [0.0; GROUP],
        sum: [0.0; GROUP],
        halves: [[0; GROUP]; 2],
    };
}

/// What a tile gives: 16 values for each row of activations.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Products(pub [[f32; TILE_ROWS]; GROUP]);

impl Products {
    /// All zero.
    pub const ZERO: Products = Products([[0.0; TILE_ROWS]; GROUP]);
}

/// A tile and what it is multiplied with.
pub struct Operands {
    /// Scales.
    pub head: *const u8,
    /// Codes, or floats.
    pub body: *const u8,
    /// Columns of the weights.
    pub columns: usize,
    /// Activations of this group as numbers, a block of 32 columns after the other.
    pub blocks: *const ActBlock,
    /// Activations of this group as floats, `columns` apart; for weights that are floats.
    pub x: *const f32,
    /// Rows of activations, 1 to 8.
    pub rows: usize,
    /// Whether these weights are looked at for the first time: then those ahead are asked for.
    pub fresh: bool,
}

/// Multiplies one tile.
///
/// # Safety
/// The instruction set is there, and the operands' pointers are good for a tile of the function's
/// kind and for `rows` rows.
pub type TileFn = unsafe fn(&Operands, &mut Products);

/// Runs `$body` with `$i` a constant from 0 to 7, as long as it is below `$n`.
macro_rules! unrolled {
    ($i:ident in $n:expr => $body:block) => {
        unrolled!(@ $i, $n, $body, 0 1 2 3 4 5 6 7)
    };
    (@ $i:ident, $n:expr, $body:block, $($at:literal)*) => {
        $({
            const $i: usize = $at;
            #[allow(clippy::absurd_extreme_comparisons)] // only for the first
            if $i < $n $body
        })*
    };
}

/// A type of weights, known to the compiler. Its properties are constants of their own, so that code
/// for the other types is not even made.
pub trait Format {
    /// Which.
    const KIND: Kind;
    /// Floats, not codes.
    const FLOAT: bool = Self::KIND.is_float();
    /// Lines of a block.
    const LINES: usize = Self::KIND.lines();
    /// Scales change after 16 values.
    const HALVES: bool = Self::KIND.halves();
    /// There are minima.
    const MINIMA: bool = Self::KIND.has_minima();
    /// Scales are products of a block's and a sub-block's.
    const PARTS: bool = Self::KIND.unit_blocks() > 1;
    /// Codes are taken as they are.
    const UNSIGNED: bool = Self::KIND.offset() == 0;
    /// Codes have eight bits.
    const WIDE: bool = Self::KIND.lines() == 8;
}

macro_rules! formats {
    ($($name:ident)*) => { $(
        pub struct $name;
        impl Format for $name {
            const KIND: Kind = Kind::$name;
        }
    )* };
}

#[allow(non_camel_case_types, missing_docs)] // the names of the kinds
pub mod format {
    use super::{Format, Kind};
    formats! { F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K }
}

/// The kernel of an instruction set for a type of weights.
macro_rules! tile_table {
    ($kind:expr, $tile:ident) => {{
        use crate::kind::Kind;
        use crate::tile::format;
        let tile: crate::tile::TileFn = match $kind {
            Kind::F32 => $tile::<format::F32>,
            Kind::F16 => $tile::<format::F16>,
            Kind::BF16 => $tile::<format::BF16>,
            Kind::Q4_0 => $tile::<format::Q4_0>,
            Kind::Q4_1 => $tile::<format::Q4_1>,
            Kind::Q5_0 => $tile::<format::Q5_0>,
            Kind::Q5_1 => $tile::<format::Q5_1>,
            Kind::Q8_0 => $tile::<format::Q8_0>,
            Kind::Q2_K => $tile::<format::Q2_K>,
            Kind::Q3_K => $tile::<format::Q3_K>,
            Kind::Q4_K => $tile::<format::Q4_K>,
            Kind::Q5_K => $tile::<format::Q5_K>,
            Kind::Q6_K => $tile::<format::Q6_K>,
        };
        tile
    }};
}
pub(crate) use tile_table;

/// The kernel for `kind`, in the instructions of `isa`.
pub fn tile_fn(isa: Isa, kind: Kind) -> TileFn {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => super::simd::avx512::tile_fn(kind),
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni => super::simd::avx2::tile_fn_vnni(kind),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => super::simd::avx2::tile_fn(kind),
        _ => super::simd::portable::tile_fn(kind),
    }
}

/// All rows of a group: eight at once, the rest by four, two, one.
///
/// # Safety
/// That of [`TileFn`], for the kind of `F` and the instructions of `S`.
#[inline(always)]
pub unsafe fn tile<S: Simd, F: Format>(of: &Operands, out: &mut Products) {
    let mut row = 0;
    // SAFETY: the caller's promise; `row` and those after it are below `rows`.
    unsafe {
        if S::SHARES {
            while of.rows - row >= 8 {
                rows::<S, F, 8>(of, row, out);
                row += 8;
            }
            if of.rows - row >= 4 {
                rows::<S, F, 4>(of, row, out);
                row += 4;
            }
            if of.rows - row >= 2 {
                rows::<S, F, 2>(of, row, out);
                row += 2;
            }
        }
        while row < of.rows {
            rows::<S, F, 1>(of, row, out);
            row += 1;
        }
    }
}

#[inline(always)]
unsafe fn rows<S: Simd, F: Format, const N: usize>(of: &Operands, row: usize, out: &mut Products) {
    // SAFETY: the caller's promise.
    unsafe {
        if F::FLOAT {
            floats::<S, F, N>(of, row, out);
        } else {
            codes::<S, F, N>(of, row, out);
        }
    }
}

/// Weights that are floats.
#[inline(always)]
unsafe fn floats<S: Simd, F: Format, const N: usize>(
    of: &Operands,
    row: usize,
    out: &mut Products,
) {
    let size = TILE_ROWS * F::KIND.block_bytes();
    // SAFETY: a column of the tile is 16 values of the kind; `x` has `columns` values a row.
    unsafe {
        let x = of.x.add(row * of.columns);
        let mut sums = [S::splat(0.0); N];
        for column in 0..of.columns {
            let at = of.body.add(column * size);
            if of.fresh {
                S::prefetch(at.wrapping_add(PREFETCH));
            }
            let weights = match F::KIND {
                Kind::F16 => S::load_f16(at.cast()),
                Kind::BF16 => S::load_bf16(at.cast()),
                _ => S::load(at.cast()),
            };
            unrolled!(I in N => {
                sums[I] = S::fma(weights, S::splat(*x.add(I * of.columns + column)), sums[I]);
            });
        }
        unrolled!(I in N => { S::store(out.0[row + I].as_mut_ptr(), sums[I]); });
    }
}

/// How far ahead of their first use weights are asked for, bytes.
const PREFETCH: usize = 8 * 320;

/// Weights that are codes: whole-number products within a block, then its scales.
#[inline(always)]
unsafe fn codes<S: Simd, F: Format, const N: usize>(of: &Operands, row: usize, out: &mut Products) {
    // SAFETY: head and body are laid out as `layout` says for this kind; `blocks` has one for every
    // 32 columns, and `row + N` is at most eight.
    unsafe {
        let mut sums = [S::splat(0.0); N];
        for at in 0..of.columns / BLOCK {
            let lines = of.body.add(at * F::LINES * LINE);
            let acts = &*of.blocks.add(at);
            if of.fresh {
                unrolled!(L in F::LINES => {
                    S::prefetch(lines.wrapping_add(PREFETCH + L * LINE));
                });
            }
            if F::HALVES {
                let mut first = start::<S, F, N>(acts, row, &[0]);
                unrolled!(G in 4 => { group::<S, F, N, G>(&mut first, lines, acts, row); });
                scaled::<S, F, N>(&mut sums, &first, of.head, acts, (at, 0), row);
                let mut second = start::<S, F, N>(acts, row, &[1]);
                unrolled!(G in 8 => {
                    if G >= 4 {
                        group::<S, F, N, G>(&mut second, lines, acts, row);
                    }
                });
                scaled::<S, F, N>(&mut sums, &second, of.head, acts, (at, 1), row);
            } else {
                let mut dots = start::<S, F, N>(acts, row, &[0, 1]);
                unrolled!(G in 4 => {
                    group::<S, F, N, G>(&mut dots, lines, acts, row);
                    group::<S, F, N, { G + 4 }>(&mut dots, lines, acts, row);
                });
                scaled::<S, F, N>(&mut sums, &dots, of.head, acts, (at, 0), row);
            }
        }
        unrolled!(I in N => { S::store(out.0[row + I].as_mut_ptr(), sums[I]); });
    }
}

/// What the sums begin with: the offset of all codes, times the sum of the numbers.
#[inline(always)]
unsafe fn start<S: Simd, F: Format, const N: usize>(
    acts: &ActBlock,
    row: usize,
    halves: &[usize],
) -> [S::I; N] {
    // SAFETY: the instruction set is there.
    unsafe {
        let mut dots = [S::splat_int(0); N];
        if !F::UNSIGNED {
            unrolled!(I in N => {
                let sum = halves.iter().map(|&half| acts.halves[half][row + I]).sum::<i32>();
                dots[I] = S::splat_int(-F::KIND.offset() * sum);
            });
        }
        dots
    }
}

/// Four columns: one line of codes meets four numbers of each row.
#[inline(always)]
unsafe fn group<S: Simd, F: Format, const N: usize, const G: usize>(
    dots: &mut [S::I; N],
    lines: *const u8,
    acts: &ActBlock,
    row: usize,
) {
    // SAFETY: `lines` are those of a block; a row of numbers has 32.
    unsafe {
        let codes = codes_of::<S, F, G>(lines);
        unrolled!(I in N => {
            let numbers = acts.quants.as_ptr().cast::<i8>().add((row + I) * BLOCK);
            dots[I] = if F::WIDE {
                S::dot::<true, G>(dots[I], codes, numbers)
            } else {
                S::dot::<false, G>(dots[I], codes, numbers)
            };
        });
    }
}

/// The codes of group `G` of a block, as `layout` has put them.
#[inline(always)]
unsafe fn codes_of<S: Simd, F: Format, const G: usize>(lines: *const u8) -> S::B {
    // SAFETY: `lines` are those of a block of this kind.
    unsafe {
        let line = |at: usize| S::bytes(lines.add(at * LINE));
        match F::LINES {
            8 => line(G),
            2 => two_bits::<S, G>(line(G / 4)),
            3 => {
                let high = match G {
                    0 => S::shift_left::<2>(line(2)),
                    1 => S::shift_left::<1>(line(2)),
                    2 => line(2),
                    3 => S::shift_right::<1>(line(2)),
                    4 => S::shift_right::<2>(line(2)),
                    5 => S::shift_right::<3>(line(2)),
                    6 => S::shift_right::<4>(line(2)),
                    _ => S::shift_right::<5>(line(2)),
                };
                S::or(two_bits::<S, G>(line(G / 4)), S::and(high, 4))
            }
            lines_per_block => {
                let low = line(G % 4);
                let low = S::and(if G < 4 { low } else { S::shift_right::<4>(low) }, 15);
                match lines_per_block {
                    5 => {
                        let high = match G {
                            0 => S::shift_left::<4>(line(4)),
                            1 => S::shift_left::<3>(line(4)),
                            2 => S::shift_left::<2>(line(4)),
                            3 => S::shift_left::<1>(line(4)),
                            4 => line(4),
                            5 => S::shift_right::<1>(line(4)),
                            6 => S::shift_right::<2>(line(4)),
                            _ => S::shift_right::<3>(line(4)),
                        };
                        S::or(low, S::and(high, 16))
                    }
                    6 => {
                        let high = line(4 + G / 4);
                        let high = match G % 4 {
                            0 => S::shift_left::<4>(high),
                            1 => S::shift_left::<2>(high),
                            2 => high,
                            _ => S::shift_right::<2>(high),
                        };
                        S::or(low, S::and(high, 48))
                    }
                    _ => low,
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn two_bits<S: Simd, const G: usize>(line: S::B) -> S::B {
    // SAFETY: the instruction set is there.
    unsafe {
        let shifted = match G % 4 {
            0 => line,
            1 => S::shift_right::<2>(line),
            2 => S::shift_right::<4>(line),
            _ => S::shift_right::<6>(line),
        };
        S::and(shifted, 3)
    }
}

/// Adds the products of a block (or of its half), scaled, and its minima.
#[inline(always)]
unsafe fn scaled<S: Simd, F: Format, const N: usize>(
    sums: &mut [S::F; N],
    dots: &[S::I; N],
    head: *const u8,
    acts: &ActBlock,
    (at, half): (usize, usize),
    row: usize,
) {
    // SAFETY: the head is laid out as `layout` says.
    unsafe {
        let unit = head.add(F::KIND.unit_at(at));
        let mut scale = S::load_f16(unit.cast());
        let mut minimum = S::splat(0.0);
        if F::MINIMA {
            minimum = S::load_f16(unit.add(2 * TILE_ROWS).cast());
        }
        if F::PARTS {
            let part = unit.add(F::KIND.part_at(at, half));
            scale = S::mul(scale, S::load_i8(part.cast()));
            if F::MINIMA {
                let taken = S::load_u8(part.add(TILE_ROWS));
                minimum = S::sub(S::splat(0.0), S::mul(minimum, taken));
            }
        }
        unrolled!(I in N => {
            let by = S::mul(scale, S::splat(acts.scale[row + I]));
            sums[I] = S::fma(S::to_float(dots[I]), by, sums[I]);
            if F::MINIMA {
                let sum = if F::HALVES {
                    // Whole numbers below 2¹² are exact.
                    acts.halves[half][row + I] as f32 * acts.scale[row + I]
                } else {
                    acts.sum[row + I]
                };
                sums[I] = S::fma(minimum, S::splat(sum), sums[I]);
            }
        });
    }
}
