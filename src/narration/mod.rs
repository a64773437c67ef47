//! What is told: the vocabulary out of the WIT, the narrator that stamps facts, text made safe, and
//! the one JSON form. Does no I/O; only the narrator reads a clock. Holds no wording and no routing.

pub mod clean;
pub mod fact;
pub mod narrator;
pub mod recorded;
pub mod wire;

/// The contract's types, written by the build script from `wit/0.1.0`.
pub mod vocabulary {
    #![allow(missing_docs)]
    include!(concat!(env!("OUT_DIR"), "/vocabulary.rs"));
}

pub use narrator::{Narrator, Nowhere, Outlet, Scope, Telling, Told};
pub use vocabulary::facts::{self, Fact};
pub use vocabulary::types::{Context, Narration, Severity, Sinks};
