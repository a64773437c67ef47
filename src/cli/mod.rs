//! The command line: flags as typed, a subcommand each. Hands over to the parts; does nothing itself.

mod filter;
mod model;

use std::io::{IsTerminal as _, Write as _, stderr, stdout};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::config::ServeFlags;
use crate::error::{Error, Kind, Result};
use crate::filter::compile;
use crate::http::contract;
use crate::private::hush_panics;
use crate::worker;

/// A worker that serves one language model and narrates what it does.
#[derive(Parser)]
#[command(name = "rbees-workerd", version, arg_required_else_help = true)]
pub struct Cli {
    /// Say more on stderr (-v: info, -vv: debug, -vvv: trace); RUST_LOG overrides
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Load a model and serve it
    Serve(Box<ServeFlags>),
    /// Look at a model, or fetch one
    #[command(subcommand)]
    Model(model::ModelCommand),
    /// Print the contract over HTTP as an OpenAPI document (YAML)
    Openapi,
    /// Check, try, measure and make filters
    #[command(subcommand)]
    Filter(filter::FilterCommand),
    /// Compile one filter, from stdin to stdout; the worker calls itself so
    #[command(name = compile::SUBCOMMAND, hide = true)]
    CompileFilter,
}

/// Runs what was asked for; the code is for a subcommand that did its work and has something to say by it.
pub fn run(cli: Cli) -> Result<ExitCode> {
    log_to_stderr(cli.verbose);
    match cli.command {
        Command::Model(command) => model::run(command).map(|()| ExitCode::SUCCESS),
        Command::Openapi => {
            let text = contract::yaml()?;
            stdout().write_all(text.as_bytes()).map(|()| ExitCode::SUCCESS).map_err(|e| {
                Error::new(Kind::Internal, "the document can't be written to stdout").because(e)
            })
        }
        Command::Serve(flags) => {
            hush_panics();
            worker::run(flags.validate(stdout().is_terminal())?).map(|()| ExitCode::SUCCESS)
        }
        Command::Filter(command) => filter::run(command),
        Command::CompileFilter => compile::child().map(|()| ExitCode::SUCCESS),
    }
}

/// Logs are for those who debug the worker: stderr only, so that stdout is narration alone.
fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .init();
}
