//! What becomes of a narration: operators' WebAssembly components, in a chain. Holds no wording, no
//! routing table and no redaction rule of its own; those are the filters'.

pub mod artifact;
pub mod builtin;
pub mod chain;
pub mod compile;
pub mod component;
pub mod host;
mod log;
pub mod manifest;
pub mod reload;
pub mod state;
pub mod stats;
pub mod text;
pub mod trial;
mod wasi;
pub mod watch;

pub use chain::{Chain, Instances, Verdict};
pub use host::Host;
pub use reload::Chains;
pub use text::{Stopped, TextRun};
