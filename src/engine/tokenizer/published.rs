//! A tokenizer as Hugging Face publishes it: `tokenizer.json`, run by the library that wrote it, and
//! `tokenizer_config.json` beside it. Only BPE and unigram models whose tokens can be turned back into
//! bytes by themselves are taken; another one is an error, not a guess.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::{Map, Value};
use tokenizers::models::ModelWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::metaspace::PrependScheme;
use tokenizers::{
    AddedToken, DecoderWrapper, Encoding, Model as _, OffsetReferential, OffsetType,
    PostProcessor as _, PreTokenizedString, PreTokenizer as _,
};

use super::sentencepiece::byte_of;
use super::{BYTE, CONTROL, NORMAL, Parts, Scheme, Tokenizer, UNKNOWN, USER_DEFINED};
use crate::engine::gguf::shown;
use crate::error::{Error, Kind, Result};
use crate::limits::MODEL_VOCABULARY_MAX;

/// How plain text is cut: what comes before the model, and the model.
pub(super) struct Published {
    model: ModelWrapper,
    /// Cuts a piece at the beginning of a text.
    first: Option<PreTokenizerWrapper>,
    /// Cuts any other piece: one before which no space is put.
    later: Option<PreTokenizerWrapper>,
    /// Whether tokens are written in the letters of byte-level BPE.
    pub(super) letters: bool,
}

impl Published {
    /// The tokens of a normalized piece without added tokens in it.
    pub(super) fn encode(
        &self,
        piece: &str,
        first: bool,
        into: &mut Vec<u32>,
    ) -> tokenizers::Result<()> {
        let mut pieces = PreTokenizedString::from(piece);
        if let Some(cut) = if first { &self.first } else { &self.later } {
            cut.pre_tokenize(&mut pieces)?;
        }
        pieces.tokenize(|piece| self.model.tokenize(piece.get()))?;
        let pieces = pieces.get_splits(OffsetReferential::Original, OffsetType::None);
        let tokens = pieces.into_iter().filter_map(|(_, _, tokens)| tokens.as_ref());
        into.extend(tokens.flatten().map(|token| token.id));
        Ok(())
    }
}

fn wrong(problem: impl std::fmt::Display) -> Error {
    Error::new(
        Kind::Model,
        format!("tokenizer.json: {problem}; fetch the model again or take another"),
    )
}

impl Tokenizer {
    /// Builds the tokenizer of `tokenizer.json` (its bytes); `config` is `tokenizer_config.json`,
    /// `ends` are tokens at which the model's configuration ends a generation.
    ///
    /// # Errors
    /// [`Kind::Model`] for a file that is no tokenizer, or one of an unknown kind.
    pub fn from_json(json: &[u8], config: &Map<String, Value>, ends: &[u32]) -> Result<Tokenizer> {
        // The library panics over some contradictions within the file.
        let parsed = catch_unwind(AssertUnwindSafe(|| tokenizers::Tokenizer::from_bytes(json)));
        let whole = match parsed {
            Ok(Ok(whole)) => whole,
            Ok(Err(error)) => return Err(wrong(shown(&error.to_string()))),
            Err(_) => return Err(wrong("it contradicts itself")),
        };
        let letters = letters(&whole)?;
        let (tokens, types, added) = vocabulary(&whole, letters)?;
        let id = |text: &str| whole.token_to_id(text);
        let special = |key: &str| named(config, key).as_deref().and_then(id);
        let (bos, eos) = (special("bos_token"), special("eos_token"));
        let begins = begins(&whole)?;
        let flag = config.get("add_bos_token").and_then(Value::as_bool).unwrap_or(false);
        let add_bos = bos.is_some() && begins.map_or(flag, |first| first == bos);
        let ends = ends.iter().copied().filter(|end| (*end as usize) < tokens.len()).collect();
        let first = whole.get_pre_tokenizer().cloned();
        let model = whole.get_model().clone();
        let later = first.clone().map(without_space);
        let normalizer = whole.get_normalizer().cloned();
        let scheme = Scheme::Published(Box::new(Published { model, first, later, letters }));
        let parts = Parts { scheme, normalizer, added, bos, eos, add_bos, ends };
        Tokenizer::build(&tokens, |token| types[token], parts)
            .map_err(|e| wrong(shown(&e.to_string())))
    }
}

/// Whether tokens are written in letters for bytes, or as text with `▁` and bytes such as `<0x0A>`.
fn letters(whole: &tokenizers::Tokenizer) -> Result<bool> {
    fn in_decoder(decoder: &DecoderWrapper, found: &impl Fn(&DecoderWrapper) -> bool) -> bool {
        match decoder {
            DecoderWrapper::Sequence(all) => {
                all.get_decoders().iter().any(|d| in_decoder(d, found))
            }
            one => found(one),
        }
    }
    let has = |found: fn(&DecoderWrapper) -> bool| {
        whole.get_decoder().is_some_and(|decoder| in_decoder(decoder, &found))
    };
    let model = whole.get_model();
    if !matches!(model, ModelWrapper::BPE(_) | ModelWrapper::Unigram(_)) {
        return Err(wrong("its model is neither BPE nor unigram, which are all that is known"));
    }
    if has(|decoder| matches!(decoder, DecoderWrapper::ByteLevel(_))) {
        return Ok(true);
    }
    match has(|one| matches!(one, DecoderWrapper::Replace(_) | DecoderWrapper::Metaspace(_))) {
        true => Ok(false),
        false => Err(wrong("its decoder is unknown; known: ByteLevel, and ▁ for a space")),
    }
}

type Vocabulary = (Vec<String>, Vec<i64>, Vec<AddedToken>);

/// Every token's text, its type, and those which are found in a text before it is cut.
fn vocabulary(whole: &tokenizers::Tokenizer, letters: bool) -> Result<Vocabulary> {
    let known = whole.get_vocab(true);
    let length = known.values().max().map_or(0, |last| *last as usize + 1);
    if length == 0 || length > MODEL_VOCABULARY_MAX {
        let text = format!("expected ids from 0 to {}, found {length}", MODEL_VOCABULARY_MAX - 1);
        return Err(wrong(text));
    }
    let (mut tokens, mut types) = (vec![String::new(); length], vec![NORMAL; length]);
    let unknown = match whole.get_model() {
        ModelWrapper::BPE(bpe) => bpe.get_unk_token().clone(),
        _ => None,
    };
    for (text, id) in known {
        let id = id as usize;
        types[id] = match byte_of(&text) {
            Some(_) if !letters => BYTE,
            _ if unknown.as_ref() == Some(&text) => UNKNOWN,
            _ => NORMAL,
        };
        tokens[id] = text;
    }
    let mut added: Vec<(u32, AddedToken)> = whole.get_added_tokens_decoder().into_iter().collect();
    added.sort_by_key(|(id, _)| *id);
    for (id, token) in &added {
        types[*id as usize] = if token.special { CONTROL } else { USER_DEFINED };
    }
    Ok((tokens, types, added.into_iter().map(|(_, token)| token).collect()))
}

/// The first token that is put before every text; `None` where the file does not say, `Some(None)`
/// where there is none.
fn begins(whole: &tokenizers::Tokenizer) -> Result<Option<Option<u32>>> {
    let Some(processor) = whole.get_post_processor() else { return Ok(None) };
    let ids = processor
        .process(Encoding::default(), None, true)
        .map_err(|error| wrong(shown(&error.to_string())))?;
    Ok(Some(ids.get_ids().first().copied()))
}

/// The text at `key`, written as itself or as an object with `content`.
fn named(config: &Map<String, Value>, key: &str) -> Option<String> {
    let value = config.get(key)?;
    let text = value.as_str().or_else(|| value.get("content").and_then(Value::as_str));
    text.map(str::to_owned)
}

/// The same cut for a piece that does not begin its text.
fn without_space(cut: PreTokenizerWrapper) -> PreTokenizerWrapper {
    match cut {
        PreTokenizerWrapper::Metaspace(mut space)
            if space.get_prepend_scheme() == PrependScheme::First =>
        {
            space.set_prepend_scheme(PrependScheme::Never);
            PreTokenizerWrapper::Metaspace(space)
        }
        PreTokenizerWrapper::Sequence(all) => {
            let all = all.into_iter().map(without_space).collect();
            PreTokenizerWrapper::Sequence(tokenizers::pre_tokenizers::sequence::Sequence::new(all))
        }
        other => other,
    }
}
