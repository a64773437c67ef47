//! The server: routes, the accept loop, what may be asked and what is answered. Turns requests into
//! jobs and logs into streams. Computes nothing, words nothing, and never waits for the engine.

mod accept;
mod admit;
mod body;
pub mod contract;
mod cors;
mod docs;
mod execute;
pub(crate) mod fields;
mod guard;
mod jobs;
pub(crate) mod openai;
mod playground;
mod problem;
pub(crate) mod request;
mod retry;
mod status;
mod stream;

pub(crate) use accept::serve_one;
pub use accept::{listen, serve};

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};

use crate::delivery::Pipeline;
use crate::engine::scheduler::Pulse;
use crate::engine::{Language, Profile};
use crate::filter::Chains;
use crate::job::{Queue, Registry};
use crate::limits::BODY_BYTES_MAX;
use crate::measure::Exporter;
use crate::narration::Narrator;
use crate::narration::facts::WorkerState;
use crate::private::Private;

/// What the handlers share.
pub struct App {
    /// Tells facts.
    pub narrator: Narrator,
    /// Leads them to streams.
    pub pipeline: Arc<Pipeline>,
    /// The filters in service.
    pub chains: Arc<Chains>,
    /// The jobs that are known.
    pub jobs: Arc<Registry>,
    /// The way to the engine.
    pub queue: Arc<Queue>,
    /// What the engine shows of itself.
    pub pulse: Arc<Pulse>,
    /// The model, once it is loaded.
    pub model: OnceLock<Model>,
    /// What it measures of itself.
    pub exporter: Exporter,
    /// Names that the model goes by besides its own; `*` is any.
    pub aliases: Vec<String>,
    /// How the worker is.
    pub life: Life,
    /// Time that a step of the engine may take before the worker counts as stalled.
    pub stall: Duration,
    /// Silence on a stream after which a sign of life is sent.
    pub keep_alive: Duration,
    /// Who may call.
    pub access: Access,
    /// Deadline of a job that names none, ms.
    pub job_timeout_ms: u64,
    /// Time that a job may wait for the engine, ms.
    pub wait_ms: u64,
    /// Asks the worker to shut down.
    pub shutdown: tokio::sync::mpsc::Sender<()>,
    /// Time that running jobs have at shutdown, ms.
    pub grace_ms: u64,
}

impl App {
    /// How the worker is now: as [`Life`] says, unless a step of the engine takes too long.
    pub fn state(&self) -> WorkerState {
        match self.life.state() {
            WorkerState::Ready if self.pulse.step_time() > self.stall => WorkerState::Stalled,
            state => state,
        }
    }
}

/// The model as the server knows it.
pub struct Model {
    /// Makes tokens of prompts.
    pub language: Arc<Language>,
    /// What may be told of it.
    pub profile: Profile,
    /// Device that computes, e.g. `cpu`.
    pub device: String,
    /// Requests that are computed at one time.
    pub slots: usize,
}

/// Who may call.
#[derive(Clone, Default)]
pub struct Access {
    /// The token that a caller has to show, where one is asked for.
    pub token: Option<Private>,
    /// Host names that requests may be addressed to, besides loopback and the bound address.
    pub hosts: Vec<String>,
    /// Origins whose pages may call, besides the worker's own.
    pub origins: Vec<String>,
}

/// How the worker is, seen from outside.
pub struct Life {
    state: AtomicU8,
    last_told: Mutex<WorkerState>,
    /// When the process began.
    pub began: Instant,
    /// The same, seconds since 1970.
    pub began_s: u64,
    /// Bytes of the model read, and in all.
    pub loading: (AtomicU64, AtomicU64),
    /// The address bound.
    pub address: SocketAddr,
    /// When a drain that has begun is over at the latest.
    pub drains_until: OnceLock<Instant>,
}

const STATES: [WorkerState; 5] = [
    WorkerState::Loading,
    WorkerState::Ready,
    WorkerState::Draining,
    WorkerState::Stalled,
    WorkerState::Failed,
];

impl Life {
    /// A worker that loads its model and listens on `address`.
    pub fn new(address: SocketAddr) -> Self {
        Life {
            state: AtomicU8::new(0),
            last_told: Mutex::new(WorkerState::Loading),
            began: Instant::now(),
            began_s: now_s(),
            loading: Default::default(),
            address,
            drains_until: OnceLock::new(),
        }
    }

    /// The state now.
    pub fn state(&self) -> WorkerState {
        STATES[usize::from(self.state.load(Ordering::Acquire)) % STATES.len()]
    }

    /// Goes over to another state; from draining there is no way back.
    pub fn become_state(&self, state: WorkerState) {
        let code = STATES.iter().position(|s| *s == state).map_or(0, |at| at as u8);
        if self.state() != WorkerState::Draining || state == WorkerState::Failed {
            self.state.store(code, Ordering::Release);
        }
    }
}

/// Seconds since 1970.
fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Every route, guarded.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/execute", post(execute::execute))
        .route("/cancel", post(jobs::cancel))
        .route("/jobs/{id}", get(jobs::state))
        .route("/jobs/{id}/events", get(jobs::events))
        .route("/v1/models", get(openai::models))
        .route("/v1/models/{model}", get(openai::model_named))
        .route("/v1/chat/completions", post(openai::chat))
        .route("/v1/completions", post(openai::completions))
        .route("/shutdown", post(status::shutdown))
        .route("/health", get(status::health))
        .route("/ready", get(status::ready))
        .route("/filters", get(status::filters))
        .merge(playground::routes())
        .route("/metrics", get(status::metrics))
        .route("/openapi.yaml", get(contract::openapi_yaml))
        .route("/docs", get(docs::index))
        .route("/docs/", get(docs::page))
        .route("/docs/{*path}", get(docs::file))
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&app), guard::guard))
        .with_state(app)
}
