//! Text to token ids and back, by what the model file says: byte-level BPE ("gpt2" in GGUF).
//! The merging is that of the crate `tokenizers`; names and patterns of pre-tokenizers are facts of
//! the format, as llama.cpp's `llama-vocab.cpp` and the models' own `tokenizer.json` have them.
//! Never guesses: an unknown tokenizer or pre-tokenizer is an error that names the known ones.

use std::collections::HashMap;

use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{
    AddedToken, AddedVocabulary, Model, NormalizerWrapper, OffsetReferential, OffsetType,
    PreTokenizer, SplitDelimiterBehavior,
};

use super::gguf::{Gguf, shown};
use crate::error::{Error, Kind, Result};

const TOKENS: &str = "tokenizer.ggml.tokens";
const MERGES: &str = "tokenizer.ggml.merges";
const TYPES: &str = "tokenizer.ggml.token_type";

/// Types of tokens, as `tokenizer.ggml.token_type` numbers them.
const NORMAL: i64 = 1;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// Tokens which end a turn or a text, whatever else the metadata says.
const ENDS: [&str; 10] = [
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|end_of_text|>",
    "<|return|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<EOT>",
];

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
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

const PRE_TOKENIZERS: [PreTokenizerFacts; 4] = [
    PreTokenizerFacts {
        names: &["smollm"],
        patterns: &[r"\p{N}", GPT2],
        ignore_merges: false,
        add_bos: false,
        compose: false,
    },
    PreTokenizerFacts {
        names: &["gpt-2", "gpt2"],
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
        names: &["qwen2"],
        patterns: &[QWEN2],
        ignore_merges: false,
        add_bos: false,
        compose: true,
    },
];

/// The vocabulary of a model and the way from text to its tokens.
///
/// A byte of the text for which the vocabulary has no token is left out, as llama.cpp and
/// `tokenizers` do: SmolLM2 lacks a few control characters and the first byte of rare scripts.
pub struct Tokenizer {
    model: BPE,
    splits: Vec<Split>,
    normalizer: Option<NormalizerWrapper>,
    /// Tokens found in any text: those a model's maker added that aren't markup.
    plain: AddedVocabulary,
    /// Those and the control tokens.
    marked: AddedVocabulary,
    bytes: Vec<u8>,
    /// Where in `bytes` each token ends; one more than there are tokens, the first 0.
    ends_at: Vec<u32>,
    /// Tokens which end the generation, sorted.
    ends: Vec<u32>,
    bos: Option<u32>,
    add_bos: bool,
    bos_text: String,
    eos_text: String,
}

impl Tokenizer {
    /// Builds the tokenizer that `gguf` describes.
    ///
    /// # Errors
    /// [`Kind::Model`] for a kind of tokenizer that is unknown, a vocabulary that lacks something
    /// or contradicts itself, or a special token outside it.
    pub fn from_gguf(gguf: &Gguf) -> Result<Tokenizer> {
        let facts = pre_tokenizer(gguf)?;
        let tokens = gguf.texts(TOKENS)?;
        let types = token_types(gguf, tokens.len())?;
        let type_of = |token: usize| types.map_or(NORMAL, |types| types[token]);
        let vocabulary = vocabulary(gguf, tokens)?;
        let merges = merges(gguf, &vocabulary)?;
        let eos = special(gguf, "eos", tokens.len())?;
        let bos = special(gguf, "bos", tokens.len())?;
        let ends = ends(gguf, &vocabulary, eos, type_of)?;
        let model = BPE::builder()
            .vocab_and_merges(vocabulary, merges)
            .ignore_merges(facts.ignore_merges)
            .build()
            .map_err(|error| unbuilt(gguf, error))?;
        let splits = facts.patterns.iter().map(|pattern| {
            let pattern = SplitPattern::Regex((*pattern).to_owned());
            Split::new(pattern, SplitDelimiterBehavior::Isolated, false)
        });
        let splits: Result<Vec<_>, _> = splits.collect();
        let splits = splits.map_err(|error| unbuilt(gguf, error))?;
        let normalizer = facts.compose.then_some(NormalizerWrapper::NFC(NFC));
        let added = |kind: fn(i64, &str) -> bool| -> Result<AddedVocabulary> {
            let chosen = tokens.iter().enumerate().filter(|(id, text)| kind(type_of(*id), text));
            let chosen = chosen.map(|(_, text)| AddedToken::from(text.as_str(), true));
            let mut added = AddedVocabulary::new();
            added
                .add_tokens(chosen, &model, normalizer.as_ref())
                .map_err(|error| unbuilt(gguf, error))?;
            Ok(added)
        };
        let plain = added(is_plain)?;
        let marked = added(|kind, text| is_plain(kind, text) || is_markup(kind, text))?;
        let (bytes, ends_at) = all_bytes(tokens, type_of);
        let text = |token: Option<u32>| token.map_or("", |id| &tokens[id as usize]).to_owned();
        Ok(Tokenizer {
            splits,
            plain,
            marked,
            bytes,
            ends_at,
            ends,
            bos,
            add_bos: gguf.bool_opt("tokenizer.ggml.add_bos_token").unwrap_or(facts.add_bos),
            bos_text: text(bos),
            eos_text: text(eos),
            normalizer,
            model,
        })
    }

    /// The tokens of `text`, without a beginning-of-sequence token.
    ///
    /// Text that looks like a control token (`<|im_start|>`) is ordinary text, so that a prompt
    /// can't forge a turn.
    ///
    /// # Errors
    /// [`Kind::Inference`] if the text can't be cut into tokens.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.tokens(text).map_err(|error| {
            // What the crate says may repeat the prompt, so it goes nowhere.
            drop(error);
            Error::new(Kind::Inference, "the text can't be cut into tokens; please report this")
        })
    }

    /// The tokens of a text in which control tokens are parsed; every piece between them goes
    /// through `restore` first, and is plain text whatever that makes of it.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_marked(&self, text: &str, restore: impl Fn(&str) -> String) -> Result<Vec<u32>> {
        let pieces = self.marked.extract_and_normalize(self.normalizer.as_ref(), text);
        let mut all = Vec::new();
        for (piece, _, tokens) in pieces.get_splits(OffsetReferential::Original, OffsetType::None) {
            match tokens {
                Some(tokens) => all.extend(tokens.iter().map(|token| token.id)),
                None => all.extend(self.encode(&restore(piece))?),
            }
        }
        Ok(all)
    }

    /// Where control tokens are written in `text`: byte ranges, in order, not overlapping.
    pub fn marks(&self, text: &str) -> Vec<std::ops::Range<usize>> {
        let pieces = self.marked.extract_and_normalize::<NormalizerWrapper>(None, text);
        let pieces = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
        let marks = pieces.iter().filter(|(.., tokens)| tokens.is_some());
        marks.map(|(_, (start, end), _)| *start..*end).collect()
    }

    /// The token which begins a sequence, if the model has one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// Whether a prompt should begin with [`Tokenizer::bos`].
    pub fn add_bos(&self) -> bool {
        self.add_bos && self.bos.is_some()
    }

    /// Whether generation is over with this token: end of sequence, of a turn, of a text.
    pub fn ends(&self, token: u32) -> bool {
        self.ends.binary_search(&token).is_ok()
    }

    /// How many tokens there are.
    pub fn vocabulary(&self) -> u32 {
        self.ends_at.len() as u32 - 1
    }

    /// The bytes of text that a token stands for; none for control tokens, and beyond the
    /// vocabulary. A token need not be whole characters.
    pub fn token_bytes(&self, token: u32) -> &[u8] {
        match self.ends_at.get(token as usize..).unwrap_or_default() {
            [begin, end, ..] => &self.bytes[*begin as usize..*end as usize],
            _ => &[],
        }
    }

    /// What the token that begins a sequence is called, for templates; empty if there is none.
    pub fn bos_text(&self) -> &str {
        &self.bos_text
    }

    /// What the token that ends a sequence is called, for templates; empty if there is none.
    pub fn eos_text(&self) -> &str {
        &self.eos_text
    }

    fn tokens(&self, text: &str) -> tokenizers::Result<Vec<u32>> {
        let mut pieces = self.plain.extract_and_normalize(self.normalizer.as_ref(), text);
        for split in &self.splits {
            split.pre_tokenize(&mut pieces)?;
        }
        ByteLevel::new(false, false, false).pre_tokenize(&mut pieces)?;
        pieces.tokenize(|piece| self.model.tokenize(piece.get()))?;
        let pieces = pieces.get_splits(OffsetReferential::Original, OffsetType::None);
        let tokens = pieces.into_iter().filter_map(|(_, _, tokens)| tokens.as_ref());
        Ok(tokens.flatten().map(|token| token.id).collect())
    }
}

fn unbuilt(gguf: &Gguf, error: tokenizers::Error) -> Error {
    let found = shown(&error.to_string());
    gguf.error(format_args!("the tokenizer can't be built: {found}; convert the model again"))
}

/// Whether a token is found in any text: user-defined, and not markup by the look of it.
fn is_plain(kind: i64, text: &str) -> bool {
    kind == USER_DEFINED && !is_markup(kind, text)
}

/// Whether a token is markup that only a template may write. Some converters call markup
/// user-defined, so the look decides as well.
fn is_markup(kind: i64, text: &str) -> bool {
    let looks = (text.starts_with("<|") && text.ends_with("|>")) || ENDS.contains(&text);
    kind == CONTROL || (kind == USER_DEFINED && looks)
}

fn pre_tokenizer(gguf: &Gguf) -> Result<&'static PreTokenizerFacts> {
    let model = gguf.text("tokenizer.ggml.model")?;
    if model != "gpt2" {
        return Err(gguf.error(format_args!(
            "the tokenizer '{}' is unknown; known: gpt2 (byte-level BPE); take another model",
            shown(model)
        )));
    }
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

fn token_types(gguf: &Gguf, tokens: usize) -> Result<Option<&[i64]>> {
    let types = gguf.ints_opt(TYPES);
    match types {
        Some(types) if types.len() != tokens => Err(gguf.error(format_args!(
            "expected a type for each of {tokens} tokens at '{TYPES}', found {}; \
             convert the model again",
            types.len()
        ))),
        _ => Ok(types),
    }
}

fn vocabulary(gguf: &Gguf, tokens: &[String]) -> Result<Vocab> {
    if tokens.is_empty() {
        return Err(gguf.error(format_args!("'{TOKENS}' is empty; convert the model again")));
    }
    let mut vocabulary = Vocab::with_capacity(tokens.len());
    for (id, text) in (0..).zip(tokens) {
        if let Some(other) = vocabulary.insert(text.clone(), id) {
            return Err(gguf.error(format_args!(
                "tokens {other} and {id} are both '{}'; convert the model again",
                shown(text)
            )));
        }
    }
    Ok(vocabulary)
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

/// The special token at `tokenizer.ggml.NAME_token_id`, if there is one.
fn special(gguf: &Gguf, name: &str, tokens: usize) -> Result<Option<u32>> {
    let key = format!("tokenizer.ggml.{name}_token_id");
    let Some(id) = gguf.uint_opt(&key) else { return Ok(None) };
    match u32::try_from(id) {
        Ok(token) if (token as usize) < tokens => Ok(Some(token)),
        _ => Err(gguf.error(format_args!(
            "expected one of {tokens} tokens at '{key}', found {id}; convert the model again"
        ))),
    }
}

fn ends(
    gguf: &Gguf,
    vocabulary: &Vocab,
    eos: Option<u32>,
    type_of: impl Fn(usize) -> i64,
) -> Result<Vec<u32>> {
    let mut ends: Vec<u32> = eos.into_iter().collect();
    for name in ["eot", "eom"] {
        ends.extend(special(gguf, name, vocabulary.len())?);
    }
    let named = ENDS.iter().filter_map(|name| vocabulary.get(*name).copied());
    ends.extend(named.filter(|id| [CONTROL, USER_DEFINED].contains(&type_of(*id as usize))));
    ends.sort_unstable();
    ends.dedup();
    Ok(ends)
}

/// The bytes of all tokens one after the other, and where each ends.
fn all_bytes(tokens: &[String], type_of: impl Fn(usize) -> i64) -> (Vec<u8>, Vec<u32>) {
    let letters = letters();
    let mut bytes = Vec::new();
    let mut ends = Vec::with_capacity(tokens.len() + 1);
    ends.push(0);
    for (id, text) in tokens.iter().enumerate() {
        match type_of(id) {
            NORMAL => {
                let begin = bytes.len();
                let mapped = text.chars().map(|letter| letters.get(&letter).copied());
                bytes.extend(mapped.clone().flatten());
                // A letter that stands for no byte: the token is text as it is.
                if mapped.clone().any(|byte| byte.is_none()) {
                    bytes.truncate(begin);
                    bytes.extend_from_slice(text.as_bytes());
                }
            }
            kind if is_plain(kind, text) => bytes.extend_from_slice(text.as_bytes()),
            _ => {}
        }
        ends.push(bytes.len() as u32);
    }
    (bytes, ends)
}

/// The letters by which byte-level BPE writes bytes: printing ones as themselves, the others as
/// the letters from U+0100 on, in order (OpenAI's `encoder.py` of GPT-2).
fn letters() -> HashMap<char, u8> {
    let prints = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let silent = ('\u{100}'..).zip((0..=255).filter(|byte| !prints(*byte)));
    let own = (0..=255).filter(|byte| prints(*byte)).map(|byte| (char::from(byte), byte));
    silent.chain(own).collect()
}

#[cfg(test)]
mod tests;
