//! The WebAssembly engine that filters run in: its settings, what they may import, what an instance may
//! hold, and the clock that ends a call which takes too long. Knows nothing of chains or of where
//! filters lie.

use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{
    Config, Engine, EngineWeak, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig,
    ResourceLimiter, Store, UpdateDeadline,
};

use super::artifact::{Cache, Code};
use super::compile::Compiler;
use super::component::{Failure, first_line};
use super::log::Log;
use super::wasi;
use crate::error::{Error, Kind, Result};
use crate::limits::{
    EPOCH_TICK_MS, FILTER_CORE_INSTANCES_MAX, FILTER_INSTANCES_MAX, FILTER_INSTANCES_SPARE,
    FILTER_MEMORIES_MAX, FILTER_MEMORY_MIB_MAX, FILTER_RETURN_BYTES_MAX, FILTER_STATE_BYTES_MAX,
    FILTER_TABLE_MAX, FILTER_TABLES_MAX,
};
use crate::narration::Severity;

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
    compiler: Compiler,
    cache: Option<Cache>,
    /// Instances that live.
    living: Arc<AtomicU32>,
    /// Narrations and texts that there was no room for.
    turned_away: AtomicU64,
}

/// What one instance carries with it on the host's side.
pub struct State {
    /// What the filter says.
    pub(super) log: Log,
    /// Handles of WASI's stand-ins that it holds.
    pub(super) handles: u32,
    holds: Holds,
    /// CPU time that the running call may still take, once it was seen to take long.
    budget: Duration,
    began: Option<Duration>,
    _living: Living,
}

/// One of the instances that live, and as how many it counts.
struct Living(Arc<AtomicU32>, u32);

impl Living {
    fn count(living: &Arc<AtomicU32>, weight: u32) -> Self {
        living.fetch_add(weight, Ordering::Relaxed);
        Living(Arc::clone(living), weight)
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
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
        Ok(Host {
            engine,
            linker,
            ticker,
            compiler: Compiler::Here,
            cache: None,
            living: Arc::default(),
            turned_away: AtomicU64::new(0),
        })
    }

    /// The same with another compiler, and with compiled code kept in `cache`.
    #[must_use]
    pub fn compiling(mut self, compiler: Compiler, cache: Option<&Path>) -> Self {
        self.compiler = compiler;
        self.cache = cache.and_then(|folder| Cache::open(folder, &self.engine));
        self
    }

    /// The component in `bytes`, whose digest is given: as it was kept, or compiled now.
    pub fn compile(&self, digest: &str, bytes: &[u8]) -> Result<Component, Failure> {
        let kept = self.cache.as_ref().and_then(|cache| cache.get(digest));
        if let Some(component) = kept.and_then(|code| code.take(&self.engine).ok()) {
            return Ok(component);
        }
        let code = Code::from_compiler(self.compiler.compile(&self.engine, bytes)?);
        let component = code.take(&self.engine).map_err(|e| {
            Failure(format!("was compiled to what can't be used: {}", first_line(&e)))
        })?;
        if let Some(cache) = &self.cache {
            cache.put(digest, &code);
        }
        Ok(component)
    }

    /// Whether the compiled code of the file with this digest is kept.
    pub fn has_compiled(&self, digest: &str) -> bool {
        self.cache.as_ref().is_some_and(|cache| cache.has(digest))
    }

    /// The engine.
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What `component` may import: the log, and stand-ins for what it asks of WASI.
    pub fn linker(&self, component: &Component) -> wasmtime::Result<Linker<State>> {
        let mut linker = self.linker.clone();
        wasi::stand_in(&mut linker, component)?;
        Ok(linker)
    }

    /// Whether another instance, which counts as `weight`, may serve a job. Where not, that is no
    /// filter's fault. Trials of filters need not ask: some room is kept for them.
    pub fn has_room(&self, weight: u32) -> bool {
        self.living.load(Ordering::Relaxed).saturating_add(weight) <= FILTER_INSTANCES_MAX
    }

    /// Counts a narration, or a text, that there was no room for.
    pub(super) fn turn_away(&self) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were since the last call of this.
    pub fn take_turned_away(&self) -> u64 {
        self.turned_away.swap(0, Ordering::Relaxed)
    }

    /// Keeps the ticker going. Without one of these, no call into a filter ever times out.
    pub fn awake(&self) -> Awake {
        self.ticker.enter();
        Awake(Arc::clone(&self.ticker))
    }

    /// A fresh store for one instance of `filter` with at most `memory_mib` of memory, which counts as
    /// `weight` instances.
    pub fn store(&self, filter: &Arc<str>, memory_mib: u64, weight: u32) -> Store<State> {
        let memory_bytes_max = usize::try_from(memory_mib << 20).unwrap_or(usize::MAX);
        let state = State {
            log: Log::new(Arc::clone(filter)),
            handles: 0,
            holds: Holds { memory_bytes_max, memory_bytes: 0, table_elements: 0 },
            budget: Duration::ZERO,
            began: None,
            _living: Living::count(&self.living, weight),
        };
        let mut store = Store::new(&self.engine, state);
        store.limiter(|state| &mut state.holds);
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

impl State {
    /// Linear memory that the instance holds, bytes.
    pub const fn memory_bytes(&self) -> usize {
        self.holds.memory_bytes
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
        self.log.line(level, &message);
    }
}

/// What one instance holds, all its memories and tables together; more than it may is a trap.
struct Holds {
    memory_bytes_max: usize,
    memory_bytes: usize,
    table_elements: usize,
}

impl ResourceLimiter for Holds {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let bytes = self.memory_bytes.saturating_add(desired.saturating_sub(current));
        if bytes > self.memory_bytes_max {
            wasmtime::bail!("it wanted more than {} MiB of memory", self.memory_bytes_max >> 20);
        }
        self.memory_bytes = bytes;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(error)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let elements = self.table_elements.saturating_add(desired.saturating_sub(current));
        if elements > FILTER_TABLE_MAX {
            wasmtime::bail!("it wanted more than {FILTER_TABLE_MAX} elements of tables");
        }
        self.table_elements = elements;
        Ok(true)
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(error)
    }

    fn instances(&self) -> usize {
        FILTER_CORE_INSTANCES_MAX as usize
    }

    fn memories(&self) -> usize {
        FILTER_MEMORIES_MAX as usize
    }

    fn tables(&self) -> usize {
        FILTER_TABLES_MAX as usize
    }
}

/// An engine that compiles like a host's and runs nothing.
pub(super) fn compiling_engine() -> Result<Engine> {
    Engine::new(&config(false))
        .map_err(|e| Error::new(Kind::Internal, "the compiler can't start").because(e))
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
        // The number of instances is bounded by `has_room`; no bound of these is met before.
        let instances = FILTER_INSTANCES_MAX + FILTER_INSTANCES_SPARE;
        pool.total_component_instances(instances)
            // A guest in another language is linked of dozens of modules; counting them costs nothing.
            .total_core_instances(instances * FILTER_CORE_INSTANCES_MAX)
            .max_core_instances_per_component(FILTER_CORE_INSTANCES_MAX)
            .max_core_instance_size(FILTER_STATE_BYTES_MAX)
            .max_component_instance_size(FILTER_STATE_BYTES_MAX)
            .total_memories(instances)
            .max_memories_per_component(FILTER_MEMORIES_MAX)
            .total_tables(instances * FILTER_TABLES_MAX)
            .max_tables_per_component(FILTER_TABLES_MAX)
            .table_elements(FILTER_TABLE_MAX)
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
