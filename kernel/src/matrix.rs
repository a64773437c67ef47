//! Weights packed once at load, from the blocks of a file into tiles (see `layout`). A row can be had
//! back as floats, for embeddings. Multiplies nothing.

use half::f16;

use super::kind::Kind;
use super::layout::{BLOCK, LINE, TILE_ROWS};
use super::memory::{Arena, Line, Lines};
use crate::error::{Error, Fault, Result};

/// A matrix of weights, `rows × columns`, ready to be multiplied.
pub struct Matrix {
    kind: Kind,
    rows: usize,
    columns: usize,
    head: usize,
    body: usize,
    lines: Lines,
}

/// A matrix in the making: rows come in the file's form and order.
pub struct Packer {
    matrix: Matrix,
    filled: usize,
}

impl Packer {
    /// Begins a matrix of `rows × columns` weights of `kind`, to lie in `arena`.
    ///
    /// # Errors
    /// Columns that are no whole blocks, a matrix without weights, or one that memory has no room for.
    pub fn new(arena: &mut Arena, kind: Kind, rows: usize, columns: usize) -> Result<Self> {
        let wrong = |what: &str| {
            let shape = format!("a matrix of {rows} × {columns} weights of type {kind:?}");
            Error::new(Fault::Weights, format!("{shape} {what}"))
        };
        if rows == 0 || columns == 0 {
            return Err(wrong("has no weights; check the file's origin"));
        }
        if !columns.is_multiple_of(kind.block_values()) {
            let block = kind.block_values();
            return Err(wrong(&format!("has rows that are no whole blocks of {block}")));
        }
        let too_large = || wrong("is larger than memory can be");
        let (head, body) = (kind.head_bytes(columns), kind.body_bytes(columns));
        let tile = (head + body).div_ceil(LINE);
        let count = rows.div_ceil(TILE_ROWS).checked_mul(tile).ok_or_else(too_large)?;
        let lines = arena.lines(count).ok_or_else(|| {
            let bytes = count.saturating_mul(LINE);
            let message =
                format!("{bytes} bytes for weights cannot be had; choose a smaller model");
            Error::new(Fault::Memory, message)
        })?;
        let matrix = Matrix { kind, rows, columns, head, body, lines };
        Ok(Packer { matrix, filled: 0 })
    }

    /// The next rows, in the file's blocks; whole rows, any number of them.
    ///
    /// # Errors
    /// Bytes that are no whole rows, or more rows than were announced.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        let (kind, columns) = (self.matrix.kind, self.matrix.columns);
        let row_bytes = kind.row_bytes(columns);
        let count = bytes.len() / row_bytes;
        let left = self.matrix.rows - self.filled;
        if !bytes.len().is_multiple_of(row_bytes) || count > left {
            let found = bytes.len();
            return Err(Error::new(
                Fault::Weights,
                format!("weights: expected up to {left} rows of {row_bytes} bytes, found {found}"),
            ));
        }
        for row in bytes.chunks_exact(row_bytes) {
            self.matrix.pack(self.filled, row);
            self.filled += 1;
        }
        Ok(())
    }

    /// The matrix.
    ///
    /// # Errors
    /// Rows that did not come.
    pub fn finish(self) -> Result<Matrix> {
        if self.filled != self.matrix.rows {
            let (rows, filled) = (self.matrix.rows, self.filled);
            let message = format!("weights: expected {rows} rows, found {filled}");
            return Err(Error::new(Fault::Weights, message));
        }
        Ok(self.matrix)
    }
}

impl Matrix {
    /// Rows: values that a product gives.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns: values that a product takes.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Type of the weights.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Memory that it takes.
    pub fn bytes(&self) -> u64 {
        (self.lines.len() * LINE) as u64
    }

    /// Tiles of 16 rows, the last one filled up with zeros.
    pub(super) fn tiles(&self) -> usize {
        self.rows.div_ceil(TILE_ROWS)
    }

    /// Bytes from one tile to the next.
    pub(super) fn tile_bytes(&self) -> usize {
        (self.head + self.body).next_multiple_of(LINE)
    }

    /// Head and body of a tile.
    pub(super) fn tile(&self, index: usize) -> (&[u8], &[u8]) {
        let lines = self.tile_bytes() / LINE;
        bytes(&self.lines[index * lines..(index + 1) * lines]).split_at(self.head)
    }

    fn tile_mut(&mut self, index: usize) -> (&mut [u8], &mut [u8]) {
        let (head, lines) = (self.head, self.tile_bytes() / LINE);
        let tile = &mut self.lines[index * lines..(index + 1) * lines];
        // SAFETY: lines are plain bytes without gaps, and the slice covers exactly these.
        let bytes = unsafe {
            std::slice::from_raw_parts_mut(tile.as_mut_ptr().cast::<u8>(), tile.len() * LINE)
        };
        bytes.split_at_mut(head)
    }

    fn pack(&mut self, row: usize, bytes: &[u8]) {
        let kind = self.kind;
        let lane = row % TILE_ROWS;
        let (head, body) = self.tile_mut(row / TILE_ROWS);
        let blocks = bytes.chunks_exact(kind.block_bytes());
        if kind.is_float() {
            let size = kind.block_bytes();
            for (column, value) in blocks.enumerate() {
                body[(column * TILE_ROWS + lane) * size..][..size].copy_from_slice(value);
            }
            return;
        }
        for (at, block) in blocks.enumerate() {
            if kind.block_values() == BLOCK {
                kind.pack_plain(head, body, lane, at, block);
            } else {
                let first = at * kind.block_values() / BLOCK;
                kind.pack(head, body, lane, first, &kind.block(block));
            }
        }
    }

    /// Row `index` as floats.
    ///
    /// # Panics
    /// Where there is no such row, or `out` is not as long as one.
    pub fn row(&self, index: usize, out: &mut [f32]) {
        assert!(index < self.rows && out.len() == self.columns, "a row of the matrix");
        let (head, body) = self.tile(index / TILE_ROWS);
        let lane = index % TILE_ROWS;
        if self.kind.is_float() {
            let size = self.kind.block_bytes();
            for (column, value) in out.iter_mut().enumerate() {
                *value = self.kind.float(&body[(column * TILE_ROWS + lane) * size..][..size]);
            }
            return;
        }
        for (block, values) in out.chunks_exact_mut(BLOCK).enumerate() {
            let lines = &body[block * self.kind.lines() * LINE..];
            for (half, values) in values.chunks_exact_mut(BLOCK / 2).enumerate() {
                let (scale, minimum) = self.scale(head, block, half, lane);
                for (at, value) in values.iter_mut().enumerate() {
                    let code = self.kind.code(lines, lane, half * BLOCK / 2 + at);
                    let code = i32::from(code) - self.kind.offset();
                    // Whole numbers below 256 are exact.
                    *value = scale * code as f32 + minimum;
                }
            }
        }
    }

    /// Scale and (added) minimum of 16 values of one row.
    fn scale(&self, head: &[u8], block: usize, half: usize, lane: usize) -> (f32, f32) {
        let kind = self.kind;
        let unit = &head[kind.unit_at(block)..];
        let float = |at: usize| f16::from_le_bytes([unit[at], unit[at + 1]]).to_f32();
        let d = float(2 * lane);
        let dmin = if kind.has_minima() { float(32 + 2 * lane) } else { 0.0 };
        if kind.unit_blocks() == 1 {
            return (d, dmin);
        }
        let part = &unit[kind.part_at(block, half)..];
        let scale = d * f32::from(part[lane].cast_signed());
        let minimum = if kind.has_minima() { f32::from(part[TILE_ROWS + lane]) } else { 0.0 };
        (scale, -dmin * minimum)
    }
}

/// Lines as the bytes they are.
fn bytes(lines: &[Line]) -> &[u8] {
    // SAFETY: lines are plain bytes without gaps, and the slice covers exactly these.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast::<u8>(), lines.len() * LINE) }
}
