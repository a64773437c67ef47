//! Facts to try the words on: one of each kind as it happens, and one of each kind filled with whatever
//! a test wants. Only for tests.

use crate::contract::rbees::narration::facts::*;

/// One fact of each kind as a worker tells it.
pub fn usual() -> Vec<Fact> {
    let mut facts = usual_lifecycle();
    facts.extend(usual_requests());
    facts.extend(usual_filters());
    facts
}

fn usual_lifecycle() -> Vec<Fact> {
    let address = || "127.0.0.1:8080".to_owned();
    let url = || "http://127.0.0.1:9000/workers/ready".to_owned();
    let path = || "/models/SmolLM2-135M-Instruct.Q4_1.gguf".to_owned();
    vec![
        Fact::Startup(Startup {
            version: "0.1.0".to_owned(),
            pid: 4_242,
            address: address(),
            model: "SmolLM2-135M-Instruct.Q4_1.gguf".to_owned(),
        }),
        Fact::CpuReady(Cpu { threads: 8, instruction_set: "avx512-vnni".to_owned() }),
        Fact::CudaReady(Accelerator {
            ordinal: 0,
            name: "NVIDIA H100".to_owned(),
            memory_bytes: 85_017_624_576,
        }),
        Fact::MetalReady(Accelerator {
            ordinal: 0,
            name: "Apple M2".to_owned(),
            memory_bytes: 17_179_869_184,
        }),
        Fact::ModelLoadStarted(ModelLoadStarted { path: path(), file_bytes: 98_362_432 }),
        Fact::ModelLoadProgress(ModelLoadProgress {
            bytes_done: 45_000_000,
            bytes_total: 98_362_432,
        }),
        Fact::ModelLoaded(ModelLoaded {
            architecture: "llama".to_owned(),
            name: "SmolLM2 135M Instruct".to_owned(),
            quantization: "Q4_1".to_owned(),
            parameters: 134_515_008,
            resident_bytes: 98_362_432,
            vocabulary: 49_152,
            context_length: 8_192,
            duration_ms: 1_312.4,
        }),
        Fact::ModelLoadFailed(ModelLoadFailed {
            path: path(),
            reason: "the file ends at byte 12288; fetch it again.".to_owned(),
        }),
        Fact::WarmupStarted(WarmupStarted { tokens: 8 }),
        Fact::WarmupCompleted(WarmupCompleted { tokens: 8, duration_ms: 41.7 }),
        Fact::ReadyAnnounced(ReadyAnnounced { url: url() }),
        Fact::CallbackAttempted(CallbackAttempted {
            url: url(),
            attempt: 1,
            memory_bytes: 98_362_432,
        }),
        Fact::CallbackFailed(CallbackFailed {
            url: url(),
            attempt: 1,
            status: Some(503),
            reason: "the pool manager is busy".to_owned(),
            retry_in_ms: Some(2_000),
        }),
        Fact::HeartbeatFailed(HeartbeatFailed {
            url: "http://127.0.0.1:9000/heartbeat".to_owned(),
            reason: "connection refused".to_owned(),
        }),
        Fact::ServerStarted(ServerStarted { address: "127.0.0.1:0".to_owned() }),
        Fact::ServerBound(ServerBound { address: address() }),
        Fact::BindFailed(BindFailed {
            address: address(),
            reason: "the address is in use; choose another with --port".to_owned(),
        }),
        Fact::HealthChecked(HealthChecked { state: WorkerState::Ready }),
        Fact::ServerShutdown(ServerShutdown {
            cause: ShutdownCause::Signal,
            jobs_in_flight: 3,
            grace_ms: 30_000,
        }),
    ]
}

fn usual_requests() -> Vec<Fact> {
    vec![
        Fact::RequestRejected(RequestRejected {
            status: 400,
            violations: vec![
                violation("max_tokens", "must be between 1 and 2048"),
                violation("temperature", "must be between 0 and 2"),
            ],
        }),
        Fact::RequestAccepted(RequestAccepted {
            endpoint: "/execute".to_owned(),
            max_tokens: 128,
            sampling: sampling(0.7, 42),
        }),
        Fact::RequestQueued(RequestQueued { position: 2, ahead: 3 }),
        Fact::PromptTokenized(PromptTokenized { tokens: 12, duration_ms: 0.42 }),
        Fact::InferenceStarted(InferenceStarted {
            prompt_chars: 56,
            prompt_tokens: 12,
            max_tokens: 128,
        }),
        Fact::CacheReset(CacheReset { reused_tokens: 8, tokens_to_compute: 4 }),
        Fact::PrefillProgress(PrefillProgress { tokens_done: 256, tokens_total: 512 }),
        Fact::TokensGenerated(TokensGenerated { tokens: 40, tokens_per_second: 24.51 }),
        Fact::InferenceCompleted(InferenceCompleted {
            prompt_tokens: 12,
            tokens_out: 42,
            time_to_first_token_ms: 120.2,
            decode_ms: 1_712.5,
            tokens_per_second: 24.52,
            stop_reason: StopReason::Eos,
        }),
        Fact::InferenceFailed(InferenceFailed {
            code: FailureCode::VramOom,
            reason: "the KV cache needs 2.1 GB and 1.4 GB are free".to_owned(),
            tokens_out: 7,
        }),
        Fact::InferenceCancelled(InferenceCancelled { by: CancelledBy::Disconnect, tokens_out: 7 }),
    ]
}

fn usual_filters() -> Vec<Fact> {
    vec![
        Fact::FilterLoaded(FilterLoaded {
            name: "storyteller".to_owned(),
            digest: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53".to_owned(),
            generation: 3,
            duration_ms: 12.4,
        }),
        Fact::FilterRejected(FilterRejected {
            name: "house-rules".to_owned(),
            path: "/etc/rbees/filters/10-house-rules.wasm".to_owned(),
            reason: "it imports wasi:sockets".to_owned(),
        }),
        Fact::FilterQuarantined(FilterQuarantined {
            name: "house-rules".to_owned(),
            failures: 3,
            reason: "ran longer than 10 ms".to_owned(),
        }),
        Fact::NarrationLost(NarrationLost { count: 12, sink: "stdout".to_owned() }),
        Fact::Other(Other { name: "adapter-loaded".to_owned(), json: "{\"rank\":16}".to_owned() }),
    ]
}

/// What a fact can be filled with.
pub struct Filling<'f> {
    /// Every text.
    pub text: &'f str,
    /// Every whole number, as large as its field allows.
    pub number: u64,
    /// Every measured number.
    pub measure: f64,
}

/// One fact of each kind and of each of its states, filled.
pub fn filled(with: &Filling) -> Vec<Fact> {
    let mut facts = filled_lifecycle(with);
    facts.extend(filled_states(with));
    facts.extend(filled_requests(with));
    facts
}

fn filled_lifecycle(with: &Filling) -> Vec<Fact> {
    let text = || with.text.to_owned();
    let number = with.number;
    let small = number.min(u64::from(u32::MAX)) as u32;
    let card = || Accelerator { ordinal: small, name: text(), memory_bytes: number };
    let call = |status, retry_in_ms| {
        let (url, reason) = (text(), text());
        Fact::CallbackFailed(CallbackFailed { url, attempt: small, status, reason, retry_in_ms })
    };
    vec![
        Fact::Startup(Startup { version: text(), pid: small, address: text(), model: text() }),
        Fact::CpuReady(Cpu { threads: small, instruction_set: text() }),
        Fact::CudaReady(card()),
        Fact::MetalReady(card()),
        Fact::ModelLoadStarted(ModelLoadStarted { path: text(), file_bytes: number }),
        Fact::ModelLoadProgress(ModelLoadProgress { bytes_done: number, bytes_total: number }),
        Fact::ModelLoaded(ModelLoaded {
            architecture: text(),
            name: text(),
            quantization: text(),
            parameters: number,
            resident_bytes: number,
            vocabulary: small,
            context_length: small,
            duration_ms: with.measure,
        }),
        Fact::ModelLoadFailed(ModelLoadFailed { path: text(), reason: text() }),
        Fact::WarmupStarted(WarmupStarted { tokens: small }),
        Fact::WarmupCompleted(WarmupCompleted { tokens: small, duration_ms: with.measure }),
        Fact::ReadyAnnounced(ReadyAnnounced { url: text() }),
        Fact::CallbackAttempted(CallbackAttempted {
            url: text(),
            attempt: small,
            memory_bytes: number,
        }),
        call(Some(u16::MAX), Some(number)),
        call(None, Some(number)),
        call(Some(500), None),
        call(None, None),
        Fact::HeartbeatFailed(HeartbeatFailed { url: text(), reason: text() }),
        Fact::ServerStarted(ServerStarted { address: text() }),
        Fact::ServerBound(ServerBound { address: text() }),
        Fact::BindFailed(BindFailed { address: text(), reason: text() }),
        Fact::FilterLoaded(FilterLoaded {
            name: text(),
            digest: text(),
            generation: number,
            duration_ms: with.measure,
        }),
        Fact::FilterRejected(FilterRejected { name: text(), path: text(), reason: text() }),
        Fact::FilterQuarantined(FilterQuarantined {
            name: text(),
            failures: small,
            reason: text(),
        }),
        Fact::NarrationLost(NarrationLost { count: number, sink: text() }),
        Fact::Other(Other { name: text(), json: text() }),
    ]
}

fn filled_states(with: &Filling) -> Vec<Fact> {
    use CancelledBy::{Client, Deadline, Disconnect};
    let text = || with.text.to_owned();
    let small = with.number.min(u64::from(u32::MAX)) as u32;
    let mut facts = Vec::new();
    for state in [
        WorkerState::Loading,
        WorkerState::Ready,
        WorkerState::Draining,
        WorkerState::Stalled,
        WorkerState::Failed,
    ] {
        facts.push(Fact::HealthChecked(HealthChecked { state }));
    }
    for cause in [
        ShutdownCause::Signal,
        ShutdownCause::Request,
        ShutdownCause::ParentGone,
        ShutdownCause::Failure,
    ] {
        let jobs_in_flight = small;
        let grace_ms = with.number;
        facts.push(Fact::ServerShutdown(ServerShutdown { cause, jobs_in_flight, grace_ms }));
    }
    for code in [FailureCode::VramOom, FailureCode::InferenceFailed] {
        let (reason, tokens_out) = (text(), small);
        facts.push(Fact::InferenceFailed(InferenceFailed { code, reason, tokens_out }));
    }
    for by in [Client, Disconnect, Deadline, CancelledBy::Shutdown] {
        facts.push(Fact::InferenceCancelled(InferenceCancelled { by, tokens_out: small }));
    }
    for stop_reason in [StopReason::MaxTokens, StopReason::StopSequence, StopReason::Eos] {
        facts.push(Fact::InferenceCompleted(InferenceCompleted {
            prompt_tokens: small,
            tokens_out: small,
            time_to_first_token_ms: with.measure,
            decode_ms: with.measure,
            tokens_per_second: with.measure,
            stop_reason,
        }));
    }
    facts
}

fn filled_requests(with: &Filling) -> Vec<Fact> {
    let small = with.number.min(u64::from(u32::MAX)) as u32;
    let mut facts = Vec::new();
    for count in [0, 1, 2, 500] {
        let violations = vec![violation(with.text, with.text); count];
        facts.push(Fact::RequestRejected(RequestRejected { status: u16::MAX, violations }));
    }
    for tokens in [small, small / 2 + 10, small / 3 + 20] {
        facts.push(Fact::TokensGenerated(TokensGenerated {
            tokens,
            tokens_per_second: with.measure,
        }));
    }
    facts.extend([
        Fact::RequestAccepted(RequestAccepted {
            endpoint: with.text.to_owned(),
            max_tokens: small,
            sampling: sampling(with.measure, with.number),
        }),
        Fact::RequestQueued(RequestQueued { position: small, ahead: small }),
        Fact::PromptTokenized(PromptTokenized { tokens: small, duration_ms: with.measure }),
        Fact::InferenceStarted(InferenceStarted {
            prompt_chars: small,
            prompt_tokens: small,
            max_tokens: small,
        }),
        Fact::CacheReset(CacheReset { reused_tokens: small, tokens_to_compute: small }),
        Fact::CacheReset(CacheReset { reused_tokens: 0, tokens_to_compute: small }),
        Fact::PrefillProgress(PrefillProgress { tokens_done: small, tokens_total: small }),
    ]);
    facts
}

fn violation(field: &str, constraint: &str) -> Violation {
    Violation { field: field.to_owned(), constraint: constraint.to_owned() }
}

fn sampling(measure: f64, seed: u64) -> Sampling {
    Sampling {
        temperature: measure,
        top_p: measure,
        top_k: 40,
        min_p: measure,
        repetition_penalty: measure,
        seed,
        stop_strings: 1,
    }
}
