//! Jobs by name: `/cancel`, `/jobs/{id}` and its events. Any number of readers, live or after the end.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::App;
use super::execute::{event_stream, read_body};
use super::problem::Problem;
use super::request::{Violation, parse_cancel};
use crate::job::{Record, State as JobState};
use crate::narration::facts::CancelledBy;

/// `POST /cancel {job_id}`: 202, however often.
pub async fn cancel(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let body = read_body(request).await?;
    let job_id = parse_cancel(&body).map_err(Problem::invalid)?;
    let job = app.jobs.get(&job_id).ok_or_else(unknown)?;
    job.cancel.cancel(CancelledBy::Client);
    Ok((StatusCode::ACCEPTED, Json(json!({ "job_id": job_id, "state": name(&job) }))))
}

/// `GET /jobs/{id}`: how far it is.
pub async fn state(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let job = app.jobs.get(&id).ok_or_else(unknown)?;
    Ok(Json(json!({ "job_id": id, "state": name(&job) })))
}

/// `GET /jobs/{id}/events`: the stream from its beginning, or after `Last-Event-ID`.
pub async fn events(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let job = app.jobs.get(&id).ok_or_else(unknown)?;
    let after = match headers.get("last-event-id").map(|value| value.to_str()) {
        None => 0,
        Some(Ok("")) => 0,
        Some(value) => match value.ok().and_then(|value| value.parse::<usize>().ok()) {
            Some(after) => after,
            None => {
                let violation = Violation::new("Last-Event-ID", "integer", "is a frame's number");
                return Err(Problem::invalid(vec![violation]));
            }
        },
    };
    if job.log.ended() && job.log.frames() <= after {
        // Only this stops a browser's EventSource from coming again.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Ok(event_stream(job, after))
}

fn unknown() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no job of that id is known (any more)")
}

fn name(job: &Record) -> &'static str {
    match job.state() {
        JobState::Active => "active",
        JobState::Finished => "finished",
    }
}
