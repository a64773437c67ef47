//! The errors of every operation, each with an example, and who needs a token. Added to the document
//! in one place, since the guard answers them in one place.

use serde_json::{Value, json};
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, HeaderBuilder, OpenApi, Ref, RefOr, ResponseBuilder};

use crate::http::guard::is_open;
use crate::http::problem::{Form, code_of};

/// Adds the errors and the token to every operation.
pub struct Errors;

/// An error that an operation can answer: its status, when, what its example says, and whether it
/// comes with `Retry-After`.
struct Case(u16, &'static str, &'static str, bool);

const ANYWHERE: [Case; 5] = [
    Case(400, "What is wrong with the request, all of it at once", "see errors", false),
    Case(
        403,
        "A page of another origin",
        "a page of another origin may not call this worker; \
        --cors-origin lets it",
        false,
    ),
    Case(414, "The path is too long", "path and query may have 8192 bytes", false),
    Case(
        421,
        "Not sent to a Host that this worker goes by",
        "this worker does not go by that Host; \
        start it with --host-name to allow it",
        false,
    ),
    Case(
        500,
        "The worker failed on this request, and lives on",
        "the worker failed on this request, \
        and lives on; please report it",
        false,
    ),
];
const TOKEN: Case =
    Case(401, "No valid token", "a valid `Authorization: Bearer …` is needed", false);
const BODY: [Case; 3] = [
    Case(408, "The body came too slowly", "the body came too slowly", false),
    Case(413, "The body is too large", "the body may have 458752 bytes", false),
    Case(
        415,
        "The body is no JSON by its type",
        "the body is taken as `content-type: application/json` only",
        false,
    ),
];
const UNKNOWN: Case =
    Case(404, "Not known (any more)", "no job of that id is known (any more)", false);
const INFERENCE: [Case; 2] = [
    Case(
        429,
        "As many requests wait as may",
        "as many requests wait as may; come again later",
        true,
    ),
    Case(
        503,
        "The worker takes no work now",
        "the worker takes no work now; GET /ready says why",
        true,
    ),
];
const CONFLICT: Case =
    Case(409, "A job of that id is known", "a job of that id is known already", false);
const MODEL: Case = Case(404, "No such model", "`model` is none that this worker serves", false);
const WHOLE: [Case; 2] = [
    Case(499, "The job was cancelled before its end", "cancelled on request", false),
    Case(504, "The job's deadline came before its end", "its deadline came before its end", false),
];
const ENDING: Case =
    Case(503, "The worker is shutting down already", "the worker is shutting down already", true);

/// The errors of the operation at `path`.
fn cases(path: &str) -> Vec<&'static Case> {
    let mut cases: Vec<&Case> = ANYWHERE.iter().collect();
    if !is_open(path) {
        cases.push(&TOKEN);
    }
    match path {
        "/execute" => {
            cases.extend(BODY.iter().chain(&INFERENCE));
            cases.push(&CONFLICT);
        }
        "/v1/chat/completions" | "/v1/completions" => {
            cases.extend(BODY.iter().chain(&INFERENCE).chain(&WHOLE));
            cases.push(&MODEL);
        }
        "/v1/models/{model}" => cases.push(&MODEL),
        "/cancel" => {
            cases.extend(&BODY);
            cases.push(&UNKNOWN);
        }
        "/shutdown" => cases.push(&ENDING),
        "/jobs/{id}" | "/jobs/{id}/events" => cases.push(&UNKNOWN),
        _ => {}
    }
    cases
}

impl utoipa::Modify for Errors {
    fn modify(&self, document: &mut OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("Asked for where the worker was started with a token"))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
        for (path, item) in &mut document.paths.paths {
            let PathItem { get, post, .. } = item;
            for operation in [get, post].into_iter().flatten() {
                complete(path, operation);
            }
        }
    }
}

fn complete(path: &str, operation: &mut Operation) {
    if !is_open(path) {
        let token = SecurityRequirement::new("token", Vec::<String>::new());
        operation.security = Some(vec![SecurityRequirement::default(), token]);
    }
    for Case(status, when, detail, retry) in cases(path) {
        let form = Form::of(path);
        let (kind, schema) = match form {
            Form::Problem => ("application/problem+json", "Problem"),
            Form::OpenAi => ("application/json", "ErrorBody"),
        };
        let content = ContentBuilder::new()
            .schema(Some(RefOr::Ref(Ref::from_schema_name(schema))))
            .example(Some(example(form, *status, detail)))
            .build();
        let mut response = ResponseBuilder::new().description(*when).content(kind, content);
        if *retry {
            let header = HeaderBuilder::new()
                .description(Some("Seconds after which another try may succeed"))
                .build();
            response = response.header("Retry-After", header);
        }
        let known = &mut operation.responses.responses;
        known.entry(status.to_string()).or_insert_with(|| RefOr::T(response.build()));
    }
}

/// An answer as it may come.
fn example(form: Form, status: u16, detail: &str) -> Value {
    let wrong = json!({"field": "temperature", "constraint": "range",
        "message": "is a number from 0 to 2"});
    match (form, status) {
        (Form::Problem, 400) => json!({"title": "Bad Request", "status": 400,
            "detail": "1 thing(s) in the request to mend; see errors", "errors": [wrong]}),
        (Form::Problem, _) => {
            let title = axum::http::StatusCode::from_u16(status).ok();
            let title = title.and_then(|status| status.canonical_reason()).unwrap_or("Error");
            json!({"title": title, "status": status, "detail": detail})
        }
        (Form::OpenAi, 400) => json!({"error": {"message": "temperature is a number from 0 to 2",
            "type": "invalid_request_error", "param": "temperature", "code": "range"}}),
        (Form::OpenAi, 404) => json!({"error": {"message": detail,
            "type": "invalid_request_error", "param": "model", "code": "model_not_found"}}),
        (Form::OpenAi, _) => {
            let kind = axum::http::StatusCode::from_u16(status)
                .map_or("server_error", crate::http::problem::type_of);
            let code = match status {
                499 => Some("CANCELLED"),
                504 => Some("TIMEOUT"),
                _ => axum::http::StatusCode::from_u16(status).ok().and_then(code_of),
            };
            json!({"error": {"message": detail, "type": kind, "param": null, "code": code}})
        }
    }
}
