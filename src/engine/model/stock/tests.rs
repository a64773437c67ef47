//! Candle's decoders against `transformers`, and what they do not honour.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::super::Plan;
use super::super::tests::{answer, best, difference, folder, spec};
use super::super::{Means, Model};
use super::*;
use rbees_kernel::KvKind;

const BUDGET: Budget = Budget { sequences: 3, kv_bytes: 1 << 22 };

/// Models that only candle computes: folders, and a file.
const NAMES: [&str; 7] =
    ["gemma2", "mixtral", "olmo2", "phi2", "qwen3_moe", "stablelm", "starcoder2"];

fn open(name: &str) -> Model {
    let gguf = folder(name).join("model.gguf");
    let path = if name == "phi2" { gguf } else { folder(name) };
    Model::open(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn stock(model: &Model, description: &Description) -> Stock {
    let weights = &model.weights;
    Stock::new(description, weights, &Device::Cpu, BUDGET, &mut |_| {}).expect("sound weights")
}

/// Feeds `tokens` to the sequence in `slot` in chunks; the logits after each.
fn fed(stock: &mut Stock, slot: u32, tokens: &[u32], size: usize) -> Vec<Vec<f32>> {
    let mut logits = Logits::default();
    let steps = tokens.chunks(size).enumerate().map(|(at, tokens)| {
        let chunk = Chunk { blocks: &[slot], position: at * size, tokens, logits: true };
        stock.step(&[chunk], &mut logits).expect("a step");
        logits.row(0).to_vec()
    });
    steps.collect()
}

/// That a decoder answers as `transformers` did, as far as its context reaches.
fn check(name: &str, stock: &mut Stock) -> f32 {
    let (answer, expected) = answer(name, "answer");
    let length = answer.tokens.len().min(stock.context_length());
    let expected = &expected[..length * stock.vocabulary()];
    let tokens = &answer.tokens[..length];
    let alone = fed(stock, 0, tokens, 1);
    let mut worst = difference(&alone.concat(), expected);
    assert!(worst <= 1e-3, "{name}: logits differ by {worst}");
    for (at, row) in fed(stock, 1, tokens, 7).iter().enumerate() {
        let end = (7 * (at + 1)).min(length);
        worst = worst.max(difference(row, &alone[end - 1]));
        assert!(worst <= 1e-3, "{name}: in chunks, token {end} differs by {worst}");
    }
    let mut tokens = answer.tokens[..answer.prompt.min(length)].to_vec();
    let (begin, mut logits) = (tokens.len(), Logits::default());
    let mut position = 0;
    while tokens.len() < length.max(begin) && begin == answer.prompt {
        let chunk = Chunk { blocks: &[2], position, tokens: &tokens[position..], logits: true };
        stock.step(&[chunk], &mut logits).expect("a step");
        position = tokens.len();
        tokens.push(best(logits.row(0)));
    }
    assert_eq!(tokens[begin..], answer.greedy[..tokens.len() - begin], "{name}");
    worst
}

#[test]
fn candles_architectures_answer_as_transformers_does() {
    for name in NAMES {
        let model = open(name);
        let Plan::Stock(description) = &model.plan else { panic!("{name} is ours") };
        let mut stock = stock(&model, description);
        let worst = check(name, &mut stock);
        let context = stock.context_length();
        eprintln!("{name}: {context} tokens, logits differ by at most {worst:.1e}");
    }
}

#[test]
fn our_own_architectures_answer_alike_by_candle() {
    for (name, gguf) in [
        ("llama", false),
        ("mistral", false),
        ("qwen2", false),
        ("phi3-window", false),
        ("llama", true),
        ("qwen2-window", false),
    ] {
        let path = folder(name);
        let path = if gguf { path.join("model.gguf") } else { path };
        let model = Model::open(&path).expect("a sound model");
        let description = model.elsewhere(spec(&model)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let worst = check(name, &mut stock(&model, &description));
        eprintln!("{name}, GGUF {gguf}: logits differ by at most {worst:.1e}");
    }
}

#[test]
fn what_candle_does_not_honour_is_refused() {
    for (name, gguf, expected) in [
        ("qwen3", false, "rotation 'yarn'"),
        ("llama3", false, "4 heads of 16 for a width of 32"),
        ("phi3", false, "rotation 'longrope'"),
        ("gemma3", false, "computed on the CPU only"),
        ("llama3", true, "tensor 'rope_freqs.weight'"),
        ("phi3-window", true, "computed on the CPU only"),
    ] {
        let path = folder(name);
        let path = if gguf { path.join("model.gguf") } else { path };
        let model = Model::open(&path).expect("a sound model");
        let error = model.elsewhere(spec(&model)).map(|_| ()).expect_err(name);
        assert!(error.contains(expected), "{name}: expected '{expected}' in '{error}'");
    }
    let refused = |name: &str, key: &str, value: Value, expected: &str| {
        let text = std::fs::read(folder(name).join("config.json")).expect("it is committed");
        let mut text: Value = serde_json::from_slice(&text).expect("JSON");
        text[key] = value;
        let row = row(name, false).expect("a known architecture");
        let settings = text.as_object().expect("an object");
        let error = Description::of_folder(row, settings).map(|_| ()).expect_err(expected);
        assert!(error.contains(expected), "{name}: expected '{expected}' in '{error}'");
    };
    refused("stablelm", "qk_layernorm", json!(true), "'qk_layernorm' is true");
    refused("stablelm", "use_parallel_residual", json!(true), "'use_parallel_residual'");
    refused("qwen3_moe", "mlp_only_layers", json!([1]), "'mlp_only_layers' is [1]");
    refused("olmo2", "clip_qkv", json!(8.0), "'clip_qkv' is 8.0");
    refused("olmo2", "head_dim", json!(64), "4 heads of 64 for a width of 32");
    refused("mixtral", "rope_scaling", json!({"rope_type": "yarn"}), "rotation 'yarn'");
    refused("mixtral", "num_attention_heads", json!(0), "0 heads of");
    refused("mixtral", "num_key_value_heads", json!(3), "4 heads can't share 3");
    refused("starcoder2", "vocab_size", json!(null), "'vocab_size'");
    refused("gemma2", "max_position_embeddings", json!(1u64 << 60), "a context length");
}

/// A copy of a committed folder, to be changed.
fn copied(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("rbees-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&path).expect("the temporary folder takes folders");
    for file in std::fs::read_dir(folder(name)).expect("it is committed").flatten() {
        std::fs::copy(file.path(), path.join(file.file_name())).expect("a copy");
    }
    path
}

#[test]
fn llama_3s_rotation_is_the_same_by_candle_and_by_us() {
    let path = copied("llama");
    let text = std::fs::read(path.join("config.json")).expect("it is there");
    let mut text: Value = serde_json::from_slice(&text).expect("JSON");
    let rope = json!({"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0,
        "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 24});
    text["rope_parameters"] = rope;
    std::fs::write(path.join("config.json"), text.to_string()).expect("it can be written");
    let model = Model::open(&path).expect("a sound model");
    let description = model.elsewhere(spec(&model)).expect("candle knows this rotation");
    let mut theirs = stock(&model, &description);
    let means = Means { kv: KvKind::F32, threads: 1, budget: BUDGET };
    let mut ours = model.transformer(spec(&model), means, &mut |_| {}).expect("sound weights");
    std::fs::remove_dir_all(&path).expect("it is ours");
    let tokens: Vec<u32> = (3..67).collect();
    let (mut one, mut other) = (Logits::default(), Logits::default());
    let chunk =
        |blocks: &'static [u32]| Chunk { blocks, position: 0, tokens: &tokens, logits: true };
    theirs.step(&[chunk(&[0])], &mut one).expect("a step");
    ours.step(&[chunk(&[0, 1, 2])], &mut other).expect("a step");
    let apart = difference(one.row(0), other.row(0));
    assert!(apart <= 1e-3, "logits differ by {apart}");
}

#[test]
fn weights_that_lie_are_refused() {
    let check = |change: &dyn Fn(&Path), expected: &str| {
        let path = copied("stablelm");
        change(&path);
        let means = Means { kv: KvKind::F32, threads: 1, budget: BUDGET };
        let model = Model::open(&path).expect("a sound description");
        let error = model.decoder(&Device::Cpu, means, &mut |_| {}).map(|_| ());
        std::fs::remove_dir_all(&path).expect("it is ours");
        let error = error.expect_err(expected).to_string();
        assert!(error.contains(expected), "expected '{expected}' in '{error}'");
    };
    let config = |from: &'static str, to: &'static str| {
        move |path: &Path| {
            let path = path.join("config.json");
            let text = std::fs::read_to_string(&path).expect("it is there");
            assert!(text.contains(from), "no {from}");
            std::fs::write(path, text.replace(from, to)).expect("it can be written");
        }
    };
    check(&config("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1"), "has no part");
    check(&config("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3"), "model.layers.2");
    check(&config("\"use_qkv_bias\": true", "\"use_qkv_bias\": false"), "has no part");
    check(&config("\"vocab_size\": 101", "\"vocab_size\": 99"), "should be");
    check(&config("\"hidden_act\": \"silu\"", "\"hidden_act\": \"honey\""), "honey");
    let spoil = |path: &Path| {
        let path = path.join("model.safetensors");
        let mut bytes = std::fs::read(&path).expect("it is there");
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        std::fs::write(path, bytes).expect("it can be written");
    };
    check(&spoil, "numbers that are none");
}

#[test]
fn sequences_keep_apart_and_steps_can_be_asked_for_again() {
    let model = open("olmo2");
    let Plan::Stock(description) = &model.plan else { panic!("ours") };
    let mut decoder = stock(&model, description);
    let (answer, _) = answer("olmo2", "answer");
    let alone = fed(&mut decoder, 0, &answer.tokens[..20], 20).concat();
    let chunk = |slot: &'static [u32], position: usize, tokens| Chunk {
        blocks: slot,
        position,
        tokens,
        logits: true,
    };
    let mut logits = Logits::default();
    let other = [9, 8, 7, 6];
    let (first, rest) = answer.tokens[..20].split_at(11);
    decoder.step(&[chunk(&[1], 0, first), chunk(&[2], 0, &other)], &mut logits).expect("a step");
    let joint = [chunk(&[2], 4, &other), chunk(&[1], 11, rest)];
    decoder.step(&joint, &mut logits).expect("a step");
    assert!(difference(logits.row(1), &alone) < 1e-4);
    let before = (logits.row(0).to_vec(), logits.row(1).to_vec());
    // As the scheduler does after a step that failed for another's sake.
    for (again, before) in joint.iter().zip([&before.0, &before.1]) {
        let Chunk { blocks, position, tokens, .. } = *again;
        decoder
            .step(&[Chunk { blocks, position, tokens, logits: true }], &mut logits)
            .expect("again");
        assert_eq!(logits.row(0), before);
    }
    let told = decoder.resident_bytes() - decoder.weight_bytes;
    assert_eq!(told, 2 * 2 * 2 * 8 * 4 * (20 + 20 + 8), "keys and values that are there");
    let mut refused = |chunk: Chunk<'_>, expected: &str| {
        let error = decoder.step(&[chunk], &mut logits).expect_err(expected).to_string();
        assert!(error.contains(expected), "expected '{expected}' in '{error}'");
    };
    refused(chunk(&[1], 30, &[1]), "whose past is gone");
    refused(chunk(&[3], 0, &[1]), "not one of 3");
    refused(chunk(&[0], 0, &[101]), "has token 101 of 101");
    refused(chunk(&[0], 0, &[]), "reaches token 0");
    assert!(decoder.copy_block(0, 1).is_err());
}

#[test]
fn memory_bounds_sequences_first_and_then_their_length() {
    let room = |context, kv_bytes| {
        room(context, 10, Budget { sequences: 4, kv_bytes }).map_err(|error| error.kind())
    };
    assert_eq!(room(100, 100_000), Ok((4, 100)));
    assert_eq!(room(100, 2_500), Ok((2, 100)));
    assert_eq!(room(100, 990), Ok((1, 99)));
    assert_eq!(room(100, 9), Err(Kind::OutOfMemory));
}
