//! Our own reader of a safetensors header: it checks a file before any weight of it is used. Format:
//! the README of Hugging Face's `safetensors`. Never maps the file, never reads a weight, never
//! allocates by a length that it has not held against a limit and against the bytes of the file.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use crate::engine::gguf::{DType, TensorInfo, shown};
use crate::error::{Error, Kind, Result};
use crate::limits::{
    GGUF_DIMENSIONS_MAX, GGUF_TENSOR_NAME_BYTES_MAX, GGUF_TENSORS_MAX, SAFETENSORS_HEADER_BYTES_MAX,
};

/// The format's types of numbers, their bytes, and which of them are weights to us.
const DTYPES: [(&str, u64, Option<DType>); 15] = [
    ("F32", 4, Some(DType::F32)),
    ("F16", 2, Some(DType::F16)),
    ("BF16", 2, Some(DType::BF16)),
    ("BOOL", 1, None),
    ("U8", 1, None),
    ("I8", 1, None),
    ("F8_E4M3", 1, None),
    ("F8_E5M2", 1, None),
    ("U16", 2, None),
    ("I16", 2, None),
    ("U32", 4, None),
    ("I32", 4, None),
    ("F64", 8, None),
    ("U64", 8, None),
    ("I64", 8, None),
];

/// Where the length of the header stands: the first bytes of the file.
const LENGTH_BYTES: u64 = 8;

/// One checked file: its tensors, and the names of those whose type is no weight's.
pub(super) struct Shard {
    pub(super) file: File,
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) tensors: Vec<TensorInfo>,
    pub(super) others: Vec<(String, &'static str)>,
}

/// A tensor as the header has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// The header: tensors in its own order. A name that stands in it twice is an error.
struct Header(Vec<(String, Described)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Tensors;

        impl<'de> Visitor<'de> for Tensors {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Header, A::Error> {
                let (mut tensors, mut names) = (Vec::new(), HashSet::new());
                while let Some(name) = map.next_key::<String>()? {
                    if !names.insert(name.clone()) {
                        let name = shown(&name);
                        return Err(A::Error::custom(format_args!("'{name}' stands there twice")));
                    }
                    if tensors.len() as u64 == GGUF_TENSORS_MAX {
                        let text = format_args!("more than {GGUF_TENSORS_MAX} tensors");
                        return Err(A::Error::custom(text));
                    }
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        tensors.push((name, map.next_value()?));
                    }
                }
                Ok(Header(tensors))
            }
        }

        deserializer.deserialize_map(Tensors)
    }
}

impl Shard {
    /// Opens the file at `path` and checks its header.
    ///
    /// # Errors
    /// [`Kind::Model`] with one line: what was expected, found, where, and what to do.
    pub(super) fn open(path: &Path) -> Result<Shard> {
        let name = shown(&path.file_name().unwrap_or(path.as_os_str()).to_string_lossy());
        let fail = |error: std::io::Error| {
            let text = format!("{name}: the model file can't be read: {error}; check it");
            Error::new(Kind::Model, text).because(error)
        };
        let file = File::open(path).map_err(fail)?;
        let stat = file.metadata().map_err(fail)?;
        let wrong = |problem: String| Error::new(Kind::Model, format!("{name}: {problem}"));
        if !stat.is_file() {
            return Err(wrong("expected a file, found a folder or a device".to_owned()));
        }
        let (tensors, others) = described(&file, stat.len()).map_err(wrong)?;
        Ok(Shard { file, name, bytes: stat.len(), tensors, others })
    }
}

/// What the header of a file of so many bytes describes: its tensors, and the names of those whose
/// type is no weight's. The error says what was expected and found.
pub(crate) fn described(file: impl Read, bytes: u64) -> std::result::Result<Placed, String> {
    placed(&header(file, bytes)?, bytes)
}

/// The header's JSON and where the data begin.
fn header(mut file: impl Read, bytes: u64) -> std::result::Result<(Header, u64), String> {
    let mut length = [0; LENGTH_BYTES as usize];
    let cut = |error| format!("its header can't be read: {error}; fetch the file again");
    file.read_exact(&mut length).map_err(cut)?;
    let length = u64::from_le_bytes(length);
    if length > SAFETENSORS_HEADER_BYTES_MAX || length > bytes - LENGTH_BYTES {
        let most = SAFETENSORS_HEADER_BYTES_MAX.min(bytes - LENGTH_BYTES);
        return Err(format!(
            "expected a header of at most {most} bytes, found {length} at byte 0; this is no \
             safetensors file, or it is cut short: fetch it again"
        ));
    }
    let mut text = vec![0; length as usize];
    file.read_exact(&mut text).map_err(cut)?;
    let header = serde_json::from_slice(&text).map_err(|error| {
        let what = shown(&error.to_string());
        format!("its header is no list of tensors: {what}; fetch or convert the model again")
    })?;
    Ok((header, LENGTH_BYTES + length))
}

pub(crate) type Placed = (Vec<TensorInfo>, Vec<(String, &'static str)>);

/// The tensors with their places in the file. They must fill the data, each byte once.
fn placed((header, data): &(Header, u64), bytes: u64) -> std::result::Result<Placed, String> {
    let (mut tensors, mut others, mut ranges) = (Vec::new(), Vec::new(), Vec::new());
    for (name, described) in &header.0 {
        let at = |problem: String| {
            format!("tensor '{}' {problem}; fetch or convert the model again", shown(name))
        };
        let (begin, end) = described.data_offsets;
        let (dtype, length) = sized(name, described).map_err(at)?;
        if end.checked_sub(begin) != Some(length) {
            return Err(at(format!("needs {length} bytes, but lies from {begin} to {end}")));
        }
        if end > bytes - data {
            let left = bytes - data;
            return Err(at(format!("ends at byte {end} of {left}: the file is cut short")));
        }
        ranges.push((begin, end, name));
        match dtype {
            (_, _, Some(dtype)) => tensors.push(TensorInfo {
                name: name.clone(),
                shape: described.shape.clone(),
                dtype: *dtype,
                offset: data + begin,
                bytes: length,
            }),
            (other, ..) => others.push((name.clone(), *other)),
        }
    }
    ranges.sort_unstable();
    let mut filled = 0;
    for (begin, end, name) in ranges {
        if begin != filled {
            return Err(format!(
                "tensor '{}' begins at byte {begin} of the data, where {filled} was expected: \
                 tensors overlap or leave holes; fetch or convert the model again",
                shown(name)
            ));
        }
        filled = end;
    }
    if filled != bytes - data {
        let left = bytes - data;
        return Err(format!(
            "its tensors end at byte {filled} of the data, which has {left}; fetch it again"
        ));
    }
    Ok((tensors, others))
}

type Row = (&'static str, u64, Option<DType>);

/// The type of a tensor and how many bytes it has to have.
fn sized(name: &str, described: &Described) -> std::result::Result<(&'static Row, u64), String> {
    if name.is_empty() || name.len() as u64 > GGUF_TENSOR_NAME_BYTES_MAX {
        let most = GGUF_TENSOR_NAME_BYTES_MAX;
        return Err(format!("has a name of {} bytes, where 1 to {most} are expected", name.len()));
    }
    let known = DTYPES.iter().find(|row| row.0 == described.dtype);
    let row = known.ok_or_else(|| format!("has the unknown type '{}'", shown(&described.dtype)))?;
    if described.shape.len() > GGUF_DIMENSIONS_MAX as usize {
        let found = described.shape.len();
        return Err(format!("has {found} dimensions, where at most 4 are expected"));
    }
    let length = described.shape.iter().try_fold(row.1, |bytes, size| bytes.checked_mul(*size));
    Ok((row, length.ok_or("has dimensions whose product 64 bits can't hold")?))
}
