//! Promise: what comes in with dependencies is known. Every source is the public registry or a folder of
//! ours, every licence is allowed by deny.toml, every second version has its reason there, and every
//! dependency its reason in the manifest. `make deny` asks the advisories besides.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use toml::Table;

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";
/// The workspaces, as folders.
const WORKSPACES: [&str; 4] = ["", "filters", "fuzz", "tests/guests"];
const MANIFESTS: [&str; 8] = [
    "Cargo.toml",
    "kernel/Cargo.toml",
    "fuzz/Cargo.toml",
    "filters/Cargo.toml",
    "filters/redact/Cargo.toml",
    "filters/storyteller/Cargo.toml",
    "filters/throttle/Cargo.toml",
    "tests/guests/Cargo.toml",
];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn packages(workspace: &str) -> Vec<Table> {
    let lock: Table = read(format!("{workspace}/Cargo.lock").trim_start_matches('/'))
        .parse()
        .expect("a lock file is TOML");
    let packages = lock["package"].as_array().expect("it lists packages");
    packages.iter().map(|package| package.as_table().expect("a table").clone()).collect()
}

fn text<'t>(table: &'t Table, key: &str) -> &'t str {
    table.get(key).and_then(toml::Value::as_str).unwrap_or_default()
}

#[test]
fn every_source_is_the_registry_or_ours() {
    for workspace in WORKSPACES {
        for package in packages(workspace) {
            let (name, source) = (text(&package, "name"), text(&package, "source"));
            assert!(source.is_empty() || source == REGISTRY, "{workspace}: {name} from {source}");
            let pinned = text(&package, "checksum").len() == 64;
            assert_eq!(pinned, !source.is_empty(), "{workspace}: {name} has no digest");
        }
    }
}

#[test]
fn every_dependency_says_what_it_is_for() {
    for path in MANIFESTS {
        let manifest = read(path);
        let (mut inside, mut before) = (false, "");
        for line in manifest.lines() {
            if line.starts_with('[') {
                inside = line.contains("dependencies");
            } else if inside && line.contains('=') {
                let shared = line.contains(".workspace"); // said where the workspace lists it
                let said = before.starts_with('#') || line.contains(" # ") || shared;
                assert!(said, "{path} does not say what this is for: {line}");
            }
            before = line;
        }
    }
}

/// The policy's `key` of a section, as a list.
fn policy(section: &str, key: &str) -> Vec<toml::Value> {
    let policy: Table = read("deny.toml").parse().expect("deny.toml is TOML");
    policy[section][key].as_array().expect("a list").clone()
}

#[test]
fn every_second_version_has_its_reason() {
    let skipped = policy("bans", "skip");
    let mut reasons: BTreeMap<String, bool> = BTreeMap::new();
    for entry in &skipped {
        let entry = entry.as_table().expect("a table");
        assert!(!text(entry, "reason").is_empty(), "{entry}");
        reasons.insert(text(entry, "crate").to_owned(), false);
    }
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in packages("") {
        let version = text(&package, "version").to_owned();
        versions.entry(text(&package, "name").to_owned()).or_default().push(version);
    }
    for (name, versions) in versions {
        let unsaid: Vec<&String> = versions
            .iter()
            .filter(|version| {
                let seen = reasons.get_mut(&format!("{name}@{version}"));
                seen.map(|seen| *seen = true).is_none()
            })
            .collect();
        assert!(unsaid.len() <= 1, "{name} {unsaid:?}: give all but one a reason in deny.toml");
    }
    let gone: Vec<&String> =
        reasons.iter().filter(|(_, seen)| !**seen).map(|(name, _)| name).collect();
    assert!(gone.is_empty(), "deny.toml explains what is not there: {gone:?}");
}

/// Whether the licences in `allowed` satisfy an SPDX expression.
fn satisfied(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let (value, rest) = either(&words, allowed);
    assert!(rest.is_empty(), "{expression:?} is not understood");
    value
}

fn either<'w, 't>(words: &'w [&'t str], allowed: &[String]) -> (bool, &'w [&'t str]) {
    let (mut value, mut rest) = both(words, allowed);
    while let ["OR", more @ ..] = rest {
        let (other, left) = both(more, allowed);
        (value, rest) = (value | other, left);
    }
    (value, rest)
}

fn both<'w, 't>(words: &'w [&'t str], allowed: &[String]) -> (bool, &'w [&'t str]) {
    let (mut value, mut rest) = one(words, allowed);
    while let ["AND", more @ ..] = rest {
        let (other, left) = one(more, allowed);
        (value, rest) = (value & other, left);
    }
    (value, rest)
}

fn one<'w, 't>(words: &'w [&'t str], allowed: &[String]) -> (bool, &'w [&'t str]) {
    let is = |name: &str| allowed.iter().any(|allowed| allowed == name);
    match words {
        ["(", inner @ ..] => {
            let (value, rest) = either(inner, allowed);
            (value, rest.strip_prefix(&[")"]).expect("a parenthesis is closed"))
        }
        [name, "WITH", exception, rest @ ..] => (is(&format!("{name} WITH {exception}")), rest),
        [name, rest @ ..] => (is(name), rest),
        [] => (false, &[]),
    }
}

#[test]
fn every_licence_is_allowed() {
    let allowed: Vec<String> = policy("licenses", "allow")
        .iter()
        .map(|name| name.as_str().expect("a name").to_owned())
        .collect();
    assert!(satisfied("(MIT OR GPL-3.0) AND ISC", &allowed));
    assert!(!satisfied("GPL-3.0 OR LGPL-3.0", &allowed) && !satisfied("MIT AND GPL-3.0", &allowed));
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let packages = metadata["packages"].as_array().expect("it lists packages");
    assert!(packages.len() > 100, "{} packages", packages.len());
    for package in packages {
        let licence = package["license"].as_str().unwrap_or_default();
        assert!(satisfied(licence, &allowed), "{} is under {licence:?}", package["name"]);
    }
}
