//! The WebAssembly engine that filters run in: its settings, the one import they may have, and the
//! clock that ends a call which takes too long. Knows nothing of chains or of where filters lie.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wasmtime::component::{HasSelf, Linker};
use wasmtime::{
    Config, Engine, EngineWeak, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig,
    ResourceLimiter, Store, StoreLimits, StoreLimitsBuilder, UpdateDeadline,
};

use crate::error::{Error, Kind, Result};
use crate::limits::{
    EPOCH_TICK_MS, FILTER_INSTANCES_MAX, FILTER_LOG_CHARS_MAX, FILTER_LOG_LINES_MAX,
    FILTER_MEMORY_MIB_MAX, FILTER_RETURN_BYTES_MAX, FILTER_TABLE_MAX,
};
use crate::narration::{Severity, clean};

/// Bindings to the contract. Its types are the vocabulary's, so that one definition serves all.
pub mod bindings {
    #![allow(missing_docs)]
    wasmtime::component::bindgen!({
        world: "narration-filter",
        path: "wit/0.1.0",
        with: {
            "rbees:narration/facts": crate::narration::vocabulary::facts,
            "rbees:narration/types": crate::narration::vocabulary::types,
        },
    });
}

/// The engine, what filters may import, and the ticker behind every time limit.
pub struct Host {
    engine: Engine,
    linker: Linker<State>,
    ticker: Arc<Ticker>,
}

/// What one instance carries with it on the host's side.
pub struct State {
    filter: Arc<str>,
    limits: Limits,
    lines_logged: u32,
    /// CPU time that the running call may still take, once it was seen to take long.
    budget: Duration,
    began: Option<Duration>,
}

impl Host {
    /// Sets the engine up and starts its ticker.
    pub fn new() -> Result<Self> {
        let engine = Engine::new(&config(true))
            // Where address space is limited, instances come from the system one by one.
            .or_else(|_| Engine::new(&config(false)))
            .map_err(|e| {
                Error::new(Kind::Internal, "the WebAssembly engine can't start").because(e)
            })?;
        let mut linker = Linker::new(&engine);
        bindings::rbees::narration::log::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)
            .map_err(|e| {
                Error::new(Kind::Internal, "the filters' import can't be set up").because(e)
            })?;
        let ticker = Arc::new(Ticker::default());
        spawn_ticker(Arc::clone(&ticker), engine.weak())?;
        Ok(Host { engine, linker, ticker })
    }

    /// The engine.
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What filters may import.
    pub const fn linker(&self) -> &Linker<State> {
        &self.linker
    }

    /// Keeps the ticker going. Without one of these, no call into a filter ever times out.
    pub fn awake(&self) -> Awake {
        self.ticker.enter();
        Awake(Arc::clone(&self.ticker))
    }

    /// A fresh store for one instance of `filter` with at most `memory_mib` of memory.
    pub fn store(&self, filter: &Arc<str>, memory_mib: u64) -> Store<State> {
        let bytes = usize::try_from(memory_mib << 20).unwrap_or(usize::MAX);
        let limits = StoreLimitsBuilder::new()
            .memory_size(bytes)
            .table_elements(FILTER_TABLE_MAX)
            .trap_on_grow_failure(true)
            .build();
        let state = State {
            filter: Arc::clone(filter),
            limits: Limits { bounds: limits, memory_bytes: 0 },
            lines_logged: 0,
            budget: Duration::ZERO,
            began: None,
        };
        let mut store = Store::new(&self.engine, state);
        store.limiter(|state| &mut state.limits);
        store.set_hostcall_fuel(FILTER_RETURN_BYTES_MAX);
        store.epoch_deadline_callback(|mut context| Ok(context.data_mut().overtime()));
        store
    }
}

/// Gives the call that comes next `limit` of time. Must precede every call.
pub fn allow(store: &mut Store<State>, limit: Duration) {
    let state = store.data_mut();
    state.budget = limit;
    state.began = None;
    store.set_epoch_deadline(1);
}

/// The bounds of an instance, and how much memory it has come to hold.
struct Limits {
    bounds: StoreLimits,
    memory_bytes: usize,
}

impl ResourceLimiter for Limits {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let grows = self.bounds.memory_growing(current, desired, maximum)?;
        if grows {
            self.memory_bytes += desired.saturating_sub(current);
        }
        Ok(grows)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.bounds.table_growing(current, desired, maximum)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.bounds.memory_grow_failed(error)
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.bounds.table_grow_failed(error)
    }

    fn instances(&self) -> usize {
        self.bounds.instances()
    }

    fn tables(&self) -> usize {
        self.bounds.tables()
    }

    fn memories(&self) -> usize {
        self.bounds.memories()
    }
}

impl State {
    /// Linear memory that the instance holds.
    pub const fn memory_bytes(&self) -> usize {
        self.limits.memory_bytes
    }

    /// Whether a call that still runs after a tick may go on. What counts is the CPU time of its
    /// thread: a call that only waits for a core on a busy machine is not the filter's fault.
    fn overtime(&mut self) -> UpdateDeadline {
        let now = thread_cpu_time();
        let began = *self.began.get_or_insert(now);
        // The first look comes up to a tick after the call began.
        let tick = Duration::from_millis(EPOCH_TICK_MS);
        if now.saturating_sub(began) + tick >= self.budget {
            UpdateDeadline::Interrupt
        } else {
            UpdateDeadline::Continue(1)
        }
    }
}

fn thread_cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

impl bindings::rbees::narration::log::Host for State {
    fn write(&mut self, level: Severity, message: String) {
        self.lines_logged = self.lines_logged.saturating_add(1);
        if self.lines_logged > FILTER_LOG_LINES_MAX {
            return;
        }
        let filter = &*self.filter;
        let message = clean::line(&message, FILTER_LOG_CHARS_MAX);
        match level {
            Severity::Debug => tracing::debug!(target: "filter", filter, "{message}"),
            Severity::Info => tracing::info!(target: "filter", filter, "{message}"),
            Severity::Warn => tracing::warn!(target: "filter", filter, "{message}"),
            Severity::Error => tracing::error!(target: "filter", filter, "{message}"),
        }
        if self.lines_logged == FILTER_LOG_LINES_MAX {
            tracing::warn!(target: "filter", filter, "no further lines of this instance are shown");
        }
    }
}

fn config(pooling: bool) -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .concurrency_support(false)
        .cranelift_opt_level(OptLevel::Speed)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_relaxed_simd(false)
        .max_wasm_stack(512 * 1024);
    if pooling {
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(FILTER_INSTANCES_MAX)
            .total_core_instances(FILTER_INSTANCES_MAX * 3)
            .total_memories(FILTER_INSTANCES_MAX)
            .total_tables(FILTER_INSTANCES_MAX * 2)
            .max_memory_size(usize::try_from(FILTER_MEMORY_MIB_MAX << 20).unwrap_or(usize::MAX))
            .linear_memory_keep_resident(64 * 1024)
            .table_keep_resident(16 * 1024);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    config
}

/// Counts the threads that call filters; ticks only while there are any.
#[derive(Default)]
struct Ticker {
    awake: Mutex<usize>,
    woken: Condvar,
}

impl Ticker {
    fn enter(&self) {
        let mut awake = self.awake.lock().unwrap_or_else(PoisonError::into_inner);
        *awake += 1;
        if *awake == 1 {
            self.woken.notify_one();
        }
    }

    fn leave(&self) {
        *self.awake.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
    }

    fn wait_until_awake(&self) {
        let awake = self.awake.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.woken.wait_while(awake, |awake| *awake == 0));
    }
}

/// As long as it lives, calls into filters are timed.
pub struct Awake(Arc<Ticker>);

impl Drop for Awake {
    fn drop(&mut self) {
        self.0.leave();
    }
}

fn spawn_ticker(ticker: Arc<Ticker>, engine: EngineWeak) -> Result<()> {
    thread::Builder::new()
        .name("filter-ticker".into())
        .spawn(move || {
            loop {
                ticker.wait_until_awake();
                thread::sleep(Duration::from_millis(EPOCH_TICK_MS));
                let Some(engine) = engine.upgrade() else { return };
                engine.increment_epoch();
            }
        })
        .map(drop)
        .map_err(|e| Error::new(Kind::Internal, "the filters' ticker can't start").because(e))
}
