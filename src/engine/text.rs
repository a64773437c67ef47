//! Bytes of tokens made into text while they come: whole characters only.
//! Never splits a character, never loses a byte, never holds back more than three of them.

use std::str::from_utf8;

/// A stream of bytes on its way to text.
///
/// All that comes out, put together, is what `String::from_utf8_lossy` makes of all that went in:
/// bytes which are no UTF-8 become U+FFFD in the same places, however the bytes were cut.
#[derive(Default)]
pub struct TextStream {
    /// The beginning of a character whose rest is to come, at most three bytes.
    tail: Vec<u8>,
}

impl TextStream {
    /// A stream at its start.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the bytes of a token and gives back the characters that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.tail.extend_from_slice(bytes);
        let bytes = std::mem::take(&mut self.tail);
        let mut rest = bytes.as_slice();
        let mut text = String::with_capacity(rest.len());
        while let Err(error) = from_utf8(rest) {
            let (valid, broken) = rest.split_at(error.valid_up_to());
            text.push_str(from_utf8(valid).expect("valid_up_to bytes are valid"));
            let Some(length) = error.error_len() else {
                self.tail = broken.to_vec();
                return text;
            };
            text.push(char::REPLACEMENT_CHARACTER);
            rest = &broken[length..];
        }
        text.push_str(from_utf8(rest).expect("the loop ends on valid bytes"));
        text
    }

    /// Ends the stream; an incomplete character becomes U+FFFD. The stream can be used anew.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.tail)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    use super::*;

    fn streamed(pieces: &[&[u8]]) -> String {
        let mut stream = TextStream::new();
        let mut text: String = pieces.iter().map(|piece| stream.push(piece)).collect();
        assert!(stream.tail.len() <= 3);
        text.push_str(&stream.finish());
        text
    }

    #[test]
    fn a_character_waits_for_its_last_byte() {
        let mut stream = TextStream::new();
        for byte in &"🐝".as_bytes()[..3] {
            assert_eq!(stream.push(&[*byte]), "");
        }
        assert_eq!(stream.push(&"🐝".as_bytes()[3..]), "🐝");
        assert_eq!(stream.finish(), "");
    }

    #[test]
    fn a_character_that_stays_incomplete_is_replaced_once() {
        assert_eq!(streamed(&["é 蜂".as_bytes(), &[0xf0, 0x9f, 0x90]]), "é 蜂\u{fffd}");
        assert_eq!(streamed(&[&[0xf0, 0x9f], b"x"]), "\u{fffd}x");
    }

    #[test]
    fn random_cuts_of_random_bytes_equal_the_lossy_whole() {
        let interesting = "aé蜂🐝".as_bytes();
        for seed in 0..2_000 {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let bytes: Vec<u8> = (0..random.next_u32() % 40)
                .map(|_| match random.next_u32() % 4 {
                    0 => random.next_u32() as u8,
                    _ => interesting[random.next_u32() as usize % interesting.len()],
                })
                .collect();
            let mut pieces = Vec::new();
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(1 + random.next_u32() as usize % rest.len());
                pieces.push(piece);
                rest = after;
            }
            assert_eq!(streamed(&pieces), String::from_utf8_lossy(&bytes), "seed {seed}");
        }
    }

    #[test]
    fn whole_text_comes_through_cut_at_every_byte() {
        let text = "Grüße, 蜂蜜 🐝👩‍🚀 — ok";
        for cut in 0..=text.len() {
            let (before, after) = text.as_bytes().split_at(cut);
            assert_eq!(streamed(&[before, after]), text);
        }
    }
}
