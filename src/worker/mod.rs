//! The worker: builds the parts, wires them, waits, and drains them in order. What it does itself is
//! decide when; the parts know how.

mod callback;
mod signs;

use std::io::IsTerminal as _;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

use self::signs::{Hangups, Signs};
use crate::config::Config;
use crate::delivery::event::{Code, Failure};
use crate::delivery::{Event, Pipeline, Recorder, Stdout};
use crate::engine::scheduler::{self, Serving};
use crate::engine::{self, Loaded, device};
use crate::error::{Error, Kind, Result};
use crate::filter::compile::Compiler;
use crate::filter::{Chains, Host, watch};
use crate::http::{self, Access, App, Life, Model};
use crate::job::{Queue, Registry};
use crate::limits::{
    LAST_STEP_MS, METRICS_TIDY_MS, OTLP_FLUSH_MS, PREFILL_CHUNK_TOKENS_MAX, STDOUT_FLUSH_MS,
};
use crate::measure::otlp::{self, Collector, Push};
use crate::measure::{self, Exporter};
use crate::narration::facts::{
    BindFailed, CancelledBy, ModelLoadFailed, ServerBound, ServerShutdown, ServerStarted,
    ShutdownCause, Startup, WorkerState,
};
use crate::narration::{Fact, Narrator, fact};

/// Runs a worker from its first narration to its last.
pub fn run(config: Config) -> Result<()> {
    let runtime = Runtime::new()
        .map_err(|e| Error::new(Kind::Internal, "the async runtime can't start").because(e))?;
    // Before anything that takes time, so that no moment is left in which a signal just kills.
    let signs = runtime.block_on(async { Signs::new(config.exit_with_parent) })?;
    let exporter = measure::install()?;
    let push = collector(&config)?;
    let hangups = runtime.block_on(async { Hangups::new() })?;
    let pipeline = Pipeline::new();
    if let Some(path) = &config.record {
        pipeline.record_to(Recorder::start(path)?);
    }
    let narrator = Narrator::new(config.worker_id.clone(), pipeline.clone());
    narrator.tell(Fact::Startup(Startup {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        address: config.address.to_string(),
        model: config
            .model
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
    }));
    let stdout = std::io::stdout();
    let colour = stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let stdout = Stdout::spawn(config.form, colour, stdout)?;
    let host = Host::new()?.compiling(Compiler::own(), config.filter_cache.as_deref());
    let chains = Arc::new(Chains::new(Arc::new(host), config.filters.clone()));
    let filters = chains.reload(&narrator);
    if let Err(error) = filters {
        if chains.fall_back(&narrator) {
            pipeline.start(&chains, &narrator, &stdout)?;
            flush(&pipeline, &stdout);
        }
        return Err(error);
    }
    pipeline.start(&chains, &narrator, &stdout)?;
    watch::spawn(Arc::clone(&chains), narrator.clone(), config.filters_poll)?;
    let (reloaded, by) = (Arc::clone(&chains), narrator.clone());
    hangups.each(&runtime, move || {
        if let Err(error) = reloaded.reload(&by) {
            tracing::warn!(%error, "filters not reloaded; the last good chain serves");
        }
    });
    runtime.spawn(tidy(exporter.clone()));
    let result = runtime.block_on(serve(config, signs, exporter, &pipeline, &narrator, &chains));
    runtime.shutdown_background();
    let sent = push.map(Push::finish); // while the last words go out
    flush(&pipeline, &stdout);
    if let Some(sent) = sent {
        let _ = sent.recv_timeout(Duration::from_millis(OTLP_FLUSH_MS));
    }
    result
}

/// Sends metrics to a collector, where one is named.
fn collector(config: &Config) -> Result<Option<Push>> {
    let start = |url: &reqwest::Url| {
        let shown = url.origin().ascii_serialization();
        otlp::start(&Collector { url: url.as_str(), shown, worker_id: &config.worker_id })
    };
    config.otlp.as_ref().map(start).transpose()
}

/// Keeps what is measured from piling up.
async fn tidy(exporter: Exporter) {
    let mut times = tokio::time::interval(Duration::from_millis(METRICS_TIDY_MS));
    loop {
        times.tick().await;
        exporter.tidy();
    }
}

/// Gets the last words out.
fn flush(pipeline: &Pipeline, stdout: &Stdout) {
    let limit = Duration::from_millis(STDOUT_FLUSH_MS);
    pipeline.flush(limit);
    stdout.flush(limit);
}

/// Binds, loads, announces, and serves until somebody says stop.
async fn serve(
    config: Config,
    mut signs: Signs,
    exporter: Exporter,
    pipeline: &Arc<Pipeline>,
    narrator: &Narrator,
    chains: &Arc<Chains>,
) -> Result<()> {
    let listener = bind(&config, narrator)?;
    let address = listener
        .local_addr()
        .map_err(|e| Error::new(Kind::Bind, "the bound address can't be read").because(e))?;
    let (ask_shutdown, mut asked) = mpsc::channel(1);
    let app = Arc::new(App {
        narrator: narrator.clone(),
        pipeline: Arc::clone(pipeline),
        chains: Arc::clone(chains),
        jobs: Arc::new(Registry::default()),
        queue: Arc::new(Queue::new(config.queue)),
        pulse: Arc::default(),
        model: OnceLock::new(),
        exporter,
        aliases: config.aliases.clone(),
        life: Life::new(address),
        stall: Duration::from_millis(config.stall_ms),
        keep_alive: Duration::from_millis(config.keep_alive_ms),
        access: Access {
            token: config.token.clone(),
            hosts: config.hosts.clone(),
            origins: config.origins.clone(),
        },
        job_timeout_ms: config.timeout_ms,
        wait_ms: config.queue_timeout_ms,
        shutdown: ask_shutdown,
        grace_ms: config.grace_ms,
    });
    let reader_stall = Duration::from_millis(config.reader_stall_ms);
    let router = http::router(Arc::clone(&app));
    let mut server = tokio::spawn(http::serve(listener, router, reader_stall));
    let work = start_work(&config, &app);
    let cause = tokio::select! {
        result = work => match result {
            Err(error) => return give_up(&app, error).await,
            Ok(never) => match never {},
        },
        _ = &mut server => {
            let error = Error::new(Kind::Internal, "the server ended by itself, which is a bug");
            return give_up(&app, error).await;
        }
        cause = signs.any() => cause,
        _ = asked.recv() => ShutdownCause::Request,
    };
    drain(&app, cause, &mut signs).await;
    server.abort();
    Ok(())
}

/// The end of a worker that can't go on: every stream gets its last event.
async fn give_up(app: &Arc<App>, error: Error) -> Result<()> {
    app.life.become_state(WorkerState::Failed);
    tell_shutdown(app, ShutdownCause::Failure);
    app.queue.close();
    if !app.jobs.active().is_empty() {
        end_without_engine(app);
        settle(app).await;
    }
    Err(error)
}

fn bind(config: &Config, narrator: &Narrator) -> Result<TcpListener> {
    let address = config.address.to_string();
    narrator.tell(Fact::ServerStarted(ServerStarted { address: address.clone() }));
    match http::listen(config.address) {
        Ok(listener) => {
            let real = listener.local_addr().map_or(address, |real| real.to_string());
            narrator.tell(Fact::ServerBound(ServerBound { address: real }));
            Ok(listener)
        }
        Err(error) => {
            let reason = format!("{error}; choose another --port, or 0 to let the system choose");
            narrator.tell(Fact::BindFailed(BindFailed {
                address: address.clone(),
                reason: reason.clone(),
            }));
            Err(Error::new(Kind::Bind, format!("{address} can't be bound: {reason}")))
        }
    }
}

/// Loads the model, starts the engine, and calls the pool manager. Returns only with an error.
async fn start_work(config: &Config, app: &Arc<App>) -> Result<std::convert::Infallible> {
    let (path, budget, wanted) = (config.model.clone(), config.budget, config.device);
    let loading = Arc::clone(app);
    let loaded = tokio::task::spawn_blocking(move || {
        let (device, ready) = device::open(wanted)?;
        loading.narrator.tell(ready.fact());
        let progress = |done, total| {
            loading.life.loading.0.store(done, Ordering::Relaxed);
            loading.life.loading.1.store(total, Ordering::Relaxed);
        };
        engine::load(&path, &device, budget, &loading.narrator, &progress)
            .map(|loaded| (loaded, ready.name()))
    })
    .await
    .unwrap_or_else(|_| Err(Error::new(Kind::Model, "loading the model panicked; is it damaged?")));
    let (Loaded { decoder, language, profile }, device) = loaded.inspect_err(|error| {
        app.narrator.tell(Fact::ModelLoadFailed(ModelLoadFailed {
            path: config.model.display().to_string(),
            reason: error.to_string(),
        }));
    })?;
    let jobs = Arc::clone(&app.jobs);
    let slots = config.budget.sequences.min(decoder.sequences()).max(1);
    let serving = Serving {
        slots,
        prefix_cache: config.prefix_cache,
        prefill_tokens_max: PREFILL_CHUNK_TOKENS_MAX,
    };
    otlp::serves(&profile.name, app.life.address);
    let (engine_died, death) = oneshot::channel();
    scheduler::spawn(
        decoder,
        Arc::clone(&language),
        serving,
        Arc::clone(&app.queue),
        Arc::clone(&app.pulse),
        move |job| {
            if let Some(id) = job.feed.scope().job_id.as_deref() {
                jobs.finished(id);
            }
        },
        move || {
            let _ = engine_died.send(()); // nobody waits any more if it ended first
        },
    )?;
    let _ = app.model.set(Model { language, profile, device, slots }); // set once, here
    app.life.become_state(WorkerState::Ready);
    let in_touch = async {
        match &config.pool {
            Some(pool) => callback::keep_in_touch(pool, app).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        result = in_touch => result,
        // An engine that ends in order, at the end of a drain, is no news.
        Ok(()) = death => Err(Error::new(Kind::Internal, "the engine panicked, which is a bug")),
    }
}

/// No new work; what runs may finish within the grace; then it is ended. A second signal ends at once.
async fn drain(app: &Arc<App>, cause: ShutdownCause, signs: &mut Signs) {
    let grace = Duration::from_millis(app.grace_ms);
    let _ = app.life.drains_until.set(Instant::now() + grace); // a drain begins once
    app.life.become_state(WorkerState::Draining);
    tell_shutdown(app, cause);
    let queue = Arc::clone(&app.queue);
    queue.close();
    let finished = tokio::task::spawn_blocking(move || queue.drained_within(grace));
    tokio::select! {
        drained = finished => if matches!(drained, Ok(true)) {
            return settle(app).await;
        },
        () = signs.signal() => {}
    }
    for job in app.jobs.active() {
        job.cancel.cancel(CancelledBy::Shutdown);
    }
    let queue = Arc::clone(&app.queue);
    let moment = Duration::from_millis(LAST_STEP_MS);
    let last = tokio::task::spawn_blocking(move || queue.drained_within(moment));
    if !matches!(last.await, Ok(true)) {
        end_without_engine(app);
    }
    settle(app).await;
}

/// Gives the jobs that the engine does not end their last event all the same: it hangs, or its step
/// takes too long.
fn end_without_engine(app: &App) {
    let message = "the worker shuts down";
    let failure = Failure { code: Code::ShuttingDown, message: message.into(), retriable: true };
    let mut jobs = 0;
    for job in app.jobs.active() {
        jobs += usize::from(job.log.append(Event::Error(failure.clone())));
    }
    tracing::error!(jobs, "the engine did not end its work in time; the worker ends without it");
}

/// Lets the last frames reach the logs and their readers.
async fn settle(app: &Arc<App>) {
    let pipeline = Arc::clone(&app.pipeline);
    let moment = Duration::from_millis(STDOUT_FLUSH_MS);
    let _ = tokio::task::spawn_blocking(move || pipeline.flush(moment)).await;
    // Readers that read get their last frame; those that don't can't hold the worker for long.
    let until = tokio::time::Instant::now() + moment;
    while app.jobs.any_reader() && tokio::time::Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // What they were handed last still has to pass their connections.
    tokio::time::sleep(Duration::from_millis(20)).await;
}

fn tell_shutdown(app: &App, cause: ShutdownCause) {
    let (running, waiting) = app.queue.lengths();
    app.narrator.tell(Fact::ServerShutdown(ServerShutdown {
        cause,
        jobs_in_flight: fact::count(running + waiting),
        grace_ms: app.grace_ms,
    }));
}
