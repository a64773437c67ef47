//! Where the weights of a model come from: one GGUF file or the shards of a safetensors folder, all
//! checked before, each read through the handle that was checked. Reads rows as they are asked for
//! and keeps none of them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};

use super::safetensors::Shard;
use crate::engine::gguf::{DType, Gguf, TensorInfo, shown};
use crate::error::{Error, Kind, Result};
use crate::limits::MODEL_VECTOR_MAX;

/// A file that tensors lie in.
struct Source {
    file: File,
    name: String,
}

/// The tensors of a model by name.
pub(crate) struct Weights {
    sources: Vec<Source>,
    tensors: HashMap<String, (usize, TensorInfo)>,
    /// Tensors of types that no weight has, and those types.
    others: HashMap<String, &'static str>,
    bytes: u64,
}

impl Weights {
    /// Those of a checked GGUF file.
    pub(crate) fn of_gguf(gguf: &Gguf, file: File) -> Weights {
        let name = gguf.path().file_name().unwrap_or_default().to_string_lossy();
        let tensors = gguf.tensors().iter().map(|info| (info.name.clone(), (0, info.clone())));
        Weights {
            sources: vec![Source { file, name: shown(&name) }],
            tensors: tensors.collect(),
            others: HashMap::new(),
            bytes: gguf.file_bytes(),
        }
    }

    /// Those of the checked shards of a folder.
    ///
    /// # Errors
    /// [`Kind::Model`] for a tensor that lies in two of them.
    pub(super) fn of_shards(shards: Vec<Shard>) -> Result<Weights> {
        let mut weights = Weights {
            sources: Vec::with_capacity(shards.len()),
            tensors: HashMap::new(),
            others: HashMap::new(),
            bytes: shards.iter().map(|shard| shard.bytes).sum(),
        };
        for (at, shard) in shards.into_iter().enumerate() {
            for info in shard.tensors {
                if let Some((other, _)) = weights.tensors.get(&info.name) {
                    let (name, other) = (shown(&info.name), &weights.sources[*other].name);
                    let text = format!("{}: tensor '{name}' lies in {other} as well", shard.name);
                    return Err(Error::new(Kind::Model, text + "; fetch the model again"));
                }
                weights.tensors.insert(info.name.clone(), (at, info));
            }
            weights.others.extend(shard.others);
            weights.sources.push(Source { file: shard.file, name: shard.name });
        }
        Ok(weights)
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Every tensor.
    pub(crate) fn infos(&self) -> impl Iterator<Item = &TensorInfo> {
        self.tensors.values().map(|(_, info)| info)
    }

    /// Whether there is a tensor called `name`, of whatever type.
    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name) || self.others.contains_key(name)
    }

    /// The tensor called `name`, if there is one.
    pub(super) fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name).map(|(_, info)| info)
    }

    /// The matrix called `name`, which must have these sizes.
    ///
    /// # Errors
    /// [`Kind::Model`] that names the file, what was expected and what is there.
    pub(super) fn matrix(&self, name: &str, rows: usize, columns: usize) -> Result<&TensorInfo> {
        self.shaped(name, &[rows as u64, columns as u64])
    }

    fn shaped(&self, name: &str, shape: &[u64]) -> Result<&TensorInfo> {
        let Some((source, info)) = self.tensors.get(name) else {
            let file = self.sources.first().map_or("", |source| &source.name);
            let found = self.others.get(name).map_or_else(
                || "none of that name".to_owned(),
                |dtype| format!("one of type {dtype}, which is no weight's"),
            );
            let text = format!("{file}: expected the tensor '{name}', found {found}");
            return Err(Error::new(Kind::Model, text + "; fetch or convert the model again"));
        };
        if info.shape != shape {
            let (file, found) = (&self.sources[*source].name, &info.shape);
            let text = format!("{file}: tensor '{name}' should be {shape:?}, but is {found:?}");
            return Err(Error::new(Kind::Model, text + "; fetch or convert the model again"));
        }
        Ok(info)
    }

    /// The `length` numbers of the vector called `name`.
    ///
    /// # Errors
    /// As [`Weights::matrix`]; numbers that are not finite are an error too.
    pub(super) fn vector(&self, name: &str, length: usize) -> Result<Vec<f32>> {
        self.shaped(name, &[length as u64])?;
        self.vector_opt(name).map(Option::unwrap_or_default)
    }

    /// The numbers of the vector called `name`, if there is one.
    ///
    /// # Errors
    /// [`Kind::Model`] where it is no vector of floats, too long, or holds numbers that are not
    /// finite.
    pub(super) fn vector_opt(&self, name: &str) -> Result<Option<Vec<f32>>> {
        let Some((source, info)) = self.tensors.get(name) else { return Ok(None) };
        let wrong = |problem: String| {
            let file = &self.sources[*source].name;
            let text = format!("{file}: tensor '{name}' {problem}; convert the model again");
            Error::new(Kind::Model, text)
        };
        let floats = matches!(info.dtype, DType::F32 | DType::F16 | DType::BF16);
        if info.shape.len() != 1 || !floats || info.elements() > MODEL_VECTOR_MAX as u64 {
            let (dtype, shape) = (info.dtype.name(), &info.shape);
            return Err(wrong(format!(
                "should be at most {MODEL_VECTOR_MAX} floats, but is {dtype} {shape:?}"
            )));
        }
        let mut bytes = Vec::new();
        self.read(info, 0, info.bytes, &mut bytes)?;
        let numbers: Vec<f32> = floats_of(info.dtype, &bytes).collect();
        match numbers.iter().position(|number| !number.is_finite()) {
            None => Ok(Some(numbers)),
            Some(at) => Err(wrong(format!("holds {} at place {at}", numbers[at]))),
        }
    }

    /// The one file of a GGUF from its beginning, by the handle that was checked.
    ///
    /// # Errors
    /// [`Kind::Model`] where the system gives no further handle.
    pub(super) fn file(&self) -> Result<File> {
        let none = || std::io::Error::other("there is none");
        let file = self.sources.first().ok_or_else(none).and_then(|source| {
            let mut file = source.file.try_clone()?;
            file.rewind()?;
            Ok(file)
        });
        file.map_err(|error| {
            Error::new(Kind::Model, "the model's file can't be read again").because(error)
        })
    }

    /// Fills `into` with `length` bytes of a tensor, from byte `from` of it on.
    ///
    /// # Errors
    /// [`Kind::Model`] where the file can't be read there.
    pub(super) fn read(
        &self,
        info: &TensorInfo,
        from: u64,
        length: u64,
        into: &mut Vec<u8>,
    ) -> Result<()> {
        let source = self.tensors.get(&info.name).map_or(0, |(source, _)| *source);
        let Source { file, name } = &self.sources[source];
        into.clear();
        let mut file: &File = file;
        let read = file.seek(SeekFrom::Start(info.offset + from)).and_then(|_| {
            into.try_reserve_exact(length as usize).map_err(std::io::Error::other)?;
            file.take(length).read_to_end(into)
        });
        match read {
            Ok(read) if read as u64 == length => Ok(()),
            Ok(read) => Err(Error::new(
                Kind::Model,
                format!(
                    "{name}: tensor '{}' ended {} bytes early: the file became shorter while it \
                     was read; fetch it again",
                    info.name,
                    length - read as u64
                ),
            )),
            Err(error) => Err(Error::new(
                Kind::Model,
                format!("{name}: tensor '{}' can't be read: {error}; check the disk", info.name),
            )
            .because(error)),
        }
    }
}

/// The numbers that `bytes` of a float type hold.
pub(super) fn floats_of(dtype: DType, bytes: &[u8]) -> impl Iterator<Item = f32> {
    let size = dtype.block_bytes() as usize;
    bytes.chunks_exact(size).map(move |bytes| match (dtype, bytes) {
        (DType::F16, [a, b]) => half::f16::from_le_bytes([*a, *b]).to_f32(),
        (_, [a, b]) => half::bf16::from_le_bytes([*a, *b]).to_f32(),
        (_, [a, b, c, d]) => f32::from_le_bytes([*a, *b, *c, *d]),
        _ => f32::NAN,
    })
}

/// Whether all numbers in whole blocks are finite: where blocks are scaled, the scales decide.
pub(super) fn finite(dtype: DType, blocks: &[u8]) -> bool {
    let at: &[usize] = match dtype {
        DType::F32 => {
            return blocks.as_chunks().0.iter().all(|bytes| f32::from_le_bytes(*bytes).is_finite());
        }
        DType::BF16 => return halves(blocks).all(|bits| bits & 0x7f80 != 0x7f80),
        DType::F16 => return halves(blocks).all(|bits| bits & 0x7c00 != 0x7c00),
        DType::Q4_0 | DType::Q5_0 | DType::Q8_0 | DType::Q8_1 | DType::Q8_K => &[0],
        DType::Q4_1 | DType::Q5_1 | DType::Q4_K | DType::Q5_K => &[0, 2],
        DType::Q2_K => &[80, 82],
        DType::Q3_K => &[108],
        DType::Q6_K => &[208],
    };
    let one = |block: &[u8], at: usize| {
        let bits = [block[at], block[at + 1]];
        u16::from_le_bytes(bits) & 0x7c00 != 0x7c00
    };
    let mut blocks = blocks.chunks_exact(dtype.block_bytes() as usize);
    blocks.all(|block| at.iter().all(|at| one(block, *at)))
}

fn halves(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes.as_chunks().0.iter().map(|bytes| u16::from_le_bytes(*bytes))
}
