//! What is answered when something is wrong: one JSON shape (RFC 9457) for every error. Never repeats
//! what was sent. A handler only returns its problem; the guard tells of it and completes the answer.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::fields::Violation;
use super::openai::wire::{ErrorBody, ErrorObject};
use crate::limits::VIOLATIONS_SHOWN_MAX;

/// An error as it is answered.
#[derive(Clone)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    errors: Vec<Violation>,
    /// What it is called under `/v1`, where that is not for `errors` or the status to say.
    code: Option<&'static str>,
    retry_after_s: Option<u64>,
}

/// In which form an error is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// RFC 9457.
    Problem,
    /// As OpenAI's clients read it.
    OpenAi,
}

impl Form {
    /// The form for a request to that path.
    pub fn of(path: &str) -> Self {
        if path == "/v1" || path.starts_with("/v1/") { Form::OpenAi } else { Form::Problem }
    }
}

/// An error (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct Shape<'a> {
    /// What the status is called.
    #[schema(example = "Bad Request")]
    title: &'a str,
    /// HTTP status.
    #[schema(example = 400)]
    status: u16,
    /// What was expected, and what to do.
    detail: &'a str,
    /// What is wrong with the request, field by field.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [Violation],
    /// The narration of the refusal, where filters route it to the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    narration: Option<Box<RawValue>>,
}

impl Problem {
    /// An error of that status; `detail` says what was expected and what to do.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Problem {
            status,
            detail: detail.into(),
            errors: Vec::new(),
            code: None,
            retry_after_s: None,
        }
    }

    /// A request that breaks rules, all of them named, as far as that is of use.
    pub fn invalid(errors: Vec<Violation>) -> Self {
        let detail = format!("{} thing(s) in the request to mend; see errors", errors.len());
        let errors = at_most(VIOLATIONS_SHOWN_MAX, errors);
        Problem { errors, ..Problem::new(StatusCode::BAD_REQUEST, detail) }
    }

    /// Something that was named and is not there.
    pub fn missing(error: Violation) -> Self {
        let detail = format!("`{}` {}", error.field, error.message);
        Problem { errors: vec![error], ..Problem::new(StatusCode::NOT_FOUND, detail) }
    }

    /// What it is called under `/v1`.
    pub const fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    /// Says when to come again.
    pub const fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// Completes an answer that was made of this problem: in the form that its path asks for, with the
    /// narration of it where there is one, as JSON.
    pub fn complete(&self, response: &mut Response, form: Form, narration: Option<String>) {
        let narration = narration.and_then(|json| RawValue::from_string(json).ok());
        let (body, kind) = match form {
            Form::Problem => (self.body(narration), "application/problem+json"),
            Form::OpenAi => (self.openai(narration), "application/json"),
        };
        *response.body_mut() = body;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.remove(header::CONTENT_LENGTH); // that of the body before
    }

    fn openai(&self, narration: Option<Box<RawValue>>) -> Body {
        let first = self.errors.first();
        let message = if self.errors.is_empty() || self.status == StatusCode::NOT_FOUND {
            self.detail.clone()
        } else {
            let each = self.errors.iter().map(|e| format!("{} {}", e.field, e.message));
            each.collect::<Vec<_>>().join("; ")
        };
        let code = self.code.or_else(|| match first {
            Some(error) if error.constraint == "context" => Some("context_length_exceeded"),
            Some(error) => Some(error.constraint.as_str()),
            None => code_of(self.status),
        });
        let param = first.map(|error| error.field.as_str());
        let error = ErrorObject { message: &message, r#type: type_of(self.status), param, code };
        Body::from(serde_json::to_vec(&ErrorBody { error, narration }).unwrap_or_default())
    }

    fn body(&self, narration: Option<Box<RawValue>>) -> Body {
        let shape = Shape {
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            errors: &self.errors,
            narration,
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

/// So many violations at most; what is more is summed up in a last one.
pub fn at_most(most: usize, mut errors: Vec<Violation>) -> Vec<Violation> {
    if errors.len() > most {
        let more = format!("{} more", errors.len() - (most - 1));
        errors.truncate(most - 1);
        errors.push(Violation::new("…", &more, ""));
    }
    errors
}

/// OpenAI's sort of error for a status.
pub fn type_of(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    }
}

/// What an error of that status is called under `/v1`, where nothing else says it.
pub fn code_of(status: StatusCode) -> Option<&'static str> {
    match status.as_u16() {
        401 => Some("invalid_api_key"),
        429 => Some("queue_full"),
        503 => Some("not_ready"),
        _ => None,
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
    Problem::new(StatusCode::NOT_FOUND, "no such path; GET /openapi.yaml lists the endpoints")
}

pub async fn method_not_allowed() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path takes another method; see Allow")
}
