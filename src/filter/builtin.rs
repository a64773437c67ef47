//! The filters that are embedded in the binary. They are ordinary components, built from `filters/`
//! by the build script; nothing about them is special but where their bytes lie.

/// Names of the embedded filters.
pub const NAMES: [&str; 3] = ["storyteller", "redact", "throttle"];
/// The default chain.
pub const DEFAULT: [&str; 2] = ["storyteller", "redact"];

/// The component of that name.
pub fn component(name: &str) -> Option<&'static [u8]> {
    match name {
        "storyteller" => Some(include_bytes!(concat!(env!("OUT_DIR"), "/storyteller.wasm"))),
        "redact" => Some(include_bytes!(concat!(env!("OUT_DIR"), "/redact.wasm"))),
        "throttle" => Some(include_bytes!(concat!(env!("OUT_DIR"), "/throttle.wasm"))),
        _ => None,
    }
}
