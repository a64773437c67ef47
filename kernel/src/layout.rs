//! How weights lie in memory once packed: tiles of 16 rows, each a head (scales) and a body (codes).
//! A body has, for every 32 columns, lines of 64 bytes; byte `4·row + i` of a line belongs to value
//! `4·group + i` of that row, so that one line meets one broadcast of four activations.

use super::kind::{Block, Kind};

/// Rows in a tile.
pub const TILE_ROWS: usize = 16;
/// Values that share a scale of the activations.
pub const BLOCK: usize = 32;
/// Bytes of a line: one code (or part of one) for 16 rows by 4 values.
pub const LINE: usize = 64;

impl Kind {
    /// Lines for 32 columns.
    pub const fn lines(self) -> usize {
        match self {
            Kind::Q2_K => 2,
            Kind::Q3_K => 3,
            Kind::Q4_0 | Kind::Q4_1 | Kind::Q4_K => 4,
            Kind::Q5_0 | Kind::Q5_1 | Kind::Q5_K => 5,
            Kind::Q6_K => 6,
            Kind::Q8_0 => 8,
            Kind::F32 | Kind::F16 | Kind::BF16 => 0,
        }
    }

    /// Blocks of 32 columns that have a part of the head in common.
    pub const fn unit_blocks(self) -> usize {
        if self.block_values() == 256 { 8 } else { 1 }
    }

    /// Whether scales change after 16 values already.
    pub const fn halves(self) -> bool {
        matches!(self, Kind::Q2_K | Kind::Q3_K | Kind::Q6_K)
    }

    /// Whether there are minima.
    pub const fn has_minima(self) -> bool {
        matches!(self, Kind::Q4_1 | Kind::Q5_1 | Kind::Q2_K | Kind::Q4_K | Kind::Q5_K)
    }

    /// Bytes of one scale for each row in a unit: those of the sub-blocks follow d and dmin.
    const fn unit_head(self) -> usize {
        let floats = if self.has_minima() { 4 * TILE_ROWS } else { 2 * TILE_ROWS };
        if self.unit_blocks() == 1 {
            return floats;
        }
        let parts = if self.halves() { 16 } else { 8 };
        floats + parts * self.part_head()
    }

    /// Bytes of a sub-block's scale and minimum for 16 rows.
    pub const fn part_head(self) -> usize {
        if self.has_minima() { 2 * TILE_ROWS } else { TILE_ROWS }
    }

    /// Bytes of a tile's head, for `columns` columns.
    pub const fn head_bytes(self, columns: usize) -> usize {
        if self.is_float() {
            return 0;
        }
        let units = columns / BLOCK / self.unit_blocks();
        (units * self.unit_head()).next_multiple_of(LINE)
    }

    /// Bytes of a tile's body, for `columns` columns.
    pub const fn body_bytes(self, columns: usize) -> usize {
        if self.is_float() {
            return columns * TILE_ROWS * self.block_bytes();
        }
        columns / BLOCK * self.lines() * LINE
    }

    /// Where in the head block `block` (of 32 columns) finds its unit.
    #[inline(always)]
    pub const fn unit_at(self, block: usize) -> usize {
        block / self.unit_blocks() * self.unit_head()
    }

    /// Where in its unit the block's scales of its 16-value half `half` are.
    #[inline(always)]
    pub const fn part_at(self, block: usize, half: usize) -> usize {
        let floats = if self.has_minima() { 4 * TILE_ROWS } else { 2 * TILE_ROWS };
        let part = if self.halves() { block % 8 * 2 + half } else { block % 8 };
        floats + part * self.part_head()
    }

    /// Writes one row's share of a file block of a type without sub-blocks, without taking it apart:
    /// such a file has values 16 apart in one byte, and so have the lines.
    pub fn pack_plain(
        self,
        head: &mut [u8],
        body: &mut [u8],
        row: usize,
        block: usize,
        bytes: &[u8],
    ) {
        let unit = &mut head[block * self.unit_head()..][..self.unit_head()];
        unit[2 * row..2 * row + 2].copy_from_slice(&bytes[..2]);
        let mut from = 2;
        if self.has_minima() {
            unit[32 + 2 * row..34 + 2 * row].copy_from_slice(&bytes[2..4]);
            from = 4;
        }
        let lines = &mut body[block * self.lines() * LINE..][..self.lines() * LINE];
        if self.lines() == 5 {
            for (at, byte) in lines[4 * LINE + 4 * row..][..4].iter_mut().enumerate() {
                // Bit `group` of the byte is bit `4·group + at` of the 32.
                let bit = |group: usize| bytes[from + group / 2] >> (group % 2 * 4 + at) & 1;
                *byte = (0..8).fold(0, |byte, group| byte | bit(group) << group);
            }
            from += 4;
        }
        for (line, four) in lines.chunks_exact_mut(LINE).zip(bytes[from..].chunks_exact(4)) {
            let to = &mut line[4 * row..4 * row + 4];
            to.copy_from_slice(four);
            if self == Kind::Q8_0 {
                to.iter_mut().for_each(|byte| *byte ^= 0x80);
            }
        }
    }

    /// Writes one row's share of a file block with sub-blocks, `block` being its first 32 columns.
    pub fn pack(self, head: &mut [u8], body: &mut [u8], row: usize, block: usize, from: &Block) {
        let unit = &mut head[self.unit_at(block)..][..self.unit_head()];
        unit[2 * row..2 * row + 2].copy_from_slice(&from.d.to_le_bytes());
        if self.has_minima() {
            unit[32 + 2 * row..34 + 2 * row].copy_from_slice(&from.dmin.to_le_bytes());
        }
        for (at, codes) in from.codes[..self.block_values()].chunks_exact(BLOCK).enumerate() {
            let lines = &mut body[(block + at) * self.lines() * LINE..][..self.lines() * LINE];
            self.pack_codes(lines, row, codes);
            for half in 0..if self.halves() { 2 } else { 1 } {
                let part = &mut unit[self.part_at(at, half)..][..self.part_head()];
                part[row] = from.scales[2 * at + half].cast_unsigned();
                if self.has_minima() {
                    part[TILE_ROWS + row] = from.minima[2 * at + half];
                }
            }
        }
    }

    /// Adds the codes of one row to lines that are zero where they go.
    fn pack_codes(self, lines: &mut [u8], row: usize, codes: &[u8]) {
        for (at, &code) in codes.iter().enumerate() {
            let (group, byte) = (at / 4, 4 * row + at % 4);
            match self.lines() {
                8 => lines[group * LINE + byte] = code,
                2 | 3 => {
                    lines[group / 4 * LINE + byte] |= (code & 3) << (group % 4 * 2);
                    if self.lines() == 3 {
                        lines[2 * LINE + byte] |= (code >> 2) << group;
                    }
                }
                lines_per_block => {
                    lines[group % 4 * LINE + byte] |= (code & 15) << (group / 4 * 4);
                    match lines_per_block {
                        5 => lines[4 * LINE + byte] |= (code >> 4) << group,
                        6 => lines[(4 + group / 4) * LINE + byte] |= (code >> 4) << (group % 4 * 2),
                        _ => {}
                    }
                }
            }
        }
    }

    /// The code of value `at` (0 to 31) of `row` in a block's lines.
    pub fn code(self, lines: &[u8], row: usize, at: usize) -> u8 {
        let (group, byte) = (at / 4, 4 * row + at % 4);
        let line = |line: usize| lines[line * LINE + byte];
        match self.lines() {
            8 => line(group),
            2 => line(group / 4) >> (group % 4 * 2) & 3,
            3 => line(group / 4) >> (group % 4 * 2) & 3 | (line(2) >> group & 1) << 2,
            lines_per_block => {
                let low = line(group % 4) >> (group / 4 * 4) & 15;
                match lines_per_block {
                    5 => low | (line(4) >> group & 1) << 4,
                    6 => low | (line(4 + group / 4) >> (group % 4 * 2) & 3) << 4,
                    _ => low,
                }
            }
        }
    }
}
