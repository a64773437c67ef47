//! What becomes of a narration: operators' WebAssembly components, in a chain. Holds no wording, no
//! routing table and no redaction rule of its own; those are the filters'.

pub mod builtin;
pub mod chain;
pub mod component;
pub mod host;
pub mod manifest;
pub mod reload;
pub mod trial;
pub mod watch;

pub use chain::{Chain, Instances, Verdict};
pub use host::Host;
pub use reload::Chains;
