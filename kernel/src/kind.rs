//! The types of weights that a GGUF file has, as its writers (ggml) define them: sizes of their blocks
//! and how a block becomes codes and scales. Packs and computes nothing.

use half::{bf16, f16};

/// A type of weights. The names are the field's own.
#[allow(non_camel_case_types)] // the field's own names
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// The upper half of 32-bit floats.
    BF16,
    /// 4 bits, a scale per 32.
    Q4_0,
    /// 4 bits, a scale and a minimum per 32.
    Q4_1,
    /// 5 bits, a scale per 32.
    Q5_0,
    /// 5 bits, a scale and a minimum per 32.
    Q5_1,
    /// 8 bits, a scale per 32.
    Q8_0,
    /// 2 bits, a scale and a minimum per 16.
    Q2_K,
    /// 3 bits, a scale per 16.
    Q3_K,
    /// 4 bits, a scale and a minimum per 32.
    Q4_K,
    /// 5 bits, a scale and a minimum per 32.
    Q5_K,
    /// 6 bits, a scale per 16.
    Q6_K,
}

/// One block of a type with sub-blocks, taken apart: the weight is
/// `d · scale · (code − offset) − dmin · minimum`, with scale and minimum for every 16 values.
pub struct Block {
    /// Scale of the block.
    pub d: f16,
    /// Scale of the minima.
    pub dmin: f16,
    /// Scale of each 16 values.
    pub scales: [i8; 16],
    /// Minimum of each 16 values.
    pub minima: [u8; 16],
    /// Codes, unsigned.
    pub codes: [u8; 256],
}

impl Kind {
    /// Every type, for tests and tables.
    pub const ALL: [Kind; 13] = [
        Kind::F32,
        Kind::F16,
        Kind::BF16,
        Kind::Q4_0,
        Kind::Q4_1,
        Kind::Q5_0,
        Kind::Q5_1,
        Kind::Q8_0,
        Kind::Q2_K,
        Kind::Q3_K,
        Kind::Q4_K,
        Kind::Q5_K,
        Kind::Q6_K,
    ];

    /// The type with this number in a GGUF file, if it is one of these.
    pub const fn from_ggml(number: u32) -> Option<Kind> {
        Some(match number {
            0 => Kind::F32,
            1 => Kind::F16,
            2 => Kind::Q4_0,
            3 => Kind::Q4_1,
            6 => Kind::Q5_0,
            7 => Kind::Q5_1,
            8 => Kind::Q8_0,
            10 => Kind::Q2_K,
            11 => Kind::Q3_K,
            12 => Kind::Q4_K,
            13 => Kind::Q5_K,
            14 => Kind::Q6_K,
            30 => Kind::BF16,
            _ => return None,
        })
    }

    /// Values in a block.
    pub const fn block_values(self) -> usize {
        match self {
            Kind::F32 | Kind::F16 | Kind::BF16 => 1,
            Kind::Q4_0 | Kind::Q4_1 | Kind::Q5_0 | Kind::Q5_1 | Kind::Q8_0 => 32,
            Kind::Q2_K | Kind::Q3_K | Kind::Q4_K | Kind::Q5_K | Kind::Q6_K => 256,
        }
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Kind::F32 => 4,
            Kind::F16 | Kind::BF16 => 2,
            Kind::Q4_0 => 18,
            Kind::Q4_1 => 20,
            Kind::Q5_0 => 22,
            Kind::Q5_1 => 24,
            Kind::Q8_0 => 34,
            Kind::Q2_K => 84,
            Kind::Q3_K => 110,
            Kind::Q4_K => 144,
            Kind::Q5_K => 176,
            Kind::Q6_K => 210,
        }
    }

    /// Bytes of a row of `columns` values (whole blocks).
    pub const fn row_bytes(self, columns: usize) -> usize {
        columns / self.block_values() * self.block_bytes()
    }

    /// Whether its values are floats as they are.
    pub const fn is_float(self) -> bool {
        matches!(self, Kind::F32 | Kind::F16 | Kind::BF16)
    }

    /// What is taken from a code before it is scaled.
    pub const fn offset(self) -> i32 {
        match self {
            Kind::Q4_0 => 8,
            Kind::Q5_0 => 16,
            Kind::Q8_0 => 128,
            Kind::Q3_K => 4,
            Kind::Q6_K => 32,
            _ => 0,
        }
    }

    /// One float of its bytes; for the three float types.
    pub fn float(self, bytes: &[u8]) -> f32 {
        match (self, bytes) {
            (Kind::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
            (Kind::F16, &[a, b]) => f16::from_le_bytes([a, b]).to_f32(),
            (Kind::BF16, &[a, b]) => bf16::from_le_bytes([a, b]).to_f32(),
            _ => f32::NAN,
        }
    }

    /// Takes a block apart; for the types with sub-blocks. `bytes` is one whole block.
    pub fn block(self, bytes: &[u8]) -> Block {
        let half = |at: usize| f16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let mut block = Block {
            d: half(0),
            dmin: f16::ZERO,
            scales: [1; 16],
            minima: [0; 16],
            codes: [0; 256],
        };
        match self {
            Kind::Q2_K => {
                (block.d, block.dmin) = (half(80), half(82));
                for (at, byte) in bytes[..16].iter().enumerate() {
                    block.scales[at] = (byte & 15).cast_signed();
                    block.minima[at] = byte >> 4;
                }
                two(&bytes[16..80], &mut block.codes);
            }
            Kind::Q3_K => {
                block.d = half(108);
                block.scales = scales_of_q3(&bytes[96..108]);
                two(&bytes[32..96], &mut block.codes);
                for (at, code) in block.codes.iter_mut().enumerate() {
                    *code |= (bytes[at % 32] >> (at / 32) & 1) << 2;
                }
            }
            Kind::Q4_K | Kind::Q5_K => {
                block.dmin = half(2);
                scales_of_q4(&bytes[4..16], &mut block);
                let quants = if self == Kind::Q4_K { &bytes[16..144] } else { &bytes[48..176] };
                for (at, code) in block.codes.iter_mut().enumerate() {
                    let byte = quants[at / 64 * 32 + at % 32];
                    *code = if at / 32 % 2 == 0 { byte & 15 } else { byte >> 4 };
                    if self == Kind::Q5_K {
                        *code |= (bytes[16 + at % 32] >> (at / 32) & 1) << 4;
                    }
                }
            }
            Kind::Q6_K => {
                block.d = half(208);
                for (scale, byte) in block.scales.iter_mut().zip(&bytes[192..208]) {
                    *scale = byte.cast_signed();
                }
                six(&bytes[..128], &bytes[128..192], &mut block.codes);
            }
            // The others have no sub-blocks: `layout` packs them as they are.
            _ => {}
        }
        block
    }
}

/// Two bits each: of 128 values, byte `l` holds those at l, l + 32, l + 64, l + 96.
fn two(bytes: &[u8], codes: &mut [u8; 256]) {
    for (at, code) in codes.iter_mut().enumerate() {
        *code = bytes[at / 128 * 32 + at % 32] >> (at % 128 / 32 * 2) & 3;
    }
}

/// Four low and two high bits each.
fn six(low: &[u8], high: &[u8], codes: &mut [u8; 256]) {
    for (at, code) in codes.iter_mut().enumerate() {
        let (part, quarter) = (at / 128, at % 128 / 32);
        let byte = low[part * 64 + quarter % 2 * 32 + at % 32];
        let nibble = if quarter < 2 { byte & 15 } else { byte >> 4 };
        *code = nibble | (high[part * 32 + at % 32] >> (quarter * 2) & 3) << 4;
    }
}

/// Sixteen scales of six bits, less 32.
fn scales_of_q3(bytes: &[u8]) -> [i8; 16] {
    std::array::from_fn(|at| {
        let low = if at < 8 { bytes[at] & 15 } else { bytes[at - 8] >> 4 };
        let high = bytes[8 + at % 4] >> (at / 4 * 2) & 3;
        (low | high << 4).cast_signed() - 32
    })
}

/// Eight scales and eight minima of six bits, for 32 values each.
fn scales_of_q4(bytes: &[u8], block: &mut Block) {
    for at in 0..8 {
        let (scale, minimum) = if at < 4 {
            (bytes[at] & 63, bytes[at + 4] & 63)
        } else {
            let (low, high) = (bytes[at - 4] >> 6, bytes[at] >> 6);
            (bytes[at + 4] & 15 | low << 4, bytes[at + 4] >> 4 | high << 4)
        };
        block.scales[2 * at..2 * at + 2].fill(scale.cast_signed());
        block.minima[2 * at..2 * at + 2].fill(minimum);
    }
}
