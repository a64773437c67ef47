//! `rbees-workerd model`: look at a model, or fetch one. What was asked for goes to stdout, how it
//! goes to stderr.

use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use crate::engine::inspect::{self, Report};
use crate::error::{Error, Kind, Result};
use crate::hub::{Hub, Meter, Wanted};

/// What to do with a model.
#[derive(Subcommand)]
pub enum ModelCommand {
    /// Say what a model is, whether it runs here, and what it takes
    Inspect(InspectFlags),
    /// Fetch a model from Hugging Face, or from HF_ENDPOINT; prints where it is
    Pull(PullFlags),
}

/// `model inspect`.
#[derive(Args)]
pub struct InspectFlags {
    /// GGUF file, or folder with safetensors
    #[arg(value_name = "MODEL")]
    path: PathBuf,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

/// `model pull`.
#[derive(Args)]
pub struct PullFlags {
    /// OWNER/NAME, or OWNER/NAME:FILE with a file's name or a piece of it, such as Q4_K_M
    #[arg(value_name = "REPO[:FILE]")]
    model: String,
    /// Folder to put it in
    #[arg(long, value_name = "DIR", default_value = "models")]
    into: PathBuf,
    /// Branch, tag or commit
    #[arg(long, value_name = "NAME", default_value = "main")]
    revision: String,
}

/// Does it.
///
/// # Errors
/// Where the model does not run ([`Kind::Model`]), or can't be fetched.
pub fn run(command: ModelCommand) -> Result<()> {
    match command {
        ModelCommand::Inspect(flags) => look(&flags),
        ModelCommand::Pull(flags) => pull(&flags),
    }
}

fn look(flags: &InspectFlags) -> Result<()> {
    let report = inspect::inspect(&flags.path)?;
    let text = if flags.json { json(&report)? } else { report.to_string() };
    print(&text)?;
    match report.obstacle {
        // stdout has said why already.
        Some(obstacle) => Err(Error::new(Kind::Model, obstacle)),
        None => Ok(()),
    }
}

fn json(report: &Report) -> Result<String> {
    serde_json::to_string(report)
        .map_err(|e| Error::new(Kind::Internal, "the report is no JSON").because(e))
}

fn pull(flags: &PullFlags) -> Result<()> {
    let wanted = Wanted::parse(&flags.model, &flags.revision)?;
    let hub = Hub::from_environment()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::new(Kind::Internal, "the async runtime can't start").because(e))?;
    let path = runtime.block_on(hub.pull(&wanted, &flags.into, &mut Bar::default()))?;
    print(&path.display().to_string())
}

fn print(text: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{}", text.trim_end())
        .map_err(|e| Error::new(Kind::Internal, "stdout can't be written").because(e))
}

/// A bar on stderr, where that is a terminal.
#[derive(Default)]
struct Bar(Option<ProgressBar>);

impl Meter for Bar {
    fn begin(&mut self, name: &str, bytes: u64, done: u64) {
        let form = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        let style =
            ProgressStyle::with_template(form).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = self.0.get_or_insert_with(|| ProgressBar::new(bytes));
        bar.set_style(style.progress_chars("=> "));
        bar.set_length(bytes);
        bar.set_message(crate::narration::clean::line(name, 40).into_owned());
        bar.set_position(done);
    }

    fn at(&mut self, done: u64) {
        if let Some(bar) = &self.0 {
            bar.set_position(done);
        }
    }

    fn end(&mut self, name: &str, fetched: bool) {
        if let Some(bar) = self.0.take() {
            bar.finish_and_clear();
        }
        let name = crate::narration::clean::line(name, 120);
        let what = if fetched { "fetched and checked" } else { "there already" };
        eprintln!("{name}: {what}");
    }
}
