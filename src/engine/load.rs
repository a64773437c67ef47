//! Loading: from a path to a model that can compute, telling how it goes. The file is checked by our
//! own reader before candle sees it, and read, never mapped.

use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::Device;

use super::decoder::{Budget, Chunk, Decoder, Logits};
use super::gguf::Gguf;
use super::llama::Llama;
use super::template::ChatTemplate;
use super::tokenizer::Tokenizer;
use super::{Language, Profile};
use crate::error::Result;
use crate::limits::LOAD_PROGRESS_MS_MIN;
use crate::narration::facts::{
    ModelLoadProgress, ModelLoadStarted, ModelLoaded, WarmupCompleted, WarmupStarted,
};
use crate::narration::{Fact, Narrator, fact};

/// A model that is ready to compute.
pub struct Loaded {
    /// What computes.
    pub decoder: Box<dyn Decoder>,
    /// What makes tokens of text.
    pub language: Arc<Language>,
    /// What may be known of it.
    pub profile: Profile,
}

/// Loads and warms up the model at `path` within `budget`; `progress` hears (bytes done, bytes in all).
pub fn load(
    path: &Path,
    device: &Device,
    budget: Budget,
    narrator: &Narrator,
    progress: &dyn Fn(u64, u64),
) -> Result<Loaded> {
    let began = Instant::now();
    // An unreadable file is told as such by the check below, so here its size is only told.
    let file_bytes = std::fs::metadata(path).map_or(0, |file| file.len());
    narrator.tell(Fact::ModelLoadStarted(ModelLoadStarted {
        path: path.display().to_string(),
        file_bytes,
    }));
    let (gguf, file) = Gguf::open(path)?;
    let architecture = gguf.architecture()?.to_owned();
    if architecture != "llama" {
        return Err(
            gguf.error(format_args!("its architecture is {architecture}; this worker runs: llama"))
        );
    }
    let tokenizer = Tokenizer::from_gguf(&gguf)?;
    let template = gguf
        .text_opt("tokenizer.chat_template")
        .map(|source| ChatTemplate::new(source, tokenizer.bos_text(), tokenizer.eos_text()))
        .transpose()?;
    let tell = |done| {
        progress(done, gguf.file_bytes());
        narrator.tell(Fact::ModelLoadProgress(ModelLoadProgress {
            bytes_done: done,
            bytes_total: gguf.file_bytes(),
        }));
    };
    let mut reader = Told { inner: BufReader::new(file), done: 0, last: Instant::now(), tell };
    let mut decoder = Llama::load(&gguf, &mut reader, device, budget)?;
    let profile = Profile {
        name: gguf.text_opt("general.name").map_or_else(|| file_stem(path), str::to_owned),
        architecture,
        quantization: gguf.quantization(),
        parameters: gguf.parameters(),
        vocabulary: tokenizer.vocabulary(),
        context_length: fact::count(decoder.context_length()),
        kv_tokens: fact::count(decoder.blocks().saturating_mul(decoder.block_tokens())),
        resident_bytes: decoder.resident_bytes(),
    };
    narrator.tell(Fact::ModelLoaded(ModelLoaded {
        architecture: profile.architecture.clone(),
        name: profile.name.clone(),
        quantization: profile.quantization.clone(),
        parameters: profile.parameters,
        resident_bytes: profile.resident_bytes,
        vocabulary: profile.vocabulary,
        context_length: profile.context_length,
        duration_ms: fact::millis(began.elapsed()),
    }));
    warm_up(&mut decoder, narrator)?;
    let language = Arc::new(Language::new(tokenizer, template));
    Ok(Loaded { decoder: Box::new(decoder), language, profile })
}

fn file_stem(path: &Path) -> String {
    path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
}

/// Computes one token, so that the first request finds everything in place.
fn warm_up(decoder: &mut dyn Decoder, narrator: &Narrator) -> Result<()> {
    let began = Instant::now();
    narrator.tell(Fact::WarmupStarted(WarmupStarted { tokens: 1 }));
    let chunk = Chunk { blocks: &[0], position: 0, tokens: &[0], logits: true };
    decoder.step(&[chunk], &mut Logits::default())?;
    narrator.tell(Fact::WarmupCompleted(WarmupCompleted {
        tokens: 1,
        duration_ms: fact::millis(began.elapsed()),
    }));
    Ok(())
}

/// A reader that tells how far it is, now and then.
struct Told<R, F> {
    inner: R,
    done: u64,
    last: Instant,
    tell: F,
}

impl<R: Read, F: Fn(u64)> Read for Told<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.done += read as u64;
        if self.last.elapsed() >= Duration::from_millis(LOAD_PROGRESS_MS_MIN) {
            self.last = Instant::now();
            (self.tell)(self.done);
        }
        Ok(read)
    }
}

impl<R: Seek, F> Seek for Told<R, F> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}
