//! The ready call to the pool manager: tried a few times with growing waits, each try told. Sends no
//! secret and follows no redirect.

use std::time::Duration;

use serde::Serialize;

use crate::error::{Error, Kind, Result};
use crate::http::App;
use crate::limits::{CALLBACK_BACKOFF_MS, CALLBACK_TRIES_MAX, CALLBACK_TRY_MS};
use crate::narration::Fact;
use crate::narration::facts::{CallbackAttempted, CallbackFailed, ReadyAnnounced};

#[derive(Serialize)]
struct Ready<'a> {
    worker_id: &'a str,
    uri: String,
    model_ref: &'a str,
    resident_bytes: u64,
    backend: &'static str,
    device: &'a str,
    pid: u32,
}

/// Calls `url` until it is answered well, or gives up.
pub async fn announce(url: &reqwest::Url, app: &App) -> Result<()> {
    let shown = without_secrets(url);
    let Some(model) = app.model.get() else {
        return Err(Error::new(Kind::Internal, "the ready call came before the model"));
    };
    let client = reqwest::Client::builder()
        .timeout(Duration::from_millis(CALLBACK_TRY_MS))
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|e| Error::new(Kind::Callback, "the HTTP client can't start").because(e))?;
    let ready = Ready {
        worker_id: app.narrator.worker_id(),
        uri: format!("http://{}", app.life.address),
        model_ref: &model.profile.name,
        resident_bytes: model.profile.resident_bytes,
        backend: "candle",
        device: &model.device,
        pid: std::process::id(),
    };
    for attempt in 1..=CALLBACK_TRIES_MAX {
        app.narrator.tell(Fact::CallbackAttempted(CallbackAttempted {
            url: shown.clone(),
            attempt,
            memory_bytes: ready.resident_bytes,
        }));
        let (status, reason) = match client.post(url.clone()).json(&ready).send().await {
            Ok(answer) if answer.status().is_success() => {
                app.narrator.tell(Fact::ReadyAnnounced(ReadyAnnounced { url: shown }));
                return Ok(());
            }
            Ok(answer) => {
                let status = answer.status();
                (Some(status.as_u16()), format!("it answered {status}"))
            }
            Err(error) if error.is_timeout() => {
                (None, format!("no answer within {CALLBACK_TRY_MS} ms"))
            }
            Err(error) if error.is_connect() => (None, "it can't be connected to".to_owned()),
            Err(error) => (None, error.without_url().to_string()),
        };
        let wait = (attempt < CALLBACK_TRIES_MAX).then(|| backoff_ms(attempt));
        app.narrator.tell(Fact::CallbackFailed(CallbackFailed {
            url: shown.clone(),
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
fn without_secrets(url: &reqwest::Url) -> String {
    let mut shown = url.clone();
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown.set_query(None);
    shown.set_fragment(None);
    shown.to_string()
}
