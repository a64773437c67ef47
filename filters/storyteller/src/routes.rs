//! The default routing table, one line a kind: what the operators see, and what the user of a request
//! sees as well. A route narrows; it never opens a sink that the worker had not opened.

use crate::contract::rbees::narration::facts::Fact;
use crate::contract::rbees::narration::types::Sinks;

/// Makes the table and the place of each fact in it, from one list in the order of the contract.
macro_rules! kinds {
    ($($case:ident $name:literal $route:ident),* $(,)?) => {
        /// Every kind by its name in the contract, and where it goes by default.
        pub const KINDS: &[(&str, Route)] = &[$(($name, Route::$route)),*];

        #[derive(Clone, Copy)]
        enum Kind { $($case),* }

        /// Place of a fact's kind in [`KINDS`].
        pub const fn index(fact: &Fact) -> usize {
            (match fact { $(Fact::$case(_) => Kind::$case),* }) as usize
        }
    };
}

/// A set of sinks, told by who reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Nobody: the narration is dropped.
    Nowhere,
    /// Standard output alone.
    Operators,
    /// The stream of the request alone.
    User,
    /// Both.
    Everybody,
}

impl Route {
    /// The route to the sinks of these names. The error names the one that does not exist.
    pub fn to<'n>(names: &[&'n str]) -> Result<Self, &'n str> {
        let (mut stdout, mut sse) = (false, false);
        for &name in names {
            match name {
                "stdout" => stdout = true,
                "sse" => sse = true,
                _ => return Err(name),
            }
        }
        Ok(match (stdout, sse) {
            (false, false) => Self::Nowhere,
            (true, false) => Self::Operators,
            (false, true) => Self::User,
            (true, true) => Self::Everybody,
        })
    }

    /// The sinks that it leaves open.
    pub fn sinks(self) -> Sinks {
        match self {
            Self::Nowhere => Sinks::empty(),
            Self::Operators => Sinks::STDOUT,
            Self::User => Sinks::SSE,
            Self::Everybody => Sinks::STDOUT | Sinks::SSE,
        }
    }
}

kinds! {
    Startup "startup" Operators,
    CpuReady "cpu-ready" Operators,
    CudaReady "cuda-ready" Operators,
    MetalReady "metal-ready" Operators,
    ModelLoadStarted "model-load-started" Operators,
    ModelLoadProgress "model-load-progress" Operators,
    ModelLoaded "model-loaded" Operators,
    ModelLoadFailed "model-load-failed" Operators,
    WarmupStarted "warmup-started" Operators,
    WarmupCompleted "warmup-completed" Operators,
    ReadyAnnounced "ready-announced" Operators,
    CallbackAttempted "callback-attempted" Operators,
    CallbackFailed "callback-failed" Operators,
    HeartbeatFailed "heartbeat-failed" Operators,
    ServerStarted "server-started" Operators,
    ServerBound "server-bound" Operators,
    BindFailed "bind-failed" Operators,
    HealthChecked "health-checked" Operators,
    ServerShutdown "server-shutdown" Operators,
    RequestRejected "request-rejected" Everybody,
    RequestAccepted "request-accepted" Everybody,
    RequestQueued "request-queued" Everybody,
    PromptTokenized "prompt-tokenized" Everybody,
    InferenceStarted "inference-started" Everybody,
    CacheReset "cache-reset" Everybody,
    PrefillProgress "prefill-progress" Everybody,
    TokensGenerated "tokens-generated" Everybody,
    InferenceCompleted "inference-completed" Everybody,
    InferenceFailed "inference-failed" Everybody,
    InferenceCancelled "inference-cancelled" Everybody,
    FilterLoaded "filter-loaded" Operators,
    FilterRejected "filter-rejected" Operators,
    FilterQuarantined "filter-quarantined" Operators,
    NarrationLost "narration-lost" Operators,
    Other "other" Operators,
}
