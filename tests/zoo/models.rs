//! Hostile model files, made byte by byte: see README.md for what each tries. Never touches the disk.

use crate::gguf::{
    F32, GgufBuilder, Q8_0, TINY_SPECIALS, TinyOptions, tiny_llama_with, tiny_tokens,
};

/// A file that nobody should load, by name.
pub struct Animal {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    /// A piece of the line that it ends with.
    pub says: &'static str,
}

fn animal(name: &'static str, bytes: Vec<u8>, says: &'static str) -> Animal {
    Animal { name, bytes, says }
}

/// All of them.
pub fn all() -> Vec<Animal> {
    let mut all = starts();
    all.extend(metadata());
    all.extend(tensors());
    all.extend(descriptions());
    all.extend(languages());
    all
}

fn counts(tensors: u64, entries: u64) -> Vec<u8> {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend(tensors.to_le_bytes());
    bytes.extend(entries.to_le_bytes());
    bytes
}

fn starts() -> Vec<Animal> {
    let whole = tiny();
    let with_version = |version| GgufBuilder::new().version(version).build();
    vec![
        animal("empty", Vec::new(), "cut short"),
        animal("magic alone", b"GGUF".to_vec(), "cut short"),
        animal("zip", b"PK\x03\x04rest of an archive".to_vec(), "expected 'GGUF'"),
        animal("html", b"<!DOCTYPE html><html>not found".to_vec(), "expected 'GGUF'"),
        animal("version 1", with_version(1), "version 1"),
        animal("version of the future", with_version(99), "version 99"),
        animal("big endian", with_version(3 << 24), "big-endian"),
        animal("endless tensors", counts(u64::MAX, 0), "tensors"),
        animal("endless metadata", counts(0, u64::MAX), "metadata entries"),
        animal("full counts, no bytes", counts(16_384, 4_096), "cut short"),
        animal("cut in the metadata", whole[..200].to_vec(), "cut short"),
        animal("cut in the vocabulary", whole[..2_000].to_vec(), "cut short"),
        animal("cut in the weights", whole[..whole.len() / 2].to_vec(), "cut short"),
        animal("cut by one byte", whole[..whole.len() - 1].to_vec(), "cut short"),
    ]
}

/// One metadata entry, as raw as needed.
fn entry(key: &[u8], code: u32, value: &[u8]) -> Vec<u8> {
    let mut bytes = counts(0, 1);
    bytes.extend((key.len() as u64).to_le_bytes());
    bytes.extend(key);
    bytes.extend(code.to_le_bytes());
    bytes.extend(value);
    bytes
}

fn list(code: u32, count: u64, elements: &[u8]) -> Vec<u8> {
    let mut value = code.to_le_bytes().to_vec();
    value.extend(count.to_le_bytes());
    value.extend(elements);
    entry(b"k", 9, &value)
}

fn metadata() -> Vec<Animal> {
    let mut long_key = counts(0, 1);
    long_key.extend(u64::MAX.to_le_bytes());
    long_key.extend([b'k'; 64]); // enough of it that the length itself is looked at
    let twice = GgufBuilder::new().meta_u32("k", 1).meta_u32("k", 2).build();
    // An array in an array in an array …: a reader that recurses loses its stack.
    let deep: Vec<u8> = (0..20_000)
        .flat_map(|_| [9u32.to_le_bytes().to_vec(), 1u64.to_le_bytes().to_vec()].concat())
        .collect();
    let alignment = |bytes| GgufBuilder::new().meta_u32("general.alignment", bytes).build();
    vec![
        animal("endless key", long_key, "at most"),
        animal("key of 65,536 bytes", entry(&[b'k'; 65_536], 4, &[0; 4]), "at most"),
        animal("empty key", entry(b"", 4, &[0; 4]), "empty"),
        animal("key that is no text", entry(&[0xff, 0xfe], 4, &[0; 4]), "UTF-8"),
        animal("key twice", twice, "twice"),
        animal("value of type 13", entry(b"k", 13, &[0; 8]), "type 13"),
        animal("boolean of 2", entry(b"k", 7, &[2]), "boolean"),
        animal("endless text", entry(b"k", 8, &u64::MAX.to_le_bytes()), "at most"),
        animal("array of arrays", list(9, 1, &[]), "arrays within arrays"),
        animal("20,000 nested arrays", entry(b"k", 9, &deep), "arrays within arrays"),
        animal("endless bytes", list(0, u64::MAX, &[]), "array elements"),
        animal("endless texts", list(8, 2_000_000, &[]), "cut short"),
        animal("alignment 0", alignment(0), "power of two"),
        animal("alignment 3", alignment(3), "power of two"),
        animal("alignment 2^31", alignment(1 << 31), "power of two"),
    ]
}

fn tensors() -> Vec<Animal> {
    let at = |dims: &[u64], dtype, offset| {
        GgufBuilder::new().tensor_at("t", dims, dtype, offset).build()
    };
    let two = |first: &str, second: &str, offset| {
        GgufBuilder::new().tensor(first, &[8], F32, &[0; 32]).tensor_at(second, &[8], F32, offset)
    };
    let long = "n".repeat(300);
    let named = |name: &str| GgufBuilder::new().tensor_at(name, &[1 << 40], F32, 0).build();
    vec![
        animal("no dimension", at(&[], F32, 0), "dimensions"),
        animal("five dimensions", at(&[1; 5], F32, 0), "dimensions"),
        animal("dimension 0", at(&[4, 0], F32, 0), "dimension is 0"),
        animal("2^32 by 2^32", at(&[1 << 32, 1 << 32], F32, 0), "64 bits"),
        animal("2^63 weights", at(&[1 << 63], F32, 0), "64 bits"),
        animal("weights beyond the file", at(&[1 << 40], F32, 0), "cut short"),
        animal("a type that is gone", at(&[32], 4, 0), "type number 4"),
        animal("a type without arithmetic", at(&[256], 23, 0), "IQ4_XS"),
        animal("a type of the future", at(&[32], u32::MAX, 0), "type number"),
        animal("half a block", at(&[33], Q8_0, 0), "whole blocks"),
        animal("crooked offset", at(&[8], F32, 4), "multiple"),
        animal("offset that wraps", at(&[8], F32, u64::MAX - 31), "64 bits"),
        animal("two in one place", two("a", "b", 0).build(), "overlaps"),
        animal("one name twice", two("a", "a", 32).build(), "twice"),
        animal("name of 300 bytes", named(&long), "at most"),
        animal("name that colours the screen", named("\u{1b}[31mred\u{7}"), "cut short"),
    ]
}

fn tiny() -> Vec<u8> {
    tiny_llama_with(&TinyOptions::default())
}

/// The tiny model with other bytes for a value in its metadata.
fn with_value(key: &str, value: &[u8]) -> Vec<u8> {
    let mut file = tiny();
    let found = file.windows(key.len()).position(|window| window == key.as_bytes());
    let at = found.expect("the tiny model has the key") + key.len() + 4;
    file[at..at + value.len()].copy_from_slice(value);
    file
}

fn with_number(key: &str, value: u32) -> Vec<u8> {
    with_value(key, &value.to_le_bytes())
}

/// The tiny model with a name of the same length in another's place.
fn renamed(from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len(), "{from}, {to}");
    let mut file = tiny();
    let found = file.windows(from.len()).position(|window| window == from.as_bytes());
    let at = found.expect("the tiny model has the name");
    file[at..at + to.len()].copy_from_slice(to.as_bytes());
    file
}

fn descriptions() -> Vec<Animal> {
    let nothing = GgufBuilder::new().build();
    let number = GgufBuilder::new().meta_u32("general.architecture", 7).build();
    let alone = GgufBuilder::new().meta_str("general.architecture", "llama").build();
    let mut damaged = tiny();
    let end = damaged.len();
    damaged[end - 64..end - 60].copy_from_slice(&f32::NAN.to_le_bytes());
    let mut infinite = tiny();
    infinite[end - 64..end - 60].copy_from_slice(&f32::INFINITY.to_le_bytes());
    vec![
        animal("no architecture", nothing, "general.architecture"),
        animal("architecture is a number", number, "general.architecture"),
        animal("unknown architecture", renamed("llama", "lhama"), "lhama"),
        animal("architecture and nothing else", alone, ""),
        animal("no layers", with_number("llama.block_count", 0), ""),
        animal("2^32 layers", with_number("llama.block_count", u32::MAX), ""),
        animal("more layers than weights", with_number("llama.block_count", 3), ""),
        animal("no heads", with_number("llama.attention.head_count", 0), ""),
        animal("heads that do not divide", with_number("llama.attention.head_count", 7), ""),
        animal("more keys than queries", with_number("llama.attention.head_count_kv", 8), ""),
        animal("no keys", with_number("llama.attention.head_count_kv", 0), ""),
        animal("no width", with_number("llama.embedding_length", 0), ""),
        animal("another width", with_number("llama.embedding_length", 128), ""),
        animal("2^32 wide", with_number("llama.embedding_length", u32::MAX), ""),
        animal("no context", with_number("llama.context_length", 0), ""),
        animal("another middle", with_number("llama.feed_forward_length", 64), ""),
        animal("epsilon is no number", with_number("layer_norm_rms_epsilon", 0x7fc0_0000), ""),
        animal("odd rope", with_number("llama.rope.dimension_count", 15), ""),
        animal("a layer lacks a tensor", renamed("blk.1.ffn_up", "blk.9.ffn_up"), "ffn_up"),
        animal("no embedding", renamed("token_embd", "tocken_emb"), "token_embd"),
        animal("a weight is no number", damaged, "output.weight"),
        animal("a weight is infinite", infinite, "output.weight"),
    ]
}

fn languages() -> Vec<Animal> {
    let with = |change: fn(&mut TinyOptions)| {
        let mut options = TinyOptions::default();
        change(&mut options);
        tiny_llama_with(&options)
    };
    let twice = with(|o| o.extra_tokens = vec!["honey".into(), "honey".into()]);
    let template = |source: String| {
        tiny_llama_with(&TinyOptions { template: source, ..TinyOptions::default() })
    };
    let deep = format!("{{{{ {}1{} }}}}", "(".repeat(5_000), ")".repeat(5_000));
    assert!(tiny_tokens(&[]).len() > TINY_SPECIALS.len());
    vec![
        animal("unknown tokenizer", renamed("gpt2", "gpt9"), "gpt9"),
        animal("unknown pre-tokenizer", with(|o| o.pre = "mystery".into()), "mystery"),
        animal("no tokens", renamed("ggml.tokens", "ggml.tokans"), "tokens"),
        animal("a token twice", twice, "both"),
        animal("begins with no token", with_number("ggml.bos_token_id", 100_000), "bos"),
        animal("ends with no token", with_number("ggml.eos_token_id", u32::MAX), "eos"),
        animal("a merge of nothing", renamed("Ġ t", "Ġtt"), ""),
        animal("template that does not parse", template("{% for %}".into()), "template"),
        animal("template without end", template("{% if a %}".repeat(50)), "template"),
        animal("template 5,000 deep", template(deep), "template"),
        animal("template of 100,000 bytes", template("x".repeat(100_000)), "template"),
    ]
}
