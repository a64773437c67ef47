//! A model as it is published, one GGUF file or a Hugging Face folder: what it says of itself, its
//! language, and the decoder that the engine computes itself, one for all architectures.
//! Trusts no file: every length, shape and number is checked before it is used.

mod build;
mod config;
mod folder;
mod from_gguf;
mod names;
mod plan;
mod rope;
pub(crate) mod safetensors;
mod spec;
mod stock;
#[cfg(test)]
mod tests;
mod transformer;
mod weights;

use std::path::{Path, PathBuf};

use candle_core::Device;
use serde_json::{Map, Value};

use build::Builder;
use config::Config;
use names::Names;
pub(crate) use plan::Plan;
pub use plan::Sizes;
pub use rope::{RopeSpec, Scaling};
pub use spec::{Activation, Architecture, LayerSpec, Spec};
use stock::Stock;
pub(crate) use transformer::Means;
pub use transformer::Transformer;
use weights::Weights;

use super::decoder::Decoder;
use super::gguf::{Gguf, TensorInfo, quantization, shown};
use super::template::ChatTemplate;
use super::tokenizer::Tokenizer;
use crate::error::{Error, Kind, Result};
use crate::limits::{
    CONFIG_JSON_BYTES_MAX, MODEL_NAME_CHARS_MAX, TEMPLATE_BYTES_MAX, TOKENIZER_JSON_BYTES_MAX,
};
use crate::narration::clean;

/// A model whose description has been read and found sound; its weights have not been read.
pub struct Model {
    /// What it is made of, and what computes it.
    pub(crate) plan: Plan,
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
        let (origin, weights, plan) = match folder::of(path)? {
            folder::Found::Gguf(file) => {
                let (gguf, file) = Gguf::open(&file)?;
                let weights = Weights::of_gguf(&gguf, file);
                let plan = from_gguf::plan(&gguf, &weights)?;
                (Origin::Gguf(gguf), weights, plan)
            }
            folder::Found::Folder(folder, single) => {
                let config = Config::read(&folder)?;
                let weights = folder::weights(&folder, single.as_deref())?;
                let plan = config.plan(&weights)?;
                (Origin::Folder(folder, config), weights, plan)
            }
        };
        Ok(Model { plan, weights, origin, path: path.to_owned() })
    }

    /// The name that it gives itself, or that of its file or folder, as one safe line: it is shown to
    /// every client.
    pub fn name(&self) -> String {
        let own = match &self.origin {
            Origin::Gguf(gguf) => gguf.text_opt("general.name"),
            Origin::Folder(..) => None,
        };
        let path = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
        let stem = if path.is_dir() { path.file_name() } else { path.file_stem() };
        let stem = || stem.map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        let own = own.map(|name| clean::line(name, MODEL_NAME_CHARS_MAX).into_owned());
        own.unwrap_or_else(|| clean::line(&stem(), MODEL_NAME_CHARS_MAX).into_owned())
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
        let (found, known) = (tokenizer.vocabulary() as usize, self.plan.sizes().vocabulary);
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
        device: &Device,
        means: Means,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Box<dyn Decoder>> {
        match &self.plan {
            Plan::Own(spec) if device.is_cpu() => {
                self.transformer(spec, means, progress).map(|own| Box::new(own) as Box<dyn Decoder>)
            }
            Plan::Own(spec) => {
                let stock = self.elsewhere(spec).map_err(|text| {
                    Error::new(Kind::Model, text + "; start it with --device cpu")
                })?;
                self.stock(&stock, device, means, progress)
            }
            Plan::Stock(description) => self.stock(description, device, means, progress),
        }
    }

    /// How candle computes a model of our own; a text where it does not.
    fn elsewhere(&self, spec: &Spec) -> std::result::Result<stock::Description, String> {
        match &self.origin {
            Origin::Gguf(gguf) => from_gguf::stock(spec, gguf),
            Origin::Folder(_, config) => config.stock(spec),
        }
    }

    fn transformer(
        &self,
        spec: &Spec,
        means: Means,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Transformer> {
        let names = match &self.origin {
            Origin::Gguf(_) => Names::Gguf,
            Origin::Folder(..) => Names::hugging_face(&self.weights, spec),
        };
        let parts = Builder::new(&self.weights, names, spec, progress).parts()?;
        Transformer::new(spec.clone(), parts, means)
    }

    fn stock(
        &self,
        description: &stock::Description,
        device: &Device,
        means: Means,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Box<dyn Decoder>> {
        let stock = Stock::new(description, &self.weights, device, means.budget, progress)?;
        Ok(Box::new(stock))
    }
}

/// That an architecture is of none of the known names.
fn unknown(name: &str) -> String {
    let names: Vec<&str> = Architecture::names().chain(stock::names()).collect();
    format!(
        "its architecture is '{}'; this worker runs: {}; take a model of one of these",
        shown(name),
        names.join(", ")
    )
}

/// The row by which another device than the CPU computes an architecture of our own.
///
/// # Errors
/// A text, where candle has none for this form of file.
fn elsewhere(spec: &Spec, gguf: bool) -> std::result::Result<&'static stock::Row, String> {
    let name = spec.architecture.name();
    let form = if gguf { "out of GGUF" } else { "out of a folder" };
    stock::row(name, gguf).ok_or_else(|| format!("{name} {form} is computed on the CPU only"))
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
