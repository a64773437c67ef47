//! Around every request: who may call (host, origin, token), by which name it goes (correlation and
//! trace id), and that a refusal is told, whoever refused. Looks at headers alone.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use sha2::{Digest as _, Sha256};
use tracing::Instrument as _;

use super::cors::Origin;
use super::problem::{Form, Problem, at_most};
use super::{App, docs, playground};
use crate::fault;
use crate::limits::{CORRELATION_ID_BYTES_MAX, REPLY_NARRATION_MS, URI_BYTES_MAX, VIOLATIONS_MAX};
use crate::measure;
use crate::narration::facts::{self, RequestRejected};
use crate::narration::{Fact, Scope};

const CORRELATION: &str = "x-correlation-id";
/// Paths that need no token, besides the files of the pages and the contract.
const OPEN: [&str; 2] = ["/health", "/ready"];

/// Lets a request through or answers in its place; its [`Scope`] becomes an extension.
pub async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let scope = Scope {
        job_id: None,
        correlation_id: Some(correlation_id(request.headers())),
        trace_id: trace_id(request.headers()),
    };
    // An error's level, so that warnings have it too, whatever is logged.
    let span = tracing::error_span!(
        "request",
        correlation_id = scope.correlation_id.as_deref(),
        trace_id = scope.trace_id.as_deref()
    );
    guarded(app, scope, request, next).instrument(span).await
}

async fn guarded(app: Arc<App>, scope: Scope, mut request: Request, next: Next) -> Response {
    fault::renew();
    let method = request.method().clone();
    let form = Form::of(request.uri().path());
    let with_body = has_body(request.headers());
    let echo = scope.correlation_id.as_deref().and_then(|id| HeaderValue::from_str(id).ok());
    let checked = check(&app, request.headers(), request.uri());
    let preflight =
        checked.origin.as_ref().and_then(|o| o.preflight(request.method(), request.headers()));
    let mut response = match (preflight, checked.refused) {
        (Some(response), _) => response,
        (None, Some(problem)) => problem.into_response(),
        (None, None) => {
            request.extensions_mut().insert(scope.clone());
            survive(async {
                fault::place("handler");
                next.run(request).await
            })
            .await
        }
    };
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let narration = tell_refusal(&app, &scope, &problem).await;
        problem.complete(&mut response, form, narration);
        if with_body && may_leave_body(problem.status()) {
            // What is left of the body can't be told from a next request: none may follow.
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
    }
    if let Some(origin) = checked.origin {
        origin.mark(&mut response);
    }
    if let Some(echo) = echo {
        response.headers_mut().insert(CORRELATION, echo);
    }
    tracing::info!(%method, status = response.status().as_u16(), "a request is answered");
    response
}

fn has_body(headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
    length || headers.contains_key(header::TRANSFER_ENCODING)
}

/// Whether a refusal of that status may come before the body was read.
const fn may_leave_body(status: StatusCode) -> bool {
    matches!(status.as_u16(), 401 | 403..=405 | 408 | 413..=415 | 421)
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
    let violations = at_most(VIOLATIONS_MAX, problem.violations())
        .into_iter()
        .map(|v| facts::Violation { field: v.field, constraint: v.constraint })
        .collect();
    measure::request_rejected();
    let status = problem.status().as_u16();
    let fact = Fact::RequestRejected(RequestRejected { status, violations });
    let answer = app.pipeline.ask(app.narrator.telling(fact, scope));
    let limit = Duration::from_millis(REPLY_NARRATION_MS);
    tokio::time::timeout(limit, answer).await.ok().and_then(Result::ok).flatten()
}

/// What the headers say of a request.
struct Checked {
    /// Where it comes from, if it was sent to this worker at all.
    origin: Option<Origin>,
    /// Why it is not let in.
    refused: Option<Problem>,
}

fn check(app: &App, headers: &HeaderMap, uri: &Uri) -> Checked {
    let host = match host(app, headers) {
        Ok(host) => host,
        Err(problem) => return Checked { origin: None, refused: Some(problem) },
    };
    let origin = Origin::of(headers, host, &app.access.origins);
    let refused = if origin == Origin::Foreign {
        let detail = "a page of another origin may not call this worker; --cors-origin lets it";
        Some(Problem::new(StatusCode::FORBIDDEN, detail))
    } else if uri.path().len() + uri.query().map_or(0, str::len) > URI_BYTES_MAX {
        let detail = format!("path and query may have {URI_BYTES_MAX} bytes");
        Some(Problem::new(StatusCode::URI_TOO_LONG, detail))
    } else if is_open(uri.path()) || shows_token(app, headers) {
        None
    } else {
        let detail = "a valid `Authorization: Bearer …` is needed";
        Some(Problem::new(StatusCode::UNAUTHORIZED, detail))
    };
    Checked { origin: Some(origin), refused }
}

/// The one Host that a request was sent to, if this worker goes by it.
fn host<'a>(app: &App, headers: &'a HeaderMap) -> Result<&'a str, Problem> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(Ok(host)), None) = (hosts.next().map(HeaderValue::to_str), hosts.next()) else {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "exactly one Host header is needed"));
    };
    if !is_ours(app, host) {
        let detail = "this worker does not go by that Host; start it with --host-name to allow it";
        return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, detail));
    }
    Ok(host)
}

/// Whether the token is shown, where one is asked for. Two of them are none.
fn shows_token(app: &App, headers: &HeaderMap) -> bool {
    let Some(token) = &app.access.token else { return true };
    let mut shown = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (shown.next(), shown.next()) else { return false };
    let Some((scheme, shown)) = value.to_str().ok().and_then(|value| value.split_once(' ')) else {
        return false;
    };
    scheme.eq_ignore_ascii_case("bearer") && same(shown.trim_start(), token.expose())
}

/// Whether a path needs no token: health, readiness, and files that are the same in every worker.
pub fn is_open(path: &str) -> bool {
    OPEN.contains(&path) || playground::is_open(path) || docs::is_open(path)
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
