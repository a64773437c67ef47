//! What a model is and whether it runs here, without loading it: reads headers and descriptions, no
//! weights. Says why not, where it does not run.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use super::gguf::{Gguf, TensorInfo, shown};
use super::model::Model;
use crate::error::Result;

/// What there is to know of a model before it is loaded.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Name of its file or folder.
    pub file: String,
    /// Name that it gives itself.
    pub name: String,
    /// Whether this worker runs it.
    pub runs: bool,
    /// Why not, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<String>,
    /// Architecture, as the file has it.
    pub architecture: String,
    /// Quantization of most weights.
    pub quantization: String,
    /// Weights, counted.
    pub parameters: u64,
    /// Bytes of its files.
    pub file_bytes: u64,
    /// Its tensors by type, most bytes first.
    pub tensors: Vec<Kindred>,
    /// What its description says, where that is sound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shape: Option<Shape>,
    /// Its tokenizer, where that is sound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<Text>,
}

/// The tensors of one type.
#[derive(Debug, Serialize)]
pub struct Kindred {
    /// Their type, such as `Q4_1`.
    pub dtype: &'static str,
    /// How many there are.
    pub tensors: usize,
    /// Weights in them.
    pub parameters: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// Sizes that decide what a model takes.
#[derive(Debug, Serialize)]
pub struct Shape {
    /// Layers.
    pub layers: usize,
    /// Numbers that stand for a token between the layers.
    pub width: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Longest sequence, tokens.
    pub context_length: usize,
    /// Memory for keys and values, bytes a token.
    pub kv_bytes_per_token: u64,
    /// The same for one sequence of the longest length.
    pub kv_bytes_per_sequence: u64,
}

/// What turns text into tokens.
#[derive(Debug, Serialize)]
pub struct Text {
    /// Tokens in the vocabulary.
    pub vocabulary: u32,
    /// The token that begins a sequence; empty: none.
    pub bos: String,
    /// The token that ends one; empty: none.
    pub eos: String,
    /// Whether chats are taken: the model has a template.
    pub chat_template: bool,
}

/// Looks at the model at `path`.
///
/// # Errors
/// [`crate::error::Kind::Model`] for what is no model at all, or a damaged one. One that is sound
/// and does not run is a report with an `obstacle`.
pub fn inspect(path: &Path) -> Result<Report> {
    let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let mut report = Report {
        file: shown(&file),
        name: String::new(),
        runs: false,
        obstacle: None,
        architecture: String::new(),
        quantization: String::new(),
        parameters: 0,
        file_bytes: 0,
        tensors: Vec::new(),
        shape: None,
        language: None,
    };
    if path.is_file() && path.extension().is_none_or(|extension| extension != "safetensors") {
        // First by our reader alone: a sound file of an unknown architecture is told of, too.
        let (gguf, _) = Gguf::open(path)?;
        report.name = gguf.text_opt("general.name").map(shown).unwrap_or_default();
        report.architecture = shown(gguf.architecture().unwrap_or_default());
        report.describe(gguf.quantization(), gguf.file_bytes(), gguf.tensors().iter());
    }
    match Model::open(path) {
        Ok(model) => report.fill(&model),
        Err(error) if report.file_bytes == 0 => return Err(error),
        Err(error) => report.obstacle = Some(error.to_string()),
    }
    report.runs = report.obstacle.is_none();
    Ok(report)
}

impl Report {
    fn describe<'t>(
        &mut self,
        quantization: String,
        file_bytes: u64,
        tensors: impl Iterator<Item = &'t TensorInfo>,
    ) {
        self.quantization = quantization;
        self.file_bytes = file_bytes;
        self.tensors.clear();
        for tensor in tensors {
            self.parameters += tensor.elements();
            let name = tensor.dtype.name();
            let at = self.tensors.iter().position(|kindred| kindred.dtype == name);
            let at = at.unwrap_or_else(|| {
                self.tensors.push(Kindred { dtype: name, tensors: 0, parameters: 0, bytes: 0 });
                self.tensors.len() - 1
            });
            let kindred = &mut self.tensors[at];
            kindred.tensors += 1;
            kindred.parameters += tensor.elements();
            kindred.bytes += tensor.bytes;
        }
        self.tensors.sort_by(|a, b| b.bytes.cmp(&a.bytes).then(a.dtype.cmp(b.dtype)));
    }

    fn fill(&mut self, model: &Model) {
        let sizes = model.plan.sizes();
        self.name = shown(&model.name());
        self.architecture = model.plan.architecture().to_owned();
        self.parameters = 0;
        self.describe(model.quantization(), model.file_bytes(), model.tensors());
        let kv_bytes_per_token = model.plan.kv_token_bytes();
        self.shape = Some(Shape {
            layers: sizes.layers,
            width: sizes.width,
            heads: sizes.heads,
            kv_heads: sizes.kv_heads,
            context_length: sizes.context_length,
            kv_bytes_per_token,
            kv_bytes_per_sequence: kv_bytes_per_token * sizes.context_length as u64,
        });
        match model.language() {
            Ok((tokenizer, template)) => {
                self.language = Some(Text {
                    vocabulary: tokenizer.vocabulary(),
                    bos: shown(tokenizer.bos_text()),
                    eos: shown(tokenizer.eos_text()),
                    chat_template: template.is_some(),
                });
            }
            Err(error) => self.obstacle = Some(error.to_string()),
        }
    }
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.obstacle {
            None => writeln!(f, "{}: runs", self.file)?,
            Some(obstacle) => writeln!(f, "{}: does not run: {obstacle}", self.file)?,
        }
        writeln!(f, "  name           {}", self.name)?;
        writeln!(f, "  architecture   {}", self.architecture)?;
        writeln!(f, "  weights        {}, {}", grouped(self.parameters), self.quantization)?;
        writeln!(f, "  files          {}", mebibytes(self.file_bytes))?;
        for kindred in &self.tensors {
            let Kindred { dtype, tensors, parameters, bytes } = kindred;
            let (parameters, bytes) = (grouped(*parameters), mebibytes(*bytes));
            writeln!(
                f,
                "    {dtype:<6} {tensors:>5} tensors {parameters:>16} weights {bytes:>12}"
            )?;
        }
        if let Some(shape) = &self.shape {
            writeln!(
                f,
                "  layers         {}, width {}, heads {} ({} for keys and values)",
                shape.layers, shape.width, shape.heads, shape.kv_heads
            )?;
            writeln!(f, "  context        {} tokens", grouped(shape.context_length as u64))?;
            writeln!(
                f,
                "  memory         about {} for weights, {} a token, {} a full sequence",
                mebibytes(self.file_bytes),
                format_args!("{:.1} KiB", shape.kv_bytes_per_token as f64 / 1024.0),
                mebibytes(shape.kv_bytes_per_sequence)
            )?;
        }
        if let Some(text) = &self.language {
            writeln!(f, "  vocabulary     {} tokens", grouped(u64::from(text.vocabulary)))?;
            let named =
                |token: &str| if token.is_empty() { "none".into() } else { token.to_owned() };
            writeln!(f, "  begins with    {}, ends with {}", named(&text.bos), named(&text.eos))?;
            let chats = if text.chat_template { "yes" } else { "no: it takes prompts only" };
            writeln!(f, "  chat template  {chats}")?;
        }
        Ok(())
    }
}
