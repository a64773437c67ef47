//! The filters that are embedded in the binary. They are ordinary components, built from `filters/`
//! by the build script; nothing about them is special but where their bytes lie.

/// Names of the embedded filters, in the order of the default chain.
pub const NAMES: [&str; 2] = ["storyteller", "redact"];

/// The component of that name.
pub fn component(name: &str) -> Option<&'static [u8]> {
    match name {
        "storyteller" => Some(include_bytes!(concat!(env!("OUT_DIR"), "/storyteller.wasm"))),
        "redact" => Some(include_bytes!(concat!(env!("OUT_DIR"), "/redact.wasm"))),
        _ => None,
    }
}
