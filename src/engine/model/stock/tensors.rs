//! The tensors of a folder on a device, as candle's models ask for them, with a record of which were
//! asked for: one that nobody wants would be left out in silence. Reads through the checked handles.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Shape, Tensor, bail};
use candle_nn::Init;
use candle_nn::var_builder::SimpleBackend;

use super::super::weights::{Weights, finite, floats_of};
use crate::engine::gguf::{DType as Stored, TensorInfo, shown};
use crate::error::{Error, Kind, Result};
use crate::limits::LOAD_SLAB_BYTES;

/// All tensors by name.
pub(super) struct Tensors {
    all: HashMap<String, Tensor>,
    wanted: Mutex<BTreeSet<String>>,
}

/// The tensors as candle's loader takes them.
pub(super) struct Shelf(pub(super) Arc<Tensors>);

impl Tensors {
    /// Reads all of `weights` onto `device` as `dtype`.
    ///
    /// # Errors
    /// [`Kind::Model`] for numbers that are none, and for blocks of integers.
    pub(super) fn read(
        weights: &Weights,
        dtype: DType,
        device: &Device,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Tensors> {
        let mut infos: Vec<&TensorInfo> = weights.infos().collect();
        infos.sort_by_key(|info| info.offset);
        let (mut all, mut done) = (HashMap::with_capacity(infos.len()), 0);
        for info in infos {
            let mut told = |bytes| {
                done += bytes;
                progress(done);
            };
            let numbers = numbers(weights, info, &mut told)?;
            let shape: Vec<usize> = info.shape.iter().map(|size| *size as usize).collect();
            let tensor = Tensor::from_vec(numbers, shape, device).and_then(|t| t.to_dtype(dtype));
            let tensor = tensor.map_err(|error| {
                let text = format!("tensor '{}' does not fit on the device", shown(&info.name));
                Error::new(Kind::OutOfMemory, text).because(error)
            })?;
            all.insert(info.name.clone(), tensor);
        }
        Ok(Tensors { all, wanted: Mutex::default() })
    }

    /// Memory that they take, bytes.
    pub(super) fn bytes(&self) -> u64 {
        let bytes = |tensor: &Tensor| tensor.elem_count() * tensor.dtype().size_in_bytes();
        self.all.values().map(bytes).sum::<usize>() as u64
    }

    /// One that nobody asked for, if there is one; `known` are names that may be left.
    pub(super) fn left(&self, known: impl Fn(&str) -> bool) -> Option<String> {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left: Vec<&String> =
            self.all.keys().filter(|name| !wanted.contains(*name) && !known(name)).collect();
        left.sort();
        left.first().map(|name| (*name).clone())
    }

    fn tensor(&self, name: &str) -> candle_core::Result<Tensor> {
        let Some(tensor) = self.all.get(name) else {
            bail!("expected the tensor '{name}', found none of that name")
        };
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        Ok(tensor.clone())
    }
}

/// The numbers of a tensor, in 32 bits; read slab by slab.
fn numbers(weights: &Weights, info: &TensorInfo, told: &mut dyn FnMut(u64)) -> Result<Vec<f32>> {
    let name = shown(&info.name);
    if !matches!(info.dtype, Stored::F32 | Stored::F16 | Stored::BF16) {
        let text = format!("tensor '{name}' is {}, expected floats", info.dtype.name());
        return Err(Error::new(Kind::Model, text + "; take the model in another form"));
    }
    let (mut numbers, mut slab, mut at) = (Vec::new(), Vec::new(), 0);
    numbers.try_reserve_exact(info.elements() as usize).map_err(|error| {
        Error::new(Kind::OutOfMemory, format!("no memory for tensor '{name}'")).because(error)
    })?;
    while at < info.bytes {
        let length = LOAD_SLAB_BYTES.min(info.bytes - at);
        weights.read(info, at, length, &mut slab)?;
        if !finite(info.dtype, &slab) {
            let text = format!("tensor '{name}' holds numbers that are none, or infinite");
            return Err(Error::new(Kind::Model, text + "; fetch or convert the model again"));
        }
        numbers.extend(floats_of(info.dtype, &slab));
        at += length;
        told(length);
    }
    Ok(numbers)
}

impl SimpleBackend for Shelf {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        let tensor = self.get_unchecked(name, dtype, device)?;
        match tensor.shape() == &shape {
            true => Ok(tensor),
            false => bail!("tensor '{name}' should be {shape:?}, but is {:?}", tensor.shape()),
        }
    }

    fn get_unchecked(
        &self,
        name: &str,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        // Both change nothing where they are what the tensors were read as.
        self.0.tensor(name)?.to_device(device)?.to_dtype(dtype)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.all.contains_key(name)
    }
}
