//! Jobs by name: `/cancel`, `/jobs/{id}` and its events. Any number of readers, live or after the end.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::App;
use super::body::read_body;
use super::contract::{CancelRequest, StreamEvent};
use super::execute::name_job;
use super::fields::Violation;
use super::problem::Problem;
use super::request::parse_cancel;
use super::stream::{Frames, respond};
use crate::delivery::event::{End, Failure};
use crate::job::Record;
use crate::narration::facts::CancelledBy;

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// It waits for the engine.
    Queued,
    /// The engine computes it.
    Running,
    /// Its last event is written.
    Finished,
}

/// What is known of a job.
#[derive(Serialize, ToSchema)]
pub struct JobState {
    /// Its name.
    pub job_id: String,
    /// How far it is.
    pub state: Stage,
    /// Its place among those that wait, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub position: Option<usize>,
    /// Tokens generated so far.
    pub tokens_out: u32,
    /// Events in its log so far: the number of the last one.
    pub events: usize,
    /// How it ended well.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub end: Option<End>,
    /// How it ended badly.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub error: Option<Failure>,
}

impl JobState {
    fn of(app: &App, job_id: String, job: &Record) -> Self {
        let position = app.queue.position(&job_id);
        let (end, error) = match job.log.end() {
            Some(Ok(end)) => (Some(end), None),
            Some(Err(failure)) => (None, Some(failure)),
            None => (None, None),
        };
        let state = match position {
            _ if end.is_some() || error.is_some() => Stage::Finished,
            Some(_) => Stage::Queued,
            None => Stage::Running,
        };
        let position = position.filter(|_| state == Stage::Queued);
        let (tokens_out, events) = (job.log.tokens(), job.log.events());
        JobState { job_id, state, position, tokens_out, events, end, error }
    }
}

/// `POST /cancel`: ends a job at its next step. May be said any number of times.
#[utoipa::path(
    post, path = "/cancel", operation_id = "cancel", tag = "jobs",
    request_body = CancelRequest,
    responses((status = 202, description = "The job ends, or has ended", body = JobState))
)]
pub async fn cancel(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<(StatusCode, Json<JobState>), Problem> {
    let body = read_body(request).await?;
    let job_id = parse_cancel(&body).map_err(Problem::invalid)?;
    let job = app.jobs.get(&job_id).ok_or_else(unknown)?;
    job.cancel.cancel(CancelledBy::Client);
    Ok((StatusCode::ACCEPTED, Json(JobState::of(&app, job_id, &job))))
}

/// `GET /jobs/{id}`: how far it is. Finished jobs are known for a while too.
#[utoipa::path(
    get, path = "/jobs/{id}", operation_id = "job", tag = "jobs",
    params(("id" = String, Path, description = "Name of the job")),
    responses((status = 200, description = "What is known of it", body = JobState))
)]
pub async fn state(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<JobState>, Problem> {
    let job = app.jobs.get(&id).ok_or_else(unknown)?;
    Ok(Json(JobState::of(&app, id, &job)))
}

/// `GET /jobs/{id}/events`: the stream from its beginning, or after the event that the reader had last.
#[utoipa::path(
    get, path = "/jobs/{id}/events", operation_id = "job_events", tag = "jobs",
    params(
        ("id" = String, Path, description = "Name of the job"),
        ("last_event_id" = Option<u64>, Query, nullable = false, description = "Number of the last event that the \
            reader had, where it can't send `Last-Event-ID`, which wins"),
        ("Last-Event-ID" = Option<u64>, Header, nullable = false, description = "Number of the last event that the \
            reader had"),
    ),
    responses(
        (status = 200, description = "The job's events, old ones first, then as they come",
            content_type = "text/event-stream", body = StreamEvent),
        (status = 204, description = "The reader had the last event of a finished job"),
    )
)]
pub async fn events(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let job = app.jobs.get(&id).ok_or_else(unknown)?;
    let after = last_read(&request)?;
    let ended = job.log.ended();
    if ended && job.log.events() <= after {
        // Only this stops a browser's EventSource from coming again.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    if job.log.events() < after {
        let message = format!("is at most {}: this job has no more yet", job.log.events());
        return Err(Problem::invalid(vec![Violation::new("Last-Event-ID", "range", &message)]));
    }
    let mut response = respond(&app, job, after, Frames);
    name_job(&mut response, &id);
    Ok(response)
}

/// The number of the last event that the reader had: by the header, which a browser sends when it comes
/// again, or else by `?last_event_id=`, which a page can give its `EventSource`.
fn last_read(request: &Request) -> Result<usize, Problem> {
    let header = request.headers().get("last-event-id").map(HeaderValue::to_str);
    let query = request.uri().query().unwrap_or("").split('&');
    let query = query.filter_map(|pair| pair.strip_prefix("last_event_id=")).next_back();
    let by_query = event_number("last_event_id", query.unwrap_or(""))?; // also where it does not count
    match header {
        Some(value) => event_number("Last-Event-ID", value.unwrap_or("?")),
        None => Ok(by_query),
    }
}

fn event_number(field: &str, value: &str) -> Result<usize, Problem> {
    let digits = value.bytes().all(|b| b.is_ascii_digit());
    let number = value.parse::<i64>().ok().and_then(|number| usize::try_from(number).ok());
    match number.filter(|_| digits) {
        Some(number) => Ok(number),
        None if value.is_empty() => Ok(0),
        None => {
            let violation = Violation::new(field, "integer", "is an event's number");
            Err(Problem::invalid(vec![violation]))
        }
    }
}

fn unknown() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no job of that id is known (any more)")
}
