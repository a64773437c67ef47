//! Patterns of the operator's: characters, classes and repetitions, without groups or alternatives, so
//! that matching takes time in proportion to the text, whatever the pattern. Bytes are compared, case
//! is told apart.

/// Characters that a pattern may match at most.
const STEPS_MAX: usize = 127;
/// Characters that it matches at least: a shorter one would shred every text.
const STEPS_MIN: usize = 3;
/// What `+` and `*` repeat at most.
const REPEAT_MAX: usize = 64;

/// A pattern, ready to be matched: a bit for each place in it, 128 at most.
pub struct Pattern {
    /// For each byte, the places that take it.
    takes: Box<[u128; 256]>,
    /// Places that may be left out.
    optional: u128,
    steps: usize,
}

/// One character of a pattern: the bytes that it may be.
type Class = [bool; 256];

impl Pattern {
    /// Reads a pattern. The error says what is not understood, and where.
    pub fn read(source: &str) -> Result<Self, String> {
        let mut reader = Reader { bytes: source.as_bytes(), at: 0 };
        let (mut takes, mut optional) = (Box::new([0_u128; 256]), 0_u128);
        let (mut steps, mut least) = (0, 0);
        while reader.at < reader.bytes.len() {
            let class = reader.class()?;
            let (from, to) = reader.repetition()?;
            if steps + to > STEPS_MAX {
                return Err(format!("matches more than {STEPS_MAX} characters"));
            }
            for place in 0..to {
                for (byte, _) in class.iter().enumerate().filter(|(_, taken)| **taken) {
                    takes[byte] |= 1 << (steps + place);
                }
                optional |= u128::from(place >= from) << (steps + place);
            }
            if steps == 0 && from == 0 {
                return Err("begins with something that may be missing".to_owned());
            }
            (steps, least) = (steps + to, least + from);
        }
        if least < STEPS_MIN {
            return Err(format!("can match {least} characters, expected at least {STEPS_MIN}"));
        }
        Ok(Self { takes, optional, steps })
    }

    /// The bytes that it may begin with.
    pub fn firsts(&self) -> impl Iterator<Item = u8> + '_ {
        (0..=u8::MAX).filter(|&byte| self.takes[usize::from(byte)] & 1 == 1)
    }

    /// Length of the longest match at the beginning; `at_end` is called where more text could change it.
    pub fn longest(&self, text: &[u8], at_end: impl Fn()) -> Option<usize> {
        let accept = 1_u128 << self.steps;
        let mut places = 1_u128;
        let mut longest = None;
        for (read, &byte) in text.iter().enumerate() {
            places = self.without_optional((places & self.takes[usize::from(byte)]) << 1);
            if places & accept != 0 {
                longest = Some(read + 1);
            }
            if places & !accept == 0 {
                return longest;
            }
        }
        at_end();
        longest
    }

    /// The places, and those behind what may be left out.
    fn without_optional(&self, mut places: u128) -> u128 {
        loop {
            let more = places | (places & self.optional) << 1;
            if more == places {
                return places;
            }
            places = more;
        }
    }
}

struct Reader<'s> {
    bytes: &'s [u8],
    at: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<u8> {
        let byte = self.bytes.get(self.at).copied();
        self.at += usize::from(byte.is_some());
        byte
    }

    /// One character: itself, an escape, or a class in brackets.
    fn class(&mut self) -> Result<Class, String> {
        let place = self.at;
        let mut class = [false; 256];
        match self.next() {
            Some(b'\\') => self.escape(&mut class)?,
            Some(b'[') => self.brackets(&mut class)?,
            Some(b'.') => {
                (b' '..=b'~').for_each(|byte| class[usize::from(byte)] = true);
            }
            Some(
                byte @ (b'(' | b')' | b'|' | b'{' | b'}' | b'*' | b'+' | b'?' | b']' | b'^' | b'$'),
            ) => {
                let byte = char::from(byte);
                return Err(format!(
                    "has `{byte}` at {place}: groups, alternatives and anchors are not known; write \\{byte} for the character"
                ));
            }
            Some(byte) => class[usize::from(byte)] = true,
            None => return Err("ends too early".to_owned()),
        }
        Ok(class)
    }

    fn escape(&mut self, class: &mut Class) -> Result<(), String> {
        let mut range =
            |from: u8, to: u8| (from..=to).for_each(|byte| class[usize::from(byte)] = true);
        match self.next() {
            Some(b'd') => range(b'0', b'9'),
            Some(b'w') => {
                range(b'0', b'9');
                range(b'a', b'z');
                range(b'A', b'Z');
                range(b'_', b'_');
            }
            Some(b's') => {
                range(b' ', b' ');
                range(b'\t', b'\t');
            }
            Some(byte) if byte.is_ascii_punctuation() => range(byte, byte),
            Some(byte) => return Err(format!("has \\{}, known are \\d \\w \\s", char::from(byte))),
            None => return Err("ends with a backslash".to_owned()),
        }
        Ok(())
    }

    /// What stands between brackets: characters, escapes and ranges.
    fn brackets(&mut self, class: &mut Class) -> Result<(), String> {
        if self.bytes.get(self.at) == Some(&b'^') {
            return Err("has [^…]: name what it takes, not what it leaves".to_owned());
        }
        loop {
            match self.next() {
                None => return Err("has a [ without its ]".to_owned()),
                Some(b']') => return Ok(()),
                Some(b'\\') => self.escape(class)?,
                Some(byte) if !byte.is_ascii() => {
                    return Err("has a character beyond ASCII in brackets".to_owned());
                }
                Some(from) => {
                    let rest = self.bytes.get(self.at..).unwrap_or_default();
                    let to = match rest {
                        [b'-', to, ..] if *to != b']' => {
                            self.at += 2;
                            *to
                        }
                        _ => from,
                    };
                    if to < from {
                        return Err("has a range that runs backwards".to_owned());
                    }
                    (from..=to).for_each(|byte| class[usize::from(byte)] = true);
                }
            }
        }
    }

    /// How often it comes: at least, at most.
    fn repetition(&mut self) -> Result<(usize, usize), String> {
        let range = match self.bytes.get(self.at) {
            Some(b'?') => (0, 1),
            Some(b'*') => (0, REPEAT_MAX),
            Some(b'+') => (1, REPEAT_MAX),
            Some(b'{') => return self.counted(),
            _ => return Ok((1, 1)),
        };
        self.at += 1;
        Ok(range)
    }

    /// `{n}` or `{n,m}`.
    fn counted(&mut self) -> Result<(usize, usize), String> {
        let rest = self.bytes.get(self.at + 1..).unwrap_or_default();
        let wrong = || "has a { that is no {n} or {n,m}".to_owned();
        let end = rest.iter().position(|&byte| byte == b'}').ok_or_else(wrong)?;
        let text = std::str::from_utf8(&rest[..end]).map_err(|_| wrong())?;
        let (from, to) = text.split_once(',').unwrap_or((text, text));
        let (from, to): (usize, usize) =
            (from.trim().parse().map_err(|_| wrong())?, to.trim().parse().map_err(|_| wrong())?);
        if to < from || to == 0 {
            return Err(wrong());
        }
        self.at += end + 2;
        Ok((from, to))
    }
}
