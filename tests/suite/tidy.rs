//! Promise: the house stays in order. Layers use only what stands before them; files open by saying
//! what they are; nothing is left undone on main.

use std::path::{Path, PathBuf};

/// The rooms in order; a room may use those before it.
const LAYERS: [&str; 18] = [
    "limits",
    "error",
    "fault",
    "clock",
    "private",
    "files",
    "measure",
    "narration",
    "filter",
    "delivery",
    "job",
    "engine",
    "hub",
    "http",
    "config",
    "worker",
    "cli",
    "fuzzing",
];

fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("src"), root.join("kernel/src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("src can be read") {
            let path = entry.expect("src can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("sources are UTF-8");
                found.push((path, text));
            }
        }
    }
    found
}

fn room(path: &Path) -> String {
    let inside = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let Ok(inside) = inside else { return "kernel".to_owned() };
    let first = inside.iter().next().expect("it has a name");
    first.to_string_lossy().trim_end_matches(".rs").to_owned()
}

#[test]
fn layers_use_only_what_stands_before_them() {
    for (path, text) in sources() {
        let Some(own) = LAYERS.iter().position(|layer| *layer == room(&path)) else { continue };
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for later in &LAYERS[own + 1..] {
            assert!(!code.contains(&format!("crate::{later}")), "{} uses {later}", path.display());
        }
    }
}

#[test]
fn every_file_says_what_it_is() {
    for (path, text) in sources() {
        assert!(text.starts_with("//! "), "{} does not open with what it is", path.display());
        assert!(text.lines().count() <= 480, "{} has grown too long", path.display());
    }
}

#[test]
fn operators_are_told_what_every_sign_means() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).expect("it can be read");
    let guide = read("docs/operations.md");
    let contract = read("wit/0.1.0/facts.wit");
    let kinds = contract.split("variant fact {").nth(1).expect("the contract has facts");
    let kinds: Vec<&str> =
        kinds.lines().filter_map(|line| line.trim().split_once('(')).map(|pair| pair.0).collect();
    assert!(kinds.len() > 30, "{kinds:?}");
    for kind in kinds {
        assert!(guide.contains(&format!("`{kind}`")), "docs/operations.md leaves out {kind}");
    }
    let contract = read("openapi.yaml");
    let quoted = contract.lines().filter_map(|line| line.trim().strip_suffix(':'));
    let codes = quoted.map(|code| code.trim_matches(|c| c == '\'' || c == '"'));
    let errors = codes.filter(|code| code.len() == 3 && code.starts_with(['4', '5']));
    let errors: std::collections::BTreeSet<&str> = errors.collect();
    assert!(errors.contains("503") && errors.len() > 10, "{errors:?}");
    for status in errors {
        let told = guide.lines().any(|line| {
            let first = line.split('|').nth(1).unwrap_or_default();
            first.split(',').any(|code| code.trim() == status)
        });
        assert!(told, "docs/operations.md leaves out {status}");
    }
    for code in 0..=6 {
        assert!(guide.contains(&format!("\n| {code} | ")), "it leaves out exit code {code}");
    }
}

#[test]
fn nothing_is_left_undone() {
    for (path, text) in sources() {
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        if path.iter().any(|part| part == "tests" || part == "tests.rs") {
            continue;
        }
        for mark in [".unwrap()", "todo!(", "unimplemented!(", "TODO", "FIXME", "dbg!("] {
            assert!(!code.contains(mark), "{} has {mark}", path.display());
        }
    }
}
