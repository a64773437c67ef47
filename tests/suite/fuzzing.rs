//! Promise: no bytes make a reader panic or break what it promises. Each fuzz target's function over its
//! corpus and over inputs made of it by a seed (`SEED`; `ROUNDS` for other numbers of them).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use rbees_workerd::fuzzing::{TARGETS, Target};

use crate::mutator::Mutator;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|number| number.parse().ok())
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn corpus(name: &str) -> PathBuf {
    root().join("fuzz/corpus").join(name)
}

/// The first of the corpus and of `rounds` inputs over which the target panics.
fn finding(name: &str, target: Target, rounds: u64, seed: u64) -> Option<Vec<u8>> {
    let mut mutator = Mutator::new(&corpus(name), seed);
    let panics = |bytes: &[u8]| catch_unwind(AssertUnwindSafe(|| target(bytes))).is_err();
    let found = mutator.corpus().iter().find(|bytes| panics(bytes)).cloned();
    found.or_else(|| (0..rounds).map(|_| mutator.input()).find(|bytes| panics(bytes)))
}

fn hold(name: &str, rounds: u64) {
    let target = TARGETS.iter().find(|target| target.0 == name).expect("it is a target").1;
    let (rounds, seed) = (number("ROUNDS").unwrap_or(rounds), number("SEED").unwrap_or(7));
    let found = finding(name, target, rounds, seed);
    assert!(found.is_none(), "SEED={seed}, {name}: {}", found.unwrap_or_default().escape_ascii());
}

macro_rules! targets {
    ($($name:ident: $rounds:expr,)*) => {
        $(#[test]
        fn $name() {
            hold(stringify!($name), $rounds);
        })*

        #[test]
        fn every_target_is_run_here_and_by_libfuzzer() {
            let run = [$(stringify!($name)),*];
            let manifest = std::fs::read_to_string(root().join("fuzz/Cargo.toml"));
            let manifest = manifest.expect("the fuzz targets have a manifest");
            for (name, _) in TARGETS {
                assert!(run.contains(&name), "{name} is not run");
                assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} has no target");
                let target = root().join(format!("fuzz/fuzz_targets/{name}.rs"));
                let target = std::fs::read_to_string(target).expect("a target has a file");
                assert!(target.contains(&format!("fuzzing::{name}(")), "{name}: {target}");
            }
        }
    };
}

targets! {
    gguf: 20_000,
    safetensors: 20_000,
    tokenizer: 2_000,
    template: 1_000,
    http: 1_000,
    execute: 10_000,
    manifest: 5_000,
    clean: 10_000,
    sse: 5_000,
    wit: 1_000,
}

#[test]
fn the_harness_finds_a_planted_panic() {
    let planted = |bytes: &[u8]| assert!(bytes.get(4) != Some(&0xff), "planted");
    assert!(finding("gguf", planted, 20_000, 7).is_some(), "20,000 inputs, and none met it");
}
