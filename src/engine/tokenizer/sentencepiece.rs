//! SentencePiece-style tokenizers: scored pieces over text whose spaces are written `▁`. "llama" in
//! GGUF is its BPE (the adjacent pair that makes the best-scored piece merges first), "t5" its
//! unigram model (the best-scored way to cut the whole). What no piece covers becomes bytes.
//! After Kudo and Richardson, "SentencePiece", 2018, and llama.cpp's reading of the files.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};

use tokenizers::Model as _;
use tokenizers::models::unigram::Unigram;

use super::{BYTE, NORMAL, UNKNOWN, unbuilt};
use crate::engine::gguf::Gguf;
use crate::error::Result;

const SCORES: &str = "tokenizer.ggml.scores";
/// How a space is written in a piece.
const SPACE: char = '▁';

/// Scored pieces and how they are chosen.
pub(super) struct SentencePiece {
    choice: Choice,
    /// The token of each byte, where the vocabulary has them.
    bytes: Vec<Option<u32>>,
    /// What stands for text that neither a piece nor bytes cover.
    unknown: Option<u32>,
    /// Whether a space is put before a text.
    space_before: bool,
    /// Whether text begins with the beginning-of-sequence token unless the file says otherwise.
    pub(super) add_bos: bool,
}

enum Choice {
    /// Id and score by text.
    Bpe(HashMap<String, (u32, f32)>),
    /// The model over the normal pieces alone, with the id of each.
    Unigram(Box<Unigram>, Vec<u32>),
}

impl SentencePiece {
    pub(super) fn from_gguf(
        gguf: &Gguf,
        tokens: &[String],
        type_of: impl Fn(usize) -> i64,
    ) -> Result<SentencePiece> {
        let scores = scores(gguf, tokens.len())?;
        let unigram = gguf.text("tokenizer.ggml.model")? == "t5";
        if gguf.bytes_opt("tokenizer.ggml.precompiled_charsmap").is_some_and(|map| !map.is_empty())
        {
            return Err(gguf.error(
                "its tokenizer rewrites characters by a table, which is not provided for; \
                 take another model",
            ));
        }
        let unknown = (0..tokens.len()).find(|id| type_of(*id) == UNKNOWN);
        let mut bytes = vec![None; 256];
        for (id, text) in (0..).zip(tokens) {
            if let Some(byte) =
                Some(text).filter(|_| type_of(id as usize) == BYTE).and_then(byte_of)
            {
                bytes[usize::from(byte)] = Some(id);
            }
        }
        let normal = || {
            let all = (0..).zip(tokens).zip(scores);
            all.filter(|((id, _), _)| type_of(*id as usize) == NORMAL)
        };
        let choice = if unigram {
            let ids = normal().map(|((id, _), _)| id).collect();
            let mut pieces: Vec<(String, f64)> =
                normal().map(|((_, text), score)| (text.clone(), f64::from(*score))).collect();
            // The model wants a piece for what it doesn't know, scored no worse than the worst: what
            // is unknown is ranked below that. Where a text is this very piece, it is spelled as well.
            let worst = pieces.iter().map(|(_, score)| *score).fold(0.0, f64::min);
            pieces.push(("\u{fffd}".repeat(64), worst));
            let last = pieces.len() - 1;
            let model =
                Unigram::from(pieces, Some(last), false).map_err(|error| unbuilt(gguf, error))?;
            Choice::Unigram(Box::new(model), ids)
        } else {
            let pieces = normal().map(|((id, text), score)| (text.clone(), (id, *score)));
            Choice::Bpe(pieces.collect())
        };
        Ok(SentencePiece {
            choice,
            bytes,
            unknown: unknown.and_then(|id| u32::try_from(id).ok()),
            space_before: gguf.bool_opt("tokenizer.ggml.add_space_prefix").unwrap_or(true),
            add_bos: !unigram,
        })
    }

    /// The tokens of a text without added tokens in it.
    pub(super) fn encode(&self, text: &str, into: &mut Vec<u32>) -> tokenizers::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let before = if self.space_before { " " } else { "" };
        let text = format!("{before}{text}").replace(' ', "▁");
        match &self.choice {
            Choice::Bpe(pieces) => {
                for piece in merged(pieces, &text) {
                    match pieces.get(piece) {
                        Some((id, _)) => into.push(*id),
                        None => self.spell(piece, into),
                    }
                }
            }
            Choice::Unigram(model, ids) => {
                for token in model.tokenize(&text)? {
                    match ids.get(token.id as usize) {
                        Some(id) => into.push(*id),
                        None => self.spell(&token.value, into),
                    }
                }
            }
        }
        Ok(())
    }

    /// What no piece covers, byte by byte, or else as one unknown.
    fn spell(&self, text: &str, into: &mut Vec<u32>) {
        let spelled: Option<Vec<u32>> =
            text.bytes().map(|byte| self.bytes[usize::from(byte)]).collect();
        match spelled {
            Some(spelled) => into.extend(spelled),
            None => into.extend(self.unknown),
        }
    }

    /// The bytes that a token's text stands for.
    pub(super) fn bytes(kind: i64, text: &str) -> Vec<u8> {
        match byte_of(text) {
            Some(byte) if kind == BYTE => vec![byte],
            _ => text.replace(SPACE, " ").into_bytes(),
        }
    }
}

fn scores(gguf: &Gguf, tokens: usize) -> Result<&[f32]> {
    match gguf.floats_opt(SCORES) {
        Some(scores) if scores.len() == tokens && scores.iter().all(|s| s.is_finite()) => {
            Ok(scores)
        }
        found => Err(gguf.error(format_args!(
            "expected a finite score for each of {tokens} tokens at '{SCORES}', found {}; \
             convert the model again",
            found.map_or_else(|| "none".to_owned(), |scores| scores.len().to_string())
        ))),
    }
}

/// The byte that a token such as `<0x0A>` stands for.
pub(super) fn byte_of(text: impl AsRef<str>) -> Option<u8> {
    let digits = text.as_ref().strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

/// A part of the text that may still merge with its neighbours.
#[derive(Clone, Copy)]
struct Symbol {
    start: usize,
    end: usize,
    before: Option<usize>,
    after: Option<usize>,
}

/// Two neighbours that make a piece.
struct Pair {
    score: f32,
    left: usize,
    right: usize,
    /// Bytes of both: a pair one of whose parts has changed since is void.
    length: usize,
}

impl Pair {
    /// The best score first; of equal ones the leftmost.
    fn rank(&self, other: &Pair) -> Ordering {
        self.score.total_cmp(&other.score).then(Reverse(self.left).cmp(&Reverse(other.left)))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Pair) -> bool {
        self.rank(other) == Ordering::Equal
    }
}

impl Eq for Pair {}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Pair) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Pair {
    fn cmp(&self, other: &Pair) -> Ordering {
        self.rank(other)
    }
}

/// The text in parts after every merge that its pieces allow: some are pieces, others single
/// characters. Time is n log n of the text's length.
fn merged<'t>(pieces: &HashMap<String, (u32, f32)>, text: &'t str) -> Vec<&'t str> {
    let mut symbols: Vec<Symbol> = text
        .char_indices()
        .enumerate()
        .map(|(at, (start, c))| Symbol {
            start,
            end: start + c.len_utf8(),
            before: at.checked_sub(1),
            after: Some(at + 1),
        })
        .collect();
    if let Some(last) = symbols.last_mut() {
        last.after = None;
    }
    let mut pairs = BinaryHeap::new();
    let offer = |pairs: &mut BinaryHeap<Pair>, symbols: &[Symbol], left: usize, right: usize| {
        let (start, end) = (symbols[left].start, symbols[right].end);
        if let Some((_, score)) = pieces.get(&text[start..end]) {
            pairs.push(Pair { score: *score, left, right, length: end - start });
        }
    };
    for right in 1..symbols.len() {
        offer(&mut pairs, &symbols, right - 1, right);
    }
    while let Some(Pair { left, right, length, .. }) = pairs.pop() {
        let gone = symbols[left].start == symbols[left].end;
        if gone || symbols[right].end.saturating_sub(symbols[left].start) != length {
            continue;
        }
        if symbols[left].after != Some(right) {
            continue;
        }
        let taken = symbols[right];
        symbols[left].end = taken.end;
        symbols[left].after = taken.after;
        symbols[right].end = symbols[right].start; // gone
        if let Some(after) = taken.after {
            symbols[after].before = Some(left);
            offer(&mut pairs, &symbols, left, after);
        }
        if let Some(before) = symbols[left].before {
            offer(&mut pairs, &symbols, before, left);
        }
    }
    let whole = symbols.iter().filter(|symbol| symbol.end > symbol.start);
    whole.map(|symbol| &text[symbol.start..symbol.end]).collect()
}
