//! `GET /`: the playground, a page that asks the worker and shows what it tells. Its files are part of
//! the binary. They hold no secret, so they are open; what the page asks for needs the token.

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// Scripts, styles and calls of its own origin alone, nothing inline, in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'";

/// Path, type and content of each file.
const FILES: [(&str, &str, &str); 10] = [
    ("/", "text/html; charset=utf-8", include_str!("playground/index.html")),
    ("/playground/style.css", "text/css; charset=utf-8", include_str!("playground/style.css")),
    ("/playground/page.js", SCRIPT, include_str!("playground/page.js")),
    ("/playground/filters.js", SCRIPT, include_str!("playground/filters.js")),
    ("/playground/form.js", SCRIPT, include_str!("playground/form.js")),
    ("/playground/view.js", SCRIPT, include_str!("playground/view.js")),
    ("/playground/chart.js", SCRIPT, include_str!("playground/chart.js")),
    ("/playground/run.js", SCRIPT, include_str!("playground/run.js")),
    ("/playground/worker.js", SCRIPT, include_str!("playground/worker.js")),
    ("/playground/sse.js", SCRIPT, include_str!("playground/sse.js")),
];

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The page and what it loads.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.into_iter().fold(Router::new(), |router, (path, kind, content)| {
        router.route(path, get(move || async move { file(kind, content) }))
    })
}

/// Whether a path is one of the page's files, which anybody may load.
pub fn is_open(path: &str) -> bool {
    FILES.iter().any(|(known, ..)| *known == path)
}

fn file(kind: &'static str, content: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, content).into_response()
}
