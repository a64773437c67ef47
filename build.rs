//! Build script: the Rust types of the vocabulary out of `wit/`, and the embedded filters out of
//! `filters/`. Fetches nothing itself and writes only below `OUT_DIR`.

#![allow(clippy::print_stdout)] // how a build script talks to cargo

#[path = "build/guests.rs"]
mod guests;
#[path = "build/vocabulary.rs"]
mod vocabulary;

use std::path::PathBuf;
use std::process::ExitCode;

/// The released contract that the worker itself speaks.
const WIT: &str = "wit/0.1.0";

fn main() -> ExitCode {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    if let Err(message) = vocabulary::write(WIT.as_ref(), &out).and_then(|()| guests::build(&out)) {
        for line in message.lines() {
            println!("cargo::error={line}");
        }
        return ExitCode::FAILURE; // a panic would bury these lines under a backtrace
    }
    ExitCode::SUCCESS
}
