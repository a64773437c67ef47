//! The words for every kind of fact: plain ones, a gentle picture from the hive, and what two parts of
//! the worker said to each other where they really spoke. It never invents a number.

mod device;
mod filters;
mod model;
mod pool;
mod request;
mod server;

use crate::contract::rbees::narration::facts::Fact;
use crate::line::{self, Line};

/// Longest plain sentence, characters.
pub const HUMAN_CHARS_MAX: usize = 100;
/// Longest cute line, characters.
pub const CUTE_CHARS_MAX: usize = 150;
/// Longest story, characters.
pub const STORY_CHARS_MAX: usize = 200;

/// What is told of one fact.
pub struct Words {
    /// The plain sentence.
    pub human: String,
    /// The picture from the hive.
    pub cute: Option<String>,
    /// The speech.
    pub story: Option<String>,
}

/// Takes down the words that are wanted.
struct Teller {
    words: Words,
    wants_cute: bool,
    wants_story: bool,
}

impl Teller {
    fn human(&mut self, pieces: impl Fn(&mut Line) -> &mut Line) -> &mut Self {
        self.words.human = line::write(HUMAN_CHARS_MAX, false, &pieces);
        self
    }

    fn cute(&mut self, pieces: impl Fn(&mut Line) -> &mut Line) -> &mut Self {
        if self.wants_cute {
            self.words.cute = Some(line::write(CUTE_CHARS_MAX, true, &pieces));
        }
        self
    }

    fn story(&mut self, pieces: impl Fn(&mut Line) -> &mut Line) -> &mut Self {
        if self.wants_story {
            self.words.story = Some(line::write(STORY_CHARS_MAX, true, &pieces));
        }
        self
    }
}

/// Words a fact, with the cute line and the story where they are wanted.
pub fn of(fact: &Fact, wants_cute: bool, wants_story: bool) -> Words {
    let words = Words { human: String::new(), cute: None, story: None };
    let mut teller = Teller { words, wants_cute, wants_story };
    let t = &mut teller;
    match fact {
        Fact::Startup(fact) => server::startup(t, fact),
        Fact::CpuReady(fact) => device::cpu_ready(t, fact),
        Fact::CudaReady(fact) => device::cuda_ready(t, fact),
        Fact::MetalReady(fact) => device::metal_ready(t, fact),
        Fact::ModelLoadStarted(fact) => model::load_started(t, fact),
        Fact::ModelLoadProgress(fact) => model::load_progress(t, fact),
        Fact::ModelLoaded(fact) => model::loaded(t, fact),
        Fact::ModelLoadFailed(fact) => model::load_failed(t, fact),
        Fact::WarmupStarted(fact) => model::warmup_started(t, fact),
        Fact::WarmupCompleted(fact) => model::warmup_completed(t, fact),
        Fact::ReadyAnnounced(fact) => pool::ready_announced(t, fact),
        Fact::CallbackAttempted(fact) => pool::callback_attempted(t, fact),
        Fact::CallbackFailed(fact) => pool::callback_failed(t, fact),
        Fact::HeartbeatFailed(fact) => pool::heartbeat_failed(t, fact),
        Fact::ServerStarted(fact) => server::started(t, fact),
        Fact::ServerBound(fact) => server::bound(t, fact),
        Fact::BindFailed(fact) => server::bind_failed(t, fact),
        Fact::HealthChecked(fact) => server::health_checked(t, fact),
        Fact::ServerShutdown(fact) => server::shutdown(t, fact),
        Fact::RequestRejected(fact) => request::rejected(t, fact),
        Fact::RequestAccepted(fact) => request::accepted(t, fact),
        Fact::RequestQueued(fact) => request::queued(t, fact),
        Fact::PromptTokenized(fact) => request::prompt_tokenized(t, fact),
        Fact::InferenceStarted(fact) => request::inference_started(t, fact),
        Fact::CacheReset(fact) => request::cache_reset(t, fact),
        Fact::PrefillProgress(fact) => request::prefill_progress(t, fact),
        Fact::TokensGenerated(fact) => request::tokens_generated(t, fact),
        Fact::InferenceCompleted(fact) => request::inference_completed(t, fact),
        Fact::InferenceFailed(fact) => request::inference_failed(t, fact),
        Fact::InferenceCancelled(fact) => request::inference_cancelled(t, fact),
        Fact::FilterLoaded(fact) => filters::loaded(t, fact),
        Fact::FilterRejected(fact) => filters::rejected(t, fact),
        Fact::FilterQuarantined(fact) => filters::quarantined(t, fact),
        Fact::NarrationLost(fact) => filters::narration_lost(t, fact),
        Fact::Other(fact) => filters::other(t, fact),
    };
    teller.words
}
