//! Byte-level BPE ("gpt2" in GGUF): text is cut by a pattern, and bytes merge within each piece.
//! The merging is that of the crate `tokenizers`; names and patterns of pre-tokenizers are facts of
//! the format, as llama.cpp's `llama-vocab.cpp` and the models' own `tokenizer.json` have them.
//! Never guesses: an unknown pre-tokenizer is an error that names the known ones.

use std::collections::HashMap;

use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel as Letters;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{
    Model, NormalizerWrapper, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
    SplitDelimiterBehavior,
};

use super::{unbuilt, vocabulary};
use crate::engine::gguf::{Gguf, shown};
use crate::error::Result;

const MERGES: &str = "tokenizer.ggml.merges";

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const GPT4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// How text is cut before it is merged, and what comes with that.
struct PreTokenizerFacts {
    /// Its names in `tokenizer.ggml.pre`.
    names: &'static [&'static str],
    /// Patterns, applied one after the other: each match becomes a piece of its own.
    patterns: &'static [&'static str],
    /// Whether a piece that is a token needs no merges to become it.
    ignore_merges: bool,
    /// Whether text begins with the beginning-of-sequence token unless the file says otherwise.
    add_bos: bool,
    /// Whether text is brought into Unicode's composed form (NFC) first.
    compose: bool,
}

const PRE_TOKENIZERS: [PreTokenizerFacts; 7] = [
    PreTokenizerFacts {
        names: &["smollm", "starcoder", "refact", "command-r"],
        patterns: &[r"\p{N}", GPT2],
        ignore_merges: false,
        add_bos: false,
        compose: false,
    },
    PreTokenizerFacts {
        names: &["gpt-2", "gpt2", "phi-2", "mpt", "olmo"],
        patterns: &[GPT2],
        ignore_merges: false,
        add_bos: false,
        compose: false,
    },
    PreTokenizerFacts {
        names: &["llama-bpe", "llama3", "llama-v3"],
        patterns: &[LLAMA3],
        ignore_merges: true,
        add_bos: true,
        compose: false,
    },
    PreTokenizerFacts {
        names: &["dbrx"],
        patterns: &[LLAMA3],
        ignore_merges: false,
        add_bos: false,
        compose: false,
    },
    PreTokenizerFacts {
        names: &["tekken"],
        patterns: &[TEKKEN],
        ignore_merges: true,
        add_bos: true,
        compose: false,
    },
    PreTokenizerFacts {
        names: &["qwen2"],
        patterns: &[QWEN2],
        ignore_merges: false,
        add_bos: false,
        compose: true,
    },
    PreTokenizerFacts {
        names: &["gpt-4o"],
        patterns: &[GPT4O],
        ignore_merges: false,
        add_bos: false,
        compose: false,
    },
];

/// A byte-level BPE: its pattern and its merges.
pub(super) struct ByteLevel {
    model: BPE,
    splits: Vec<Split>,
    /// Whether text begins with the beginning-of-sequence token unless the file says otherwise.
    pub(super) add_bos: bool,
    /// What text goes through first.
    pub(super) normalizer: Option<NormalizerWrapper>,
}

impl ByteLevel {
    pub(super) fn from_gguf(gguf: &Gguf, tokens: &[String]) -> Result<ByteLevel> {
        let facts = pre_tokenizer(gguf)?;
        let vocabulary: Vocab =
            vocabulary(gguf, tokens)?.into_iter().map(|(text, id)| (text.to_owned(), id)).collect();
        let merges = merges(gguf, &vocabulary)?;
        let model = BPE::builder()
            .vocab_and_merges(vocabulary, merges)
            .ignore_merges(facts.ignore_merges)
            .build()
            .map_err(|error| unbuilt(gguf, error))?;
        let splits = facts.patterns.iter().map(|pattern| {
            let pattern = SplitPattern::Regex((*pattern).to_owned());
            Split::new(pattern, SplitDelimiterBehavior::Isolated, false)
        });
        let splits: tokenizers::Result<Vec<_>> = splits.collect();
        Ok(ByteLevel {
            model,
            splits: splits.map_err(|error| unbuilt(gguf, error))?,
            add_bos: facts.add_bos,
            normalizer: facts.compose.then_some(NormalizerWrapper::NFC(NFC)),
        })
    }

    /// The tokens of a text without added tokens in it.
    pub(super) fn encode(&self, text: &str, into: &mut Vec<u32>) -> tokenizers::Result<()> {
        let mut pieces = PreTokenizedString::from(text);
        for split in &self.splits {
            split.pre_tokenize(&mut pieces)?;
        }
        Letters::new(false, false, false).pre_tokenize(&mut pieces)?;
        pieces.tokenize(|piece| self.model.tokenize(piece.get()))?;
        let pieces = pieces.get_splits(OffsetReferential::Original, OffsetType::None);
        let tokens = pieces.into_iter().filter_map(|(_, _, tokens)| tokens.as_ref());
        into.extend(tokens.flatten().map(|token| token.id));
        Ok(())
    }

    /// The bytes that a token's text stands for.
    pub(super) fn bytes(letters: &HashMap<char, u8>, text: &str) -> Vec<u8> {
        let mapped: Option<Vec<u8>> = text.chars().map(|c| letters.get(&c).copied()).collect();
        // A letter that stands for no byte: the token is text as it is.
        mapped.unwrap_or_else(|| text.as_bytes().to_vec())
    }
}

fn pre_tokenizer(gguf: &Gguf) -> Result<&'static PreTokenizerFacts> {
    let name = gguf.text("tokenizer.ggml.pre")?;
    PRE_TOKENIZERS.iter().find(|facts| facts.names.contains(&name)).ok_or_else(|| {
        let known: Vec<&str> =
            PRE_TOKENIZERS.iter().flat_map(|facts| facts.names).copied().collect();
        gguf.error(format_args!(
            "the pre-tokenizer '{}' is unknown; known: {}; take another model",
            shown(name),
            known.join(", ")
        ))
    })
}

/// The merges, each checked: `tokenizers` panics on some whose parts or result are no tokens.
fn merges(gguf: &Gguf, vocabulary: &Vocab) -> Result<Merges> {
    let lines = gguf.texts(MERGES)?;
    let mut merges = Merges::with_capacity(lines.len());
    let mut whole = String::new();
    for (index, line) in lines.iter().enumerate() {
        let wrong = |problem: &str| {
            let line = shown(line);
            gguf.error(format_args!("merge {index} '{line}' {problem}; convert the model again"))
        };
        let (left, right) = line.split_once(' ').ok_or_else(|| wrong("has no space"))?;
        whole.clear();
        whole.push_str(left);
        whole.push_str(right);
        if ![left, right, &whole].iter().all(|part| vocabulary.contains_key(*part)) {
            return Err(wrong("names or makes something that is no token"));
        }
        merges.push((left.to_owned(), right.to_owned()));
    }
    Ok(merges)
}

/// The letters by which byte-level BPE writes bytes: printing ones as themselves, the others as
/// the letters from U+0100 on, in order (OpenAI's `encoder.py` of GPT-2).
pub(super) fn letters() -> HashMap<char, u8> {
    let prints = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let silent = ('\u{100}'..).zip((0..=255).filter(|byte| !prints(*byte)));
    let own = (0..=255).filter(|byte| prints(*byte)).map(|byte| (char::from(byte), byte));
    silent.chain(own).collect()
}
