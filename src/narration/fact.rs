//! What the contract fixes for each kind of fact: who acts, what they do, how much it matters, and
//! what it is done to. The fields themselves come from the WIT.

use super::vocabulary::facts::{CancelledBy, Fact, WorkerState};
use super::vocabulary::types::Severity;

const WORKER: &str = "rbees-workerd";
const DEVICES: &str = "device-manager";
const LOADER: &str = "model-loader";
const SERVER: &str = "http-server";
const BACKEND: &str = "candle-backend";
const TOKENIZER: &str = "tokenizer";
const FILTERS: &str = "filter-host";

/// Who tells a fact, and how much it asks for attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Voice {
    /// Part of the worker that acts.
    pub actor: &'static str,
    /// What it does.
    pub action: &'static str,
    /// How much attention it asks for.
    pub severity: Severity,
}

/// The fixed vocabulary of spec/narration.md for one fact.
pub const fn voice(fact: &Fact) -> Voice {
    use Severity::{Debug, Error, Info, Warn};
    let (actor, action, severity) = match fact {
        Fact::Startup(_) => (WORKER, "startup", Info),
        Fact::CpuReady(_) | Fact::CudaReady(_) | Fact::MetalReady(_) => {
            (DEVICES, "device_init", Info)
        }
        Fact::ModelLoadStarted(_) | Fact::ModelLoaded(_) => (LOADER, "model_load", Info),
        Fact::ModelLoadProgress(_) => (LOADER, "model_load", Debug),
        Fact::ModelLoadFailed(_) => (LOADER, "error", Error),
        Fact::WarmupStarted(_) | Fact::WarmupCompleted(_) => (BACKEND, "warmup", Info),
        Fact::ReadyAnnounced(_) | Fact::CallbackAttempted(_) => (WORKER, "callback_ready", Info),
        Fact::CallbackFailed(failed) if failed.retry_in_ms.is_some() => (WORKER, "error", Warn),
        Fact::CallbackFailed(_) => (WORKER, "error", Error),
        Fact::HeartbeatFailed(_) => (WORKER, "heartbeat", Warn),
        Fact::ServerStarted(_) => (SERVER, "server_start", Info),
        Fact::ServerBound(_) => (SERVER, "server_bind", Info),
        Fact::BindFailed(_) => (SERVER, "error", Error),
        Fact::HealthChecked(health) => match health.state {
            WorkerState::Stalled | WorkerState::Failed => (SERVER, "health_check", Error),
            _ => (SERVER, "health_check", Info),
        },
        Fact::ServerShutdown(_) => (SERVER, "server_shutdown", Info),
        Fact::RequestRejected(_) => (SERVER, "error", Warn),
        Fact::RequestAccepted(_) => (SERVER, "execute_request", Info),
        Fact::RequestQueued(_) => (SERVER, "queue", Info),
        Fact::PromptTokenized(_) => (TOKENIZER, "tokenize", Info),
        Fact::InferenceStarted(_) => (BACKEND, "inference_start", Info),
        Fact::CacheReset(_) => (BACKEND, "cache_reset", Info),
        Fact::PrefillProgress(_) => (BACKEND, "prefill", Info),
        Fact::TokensGenerated(_) => (BACKEND, "token_generate", Info),
        Fact::InferenceCompleted(_) => (BACKEND, "inference_complete", Info),
        Fact::InferenceFailed(_) => (BACKEND, "error", Error),
        Fact::InferenceCancelled(cancelled) => match cancelled.by {
            CancelledBy::Client | CancelledBy::Disconnect => (BACKEND, "cancel", Info),
            CancelledBy::Deadline | CancelledBy::Shutdown => (BACKEND, "cancel", Warn),
        },
        Fact::FilterLoaded(_) => (FILTERS, "filter_load", Info),
        Fact::FilterRejected(_) | Fact::FilterQuarantined(_) => (FILTERS, "error", Error),
        Fact::NarrationLost(_) => (FILTERS, "error", Warn),
        Fact::Other(_) => (WORKER, "other", Info),
    };
    Voice { actor, action, severity }
}

/// The thing acted on: a path, an address, a URL, a filter, or else `otherwise` (the job, or the worker).
pub fn target(fact: &Fact, otherwise: &str) -> String {
    match fact {
        Fact::CpuReady(_) => "cpu".to_owned(),
        Fact::CudaReady(card) => format!("cuda:{}", card.ordinal),
        Fact::MetalReady(card) => format!("metal:{}", card.ordinal),
        Fact::ModelLoadStarted(load) => load.path.clone(),
        Fact::ModelLoadProgress(_) | Fact::WarmupStarted(_) | Fact::WarmupCompleted(_) => {
            "model".to_owned()
        }
        Fact::ModelLoaded(model) => model.name.clone(),
        Fact::ModelLoadFailed(failed) => failed.path.clone(),
        Fact::ReadyAnnounced(call) => call.url.clone(),
        Fact::CallbackAttempted(call) => call.url.clone(),
        Fact::CallbackFailed(call) => call.url.clone(),
        Fact::HeartbeatFailed(call) => call.url.clone(),
        Fact::ServerStarted(server) => server.address.clone(),
        Fact::ServerBound(server) => server.address.clone(),
        Fact::BindFailed(server) => server.address.clone(),
        Fact::FilterLoaded(filter) => filter.name.clone(),
        Fact::FilterRejected(filter) => filter.name.clone(),
        Fact::FilterQuarantined(filter) => filter.name.clone(),
        Fact::NarrationLost(lost) => lost.sink.clone(),
        _ => otherwise.to_owned(),
    }
}

/// A measured value for people and machines alike: three decimals, never NaN or infinite.
pub fn rounded(value: f64) -> f64 {
    if value.is_finite() { (value * 1_000.0).round() / 1_000.0 } else { 0.0 }
}

/// A count as facts carry it: what does not fit is told as the largest that does.
pub fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// A duration in milliseconds as facts carry it.
pub fn millis(duration: std::time::Duration) -> f64 {
    rounded(duration.as_secs_f64() * 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_failure_is_told_as_mere_information() {
        for fact in Fact::samples() {
            let voice = voice(&fact);
            if voice.action == "error" {
                assert!(
                    matches!(voice.severity, Severity::Warn | Severity::Error),
                    "{} is {:?}",
                    fact.kind(),
                    voice.severity
                );
            }
        }
    }

    #[test]
    fn rates_that_cannot_be_told_become_zero() {
        assert_eq!(rounded(f64::INFINITY), 0.0);
        assert_eq!(rounded(f64::NAN), 0.0);
        assert_eq!(rounded(1.234_567), 1.235);
    }
}
