//! One filter's code: from the bytes of a file to something that can be instantiated and called.
//! Accepts components and core modules; never anything precompiled.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use wasmtime::Store;
use wasmtime::component::{ComponentExportIndex, ComponentNamedList, Func, InstancePre, Lower};

use super::host::bindings::{NarrationFilter, NarrationFilterIndices};
use super::host::{Host, State, allow};
use crate::limits::FILTER_START_MS;
use crate::narration::vocabulary::types::Description;
use crate::narration::{Context, Fact, Narration, clean};

/// The version of the contract that this worker speaks.
pub const CONTRACT: &str = "0.1.0";
const INTERFACE: &str = "rbees:narration/filter@";
/// The optional second interface: generated text.
const TEXT: &str = "rbees:narration/text@0.1.0";

/// A compiled filter that has said what it is.
pub struct Component {
    ready: Ready,
    digest: String,
    description: Description,
    kinds: Option<HashSet<String>>,
}

/// All but the store of an instance.
struct Ready {
    pre: InstancePre<State>,
    exports: NarrationFilterIndices,
    /// `push` and `finish`, where it exports them.
    text: Option<(ComponentExportIndex, ComponentExportIndex)>,
    /// As how many instances one counts.
    weight: u32,
}

/// Why a filter can't be used or a call failed: one line for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(pub String);

impl Failure {
    /// The same with the last words of the filter, where it had any.
    #[must_use]
    pub fn with(mut self, complaint: &str) -> Self {
        if !complaint.is_empty() {
            self.0.push_str(": ");
            self.0.push_str(complaint);
        }
        self
    }
}

impl Component {
    /// Compiles `bytes` and asks the component what it is, in an instance of at most `memory_mib`.
    pub fn load(host: &Host, bytes: &[u8], memory_mib: u64) -> Result<Self, Failure> {
        let _timed = host.awake();
        let digest = digest(bytes);
        let component = host.compile(&digest, bytes)?;
        check_contract(host, &component)?;
        let ready = Ready::new(host, &component).map_err(|e| {
            Failure(format!("does not fit the contract {CONTRACT}: {}", first_line(&e)))
        })?;
        let mut instance = Instance::bare(host, &ready, &"filter".into(), memory_mib)?;
        let description = instance.describe()?;
        let kinds = description.kinds.as_ref().map(|kinds| kinds.iter().cloned().collect());
        Ok(Component { ready, digest, description, kinds })
    }

    /// What it imports, by name.
    pub fn imports(&self, host: &Host) -> Vec<String> {
        let ty = self.ready.pre.component().component_type();
        ty.imports(host.engine()).map(|(name, _)| name.to_owned()).collect()
    }

    /// Whether it can take generated text.
    pub const fn takes_text(&self) -> bool {
        self.ready.text.is_some()
    }

    /// As how many instances one of it counts in [`Host::has_room`].
    pub const fn weight(&self) -> u32 {
        self.ready.weight
    }

    /// SHA-256 of the file, hexadecimal.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// What the filter says of itself.
    pub const fn description(&self) -> &Description {
        &self.description
    }

    /// Whether it wants facts of this kind.
    pub fn wants(&self, kind: &str) -> bool {
        self.kinds.as_ref().is_none_or(|kinds| kinds.contains(kind))
    }
}

impl Ready {
    fn new(host: &Host, component: &wasmtime::component::Component) -> wasmtime::Result<Self> {
        let pre = host.linker(component)?.instantiate_pre(component)?;
        let exports = NarrationFilterIndices::new(&pre)?;
        let text = component.get_export_index(None, TEXT).and_then(|text| {
            let named = |name| component.get_export_index(Some(&text), name);
            Some((named("push")?, named("finish")?))
        });
        let memories = component.resources_required().map_or(0, |needed| needed.num_memories);
        Ok(Ready { pre, exports, text, weight: memories.max(1) })
    }
}

/// SHA-256, hexadecimal.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One running instance of a filter; serves one job, and dies with its first failure.
pub struct Instance {
    store: Store<State>,
    bindings: NarrationFilter,
    text: Option<(Func, Func)>,
}

impl Instance {
    /// A fresh instance, configured.
    pub fn start(
        host: &Host,
        component: &Component,
        name: &Arc<str>,
        memory_mib: u64,
        config: &str,
    ) -> Result<Self, Failure> {
        let mut instance = Self::bare(host, &component.ready, name, memory_mib)?;
        let limit = Duration::from_millis(FILTER_START_MS);
        allow(&mut instance.store, limit);
        instance
            .bindings
            .rbees_narration_filter()
            .call_configure(&mut instance.store, config)
            .map_err(|e| instance.failed("configure", limit, &e))?
            .map_err(|refusal| {
                Failure(format!("refused its configuration: {}", clean::line(&refusal, 300)))
            })?;
        Ok(instance)
    }

    fn bare(host: &Host, ready: &Ready, name: &Arc<str>, memory_mib: u64) -> Result<Self, Failure> {
        let mut store = host.store(name, memory_mib, ready.weight);
        let limit = Duration::from_millis(FILTER_START_MS);
        allow(&mut store, limit);
        let instance = match ready.pre.instantiate(&mut store) {
            Ok(instance) => instance,
            Err(e) => return Err(failed("start", limit, &e).with(store.data_mut().log.complaint())),
        };
        let bindings = ready.exports.load(&mut store, &instance);
        let bindings = bindings.map_err(|e| failed("start", limit, &e))?;
        let text = ready.text.as_ref().and_then(|(push, finish)| {
            Some((instance.get_func(&mut store, push)?, instance.get_func(&mut store, finish)?))
        });
        Ok(Instance { store, bindings, text })
    }

    /// Linear memory that the instance holds.
    pub fn memory_bytes(&self) -> usize {
        self.store.data().memory_bytes()
    }

    fn describe(&mut self) -> Result<Description, Failure> {
        let limit = Duration::from_millis(FILTER_START_MS);
        allow(&mut self.store, limit);
        self.bindings
            .rbees_narration_filter()
            .call_describe(&mut self.store)
            .map_err(|e| self.failed("describe", limit, &e))
    }

    /// The failure of a call that saw no narration: what the filter wrote to stderr may be repeated.
    fn failed(&mut self, call: &str, limit: Duration, error: &wasmtime::Error) -> Failure {
        failed(call, limit, error).with(self.complaint())
    }

    /// The end of what the filter wrote to stderr, in one line. It may hold what the filter was given.
    pub fn complaint(&mut self) -> &str {
        self.store.data_mut().log.complaint()
    }

    /// One narration through this filter. After a failure the instance must not be used again.
    pub fn narrate(
        &mut self,
        context: &Context,
        narration: &Narration,
        limit: Duration,
    ) -> Result<Narration, Failure> {
        allow(&mut self.store, limit);
        let returned = self
            .bindings
            .rbees_narration_filter()
            .call_narrate(&mut self.store, context, narration)
            .map_err(|e| failed("narrate", limit, &e))?;
        if returned.fact.kind() != narration.fact.kind() {
            return Err(Failure(format!(
                "narrate was given the kind {} and returned {}; a filter may not change the kind",
                narration.fact.kind(),
                returned.fact.kind()
            )));
        }
        if let Fact::Other(other) = &returned.fact {
            serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&other.json)
                .map_err(|_| Failure("narrate returned fields that are no JSON object".into()))?;
        }
        Ok(returned)
    }
}

impl Instance {
    /// The next piece of generated text; what may go on by now. After a failure the instance must not
    /// be used again, nor after [`Instance::finish_text`].
    pub fn push_text(&mut self, piece: &str, limit: Duration) -> Result<String, Failure> {
        let push = self.text.map(|(push, _)| push);
        self.call_text("push", push, (piece,), limit)
    }

    /// The end of the text; the rest of what may go on.
    pub fn finish_text(&mut self, limit: Duration) -> Result<String, Failure> {
        let finish = self.text.map(|(_, finish)| finish);
        self.call_text("finish", finish, (), limit)
    }

    fn call_text<P: ComponentNamedList + Lower>(
        &mut self,
        name: &str,
        function: Option<Func>,
        given: P,
        limit: Duration,
    ) -> Result<String, Failure> {
        let Some(function) = function else {
            return Err(Failure(format!("does not export {TEXT}")));
        };
        allow(&mut self.store, limit);
        let typed = function.typed::<P, (String,)>(&self.store);
        let called = typed.and_then(|typed| typed.call(&mut self.store, given));
        called.map(|(text,)| text).map_err(|e| failed(name, limit, &e))
    }
}

/// The bytes as a component: a core module that carries its WIT is wrapped, as its tools would do.
pub(super) fn as_component(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Failure> {
    match bytes.get(..8) {
        Some([0, b'a', b's', b'm', _, _, 1, 0]) => Ok(Cow::Borrowed(bytes)),
        Some([0, b'a', b's', b'm', 1, 0, 0, 0]) => wit_component::ComponentEncoder::default()
            .validate(true)
            .module(bytes)
            .and_then(|mut encoder| encoder.encode())
            .map(Cow::Owned)
            .map_err(|e| {
                Failure(format!("is a core module that can't be made a component: {e:#}"))
            }),
        _ => Err(Failure(format!(
            "is no WebAssembly: expected a component or a core module, found {} bytes that begin otherwise",
            bytes.len()
        ))),
    }
}

/// Finds the version of the contract that the component was built for, and refuses others.
fn check_contract(host: &Host, component: &wasmtime::component::Component) -> Result<(), Failure> {
    let ty = component.component_type();
    let exports: Vec<&str> = ty.exports(host.engine()).map(|(name, _)| name).collect();
    let Some(version) = exports.iter().find_map(|name| name.strip_prefix(INTERFACE)) else {
        return Err(Failure(format!(
            "is of another world: expected an export {INTERFACE}{CONTRACT}, found {}",
            if exports.is_empty() { "none".to_owned() } else { exports.join(", ") }
        )));
    };
    if version != CONTRACT {
        return Err(Failure(format!(
            "was built for version {version} of rbees:narration; this worker speaks {CONTRACT}"
        )));
    }
    Ok(())
}

/// One line about a failed call: what was called, and why it ended.
fn failed(call: &str, limit: Duration, error: &wasmtime::Error) -> Failure {
    match error.downcast_ref::<wasmtime::Trap>() {
        Some(wasmtime::Trap::Interrupt) => {
            Failure(format!("{call} took longer than {} ms", limit.as_millis()))
        }
        Some(trap) => Failure(format!("{call} trapped: {trap}")),
        None => Failure(format!("{call} failed: {}", first_line(error))),
    }
}

/// The root of an error, without the backtrace that follows in later lines.
pub(super) fn first_line(error: &wasmtime::Error) -> String {
    let root = error.root_cause().to_string();
    root.lines().next().unwrap_or("no reason given").to_owned()
}
