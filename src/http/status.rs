//! How the worker is: `/health`, `/ready`, `/shutdown`. Never waits for the engine.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::App;
use super::problem::Problem;
use crate::narration::Fact;
use crate::narration::facts::{HealthChecked, WorkerState};

/// `GET /health`: the process works.
pub async fn health(State(app): State<Arc<App>>) -> Json<Value> {
    let state = told_state(&app);
    let (active, queued) = app.queue.lengths();
    let mut body = json!({
        "status": state,
        "worker_id": app.narrator.worker_id(),
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": app.life.began.elapsed().as_secs(),
        "active_jobs": active,
        "queued_jobs": queued,
        "filter_generation": app.chains.current().generation(),
        "resident_bytes": app.pulse.resident_bytes.load(Ordering::Relaxed),
    });
    if let (Some(model), Some(fields)) = (app.model.get(), body.as_object_mut()) {
        let profile = &model.profile;
        fields.insert("model".into(), json!(profile.name));
        fields.insert("architecture".into(), json!(profile.architecture));
        fields.insert("quantization".into(), json!(profile.quantization));
        fields.insert("vocabulary".into(), json!(profile.vocabulary));
        fields.insert("context_length".into(), json!(profile.context_length));
        fields.insert("device".into(), json!(model.device));
    }
    Json(body)
}

/// `GET /ready`: 200 only while the worker takes work.
pub async fn ready(State(app): State<Arc<App>>) -> Response {
    let state = told_state(&app);
    let status = match state {
        WorkerState::Ready => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut body = json!({ "state": state });
    if state == WorkerState::Loading {
        let (done, total) = &app.life.loading;
        body["loading"] = json!({
            "bytes_done": done.load(Ordering::Relaxed),
            "bytes_total": total.load(Ordering::Relaxed),
        });
    }
    (status, Json(body)).into_response()
}

/// `POST /shutdown`: the worker lets running jobs finish and ends.
pub async fn shutdown(State(app): State<Arc<App>>) -> Result<(StatusCode, Json<Value>), Problem> {
    if app.life.state() == WorkerState::Draining || app.shutdown.try_send(()).is_err() {
        let detail = "the worker is shutting down already";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail));
    }
    let seconds = app.grace_ms.div_ceil(1_000);
    let body = json!({ "status": "shutting_down", "timeout_seconds": seconds });
    Ok((StatusCode::ACCEPTED, Json(body)))
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
