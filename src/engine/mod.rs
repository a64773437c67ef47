//! The engine: a thread that knows jobs, facts and tokens. It knows nothing of HTTP, sinks or filters
//! and never waits for any of them. What comes out of a model file is checked here first.

mod chat;
pub mod decoder;
pub mod device;
pub mod gguf;
mod grammar;
pub mod inspect;
pub mod kv;
pub mod load;
mod logprobs;
pub mod model;
pub mod sampler;
pub mod scheduler;
pub mod stop;
pub mod template;
pub mod text;
pub mod tokenizer;

pub use decoder::{Budget, Chunk, Decoder, Logits};
pub use load::{Loaded, load};

use crate::error::{Error, Kind};

impl From<rbees_kernel::Error> for Error {
    fn from(error: rbees_kernel::Error) -> Self {
        let kind = match error.fault() {
            rbees_kernel::Fault::Setting => Kind::Config,
            rbees_kernel::Fault::Weights => Kind::Model,
            rbees_kernel::Fault::Memory => Kind::OutOfMemory,
        };
        Error::new(kind, error.to_string())
    }
}

/// What clients and pool managers may know of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Name that the file gives it.
    pub name: String,
    /// Architecture.
    pub architecture: String,
    /// Quantization of most weights.
    pub quantization: String,
    /// Weights, counted.
    pub parameters: u64,
    /// Tokens in the vocabulary.
    pub vocabulary: u32,
    /// Longest sequence, tokens.
    pub context_length: u32,
    /// Tokens whose keys and values there is memory for, of all sequences together.
    pub kv_tokens: u32,
    /// Memory of weights and caches on the device, bytes.
    pub resident_bytes: u64,
}

/// The model as text: what turns prompts into tokens, for any number of askers at once.
pub struct Language {
    /// The vocabulary.
    pub tokenizer: tokenizer::Tokenizer,
    /// The model's own chat template, where it has one.
    pub template: Option<template::ChatTemplate>,
    grammars: grammar::Grammars,
}

impl Language {
    /// What a tokenizer and a template make together.
    pub fn new(tokenizer: tokenizer::Tokenizer, template: Option<template::ChatTemplate>) -> Self {
        Language { tokenizer, template, grammars: grammar::Grammars::default() }
    }
}
