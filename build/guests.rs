//! Builds the filters of `filters/` as WebAssembly components for embedding. They are ordinary
//! guests: the same sources and the same tools that an operator would use.

use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "wasm32-unknown-unknown";
/// Crates of `filters/`.
const GUESTS: [&str; 3] = ["storyteller", "redact", "throttle"];

/// Compiles every guest and writes `OUT_DIR/<name>.wasm`, a component.
pub fn build(out: &Path) -> Result<(), String> {
    for watched in ["filters/Cargo.toml", "filters/Cargo.lock", "wit"] {
        println!("cargo::rerun-if-changed={watched}");
    }
    for guest in GUESTS {
        println!("cargo::rerun-if-changed=filters/{guest}");
    }
    let modules = compile(out)?;
    for guest in GUESTS {
        let module = modules.join(format!("{guest}.wasm"));
        let component = encode(&module).map_err(|e| format!("{}: {e}", module.display()))?;
        let path = out.join(format!("{guest}.wasm"));
        std::fs::write(&path, component).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}

/// Runs cargo for the guests in a target folder of its own, so that it waits for no lock of ours.
fn compile(out: &Path) -> Result<PathBuf, String> {
    let target_dir = out.join("guests");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--quiet", "--release", "--locked", "--target", TARGET])
        .args(["--manifest-path", "filters/Cargo.toml", "--target-dir"])
        .arg(&target_dir);
    // What cargo sets for the worker's own build must not reach the guests'.
    for name in ["CARGO_ENCODED_RUSTFLAGS", "RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER", "RUSTC_WRAPPER"]
    {
        cargo.env_remove(name);
    }
    // Messages of panics name sources: by names of ours, not by where they lie on this machine.
    if let Some(home) = cargo_home() {
        cargo.env("CARGO_ENCODED_RUSTFLAGS", format!("--remap-path-prefix={home}=/cargo"));
    }
    let output = cargo.output().map_err(|e| format!("cargo can't be run for filters/: {e}"))?;
    if output.status.success() {
        return Ok(target_dir.join(TARGET).join("release"));
    }
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains("can't find crate for `core`") || text.contains("can't find crate for `std`") {
        return Err(format!(
            "the target {TARGET} is not installed: run `rustup target add {TARGET}` (or `make`, which does)"
        ));
    }
    Err(format!("the filters in filters/ did not compile:\n{text}"))
}

/// Where cargo keeps the sources of dependencies.
fn cargo_home() -> Option<String> {
    std::env::var("CARGO_HOME")
        .ok()
        .or_else(|| std::env::var("HOME").ok().map(|home| format!("{home}/.cargo")))
}

/// Makes a component of a core module that carries its WIT, as `wit-bindgen` leaves it.
fn encode(module: &Path) -> Result<Vec<u8>, String> {
    let bytes = std::fs::read(module).map_err(|e| e.to_string())?;
    wit_component::ComponentEncoder::default()
        .module(&bytes)
        .and_then(|encoder| encoder.validate(true).encode())
        .map_err(|e| format!("{e:#}"))
}
