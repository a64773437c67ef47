//! Loading: from a path to a model that can compute, telling how it goes. What is read has been
//! checked by our own readers, and is read, never mapped.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::Device;

use super::decoder::{Budget, Chunk, Decoder, Logits};
use super::model::{Means, Model};
use super::{Language, Profile};
use crate::error::Result;
use crate::limits::LOAD_PROGRESS_MS_MIN;
use crate::narration::facts::{
    ModelLoadProgress, ModelLoadStarted, ModelLoaded, WarmupCompleted, WarmupStarted,
};
use crate::narration::{Fact, Narrator, fact};
use rbees_kernel::KvKind;

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
    let model = Model::open(path)?;
    let (tokenizer, template) = model.language()?;
    let (bytes_total, mut last) = (model.file_bytes(), Instant::now());
    let mut tell = |bytes_done| {
        progress(bytes_done, bytes_total);
        if last.elapsed() >= Duration::from_millis(LOAD_PROGRESS_MS_MIN) {
            last = Instant::now();
            let progress = ModelLoadProgress { bytes_done, bytes_total };
            narrator.tell(Fact::ModelLoadProgress(progress));
        }
    };
    let threads = candle_core::utils::get_num_threads();
    let means = Means { kv: KvKind::F16, threads, budget };
    let mut decoder = model.decoder(device, means, &mut tell)?;
    let profile = Profile {
        name: model.name(),
        architecture: model.plan.architecture().to_owned(),
        quantization: model.quantization(),
        parameters: model.parameters(),
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
    warm_up(decoder.as_mut(), narrator)?;
    let language = Arc::new(Language::new(tokenizer, template));
    Ok(Loaded { decoder, language, profile })
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
