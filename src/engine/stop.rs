//! Stop strings found in text that comes in pieces, wherever the pieces are cut.
//! Never lets out the beginning of a stop string before it is sure that it isn't one.

use crate::private::Private;

/// Watches a text for stop strings.
///
/// The stop string that is *complete first* wins, so that the stream ends at once; of several which
/// end on the same character, the longest wins (it began first), of equal ones the first given.
/// An empty stop string never matches. Cost: one step a byte and stop string.
pub struct StopMatcher {
    patterns: Vec<Pattern>,
    /// Text that may yet turn out to be the beginning of a stop string.
    held: String,
    matched: Option<usize>,
}

/// What a piece of text brought about. Has no `Debug`: the text is the model's and must not leak.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// Text that can be sent for sure.
    pub text: String,
    /// Which stop string ended the text, by its place among those given to [`StopMatcher::new`].
    pub matched: Option<usize>,
}

/// A stop string as a Knuth-Morris-Pratt automaton over its bytes.
struct Pattern {
    bytes: Vec<u8>,
    /// For each length matched: the longest shorter one that the same bytes match too.
    fallback: Vec<usize>,
    /// How many bytes are matched now.
    length: usize,
}

impl Pattern {
    fn new(text: &str) -> Self {
        let bytes = text.as_bytes().to_vec();
        let mut fallback = vec![0; bytes.len() + 1];
        let mut length = 0;
        for end in 1..bytes.len() {
            while length > 0 && bytes[length] != bytes[end] {
                length = fallback[length];
            }
            length += usize::from(bytes[length] == bytes[end]);
            fallback[end + 1] = length;
        }
        Pattern { bytes, fallback, length: 0 }
    }

    /// Takes one byte; whether the stop string ends with it.
    fn step(&mut self, byte: u8) -> bool {
        if self.bytes.is_empty() {
            return false;
        }
        while self.length > 0 && self.bytes[self.length] != byte {
            self.length = self.fallback[self.length];
        }
        self.length += usize::from(self.bytes[self.length] == byte);
        self.length == self.bytes.len()
    }
}

impl StopMatcher {
    /// A matcher at the start of a text.
    pub fn new(stops: &[Private]) -> Self {
        let patterns = stops.iter().map(|stop| Pattern::new(stop.expose())).collect();
        StopMatcher { patterns, held: String::new(), matched: None }
    }

    /// Takes a piece of text. Once a stop string has matched, everything from its first character
    /// on is dropped for good, and every further step says again which one it was.
    pub fn push(&mut self, text: &str) -> Step {
        if self.matched.is_none() {
            let before = self.held.len();
            self.held.push_str(text);
            for (index, byte) in text.bytes().enumerate() {
                self.matched = self.step(byte);
                if let Some(winner) = self.matched {
                    let end = before + index + 1;
                    self.held.truncate(end - self.patterns[winner].bytes.len());
                    let text = std::mem::take(&mut self.held);
                    return Step { text, matched: self.matched };
                }
            }
        }
        let held = self.patterns.iter().map(|pattern| pattern.length).max().unwrap_or(0);
        let sure = self.held.len().saturating_sub(held);
        let rest = self.held.split_off(sure);
        Step { text: std::mem::replace(&mut self.held, rest), matched: self.matched }
    }

    /// Ends the text and gives back what was held; nothing after a match.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Advances every pattern by a byte; the longest of those which are complete with it.
    fn step(&mut self, byte: u8) -> Option<usize> {
        let mut winner: Option<usize> = None;
        for index in 0..self.patterns.len() {
            let longest = winner.map_or(0, |winner| self.patterns[winner].bytes.len());
            let pattern = &mut self.patterns[index];
            if pattern.step(byte) && pattern.bytes.len() > longest {
                winner = Some(index);
            }
        }
        winner
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    use super::*;

    fn matcher(stops: &[&str]) -> StopMatcher {
        let stops = stops.iter().map(|stop| Private::new((*stop).to_owned()));
        StopMatcher::new(&stops.collect::<Vec<_>>())
    }

    /// The rule of the documentation, on the whole text: text before the match, and the match.
    fn oracle(text: &str, stops: &[&str]) -> (String, Option<usize>) {
        for end in 0..=text.len() {
            let Some(before) = text.get(..end) else { continue };
            let ending = stops.iter().enumerate();
            let ending = ending.filter(|(_, s)| !s.is_empty() && before.ends_with(**s));
            if let Some((index, stop)) = ending.rev().max_by_key(|(_, stop)| stop.len()) {
                return (before[..end - stop.len()].to_owned(), Some(index));
            }
        }
        (text.to_owned(), None)
    }

    fn streamed(pieces: &[&str], stops: &[&str]) -> (String, Option<usize>) {
        let mut matcher = matcher(stops);
        let mut text = String::new();
        let mut matched = None;
        for piece in pieces {
            let step = matcher.push(piece);
            text.push_str(&step.text);
            matched = step.matched;
        }
        text.push_str(&matcher.finish());
        (text, matched)
    }

    #[test]
    fn holds_what_may_become_a_stop_string_and_lets_it_go() {
        let mut matcher = matcher(&["END", "\n\n"]);
        let mut push = |text| {
            let step = matcher.push(text);
            (step.text, step.matched)
        };
        assert_eq!(push("to the E"), ("to the ".into(), None));
        assert_eq!(push("N"), ("".into(), None));
        assert_eq!(push("T, E"), ("ENT, ".into(), None));
        assert_eq!(push("ND and more"), ("".into(), Some(0)));
        assert_eq!(push("more"), ("".into(), Some(0)));
        assert_eq!(matcher.finish(), "");
    }

    #[test]
    fn the_end_of_the_text_gives_back_what_was_held() {
        let mut matcher = matcher(&["蜂蜜"]);
        assert_eq!(matcher.push("eat 蜂").text, "eat ");
        assert_eq!(matcher.finish(), "蜂");
    }

    #[test]
    fn first_complete_wins_then_longest_then_first_given() {
        assert_eq!(streamed(&["xabcdef"], &["abcdef", "cd"]), ("xab".into(), Some(1)));
        assert_eq!(streamed(&["xabcd"], &["cd", "abcd"]), ("x".into(), Some(1)));
        assert_eq!(streamed(&["xab"], &["ab", "ab"]), ("x".into(), Some(0)));
        assert_eq!(streamed(&["x"], &["", "y"]), ("x".into(), None));
        assert_eq!(streamed(&["x"], &[]), ("x".into(), None));
    }

    #[test]
    fn random_cuts_equal_the_whole() {
        let letters = ['a', 'b', 'é', '蜂'];
        for seed in 0..3_000 {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let mut word = |most: u32| -> String {
                let length = random.next_u32() % most;
                (0..length).map(|_| letters[random.next_u32() as usize % 4]).collect()
            };
            let text = word(40);
            let stops = [word(5), word(6), word(4), word(7)];
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let ends: Vec<usize> = text
                .char_indices()
                .map(|(at, _)| at)
                .filter(|_| random.next_u32() & 1 == 0)
                .collect();
            let mut pieces = Vec::new();
            let mut from = 0;
            for end in ends.into_iter().chain([text.len()]) {
                pieces.push(&text[from..end]);
                from = end;
            }
            assert_eq!(streamed(&pieces, &stops), oracle(&text, &stops), "seed {seed}: {text:?}");
        }
    }

    #[test]
    fn nothing_sent_can_be_part_of_a_later_match() {
        for seed in 0..500 {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let text: String =
                (0..60).map(|_| if random.next_u32() & 1 == 0 { 'a' } else { 'b' }).collect();
            let mut matcher = matcher(&["aabab", "bbb"]);
            let mut sent = String::new();
            for letter in text.chars() {
                let step = matcher.push(&letter.to_string());
                sent.push_str(&step.text);
                if step.matched.is_some() {
                    break;
                }
            }
            assert!(!sent.contains("aabab") && !sent.contains("bbb"), "seed {seed}: {sent}");
        }
    }
}
