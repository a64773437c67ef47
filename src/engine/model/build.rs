//! Weights on their way into memory: read in slabs of rows through the checked handle, checked for
//! numbers that are none, packed as they come. Holds one slab beside what is packed, never a file.

use super::names::{Names, Part};
use super::spec::{LayerSpec, Spec};
use super::weights::{Weights, finite};
use crate::engine::gguf::{TensorInfo, shown};
use crate::error::{Error, Kind, Result};
use crate::limits::LOAD_SLAB_BYTES;
use rbees_kernel::{Arena, Kind as Packing, Matrix, Packer};

/// A matrix and what is added to the product with it.
pub(super) struct Linear {
    pub(super) matrix: Matrix,
    pub(super) bias: Option<Vec<f32>>,
}

/// The weights of one layer.
pub(super) struct Layer {
    pub(super) spec: LayerSpec,
    pub(super) attention_norm: Vec<f32>,
    pub(super) query: Linear,
    pub(super) key: Linear,
    pub(super) value: Linear,
    /// Of queries and of keys.
    pub(super) head_norms: Option<(Vec<f32>, Vec<f32>)>,
    pub(super) out: Linear,
    /// Of what attention and feed-forward give back.
    pub(super) post_norms: Option<(Vec<f32>, Vec<f32>)>,
    pub(super) feed_forward_norm: Vec<f32>,
    pub(super) gate: Matrix,
    pub(super) up: Matrix,
    pub(super) down: Linear,
}

/// All weights of a model.
pub(super) struct Parts {
    pub(super) embedding: Matrix,
    /// What makes logits; `None`: the embedding.
    pub(super) head: Option<Matrix>,
    pub(super) output_norm: Vec<f32>,
    pub(super) layers: Vec<Layer>,
}

/// Reads the weights of a model.
pub(super) struct Builder<'a> {
    weights: &'a Weights,
    names: Names,
    spec: &'a Spec,
    /// Hears how many bytes have been read.
    progress: &'a mut dyn FnMut(u64),
    done: u64,
    slab: Vec<u8>,
    arena: Arena,
    used: Vec<String>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(
        weights: &'a Weights,
        names: Names,
        spec: &'a Spec,
        progress: &'a mut dyn FnMut(u64),
    ) -> Builder<'a> {
        let (slab, arena, used) = (Vec::new(), Arena::default(), Vec::new());
        Builder { weights, names, spec, progress, done: 0, slab, arena, used }
    }

    /// All weights that the description asks for.
    ///
    /// # Errors
    /// [`Kind::Model`] for a tensor that is missing, of another shape or type, holds no numbers, or
    /// belongs to a layer and has no part in this architecture; [`Kind::OutOfMemory`].
    pub(super) fn parts(mut self) -> Result<Parts> {
        let (spec, width) = (self.spec, self.spec.width);
        let embedding = self.matrix(Part::Embedding, 0, spec.vocabulary, width)?;
        let head = match spec.tied {
            true => None,
            false => Some(self.matrix(Part::Head, 0, spec.vocabulary, width)?),
        };
        let output_norm = self.norm(Part::OutputNorm, 0, width)?;
        let layers: Result<Vec<Layer>> =
            spec.layers.iter().enumerate().map(|(at, layer)| self.layer(at, *layer)).collect();
        let parts = Parts { embedding, head, output_norm, layers: layers? };
        self.nothing_left()?;
        Ok(parts)
    }

    fn layer(&mut self, at: usize, layer: LayerSpec) -> Result<Layer> {
        let spec = self.spec;
        let (width, queries, keys) = (spec.width, spec.query_width(), spec.kv_width());
        let [query, key, value] = if spec.fused {
            let rows = [queries, keys, keys];
            self.split(Part::QueryKeyValue, at, rows, width)?
        } else {
            [
                self.matrix(Part::Query, at, queries, width)?,
                self.matrix(Part::Key, at, keys, width)?,
                self.matrix(Part::Value, at, keys, width)?,
            ]
        };
        let [gate, up] = if spec.fused {
            self.split(Part::GateUp, at, [spec.feed_forward; 2], width)?
        } else {
            [
                self.matrix(Part::Gate, at, spec.feed_forward, width)?,
                self.matrix(Part::Up, at, spec.feed_forward, width)?,
            ]
        };
        let head_norms = match spec.qk_norm {
            true => Some((
                self.norm(Part::QueryNorm, at, spec.head_width)?,
                self.norm(Part::KeyNorm, at, spec.head_width)?,
            )),
            false => None,
        };
        let post_norms = match spec.post_norms {
            true => Some((
                self.norm(Part::PostAttentionNorm, at, width)?,
                self.norm(Part::PostFeedForwardNorm, at, width)?,
            )),
            false => None,
        };
        let out = self.matrix(Part::AttentionOut, at, width, queries)?;
        let down = self.matrix(Part::Down, at, width, spec.feed_forward)?;
        Ok(Layer {
            spec: layer,
            attention_norm: self.norm(Part::AttentionNorm, at, width)?,
            query: self.linear(Part::Query, at, query)?,
            key: self.linear(Part::Key, at, key)?,
            value: self.linear(Part::Value, at, value)?,
            head_norms,
            out: self.linear(Part::AttentionOut, at, out)?,
            post_norms,
            feed_forward_norm: self.norm(Part::FeedForwardNorm, at, width)?,
            gate,
            up,
            down: self.linear(Part::Down, at, down)?,
        })
    }

    /// The weights of a norm, as they multiply.
    fn norm(&mut self, part: Part, layer: usize, length: usize) -> Result<Vec<f32>> {
        let mut norm = self.vector(self.names.weight(part, layer), length)?;
        norm.iter_mut().for_each(|weight| *weight += self.spec.norm_offset);
        Ok(norm)
    }

    fn vector(&mut self, name: String, length: usize) -> Result<Vec<f32>> {
        let vector = self.weights.vector(&name, length)?;
        self.used.push(name);
        Ok(vector)
    }

    /// The matrix with the bias that the file has for it, if any.
    fn linear(&mut self, part: Part, layer: usize, matrix: Matrix) -> Result<Linear> {
        let name = self.names.bias(part, layer);
        let bias = match self.weights.has(&name) {
            true => Some(self.vector(name, matrix.rows())?),
            false => None,
        };
        Ok(Linear { matrix, bias })
    }

    fn matrix(&mut self, part: Part, layer: usize, rows: usize, columns: usize) -> Result<Matrix> {
        let [matrix] = self.split(part, layer, [rows], columns)?;
        Ok(matrix)
    }

    /// The matrices whose rows stand one after the other in one tensor.
    fn split<const N: usize>(
        &mut self,
        part: Part,
        layer: usize,
        rows: [usize; N],
        columns: usize,
    ) -> Result<[Matrix; N]> {
        let name = self.names.weight(part, layer);
        let weights = self.weights;
        let info = weights.matrix(&name, rows.iter().sum(), columns)?;
        let kind = Packing::from_ggml(info.dtype.ggml()).ok_or_else(|| {
            let text = format!("tensor '{name}' is {}, which is for products", info.dtype.name());
            Error::new(Kind::Model, text + " in between only; take the model in another form")
        })?;
        let mut first = 0;
        let mut matrices = Vec::with_capacity(N);
        for rows in rows {
            matrices.push(self.pack(info, kind, first, rows, columns)?);
            first += rows;
        }
        self.used.push(name);
        let matrices: std::result::Result<[Matrix; N], _> = matrices.try_into();
        matrices.map_err(|_| Error::new(Kind::Internal, "a tensor was cut into too few parts"))
    }

    fn pack(
        &mut self,
        info: &TensorInfo,
        kind: Packing,
        first: usize,
        rows: usize,
        columns: usize,
    ) -> Result<Matrix> {
        let mut packer = Packer::new(&mut self.arena, kind, rows, columns)?;
        let row_bytes = kind.row_bytes(columns) as u64;
        let slab = (LOAD_SLAB_BYTES / row_bytes).max(1);
        let (mut row, end) = (first as u64, (first + rows) as u64);
        while row < end {
            let take = slab.min(end - row);
            self.weights.read(info, row * row_bytes, take * row_bytes, &mut self.slab)?;
            if !finite(info.dtype, &self.slab) {
                let text = format!(
                    "tensor '{}' holds numbers that are none, or infinite, in rows {row} to {}; \
                     fetch or convert the model again",
                    shown(&info.name),
                    row + take - 1
                );
                return Err(Error::new(Kind::Model, text));
            }
            packer.push(&self.slab)?;
            row += take;
            self.done += take * row_bytes;
            (self.progress)(self.done);
        }
        Ok(packer.finish()?)
    }

    /// A tensor of a layer that has no part in the computation would be left out in silence.
    fn nothing_left(mut self) -> Result<()> {
        self.used.sort_unstable();
        let known = |name: &str| self.used.binary_search_by(|used| used.as_str().cmp(name)).is_ok();
        let stem = self.names.layers();
        let mut layers = self.weights.infos().map(|info| info.name.as_str());
        let left = layers.find(|name| {
            // Angles that early models keep; they are computed anew.
            let angles = name.ends_with("rotary_emb.inv_freq");
            name.starts_with(&stem) && !known(name) && !angles
        });
        match left {
            None => Ok(()),
            Some(name) => Err(Error::new(
                Kind::Model,
                format!(
                    "tensor '{}' has no part in the architecture {}, or lies beyond its {} layers; \
                     take another model",
                    shown(name),
                    self.spec.architecture.name(),
                    self.spec.layers.len()
                ),
            )),
        }
    }
}
