//! Around every request: who may call (host, origin, token), by which name it goes (correlation and
//! trace id), and that a refusal is told, whoever refused. Looks at headers alone.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use sha2::{Digest as _, Sha256};

use super::problem::Problem;
use super::{App, playground};
use crate::limits::{CORRELATION_ID_BYTES_MAX, REPLY_NARRATION_MS, VIOLATIONS_MAX};
use crate::narration::facts::{self, RequestRejected};
use crate::narration::{Fact, Scope};

const CORRELATION: &str = "x-correlation-id";
/// Paths that need no token, besides the playground's own files.
const OPEN: [&str; 2] = ["/health", "/ready"];

/// Lets a request through or answers in its place; its [`Scope`] becomes an extension.
pub async fn guard(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let scope = Scope {
        job_id: None,
        correlation_id: Some(correlation_id(request.headers())),
        trace_id: trace_id(request.headers()),
    };
    let echo = scope.correlation_id.as_deref().and_then(|id| HeaderValue::from_str(id).ok());
    let mut response = match check(&app, request.headers(), request.uri().path()) {
        Err(problem) => problem.into_response(),
        Ok(()) => {
            request.extensions_mut().insert(scope.clone());
            survive(next.run(request)).await
        }
    };
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        *response.body_mut() = problem.body(tell_refusal(&app, &scope, &problem).await);
        response.headers_mut().remove(header::CONTENT_LENGTH); // that of the body before
    }
    if let Some(echo) = echo {
        response.headers_mut().insert(CORRELATION, echo);
    }
    response
}

/// The response, or a 500 where making it panicked: a fault in one request ends no other.
async fn survive(response: impl Future<Output = Response>) -> Response {
    AssertUnwindSafe(response).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!("a handler panicked; its request is answered with a 500");
        let detail = "the worker failed on this request, and lives on; please report it";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail).into_response()
    })
}

/// Tells of a refused request. Its narration, where it was routed to the user, is to ride in the answer.
async fn tell_refusal(app: &App, scope: &Scope, problem: &Problem) -> Option<String> {
    let mut violations: Vec<facts::Violation> = problem
        .violations()
        .into_iter()
        .map(|v| facts::Violation { field: v.field, constraint: v.constraint })
        .collect();
    if violations.len() > VIOLATIONS_MAX {
        let more = violations.len() - (VIOLATIONS_MAX - 1);
        violations.truncate(VIOLATIONS_MAX - 1);
        violations
            .push(facts::Violation { field: "…".into(), constraint: format!("{more} more") });
    }
    let status = problem.status().as_u16();
    let fact = Fact::RequestRejected(RequestRejected { status, violations });
    let answer = app.pipeline.ask(app.narrator.stamp(fact, scope));
    let limit = Duration::from_millis(REPLY_NARRATION_MS);
    tokio::time::timeout(limit, answer).await.ok().and_then(Result::ok).flatten()
}

fn check(app: &App, headers: &HeaderMap, path: &str) -> Result<(), Problem> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next().map(HeaderValue::to_str), hosts.next()) {
        (Some(Ok(host)), None) => host,
        _ => {
            return Err(Problem::new(StatusCode::BAD_REQUEST, "exactly one Host header is needed"));
        }
    };
    if !is_ours(app, host) {
        let detail = "this worker does not go by that Host; start it with --host-name to allow it";
        return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, detail));
    }
    if let Some(origin) = headers.get(header::ORIGIN) {
        let origin = origin.to_str().unwrap_or("null");
        if origin.strip_prefix("http://") != Some(host) {
            let detail = "a page of another origin may not call this worker";
            return Err(Problem::new(StatusCode::FORBIDDEN, detail));
        }
    }
    if let Some(token) = app.access.token.as_ref().filter(|_| !is_open(path)) {
        let shown = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "));
        if !shown.is_some_and(|shown| same(shown, token.expose())) {
            let detail = "a valid `Authorization: Bearer …` is needed";
            return Err(Problem::new(StatusCode::UNAUTHORIZED, detail));
        }
    }
    Ok(())
}

fn is_open(path: &str) -> bool {
    OPEN.contains(&path) || playground::is_open(path)
}

/// Compares digests, so that the time it takes tells nothing of the token.
fn same(a: &str, b: &str) -> bool {
    Sha256::digest(a) == Sha256::digest(b)
}

/// Whether a Host is this worker's: loopback, the bound address, or one that was configured.
fn is_ours(app: &App, host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    let address: Option<std::net::IpAddr> = bare.parse().ok();
    name.eq_ignore_ascii_case("localhost")
        || address.is_some_and(|a| a.is_loopback() || a == app.life.address.ip())
        || app.access.hosts.iter().any(|known| known.eq_ignore_ascii_case(name))
}

fn correlation_id(headers: &HeaderMap) -> String {
    headers
        .get(CORRELATION)
        .and_then(|value| value.to_str().ok())
        .filter(|id| {
            (1..=CORRELATION_ID_BYTES_MAX).contains(&id.len())
                && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        })
        .map_or_else(|| uuid::Uuid::now_v7().to_string(), str::to_owned)
}

/// The trace id out of a W3C `traceparent`: `version-trace-span-flags`.
fn trace_id(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("traceparent")?.to_str().ok()?;
    let mut parts = value.split('-');
    let (version, trace, span) = (parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, length| {
        text.len() == length
            && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let valid = hex(version, 2) && version != "ff" && hex(trace, 32) && hex(span, 16);
    (valid && trace.bytes().any(|b| b != b'0')).then(|| trace.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_in_a_handler_is_a_500() {
        let response = survive(async { panic!("planted") }).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(response.extensions().get::<Problem>().is_some(), "it is to be told");
        let fine = survive(async { StatusCode::NO_CONTENT.into_response() }).await;
        assert_eq!(fine.status(), StatusCode::NO_CONTENT);
    }
}
