//! The worker's configuration: flags, environment and file as they were given, checked and filled in
//! once. Reads the file and the token's; binds nothing.

mod file;
mod otlp;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};
use serde::Deserialize;

use crate::delivery::Form;
use crate::engine::Budget;
use crate::engine::device::Wanted;
use crate::error::{Error, Kind, Result};
use crate::limits::{
    GRACE_MS, HEARTBEAT_S, HEARTBEAT_S_MAX, JOB_TIMEOUT_MS, JOB_TIMEOUT_MS_MAX, KEEP_ALIVE_MS,
    KEEP_ALIVE_MS_MAX, KEEP_ALIVE_MS_MIN, KV_MIB, KV_MIB_MAX, MODEL_ALIASES_MAX,
    MODEL_NAME_CHARS_MAX, PORT, QUEUE_JOBS, QUEUE_JOBS_MAX, READER_STALL_MS, READER_STALL_MS_MAX,
    READER_STALL_MS_MIN, SLOTS, SLOTS_MAX, STALL_MS, STALL_MS_MAX, TOKEN_FILE_BYTES_MAX,
    WORKER_ID_BYTES_MAX,
};
use crate::private::Private;

/// `rbees-workerd serve`: what was typed, set in the environment, or written in the file of
/// `--config`. An option that is open in all three has its default, which `validate` knows.
#[derive(Args, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ServeFlags {
    /// TOML file with any of these options by name; a flag wins over the environment, that over it
    #[arg(long, env = "RBEES_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    config: Option<PathBuf>,
    /// Model file (GGUF); required
    #[arg(long, env = "RBEES_MODEL", value_name = "FILE")]
    model: Option<PathBuf>,
    /// Name of this worker [default: made up]
    #[arg(long, env = "RBEES_WORKER_ID", value_name = "ID")]
    worker_id: Option<String>,
    /// Address to listen on; any but loopback needs a token or --insecure [default: 127.0.0.1]
    #[arg(long, env = "RBEES_HOST", value_name = "ADDRESS")]
    host: Option<IpAddr>,
    /// Port to listen on; 0: the system chooses, and `server-bound` tells [default: 8080]
    #[arg(long, env = "RBEES_PORT", value_name = "N")]
    port: Option<u16>,
    /// Folder with filters: filters.toml, or *.wasm after the built-in ones
    #[arg(long, env = "RBEES_FILTERS", value_name = "DIR")]
    filters: Option<PathBuf>,
    /// Record every fact as it is before any filter, for `filter replay`; the file is its owner's alone
    #[arg(long, env = "RBEES_RECORD", value_name = "FILE")]
    record: Option<PathBuf>,
    /// Look for changes of the filters by polling alone, where no file events come
    #[arg(long, env = "RBEES_FILTERS_POLL", value_parser = BoolishValueParser::new(),
        num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    filters_poll: Option<bool>,
    /// Folder of the worker's own for compiled filters [default: rbees-workerd in the user's cache]
    #[arg(long, env = "RBEES_FILTER_CACHE", value_name = "DIR")]
    filter_cache: Option<PathBuf>,
    /// How narrations look on stdout [default: human on a terminal, else json]
    #[arg(long, env = "RBEES_NARRATION", value_enum)]
    narration: Option<NarrationForm>,
    /// Where the ready call and the heartbeats go
    #[arg(long, env = "RBEES_CALLBACK_URL", value_name = "URL")]
    callback_url: Option<String>,
    /// How the pool manager reaches this worker: the ready call's `uri` [default: what is bound]
    #[arg(long, env = "RBEES_ADVERTISE", value_name = "URL")]
    advertise: Option<String>,
    /// Time between two heartbeats to the callback URL, s; 0: none [default: 30]
    #[arg(long, env = "RBEES_HEARTBEAT_S", value_name = "S")]
    heartbeat_s: Option<u64>,
    /// Drain and end when the process that started this one is gone
    #[arg(long, env = "RBEES_EXIT_WITH_PARENT", value_parser = BoolishValueParser::new(),
        num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    exit_with_parent: Option<bool>,
    /// What computes: auto, cpu, cuda:N or metal:N [default: auto]
    #[arg(long, env = "RBEES_DEVICE", value_name = "DEVICE")]
    device: Option<String>,
    /// Requests computed at one time, as far as the model can [default: 8]
    #[arg(long, env = "RBEES_SLOTS", value_name = "N")]
    slots: Option<usize>,
    /// Memory for the keys and values of all requests together, and of the prompts kept, MiB
    /// [default: 512]
    #[arg(long, env = "RBEES_KV_MIB", value_name = "MIB")]
    kv_mib: Option<u64>,
    /// Keep what was computed for prompts that begin alike [default: true]
    #[arg(long, env = "RBEES_PREFIX_CACHE", value_name = "BOOL",
        value_parser = BoolishValueParser::new())]
    prefix_cache: Option<bool>,
    /// Requests that may wait [default: 64]
    #[arg(long, env = "RBEES_QUEUE", value_name = "N")]
    queue: Option<usize>,
    /// Deadline of a request that names none, ms [default: 600000]
    #[arg(long, env = "RBEES_TIMEOUT_MS", value_name = "MS")]
    timeout_ms: Option<u64>,
    /// Time that a request may wait for its turn, ms [default: as long as its deadline lets it]
    #[arg(long, env = "RBEES_QUEUE_TIMEOUT_MS", value_name = "MS")]
    queue_timeout_ms: Option<u64>,
    /// Time that running requests have at shutdown, ms [default: 30000]
    #[arg(long, env = "RBEES_GRACE_MS", value_name = "MS")]
    grace_ms: Option<u64>,
    /// Time that one step of the engine may take before the worker says it is stalled, ms
    /// [default: 30000]
    #[arg(long, env = "RBEES_STALL_MS", value_name = "MS")]
    stall_ms: Option<u64>,
    /// Silence on a stream after which a sign of life is sent, ms; below what proxies bear
    /// [default: 10000]
    #[arg(long, env = "RBEES_KEEP_ALIVE_MS", value_name = "MS")]
    keep_alive_ms: Option<u64>,
    /// Time after which a client is let go that reads nothing of what waits for it, ms
    /// [default: 15000]
    #[arg(long, env = "RBEES_READER_STALL_MS", value_name = "MS")]
    reader_stall_ms: Option<u64>,
    /// OpenTelemetry collector that takes metrics by OTLP over HTTP, without the /v1/metrics
    /// [default: OTEL_EXPORTER_OTLP_METRICS_ENDPOINT or OTEL_EXPORTER_OTLP_ENDPOINT, else none]
    #[arg(long, env = "RBEES_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// File with the token that callers must show (or RBEES_API_TOKEN holds it)
    #[arg(long, env = "RBEES_API_TOKEN_FILE", value_name = "FILE")]
    api_token_file: Option<PathBuf>,
    /// Another name that this worker goes by (Host header); may be repeated
    #[arg(long, env = "RBEES_HOST_NAME", value_name = "NAME", value_delimiter = ',')]
    host_name: Option<Vec<String>>,
    /// An origin whose pages may call this worker, as in `https://hive.example`; may be repeated
    #[arg(long, env = "RBEES_CORS_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    cors_origin: Option<Vec<String>>,
    /// Another name that the model goes by in requests to /v1; `*`: any; may be repeated
    #[arg(long, env = "RBEES_MODEL_ALIAS", value_name = "NAME", value_delimiter = ',')]
    model_alias: Option<Vec<String>>,
    /// Listen on any address without a token
    #[arg(long, env = "RBEES_INSECURE", value_parser = BoolishValueParser::new(),
        num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    insecure: Option<bool>,
}

#[derive(Clone, Copy, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum NarrationForm {
    Json,
    Human,
    Cute,
    Story,
}

/// What a worker needs to know, checked.
pub struct Config {
    /// Model file.
    pub model: PathBuf,
    /// Name of the worker.
    pub worker_id: String,
    /// Address asked for.
    pub address: SocketAddr,
    /// Folder with filters.
    pub filters: Option<PathBuf>,
    /// Where told facts are recorded, if anywhere.
    pub record: Option<PathBuf>,
    /// Whether changes of the filters are polled for, without file events.
    pub filters_poll: bool,
    /// Where compiled filters are kept; nowhere where there is no place for it.
    pub filter_cache: Option<PathBuf>,
    /// How narrations look on stdout.
    pub form: Form,
    /// The pool manager, where there is one.
    pub pool: Option<Pool>,
    /// Whether to end when the process that started this one is gone.
    pub exit_with_parent: bool,
    /// Requests computed at one time, and memory for their keys and values.
    pub budget: Budget,
    /// What computes.
    pub device: Wanted,
    /// Whether what was computed is kept for prompts that begin alike.
    pub prefix_cache: bool,
    /// Requests that may wait.
    pub queue: usize,
    /// Deadline of a request that names none, ms.
    pub timeout_ms: u64,
    /// Time that a request may wait for its turn, ms.
    pub queue_timeout_ms: u64,
    /// Time that running requests have at shutdown, ms.
    pub grace_ms: u64,
    /// Time that one step of the engine may take before the worker counts as stalled, ms.
    pub stall_ms: u64,
    /// Silence on a stream after which a sign of life is sent, ms.
    pub keep_alive_ms: u64,
    /// Time after which a client is let go that reads nothing, ms.
    pub reader_stall_ms: u64,
    /// Where metrics are sent to, if anywhere: the collector's URL for metrics.
    pub otlp: Option<reqwest::Url>,
    /// Token that callers must show.
    pub token: Option<Private>,
    /// Origins whose pages may call.
    pub origins: Vec<String>,
    /// Names that the model goes by besides its own.
    pub aliases: Vec<String>,
    /// Names that the worker goes by besides its addresses.
    pub hosts: Vec<String>,
}

/// The pool manager: where it hears of the worker.
pub struct Pool {
    /// Where the ready call and the heartbeats go.
    pub url: reqwest::Url,
    /// How it reaches the worker, where that is not the bound address: a URL, or with the port bound
    /// a host.
    pub advertise: Option<Advertise>,
    /// Seconds between two heartbeats; 0: none.
    pub heartbeat_s: u64,
}

/// How others reach a worker whose bound address does not say it.
pub enum Advertise {
    /// By this URL.
    Url(reqwest::Url),
    /// By this name, at the port that was bound.
    Host(String),
}

impl ServeFlags {
    /// Checks everything and fills in what was left open; `terminal` says whether a person reads stdout.
    pub fn validate(self, terminal: bool) -> Result<Config> {
        let flags = match &self.config {
            Some(path) => file::read(path)?.under(self),
            None => self,
        };
        let model = flags.model.ok_or_else(|| {
            wrong("no model is named: give --model FILE, or RBEES_MODEL, or `model` in --config")
        })?;
        let worker_id =
            flags.worker_id.unwrap_or_else(|| format!("worker-{}", uuid::Uuid::now_v7()));
        let sound = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
        if worker_id.is_empty()
            || worker_id.len() > WORKER_ID_BYTES_MAX
            || !worker_id.bytes().all(sound)
        {
            return Err(wrong("--worker-id is 1 to 128 of A-Z a-z 0-9 . _ : -"));
        }
        let queue = flags.queue.unwrap_or(QUEUE_JOBS);
        if !(1..=QUEUE_JOBS_MAX).contains(&queue) {
            return Err(wrong(format!("--queue is 1 to {QUEUE_JOBS_MAX}, not {queue}")));
        }
        let budget = budget(flags.slots, flags.kv_mib)?;
        let device = match flags.device.as_deref().map(str::parse) {
            None => Wanted::Auto,
            Some(Ok(device)) => device,
            Some(Err(text)) => return Err(wrong(format!("--device {text}"))),
        };
        let timeout_ms =
            span("--timeout-ms", flags.timeout_ms, JOB_TIMEOUT_MS, 1..=JOB_TIMEOUT_MS_MAX)?;
        let queue_timeout_ms = span(
            "--queue-timeout-ms",
            flags.queue_timeout_ms,
            JOB_TIMEOUT_MS_MAX,
            1..=JOB_TIMEOUT_MS_MAX,
        )?;
        let stall_ms = span("--stall-ms", flags.stall_ms, STALL_MS, 1..=STALL_MS_MAX)?;
        let keep_alive_ms = span(
            "--keep-alive-ms",
            flags.keep_alive_ms,
            KEEP_ALIVE_MS,
            KEEP_ALIVE_MS_MIN..=KEEP_ALIVE_MS_MAX,
        )?;
        let reader_stall_ms = span(
            "--reader-stall-ms",
            flags.reader_stall_ms,
            READER_STALL_MS,
            READER_STALL_MS_MIN..=READER_STALL_MS_MAX,
        )?;
        if let Some(folder) = flags.filters.as_ref().filter(|folder| !folder.is_dir()) {
            return Err(wrong(format!("--filters {}: no such folder", folder.display())));
        }
        let host = flags.host.unwrap_or(Ipv4Addr::LOCALHOST.into());
        let token = token(flags.api_token_file)?;
        if !host.is_loopback() && token.is_none() && flags.insecure != Some(true) {
            return Err(wrong(format!(
                "--host {host} can be reached by others: give --api-token-file, or say --insecure"
            )));
        }
        let origins = origins(flags.cors_origin)?;
        let aliases = aliases(flags.model_alias)?;
        let mut hosts = flags.host_name.unwrap_or_default();
        let callback = (flags.callback_url, flags.advertise, flags.heartbeat_s);
        let pool = pool(callback, host, &mut hosts)?;
        Ok(Config {
            model,
            worker_id,
            address: SocketAddr::new(host, flags.port.unwrap_or(PORT)),
            filters: flags.filters,
            record: flags.record,
            filters_poll: flags.filters_poll == Some(true),
            filter_cache: flags.filter_cache.or_else(user_cache),
            form: match flags.narration {
                Some(NarrationForm::Json) => Form::Json,
                Some(NarrationForm::Human) => Form::Human,
                Some(NarrationForm::Cute) => Form::Cute,
                Some(NarrationForm::Story) => Form::Story,
                None if terminal => Form::Human,
                None => Form::Json,
            },
            pool,
            exit_with_parent: flags.exit_with_parent == Some(true),
            budget,
            device,
            prefix_cache: flags.prefix_cache != Some(false),
            queue,
            timeout_ms,
            queue_timeout_ms,
            grace_ms: flags.grace_ms.unwrap_or(GRACE_MS),
            stall_ms,
            keep_alive_ms,
            reader_stall_ms,
            otlp: otlp::endpoint(flags.otlp_endpoint)?,
            token,
            origins,
            aliases,
            hosts,
        })
    }
}

/// Where the user's caches lie, as the XDG base directories have it.
fn user_cache() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    Some(base.join("rbees-workerd").join("filters"))
}

fn wrong(message: impl Into<String>) -> Error {
    Error::new(Kind::Config, message)
}

/// A time in ms within its bounds, or else its default.
fn span(
    flag: &str,
    given: Option<u64>,
    default: u64,
    bounds: std::ops::RangeInclusive<u64>,
) -> Result<u64> {
    let value = given.unwrap_or(default);
    if bounds.contains(&value) {
        return Ok(value);
    }
    Err(wrong(format!("{flag} is {} to {}, not {value}", bounds.start(), bounds.end())))
}

/// What the engine may take, out of `--slots` and `--kv-mib`.
fn budget(slots: Option<usize>, kv_mib: Option<u64>) -> Result<Budget> {
    let (slots, kv_mib) = (slots.unwrap_or(SLOTS), kv_mib.unwrap_or(KV_MIB));
    if !(1..=SLOTS_MAX).contains(&slots) {
        return Err(wrong(format!("--slots is 1 to {SLOTS_MAX}, not {slots}")));
    }
    if !(1..=KV_MIB_MAX).contains(&kv_mib) {
        return Err(wrong(format!("--kv-mib is 1 to {KV_MIB_MAX}, not {kv_mib}")));
    }
    Ok(Budget { sequences: slots, kv_bytes: kv_mib * 1024 * 1024 })
}

/// The origins of `--cors-origin`, each as a browser writes it.
fn origins(origins: Option<Vec<String>>) -> Result<Vec<String>> {
    let origins = origins.unwrap_or_default();
    for origin in &origins {
        let written = web_url("--cors-origin", origin)?.origin().ascii_serialization();
        if *origin != written {
            return Err(wrong(format!(
                "--cors-origin is an origin as browsers write it: `{written}`, without a path"
            )));
        }
    }
    Ok(origins)
}

/// The names of `--model-alias`.
fn aliases(names: Option<Vec<String>>) -> Result<Vec<String>> {
    let names = names.unwrap_or_default();
    let sound = |name: &String| (1..=MODEL_NAME_CHARS_MAX).contains(&name.chars().count());
    if names.len() > MODEL_ALIASES_MAX || !names.iter().all(sound) {
        return Err(wrong(format!(
            "--model-alias gives at most {MODEL_ALIASES_MAX} names of 1 to {MODEL_NAME_CHARS_MAX} \
             characters"
        )));
    }
    Ok(names)
}

/// The pool manager out of `--callback-url`, `--advertise` and `--heartbeat-s`. The name that the
/// worker is advertised by becomes one of its `hosts`, so that calls to it are let in.
fn pool(
    (callback, advertise, heartbeat_s): (Option<String>, Option<String>, Option<u64>),
    host: IpAddr,
    hosts: &mut Vec<String>,
) -> Result<Option<Pool>> {
    let heartbeat_s = heartbeat_s.unwrap_or(HEARTBEAT_S);
    if heartbeat_s > HEARTBEAT_S_MAX {
        return Err(wrong(format!("--heartbeat-s is 0 (none) to {HEARTBEAT_S_MAX}")));
    }
    let advertise = match advertise.map(|url| web_url("--advertise", &url)).transpose()? {
        Some(url) => {
            hosts.extend(url.host_str().map(str::to_owned));
            Some(Advertise::Url(url))
        }
        None if host.is_unspecified() => hosts.first().cloned().map(Advertise::Host),
        None => None,
    };
    let Some(callback) = callback else { return Ok(None) };
    let url = web_url("--callback-url", &callback)?;
    if host.is_unspecified() && advertise.is_none() {
        return Err(wrong(format!(
            "--host {host} is no address that the pool manager could call: give --advertise URL, \
             or --host-name NAME"
        )));
    }
    Ok(Some(Pool { url, advertise, heartbeat_s }))
}

fn web_url(flag: &str, url: &str) -> Result<reqwest::Url> {
    reqwest::Url::parse(url)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| wrong(format!("{flag} is no http:// or https:// URL with a host")))
}

/// The token from its file, or else from the environment.
///
/// # Errors
/// Where the file can't be read or either holds none.
pub fn token(file: Option<PathBuf>) -> Result<Option<Private>> {
    let (text, from) = match file {
        Some(path) => (
            file::text("--api-token-file", &path, TOKEN_FILE_BYTES_MAX, "one line with the token")?,
            "--api-token-file",
        ),
        None => match std::env::var("RBEES_API_TOKEN") {
            Ok(text) => (text, "RBEES_API_TOKEN"),
            Err(_) => return Ok(None),
        },
    };
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(wrong(format!("{from} holds no token: one line of visible ASCII is expected")));
    }
    Ok(Some(Private::new(text.to_owned())))
}
