//! Builds GGUF files for tests, byte by byte: small ones to check headers with, damaged ones, and a
//! complete tiny llama with random weights. Never touches the disk.
#![allow(dead_code)] // each test crate takes what it needs

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// The ggml number of the type F32.
pub const F32: u32 = 0;
/// The ggml number of the type Q8_0: blocks of 32 weights, 34 bytes each.
pub const Q8_0: u32 = 8;

/// A GGUF file under construction: metadata and tensors in the order of the calls.
pub struct GgufBuilder {
    version: u32,
    alignment: usize,
    entries: u64,
    metadata: Vec<u8>,
    tensors: u64,
    infos: Vec<u8>,
    data: Vec<u8>,
}

impl Default for GgufBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl GgufBuilder {
    /// An empty file of version 3, tensors aligned to 32 bytes.
    pub fn new() -> Self {
        GgufBuilder {
            version: 3,
            alignment: 32,
            entries: 0,
            metadata: Vec::new(),
            tensors: 0,
            infos: Vec::new(),
            data: Vec::new(),
        }
    }

    /// Another version number.
    pub fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// Another alignment of the data; writes no metadata.
    pub fn align_data(mut self, bytes: usize) -> Self {
        self.alignment = bytes;
        self
    }

    /// An entry of any type, its value as bytes.
    pub fn meta_raw(mut self, key: &str, code: u32, value: &[u8]) -> Self {
        self.entries += 1;
        push_text(&mut self.metadata, key.as_bytes());
        self.metadata.extend(code.to_le_bytes());
        self.metadata.extend(value);
        self
    }

    /// An array of any element type, its elements as bytes.
    pub fn meta_list_raw(self, key: &str, code: u32, count: u64, elements: &[u8]) -> Self {
        let mut value = code.to_le_bytes().to_vec();
        value.extend(count.to_le_bytes());
        value.extend(elements);
        self.meta_raw(key, 9, &value)
    }

    /// A text.
    pub fn meta_str(self, key: &str, value: &str) -> Self {
        let mut bytes = Vec::new();
        push_text(&mut bytes, value.as_bytes());
        self.meta_raw(key, 8, &bytes)
    }

    /// An unsigned 32-bit integer.
    pub fn meta_u32(self, key: &str, value: u32) -> Self {
        self.meta_raw(key, 4, &value.to_le_bytes())
    }

    /// A 32-bit float.
    pub fn meta_f32(self, key: &str, value: f32) -> Self {
        self.meta_raw(key, 6, &value.to_le_bytes())
    }

    /// A boolean.
    pub fn meta_bool(self, key: &str, value: bool) -> Self {
        self.meta_raw(key, 7, &[value.into()])
    }

    /// An array of texts.
    pub fn meta_strs<S: AsRef<str>>(self, key: &str, values: &[S]) -> Self {
        let mut bytes = Vec::new();
        for value in values {
            push_text(&mut bytes, value.as_ref().as_bytes());
        }
        self.meta_list_raw(key, 8, values.len() as u64, &bytes)
    }

    /// An array of 32-bit floats.
    pub fn meta_f32s(self, key: &str, values: &[f32]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.meta_list_raw(key, 6, values.len() as u64, &bytes)
    }

    /// An array of signed 32-bit integers.
    pub fn meta_i32s(self, key: &str, values: &[i32]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.meta_list_raw(key, 5, values.len() as u64, &bytes)
    }

    /// A tensor; dimensions outermost first, `dtype` as ggml's number, placed behind the last one.
    pub fn tensor(mut self, name: &str, dims: &[u64], dtype: u32, bytes: &[u8]) -> Self {
        self.data.resize(self.data.len().next_multiple_of(self.alignment), 0);
        let offset = self.data.len() as u64;
        self.data.extend(bytes);
        self.tensor_at(name, dims, dtype, offset)
    }

    /// The description of a tensor at any offset, without data.
    pub fn tensor_at(mut self, name: &str, dims: &[u64], dtype: u32, offset: u64) -> Self {
        self.tensors += 1;
        push_text(&mut self.infos, name.as_bytes());
        self.infos.extend((dims.len() as u32).to_le_bytes());
        for dim in dims.iter().rev() {
            self.infos.extend(dim.to_le_bytes());
        }
        self.infos.extend(dtype.to_le_bytes());
        self.infos.extend(offset.to_le_bytes());
        self
    }

    /// The whole file.
    pub fn build(self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(self.version.to_le_bytes());
        file.extend(self.tensors.to_le_bytes());
        file.extend(self.entries.to_le_bytes());
        file.extend(self.metadata);
        file.extend(self.infos);
        file.resize(file.len().next_multiple_of(self.alignment), 0);
        file.extend(self.data);
        file
    }
}

fn push_text(bytes: &mut Vec<u8>, text: &[u8]) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text);
}

/// What a tiny llama shall be like.
#[derive(Clone, Debug)]
pub struct TinyOptions {
    /// Seed of the weights.
    pub seed: u64,
    /// Layers.
    pub layers: u32,
    /// Longest sequence it says it can take, tokens.
    pub context_length: u32,
    /// Tokens besides the specials, the bytes and the merges; each must be a merge of none.
    pub extra_tokens: Vec<String>,
    /// Whether it has a chat template.
    pub with_template: bool,
    /// The chat template, if it has one.
    pub template: String,
    /// The name of the pre-tokenizer.
    pub pre: String,
}

impl Default for TinyOptions {
    fn default() -> Self {
        TinyOptions {
            seed: 1,
            layers: 2,
            context_length: 512,
            extra_tokens: Vec::new(),
            with_template: true,
            template: TINY_TEMPLATE.to_owned(),
            pre: "smollm".to_owned(),
        }
    }
}

/// The chat template of a tiny llama: ChatML, without a system prompt of its own.
pub const TINY_TEMPLATE: &str = "\
{% for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}";

/// Token ids of a tiny llama: end of text, start and end of a message.
pub const TINY_SPECIALS: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

const TINY_MERGES: [&str; 12] =
    ["Ġ t", "h e", "Ġ a", "i n", "Ġt he", "o n", "e r", "in g", "l l", "o u", "Ġ w", "Ġ s"];

/// A llama small enough to run in a moment, its weights drawn by `seed`.
pub fn tiny_llama(seed: u64) -> Vec<u8> {
    tiny_llama_with(&TinyOptions { seed, ..TinyOptions::default() })
}

/// A llama small enough to run in a moment: embedding 64, 4 heads (2 for keys and values),
/// feed-forward 128, F32; byte-level BPE with every byte and a few merges.
pub fn tiny_llama_with(options: &TinyOptions) -> Vec<u8> {
    const EMBEDDING: u64 = 64;
    const KEY_VALUE: u64 = 32;
    const FEED_FORWARD: u64 = 128;
    let tokens = tiny_tokens(&options.extra_tokens);
    let types: Vec<i32> =
        tokens.iter().map(|t| if TINY_SPECIALS.contains(&t.as_str()) { 3 } else { 1 }).collect();
    let vocabulary = tokens.len() as u64;
    let mut file = tiny_metadata(options).meta_strs("tokenizer.ggml.tokens", &tokens);
    file = file.meta_i32s("tokenizer.ggml.token_type", &types);
    if options.with_template {
        file = file.meta_str("tokenizer.chat_template", &options.template);
    }
    let mut random = ChaCha8Rng::seed_from_u64(options.seed);
    let mut add = |file: GgufBuilder, name: &str, rows: u64, columns: u64, scale: f32| {
        let bytes = uniform(&mut random, rows * columns, scale);
        file.tensor(name, &[rows, columns], F32, &bytes)
    };
    let ones = uniform_ones(EMBEDDING);
    file = add(file, "token_embd.weight", vocabulary, EMBEDDING, 1.0);
    for layer in 0..options.layers {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        file = file.tensor(&name("attn_norm"), &[EMBEDDING], F32, &ones);
        file = file.tensor(&name("ffn_norm"), &[EMBEDDING], F32, &ones);
        file = add(file, &name("attn_q"), EMBEDDING, EMBEDDING, 0.4);
        file = add(file, &name("attn_k"), KEY_VALUE, EMBEDDING, 0.4);
        file = add(file, &name("attn_v"), KEY_VALUE, EMBEDDING, 0.4);
        file = add(file, &name("attn_output"), EMBEDDING, EMBEDDING, 0.4);
        file = add(file, &name("ffn_gate"), FEED_FORWARD, EMBEDDING, 0.4);
        file = add(file, &name("ffn_up"), FEED_FORWARD, EMBEDDING, 0.4);
        file = add(file, &name("ffn_down"), EMBEDDING, FEED_FORWARD, 0.4);
    }
    file = file.tensor("output_norm.weight", &[EMBEDDING], F32, &ones);
    add(file, "output.weight", vocabulary, EMBEDDING, 0.6).build()
}

fn tiny_metadata(options: &TinyOptions) -> GgufBuilder {
    GgufBuilder::new()
        .meta_str("general.architecture", "llama")
        .meta_str("general.name", "tiny llama")
        .meta_u32("llama.block_count", options.layers)
        .meta_u32("llama.context_length", options.context_length)
        .meta_u32("llama.embedding_length", 64)
        .meta_u32("llama.feed_forward_length", 128)
        .meta_u32("llama.attention.head_count", 4)
        .meta_u32("llama.attention.head_count_kv", 2)
        .meta_u32("llama.rope.dimension_count", 16)
        .meta_f32("llama.rope.freq_base", 10_000.0)
        .meta_f32("llama.attention.layer_norm_rms_epsilon", 1e-5)
        .meta_str("tokenizer.ggml.model", "gpt2")
        .meta_str("tokenizer.ggml.pre", &options.pre)
        .meta_strs("tokenizer.ggml.merges", &TINY_MERGES)
        .meta_u32("tokenizer.ggml.bos_token_id", 1)
        .meta_u32("tokenizer.ggml.eos_token_id", 2)
        .meta_bool("tokenizer.ggml.add_bos_token", false)
}

/// The specials, one token a byte, one a merge, then `extra`.
pub fn tiny_tokens(extra: &[String]) -> Vec<String> {
    let mut tokens: Vec<String> = TINY_SPECIALS.iter().map(|text| (*text).to_owned()).collect();
    tokens.extend((0..=255).map(|byte| byte_letter(byte).to_string()));
    tokens.extend(TINY_MERGES.iter().map(|merge| merge.replace(' ', "")));
    tokens.extend_from_slice(extra);
    tokens
}

/// The letter that byte-level BPE writes for a byte: itself where it prints, else one from U+0100.
pub fn byte_letter(byte: u8) -> char {
    let prints = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if prints(byte) {
        return byte.into();
    }
    let before = (0..byte).filter(|other| !prints(*other)).count() as u32;
    char::from_u32(0x100 + before).expect("U+0100 to U+0143 are letters")
}

/// `count` weights between `-scale` and `scale`.
fn uniform(random: &mut ChaCha8Rng, count: u64, scale: f32) -> Vec<u8> {
    let draw = |word: u32| (word >> 8) as f32 / (1 << 23) as f32 - 1.0;
    (0..count).flat_map(|_| (draw(random.next_u32()) * scale).to_le_bytes()).collect()
}

fn uniform_ones(count: u64) -> Vec<u8> {
    (0..count).flat_map(|_| 1f32.to_le_bytes()).collect()
}
