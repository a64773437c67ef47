//! `POST /execute`: from a request to a job, and from the job's log to a stream. The prompt becomes
//! tokens off the serving threads.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt as _;

use super::problem::Problem;
use super::request::{Execute, Prompt, Violation, parse_execute};
use super::{App, Model};
use crate::delivery::frame::{self, Event};
use crate::delivery::{Feed, JobLog, Reader};
use crate::error::Kind;
use crate::job::{Cancel, Job, OnDisconnect, Record, Refused, Wish};
use crate::limits::{BODY_BYTES_MAX, BODY_MS_MAX, KEEP_ALIVE_MS};
use crate::narration::facts::{
    self, CancelledBy, PromptTokenized, RequestAccepted, RequestQueued, WorkerState,
};
use crate::narration::{Fact, Scope, fact, wire};

/// `POST /execute`.
pub async fn execute(
    State(app): State<Arc<App>>,
    Extension(scope): Extension<Scope>,
    request: Request,
) -> Result<Response, Problem> {
    begin(&app, &scope, request).await
}

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

async fn begin(app: &Arc<App>, scope: &Scope, request: Request) -> Result<Response, Problem> {
    let endpoint = request.uri().path().to_owned();
    let body = read_body(request).await?;
    let execute = parse_execute(&body).map_err(Problem::invalid)?;
    let model = match app.state() {
        WorkerState::Ready => app.model.get(),
        _ => None,
    };
    let Some(model) = model else {
        let detail = "the worker takes no work now; GET /ready says why";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(5));
    };
    let Execute { job_id, prompt, wish, on_disconnect, timeout_ms } = execute;
    let (tokens, chars, took) = tokenize(model, prompt).await?;
    check_fit(model, &wish, tokens.len())?;
    let job_id = job_id.unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    let (log, cancel) = (JobLog::new(), Cancel::default());
    let record = Record { log: Arc::clone(&log), cancel: cancel.clone(), on_disconnect };
    if !app.jobs.insert(&job_id, record.clone()) {
        return Err(Problem::new(StatusCode::CONFLICT, "a job of that id is known already"));
    }
    let scope = Scope { job_id: Some(job_id.clone()), ..scope.clone() };
    let feed = app.pipeline.feed(app.narrator.clone(), scope, Arc::clone(&log));
    let tokenized =
        PromptTokenized { tokens: fact::count(tokens.len()), duration_ms: fact::millis(took) };
    let timeout = Duration::from_millis(timeout_ms.unwrap_or(app.job_timeout_ms));
    let accepted = Instant::now();
    let job = Job {
        feed,
        prompt: tokens,
        prompt_chars: fact::count(chars),
        wish,
        constraint: None,
        cancel,
        deadline: accepted + timeout,
        accepted,
    };
    let place = |job: &Job, ahead| {
        started(&log, &job_id, &model.profile.name, job.wish.sampling.seed);
        tell_acceptance(&job.feed, &endpoint, &job.wish, tokenized, ahead);
    };
    if let Err(refused) = app.queue.push(job, place) {
        app.jobs.remove(&job_id);
        return Err(match refused {
            Refused::Full => Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "as many requests wait as may; come again later",
            )
            .retry_after(1),
            Refused::Closed => {
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the worker shuts down")
                    .retry_after(5)
            }
        });
    }
    Ok(event_stream(record, 0))
}

fn started(log: &JobLog, job_id: &str, model: &str, seed: u64) {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(0));
    let event = Event::Started { job_id, model, started_at: wire::timestamp(now), seed };
    log.append(|id| frame::event(id, &event));
}

fn tell_acceptance(
    feed: &Feed,
    endpoint: &str,
    wish: &Wish,
    tokenized: PromptTokenized,
    ahead: usize,
) {
    feed.tell(Fact::RequestAccepted(RequestAccepted {
        endpoint: endpoint.to_owned(),
        max_tokens: wish.max_tokens,
        sampling: facts::Sampling {
            temperature: wish.sampling.temperature,
            top_p: wish.sampling.top_p,
            top_k: wish.sampling.top_k,
            min_p: wish.sampling.min_p,
            repetition_penalty: wish.sampling.repetition_penalty,
            seed: wish.sampling.seed,
            stop_strings: fact::count(wish.stop.len()),
        },
    }));
    feed.tell(Fact::PromptTokenized(tokenized));
    if ahead > 0 {
        let ahead = fact::count(ahead);
        feed.tell(Fact::RequestQueued(RequestQueued { position: ahead, ahead }));
    }
}

/// The prompt as tokens, with its length in characters and the time it took.
async fn tokenize(model: &Model, prompt: Prompt) -> Result<(Vec<u32>, usize, Duration), Problem> {
    let language = Arc::clone(&model.language);
    let work = move || -> crate::error::Result<(Vec<u32>, usize, Duration)> {
        let began = Instant::now();
        let (mut tokens, chars) = match prompt {
            Prompt::Text(text) => (language.tokenizer.encode(text.expose())?, text.chars()),
            Prompt::Chat(messages) => {
                let chars = messages.iter().map(|m| m.content.chars().count()).sum();
                (language.chat(&messages)?, chars)
            }
        };
        let bos = language.tokenizer.bos().filter(|_| language.tokenizer.add_bos());
        if let Some(bos) = bos.filter(|bos| tokens.first() != Some(bos)) {
            tokens.insert(0, bos);
        }
        Ok((tokens, chars, began.elapsed()))
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(tokens)) => Ok(tokens),
        Ok(Err(error)) if error.kind() == Kind::Request => {
            Err(Problem::invalid(vec![Violation::new("messages", "template", &error.to_string())]))
        }
        Ok(Err(error)) => {
            tracing::error!(error = error.trail(), "a prompt could not be made tokens");
            Err(Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the prompt could not be tokenized",
            ))
        }
        Err(_) => Err(Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the tokenizer failed; it lives on",
        )),
    }
}

/// Whether prompt and answer fit the model.
fn check_fit(model: &Model, wish: &Wish, prompt: usize) -> Result<(), Problem> {
    let profile = &model.profile;
    let context = profile.context_length as usize;
    let mut wrong = Vec::new();
    if prompt == 0 {
        wrong.push(Violation::new("prompt", "length", "becomes no token at all"));
    }
    if prompt + wish.max_tokens as usize > context {
        let message = format!(
            "prompt ({prompt} tokens) and max_tokens ({}) exceed the context of {context} tokens",
            wish.max_tokens
        );
        wrong.push(Violation::new("max_tokens", "context", &message));
    }
    let kv_tokens = profile.kv_tokens as usize;
    if kv_tokens < context && prompt + wish.max_tokens as usize > kv_tokens {
        let message = format!(
            "prompt ({prompt} tokens) and max_tokens ({}) exceed the memory for {kv_tokens} tokens",
            wish.max_tokens
        );
        wrong.push(Violation::new("max_tokens", "memory", &message));
    }
    if wish.sampling.top_k > profile.vocabulary {
        let message = format!("is an integer from 0 to {}", profile.vocabulary);
        wrong.push(Violation::new("top_k", "range", &message));
    }
    if wrong.is_empty() { Ok(()) } else { Err(Problem::invalid(wrong)) }
}

/// Ends a job when its last reader is gone, if that is what its request asked for.
struct Gone(Record);

impl Drop for Gone {
    fn drop(&mut self) {
        if self.0.on_disconnect == OnDisconnect::Cancel && self.0.log.unread() {
            self.0.cancel.cancel(CancelledBy::Disconnect); // after the job's end it changes nothing
        }
    }
}

/// A log as a response: frames as they come, a sign of life in between.
pub fn event_stream(job: Record, after: usize) -> Response {
    let (reader, gone) = (job.log.reader(after), Gone(job));
    let body = Body::new(EventBody { next: Box::pin(next_frame(reader)), gone, ended: false });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform")),
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, body).into_response()
}

type Next = Pin<Box<dyn Future<Output = (Option<Bytes>, Reader)> + Send>>;

/// The body of a stream; when it is dropped, first its reader goes, then the job is asked about it.
struct EventBody {
    next: Next,
    #[expect(dead_code, reason = "what matters is when it is dropped")]
    gone: Gone,
    ended: bool,
}

async fn next_frame(mut reader: Reader) -> (Option<Bytes>, Reader) {
    let frame =
        match tokio::time::timeout(Duration::from_millis(KEEP_ALIVE_MS), reader.next()).await {
            Ok(frame) => frame,
            // One newline only: a whole comment block would be taken for an empty event by some clients.
            Err(_) => Some(Bytes::from_static(b": ping\n")),
        };
    (frame, reader)
}

impl http_body::Body for EventBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let (frame, reader) = std::task::ready!(self.next.as_mut().poll(context));
        match frame {
            Some(frame) => {
                self.next = Box::pin(next_frame(reader));
                Poll::Ready(Some(Ok(http_body::Frame::data(frame))))
            }
            None => {
                self.ended = true;
                Poll::Ready(None)
            }
        }
    }
}
