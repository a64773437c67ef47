//! `POST /execute`: one inference, answered with its job's stream.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;

use super::App;
use super::admit::admit;
use super::body::read_body;
use super::contract::{ExecuteRequest, StreamEvent};
use super::problem::Problem;
use super::request::parse_execute;
use super::stream::{Frames, respond};
use crate::narration::Scope;

/// Names the job in a header, so that it can be found or ended without reading the body.
pub fn name_job(response: &mut Response, job_id: &str) {
    if let Ok(id) = HeaderValue::from_str(job_id) {
        response.headers_mut().insert(HeaderName::from_static("x-job-id"), id);
    }
}

/// `POST /execute`: one inference, answered with its stream of events.
#[utoipa::path(
    post, path = "/execute", operation_id = "execute", tag = "jobs",
    request_body = ExecuteRequest,
    responses((status = 200, description = "The job's events as they come. Each frame has `data:` \
        (one line of JSON), `id:` and `event:`; the first also `retry:`",
        content_type = "text/event-stream", body = StreamEvent,
        headers(("X-Job-Id" = String, description = "Name of the job"))))
)]
pub async fn execute(
    State(app): State<Arc<App>>,
    Extension(scope): Extension<Scope>,
    request: Request,
) -> Result<Response, Problem> {
    let body = read_body(request).await?;
    let asked = parse_execute(&body).map_err(Problem::invalid)?;
    let admitted = admit(&app, &scope, "/execute", asked).await?;
    let mut response = respond(&app, admitted.record, 0, Frames);
    name_job(&mut response, &admitted.job_id);
    Ok(response)
}
