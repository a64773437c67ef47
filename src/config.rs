//! The worker's configuration: flags and environment as they were given, checked and filled in once.
//! Opens and binds nothing.

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::delivery::Form;
use crate::error::{Error, Kind, Result};
use crate::limits::{
    GRACE_MS, JOB_TIMEOUT_MS, JOB_TIMEOUT_MS_MAX, QUEUE_JOBS, QUEUE_JOBS_MAX, STALL_MS,
    STALL_MS_MAX, TOKEN_FILE_BYTES_MAX, WORKER_ID_BYTES_MAX,
};
use crate::private::Private;

/// `rbees-workerd serve`: what was typed, or set in the environment.
#[derive(Args)]
pub struct ServeFlags {
    /// Model file (GGUF)
    #[arg(long, env = "RBEES_MODEL", value_name = "FILE")]
    model: PathBuf,
    /// Name of this worker [default: made up]
    #[arg(long, env = "RBEES_WORKER_ID", value_name = "ID")]
    worker_id: Option<String>,
    /// Address to listen on; any but loopback needs a token or --insecure
    #[arg(long, env = "RBEES_HOST", value_name = "ADDRESS", default_value = "127.0.0.1")]
    host: std::net::IpAddr,
    /// Port to listen on; 0: the system chooses, and `server-bound` tells
    #[arg(long, env = "RBEES_PORT", value_name = "N", default_value_t = 8080)]
    port: u16,
    /// Folder with filters: filters.toml, or *.wasm after the built-in ones
    #[arg(long, env = "RBEES_FILTERS", value_name = "DIR")]
    filters: Option<PathBuf>,
    /// How narrations look on stdout [default: human on a terminal, else json]
    #[arg(long, env = "RBEES_NARRATION", value_enum)]
    narration: Option<NarrationForm>,
    /// Where the ready call goes
    #[arg(long, env = "RBEES_CALLBACK_URL", value_name = "URL")]
    callback_url: Option<String>,
    /// Requests that may wait
    #[arg(long, env = "RBEES_QUEUE", value_name = "N", default_value_t = QUEUE_JOBS)]
    queue: usize,
    /// Deadline of a request that names none, ms
    #[arg(long, env = "RBEES_TIMEOUT_MS", value_name = "MS", default_value_t = JOB_TIMEOUT_MS)]
    timeout_ms: u64,
    /// Time that running requests have at shutdown, ms
    #[arg(long, env = "RBEES_GRACE_MS", value_name = "MS", default_value_t = GRACE_MS)]
    grace_ms: u64,
    /// Time that one step of the engine may take before the worker says it is stalled, ms
    #[arg(long, env = "RBEES_STALL_MS", value_name = "MS", default_value_t = STALL_MS)]
    stall_ms: u64,
    /// File with the token that callers must show (or RBEES_API_TOKEN holds it)
    #[arg(long, env = "RBEES_API_TOKEN_FILE", value_name = "FILE")]
    api_token_file: Option<PathBuf>,
    /// Another name that this worker goes by (Host header); may be repeated
    #[arg(long, env = "RBEES_HOST_NAME", value_name = "NAME", value_delimiter = ',')]
    host_name: Vec<String>,
    /// Listen on any address without a token
    #[arg(long, env = "RBEES_INSECURE")]
    insecure: bool,
}

#[derive(Clone, Copy, ValueEnum)]
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
    /// How narrations look on stdout.
    pub form: Form,
    /// Where the ready call goes.
    pub callback_url: Option<reqwest::Url>,
    /// Requests that may wait.
    pub queue: usize,
    /// Deadline of a request that names none, ms.
    pub timeout_ms: u64,
    /// Time that running requests have at shutdown, ms.
    pub grace_ms: u64,
    /// Time that one step of the engine may take before the worker counts as stalled, ms.
    pub stall_ms: u64,
    /// Token that callers must show.
    pub token: Option<Private>,
    /// Names that the worker goes by besides its addresses.
    pub hosts: Vec<String>,
}

impl ServeFlags {
    /// Checks everything and fills in what was left open; `terminal` says whether a person reads stdout.
    pub fn validate(self, terminal: bool) -> Result<Config> {
        let worker_id =
            self.worker_id.unwrap_or_else(|| format!("worker-{}", uuid::Uuid::now_v7()));
        let sound = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
        if worker_id.is_empty()
            || worker_id.len() > WORKER_ID_BYTES_MAX
            || !worker_id.bytes().all(sound)
        {
            return Err(wrong("--worker-id is 1 to 128 of A-Z a-z 0-9 . _ : -"));
        }
        if !(1..=QUEUE_JOBS_MAX).contains(&self.queue) {
            return Err(wrong(format!("--queue is 1 to {QUEUE_JOBS_MAX}, not {}", self.queue)));
        }
        if !(1..=JOB_TIMEOUT_MS_MAX).contains(&self.timeout_ms) {
            return Err(wrong(format!("--timeout-ms is 1 to {JOB_TIMEOUT_MS_MAX}")));
        }
        if !(1..=STALL_MS_MAX).contains(&self.stall_ms) {
            return Err(wrong(format!("--stall-ms is 1 to {STALL_MS_MAX}")));
        }
        if let Some(folder) = self.filters.as_ref().filter(|folder| !folder.is_dir()) {
            return Err(wrong(format!("--filters {}: no such folder", folder.display())));
        }
        let token = token(self.api_token_file)?;
        if !self.host.is_loopback() && token.is_none() && !self.insecure {
            return Err(wrong(format!(
                "--host {} can be reached by others: give --api-token-file, or say --insecure",
                self.host
            )));
        }
        let callback_url = self.callback_url.map(|url| callback(&url)).transpose()?;
        Ok(Config {
            model: self.model,
            worker_id,
            address: SocketAddr::new(self.host, self.port),
            filters: self.filters,
            form: match self.narration {
                Some(NarrationForm::Json) => Form::Json,
                Some(NarrationForm::Human) => Form::Human,
                Some(NarrationForm::Cute) => Form::Cute,
                Some(NarrationForm::Story) => Form::Story,
                None if terminal => Form::Human,
                None => Form::Json,
            },
            callback_url,
            queue: self.queue,
            timeout_ms: self.timeout_ms,
            grace_ms: self.grace_ms,
            stall_ms: self.stall_ms,
            token,
            hosts: self.host_name,
        })
    }
}

fn wrong(message: impl Into<String>) -> Error {
    Error::new(Kind::Config, message)
}

fn callback(url: &str) -> Result<reqwest::Url> {
    reqwest::Url::parse(url)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| wrong("--callback-url is no http:// or https:// URL with a host"))
}

/// The token from its file, or else from the environment.
fn token(file: Option<PathBuf>) -> Result<Option<Private>> {
    let (text, from) = match file {
        Some(path) => {
            let mut text = String::new();
            std::fs::File::open(&path)
                .and_then(|file| file.take(TOKEN_FILE_BYTES_MAX + 1).read_to_string(&mut text))
                .map_err(|e| {
                    wrong(format!("--api-token-file {} can't be read: {e}", path.display()))
                })?;
            if text.len() as u64 > TOKEN_FILE_BYTES_MAX {
                return Err(wrong(format!(
                    "--api-token-file {} has more than {TOKEN_FILE_BYTES_MAX} bytes: one line with the token is expected",
                    path.display()
                )));
            }
            (text, "--api-token-file")
        }
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
