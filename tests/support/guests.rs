//! Builds guests of `tests/guests/` from source, once a test run, with the cargo that builds the tests.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// One build at a time: cargo would wait for itself, and say so on stderr.
static BUILDING: Mutex<()> = Mutex::new(());

/// The guest `name` of `tests/guests/`, built for `target`: its file.
pub fn guest(name: &str, target: &str) -> PathBuf {
    let _one = BUILDING.lock().expect("no build panics while others wait");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join("target/test-guests");
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--release", "--locked", "--target", target, "--package", name])
        .arg("--manifest-path")
        .arg(root.join("tests/guests/Cargo.toml"))
        .arg("--target-dir")
        .arg(&folder)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .status()
        .expect("cargo can be run");
    assert!(
        status.success(),
        "{name} did not build for {target}; is the target installed (`make`)?"
    );
    folder.join(target).join("release").join(format!("{}.wasm", name.replace('-', "_")))
}
