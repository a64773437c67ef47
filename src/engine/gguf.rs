//! Our own reader of a GGUF header (versions 2 and 3, little endian): it checks a model file before
//! candle sees it. Format: the specification `docs/gguf.md` of the ggml project.
//! Never maps the file, never reads a weight, never allocates by a length that it has not held
//! against a limit and against the bytes left in the file, and answers nonsense with an error.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read, Seek as _};
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::limits::{
    GGUF_ALIGNMENT_BYTES_MAX, GGUF_ARRAY_MAX, GGUF_DIMENSIONS_MAX, GGUF_ENTRIES_MAX,
    GGUF_HEADER_BYTES_MAX, GGUF_KEY_BYTES_MAX, GGUF_STRING_BYTES_MAX, GGUF_TENSOR_NAME_BYTES_MAX,
    GGUF_TENSORS_MAX, SHOWN_CHARS_MAX,
};

/// Alignment of tensor data in a file that names none, bytes.
const ALIGNMENT_BYTES: u64 = 32;
/// Fewest bytes that a metadata entry takes: key length, one letter, type, one-byte value.
const ENTRY_BYTES_MIN: u64 = 8 + 1 + 4 + 1;
/// Fewest bytes that a tensor's description takes: name, one dimension, type, offset.
const TENSOR_BYTES_MIN: u64 = 8 + 1 + 4 + 8 + 4 + 8;

/// How the weights of a tensor are stored: the ggml types that the engine can compute with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, non_camel_case_types)]
pub enum DType {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q8_1,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    Q8_K,
}

/// Each type with its ggml number, name, weights in a block and bytes of a block.
const DTYPES: [(u32, DType, &str, u64, u64); 15] = [
    (0, DType::F32, "F32", 1, 4),
    (1, DType::F16, "F16", 1, 2),
    (2, DType::Q4_0, "Q4_0", 32, 18),
    (3, DType::Q4_1, "Q4_1", 32, 20),
    (6, DType::Q5_0, "Q5_0", 32, 22),
    (7, DType::Q5_1, "Q5_1", 32, 24),
    (8, DType::Q8_0, "Q8_0", 32, 34),
    (9, DType::Q8_1, "Q8_1", 32, 36),
    (10, DType::Q2_K, "Q2_K", 256, 84),
    (11, DType::Q3_K, "Q3_K", 256, 110),
    (12, DType::Q4_K, "Q4_K", 256, 144),
    (13, DType::Q5_K, "Q5_K", 256, 176),
    (14, DType::Q6_K, "Q6_K", 256, 210),
    (15, DType::Q8_K, "Q8_K", 256, 292),
    (30, DType::BF16, "BF16", 1, 2),
];

/// ggml types that exist, but that the engine has no arithmetic for.
const OTHER_DTYPES: [(u32, &str); 18] = [
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
];

impl DType {
    fn row(self) -> (u32, DType, &'static str, u64, u64) {
        *DTYPES.iter().find(|row| row.1 == self).expect("every type has its row in DTYPES")
    }

    /// Its number in a GGUF file.
    pub fn ggml(self) -> u32 {
        self.row().0
    }

    /// The name by which people know it, such as `Q4_1`.
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// Weights in one block; a row of a tensor is a whole number of blocks.
    pub fn block_size(self) -> u64 {
        self.row().3
    }

    /// Bytes of one block.
    pub fn block_bytes(self) -> u64 {
        self.row().4
    }
}

/// One tensor as the header describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name, unique in the file.
    pub name: String,
    /// Its dimensions, outermost first: `[rows, columns]` of a matrix (the file has them reversed).
    pub shape: Vec<u64>,
    /// How its weights are stored.
    pub dtype: DType,
    /// Where its data begins, bytes from the start of the file.
    pub offset: u64,
    /// How long its data is, bytes.
    pub bytes: u64,
}

impl TensorInfo {
    /// How many weights it has.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// A value of the metadata; arrays are kept compact, one allocation each (texts aside).
enum Value {
    Uint(u64),
    Int(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    Bytes(Vec<u8>),
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    Texts(Vec<String>),
}

impl Value {
    fn sort(&self) -> &'static str {
        match self {
            Value::Uint(_) | Value::Int(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Bool(_) => "a boolean",
            Value::Text(_) => "a text",
            Value::Bytes(_) => "an array of bytes",
            Value::Ints(_) => "an array of integers",
            Value::Floats(_) => "an array of floats",
            Value::Texts(_) => "an array of texts",
        }
    }
}

/// The checked header of a GGUF file: its metadata and where its tensors are.
///
/// The accessors ending in `_opt` give `None` both for a key that is missing and for a value of
/// another type; the others give an error ([`Kind::Model`]) that says which of the two it was.
pub struct Gguf {
    path: PathBuf,
    file: String,
    file_bytes: u64,
    metadata: HashMap<String, Value>,
    tensors: Vec<TensorInfo>,
}

impl Gguf {
    /// Opens the file at `path` and checks its header. The weights are to be read through the handle
    /// that comes with it, which stands at the beginning: whatever the path names by then, this is
    /// the file that was checked.
    ///
    /// # Errors
    /// [`Kind::Model`] with one line: what was expected, found, where, and what to do.
    pub fn open(path: &Path) -> Result<(Gguf, File)> {
        let file = shown(&path.file_name().unwrap_or(path.as_os_str()).to_string_lossy());
        let fail = |what: &str, error: std::io::Error| {
            Error::new(
                Kind::Model,
                format!(
                    "{file}: the model file can't be {what}: {error}; check --model and its rights"
                ),
            )
            .because(error)
        };
        let mut handle = File::open(path).map_err(|error| fail("opened", error))?;
        let stat = handle.metadata().map_err(|error| fail("examined", error))?;
        if !stat.is_file() {
            let text = format!("{file}: expected a model file, found a folder or a device");
            return Err(Error::new(Kind::Model, text + "; give the path of a .gguf file"));
        }
        let header = Header {
            reader: BufReader::with_capacity(64 * 1024, &handle),
            at: 0,
            file_bytes: stat.len(),
            file,
        };
        let gguf = header.read(path)?;
        handle
            .rewind()
            .map_err(|error| gguf.error(format_args!("it can't be read again: {error}")))?;
        Ok((gguf, handle))
    }

    /// Checks a header that lies in memory, as that of a file of this length; `file` names it in errors.
    ///
    /// # Errors
    /// As [`Gguf::open`].
    pub fn from_bytes(file: &str, bytes: &[u8]) -> Result<Gguf> {
        let file_bytes = bytes.len() as u64;
        Header { reader: bytes, at: 0, file_bytes, file: shown(file) }.read(Path::new(file))
    }

    /// The model's architecture, such as `llama`.
    pub fn architecture(&self) -> Result<&str> {
        self.text("general.architecture")
    }

    /// The text at `key`.
    pub fn text(&self, key: &str) -> Result<&str> {
        self.text_opt(key).ok_or_else(|| self.lacks(key, "a text"))
    }

    /// The text at `key`, if there is one.
    pub fn text_opt(&self, key: &str) -> Option<&str> {
        match self.metadata.get(key) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The integer at `key`, which must not be negative.
    pub fn uint(&self, key: &str) -> Result<u64> {
        self.uint_opt(key).ok_or_else(|| self.lacks(key, "an integer that isn't negative"))
    }

    /// The integer at `key`, if there is one that isn't negative.
    pub fn uint_opt(&self, key: &str) -> Option<u64> {
        match self.metadata.get(key) {
            Some(Value::Uint(number)) => Some(*number),
            Some(Value::Int(number)) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// The number at `key`, if there is one; an integer counts.
    pub fn float_opt(&self, key: &str) -> Option<f64> {
        match self.metadata.get(key) {
            Some(Value::Float(number)) => Some(*number),
            Some(Value::Uint(number)) => Some(*number as f64),
            Some(Value::Int(number)) => Some(*number as f64),
            _ => None,
        }
    }

    /// The boolean at `key`, if there is one.
    pub fn bool_opt(&self, key: &str) -> Option<bool> {
        match self.metadata.get(key) {
            Some(Value::Bool(yes)) => Some(*yes),
            _ => None,
        }
    }

    /// The array of texts at `key`.
    pub fn texts(&self, key: &str) -> Result<&[String]> {
        self.texts_opt(key).ok_or_else(|| self.lacks(key, "an array of texts"))
    }

    /// The array of texts at `key`, if there is one.
    pub fn texts_opt(&self, key: &str) -> Option<&[String]> {
        match self.metadata.get(key) {
            Some(Value::Texts(texts)) => Some(texts),
            _ => None,
        }
    }

    /// The array of integers at `key`, if there is one (16 to 64 bits wide, or signed bytes).
    pub fn ints_opt(&self, key: &str) -> Option<&[i64]> {
        match self.metadata.get(key) {
            Some(Value::Ints(numbers)) => Some(numbers),
            _ => None,
        }
    }

    /// The array of floats at `key`, if there is one; doubles are narrowed.
    pub fn floats_opt(&self, key: &str) -> Option<&[f32]> {
        match self.metadata.get(key) {
            Some(Value::Floats(numbers)) => Some(numbers),
            _ => None,
        }
    }

    /// The array of unsigned bytes or of booleans at `key`, if there is one.
    pub fn bytes_opt(&self, key: &str) -> Option<&[u8]> {
        match self.metadata.get(key) {
            Some(Value::Bytes(bytes)) => Some(bytes),
            _ => None,
        }
    }

    /// Every tensor, in the file's order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// How many weights the model has.
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().map(TensorInfo::elements).sum()
    }

    /// The type that holds most of the weights, such as `Q4_1`; `none` without tensors.
    pub fn quantization(&self) -> String {
        quantization(|| self.tensors.iter())
    }

    /// The file's length, bytes.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An error about this file, for those that read its metadata; `problem` ends in what to do.
    pub fn error(&self, problem: impl fmt::Display) -> Error {
        Error::new(Kind::Model, format!("{}: {problem}", self.file))
    }

    fn lacks(&self, key: &str, expected: &str) -> Error {
        let found = self.metadata.get(key).map_or("nothing", Value::sort);
        self.error(format_args!(
            "expected {expected} at metadata key '{}', found {found}; convert the model again",
            shown(key)
        ))
    }
}

/// The type that holds most of the weights of these tensors, such as `Q4_1`; `none` without any.
pub(crate) fn quantization<'t, I>(tensors: impl Fn() -> I) -> String
where
    I: Iterator<Item = &'t TensorInfo>,
{
    let weights = |dtype| -> u64 {
        tensors().filter(|tensor| tensor.dtype == dtype).map(TensorInfo::elements).sum()
    };
    let most = DTYPES.iter().map(|row| (weights(row.1), row.2)).max_by_key(|(count, _)| *count);
    most.filter(|(count, _)| *count > 0).map_or("none", |(_, name)| name).to_owned()
}

/// Text of a file made fit for a message: no control characters, at most 64 characters.
pub(crate) fn shown(text: &str) -> String {
    let mut clean = text.chars().filter(|c| !c.is_control()).filter(|c| !is_format(*c));
    let mut shown: String = clean.by_ref().take(SHOWN_CHARS_MAX).collect();
    if clean.next().is_some() {
        shown.push('…');
    }
    shown
}

/// Characters that reorder or hide what stands around them.
fn is_format(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

mod header;
use header::Header;

#[cfg(test)]
pub(crate) mod tests;
