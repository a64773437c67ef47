//! The filter that a subcommand is about: its file and configuration, loaded as the worker would.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;

use crate::error::{Error, Kind, Result};
use crate::files;
use crate::filter::chain::{Entry, OnFailure};
use crate::filter::compile::Compiler;
use crate::filter::component::{Component, Failure, Instance};
use crate::filter::{Host, builtin, reload, trial};
use crate::limits::{
    FILTER_CALL_MS, FILTER_CALL_MS_MAX, FILTER_MEMORY_MIB, FILTER_MEMORY_MIB_MAX,
    MANIFEST_BYTES_MAX,
};
use crate::narration::{Fact, Narration, Told};

/// Which filter, and with what.
#[derive(Args)]
pub struct SubjectFlags {
    /// Component or core module; or the name of a built-in filter
    pub file: PathBuf,
    /// Configuration: a JSON object, or a file with one (.json) or a table (.toml)
    #[arg(long, value_name = "FILE|JSON")]
    config: Option<String>,
    /// Time that a call may take, ms, as `timeout` in filters.toml
    #[arg(long, value_name = "MS", default_value_t = FILTER_CALL_MS,
        value_parser = clap::value_parser!(u64).range(1..=FILTER_CALL_MS_MAX))]
    timeout: u64,
    /// Memory that an instance may hold, MiB, as `memory` in filters.toml
    #[arg(long, value_name = "MIB", default_value_t = FILTER_MEMORY_MIB,
        value_parser = clap::value_parser!(u64).range(1..=FILTER_MEMORY_MIB_MAX))]
    memory: u64,
}

/// A filter that was loaded.
pub struct Subject {
    /// What runs it.
    pub host: Arc<Host>,
    /// Its place in a chain of one.
    pub entry: Entry,
    /// Size of its file, bytes.
    pub bytes: usize,
    /// Whether the file is a core module, which the worker wraps.
    pub core_module: bool,
    /// How long compiling and describing took.
    pub loading: Duration,
}

impl SubjectFlags {
    /// Loads it. Fails with exit code 6 where the worker would refuse the file.
    pub fn load(&self) -> Result<Subject> {
        let host = Arc::new(Host::new()?.compiling(Compiler::own(), None));
        let name = self.file.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into());
        let bytes = match self.file.to_str().and_then(builtin::component) {
            Some(bytes) => bytes.to_vec(),
            None => reload::read_file(&self.file).map_err(|failure| self.refused(&failure))?,
        };
        let config = self.config.as_deref().map_or_else(|| Ok("{}".to_owned()), config)?;
        let began = Instant::now();
        let component = Component::load(&host, &bytes, self.memory)
            .map_err(|failure| self.refused(&failure))?;
        let loading = began.elapsed();
        let entry = Entry::new(
            name.as_str().into(),
            Arc::new(component),
            config,
            OnFailure::Withhold,
            Duration::from_millis(self.timeout),
            self.memory,
        );
        let core_module = bytes.get(4..8) == Some(&[1, 0, 0, 0]);
        Ok(Subject { host, entry, bytes: bytes.len(), core_module, loading })
    }

    fn refused(&self, failure: &Failure) -> Error {
        let builtins = builtin::NAMES.join(", ");
        let hint = if self.file.exists() {
            String::new()
        } else {
            format!(" (and is none of the built-in ones: {builtins})")
        };
        Error::new(Kind::Filter, format!("{} {}{hint}", self.file.display(), failure.0))
    }
}

impl Subject {
    /// A fresh instance, configured.
    pub fn start(&self) -> Result<Instance, Failure> {
        self.entry.start(&self.host)
    }

    /// One call, as the chain would make it.
    pub fn call(&self, instance: &mut Instance, told: &Told) -> Result<Narration, Failure> {
        instance.narrate(&told.context, &told.narration, self.entry.timeout)
    }

    /// The samples of the kinds that it wants.
    pub fn wanted(&self) -> Vec<Told> {
        let wanted = |fact: &Fact| self.entry.component.wants(fact.kind());
        Fact::samples().into_iter().filter(wanted).map(trial::told).collect()
    }
}

/// A configuration as it was given: JSON itself, or a file.
fn config(given: &str) -> Result<String> {
    let wrong = |what: String| Error::new(Kind::Config, format!("--config {what}"));
    if given.trim_start().starts_with('{') {
        return serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(given)
            .map(|_| given.to_owned())
            .map_err(|e| wrong(format!("is no JSON object: {e}")));
    }
    let path = Path::new(given);
    let text = files::text(path, MANIFEST_BYTES_MAX).map_err(|e| wrong(format!("{given}: {e}")))?;
    if path.extension().is_some_and(|extension| extension == "toml") {
        let table: toml::Table =
            toml::from_str(&text).map_err(|e| wrong(format!("{given} is no TOML: {e}")))?;
        return serde_json::to_string(&table).map_err(|e| wrong(format!("{given}: {e}")));
    }
    config(text.trim_start()).map_err(|_| wrong(format!("{given} holds no JSON object")))
}
