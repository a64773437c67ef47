//! `filter new`: a project that builds as it is, in the language asked for. Its files are those of
//! `examples/filters/`, which are built and tested there, under another name. Overwrites nothing.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::report::out;
use crate::error::{Error, Kind, Result};

/// What to make.
#[derive(Args)]
pub struct NewFlags {
    /// Name of the filter: a-z, 0-9 and dashes; also the new folder's
    name: String,
    /// Language to write it in
    #[arg(long, value_enum, default_value_t = Lang::Rust)]
    lang: Lang,
    /// Folder to make it in
    #[arg(long, value_name = "DIR", default_value = ".")]
    into: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Lang {
    Rust,
    Js,
    Python,
}

/// A file of a project: its path, and its text.
type File = (&'static str, &'static str);

macro_rules! files {
    ($folder:literal: $($path:literal),*) => {
        &[$(($path, include_str!(concat!("../../../examples/filters/", $folder, "/", $path)))),*]
    };
}

const RUST: &[File] = files!("rust": "Cargo.toml", "README.md", "src/lib.rs");
const JS: &[File] =
    files!("javascript": "package.json", "README.md", "build.mjs", "filter.js", "filter.test.js");
const PYTHON: &[File] =
    files!("python": "Makefile", "README.md", "app.py", "requirements.txt", "test_app.py");
/// What every project gets: the contract, and facts to try it on.
const COMMON: &[File] = &[
    ("wit/facts.wit", include_str!("../../../wit/0.1.0/facts.wit")),
    ("wit/narration.wit", include_str!("../../../wit/0.1.0/narration.wit")),
    ("events.ndjson", include_str!("../../../examples/filters/events.ndjson")),
];
/// Where the examples have the contract from.
const WIT_OF_EXAMPLES: &str = "../../../wit/0.1.0";

impl Lang {
    const fn files(self) -> &'static [File] {
        match self {
            Lang::Rust => RUST,
            Lang::Js => JS,
            Lang::Python => PYTHON,
        }
    }

    /// Name of the example that the files come from.
    const fn example(self) -> &'static str {
        match self {
            Lang::Rust => "team-voice",
            Lang::Js => "drop-by-rule",
            Lang::Python => "tenant-routes",
        }
    }

    const fn ignored(self) -> &'static str {
        match self {
            Lang::Rust => "target/\n",
            Lang::Js => "node_modules/\n*.wasm\n",
            Lang::Python => ".venv/\nbindings/\n__pycache__/\n*.wasm\n",
        }
    }

    /// What builds it, and the file that comes out.
    fn build(self, name: &str) -> (&'static str, String) {
        match self {
            Lang::Rust => (
                "cargo build --release --target wasm32-unknown-unknown",
                format!("target/wasm32-unknown-unknown/release/{}.wasm", name.replace('-', "_")),
            ),
            Lang::Js => ("npm install && npm run build", format!("{name}.wasm")),
            Lang::Python => ("make", format!("{name}.wasm")),
        }
    }
}

/// Makes the project.
pub fn run(flags: &NewFlags) -> Result<ExitCode> {
    let NewFlags { name, lang, into } = flags;
    let sound = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let letter = name.starts_with(|c: char| c.is_ascii_lowercase());
    if !letter || name.ends_with('-') || name.len() > 64 || !name.bytes().all(sound) {
        let message = "NAME is 1 to 64 of a-z 0-9 - and begins with a letter, as in quiet-night";
        return Err(Error::new(Kind::Config, message));
    }
    let folder = into.join(name);
    let folder = folder.strip_prefix(".").unwrap_or(&folder);
    if folder.exists() {
        let message = format!("{} is there already; nothing was changed", folder.display());
        return Err(Error::new(Kind::Config, message));
    }
    for (path, text) in lang.files().iter().chain(COMMON) {
        write(&folder.join(path), &renamed(text, lang.example(), name))?;
    }
    write(&folder.join(".gitignore"), lang.ignored())?;
    let (build, file) = lang.build(name);
    out(&format!(
        "made {}: a filter that works; change it as you like\n\n  cd {}\n  {build}\n  \
         rbees-workerd filter check {file}\n\nREADME.md there says how to test and deploy it.",
        folder.display(),
        folder.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// The text with the example's name, in each way of writing it, replaced.
fn renamed(text: &str, example: &str, name: &str) -> String {
    text.replace(example, name)
        .replace(&example.replace('-', "_"), &name.replace('-', "_"))
        .replace(&camel(example), &camel(name))
        .replace(WIT_OF_EXAMPLES, "wit")
}

fn camel(kebab: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters
            .next()
            .map(|c| c.to_ascii_uppercase())
            .into_iter()
            .chain(letters)
            .collect::<String>()
    };
    kebab.split('-').map(word).collect()
}

fn write(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(path, text))
        .map_err(|e| Error::new(Kind::Config, format!("{} can't be written: {e}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_example_is_left_in_a_project_of_another_name() {
        for lang in [Lang::Rust, Lang::Js, Lang::Python] {
            for (path, text) in lang.files() {
                let text = renamed(text, lang.example(), "quiet-night");
                for left in [lang.example(), &lang.example().replace('-', "_"), "../.."] {
                    assert!(!text.contains(left), "{path} of {lang:?} has {left}");
                }
            }
        }
        assert_eq!(renamed("TeamVoice team_voice", "team-voice", "a-b2"), "AB2 a_b2");
    }
}
