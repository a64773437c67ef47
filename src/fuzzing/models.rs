//! What comes out of a model file: header, tokenizer, template. Never touches the disk.

use std::io::Cursor;

use candle_core::Device;
use candle_core::quantized::gguf_file::Content;

use super::one_line;
use crate::engine::gguf::Gguf;
use crate::engine::model::safetensors::described;
use crate::engine::template::{ChatTemplate, Message};
use crate::engine::tokenizer::Tokenizer;
use crate::limits::TEMPLATE_OUTPUT_BYTES_MAX;

/// What a message says, to be found nowhere but in what a template makes of it.
const SAID: &str = "what 4fK9wQz7 said";

/// The header of a GGUF file: what our check accepts lies in the file, and candle reads it without a
/// panic; what it refuses is told in one line.
pub fn gguf(bytes: &[u8]) {
    let gguf = match Gguf::from_bytes("f", bytes) {
        Ok(gguf) => gguf,
        Err(error) => return one_line(&error.to_string()),
    };
    let length = bytes.len() as u64;
    for tensor in gguf.tensors() {
        let end = tensor.offset.checked_add(tensor.bytes);
        assert!(end.is_some_and(|end| end <= length), "a tensor ends beyond the file");
        assert!(tensor.elements() > 0, "a tensor of nothing");
    }
    let mut file = Cursor::new(bytes);
    let Ok(content) = Content::read(&mut file) else { return };
    for tensor in gguf.tensors() {
        drop(content.tensor(&mut file, &tensor.name, &Device::Cpu));
    }
}

/// The header of a safetensors file: its tensors fill what follows it, or one line says why not.
pub fn safetensors(bytes: &[u8]) {
    match described(bytes, bytes.len() as u64) {
        Err(problem) => one_line(&problem),
        Ok((tensors, _)) => {
            for tensor in tensors {
                let end = tensor.offset.checked_add(tensor.bytes);
                assert!(end.is_some_and(|end| end <= bytes.len() as u64), "beyond the file");
            }
        }
    }
}

/// The tokenizer in a GGUF file: it is refused in one line, or makes tokens of its vocabulary out of
/// any text.
pub fn tokenizer(bytes: &[u8]) {
    let Ok(gguf) = Gguf::from_bytes("f", bytes) else { return };
    let tokenizer = match Tokenizer::from_gguf(&gguf) {
        Ok(tokenizer) => tokenizer,
        Err(error) => return one_line(&error.to_string()),
    };
    let tail = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(256)..]);
    for text in ["", "the bees, 12345 <|im_end|> \u{1f41d}\n\n  x", &tail] {
        let encoded = [tokenizer.encode(text), tokenizer.encode_marked(text, str::to_owned)];
        for token in encoded.into_iter().flatten().flatten() {
            assert!(token < tokenizer.vocabulary(), "token {token} is none");
            let _ = tokenizer.token_bytes(token);
        }
        for mark in tokenizer.marks(text) {
            assert!(text.get(mark).is_some_and(|mark| !mark.is_empty()), "a mark between letters");
        }
    }
    assert!(tokenizer.bos().is_none_or(|bos| bos < tokenizer.vocabulary()));
    assert!(tokenizer.end_tokens().iter().all(|end| tokenizer.ends(*end)));
}

/// A chat template: it is refused, fails or renders within its bounds; no error repeats a message.
pub fn template(bytes: &[u8]) {
    let Ok(source) = std::str::from_utf8(bytes) else { return };
    let message = |role: &str| Message { role: role.to_owned(), content: SAID.to_owned() };
    let messages = ["system", "user", "assistant", "user"].map(message);
    let rendered =
        ChatTemplate::new(source, "<s>", "</s>").and_then(|template| template.render(&messages));
    match rendered {
        Ok(text) => assert!(text.len() <= TEMPLATE_OUTPUT_BYTES_MAX),
        Err(error) => {
            let told = error.to_string();
            one_line(&told);
            assert!(!told.contains(SAID) || source.contains(SAID), "it repeats a message: {told}");
        }
    }
}
