//! What the decoder calls: products of a step's rows with weights, norms, attention. Owns the team
//! and all memory between the calls; a step allocates nothing once that has grown.

use std::ops::Range;
use std::sync::atomic::AtomicUsize;

use super::attention::{Attention, Call, Part, Scratch};
use super::layout::{BLOCK, TILE_ROWS};
use super::matrix::Matrix;
use super::memory::Floats;
use super::rows::{Activation, Norm, gate, load, norm, quantize, store};
use super::simd::{Isa, Simd, Work};
use super::team::{Member, Parts, Team};
use super::tile::{ActBlock, GROUP, Operands, Products, TileFn, tile_fn};

/// Matrices that one call multiplies with.
const PRODUCTS_MAX: usize = 4;

/// Rows that go into products.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// The rows, n × columns.
    pub x: &'a [f32],
    /// Norm that comes first.
    pub norm: Option<Norm<'a>>,
}

/// A product to be computed.
pub struct Product<'a> {
    /// Weights, rows × columns.
    pub matrix: &'a Matrix,
    /// Added to every row of the result; as long as the matrix has rows.
    pub bias: Option<&'a [f32]>,
    /// Result, n × rows.
    pub y: &'a mut [f32],
    /// Whether the result is added to what is there.
    pub add: bool,
}

/// The CPU's arithmetic: a thread team, the instruction set, and memory for what lies between.
pub struct Kernel {
    team: Team,
    isa: Isa,
    /// Rows as 8-bit numbers: groups of eight rows, each columns / 32 blocks.
    blocks: Vec<ActBlock>,
    /// Rows as floats, where they were normed.
    normed: Floats,
    attention: Scratch,
}

/// Input as the tiles want it.
struct Prepared<'a> {
    n: usize,
    columns: usize,
    input: Input<'a>,
    blocks: Option<Parts<ActBlock>>,
    normed: Option<Parts<f32>>,
}

/// A product, as the members see it.
struct Target<'a> {
    matrix: &'a Matrix,
    tile: TileFn,
    bias: Option<&'a [f32]>,
    y: Parts<f32>,
    add: bool,
}

impl Kernel {
    /// A kernel with a team of `threads`, on the best instruction set of this machine.
    pub fn new(threads: usize) -> Self {
        Self::with_isa(threads, Isa::detect())
    }

    /// The same on a given instruction set, which must be available.
    pub(super) fn with_isa(threads: usize, isa: Isa) -> Self {
        assert!(Isa::available().contains(&isa), "an instruction set of this machine");
        Kernel {
            team: Team::new(threads),
            isa,
            blocks: Vec::new(),
            normed: Floats::default(),
            attention: Scratch::default(),
        }
    }

    /// Threads that compute.
    pub fn threads(&self) -> usize {
        self.team.threads()
    }

    /// Name of the instruction set in use.
    pub fn instruction_set(&self) -> &'static str {
        self.isa.name()
    }

    /// Multiplies all rows with several matrices of the same columns: `y = M · norm(x) + bias`.
    ///
    /// # Panics
    /// Where lengths do not belong together, or there are more than four matrices.
    pub fn products(&mut self, input: Input<'_>, products: &mut [Product<'_>]) {
        let Some(columns) = products.first().map(|product| product.matrix.columns()) else {
            return;
        };
        let n = input.x.len() / columns;
        let kinds = products.iter().map(|product| product.matrix.kind());
        let coded = kinds.into_iter().any(|kind| !kind.is_float());
        let isa = self.isa;
        assert!(products.len() <= PRODUCTS_MAX, "at most {PRODUCTS_MAX} matrices");
        for product in &*products {
            let rows = product.matrix.rows();
            assert!(product.matrix.columns() == columns, "matrices of the same columns");
            assert!(product.y.len() == n * rows, "a result of n × rows");
            assert!(product.bias.is_none_or(|bias| bias.len() == rows), "a bias for every row");
        }
        let (team, prepared) = self.prepared(input, columns, coded);
        let mut targets = Targets::default();
        for (target, product) in targets.0.iter_mut().zip(products) {
            *target = Some(Target {
                matrix: product.matrix,
                tile: tile_fn(isa, product.matrix.kind()),
                bias: product.bias,
                y: Parts::of(product.y),
                add: product.add,
            });
        }
        team.run(|member| {
            // SAFETY: the instruction set is available, by `with_isa`.
            unsafe { isa.run(Prepare { prepared: &prepared, member }) };
            member.barrier();
            targets.share(member, |target, tile| {
                multiply(&prepared, n, |operands, first| {
                    let mut out = Products::ZERO;
                    // SAFETY: the tile and the group are within the matrix and the input.
                    unsafe { (target.tile)(&operands(target.matrix, tile), &mut out) };
                    let rows = first..n.min(first + GROUP);
                    // SAFETY: the instruction set is available.
                    unsafe { isa.run(Write { target, tile, rows, out: &out, gated: None }) };
                });
            });
        });
    }

    /// `y = activation(G · norm(x)) · (U · norm(x))`: the gated half of an MLP. Both have one shape.
    ///
    /// # Panics
    /// Where lengths do not belong together.
    pub fn gated(
        &mut self,
        input: Input<'_>,
        gates: &Matrix,
        up: &Matrix,
        activation: Activation,
        y: &mut [f32],
    ) {
        let (rows, columns) = (gates.rows(), gates.columns());
        assert!(up.rows() == rows && up.columns() == columns, "gate and up of one shape");
        let n = input.x.len() / columns;
        assert!(y.len() == n * rows, "a result of n × rows");
        let isa = self.isa;
        let coded = !gates.kind().is_float() || !up.kind().is_float();
        let (team, prepared) = self.prepared(input, columns, coded);
        let target = Target {
            matrix: gates,
            tile: tile_fn(isa, gates.kind()),
            bias: None,
            y: Parts::of(y),
            add: false,
        };
        let up_tile = tile_fn(isa, up.kind());
        team.run(|member| {
            // SAFETY: the instruction set is available, by `with_isa`.
            unsafe { isa.run(Prepare { prepared: &prepared, member }) };
            member.barrier();
            for tile in member.share(gates.tiles()) {
                multiply(&prepared, n, |operands, first| {
                    let mut out = Products::ZERO;
                    let mut other = Products::ZERO;
                    // SAFETY: the tile and the group are within both matrices and the input; the
                    // instruction set is available.
                    unsafe {
                        (target.tile)(&operands(gates, tile), &mut out);
                        up_tile(&operands(up, tile), &mut other);
                        let gated = Some((&other, activation));
                        let rows = first..n.min(first + GROUP);
                        isa.run(Write { target: &target, tile, rows, out: &out, gated });
                    }
                });
            }
        });
    }

    /// `y = norm(x)`, or `y += norm(x)`, row by row.
    ///
    /// # Panics
    /// Where lengths do not belong together.
    pub fn norm(&mut self, x: &[f32], norm: Norm<'_>, y: &mut [f32], add: bool) {
        let columns = norm.weight.len();
        assert!(
            x.len() == y.len() && x.len().is_multiple_of(columns),
            "whole rows, as many as results"
        );
        let (isa, n, y) = (self.isa, x.len() / columns, Parts::of(y));
        self.team.run(|member| {
            // SAFETY: the instruction set is available; members have rows of their own.
            unsafe { isa.run(NormRows { x, norm, y, add, rows: member.share(n) }) };
        });
    }

    /// Norms, turns, stores and attends: see [`Attention`].
    ///
    /// # Panics
    /// Where lengths do not belong together, or a block is not in the pool.
    pub fn attention(&mut self, attention: Attention<'_>) {
        if attention.spans.iter().all(|span| span.rows == 0) {
            return;
        }
        let (isa, next) = (self.isa, AtomicUsize::new(0));
        let threads = self.team.threads();
        let (call, members) = Call::new(attention, &mut self.attention, threads, &next);
        let members = Parts::of(members);
        self.team.run(|member| {
            // SAFETY: each member takes its own scratch; the instruction set is available.
            unsafe {
                let own = &mut members.part(member.index..member.index + 1)[0];
                isa.run(Part { call: &call, member, scratch: own });
            }
        });
    }

    /// Makes room for the input as numbers and as normed floats, whichever is asked for.
    fn prepared<'a>(
        &'a mut self,
        input: Input<'a>,
        columns: usize,
        coded: bool,
    ) -> (&'a mut Team, Prepared<'a>) {
        assert!(input.x.len().is_multiple_of(columns), "whole rows of {columns} values");
        assert!(input.norm.is_none_or(|norm| norm.weight.len() == columns), "a norm of one row");
        let n = input.x.len() / columns;
        let blocks = n.div_ceil(GROUP) * (columns / BLOCK);
        if coded && self.blocks.len() < blocks {
            self.blocks.resize(blocks, ActBlock::ZERO);
        }
        if input.norm.is_some() && self.normed.len() < n * columns {
            self.normed.resize(n * columns);
        }
        let prepared = Prepared {
            n,
            columns,
            input,
            blocks: coded.then(|| Parts::of(&mut self.blocks)),
            normed: input.norm.map(|_| Parts::of(&mut self.normed)),
        };
        (&mut self.team, prepared)
    }
}

/// Products of one call, with their tiles counted through.
#[derive(Default)]
struct Targets<'a>([Option<Target<'a>>; PRODUCTS_MAX]);

impl<'a> Targets<'a> {
    /// Gives the member its part of all tiles, as even as their bytes allow.
    fn share(&self, member: &Member<'_>, mut each: impl FnMut(&Target<'a>, usize)) {
        let bytes = |target: &Target<'_>| target.matrix.tiles() * target.matrix.tile_bytes();
        let total = self.0.iter().flatten().map(bytes).sum();
        let own = member.share(total);
        let mut at = 0;
        for target in self.0.iter().flatten() {
            for tile in 0..target.matrix.tiles() {
                if own.contains(&at) {
                    each(target, tile);
                }
                at += target.matrix.tile_bytes();
            }
        }
    }
}

/// Writes what a tile gave for a group of rows, after it has gated the other tile's.
struct Write<'a> {
    target: &'a Target<'a>,
    tile: usize,
    rows: Range<usize>,
    out: &'a Products,
    gated: Option<(&'a Products, Activation)>,
}

impl Work for Write<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Target { matrix, bias, y, add, .. } = self.target;
        let (columns, at) = (matrix.rows(), self.tile * TILE_ROWS);
        let lanes = TILE_ROWS.min(columns - at);
        let bias = bias.map(|bias| &bias[at..at + lanes]);
        for (nth, row) in self.rows.enumerate() {
            // SAFETY: a tile is one member's, and so are its columns of the result; the instruction
            // set is there.
            unsafe {
                let y = y.part(row * columns + at..row * columns + at + lanes);
                let mut value = S::load(self.out.0[nth].as_ptr());
                if let Some((up, activation)) = self.gated {
                    value = gate::<S>(value, S::load(up.0[nth].as_ptr()), activation);
                }
                if let Some(bias) = bias {
                    value = S::add(value, load::<S>(bias, 0));
                }
                if *add {
                    value = S::add(load::<S>(y, 0), value);
                }
                store::<S>(y, 0, value);
            }
        }
    }
}

/// Calls `each` for every group of rows with what makes the operands of a tile, and the first row.
fn multiply(
    prepared: &Prepared<'_>,
    n: usize,
    mut each: impl FnMut(&dyn Fn(&Matrix, usize) -> Operands, usize),
) {
    let columns = prepared.columns;
    // SAFETY: all members have passed the barrier since they were written.
    let (blocks, x) = unsafe {
        let normed = prepared.normed.as_ref().map(|normed| normed.whole());
        (prepared.blocks.as_ref().map(|b| b.whole()), normed.unwrap_or(prepared.input.x))
    };
    for first in (0..n).step_by(GROUP) {
        let operands = |matrix: &Matrix, tile: usize| {
            let (head, body) = matrix.tile(tile);
            let blocks = blocks.map_or(std::ptr::null(), |blocks| {
                blocks[first / GROUP * (columns / BLOCK)..].as_ptr()
            });
            Operands {
                head: head.as_ptr(),
                body: body.as_ptr(),
                columns,
                blocks,
                x: x[first * columns..].as_ptr(),
                rows: GROUP.min(n - first),
                fresh: first == 0,
            }
        };
        each(&operands, first);
    }
}

/// A member's rows of the input: normed, made into numbers.
struct Prepare<'a, 'b> {
    prepared: &'b Prepared<'a>,
    member: &'b Member<'b>,
}

impl Work for Prepare<'_, '_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Prepared { n, columns, input, blocks, normed } = self.prepared;
        // Whole groups, so that no two members write into one block.
        let groups = self.member.share(n.div_ceil(GROUP));
        let per_row = columns / BLOCK;
        for row in groups.start * GROUP..(groups.end * GROUP).min(*n) {
            let range = row * columns..(row + 1) * columns;
            let mut x = &input.x[range.clone()];
            // SAFETY: the rows and groups of a member are its own; the instruction set is there.
            unsafe {
                if let (Some(by), Some(normed)) = (input.norm, normed) {
                    let to = normed.part(range);
                    norm::<S>(x, by, to, false);
                    x = to;
                }
                if let Some(blocks) = blocks {
                    let first = row / GROUP * per_row;
                    quantize::<S>(x, blocks.part(first..first + per_row), row % GROUP);
                }
            }
        }
    }
}

struct NormRows<'a> {
    x: &'a [f32],
    norm: Norm<'a>,
    y: Parts<f32>,
    add: bool,
    rows: Range<usize>,
}

impl Work for NormRows<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let columns = self.norm.weight.len();
        for row in self.rows {
            let range = row * columns..(row + 1) * columns;
            // SAFETY: rows are the member's own; the instruction set is there.
            unsafe {
                norm::<S>(&self.x[range.clone()], self.norm, self.y.part(range), self.add);
            }
        }
    }
}
