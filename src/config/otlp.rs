//! Where metrics are sent to: `--otlp-endpoint`, or what OpenTelemetry's own environment variables say.
//! Sends nothing.

use reqwest::Url;

use super::{web_url, wrong};
use crate::error::Result;

/// The collector's URL for metrics, as it is.
pub const METRICS_VARIABLE: &str = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT";
/// The collector's URL, to which the path for metrics is added.
pub const VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// The collector's URL for metrics, if there is one; `given` is that of the flag.
pub fn endpoint(given: Option<String>) -> Result<Option<Url>> {
    if set("OTEL_SDK_DISABLED").is_some_and(|off| off.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    if let Some(base) = given {
        return with_path("--otlp-endpoint", &base).map(Some);
    }
    if let Some(whole) = set(METRICS_VARIABLE) {
        return checked(METRICS_VARIABLE, &whole).map(Some);
    }
    set(VARIABLE).map(|base| with_path(VARIABLE, &base)).transpose()
}

/// Whether the environment names a collector, so that the file's is not asked.
pub fn in_environment() -> bool {
    set(METRICS_VARIABLE).is_some() || set(VARIABLE).is_some()
}

/// An empty variable counts as none, as OpenTelemetry has it.
fn set(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn with_path(from: &str, base: &str) -> Result<Url> {
    let mut url = checked(from, base)?;
    let path = format!("{}/v1/metrics", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

fn checked(from: &str, url: &str) -> Result<Url> {
    let url = web_url(from, url)?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong(format!(
            "{from} holds a user or a password: give it by OTEL_EXPORTER_OTLP_HEADERS instead"
        )));
    }
    Ok(url)
}
