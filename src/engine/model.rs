//! A model as it is published, one GGUF file or a Hugging Face folder: what it says of itself, its
//! language, and the decoder that the engine computes itself, one for all architectures.
//! Trusts no file: every length, shape and number is checked before it is used.

mod build;
mod config;
mod folder;
mod from_gguf;
mod names;
mod rope;
mod safetensors;
mod spec;
#[cfg(test)]
mod tests;
mod transformer;
mod weights;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use build::Builder;
use config::Config;
use names::Names;
pub use rope::{RopeSpec, Scaling};
pub use spec::{Activation, Architecture, LayerSpec, Spec};
pub(crate) use transformer::Means;
pub use transformer::Transformer;
use weights::Weights;

use super::gguf::{Gguf, TensorInfo, quantization, shown};
use super::template::ChatTemplate;
use super::tokenizer::Tokenizer;
use crate::error::{Error, Kind, Result};
use crate::limits::{CONFIG_JSON_BYTES_MAX, TEMPLATE_BYTES_MAX, TOKENIZER_JSON_BYTES_MAX};

/// A model whose description has been read and found sound; its weights have not been read.
pub struct Model {
    /// What it is made of.
    pub spec: Spec,
    weights: Weights,
    origin: Origin,
    path: PathBuf,
}

enum Origin {
    Gguf(Gguf),
    Folder(PathBuf, Config),
}

impl Model {
    /// Opens the model at `path`: a GGUF file, a folder that holds one, a folder of Hugging Face, or
    /// a safetensors file in such a folder.
    ///
    /// # Errors
    /// [`Kind::Model`] with one line: what was expected, found, where, and what to do.
    pub fn open(path: &Path) -> Result<Model> {
        let (origin, weights, spec) = match folder::of(path)? {
            folder::Found::Gguf(file) => {
                let (gguf, file) = Gguf::open(&file)?;
                let weights = Weights::of_gguf(&gguf, file);
                let spec = from_gguf::spec(&gguf, &weights)?;
                (Origin::Gguf(gguf), weights, spec)
            }
            folder::Found::Folder(folder, single) => {
                let config = Config::read(&folder)?;
                let weights = folder::weights(&folder, single.as_deref())?;
                let spec = config.spec(&weights)?;
                (Origin::Folder(folder, config), weights, spec)
            }
        };
        Ok(Model { spec, weights, origin, path: path.to_owned() })
    }

    /// The name that it gives itself, or that of its file or folder.
    pub fn name(&self) -> String {
        let own = match &self.origin {
            Origin::Gguf(gguf) => gguf.text_opt("general.name"),
            Origin::Folder(..) => None,
        };
        let path = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
        let stem = if path.is_dir() { path.file_name() } else { path.file_stem() };
        let stem = || stem.map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        own.map_or_else(stem, str::to_owned)
    }

    /// The type that holds most of its weights, such as `Q4_1`.
    pub fn quantization(&self) -> String {
        quantization(|| self.weights.infos())
    }

    /// How many weights it has.
    pub fn parameters(&self) -> u64 {
        self.weights.infos().map(TensorInfo::elements).sum()
    }

    /// Its tensors, as its files describe them.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        self.weights.infos()
    }

    /// Bytes of its files.
    pub fn file_bytes(&self) -> u64 {
        self.weights.bytes()
    }

    /// Its tokenizer and, where it has one, its chat template.
    ///
    /// # Errors
    /// [`Kind::Model`] where either is of an unknown kind or damaged, and where there are more tokens
    /// than the model knows.
    pub fn language(&self) -> Result<(Tokenizer, Option<ChatTemplate>)> {
        let (tokenizer, source) = match &self.origin {
            Origin::Gguf(gguf) => {
                let source = gguf.text_opt("tokenizer.chat_template").map(str::to_owned);
                (Tokenizer::from_gguf(gguf)?, source)
            }
            Origin::Folder(folder, config) => {
                let json =
                    folder::bounded(&folder.join("tokenizer.json"), TOKENIZER_JSON_BYTES_MAX)?;
                let about = object(folder, "tokenizer_config.json")?;
                let mut ends = config.ends();
                let generation = object(folder, "generation_config.json")?;
                ends.extend(config::token_ids(generation.get("eos_token_id")));
                (Tokenizer::from_json(&json, &about, &ends)?, template(folder, &about)?)
            }
        };
        let (found, known) = (tokenizer.vocabulary() as usize, self.spec.vocabulary);
        if found > known {
            let text = format!("the tokenizer has {found} tokens, the model knows {known}");
            return Err(Error::new(Kind::Model, text + "; fetch the whole model again"));
        }
        let (bos, eos) = (tokenizer.bos_text(), tokenizer.eos_text());
        let template = source.map(|source| ChatTemplate::new(&source, bos, eos)).transpose()?;
        Ok((tokenizer, template))
    }

    /// Reads and packs the weights; `progress` hears how many bytes have been read.
    ///
    /// # Errors
    /// [`Kind::Model`] for weights that are missing, of another shape or no numbers;
    /// [`Kind::OutOfMemory`].
    pub(crate) fn decoder(
        &self,
        means: Means,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Transformer> {
        let names = match &self.origin {
            Origin::Gguf(_) => Names::Gguf,
            Origin::Folder(..) => Names::hugging_face(&self.weights, &self.spec),
        };
        let parts = Builder::new(&self.weights, names, &self.spec, progress).parts()?;
        Transformer::new(self.spec.clone(), parts, means)
    }
}

/// A small JSON object of the folder; empty where there is no such file.
fn object(folder: &Path, name: &str) -> Result<Map<String, Value>> {
    let Some(text) = folder::text_opt(&folder.join(name), CONFIG_JSON_BYTES_MAX)? else {
        return Ok(Map::new());
    };
    serde_json::from_str(&text).map_err(|error| {
        let found = shown(&error.to_string());
        let text = format!("{name}: expected a JSON object: {found}; fetch the model again");
        Error::new(Kind::Model, text)
    })
}

/// The source of the chat template: a file of its own, or in `tokenizer_config.json`, there perhaps
/// as one of several by name.
fn template(folder: &Path, about: &Map<String, Value>) -> Result<Option<String>> {
    let most = TEMPLATE_BYTES_MAX as u64;
    if let Some(source) = folder::text_opt(&folder.join("chat_template.jinja"), most)? {
        return Ok(Some(source));
    }
    let own = object(folder, "chat_template.json")?;
    Ok(match own.get("chat_template").or_else(|| about.get("chat_template")) {
        Some(Value::String(source)) => Some(source.clone()),
        Some(Value::Array(all)) => {
            let named =
                all.iter().find(|one| one.get("name").is_some_and(|name| name == "default"));
            named.and_then(|one| one.get("template")?.as_str()).map(str::to_owned)
        }
        _ => None,
    })
}
