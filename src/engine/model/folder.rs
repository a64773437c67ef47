//! A model as Hugging Face publishes it: a folder with `config.json`, one safetensors file or several
//! with an index, tokenizer and template. Reads nothing outside the folder, whatever an index names.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::safetensors::Shard;
use super::shown;
use super::weights::Weights;
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::limits::{GGUF_TENSORS_MAX, MODEL_SHARDS_MAX, SAFETENSORS_INDEX_BYTES_MAX};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The checked weights in `folder`; where `single` is given, those of that file alone.
///
/// # Errors
/// [`Kind::Model`] that names the file, what was expected and found.
pub(super) fn weights(folder: &Path, single: Option<&Path>) -> Result<Weights> {
    if let Some(file) = single {
        return Weights::of_shards(vec![Shard::open(file)?]);
    }
    let index = folder.join(INDEX);
    if !index.exists() {
        return Weights::of_shards(vec![Shard::open(&folder.join(SINGLE))?]);
    }
    let wrong = |problem: String| Error::new(Kind::Model, format!("{INDEX}: {problem}"));
    let bytes = bounded(&index, SAFETENSORS_INDEX_BYTES_MAX)?;
    let index: Index = serde_json::from_slice(&bytes).map_err(|error| {
        let found = shown(&error.to_string());
        wrong(format!("expected an object with a 'weight_map': {found}; fetch it again"))
    })?;
    if index.weight_map.len() as u64 > GGUF_TENSORS_MAX {
        let found = index.weight_map.len();
        return Err(wrong(format!("expected at most {GGUF_TENSORS_MAX} tensors, found {found}")));
    }
    let mut files: Vec<&String> = index.weight_map.values().collect();
    files.sort();
    files.dedup();
    if files.len() > MODEL_SHARDS_MAX {
        let found = files.len();
        return Err(wrong(format!("expected at most {MODEL_SHARDS_MAX} files, found {found}")));
    }
    let shards: Result<Vec<Shard>> = files
        .iter()
        .map(|file| match Path::new(file).components().collect::<Vec<_>>().as_slice() {
            [std::path::Component::Normal(name)] => Shard::open(&folder.join(name)),
            _ => Err(wrong(format!(
                "expected names of files beside it, found '{}'; fetch the model again",
                shown(file)
            ))),
        })
        .collect();
    let weights = Weights::of_shards(shards?)?;
    let missing = index.weight_map.keys().find(|name| !weights.has(name));
    match missing {
        None => Ok(weights),
        Some(name) => {
            let (name, file) = (shown(name), shown(&index.weight_map[name]));
            Err(wrong(format!("tensor '{name}' is not in '{file}'; fetch the model again")))
        }
    }
}

/// The whole file at `path`, if it has at most `most` bytes.
///
/// # Errors
/// [`Kind::Model`] where it is missing or longer.
pub(super) fn bounded(path: &Path, most: u64) -> Result<Vec<u8>> {
    files::read(path, most).map_err(|error| unread(path, error))
}

/// The text of a file of the folder that need not be there.
///
/// # Errors
/// As [`bounded`], and where it is no UTF-8.
pub(super) fn text_opt(path: &Path, most: u64) -> Result<Option<String>> {
    match files::text(path, most) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some).map_err(|error| unread(path, error)),
    }
}

fn unread(path: &Path, error: io::Error) -> Error {
    let name = shown(&path.file_name().unwrap_or(path.as_os_str()).to_string_lossy());
    let text = format!("{name}: the file can't be read: {error}; fetch the whole model");
    Error::new(Kind::Model, text).because(error)
}

/// What a path names.
pub(super) enum Found {
    /// A GGUF file.
    Gguf(PathBuf),
    /// A folder, and the one file of weights in it that was named.
    Folder(PathBuf, Option<PathBuf>),
}

/// What `path` names.
///
/// # Errors
/// [`Kind::Model`] for a folder that holds neither a configuration nor exactly one GGUF file.
pub(super) fn of(path: &Path) -> Result<Found> {
    let is = |path: &Path, kind: &str| path.extension().is_some_and(|extension| extension == kind);
    if !path.is_dir() {
        let folder = path.parent().filter(|_| is(path, "safetensors"));
        return Ok(match folder {
            Some(folder) => Found::Folder(folder.to_owned(), Some(path.to_owned())),
            None => Found::Gguf(path.to_owned()),
        });
    }
    if path.join(super::config::FILE).exists() {
        return Ok(Found::Folder(path.to_owned(), None));
    }
    let name = shown(&path.file_name().unwrap_or(path.as_os_str()).to_string_lossy());
    let entries = std::fs::read_dir(path).map_err(|error| {
        let text = format!("{name}: the folder can't be read: {error}; check --model");
        Error::new(Kind::Model, text).because(error)
    })?;
    let files = entries.flatten().map(|entry| entry.path());
    let files: Vec<PathBuf> = files.filter(|file| is(file, "gguf")).take(2).collect();
    match <[PathBuf; 1]>::try_from(files) {
        Ok([file]) => Ok(Found::Gguf(file)),
        Err(files) => {
            let found = if files.is_empty() { "none" } else { "several" };
            let text = format!("{name}: expected config.json or one .gguf file in the folder");
            Err(Error::new(Kind::Model, format!("{text}, found {found}; name a file of it")))
        }
    }
}
