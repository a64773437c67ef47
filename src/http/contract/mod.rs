//! The contract over HTTP as an OpenAPI 3.1 document, made of the handlers' and types' own
//! descriptions. Printed by `rbees-workerd openapi`, served at `/openapi.yaml`, shown at `/docs`.

mod errors;
mod events;
mod requests;

pub use events::{Narration, StreamEvent};
pub use requests::{CancelRequest, ChatRequest, CompletionRequest, ExecuteRequest};

use std::sync::LazyLock;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use utoipa::OpenApi as _;

use self::errors::Errors;
use crate::http::{execute, jobs, openai, problem, status};

/// The document. Prefill, queue and filters show in narrations, so their schema is part of it.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "rbees-workerd",
        description = "A worker that serves one language model and narrates what it does.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(
        execute::execute,
        jobs::cancel,
        jobs::state,
        jobs::events,
        openai::chat,
        openai::completions,
        openai::models,
        openai::model_named,
        status::health,
        status::ready,
        status::metrics,
        status::filters,
        status::shutdown,
        openapi_yaml,
    ),
    components(schemas(
        StreamEvent,
        problem::Shape<'static>,
        openai::wire::ErrorBody<'static>,
        openai::wire::ChatChunk<'static>,
    )),
    tags(
        (name = "jobs", description = "Inference as jobs, each with a log of events"),
        (name = "openai", description = "The same in the forms of OpenAI's clients"),
        (name = "worker", description = "How the worker is"),
    ),
    modifiers(&Errors)
)]
pub struct Document;

/// The document as YAML.
///
/// # Errors
/// If it can't be written, which would be a fault of the types.
pub fn yaml() -> crate::error::Result<String> {
    Document::openapi().to_yaml().map_err(|error| {
        let what = "the OpenAPI document can't be written";
        crate::error::Error::new(crate::error::Kind::Internal, what).because(error)
    })
}

/// `GET /openapi.yaml`: this document.
#[utoipa::path(
    get, path = "/openapi.yaml", operation_id = "openapi", tag = "worker",
    responses((status = 200, description = "This document", content_type = "application/yaml",
        body = String))
)]
pub async fn openapi_yaml() -> Response {
    // Made once: whoever asks needs no token, and making it takes a while.
    static TEXT: LazyLock<crate::error::Result<String>> = LazyLock::new(yaml);
    match &*TEXT {
        Ok(text) => ([(header::CONTENT_TYPE, "application/yaml")], text.as_str()).into_response(),
        Err(error) => {
            tracing::error!(error = error.trail(), "no contract");
            let status = axum::http::StatusCode::INTERNAL_SERVER_ERROR;
            problem::Problem::new(status, error.to_string()).into_response()
        }
    }
}

#[cfg(test)]
mod tests;
