//! Folders and files that lie: each told apart, none believed, none a panic.

use std::sync::atomic::{AtomicU32, Ordering};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::*;
use crate::engine::gguf::tests::Scratch;
use crate::engine::gguf::tests::support::{F32, GgufBuilder, tiny_llama};

/// A folder that is gone with its value: a copy of a committed model, to be spoilt.
struct Spoilt(PathBuf);

impl Spoilt {
    fn new(name: &str) -> Spoilt {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = format!("rbees-model-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(path);
        std::fs::create_dir_all(&path).expect("the temporary folder takes folders");
        for file in std::fs::read_dir(folder(name)).expect("it is committed") {
            let file = file.expect("it is committed").path();
            let to = path.join(file.file_name().expect("a file"));
            std::fs::copy(file, to).expect("the temporary folder takes files");
        }
        let _ = std::fs::remove_file(path.join("model.gguf"));
        Spoilt(path)
    }

    /// With one text of a file replaced by another.
    fn replace(self, file: &str, from: &str, to: &str) -> Spoilt {
        let path = self.0.join(file);
        let text = std::fs::read_to_string(&path).expect("it is there");
        assert!(text.contains(from), "{file} has no {from}");
        std::fs::write(&path, text.replacen(from, to, 1)).expect("it can be written");
        self
    }

    fn without(self, file: &str) -> Spoilt {
        std::fs::remove_file(self.0.join(file)).expect("it is there");
        self
    }

    fn check(&self, expected: &str) {
        let error = self.open().expect_err(expected);
        assert!(error.contains(expected), "expected '{expected}' in '{error}'");
        assert!(!error.contains(char::is_control) && error.chars().count() < 400, "{error:?}");
    }

    fn open(&self) -> std::result::Result<(), String> {
        let budget = Budget { sequences: 2, kv_bytes: 1 << 20 };
        let means = Means { kv: KvKind::F32, threads: 1, budget };
        let model = Model::open(&self.0).map_err(|error| error.to_string())?;
        model
            .decoder(&Device::Cpu, means, &mut |_| {})
            .map(|_| ())
            .map_err(|error| error.to_string())
    }
}

impl Drop for Spoilt {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_configuration_that_lies_is_told() {
    let spoilt = |from: &str, to: &str| Spoilt::new("mistral").replace("config.json", from, to);
    spoilt("\"mistral\"", "\"bert\"").check(
        "its architecture is 'bert'; this worker runs: llama, mistral, qwen2, qwen3, gemma3, phi3",
    );
    spoilt("\"hidden_size\": 32", "\"hidden_size\": -1").check("isn't negative at 'hidden_size'");
    spoilt("\"hidden_size\": 32", "\"hidden_size\": 64").check("should be [101, 64]");
    spoilt("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1e9").check("at most 512 layers");
    spoilt("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3").check("found none of that name");
    spoilt("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1").check("beyond its 1 layers");
    spoilt("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3").check("evenly");
    spoilt("\"head_dim\": 8", "\"head_dim\": 7").check("even head width");
    spoilt("\"vocab_size\": 101", "\"vocab_size\": 1e11").check("expected a vocabulary");
    spoilt("\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": -1").check("the norms' epsilon");
    spoilt("\"sliding_window\": 12", "\"sliding_window\": 0")
        .check("a sliding window of at least 1");
    spoilt("\"silu\"", "\"relu\"").check("the activation 'relu' is unknown");
    spoilt("\"default\"", "\"spiral\"").check("the rotation's scaling 'spiral' is unknown");
    spoilt("\"rope_theta\": 10000.0", "\"rope_theta\": 0").check("the rotation's base");
    spoilt("{", "[").check("expected a JSON object");
    Spoilt::new("mistral").without("config.json").check("expected config.json or one .gguf file");
    let deep = Spoilt::new("mistral");
    std::fs::write(deep.0.join("config.json"), "[".repeat(200_000)).expect("it can be written");
    deep.check("expected a JSON object");
    let longrope = Spoilt::new("phi3").replace("config.json", "1.3", "-1.3");
    longrope.check("positive divisors of the rotation");
}

#[test]
fn an_index_that_lies_is_told() {
    const INDEX: &str = "model.safetensors.index.json";
    let spoilt = |from: &str, to: &str| Spoilt::new("llama").replace(INDEX, from, to);
    let second = "model-00002-of-00002.safetensors";
    spoilt("model-00001-of-00002", "../model-00001-of-00002").check("files beside it");
    spoilt("model-00001-of-00002", "/etc/passwd").check("files beside it");
    spoilt("model-00001-of-00002.safetensors", ".").check("files beside it");
    spoilt("weight_map", "map").check("a 'weight_map'");
    spoilt("lm_head.weight", "lm_tail.weight").check("'lm_tail.weight' is not in");
    Spoilt::new("llama").without(second).check(second);
    let twice = Spoilt::new("llama");
    let first = twice.0.join("model-00001-of-00002.safetensors");
    std::fs::copy(first, twice.0.join(second)).expect("it can be copied");
    twice.check("as well");
}

/// A safetensors file of any header and any data.
fn tensors(header: &str, data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + data, 0);
    file
}

#[test]
fn a_safetensors_header_that_lies_is_told() {
    let check = |bytes: &[u8], expected: &str| {
        let file = Scratch::new(bytes);
        let error = safetensors::Shard::open(file.path()).map(|_| ()).expect_err(expected);
        let error = error.to_string();
        assert!(error.contains(expected), "expected '{expected}' in '{error}'");
        assert!(!error.contains(char::is_control) && error.chars().count() < 400, "{error:?}");
    };
    let one = |dtype: &str, shape: &str, from: &str, to: &str| {
        format!(
            "{{\"a\":{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":[{from},{to}]}}}}"
        )
    };
    let sound = tensors(&one("F32", "[2,2]", "0", "16"), 16);
    let shard = safetensors::Shard::open(Scratch::new(&sound).path()).expect("a sound file");
    assert_eq!((shard.tensors[0].bytes, shard.tensors[0].offset), (16, sound.len() as u64 - 16));
    for cut in 0..sound.len() {
        assert!(safetensors::Shard::open(Scratch::new(&sound[..cut]).path()).is_err(), "cut {cut}");
    }
    check(&[], "can't be read");
    check(&u64::MAX.to_le_bytes(), "expected a header of at most");
    check(&tensors("{", 0), "no list of tensors");
    check(&tensors("[]", 0), "no list of tensors");
    check(&tensors(&"[".repeat(100_000), 0), "no list of tensors");
    check(&tensors(&one("F33", "[2,2]", "0", "16"), 16), "unknown type 'F33'");
    check(&tensors(&one("F32", "[2,3]", "0", "16"), 16), "needs 24 bytes");
    check(&tensors(&one("F32", "[2,2]", "16", "0"), 16), "needs 16 bytes");
    check(&tensors(&one("F32", "[2,2]", "4", "20"), 20), "overlap or leave holes");
    check(&tensors(&one("F32", "[2,2]", "0", "16"), 12), "cut short");
    check(&tensors(&one("F32", "[2,2]", "0", "16"), 20), "its tensors end at byte 16");
    check(&tensors(&one("F32", "[1,1,1,1,4]", "0", "16"), 16), "5 dimensions");
    let huge = "[4294967296,4294967296,4]";
    check(&tensors(&one("F32", huge, "0", "16"), 16), "64 bits can't hold");
    let part = one("U8", "[4]", "0", "4");
    let twice = format!("{},{}", &part[..part.len() - 1], &part[1..]);
    check(&tensors(&twice, 4), "'a' stands there twice");
    let overlap = twice.replacen("\"a\"", "\"b\"", 1);
    check(&tensors(&overlap, 4), "overlap or leave holes");
}

#[test]
fn weights_that_are_no_numbers_are_told() {
    let nan = |name: &str, from: f32| {
        let spoilt = Spoilt::new(name);
        let path = spoilt.0.join("model.safetensors");
        let mut bytes = std::fs::read(&path).expect("it is there");
        let last = bytes.len() - size_of::<f32>();
        bytes[last..].copy_from_slice(&from.to_le_bytes());
        std::fs::write(&path, bytes).expect("it can be written");
        spoilt
    };
    // The last tensor of the file is the last norm.
    nan("mistral", f32::NAN).check("holds NaN at place 31");
    nan("mistral", f32::INFINITY).check("holds inf at place 31");
    let block = |scale: u16| {
        let mut block = [0; 34];
        block[..2].copy_from_slice(&scale.to_le_bytes());
        block
    };
    use crate::engine::gguf::DType;
    assert!(weights::finite(DType::Q8_0, &block(0x3c00)));
    assert!(!weights::finite(DType::Q8_0, &block(0x7c00)));
    assert!(!weights::finite(DType::BF16, &[0, 0, 0xc0, 0x7f]));
}

#[test]
fn metadata_that_lies_is_told() {
    let llama = |heads: u32, layers: u32| {
        GgufBuilder::new()
            .meta_str("general.architecture", "llama")
            .meta_u32("llama.context_length", 64)
            .meta_u32("llama.embedding_length", 8)
            .meta_u32("llama.block_count", layers)
            .meta_u32("llama.feed_forward_length", 8)
            .meta_u32("llama.attention.head_count", heads)
            .meta_f32("llama.attention.layer_norm_rms_epsilon", 1e-5)
            .tensor("token_embd.weight", &[3, 8], F32, &[0; 96])
    };
    let check = |file: GgufBuilder, expected: &str| {
        let file = Scratch::new(&file.build());
        let error = Model::open(file.path()).map(|_| ()).expect_err(expected).to_string();
        assert!(error.contains(expected), "expected '{expected}' in '{error}'");
    };
    check(llama(0, 1), "expected heads from 1");
    check(llama(2, 4_000_000_000), "at most 512 layers");
    check(llama(2, 1).meta_u32("llama.rope.dimension_count", 6), "turning dimensions");
    check(llama(2, 1).meta_u32("llama.attention.value_length", 2), "heads of one width");
    check(llama(2, 1).meta_f32("llama.rope.freq_base", f32::NAN), "the rotation's base");
    check(llama(2, 1).tensor("rope_freqs.weight", &[2], F32, &[0; 8]), "divisors");
    let spiral = llama(2, 1).meta_str("llama.rope.scaling.type", "spiral");
    check(spiral.meta_f32("llama.rope.scaling.factor", 2.0), "'spiral' is unknown");
    let file = Scratch::new(&llama(2, 1).build());
    let model = Model::open(file.path()).expect("a sound header");
    let budget = Budget { sequences: 1, kv_bytes: 1 << 20 };
    let means = Means { kv: KvKind::F32, threads: 1, budget };
    let error = model
        .decoder(&Device::Cpu, means, &mut |_| {})
        .map(|_| ())
        .expect_err("no layers")
        .to_string();
    assert!(error.contains("expected the tensor 'output_norm.weight', found none"), "{error}");
}

#[test]
fn no_mutation_of_a_model_makes_it_panic() {
    let whole = tiny_llama(3);
    let budget = Budget { sequences: 1, kv_bytes: 1 << 20 };
    for seed in 0..300 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut bytes = whole.clone();
        for _ in 0..1 + random.next_u32() % 4 {
            // Metadata stand first; weights fill the rest.
            let within = if random.next_u32() % 4 == 0 { bytes.len() } else { 20_000 };
            let at = random.next_u32() as usize % within;
            bytes[at] = random.next_u32() as u8;
        }
        let file = Scratch::new(&bytes);
        let Ok(model) = Model::open(file.path()) else { continue };
        let means = Means { kv: KvKind::F16, threads: 1, budget };
        let Ok(mut decoder) = model.decoder(&Device::Cpu, means, &mut |_| {}) else { continue };
        let chunk = Chunk { blocks: &[0], position: 0, tokens: &[0, 1], logits: true };
        let _ = decoder.step(&[chunk], &mut Logits::default());
    }
}
