//! What is done with bytes of a stranger, one function a reader: each is called by the fuzz target of
//! its name (`fuzz/`) and by a seeded test (`tests/suite/fuzzing.rs`). It panics where a promise of the
//! reader's is broken. Never used by the worker itself.

mod models;
mod requests;
mod sse;
mod told;

pub use models::{gguf, safetensors, template, tokenizer};
pub use requests::{execute, http};
pub use sse::sse;
pub use told::{clean, manifest, wit};

/// A reader of bytes that panics where it breaks a promise.
pub type Target = fn(&[u8]);

/// Every reader by its name. The redactor is a guest of its own: see `fuzzing` in `filters/redact`.
pub const TARGETS: [(&str, Target); 10] = [
    ("gguf", gguf),
    ("safetensors", safetensors),
    ("tokenizer", tokenizer),
    ("template", template),
    ("http", http),
    ("execute", execute),
    ("manifest", manifest),
    ("clean", clean),
    ("sse", sse),
    ("wit", wit),
];

/// Panics unless a message is one line of a sensible length, without controls.
fn one_line(message: &str) {
    assert!(!message.contains(char::is_control), "{message:?}");
    assert!(message.chars().count() <= 1_000, "{} characters", message.chars().count());
}
