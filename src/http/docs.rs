//! `GET /docs`: Swagger UI out of the binary, over the contract. Fetches nothing from elsewhere.

use std::sync::Arc;

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use utoipa_swagger_ui::{Config, serve};

use super::problem::Problem;

/// Whether a path is one of the contract or of the page that shows it: the same in every worker.
pub fn is_open(path: &str) -> bool {
    path == "/openapi.yaml" || path == "/docs" || path.starts_with("/docs/")
}

/// `GET /docs`: the page's links start from its folder.
pub async fn index() -> Redirect {
    Redirect::permanent("/docs/")
}

/// `GET /docs/`: the page.
pub async fn page() -> Result<Response, Problem> {
    served("")
}

/// `GET /docs/{path}`: the page, and what belongs to it.
pub async fn file(Path(path): Path<String>) -> Result<Response, Problem> {
    served(&path)
}

fn served(path: &str) -> Result<Response, Problem> {
    let config = Arc::new(Config::from("/openapi.yaml"));
    match serve(path, config) {
        Ok(Some(file)) => {
            let headers = [(header::CONTENT_TYPE, file.content_type)];
            Ok((headers, file.bytes.into_owned()).into_response())
        }
        Ok(None) => Err(Problem::new(StatusCode::NOT_FOUND, "no such file belongs to the page")),
        Err(error) => {
            tracing::error!(%error, "Swagger UI can't be served");
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            Err(Problem::new(status, "the page can't be served"))
        }
    }
}
