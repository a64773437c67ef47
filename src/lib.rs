//! probe
pub mod error;
pub mod limits;
pub mod narration { pub mod vocabulary { include!(concat!(env!("OUT_DIR"), "/vocabulary.rs")); } }
pub mod filter { pub mod host {
wasmtime::component::bindgen!({
    world: "narration-filter",
    path: "wit/0.1.0",
    with: {
        "rbees:narration/facts": crate::narration::vocabulary::facts,
        "rbees:narration/types": crate::narration::vocabulary::types,
    },
});
}}
