//! The worker's calls to its pool manager: the ready call, tried a few times with growing waits, each
//! try told; then a heartbeat now and then. Sends no secret and follows no redirect.

use std::convert::Infallible;
use std::time::Duration;

use reqwest::{Client, Url};
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};

use crate::config::{Advertise, Pool};
use crate::error::{Error, Kind, Result};
use crate::http::{App, Model};
use crate::limits::{CALLBACK_BACKOFF_MS, CALLBACK_TRIES_MAX, CALLBACK_TRY_MS};
use crate::narration::Fact;
use crate::narration::facts::{
    CallbackAttempted, CallbackFailed, HeartbeatFailed, ReadyAnnounced, WorkerState,
};

/// What the pool manager is told. A heartbeat says all that the ready call said, so that a manager
/// that was started anew knows its workers again.
#[derive(Serialize)]
struct Call<'a> {
    worker_id: &'a str,
    uri: String,
    model_ref: &'a str,
    resident_bytes: u64,
    backend: &'static str,
    device: &'a str,
    pid: u32,
    #[serde(flatten)]
    heartbeat: Option<Heartbeat>,
}

/// What a heartbeat says besides.
#[derive(Serialize)]
struct Heartbeat {
    state: WorkerState,
    active_jobs: usize,
    queued_jobs: usize,
}

impl<'a> Call<'a> {
    fn new(pool: &Pool, app: &'a App, model: &'a Model) -> Self {
        Call {
            worker_id: app.narrator.worker_id(),
            uri: uri(pool, app.life.address),
            model_ref: &model.profile.name,
            resident_bytes: model.profile.resident_bytes,
            backend: "candle",
            device: &model.device,
            pid: std::process::id(),
            heartbeat: None,
        }
    }
}

/// How the pool manager reaches this worker.
fn uri(pool: &Pool, bound: std::net::SocketAddr) -> String {
    match &pool.advertise {
        Some(Advertise::Url(url)) => url.as_str().trim_end_matches('/').to_owned(),
        Some(Advertise::Host(name)) => format!("http://{name}:{}", bound.port()),
        None => format!("http://{bound}"),
    }
}

/// Calls the pool manager until it has taken the ready call, or gives up; then sends heartbeats for
/// ever. Returns only with an error.
pub async fn keep_in_touch(pool: &Pool, app: &App) -> Result<Infallible> {
    let Some(model) = app.model.get() else {
        return Err(Error::new(Kind::Internal, "the ready call came before the model"));
    };
    let client = Client::builder()
        .timeout(Duration::from_millis(CALLBACK_TRY_MS))
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|e| Error::new(Kind::Callback, "the HTTP client can't start").because(e))?;
    let shown = without_secrets(&pool.url);
    let mut call = Call::new(pool, app, model);
    announce(&client, pool, app, &shown, &call).await?;
    if pool.heartbeat_s == 0 {
        return std::future::pending().await;
    }
    let mut beats = interval(Duration::from_secs(pool.heartbeat_s));
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beats.tick().await; // the first comes at once
    loop {
        beats.tick().await;
        let (active_jobs, queued_jobs) = app.queue.lengths();
        call.heartbeat = Some(Heartbeat { state: app.state(), active_jobs, queued_jobs });
        if let Err(Refused { reason, .. }) = send(&client, &pool.url, &call).await {
            app.narrator
                .tell(Fact::HeartbeatFailed(HeartbeatFailed { url: shown.clone(), reason }));
        }
    }
}

/// Why a call was not taken.
struct Refused {
    status: Option<u16>,
    reason: String,
}

async fn send(client: &Client, url: &Url, call: &Call<'_>) -> Result<(), Refused> {
    match client.post(url.clone()).json(call).send().await {
        Ok(answer) if answer.status().is_success() => Ok(()),
        Ok(answer) => {
            let status = answer.status();
            Err(Refused { status: Some(status.as_u16()), reason: format!("it answered {status}") })
        }
        Err(error) => Err(Refused {
            status: None,
            reason: if error.is_timeout() {
                format!("no answer within {CALLBACK_TRY_MS} ms")
            } else if error.is_connect() {
                "it can't be connected to".to_owned()
            } else {
                error.without_url().to_string()
            },
        }),
    }
}

/// The ready call.
async fn announce(
    client: &Client,
    pool: &Pool,
    app: &App,
    shown: &str,
    call: &Call<'_>,
) -> Result<()> {
    for attempt in 1..=CALLBACK_TRIES_MAX {
        app.narrator.tell(Fact::CallbackAttempted(CallbackAttempted {
            url: shown.to_owned(),
            attempt,
            memory_bytes: call.resident_bytes,
        }));
        let Err(Refused { status, reason }) = send(client, &pool.url, call).await else {
            app.narrator.tell(Fact::ReadyAnnounced(ReadyAnnounced { url: shown.to_owned() }));
            return Ok(());
        };
        let wait = (attempt < CALLBACK_TRIES_MAX).then(|| backoff_ms(attempt));
        app.narrator.tell(Fact::CallbackFailed(CallbackFailed {
            url: shown.to_owned(),
            attempt,
            status,
            reason,
            retry_in_ms: wait,
        }));
        if let Some(wait) = wait {
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
    }
    let message = format!(
        "the pool manager at {shown} did not take the ready call in {CALLBACK_TRIES_MAX} tries; \
         check --callback-url"
    );
    Err(Error::new(Kind::Callback, message))
}

/// Doubles with every try; up to half as much again, so that a crowd of workers does not come at once.
fn backoff_ms(attempt: u32) -> u64 {
    let base = CALLBACK_BACKOFF_MS << (attempt - 1);
    base + rand::random_range(0..=base / 2)
}

/// The URL without user, password and query, which may hold secrets.
fn without_secrets(url: &Url) -> String {
    let mut shown = url.clone();
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown.set_query(None);
    shown.set_fragment(None);
    shown.to_string()
}
