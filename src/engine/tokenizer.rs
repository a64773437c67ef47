//! Text to token ids and back, by what the model file says: special tokens and what all kinds of
//! tokenizers share. How plain text is cut is `byte_level`'s or `sentencepiece`'s.
//! Never guesses: an unknown tokenizer is an error that names the known ones.

mod byte_level;
mod published;
mod sentencepiece;

use std::collections::HashMap;

use tokenizers::models::wordlevel::WordLevel;
use tokenizers::{AddedToken, AddedVocabulary, NormalizerWrapper, OffsetReferential, OffsetType};

use byte_level::ByteLevel;
use published::Published;
use sentencepiece::SentencePiece;

use super::gguf::{Gguf, shown};
use crate::error::{Error, Kind, Result};

const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";

/// Types of tokens, as `tokenizer.ggml.token_type` numbers them.
const NORMAL: i64 = 1;
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;
const UNUSED: i64 = 5;
const BYTE: i64 = 6;

/// Tokens which end a turn or a text, whatever else the metadata says.
const ENDS: [&str; 11] = [
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
    "</s>",
];

/// How plain text becomes tokens.
enum Scheme {
    ByteLevel(Box<ByteLevel>),
    SentencePiece(SentencePiece),
    Published(Box<Published>),
}

impl Scheme {
    /// Whether tokens are written in the letters of byte-level BPE.
    fn letters(&self) -> bool {
        match self {
            Scheme::ByteLevel(_) => true,
            Scheme::SentencePiece(_) => false,
            Scheme::Published(scheme) => scheme.letters,
        }
    }
}

/// What a tokenizer is built of, besides the texts and types of its tokens.
struct Parts {
    scheme: Scheme,
    normalizer: Option<NormalizerWrapper>,
    /// Tokens that may be found in a text before it is cut.
    added: Vec<AddedToken>,
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
    /// Tokens which end the generation, besides `eos` and those known by name.
    ends: Vec<u32>,
}

/// The vocabulary of a model and the way from text to its tokens.
///
/// A byte of the text for which the vocabulary has no token is left out, as llama.cpp and
/// `tokenizers` do: SmolLM2 lacks a few control characters and the first byte of rare scripts.
pub struct Tokenizer {
    scheme: Scheme,
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
    /// Ids that no token stands for: they fill the model's vocabulary up.
    gaps: Vec<u32>,
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
        let model = gguf.text("tokenizer.ggml.model")?;
        let tokens = gguf.texts_opt(TOKENS).unwrap_or_default();
        let types = token_types(gguf, tokens.len())?;
        let type_of = |token: usize| types.map_or(NORMAL, |types| types[token]);
        let scheme = match model {
            "gpt2" => Scheme::ByteLevel(Box::new(ByteLevel::from_gguf(gguf, tokens)?)),
            "llama" | "t5" => {
                Scheme::SentencePiece(SentencePiece::from_gguf(gguf, tokens, type_of)?)
            }
            other => {
                return Err(gguf.error(format_args!(
                    "the tokenizer '{}' is unknown; known: gpt2 (byte-level BPE), llama and t5 \
                     (SentencePiece); take another model",
                    shown(other)
                )));
            }
        };
        vocabulary(gguf, tokens)?;
        let mut ends = Vec::new();
        for name in ["eot", "eom"] {
            ends.extend(special(gguf, name, tokens.len())?);
        }
        let (add_bos, normalizer) = match &scheme {
            Scheme::ByteLevel(scheme) => (scheme.add_bos, scheme.normalizer.clone()),
            Scheme::SentencePiece(scheme) => (scheme.add_bos, None),
            Scheme::Published(_) => (false, None),
        };
        let add_bos = gguf.bool_opt("tokenizer.ggml.add_bos_token").unwrap_or(add_bos);
        let may_be_found = |id: &usize| [CONTROL, USER_DEFINED].contains(&type_of(*id));
        let rstrip = strips_after(gguf, model);
        let added = (0..tokens.len()).filter(may_be_found);
        let added = added.map(|id| {
            let text = tokens[id].as_str();
            AddedToken::from(text, true).rstrip(rstrip && type_of(id) == CONTROL && strips(text))
        });
        let parts = Parts {
            scheme,
            normalizer,
            added: added.collect(),
            bos: special(gguf, "bos", tokens.len())?,
            eos: special(gguf, "eos", tokens.len())?,
            add_bos,
            ends,
        };
        Tokenizer::build(tokens, type_of, parts).map_err(|error| unbuilt(gguf, error))
    }

    /// Puts together what the file says; `type_of` a token is one of the numbers above.
    fn build(
        tokens: &[String],
        type_of: impl Fn(usize) -> i64,
        parts: Parts,
    ) -> tokenizers::Result<Tokenizer> {
        let Parts { scheme, normalizer, added, bos, eos, add_bos, ends } = parts;
        let ids: HashMap<&str, u32> = tokens.iter().map(String::as_str).zip(0..).collect();
        let known = tokens.iter().cloned().zip(0..).collect();
        let known = WordLevel::builder().vocab(known).build()?;
        let chosen = |chosen: fn(i64, &str) -> bool| {
            let kind = |token: &AddedToken| ids.get(token.content.as_str()).map(|id| *id as usize);
            let added = added
                .iter()
                .filter(|token| kind(token).is_some_and(|id| chosen(type_of(id), &token.content)));
            let mut vocabulary = AddedVocabulary::new();
            vocabulary.add_tokens(added.cloned(), &known, normalizer.as_ref())?;
            Ok::<_, tokenizers::Error>(vocabulary)
        };
        let plain = chosen(is_plain)?;
        let marked = chosen(|kind, text| is_plain(kind, text) || is_markup(kind, text))?;
        let (bytes, ends_at) = all_bytes(tokens, &scheme, &type_of);
        let text = |token: Option<u32>| token.map_or("", |id| &tokens[id as usize]).to_owned();
        Ok(Tokenizer {
            plain,
            marked,
            bytes,
            ends_at,
            gaps: gaps(tokens, &type_of),
            ends: all_ends(&ids, eos, ends, type_of),
            bos,
            add_bos,
            bos_text: text(bos),
            eos_text: text(eos),
            scheme,
            normalizer,
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
        let mut all = Vec::new();
        self.cut(text, true, &mut all)?;
        Ok(all)
    }

    /// The tokens of a text in which control tokens are parsed; every piece between them goes
    /// through `restore` first, and is plain text whatever that makes of it.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_marked(&self, text: &str, restore: impl Fn(&str) -> String) -> Result<Vec<u32>> {
        let pieces = self.marked.extract_and_normalize::<NormalizerWrapper>(None, text);
        let mut all = Vec::new();
        for (piece, _, tokens) in pieces.get_splits(OffsetReferential::Original, OffsetType::None) {
            match tokens {
                Some(tokens) => all.extend(tokens.iter().map(|token| token.id)),
                None => self.cut(&restore(piece), all.is_empty(), &mut all)?,
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

    /// Makes impossible, in a row of logits, the ids that no token stands for.
    pub fn forbid_gaps(&self, logits: &mut [f32]) {
        for gap in &self.gaps {
            if let Some(logit) = logits.get_mut(*gap as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }

    /// The tokens for which [`Tokenizer::ends`] holds, in order.
    pub fn end_tokens(&self) -> &[u32] {
        &self.ends
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

    /// Adds the tokens of plain text; `first`: it begins the whole text.
    fn cut(&self, text: &str, first: bool, all: &mut Vec<u32>) -> Result<()> {
        self.tokens(text, first, all).map_err(|error| {
            // What the crate says may repeat the prompt, so it goes nowhere.
            drop(error);
            Error::new(Kind::Inference, "the text can't be cut into tokens; please report this")
        })
    }

    fn tokens(&self, text: &str, first: bool, all: &mut Vec<u32>) -> tokenizers::Result<()> {
        let pieces = self.plain.extract_and_normalize(self.normalizer.as_ref(), text);
        let pieces = pieces.get_splits(OffsetReferential::Original, OffsetType::None);
        for (at, (piece, _, tokens)) in pieces.into_iter().enumerate() {
            match (tokens, &self.scheme) {
                (Some(tokens), _) => all.extend(tokens.iter().map(|token| token.id)),
                (None, Scheme::ByteLevel(scheme)) => scheme.encode(piece, all)?,
                (None, Scheme::SentencePiece(scheme)) => scheme.encode(piece, all)?,
                (None, Scheme::Published(scheme)) => {
                    scheme.encode(piece, first && at == 0, all)?;
                }
            }
        }
        Ok(())
    }
}

/// Whether control tokens take the white space behind them, as Phi-3's do: GGUF does not say it, so
/// the architecture does (llama.cpp goes by the model's name).
fn strips_after(gguf: &Gguf, model: &str) -> bool {
    model == "llama" && gguf.architecture().is_ok_and(|name| name == "phi3")
}

/// Which of Phi-3's control tokens do.
fn strips(text: &str) -> bool {
    !["<unk>", "<s>", "<|endoftext|>"].contains(&text)
}

fn unbuilt(gguf: &Gguf, error: tokenizers::Error) -> Error {
    let found = shown(&error.to_string());
    gguf.error(format_args!("the tokenizer can't be built: {found}; convert the model again"))
}

/// Ids without a token: those that a published vocabulary skips, and what converters write there.
fn gaps(tokens: &[String], type_of: impl Fn(usize) -> i64) -> Vec<u32> {
    let filler = |id: usize, text: &str| type_of(id) == UNUSED && text.starts_with("[PAD");
    let gaps = tokens.iter().enumerate().filter(|(id, text)| text.is_empty() || filler(*id, text));
    gaps.map(|(id, _)| id as u32).collect()
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

/// Ids by text; no two tokens have the same.
fn vocabulary<'t>(gguf: &Gguf, tokens: &'t [String]) -> Result<HashMap<&'t str, u32>> {
    if tokens.is_empty() {
        return Err(gguf.error(format_args!("'{TOKENS}' is empty; convert the model again")));
    }
    let mut vocabulary = HashMap::with_capacity(tokens.len());
    for (id, text) in (0..).zip(tokens) {
        if let Some(other) = vocabulary.insert(text.as_str(), id) {
            return Err(gguf.error(format_args!(
                "tokens {other} and {id} are both '{}'; convert the model again",
                shown(text)
            )));
        }
    }
    Ok(vocabulary)
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

/// The tokens which end the generation, sorted: those that the file names, and those known by name.
fn all_ends(
    ids: &HashMap<&str, u32>,
    eos: Option<u32>,
    mut ends: Vec<u32>,
    type_of: impl Fn(usize) -> i64,
) -> Vec<u32> {
    ends.extend(eos);
    let named = ENDS.iter().filter_map(|name| ids.get(*name).copied());
    ends.extend(named.filter(|id| [CONTROL, USER_DEFINED].contains(&type_of(*id as usize))));
    ends.sort_unstable();
    ends.dedup();
    ends
}

/// The bytes of all tokens one after the other, and where each ends.
fn all_bytes(
    tokens: &[String],
    scheme: &Scheme,
    type_of: impl Fn(usize) -> i64,
) -> (Vec<u8>, Vec<u32>) {
    let letters = byte_level::letters();
    let mut bytes = Vec::new();
    let mut ends = Vec::with_capacity(tokens.len() + 1);
    ends.push(0);
    for (id, text) in tokens.iter().enumerate() {
        match (type_of(id), scheme) {
            (kind, _) if is_plain(kind, text) => bytes.extend_from_slice(text.as_bytes()),
            (NORMAL, scheme) if scheme.letters() => bytes.extend(ByteLevel::bytes(&letters, text)),
            (kind @ (NORMAL | UNUSED | BYTE), scheme) if !scheme.letters() => {
                bytes.extend(SentencePiece::bytes(kind, text));
            }
            _ => {}
        }
        ends.push(bytes.len() as u32);
    }
    (bytes, ends)
}

#[cfg(test)]
mod tests;
