//! From a checked request to a job: its prompt becomes tokens, off the serving threads; it is held
//! against the model; it becomes known by its name, and waits for the engine.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;

use super::fields::Violation;
use super::problem::Problem;
use super::request::{Asked, Prompt};
use super::{App, Model, retry};
use crate::delivery::event::Started;
use crate::delivery::{Event, Feed, JobLog};
use crate::error::Kind;
use crate::fault;
use crate::job::{Cancel, Constraint, Grammar, Job, Place, Record, Refused, Wish};
use crate::limits::{KV_BLOCK_TOKENS, OPEN_TOKENS_MIN, OUTPUT_TOKENS_MAX};
use crate::narration::facts::{self, PromptTokenized, RequestAccepted, RequestQueued, WorkerState};
use crate::narration::{Fact, Scope, fact, wire};

/// A request that has become a job.
pub struct Admitted {
    /// Its name.
    pub job_id: String,
    /// Its log, and who may end it.
    pub record: Record,
    /// Length of its prompt, tokens.
    pub prompt_tokens: u32,
}

/// The model, where the worker takes work.
pub fn model(app: &App) -> Result<&Model, Problem> {
    let model = match app.state() {
        WorkerState::Ready => app.model.get(),
        _ => None,
    };
    model.ok_or_else(|| {
        let detail = "the worker takes no work now; GET /ready says why";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(retry::after_s(app))
    })
}

/// Makes a job of a request that came by `endpoint`, or says why not.
pub async fn admit(
    app: &Arc<App>,
    scope: &Scope,
    endpoint: &str,
    asked: Asked,
) -> Result<Admitted, Problem> {
    let model = model(app)?;
    let Asked { job_id, prompt, mut wish, any_length, on_disconnect, timeout_ms } = asked;
    let operation = prompt.operation();
    let (tokens, chars, took) = {
        let field = prompt.field();
        let made = tokenize(model, prompt).await?;
        fit(model, &mut wish, any_length, made.0.len(), field)?;
        made
    };
    let constraint = constrain(model, wish.grammar.take()).await?;
    let job_id = job_id.unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    let (log, cancel) = (JobLog::new(), Cancel::default());
    let record = Record { log: Arc::clone(&log), cancel: cancel.clone(), on_disconnect };
    if !app.jobs.insert(&job_id, record.clone()) {
        return Err(Problem::new(StatusCode::CONFLICT, "a job of that id is known already"));
    }
    let scope = Scope { job_id: Some(job_id.clone()), ..scope.clone() };
    let feed = app.pipeline.feed(app.narrator.clone(), scope, Arc::clone(&log));
    let prompt_tokens = fact::count(tokens.len());
    let tokenized = PromptTokenized { tokens: prompt_tokens, duration_ms: fact::millis(took) };
    let timeout = Duration::from_millis(timeout_ms.unwrap_or(app.job_timeout_ms));
    let accepted = Instant::now();
    let job = Job {
        feed,
        prompt: tokens,
        prompt_chars: fact::count(chars),
        wish,
        constraint,
        cancel,
        deadline: accepted + timeout,
        wait_until: accepted + Duration::from_millis(app.wait_ms),
        accepted,
        operation,
    };
    let place = |job: &Job, place: Option<Place>| {
        log.append(started(&job_id, &model.profile.name, job.wish.sampling.seed));
        tell_acceptance(&job.feed, endpoint, &job.wish, tokenized, place);
    };
    if let Err(refused) = app.queue.push(job, place) {
        app.jobs.remove(&job_id);
        return Err(refusal(app, refused));
    }
    Ok(Admitted { job_id, record, prompt_tokens })
}

fn refusal(app: &App, refused: Refused) -> Problem {
    let (status, detail) = match refused {
        Refused::Full => {
            (StatusCode::TOO_MANY_REQUESTS, "as many requests wait as may; come again later")
        }
        Refused::Closed => (StatusCode::SERVICE_UNAVAILABLE, "the worker shuts down"),
    };
    Problem::new(status, detail).retry_after(retry::after_s(app))
}

fn started(job_id: &str, model: &str, seed: u64) -> Event {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(0));
    Event::Started(Box::new(Started {
        job_id: job_id.to_owned(),
        model: model.to_owned(),
        started_at: wire::timestamp(now),
        seed,
    }))
}

fn tell_acceptance(
    feed: &Feed,
    endpoint: &str,
    wish: &Wish,
    tokenized: PromptTokenized,
    place: Option<Place>,
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
    if let Some(place) = place {
        feed.tell(Fact::RequestQueued(RequestQueued {
            position: fact::count(place.position),
            ahead: fact::count(place.ahead),
        }));
    }
}

/// The prompt as tokens, with its length in characters and the time it took.
async fn tokenize(model: &Model, prompt: Prompt) -> Result<(Vec<u32>, usize, Duration), Problem> {
    let language = Arc::clone(&model.language);
    let work = move || -> crate::error::Result<(Vec<u32>, usize, Duration)> {
        fault::step("tokenize")?;
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
    let internal = |detail| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail);
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(tokens)) => Ok(tokens),
        Ok(Err(error)) if error.kind() == Kind::Request => {
            Err(Problem::invalid(vec![Violation::new("messages", "template", &error.to_string())]))
        }
        Ok(Err(error)) => {
            tracing::error!(error = error.trail(), "a prompt could not be made tokens");
            Err(internal("the prompt could not be tokenized"))
        }
        Err(_) => Err(internal("the tokenizer failed; it lives on")),
    }
}

/// What holds the text to a grammar, made off the serving threads.
async fn constrain(
    model: &Model,
    grammar: Option<Grammar>,
) -> Result<Option<Box<dyn Constraint>>, Problem> {
    let Some(grammar) = grammar else { return Ok(None) };
    let language = Arc::clone(&model.language);
    match tokio::task::spawn_blocking(move || {
        fault::step("constrain")?;
        language.constrain(grammar)
    })
    .await
    {
        Ok(Ok(constraint)) => Ok(Some(constraint)),
        Ok(Err(error)) if error.kind() == Kind::Request => {
            let wrong = Violation::new("response_format", "schema", &error.to_string());
            Err(Problem::invalid(vec![wrong]))
        }
        failed => {
            let trail = failed.err().map(|e| e.to_string());
            tracing::error!(trail, "a grammar could not be made");
            let detail = "the response format could not be made ready";
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail))
        }
    }
}

/// How long an answer may be whose length was left open: what is left of the share of the KV cache that
/// each request has when as many run as may, so that one which asked for nothing keeps nobody waiting;
/// [`OPEN_TOKENS_MIN`] at least, where the context has them. The same whoever else is being served.
fn open_length(model: &Model, prompt: usize) -> u32 {
    let profile = &model.profile;
    let kv_tokens = profile.kv_tokens as usize;
    let blocks = kv_tokens / KV_BLOCK_TOKENS / model.slots.max(1);
    let share = (blocks * KV_BLOCK_TOKENS).saturating_sub(prompt);
    let left = kv_tokens.min(profile.context_length as usize).saturating_sub(prompt);
    fact::count(share.max(OPEN_TOKENS_MIN as usize).min(left)).clamp(1, OUTPUT_TOKENS_MAX)
}

/// Holds prompt and answer against the model; where it was left open how long the answer may be, that
/// is decided here.
fn fit(
    model: &Model,
    wish: &mut Wish,
    any_length: bool,
    prompt: usize,
    field: &str,
) -> Result<(), Problem> {
    let profile = &model.profile;
    let context = profile.context_length as usize;
    let kv_tokens = profile.kv_tokens as usize;
    let mut wrong = Vec::new();
    if any_length {
        wish.max_tokens = open_length(model, prompt);
    }
    if prompt == 0 {
        wrong.push(Violation::new(field, "length", "becomes no token at all"));
    }
    if prompt + wish.max_tokens as usize > context {
        let (field, asked) = if any_length {
            (field, format!("the prompt has {prompt} tokens, and an answer needs 1 at least"))
        } else {
            let asked = format!("prompt ({prompt} tokens) and max_tokens ({})", wish.max_tokens);
            ("max_tokens", asked)
        };
        let message = format!("{asked}: together more than the context of {context} tokens");
        wrong.push(Violation::new(field, "context", &message));
    }
    if kv_tokens < context && prompt + wish.max_tokens as usize > kv_tokens {
        let message = format!(
            "prompt ({prompt} tokens) and max_tokens ({}) exceed the memory for {kv_tokens} tokens",
            wish.max_tokens
        );
        wrong.push(Violation::new("max_tokens", "memory", &message));
    }
    if wish.logit_bias.iter().any(|(token, _)| *token >= profile.vocabulary) {
        let message = format!("names tokens from 0 to {}", profile.vocabulary.saturating_sub(1));
        wrong.push(Violation::new("logit_bias", "range", &message));
    }
    if wish.sampling.top_k > profile.vocabulary {
        let message = format!("is an integer from 0 to {}", profile.vocabulary);
        wrong.push(Violation::new("top_k", "range", &message));
    }
    if wrong.is_empty() { Ok(()) } else { Err(Problem::invalid(wrong)) }
}
