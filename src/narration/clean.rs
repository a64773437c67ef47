//! Text made safe: nothing that could move a cursor, hide or reverse text, or break a line reaches a
//! sink. Reads no clock and does no I/O.

use std::borrow::Cow;

use super::vocabulary::types::Narration;
use crate::limits::FACT_CHARS_MAX;

/// What stands between an escape character and the end of its sequence.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// Inside a control sequence: `ESC [` up to a final byte.
    Sequence,
    /// Inside a string sequence (title, device control): up to BEL or ST.
    Quoted,
    /// Inside a string sequence, after ESC.
    QuotedEscape,
}

/// Drops control characters, ANSI escape sequences and bidirectional controls, one character at a
/// time, so that it works across the pieces of a text. Line breaks and tabs become spaces.
#[derive(Clone, Copy, Default)]
pub struct Cleaner {
    state: State,
}

impl Cleaner {
    /// What may be shown of the next character: itself, a space in its place, or nothing.
    pub fn pass(&mut self, c: char) -> Option<char> {
        match self.state {
            State::Text => self.pass_text(c),
            State::Escape => {
                self.state = match c {
                    '[' => State::Sequence,
                    ']' | 'P' | 'X' | '^' | '_' => State::Quoted,
                    ' '..='/' => State::Escape,
                    _ => State::Text,
                };
                // An escape that no sequence follows is dropped alone.
                if self.state == State::Text && !('0'..='~').contains(&c) {
                    return self.pass_text(c);
                }
                None
            }
            State::Sequence => {
                match c {
                    '\u{20}'..='\u{3f}' => {}
                    '\u{1b}' => self.state = State::Escape,
                    '@'..='~' => self.state = State::Text,
                    _ => {
                        self.state = State::Text;
                        return self.pass_text(c);
                    }
                }
                None
            }
            State::Quoted => {
                match c {
                    '\u{7}' | '\u{9c}' => self.state = State::Text,
                    '\u{1b}' => self.state = State::QuotedEscape,
                    _ => {}
                }
                None
            }
            State::QuotedEscape => {
                self.state = if c == '\\' { State::Text } else { State::Quoted };
                None
            }
        }
    }

    fn pass_text(&mut self, c: char) -> Option<char> {
        match c {
            '\n' | '\r' | '\t' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}' => {
                Some(' ')
            }
            '\u{1b}' => {
                self.state = State::Escape;
                None
            }
            '\u{9b}' => {
                self.state = State::Sequence;
                None
            }
            '\u{90}' | '\u{98}' | '\u{9d}' | '\u{9e}' | '\u{9f}' => {
                self.state = State::Quoted;
                None
            }
            c if is_unsafe(c) => None,
            c => Some(c),
        }
    }
}

/// Whether a character must not be shown: C0, DEL, C1, bidirectional controls, byte order marks,
/// tag characters. The joiner that holds an emoji together stays.
const fn is_unsafe(c: char) -> bool {
    matches!(c,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}'
        | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// Whether no byte can belong to a character that must not be shown: controls, or what begins one of those
/// in [`is_unsafe`]. Most emoji and letters pass, so that their texts need not be copied.
fn is_surely_safe(byte: u8) -> bool {
    byte >= 0x20 && !matches!(byte, 0x7f | 0xc2 | 0xd8 | 0xe2 | 0xef)
}

/// The text as one safe line of at most `chars_max` characters.
pub fn line(text: &str, chars_max: usize) -> Cow<'_, str> {
    if text.len() <= chars_max && text.bytes().all(is_surely_safe) {
        return Cow::Borrowed(text);
    }
    let mut cleaner = Cleaner::default();
    Cow::Owned(text.chars().filter_map(|c| cleaner.pass(c)).take(chars_max).collect())
}

/// Makes every text of a narration safe and bounded, so that a filter sees what a reader would see: a
/// secret that is broken by an escape sequence must not come together behind its back.
pub fn narration(narration: &mut Narration) {
    narration.texts(&mut |text| {
        if let Cow::Owned(safe) = line(text, FACT_CHARS_MAX) {
            *text = safe;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(line(text, 100), expected, "of {text:?}");
        assert_eq!(line(&line(text, 100), 100), expected, "cleaning twice {text:?}");
    }

    #[test]
    fn escapes_controls_and_bidi_vanish() {
        check("plain", "plain");
        check("two\nlines\r\n", "two lines  ");
        check("\x1b[31mred\x1b[0m", "red");
        check("\x1b]0;title\x07after", "after");
        check("\x1b]8;;http://x\x1b\\link", "link");
        check("\u{9b}2Jgone", "gone");
        check("\x1b(Bset", "set");
        check("a\u{202e}b\u{2066}c", "abc");
        check("a\u{2028}b\u{85}c", "a b c");
        check("nul\0del\x7f", "nuldel");
        check("\x1b\u{e9}", "\u{e9}");
    }

    #[test]
    fn the_joiner_in_an_emoji_stays() {
        check("👩\u{200d}🔬", "👩\u{200d}🔬");
    }

    #[test]
    fn what_is_surely_safe_is_safe() {
        for c in ('\0'..=char::MAX).filter(|&c| is_unsafe(c)) {
            let text = c.to_string();
            assert!(!text.bytes().all(is_surely_safe), "{c:?} would pass");
            assert_ne!(line(&text, 100), text);
        }
        let bees = "Zwei Bienen 🐝 für Łódź";
        assert!(matches!(line(bees, 100), Cow::Borrowed(kept) if kept == bees));
    }

    #[test]
    fn cuts_on_a_character() {
        assert_eq!(line("äöü🐝x", 4), "äöü🐝");
        assert_eq!(line("abc", 0), "");
    }

    #[test]
    fn nothing_unsafe_survives_any_pair() {
        let marks =
            ['\x1b', '[', ']', '\u{9b}', '\u{9d}', '\x07', '\\', 'm', '\n', '\u{202e}', 'x'];
        for a in marks {
            for b in marks {
                for c in marks {
                    let text: String = [a, b, c, 'y'].iter().collect();
                    assert!(!line(&text, 9).chars().any(is_unsafe), "{text:?}");
                }
            }
        }
    }
}
