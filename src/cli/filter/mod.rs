//! `rbees-workerd filter …`: what the people who write filters work with. Everything goes through the
//! host, the chain and the limits that the worker itself has; nothing here is served or deployed.

mod bench;
mod canary;
mod check;
mod lint;
mod list;
mod new;
mod paint;
mod replay;
mod report;
mod stream;
mod subject;

use std::process::ExitCode;

use clap::Subcommand;

use crate::error::Result;

/// What can be done with filters.
#[derive(Subcommand)]
pub enum FilterCommand {
    /// Make a new filter: a project that builds as it is
    New(new::NewFlags),
    /// Load a filter as the worker would, show what it does to every fact, and what is wrong with it
    Check(check::CheckFlags),
    /// Run recorded facts (serve --record) through a chain, or compare two chains
    Replay(replay::ReplayFlags),
    /// Measure what a filter costs: loading, starting, a call, memory
    Bench(bench::BenchFlags),
    /// Show the chain of a running worker: order, digests, calls, failures
    List(list::ListFlags),
}

/// Runs a subcommand; its code says how it went.
pub fn run(command: FilterCommand) -> Result<ExitCode> {
    match command {
        FilterCommand::New(flags) => new::run(&flags),
        FilterCommand::Check(flags) => check::run(flags),
        FilterCommand::Replay(flags) => replay::run(flags),
        FilterCommand::Bench(flags) => bench::run(flags),
        FilterCommand::List(flags) => list::run(&flags),
    }
}
