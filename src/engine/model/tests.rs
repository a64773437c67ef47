//! Every architecture against Hugging Face's `transformers`, from both forms of file, and files that
//! lie.

mod hostile;
mod perplexity;

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::*;
use crate::engine::decoder::{Budget, Chunk, Decoder, Logits};
use crate::limits::KV_BLOCK_TOKENS;
use rbees_kernel::KvKind;

/// What `tests/references/make_models.py` has recorded of a model.
#[derive(Deserialize)]
pub(super) struct Answer {
    /// Longest sequence that the model is used with; `None`: its own.
    context: Option<usize>,
    pub(super) tokens: Vec<u32>,
    /// How many of the tokens the continuation follows.
    pub(super) prompt: usize,
    pub(super) greedy: Vec<u32>,
}

const NAMES: [&str; 9] = [
    "llama",
    "llama3",
    "mistral",
    "qwen2",
    "qwen2-window",
    "qwen3",
    "gemma3",
    "phi3",
    "phi3-window",
];

pub(super) fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/references/models").join(name)
}

/// The forms in which the weights of a model are committed.
fn forms(name: &str) -> Vec<PathBuf> {
    let gguf = folder(name).join("model.gguf");
    let gguf = gguf.exists().then_some(gguf);
    std::iter::once(folder(name)).chain(gguf).collect()
}

fn decoder(path: &Path, context: Option<usize>) -> Transformer {
    let model = Model::open(path).expect("a sound model");
    let mut spec = spec(&model).clone();
    spec.context_length = context.unwrap_or(spec.context_length);
    let budget = Budget { sequences: 4, kv_bytes: 1 << 22 };
    let means = Means { kv: KvKind::F32, threads: 2, budget };
    model.transformer(&spec, means, &mut |_| {}).expect("sound weights")
}

pub(super) fn spec(model: &Model) -> &Spec {
    match &model.plan {
        Plan::Own(spec) => spec,
        Plan::Stock(_) => panic!("computed by candle"),
    }
}

pub(super) fn answer(name: &str, kind: &str) -> (Answer, Vec<f32>) {
    let json = std::fs::read(folder(name).join(format!("{kind}.json"))).expect("it is committed");
    let bytes = std::fs::read(folder(name).join(format!("{kind}.logits"))).expect("committed");
    let logits = bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    (serde_json::from_slice(&json).expect("an answer"), logits.collect())
}

/// Blocks that belong to sequence `number` of four, in an order that no sum may depend on.
fn blocks(number: u32, length: usize) -> Vec<u32> {
    let order = [0, 2, 1].map(|at| number + 4 * at);
    order[..length.div_ceil(KV_BLOCK_TOKENS)].to_vec()
}

/// Adds `tokens` to a sequence in chunks of `size`; the logits after each chunk.
fn fed(decoder: &mut Transformer, number: u32, tokens: &[u32], size: usize) -> Vec<Vec<f32>> {
    let blocks = blocks(number, tokens.len());
    let mut logits = Logits::default();
    let mut all = Vec::new();
    for (at, tokens) in tokens.chunks(size).enumerate() {
        let chunk = Chunk { blocks: &blocks, position: at * size, tokens, logits: true };
        decoder.step(&[chunk], &mut logits).expect("a step");
        all.push(logits.row(0).to_vec());
    }
    all
}

pub(super) fn best(row: &[f32]) -> u32 {
    let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map_or(0, |(token, _)| token as u32)
}

fn greedy(decoder: &mut Transformer, prompt: &[u32], count: usize) -> Vec<u32> {
    let blocks = blocks(1, prompt.len() + count);
    let (mut tokens, mut logits) = (prompt.to_vec(), Logits::default());
    let mut computed = 0;
    while tokens.len() < prompt.len() + count {
        let chunk = Chunk {
            blocks: &blocks,
            position: computed,
            tokens: &tokens[computed..],
            logits: true,
        };
        decoder.step(&[chunk], &mut logits).expect("a step");
        computed = tokens.len();
        tokens.push(best(logits.row(0)));
    }
    tokens.split_off(prompt.len())
}

pub(super) fn difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn check(name: &str, kind: &str) -> f32 {
    let (answer, expected) = answer(name, kind);
    let mut worst: f32 = 0.0;
    for path in forms(name) {
        let mut decoder = decoder(&path, answer.context);
        let rows = fed(&mut decoder, 0, &answer.tokens, 1).concat();
        let found = difference(&rows, &expected);
        assert!(found <= 1e-3, "{}: logits differ by {found}", path.display());
        worst = worst.max(found);
        let continuation =
            greedy(&mut decoder, &answer.tokens[..answer.prompt], answer.greedy.len());
        assert_eq!(continuation, answer.greedy, "{}", path.display());
    }
    worst
}

#[test]
fn every_architecture_answers_as_transformers_does() {
    for name in NAMES {
        let worst = check(name, "answer");
        eprintln!("{name}: logits differ by at most {worst:.1e}");
    }
    check("phi3", "short");
}

#[test]
fn chunks_and_company_change_nothing() {
    for name in NAMES {
        let (answer, _) = answer(name, "answer");
        let tokens = &answer.tokens;
        let mut decoder = decoder(&folder(name), None);
        let alone = fed(&mut decoder, 0, tokens, 1);
        for size in [3, 16, 64] {
            let chunked = fed(&mut decoder, 2, tokens, size);
            for (at, row) in chunked.iter().enumerate() {
                let end = (size * (at + 1)).min(tokens.len());
                assert_eq!(row, &alone[end - 1], "{name}: chunks of {size}, token {end}");
            }
        }
        // Three sequences in every step: one by one, by three, and one that begins later.
        let mut logits = Logits::default();
        let lists = [0, 1, 3].map(|number| blocks(number, tokens.len()));
        for at in 0..tokens.len() / 3 {
            let chunk = |list: usize, begin: usize, end: usize, logits| Chunk {
                blocks: &lists[list],
                position: begin,
                tokens: &tokens[begin..end],
                logits,
            };
            let mut chunks = vec![chunk(0, at, at + 1, true), chunk(1, 3 * at, 3 * at + 3, true)];
            if at >= 5 {
                chunks.push(chunk(2, 2 * (at - 5), 2 * (at - 5) + 2, at % 2 == 0));
            }
            decoder.step(&chunks, &mut logits).expect("a step");
            assert_eq!(logits.row(0), alone[at], "{name}: token {at} in company");
            assert_eq!(logits.row(1), alone[3 * at + 2], "{name}: token {at} by three");
            assert_eq!(logits.rows(), if at >= 5 && at % 2 == 0 { 3 } else { 2 });
        }
    }
}

#[test]
fn a_copied_block_continues_another_sequence() {
    let (answer, _) = answer("mistral", "answer");
    let mut decoder = decoder(&folder("mistral"), None);
    let alone = fed(&mut decoder, 0, &answer.tokens, 64);
    fed(&mut decoder, 1, &answer.tokens[..KV_BLOCK_TOKENS + 9], 16);
    // The first block is shared, the second copied before it is written on.
    let shared = blocks(1, KV_BLOCK_TOKENS + 9);
    decoder.copy_block(shared[1], 11).expect("both blocks are there");
    let (position, mut logits) = (KV_BLOCK_TOKENS + 9, Logits::default());
    let tokens = &answer.tokens[position..];
    let chunk = Chunk { blocks: &[shared[0], 11], position, tokens, logits: true };
    decoder.step(&[chunk], &mut logits).expect("a step");
    assert_eq!(logits.row(0), alone[0]);
    assert!(decoder.copy_block(0, u32::MAX).is_err());
}

#[test]
fn a_step_beyond_the_bounds_is_refused() {
    let mut decoder = decoder(&folder("llama"), None);
    let mut logits = Logits::default();
    let mut refused = |blocks: &[u32], position: usize, tokens: &[u32], expected: &str| {
        let chunk = Chunk { blocks, position, tokens, logits: true };
        let error = decoder.step(&[chunk], &mut logits).expect_err("it must be refused");
        assert!(error.to_string().contains(expected), "{error}");
    };
    refused(&[0], 0, &[], "reaches token 0");
    refused(&[0], 256, &[1], "reaches token 257 of 256");
    refused(&[0], 0, &[101], "has token 101 of 101");
    refused(&[0], 31, &[1, 1], "too few");
    refused(&[9_999], 0, &[1], "none of");
}
