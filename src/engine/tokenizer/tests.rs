//! The tokenizer against tiny vocabularies and against the default model's.

mod real;

use std::path::{Path, PathBuf};

use super::*;
use crate::engine::gguf::tests::{Scratch, support};
use support::{GgufBuilder, TinyOptions, byte_letter, tiny_llama_with, tiny_tokens};

fn tiny(options: &TinyOptions) -> Tokenizer {
    let file = Scratch::new(&tiny_llama_with(options));
    Tokenizer::from_gguf(&file.read().expect("a sound file")).expect("a sound tokenizer")
}

fn default_model() -> PathBuf {
    let name = "models/SmolLM2-135M-Instruct.Q4_1.gguf";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    assert!(path.exists(), "{name} is missing: run `make model`");
    path
}

fn smollm() -> Tokenizer {
    let gguf =
        Gguf::open(&default_model()).map(|(gguf, _)| gguf).expect("the default model is sound");
    Tokenizer::from_gguf(&gguf).expect("its tokenizer is known")
}

fn decoded(tokenizer: &Tokenizer, tokens: &[u32]) -> String {
    let bytes: Vec<u8> =
        tokens.iter().flat_map(|token| tokenizer.token_bytes(*token)).copied().collect();
    String::from_utf8(bytes).expect("whole text")
}

/// Metadata of a gpt2 tokenizer with the given merges and special ids.
fn small(tokens: &[String], merges: &[&str], types: &[i32]) -> GgufBuilder {
    GgufBuilder::new()
        .meta_str("tokenizer.ggml.model", "gpt2")
        .meta_str("tokenizer.ggml.pre", "gpt-2")
        .meta_strs("tokenizer.ggml.tokens", tokens)
        .meta_strs("tokenizer.ggml.merges", merges)
        .meta_i32s("tokenizer.ggml.token_type", types)
}

fn build(builder: GgufBuilder) -> Result<Tokenizer> {
    Tokenizer::from_gguf(&Scratch::new(&builder.build()).read().expect("a sound header"))
}

fn check_error(builder: GgufBuilder, expected: &str) {
    let error = build(builder).map(|_| ()).expect_err(expected);
    assert_eq!(error.kind(), Kind::Model);
    let text = error.to_string();
    assert!(text.contains(expected), "expected '{expected}' in '{text}'");
    assert!(!text.contains(char::is_control), "{text:?}");
}

#[test]
fn every_text_comes_back_from_its_tokens() {
    for pre in ["smollm", "gpt2", "llama-bpe", "qwen2"] {
        let tokenizer = tiny(&TinyOptions { pre: pre.to_owned(), ..TinyOptions::default() });
        for text in ["", " ", "the thing, in 2024!\n\n  ok", "Grüße 蜂蜜 🐝👩‍🚀\0\u{7f}", "a\r\n\t b"]
        {
            let tokens = tokenizer.encode(text).expect("any text has tokens");
            assert_eq!(decoded(&tokenizer, &tokens), text, "{pre}");
        }
    }
}

#[test]
fn merges_are_applied() {
    let tokenizer = tiny(&TinyOptions::default());
    let the = (tiny_tokens(&[]).iter().position(|token| token == "Ġthe")).expect("a tiny token");
    assert_eq!(tokenizer.encode(" the the").ok(), Some(vec![the as u32; 2]));
}

#[test]
fn specials_are_text_in_a_prompt_and_tokens_in_a_chat() {
    let tokenizer = tiny(&TinyOptions::default());
    let text = "<|im_start|>user\nhi<|im_end|>";
    let prompt = tokenizer.encode(text).expect("tokens");
    assert!(prompt.iter().all(|token| *token > 2), "{prompt:?}");
    assert_eq!(decoded(&tokenizer, &prompt), text);
    let chat = tokenizer.encode_marked(text, str::to_owned).expect("tokens");
    assert_eq!((chat[0], chat.last()), (1, Some(&2)));
    assert_eq!(decoded(&tokenizer, &chat), "user\nhi");
}

#[test]
fn user_defined_tokens_are_found_in_any_text_unless_they_look_like_markup() {
    let extra = ["<tool>", "<|tool|>", "<|end|>"].map(str::to_owned);
    let tokens = tiny_tokens(&extra);
    let types: Vec<i32> = (0..tokens.len()).map(|id| if id >= 271 { 4 } else { 1 }).collect();
    let tokenizer = build(small(&tokens, &[], &types)).expect("a sound tokenizer");
    let plain = tokenizer.encode("<tool><|tool|>").expect("tokens");
    assert_eq!(plain[0], 271);
    assert!(!plain.contains(&272));
    assert_eq!(tokenizer.encode_marked("<tool><|tool|>", str::to_owned).ok(), Some(vec![271, 272]));
    assert_eq!(tokenizer.token_bytes(271), b"<tool>");
    assert_eq!(tokenizer.token_bytes(272), b"");
    assert!(tokenizer.ends(273) && !tokenizer.ends(272));
    // Normal tokens end nothing, whatever they are called.
    assert!(!tokenizer.ends(0));
}

#[test]
fn token_bytes_undo_the_letters() {
    let tokenizer = tiny(&TinyOptions::default());
    for byte in 0..=255u8 {
        assert_eq!(tokenizer.token_bytes(3 + u32::from(byte)), [byte]);
    }
    assert_eq!(tokenizer.token_bytes(0), b"");
    assert_eq!(tokenizer.token_bytes(u32::MAX), b"");
    assert_eq!(tokenizer.token_bytes(tokenizer.vocabulary()), b"");
    assert_eq!(byte_level::letters().len(), 256);
    assert!((0..=255).all(|byte| byte_level::letters()[&byte_letter(byte)] == byte));
}

#[test]
fn whatever_is_wrong_is_told() {
    let tokens = ["a", "b", "ab"].map(str::to_owned);
    let sound = || small(&tokens, &["a b"], &[1, 1, 1]);
    assert!(build(sound()).is_ok());
    check_error(GgufBuilder::new(), "expected a text at metadata key 'tokenizer.ggml.model'");
    check_error(
        GgufBuilder::new().meta_str("tokenizer.ggml.model", "bert\n"),
        "the tokenizer 'bert' is unknown; known: gpt2",
    );
    check_error(
        GgufBuilder::new()
            .meta_str("tokenizer.ggml.model", "gpt2")
            .meta_str("tokenizer.ggml.pre", "made-up"),
        "'made-up' is unknown; known: smollm, starcoder, refact, command-r, gpt-2, gpt2, phi-2, mpt, olmo, llama-bpe",
    );
    check_error(small(&[], &[], &[]), "is empty");
    check_error(small(&tokens, &[], &[1]), "a type for each of 3 tokens");
    check_error(small(&["a", "a"].map(str::to_owned), &[], &[1, 1]), "tokens 0 and 1 are both 'a'");
    check_error(small(&tokens, &["ab"], &[1, 1, 1]), "merge 0 'ab' has no space");
    check_error(small(&tokens, &["a x"], &[1, 1, 1]), "merge 0 'a x' names or makes");
    // Longer than any token: a panic in the crate if it got there.
    check_error(small(&tokens, &["ab ab"], &[1, 1, 1]), "merge 0 'ab ab' names or makes");
    check_error(
        sound().meta_u32("tokenizer.ggml.eos_token_id", 3),
        "expected one of 3 tokens at 'tokenizer.ggml.eos_token_id', found 3",
    );
}

#[test]
fn what_is_wrong_with_pieces_is_told() {
    let tokens = ["<unk>", "▁", "a", "▁a", "<0x41>"].map(str::to_owned);
    let pieces = |scores: &[f32]| {
        GgufBuilder::new()
            .meta_str("tokenizer.ggml.model", "llama")
            .meta_strs("tokenizer.ggml.tokens", &tokens)
            .meta_i32s("tokenizer.ggml.token_type", &[2, 1, 1, 1, 6])
            .meta_f32s("tokenizer.ggml.scores", scores)
    };
    let tokenizer = build(pieces(&[0.0, -1.0, -2.0, -3.0, 0.0])).expect("a sound tokenizer");
    assert_eq!(tokenizer.encode("aAb").ok(), Some(vec![3, 4, 0]));
    assert_eq!(decoded(&tokenizer, &[3, 4]), " aA");
    check_error(pieces(&[0.0]), "a finite score for each of 5 tokens");
    check_error(pieces(&[0.0, f32::NAN, 0.0, 0.0, 0.0]), "a finite score for each of 5 tokens");
    let charsmap =
        pieces(&[0.0; 5]).meta_list_raw("tokenizer.ggml.precompiled_charsmap", 0, 1, &[1]);
    check_error(charsmap, "rewrites characters by a table");
}

/// The ids that a row of logits can't choose, whatever the model says of them.
fn impossible(tokenizer: &Tokenizer) -> Vec<usize> {
    let mut logits = vec![0.0; tokenizer.vocabulary() as usize];
    tokenizer.forbid_gaps(&mut logits);
    (0..logits.len()).filter(|id| logits[*id] == f32::NEG_INFINITY).collect()
}

#[test]
fn ids_without_a_token_are_impossible() {
    let mut tokens = tiny_tokens(&[]);
    let mut types = vec![1; tokens.len()];
    assert_eq!(impossible(&build(small(&tokens, &[], &types)).expect("sound")), [0; 0]);
    // What converters write where a vocabulary is wider than its tokenizer.
    let first = tokens.len();
    tokens.extend(["[PAD7]".to_owned(), "[PAD8]".to_owned(), "[PADDLE]".to_owned()]);
    types.extend([5, 5, 1]);
    let tokenizer = build(small(&tokens, &[], &types)).expect("sound");
    assert_eq!(impossible(&tokenizer), [first, first + 1]);
    // A published vocabulary that skips ids.
    let json = std::fs::read_to_string(reference("qwen2.json")).expect("it is committed");
    let mut json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let last = Tokenizer::from_json(json.to_string().as_bytes(), &Default::default(), &[]);
    let last = last.expect("sound").vocabulary() as usize;
    json["model"]["vocab"]["蜂far"] = (last + 2).into();
    let tokenizer = Tokenizer::from_json(json.to_string().as_bytes(), &Default::default(), &[]);
    assert_eq!(impossible(&tokenizer.expect("sound")), [last, last + 1]);
}

#[test]
fn bos_comes_from_the_file_or_from_the_pre_tokenizer() {
    let tokenizer = tiny(&TinyOptions::default());
    assert_eq!((tokenizer.bos(), tokenizer.add_bos()), (Some(1), false));
    assert_eq!(tokenizer.bos_text(), "<|im_start|>");
    assert_eq!(tokenizer.eos_text(), "<|im_end|>");
    let tokens = ["a".to_owned()];
    let llama3 = |builder: GgufBuilder| {
        let builder = builder.meta_str("tokenizer.ggml.model", "gpt2");
        let builder = builder.meta_str("tokenizer.ggml.pre", "llama-bpe");
        let none: [&str; 0] = [];
        let builder = builder.meta_strs("tokenizer.ggml.merges", &none);
        build(builder.meta_strs("tokenizer.ggml.tokens", &tokens)).expect("a sound tokenizer")
    };
    let without = llama3(GgufBuilder::new());
    assert_eq!((without.bos(), without.add_bos(), without.bos_text()), (None, false, ""));
    assert!(llama3(GgufBuilder::new().meta_u32("tokenizer.ggml.bos_token_id", 0)).add_bos());
}

#[test]
fn the_default_model_tokenizes_as_transformers_does() {
    let tokenizer = smollm();
    assert_eq!(tokenizer.vocabulary(), 49_152);
    assert!(tokenizer.ends(0) && tokenizer.ends(2) && !tokenizer.ends(1) && !tokenizer.ends(17));
    assert!(!tokenizer.add_bos());
    // Ids by Hugging Face's `tokenizers` (Python), built from the same vocabulary and merges.
    for (text, expected) in GOLDEN {
        assert_eq!(tokenizer.encode(text).ok().as_deref(), Some(*expected), "{text:?}");
        let tokens = tokenizer.encode(text).expect("tokens");
        assert_eq!(decoded(&tokenizer, &tokens), *text);
    }
}

const GOLDEN: &[(&str, &[u32])] = &[
    ("Hello, world!", &[19556, 28, 905, 17]),
    (
        "The year 2024 had 366 days.",
        &[504, 713, 216, 34, 32, 34, 36, 761, 216, 35, 38, 38, 2009, 30],
    ),
    (
        "  leading\n\n\ttabs  and   spaces   ",
        &[216, 2899, 1116, 197, 100, 7366, 216, 284, 256, 5600, 333],
    ),
    ("don't we've I'LL she'd", &[12420, 982, 392, 3543, 339, 23, 16421, 1041, 6737]),
    (
        "fn main() { println!(\"{x:?}\"); } // ok",
        &[
            7853, 1085, 1000, 1662, 1628, 34115, 17, 45257, 104, 42, 47, 15201, 43, 4029, 13241,
            10907,
        ],
    ),
    (
        "蜂蜜は甘い。你好，世界",
        &[
            179, 246, 220, 179, 246, 246, 7365, 124, 16821, 242, 41679, 19076, 18645, 250, 48392,
            138, 12831, 7906, 240, 178, 239, 230,
        ],
    ),
    (
        "🐝👩\u{200d}🚀🏳️\u{200d}🌈 emoji",
        &[
            10813, 234, 247, 10813, 235, 119, 321, 231, 10813, 244, 218, 10813, 233, 128, 31752,
            321, 231, 10813, 230, 226, 649, 33777,
        ],
    ),
    (
        "Привет мир, γειά σου, مرحبا, हिन्दी, ภาษาไทย",
        &[
            155, 249, 46879, 16464, 32547, 41337, 7872, 9175, 28, 37831, 14240, 12001, 26112,
            32437, 39963, 28, 36395, 20602, 44626, 31462, 10805, 28, 12335, 134, 27011, 30658,
            16525, 44757, 37189, 28, 216, 10283, 250, 43662, 10283, 119, 43662, 31933, 222, 10283,
            241, 10283, 112,
        ],
    ),
    ("naïve café e\u{301}", &[3546, 46494, 37366, 297, 151, 219]),
    ("½ ² ① ٣ Ⅻ", &[16738, 216, 19133, 216, 173, 235, 250, 216, 164, 113, 216, 173, 223, 121]),
    (
        "a\u{a0}b\u{3000}c\u{2003}d\r\ne\rf",
        &[81, 15442, 82, 12109, 218, 83, 321, 221, 84, 201, 198, 85, 201, 86],
    ),
];

fn reference(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/references/tokenizers");
    folder.join(name)
}

/// That the tokenizer makes of 10,000 hard texts what `NAME.ids` says the libraries do that models
/// are trained with (`tests/references/make_tokenizers.py`), and back.
fn check_hard_texts(name: &str, tokenizer: &Tokenizer, back: impl Fn(&str) -> Option<String>) {
    use sha2::{Digest as _, Sha256};
    let read = |name: &str| std::fs::read_to_string(reference(name)).expect("it is committed");
    let texts: Vec<String> = serde_json::from_str(&read("texts.json")).expect("texts");
    assert_eq!(texts.len(), 10_000);
    let expected = read(&format!("{name}.ids"));
    let mut wrong = Vec::new();
    for (text, expected) in texts.iter().zip(expected.lines()) {
        let tokens = tokenizer.encode(text).expect("tokens");
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        let digest = Sha256::digest(bytes);
        let found: String = digest[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        if found != expected {
            wrong.push((text, tokens.clone()));
        }
        if let Some(back) = back(text) {
            assert_eq!(decoded(tokenizer, &tokens), back, "{name}");
        }
    }
    let first = wrong.first();
    assert!(wrong.is_empty(), "{name}: {} texts differ, first {first:?}", wrong.len());
}

#[test]
fn hard_texts_tokenize_as_the_references_do() {
    let kinds = ["smollm", "gpt-2", "llama-bpe", "dbrx", "tekken", "qwen2", "gpt-4o"];
    for kind in kinds.into_iter().chain(["sentencepiece-bpe", "sentencepiece-unigram"]) {
        let (gguf, _) = Gguf::open(&reference(&format!("{kind}.gguf"))).expect("a sound file");
        let tokenizer = Tokenizer::from_gguf(&gguf).expect("a known tokenizer");
        check_hard_texts(kind, &tokenizer, |text| match kind {
            "qwen2" => None, // composes characters
            "sentencepiece-bpe" | "sentencepiece-unigram" if !text.is_empty() => {
                Some(format!(" {}", text.replace('▁', " ")))
            }
            _ => Some(text.to_owned()),
        });
    }
}

fn published(kind: &str) -> Tokenizer {
    let json = std::fs::read(reference(&format!("{kind}.json"))).expect("it is committed");
    let config = serde_json::json!({ "bos_token": { "content": "<s>" }, "eos_token": "</s>" });
    let config = config.as_object().expect("an object");
    Tokenizer::from_json(&json, config, &[2, 9_999]).expect("a known tokenizer")
}

#[test]
fn published_tokenizers_make_what_their_library_makes() {
    for kind in ["smollm", "llama-bpe", "qwen2"] {
        check_hard_texts(kind, &published(kind), |text| (kind != "qwen2").then(|| text.to_owned()));
    }
    for kind in ["metaspace", "gemma"] {
        check_hard_texts(kind, &published(kind), |_| None);
    }
}

#[test]
fn a_published_tokenizer_keeps_marks_apart() {
    for kind in ["metaspace", "gemma"] {
        let tokenizer = published(kind);
        assert_eq!((tokenizer.bos(), tokenizer.add_bos()), (Some(1), true), "{kind}");
        assert_eq!((tokenizer.bos_text(), tokenizer.eos_text()), ("<s>", "</s>"));
        assert!(tokenizer.ends(2) && !tokenizer.ends(1));
        let marked = |text: &str| tokenizer.encode_marked(text, str::to_owned).expect("tokens");
        let plain = |text: &str| tokenizer.encode(text).expect("tokens");
        // A mark takes the white space behind it where the file says so, and no space is put there.
        let end = marked("<|end|>");
        assert_eq!(end.len(), 1);
        assert!(plain("<|end|>").len() > 1, "{kind}: a prompt can't write a mark");
        assert_eq!(marked("<|end|>  \nthe bee"), marked("<|end|>the bee"));
        let after = &marked("<|end|>the")[1..];
        assert_eq!(decoded(&tokenizer, after), "the", "{kind}");
        let before = if kind == "metaspace" { " " } else { "" };
        assert_eq!(
            decoded(&tokenizer, &plain("the   queen\n蜂")),
            format!("{before}the   queen\n蜂")
        );
    }
    for (json, expected) in [
        ("{}", "tokenizer.json: "),
        (
            "{\"version\":\"1.0\",\"model\":{\"type\":\"WordLevel\",\"vocab\":{\"a\":0},\"unk_token\":\"a\"}}",
            "neither BPE nor unigram",
        ),
        (
            "{\"version\":\"1.0\",\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}",
            "its decoder is unknown",
        ),
        (
            "{\"version\":\"1.0\",\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,\
          \"use_regex\":true},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":4000000000},\"merges\":[]}}",
            "expected ids from 0 to",
        ),
    ] {
        let built = Tokenizer::from_json(json.as_bytes(), &serde_json::Map::new(), &[]);
        let error = built.map(|_| ()).expect_err(expected).to_string();
        assert!(error.contains(expected), "expected '{expected}' in '{error}'");
    }
}
