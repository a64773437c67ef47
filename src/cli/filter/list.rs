//! `filter list`: the chain of a running worker as a table, from its `GET /filters`. Changes nothing.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::paint::{self, Paint};
use super::report::out;
use crate::error::{Error, Kind, Result};
use crate::limits::{FACT_CHARS_MAX, LIST_BYTES_MAX, LIST_MS_MAX, PORT};
use crate::narration::clean;

/// Which worker, and how to show it.
#[derive(Args)]
pub struct ListFlags {
    /// Where the worker is
    #[arg(long, env = "RBEES_URL", value_name = "URL", default_value_t = here())]
    url: String,
    /// File with the token that the worker asks for (or RBEES_API_TOKEN holds it)
    #[arg(long, env = "RBEES_API_TOKEN_FILE", value_name = "FILE")]
    api_token_file: Option<std::path::PathBuf>,
    /// Write what the worker said as it is
    #[arg(long)]
    json: bool,
}

fn here() -> String {
    format!("http://127.0.0.1:{PORT}")
}

/// Asks a worker and prints.
pub fn run(flags: &ListFlags) -> Result<ExitCode> {
    let token = crate::config::token(flags.api_token_file.clone())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime
        .map_err(|e| Error::new(Kind::Internal, "the async runtime can't start").because(e))?;
    let mut state =
        runtime.block_on(ask(&flags.url, token.as_ref().map(|token| token.expose())))?;
    let text = if flags.json {
        state.to_string()
    } else {
        made_safe(&mut state);
        for_people(&state)
    };
    out(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// What the worker says of its chain, within bounds of time and size.
async fn ask(url: &str, token: Option<&str>) -> Result<Value> {
    let url = format!("{}/filters", url.trim_end_matches('/'));
    let failed = |what: String| Error::new(Kind::Config, format!("{url} {what}"));
    let client = reqwest::Client::builder()
        .timeout(std::time::Duration::from_millis(LIST_MS_MAX))
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|e| Error::new(Kind::Internal, "the HTTP client can't start").because(e))?;
    let mut request = client.get(&url);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let mut response = request.send().await.map_err(|error| {
        let why = if error.is_connect() { "does not answer" } else { "can't be asked" };
        failed(format!("{why}: is a worker running there? --url says where")).because(error)
    })?;
    match response.status().as_u16() {
        200 => {}
        401 => return Err(failed("asks for a token: give --api-token-file".into())),
        404 => return Err(failed("is not known there: is it a worker of this version?".into())),
        status => return Err(failed(format!("answered {status}"))),
    }
    let mut body = Vec::new();
    while let Some(piece) = response
        .chunk()
        .await
        .map_err(|error| failed("broke off its answer".into()).because(error))?
    {
        if body.len() + piece.len() > LIST_BYTES_MAX {
            return Err(failed(format!("answered with more than {LIST_BYTES_MAX} bytes")));
        }
        body.extend_from_slice(&piece);
    }
    serde_json::from_slice(&body).map_err(|e| failed("answered with no JSON".into()).because(e))
}

/// A worker's words on somebody's terminal: only what can't move its cursor.
fn made_safe(value: &mut Value) {
    match value {
        Value::String(text) => *text = clean::line(text, FACT_CHARS_MAX).into_owned(),
        Value::Array(items) => items.iter_mut().for_each(made_safe),
        Value::Object(fields) => fields.values_mut().for_each(made_safe),
        _ => {}
    }
}

fn for_people(state: &Value) -> String {
    let paint = Paint::for_stdout();
    let mut lines = vec![format!(
        "{} {}, {}",
        paint.bold("generation"),
        state["generation"],
        state["folder"].as_str().map_or("without a folder".to_owned(), |at| format!("from {at}")),
    )];
    let filters = state["filters"].as_array().map(Vec::as_slice).unwrap_or_default();
    let rows: Vec<Vec<String>> = filters.iter().enumerate().map(|(at, f)| row(at, f)).collect();
    let head =
        ["", "name", "version", "digest", "since", "calls", "µs a call", "failed", "dropped", "is"];
    lines.extend(paint::table(&head, &rows));
    if let Some(rejection) = state["last_rejection"].as_object() {
        let text = |key: &str| rejection.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
        lines.push(format!(
            "{} at {}: {} ({}): {}",
            paint.yellow("last refused"),
            text("at"),
            text("name"),
            text("path"),
            text("reason")
        ));
    }
    lines.join("\n")
}

/// One filter: place, name, version, digest, since when, and what it did.
fn row(at: usize, filter: &Value) -> Vec<String> {
    let text = |key: &str| filter[key].as_str().unwrap_or("").to_owned();
    let count = |key: &str| filter[key].as_u64().unwrap_or(0);
    let is = |key: &str| filter[key].as_bool().unwrap_or(false);
    let per_call = match count("calls") {
        0 => "-".to_owned(),
        calls => format!("{:.1}", count("busy_us") as f64 / calls as f64),
    };
    let mut marks: Vec<String> = ["quarantined", "redacts", "text", "shadow"]
        .into_iter()
        .filter(|key| is(key))
        .map(str::to_owned)
        .collect();
    if is("shadow") {
        marks.push(format!("({} would differ)", count("shadow_differences")));
    }
    vec![
        (at + 1).to_string(),
        text("name"),
        text("version"),
        text("digest").chars().take(12).collect(),
        count("generation").to_string(),
        count("calls").to_string(),
        per_call,
        count("failures").to_string(),
        count("drops").to_string(),
        marks.join(" "),
    ]
}
