//! Pages of other origins: none may call, unless the operator named their origin. Then browsers are
//! told so. A page's own origin needs no such thing.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

/// What a page may read of an answer besides its body.
const SHOWN: &str = "x-correlation-id, x-job-id, retry-after";
/// What a page may send besides what every page may.
const TAKEN: &str = "authorization, content-type, last-event-id, traceparent, x-correlation-id, \
    x-narration";
/// How long a browser may remember that it may ask.
const REMEMBERED_S: &str = "600";

/// What the origin of a request says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// No page, or one of this worker's own.
    Own,
    /// A page that the operator lets call.
    Allowed(HeaderValue),
    /// A page of somebody else.
    Foreign,
}

impl Origin {
    /// The origin of a request that was sent to `host`.
    pub fn of(headers: &HeaderMap, host: &str, allowed: &[String]) -> Self {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let (Some(value), None) = (origins.next(), origins.next()) else {
            // More than one is no browser's doing.
            return if headers.contains_key(header::ORIGIN) {
                Origin::Foreign
            } else {
                Origin::Own
            };
        };
        let origin = value.to_str().unwrap_or("null");
        // A proxy before the worker may speak TLS to the page that the worker itself serves.
        let own = |scheme| origin.strip_prefix(scheme) == Some(host);
        if own("http://") || own("https://") {
            Origin::Own
        } else if allowed.iter().any(|known| known == origin) {
            Origin::Allowed(value.clone())
        } else {
            Origin::Foreign
        }
    }

    /// Tells the browser that its page may read this answer.
    pub fn mark(&self, response: &mut Response) {
        let Origin::Allowed(origin) = self else { return };
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(header::VARY, HeaderValue::from_static("origin"));
        let shown = HeaderValue::from_static(SHOWN);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, shown);
    }

    /// The answer to a browser that asks beforehand whether its page may call.
    pub fn preflight(&self, method: &Method, headers: &HeaderMap) -> Option<Response> {
        let asks = headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if method != Method::OPTIONS || !asks || !matches!(self, Origin::Allowed(_)) {
            return None;
        }
        let mut response = StatusCode::NO_CONTENT.into_response();
        let fields = response.headers_mut();
        for (name, value) in [
            (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, TAKEN),
            (header::ACCESS_CONTROL_MAX_AGE, REMEMBERED_S),
        ] {
            fields.insert(name, HeaderValue::from_static(value));
        }
        if headers.contains_key("access-control-request-private-network") {
            let name = HeaderName::from_static("access-control-allow-private-network");
            fields.insert(name, HeaderValue::from_static("true"));
        }
        Some(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_may_call_if_it_is_ours_or_was_named() {
        let allowed = ["https://hive.example".to_owned()];
        let check = |origins: &[&'static str], expected: Origin| {
            let mut headers = HeaderMap::new();
            for origin in origins {
                headers.append(header::ORIGIN, HeaderValue::from_static(origin));
            }
            assert_eq!(Origin::of(&headers, "127.0.0.1:8080", &allowed), expected, "{origins:?}");
        };
        let named = HeaderValue::from_static("https://hive.example");
        check(&[], Origin::Own);
        check(&["http://127.0.0.1:8080"], Origin::Own);
        check(&["https://127.0.0.1:8080"], Origin::Own);
        check(&["https://hive.example"], Origin::Allowed(named));
        for foreign in [
            "null",
            "",
            "http://127.0.0.1:81",
            "ftp://127.0.0.1:8080",
            "https://hive.example.evil",
            "http://hive.example",
        ] {
            check(&[foreign], Origin::Foreign);
        }
        check(&["http://127.0.0.1:8080", "https://evil.example"], Origin::Foreign);
    }
}
