//! The fuzz target's function over its corpus and over inputs made of it (`SEED`, `ROUNDS`).

use std::path::Path;

use super::rounds;
use crate::fuzzing::redact;
use mutator::Mutator;

#[path = "../../../../tests/support/mutator.rs"]
mod mutator;

#[test]
fn no_text_comes_out_otherwise_in_pieces_or_is_redacted_twice() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(23);
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/redact");
    let mut mutator = Mutator::new(&corpus, seed);
    mutator.corpus().iter().for_each(|bytes| redact(bytes));
    for _ in 0..rounds() {
        let bytes = mutator.input();
        let held = std::panic::catch_unwind(|| redact(&bytes));
        assert!(held.is_ok(), "SEED={seed}: {}", bytes.escape_ascii());
    }
}
