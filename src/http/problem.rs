//! What is answered when something is wrong: one JSON shape (RFC 9457) for every error. Never repeats
//! what was sent. A handler only returns its problem; the guard tells of it and completes the answer.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::request::Violation;

/// An error as it is answered.
#[derive(Clone)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    errors: Vec<Violation>,
    retry_after_s: Option<u64>,
}

#[derive(Serialize)]
struct Shape<'a> {
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [Violation],
    #[serde(skip_serializing_if = "Option::is_none")]
    narration: Option<Box<serde_json::value::RawValue>>,
}

impl Problem {
    /// An error of that status; `detail` says what was expected and what to do.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Problem { status, detail: detail.into(), errors: Vec::new(), retry_after_s: None }
    }

    /// A request that breaks rules, all of them named.
    pub fn invalid(errors: Vec<Violation>) -> Self {
        let detail = format!("{} thing(s) in the request to mend; see errors", errors.len());
        Problem { errors, ..Problem::new(StatusCode::BAD_REQUEST, detail) }
    }

    /// Says when to come again.
    pub const fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// The body, with the narration of it where there is one, as JSON.
    pub fn body(&self, narration: Option<String>) -> Body {
        let shape = Shape {
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            errors: &self.errors,
            narration: narration
                .and_then(|json| serde_json::value::RawValue::from_string(json).ok()),
        };
        Body::from(serde_json::to_vec(&shape).unwrap_or_default())
    }

    /// The status.
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// What was wrong, field by field; the whole as one where no field is to blame.
    pub fn violations(&self) -> Vec<Violation> {
        if self.errors.is_empty() {
            vec![Violation::new("request", self.status.canonical_reason().unwrap_or("error"), "")]
        } else {
            self.errors.clone()
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.body(None)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(self);
        response
    }
}

pub async fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no such path; the README lists the endpoints")
}

pub async fn method_not_allowed() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path takes another method; see Allow")
}
