//! Parses, runs, and ends with the code that says how it went.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match rbees_workerd::cli::run(rbees_workerd::cli::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("rbees-workerd: {error}");
            tracing::debug!(trail = error.trail(), "why");
            error.exit_code()
        }
    }
}
