//! The chain's description: `filters.toml`, or the folder itself. Reads files, compiles nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::builtin;
use super::chain::OnFailure;
use super::component::Failure;
use crate::files;
use crate::limits::{
    FILTER_CALL_MS, FILTER_CALL_MS_MAX, FILTER_MEMORY_MIB, FILTER_MEMORY_MIB_MAX, FILTERS_MAX,
    MANIFEST_BYTES_MAX,
};

/// Name of the file that describes the chain.
pub const FILE: &str = "filters.toml";

/// Where a filter's bytes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Embedded in the binary, by name.
    Builtin(String),
    /// A file.
    File(PathBuf),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Builtin(name) => write!(f, "builtin:{name}"),
            Source::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// One filter as it is wanted in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Its name in the chain.
    pub name: String,
    /// Where its bytes come from.
    pub source: Source,
    /// SHA-256 that the file must have, hexadecimal.
    pub sha256: Option<String>,
    /// What its failure does.
    pub on_failure: OnFailure,
    /// Time that a call may take.
    pub timeout: Duration,
    /// Memory that an instance may hold, MiB.
    pub memory_mib: u64,
    /// Whether the running one stays when its file is gone.
    pub required: bool,
    /// Whether generated text goes through it.
    pub text: bool,
    /// Whether it works on copies, whose fate is only counted.
    pub shadow: bool,
    /// Its configuration, a JSON object.
    pub config: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    filter: Vec<Table>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Table {
    path: Option<PathBuf>,
    builtin: Option<String>,
    name: Option<String>,
    sha256: Option<String>,
    #[serde(default)]
    on_failure: Policy,
    /// Time of a call, ms.
    timeout: Option<u64>,
    /// Memory of an instance, MiB.
    memory: Option<u64>,
    #[serde(default = "yes")]
    enabled: bool,
    #[serde(default)]
    required: bool,
    #[serde(default)]
    text: bool,
    #[serde(default)]
    shadow: bool,
    #[serde(default)]
    config: toml::Table,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Policy {
    #[default]
    Withhold,
    Skip,
}

const fn yes() -> bool {
    true
}

/// Whether the folder has a manifest.
pub fn present(folder: Option<&Path>) -> bool {
    folder.is_some_and(|folder| folder.join(FILE).exists())
}

/// The filters wanted: the default chain without a folder, else what the folder says.
pub fn read(folder: Option<&Path>) -> Result<Vec<Spec>, Failure> {
    let Some(folder) = folder else { return Ok(defaults()) };
    let manifest = folder.join(FILE);
    let specs =
        if manifest.exists() { from_file(folder, &manifest)? } else { from_folder(folder)? };
    if specs.len() > FILTERS_MAX {
        return Err(Failure(format!("{} filters; a chain has at most {FILTERS_MAX}", specs.len())));
    }
    if let Some(twice) = specs.iter().enumerate().find_map(|(at, spec)| {
        specs[..at].iter().any(|other| other.name == spec.name).then_some(&spec.name)
    }) {
        return Err(Failure(format!(
            "two filters are named {twice}; give one of them another `name`"
        )));
    }
    Ok(specs)
}

fn defaults() -> Vec<Spec> {
    builtin::DEFAULT
        .iter()
        .map(|name| plain((*name).into(), Source::Builtin((*name).into())))
        .collect()
}

fn plain(name: String, source: Source) -> Spec {
    Spec {
        name,
        source,
        sha256: None,
        on_failure: OnFailure::Withhold,
        timeout: Duration::from_millis(FILTER_CALL_MS),
        memory_mib: FILTER_MEMORY_MIB,
        required: false,
        text: false,
        shadow: false,
        config: "{}".into(),
    }
}

/// Without a manifest: the default chain, then every `*.wasm` in name order.
fn from_folder(folder: &Path) -> Result<Vec<Spec>, Failure> {
    let listing = std::fs::read_dir(folder)
        .map_err(|e| Failure(format!("the folder {} can't be read: {e}", folder.display())))?;
    let mut paths: Vec<PathBuf> = listing
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "wasm"))
        .collect();
    paths.sort();
    let files = paths.into_iter().map(|path| {
        let stem = path.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned());
        plain(stem, Source::File(path))
    });
    Ok(defaults().into_iter().chain(files).collect())
}

fn from_file(folder: &Path, manifest: &Path) -> Result<Vec<Spec>, Failure> {
    let text = files::text(manifest, MANIFEST_BYTES_MAX)
        .map_err(|e| Failure(format!("{} can't be read: {e}", manifest.display())))?;
    from_text(folder, &text)
}

/// What the text of a manifest in `folder` asks for.
pub(crate) fn from_text(folder: &Path, text: &str) -> Result<Vec<Spec>, Failure> {
    let file: File = toml::from_str(text)
        .map_err(|e| Failure(format!("{FILE}{}: {}", line_of(text, e.span()), e.message())))?;
    file.filter
        .into_iter()
        .enumerate()
        .filter(|(_, table)| table.enabled)
        .map(|(at, table)| spec(folder, at + 1, table))
        .collect()
}

fn line_of(text: &str, span: Option<std::ops::Range<usize>>) -> String {
    span.and_then(|span| text.get(..span.start))
        .map_or_else(String::new, |before| format!(" line {}", before.matches('\n').count() + 1))
}

/// Checks one `[[filter]]` table; `place` counts them from 1.
fn spec(folder: &Path, place: usize, table: Table) -> Result<Spec, Failure> {
    let wrong = |what: String| Failure(format!("{FILE}, filter {place}: {what}"));
    let (source, otherwise) = match (table.path, table.builtin) {
        (Some(path), None) => {
            let stem =
                path.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned());
            (Source::File(folder.join(path)), stem)
        }
        (None, Some(name)) if builtin::component(&name).is_some() => {
            (Source::Builtin(name.clone()), name)
        }
        (None, Some(name)) => {
            let known = builtin::NAMES.join(", ");
            return Err(wrong(format!("no filter {name} is built in; there are {known}")));
        }
        _ => return Err(wrong("give either `path` or `builtin`".into())),
    };
    let timeout = table.timeout.unwrap_or(FILTER_CALL_MS);
    if !(1..=FILTER_CALL_MS_MAX).contains(&timeout) {
        return Err(wrong(format!("`timeout` is 1 to {FILTER_CALL_MS_MAX} ms, not {timeout}")));
    }
    let memory_mib = table.memory.unwrap_or(FILTER_MEMORY_MIB);
    if !(1..=FILTER_MEMORY_MIB_MAX).contains(&memory_mib) {
        return Err(wrong(format!(
            "`memory` is 1 to {FILTER_MEMORY_MIB_MAX} MiB, not {memory_mib}"
        )));
    }
    if table.text && matches!(table.on_failure, Policy::Skip) {
        return Err(wrong(
            "`text` needs `on-failure = \"withhold\"`: what a failed filter held back of a text is \
             lost, and a text with a hole can't go on"
                .into(),
        ));
    }
    let config = serde_json::to_string(&table.config)
        .map_err(|e| wrong(format!("`config` can't be written as JSON: {e}")))?;
    Ok(Spec {
        name: table.name.unwrap_or(otherwise),
        source,
        sha256: table.sha256.map(|pin| pin.to_ascii_lowercase()),
        on_failure: match table.on_failure {
            Policy::Withhold => OnFailure::Withhold,
            Policy::Skip => OnFailure::Skip,
        },
        timeout: Duration::from_millis(timeout),
        memory_mib,
        required: table.required,
        text: table.text,
        shadow: table.shadow,
        config,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let folder = std::env::temp_dir().join(format!("rbees-manifest-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(&folder).expect("a temporary folder");
        std::fs::write(folder.join(FILE), text).expect("a temporary file");
        let read = read(Some(&folder));
        std::fs::remove_dir_all(&folder).expect("it was made above");
        let found = match read {
            Ok(specs) => specs.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(","),
            Err(failure) => failure.0,
        };
        assert!(found.contains(expected), "expected {expected:?} in {found:?}");
    }

    #[test]
    fn a_manifest_is_the_chain_or_says_what_is_wrong() {
        check("", "");
        check("[[filter]]\nbuiltin = \"redact\"\n[[filter]]\npath = \"a/b.wasm\"", "redact,b");
        check("[[filter]]\nbuiltin = \"redact\"\nenabled = false", "");
        check("[[filter]]\nbuiltin = \"redact\"\ncolour = 1", "line 3");
        check("[[filter]]\nbuiltin = \"none\"", "there are storyteller, redact, throttle");
        check("[[filter]]", "either `path` or `builtin`");
        check("[[filter]]\nbuiltin = \"redact\"\ntimeout = 0", "`timeout` is 1 to");
        check("[[filter]]\nbuiltin = \"redact\"\nmemory = 4096", "`memory` is 1 to");
        check("[[filter]]\nbuiltin = \"redact\"\n[[filter]]\nbuiltin = \"redact\"", "two filters");
        check(
            "[[filter]]\npath = \"a.wasm\"\ntext = true\non-failure = \"skip\"",
            "a text with a hole can't go on",
        );
    }
}
