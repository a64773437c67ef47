//! How the worker is: `/health`, `/ready`, `/metrics`, `/filters`, `/shutdown`. Never waits for the
//! engine.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::problem::Problem;
use super::{App, retry};
use crate::filter::state::ChainState;
use crate::measure::{self, Gauges, KvBlocks};
use crate::narration::Fact;
use crate::narration::facts::{HealthChecked, WorkerState};

/// How the worker is, and what it has.
#[derive(Serialize, ToSchema)]
pub struct Health {
    /// How it is.
    pub status: WorkerState,
    /// Its name.
    pub worker_id: String,
    /// Its version.
    pub version: &'static str,
    /// Age of the process, s.
    pub uptime_seconds: u64,
    /// Jobs that the engine computes.
    pub active_jobs: usize,
    /// Jobs that wait for it.
    pub queued_jobs: usize,
    /// Which chain of filters is in service; counts reloads.
    pub filter_generation: u64,
    /// Memory of the model and its caches, bytes.
    pub resident_bytes: u64,
    /// Name of the model, as soon as it is loaded, like all that follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub model: Option<String>,
    /// Its architecture.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub architecture: Option<String>,
    /// Quantization of most weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub quantization: Option<String>,
    /// Tokens in its vocabulary.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub vocabulary: Option<u32>,
    /// Longest sequence, tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub context_length: Option<u32>,
    /// What computes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub device: Option<String>,
}

/// Whether the worker takes work.
#[derive(Serialize, ToSchema)]
pub struct Readiness {
    /// How it is.
    pub state: WorkerState,
    /// How far the model is, while it is being loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loading: Option<Loading>,
}

/// How far loading the model is.
#[derive(Serialize, ToSchema)]
pub struct Loading {
    /// Bytes read.
    pub bytes_done: u64,
    /// Bytes to read in all.
    pub bytes_total: u64,
}

/// The worker will end.
#[derive(Serialize, ToSchema)]
pub struct Shutdown {
    /// Always `shutting_down`.
    #[schema(example = "shutting_down")]
    pub status: &'static str,
    /// What running jobs have to finish, s.
    pub timeout_seconds: u64,
}

/// `GET /health`: the process works. Never waits for the engine.
#[utoipa::path(
    get, path = "/health", operation_id = "health", tag = "worker",
    responses((status = 200, description = "It works", body = Health))
)]
pub async fn health(State(app): State<Arc<App>>) -> Json<Health> {
    let (active_jobs, queued_jobs) = app.queue.lengths();
    let profile = app.model.get().map(|model| &model.profile);
    Json(Health {
        status: told_state(&app),
        worker_id: app.narrator.worker_id().to_owned(),
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: app.life.began.elapsed().as_secs(),
        active_jobs,
        queued_jobs,
        filter_generation: app.chains.current().generation(),
        resident_bytes: app.pulse.resident_bytes.load(Ordering::Relaxed),
        model: profile.map(|profile| profile.name.clone()),
        architecture: profile.map(|profile| profile.architecture.clone()),
        quantization: profile.map(|profile| profile.quantization.clone()),
        vocabulary: profile.map(|profile| profile.vocabulary),
        context_length: profile.map(|profile| profile.context_length),
        device: app.model.get().map(|model| model.device.clone()),
    })
}

/// `GET /ready`: 200 only while the worker takes work.
#[utoipa::path(
    get, path = "/ready", operation_id = "ready", tag = "worker",
    responses(
        (status = 200, description = "It takes work", body = Readiness),
        (status = 503, description = "It does not, and says why", body = Readiness,
            headers(("Retry-After" = u64, description = "Seconds after which it may"))),
    )
)]
pub async fn ready(State(app): State<Arc<App>>) -> Response {
    let state = told_state(&app);
    let (done, total) = &app.life.loading;
    let loading = (state == WorkerState::Loading).then(|| Loading {
        bytes_done: done.load(Ordering::Relaxed),
        bytes_total: total.load(Ordering::Relaxed),
    });
    let answer = Json(Readiness { state, loading });
    if state == WorkerState::Ready {
        return answer.into_response();
    }
    let retry = [(header::RETRY_AFTER, retry::after_s(&app).to_string())];
    (StatusCode::SERVICE_UNAVAILABLE, retry, answer).into_response()
}

/// `GET /metrics`: everything measured, for Prometheus.
#[utoipa::path(
    get, path = "/metrics", operation_id = "metrics", tag = "worker",
    responses((status = 200, description = "Prometheus' text format 0.0.4",
        content_type = "text/plain", body = String))
)]
pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    let (active_jobs, queue_depth) = app.queue.lengths();
    for filter in app.chains.state().filters {
        measure::filter(&filter.name, filter.figures());
    }
    let text = app.exporter.text(&Gauges {
        active_jobs,
        queue_depth,
        resident_bytes: app.pulse.resident_bytes.load(Ordering::Relaxed),
        uptime: app.life.began.elapsed(),
        kv: KvBlocks {
            held: app.pulse.blocks_held.load(Ordering::Relaxed),
            kept: app.pulse.blocks_kept.load(Ordering::Relaxed),
            total: app.pulse.blocks_total.load(Ordering::Relaxed),
            reused_tokens: app.pulse.reused_tokens.load(Ordering::Relaxed),
        },
    });
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// `GET /filters`: the chain in service, and what its filters did so far.
#[utoipa::path(
    get, path = "/filters", operation_id = "filters", tag = "worker",
    responses((status = 200, description = "The chain in service", body = ChainState))
)]
pub async fn filters(State(app): State<Arc<App>>) -> Json<ChainState> {
    Json(app.chains.state())
}

/// `POST /shutdown`: the worker lets running jobs finish and ends.
#[utoipa::path(
    post, path = "/shutdown", operation_id = "shutdown", tag = "worker",
    responses((status = 202, description = "It takes no more work, and ends", body = Shutdown))
)]
pub async fn shutdown(
    State(app): State<Arc<App>>,
) -> Result<(StatusCode, Json<Shutdown>), Problem> {
    if app.life.state() == WorkerState::Draining || app.shutdown.try_send(()).is_err() {
        let detail = "the worker is shutting down already";
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail);
        return Err(problem.retry_after(retry::after_s(&app)));
    }
    let timeout_seconds = app.grace_ms.div_ceil(1_000);
    Ok((StatusCode::ACCEPTED, Json(Shutdown { status: "shutting_down", timeout_seconds })))
}

/// The state, told as a fact where it differs from the last one told.
fn told_state(app: &App) -> WorkerState {
    let state = app.state();
    let mut last = app.life.last_told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if *last != state {
        *last = state;
        app.narrator.tell(Fact::HealthChecked(HealthChecked { state }));
    }
    state
}
