//! A job's events as one answer. Whoever asked has to stay: without a reader the job is ended.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::value::{RawValue, to_raw_value};

use super::chunks::{finish_reason, usage};
use super::request::Answer;
use super::wire::{
    ChatChoice, ChatCompletion, ChatLogprobs, ChatMessage, Completion, CompletionChoice,
    CompletionLogprobs,
};
use super::{Endpoint, Head};
use crate::delivery::Event;
use crate::delivery::event::{Code, End, Failure, TokenLogprob};
use crate::http::problem::Problem;
use crate::http::stream::Attended;
use crate::http::{App, retry};
use crate::job::Record;

/// Waits for the job's end, and answers with all of it.
pub async fn answer(
    app: &App,
    job: Record,
    head: Head,
    answer: &Answer,
) -> Result<Response, Problem> {
    let mut reader = Attended::new(job, 0);
    let (mut text, mut narrations, mut logprobs) = (String::new(), Vec::new(), Vec::new());
    while let Some((_, event)) = reader.next().await {
        match &*event {
            Event::Token(token) => {
                text.push_str(&token.t);
                logprobs.extend_from_slice(&token.logprobs);
            }
            Event::Narration(json) if answer.narration => {
                narrations.extend(RawValue::from_string(json.to_string()).ok());
            }
            Event::Started(_) | Event::Narration(_) | Event::Metrics(_) => {}
            Event::End(end) => {
                let narration = answer.narration.then_some(&narrations);
                let narration = narration.and_then(|told| to_raw_value(told).ok());
                let logprobs = answer.logprobs.then_some(&*logprobs);
                return Ok(whole(&head, end, text, logprobs, narration.as_deref()));
            }
            Event::Error(failure) => return Err(problem(app, failure)),
        }
    }
    Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the job ended without a last event"))
}

fn whole(
    head: &Head,
    end: &End,
    text: String,
    logprobs: Option<&[TokenLogprob]>,
    narration: Option<&RawValue>,
) -> Response {
    let (id, model, created) = (head.id.as_str(), head.model.as_str(), head.created);
    let usage = usage(head, end.tokens_out);
    let finish_reason = finish_reason(end.stop_reason);
    match head.endpoint {
        Endpoint::Chat => {
            let message = ChatMessage { role: "assistant", content: text, refusal: None };
            let logprobs = logprobs.map(|tokens| {
                let mut logprobs = ChatLogprobs::default();
                logprobs.extend(tokens);
                logprobs
            });
            let choice = ChatChoice { index: 0, message, logprobs, finish_reason };
            let (object, choices) = ("chat.completion", [choice]);
            Json(ChatCompletion { id, object, created, model, choices, usage, narration })
                .into_response()
        }
        Endpoint::Completions => {
            let logprobs = logprobs.map(|tokens| {
                let mut logprobs = CompletionLogprobs::default();
                logprobs.extend(tokens, 0);
                logprobs
            });
            let choice = CompletionChoice {
                text: &text,
                index: 0,
                logprobs,
                finish_reason: Some(finish_reason),
            };
            let (object, choices) = ("text_completion", vec![choice]);
            let usage = Some(Some(usage));
            Json(Completion { id, object, created, model, choices, usage, narration })
                .into_response()
        }
    }
}

/// What an answer that can't be given any more says of it.
fn problem(app: &App, failure: &Failure) -> Problem {
    let status = match failure.code {
        // 499, as proxies log it: a status that clients don't try again by themselves.
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        Code::Timeout => StatusCode::GATEWAY_TIMEOUT,
        Code::InferenceFailed => StatusCode::INTERNAL_SERVER_ERROR,
        Code::VramOom | Code::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
    };
    let problem = Problem::new(status, failure.message.clone()).code(failure.code.name());
    match status {
        StatusCode::SERVICE_UNAVAILABLE => problem.retry_after(retry::after_s(app)),
        _ => problem,
    }
}
