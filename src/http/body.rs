//! A request's body: read whole, within the limits of size and time, and taken as JSON only.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use http_body_util::BodyExt as _;

use super::problem::Problem;
use crate::limits::{BODY_BYTES_MAX, BODY_MS_MAX};

/// The whole body, within the limits of size and time, of the one type that is taken.
pub async fn read_body(request: Request) -> Result<Bytes, Problem> {
    let json = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| {
            let essence = value.split(';').next().unwrap_or("").trim();
            essence.eq_ignore_ascii_case("application/json")
        });
    if !json {
        let detail = "the body is taken as `content-type: application/json` only";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let body = http_body_util::Limited::new(request.into_body(), BODY_BYTES_MAX);
    match tokio::time::timeout(Duration::from_millis(BODY_MS_MAX), body.collect()).await {
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the body came too slowly")),
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            let detail = format!("the body may have {BODY_BYTES_MAX} bytes");
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail))
        }
        Ok(Err(_)) => Err(Problem::new(StatusCode::BAD_REQUEST, "the body broke off")),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll};

    use http_body::Frame;

    use super::*;

    /// A body of a GiB, in pieces as large as the server's buffer lets them be.
    struct Endless(Arc<AtomicUsize>);

    impl http_body::Body for Endless {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            const PIECE: &[u8] = &[b' '; crate::limits::HEADER_BYTES_MAX];
            if self.0.fetch_add(PIECE.len(), Ordering::Relaxed) >= 1 << 30 {
                return Poll::Ready(None);
            }
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(PIECE)))))
        }
    }

    #[tokio::test]
    async fn a_gibibyte_is_read_no_further_than_the_cap_and_64_kib() {
        let read = Arc::new(AtomicUsize::new(0));
        let body = axum::body::Body::new(Endless(Arc::clone(&read)));
        let request = Request::builder().header("content-type", "application/json").body(body);
        let refused = read_body(request.expect("it is sound")).await.expect_err("it is too large");
        assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
        let read = read.load(Ordering::Relaxed);
        assert!(read > BODY_BYTES_MAX && read <= BODY_BYTES_MAX + 64 * 1024, "{read}");
    }
}
