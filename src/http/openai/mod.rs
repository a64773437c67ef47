//! OpenAI's endpoints: `/v1/models`, `/v1/chat/completions`, `/v1/completions`. The same jobs as by
//! `/execute`, in the forms that OpenAI's clients know. What is not supported is refused by name.

mod chunks;
mod request;
mod whole;
pub mod wire;

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};

use self::chunks::Chunks;
pub use self::request::parse;
use self::wire::{ChatChunk, ChatCompletion, Completion, ModelCard, ModelList};
use super::admit::{admit, model};
use super::body::read_body;
use super::contract::{ChatRequest, CompletionRequest};
use super::execute::name_job;
use super::fields::Violation;
use super::problem::Problem;
use super::stream::respond;
use super::{App, Model, now_s};
use crate::narration::Scope;

/// Which of the two endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Messages in, a message out.
    Chat,
    /// Text in, text out.
    Completions,
}

impl Endpoint {
    const fn path(self) -> &'static str {
        match self {
            Endpoint::Chat => "/v1/chat/completions",
            Endpoint::Completions => "/v1/completions",
        }
    }
}

/// What every chunk and every whole answer of one request says of it.
#[derive(Clone)]
pub struct Head {
    /// Which endpoint it came by.
    pub endpoint: Endpoint,
    /// `chatcmpl-` or `cmpl-`, and the job's id.
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    /// Name of the model.
    pub model: String,
    /// Length of the prompt, tokens.
    pub prompt_tokens: u32,
}

/// `POST /v1/chat/completions`: a message that goes on with a conversation.
#[utoipa::path(
    post, path = "/v1/chat/completions", operation_id = "chat_completions", tag = "openai",
    request_body = ChatRequest,
    params(("X-Narration" = Option<String>, Header, nullable = false, description = "`sse`: with the request's \
        narrations", pattern = "^sse$")),
    responses((status = 200, description = "The answer: whole, or with `stream: true` as a stream of \
        `data:` lines with a `ChatChunk` each, then `[DONE]`",
        content((ChatCompletion<'static> = "application/json"),
            (ChatChunk<'static> = "text/event-stream"))))
)]
pub async fn chat(
    State(app): State<Arc<App>>,
    Extension(scope): Extension<Scope>,
    request: Request,
) -> Result<Response, Problem> {
    complete(&app, &scope, Endpoint::Chat, request).await
}

/// `POST /v1/completions`: text that goes on with a text.
#[utoipa::path(
    post, path = "/v1/completions", operation_id = "completions", tag = "openai",
    request_body = CompletionRequest,
    params(("X-Narration" = Option<String>, Header, nullable = false, description = "`sse`: with the request's \
        narrations", pattern = "^sse$")),
    responses((status = 200, description = "The answer: whole, or with `stream: true` as a stream of \
        `data:` lines with a `Completion` each, then `[DONE]`",
        content((Completion<'static> = "application/json"),
            (Completion<'static> = "text/event-stream"))))
)]
pub async fn completions(
    State(app): State<Arc<App>>,
    Extension(scope): Extension<Scope>,
    request: Request,
) -> Result<Response, Problem> {
    complete(&app, &scope, Endpoint::Completions, request).await
}

async fn complete(
    app: &Arc<App>,
    scope: &Scope,
    endpoint: Endpoint,
    request: Request,
) -> Result<Response, Problem> {
    let narrated = asks_for_narration(request.headers())?;
    let body = read_body(request).await?;
    let (asked, mut answer) = parse(endpoint, &body).map_err(Problem::invalid)?;
    answer.narration |= narrated;
    let model = model(app)?;
    known_model(app, model, &answer.model)?;
    let admitted = admit(app, scope, endpoint.path(), asked).await?;
    let prefix = match endpoint {
        Endpoint::Chat => "chatcmpl",
        Endpoint::Completions => "cmpl",
    };
    let head = Head {
        endpoint,
        id: format!("{prefix}-{}", admitted.job_id),
        created: now_s(),
        model: model.profile.name.clone(),
        prompt_tokens: admitted.prompt_tokens,
    };
    let mut response = if answer.stream {
        respond(app, admitted.record, 0, Chunks::new(head, answer))
    } else {
        let whole = whole::answer(app, admitted.record, head, &answer).await;
        whole.unwrap_or_else(Problem::into_response)
    };
    name_job(&mut response, &admitted.job_id);
    Ok(response)
}

/// Whether `X-Narration: sse` stands over the request, the other way of asking for it.
fn asks_for_narration(headers: &HeaderMap) -> Result<bool, Problem> {
    match headers.get("x-narration").map(|value| value.as_bytes()) {
        None => Ok(false),
        Some(b"sse") => Ok(true),
        Some(_) => {
            let wrong = Violation::new("X-Narration", "value", "is `sse`, or is not given");
            Err(Problem::invalid(vec![wrong]))
        }
    }
}

/// The worker has one model; a request for another is not answered by it in its place.
fn known_model(app: &App, model: &Model, name: &str) -> Result<(), Problem> {
    let known = |alias: &String| alias == name || alias == "*";
    if name == model.profile.name || app.aliases.iter().any(known) {
        return Ok(());
    }
    let message = format!("this worker serves `{}` (see GET /v1/models)", model.profile.name);
    Err(Problem::missing(Violation::new("model", "model_not_found", &message)))
}

/// `GET /v1/models`: the model, under each of its names.
#[utoipa::path(
    get, path = "/v1/models", operation_id = "models", tag = "openai",
    responses((status = 200, description = "The models", body = ModelList))
)]
pub async fn models(State(app): State<Arc<App>>) -> Json<ModelList> {
    let data = app.model.get().map(|model| names(&app, model)).unwrap_or_default();
    Json(ModelList { object: "list", data })
}

/// `GET /v1/models/{model}`: the model by a name.
#[utoipa::path(
    get, path = "/v1/models/{model}", operation_id = "model", tag = "openai",
    params(("model" = String, Path, description = "Its name")),
    responses((status = 200, description = "The model", body = ModelCard))
)]
pub async fn model_named(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let card = app
        .model
        .get()
        .and_then(|model| names(&app, model).into_iter().find(|card| card.id == name));
    match card {
        Some(card) => Ok((StatusCode::OK, Json(card)).into_response()),
        None => {
            let message = "is none that this worker serves; see GET /v1/models";
            Err(Problem::missing(Violation::new("model", "model_not_found", message)))
        }
    }
}

/// The model under each name that it goes by.
fn names(app: &App, model: &Model) -> Vec<ModelCard> {
    let created = app.life.began_s;
    let aliases = app.aliases.iter().filter(|alias| *alias != "*");
    std::iter::once(&model.profile.name)
        .chain(aliases)
        .map(|name| ModelCard {
            id: name.clone(),
            object: "model",
            created,
            owned_by: "rbees-workerd",
            context_length: model.profile.context_length,
        })
        .collect()
}
