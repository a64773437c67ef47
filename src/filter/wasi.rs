//! Stand-ins for WASI 0.2, which guests in many languages import whether they use it or not. Clocks
//! and randomness work and what is written to stderr or stdout is logged; everything else says no, by
//! the type that its function returns. Nothing here opens, reads, waits or calls anything.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rand::RngExt as _;
use wasmtime::component::types::{ComponentFunc, ComponentItem, Type};
use wasmtime::component::{
    Component, ComponentType, Linker, LinkerInstance, Lower, Resource, ResourceType, Val,
};
use wasmtime::{AsContextMut as _, Result, StoreContextMut, bail};

use super::host::State;
use crate::limits::{FILTER_HANDLES_MAX, FILTER_RANDOM_BYTES_MAX, FILTER_WRITE_BYTES_MAX};

/// What every handle stands for: nothing. Its number says which stream it pretends to be.
pub struct StandIn;

const STDOUT: u32 = 1;
const STDERR: u32 = 2;
const NOWHERE: u32 = 0;

/// Cases of error types that mean "no", most fitting first.
const NO: [&str; 6] =
    ["access-denied", "access", "not-permitted", "closed", "HTTP-request-denied", "not-supported"];

#[derive(ComponentType, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

#[derive(ComponentType, Lower)]
#[component(variant)]
enum StreamError {
    #[component(name = "last-operation-failed")]
    #[allow(dead_code)] // the contract has it; no stand-in fails this way
    LastOperationFailed(Resource<StandIn>),
    #[component(name = "closed")]
    Closed,
}

/// Defines in `linker` what `component` imports of WASI 0.2. Other imports are left alone, and
/// undefined.
pub fn stand_in(linker: &mut Linker<State>, component: &Component) -> Result<()> {
    let engine = linker.engine().clone();
    let ty = component.component_type();
    for (name, import) in ty.imports(&engine) {
        let Some(interface) = interface(name) else { continue };
        let ComponentItem::ComponentInstance(instance) = import.ty else { continue };
        let mut defined = linker.instance(name)?;
        for (item, export) in instance.exports(&engine) {
            match export.ty {
                ComponentItem::ComponentFunc(_) if works(&mut defined, interface, item)? => {}
                ComponentItem::ComponentFunc(_) => defined.func_new(item, denied)?,
                ComponentItem::Resource(_) => {
                    defined.resource(item, ResourceType::host::<StandIn>(), |mut store, _| {
                        store.data_mut().handles = store.data().handles.saturating_sub(1);
                        Ok(())
                    })?;
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// `io/streams` out of `wasi:io/streams@0.2.6`; none for what is not WASI 0.2.
fn interface(import: &str) -> Option<&str> {
    let (interface, version) = import.strip_prefix("wasi:")?.split_once('@')?;
    version.starts_with("0.2.").then_some(interface)
}

/// Defines `item` of `interface` if it is one of those that work.
fn works(defined: &mut LinkerInstance<'_, State>, interface: &str, item: &str) -> Result<bool> {
    match (interface, item) {
        ("clocks/monotonic-clock", "now") => {
            defined.func_wrap(item, |_, ()| Ok((monotonic_ns(),)))?;
        }
        ("clocks/monotonic-clock", "resolution") => {
            defined.func_wrap(item, |_, ()| Ok((1_000_u64,)))?;
        }
        ("clocks/wall-clock", "now") => defined.func_wrap(item, |_, ()| Ok((wall_time(),)))?,
        ("clocks/wall-clock", "resolution") => {
            let resolution = || Datetime { seconds: 0, nanoseconds: 1_000 };
            defined.func_wrap(item, move |_, ()| Ok((resolution(),)))?;
        }
        ("random/random", "get-random-bytes")
        | ("random/insecure", "get-insecure-random-bytes") => {
            defined.func_wrap(item, |_, (length,): (u64,)| random_bytes(length))?;
        }
        ("random/random", "get-random-u64") | ("random/insecure", "get-insecure-random-u64") => {
            defined.func_wrap(item, |_, ()| Ok((rand::random::<u64>(),)))?;
        }
        ("random/insecure-seed", "insecure-seed") => {
            defined.func_wrap(item, |_, ()| Ok((rand::random::<(u64, u64)>(),)))?;
        }
        ("cli/stdout", "get-stdout") => {
            defined.func_wrap(item, |store, ()| Ok((handle(store, STDOUT)?,)))?;
        }
        ("cli/stderr", "get-stderr") => {
            defined.func_wrap(item, |store, ()| Ok((handle(store, STDERR)?,)))?;
        }
        ("cli/exit", _) => {
            defined.func_new(item, |_, _, _, _| bail!("it wanted to end the process"))?;
        }
        ("io/streams", item) => return stream_works(defined, item),
        ("io/poll", "poll") => defined.func_new(item, |mut store, _, given, results| {
            // Nothing is ever waited for: all that is asked after is ready.
            let all = if let [Val::List(all)] = given { all.len() } else { 0 };
            results[0] = Val::List((0..all).map(|at| Val::U32(at as u32)).collect());
            give_back(&mut store, given)
        })?,
        ("io/poll", "[method]pollable.ready") => {
            defined.func_wrap(item, |_, (_,): (Resource<StandIn>,)| Ok((true,)))?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// The methods of a stream that is written to.
fn stream_works(defined: &mut LinkerInstance<'_, State>, item: &str) -> Result<bool> {
    type Answer<T> = std::result::Result<T, StreamError>;
    match item {
        "[method]output-stream.check-write" => {
            defined.func_wrap(item, |_, (_,): (Resource<StandIn>,)| {
                let answer: Answer<u64> = Ok(FILTER_WRITE_BYTES_MAX);
                Ok((answer,))
            })?;
        }
        "[method]output-stream.write" | "[method]output-stream.blocking-write-and-flush" => {
            defined.func_wrap(
                item,
                |mut store: StoreContextMut<'_, State>,
                 (stream, bytes): (Resource<StandIn>, Vec<u8>)| {
                    let open = matches!(stream.rep(), STDOUT | STDERR);
                    if open {
                        store.data_mut().log.stderr(&bytes);
                    }
                    let answer: Answer<()> = if open { Ok(()) } else { Err(StreamError::Closed) };
                    Ok((answer,))
                },
            )?;
        }
        "[method]output-stream.flush" | "[method]output-stream.blocking-flush" => {
            defined.func_wrap(item, |_, (_,): (Resource<StandIn>,)| {
                let answer: Answer<()> = Ok(());
                Ok((answer,))
            })?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// A handle, of which an instance may hold a bounded number.
fn handle(mut store: StoreContextMut<'_, State>, stream: u32) -> Result<Resource<StandIn>> {
    let state = store.data_mut();
    if state.handles >= FILTER_HANDLES_MAX {
        bail!("it holds more than {FILTER_HANDLES_MAX} handles of WASI");
    }
    state.handles += 1;
    Ok(Resource::new_own(stream))
}

/// Says no, in the words that the function's type has for it.
fn denied(
    mut store: StoreContextMut<'_, State>,
    ty: ComponentFunc,
    given: &[Val],
    results: &mut [Val],
) -> Result<()> {
    for (result, ty) in results.iter_mut().zip(ty.results()) {
        *result = no(&mut store, &ty)?;
    }
    give_back(&mut store, given)
}

/// Gives back the handles among what a function was given, which else count as still held.
fn give_back(store: &mut StoreContextMut<'_, State>, given: &[Val]) -> Result<()> {
    for value in given {
        match value {
            Val::Resource(handle) => handle.resource_drop(&mut *store)?,
            Val::List(values) | Val::Tuple(values) => give_back(store, values)?,
            Val::Option(Some(value)) => give_back(store, std::slice::from_ref(value))?,
            Val::Variant(_, Some(value)) => give_back(store, std::slice::from_ref(value))?,
            Val::Record(fields) => {
                for (_, value) in fields {
                    give_back(store, std::slice::from_ref(value))?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The value of a type that says the least: an error where there is one, else nothing, none, zero.
fn no(store: &mut StoreContextMut<'_, State>, ty: &Type) -> Result<Val> {
    Ok(match ty {
        Type::Bool => Val::Bool(false),
        Type::S8 => Val::S8(0),
        Type::U8 => Val::U8(0),
        Type::S16 => Val::S16(0),
        Type::U16 => Val::U16(0),
        Type::S32 => Val::S32(0),
        Type::U32 => Val::U32(0),
        Type::S64 => Val::S64(0),
        Type::U64 => Val::U64(0),
        Type::Float32 => Val::Float32(0.0),
        Type::Float64 => Val::Float64(0.0),
        Type::Char => Val::Char(' '),
        Type::String => Val::String(String::new()),
        Type::List(_) => Val::List(Vec::new()),
        Type::Option(_) => Val::Option(None),
        Type::Flags(_) => Val::Flags(Vec::new()),
        Type::Record(record) => {
            let field = |field: wasmtime::component::types::Field<'_>| {
                Ok((field.name.to_owned(), no(store, &field.ty)?))
            };
            Val::Record(record.fields().map(field).collect::<Result<_>>()?)
        }
        Type::Tuple(tuple) => {
            Val::Tuple(tuple.types().map(|ty| no(store, &ty)).collect::<Result<_>>()?)
        }
        Type::Enum(cases) => Val::Enum(least(cases.names()).unwrap_or_default().to_owned()),
        Type::Variant(variant) => {
            let bare = || variant.cases().filter(|case| case.ty.is_none()).map(|case| case.name);
            match least(bare()) {
                Some(name) => Val::Variant(name.to_owned(), None),
                None => bail!("it called a function that nothing stands in for"),
            }
        }
        Type::Result(result) => Val::Result(Err(match result.err() {
            Some(ty) => Some(Box::new(no(store, &ty)?)),
            None => None,
        })),
        Type::Own(_) => {
            let handle = handle(store.as_context_mut(), NOWHERE)?;
            Val::Resource(handle.try_into_resource_any(store)?)
        }
        _ => bail!("it called a function that nothing stands in for"),
    })
}

/// The case that says "no", or the first.
fn least<'n>(names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let names: Vec<&str> = names.collect();
    let no = NO.iter().find_map(|no| names.iter().find(|name| *name == no));
    no.or_else(|| names.first()).copied()
}

/// Nanoseconds since the first question of any filter.
fn monotonic_ns() -> u64 {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    u64::try_from(ORIGIN.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn wall_time() -> Datetime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Datetime { seconds: since.as_secs(), nanoseconds: since.subsec_nanos() }
}

fn random_bytes(length: u64) -> Result<(Vec<u8>,)> {
    if length > FILTER_RANDOM_BYTES_MAX {
        bail!("it asked for {length} random bytes; at most {FILTER_RANDOM_BYTES_MAX} are given");
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    rand::rng().fill(bytes.as_mut_slice());
    Ok((bytes,))
}
