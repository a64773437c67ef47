//! One line of text with a limit: literals and numbers stand whole, and names that do not fit are cut
//! inside themselves with an ellipsis. It never formats through `core::fmt`: a call costs too little
//! time for that.

/// Names that one line may hold.
const NAMES_MAX: usize = 4;
/// Digits of `u64::MAX`.
const DIGITS_MAX: usize = 20;
/// Measured numbers from here on are no measurement: as milliseconds, 11 days.
const MEASURE_MAX: f64 = 1e9;

/// What a pass over the pieces of a line does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Writes all of it, as long as its bytes fit: nearly always they do.
    Write,
    /// Writes nothing, counts characters.
    Measure,
    /// Writes all of it, names cut to their share.
    Cut,
}

/// A line being written.
pub struct Line {
    text: String,
    /// Bytes that may still be written in this pass without a closer look.
    room: usize,
    pass: Pass,
    /// Whether something did not fit in the first pass.
    full: bool,
    /// Characters of what can't be cut.
    fixed: usize,
    /// Characters of each name.
    names: [usize; NAMES_MAX],
    name_count: usize,
    /// Characters that a name may have.
    share: usize,
    /// Whether double quotes in names become single ones: in speech they would end it.
    unquoted: bool,
}

/// Writes a line of at most `limit` characters. The pieces may be asked for more than once.
pub fn write(limit: usize, unquoted: bool, pieces: &dyn Fn(&mut Line) -> &mut Line) -> String {
    let mut line = Line::new(limit, unquoted);
    pieces(&mut line);
    if line.full {
        line.fit(limit, pieces);
    }
    line.text
}

impl Line {
    fn new(limit: usize, unquoted: bool) -> Self {
        Self {
            text: String::with_capacity(limit),
            room: limit,
            pass: Pass::Write,
            full: false,
            fixed: 0,
            names: [0; NAMES_MAX],
            name_count: 0,
            share: usize::MAX,
            unquoted,
        }
    }

    /// Measures, then writes anew with the names cut.
    #[cold]
    fn fit(&mut self, limit: usize, pieces: &dyn Fn(&mut Self) -> &mut Self) {
        self.pass = Pass::Measure;
        self.room = 0;
        pieces(self);
        self.share = fair_share(&self.names[..self.name_count], limit.saturating_sub(self.fixed));
        self.pass = Pass::Cut;
        self.text.clear();
        pieces(self);
        if let Some((end, _)) = self.text.char_indices().nth(limit) {
            self.text.truncate(end);
        }
    }

    /// Words of our own.
    pub fn say(&mut self, words: &str) -> &mut Self {
        if let Some(room) = self.room.checked_sub(words.len()) {
            self.room = room;
            self.text.push_str(words);
        } else {
            self.say_slowly(words);
        }
        self
    }

    #[cold]
    fn say_slowly(&mut self, words: &str) {
        match self.pass {
            Pass::Write => self.full = true,
            Pass::Measure => self.fixed += words.chars().count(),
            Pass::Cut => self.text.push_str(words),
        }
    }

    /// A name or a reason that the fact brought along. An empty one is told as such.
    pub fn name(&mut self, name: &str) -> &mut Self {
        let name = if name.is_empty() { "(unnamed)" } else { name };
        if name.len() <= self.room && !(self.unquoted && name.contains('"')) {
            self.room -= name.len();
            self.text.push_str(name);
        } else {
            self.name_slowly(name);
        }
        self
    }

    #[cold]
    fn name_slowly(&mut self, name: &str) {
        match self.pass {
            Pass::Write => self.full = true,
            Pass::Measure => {
                if let Some(slot) = self.names.get_mut(self.name_count) {
                    *slot = name.chars().count();
                    self.name_count += 1;
                }
            }
            Pass::Cut => self.cut(name),
        }
    }

    /// Writes as much of a name as its share allows, the ellipsis included.
    fn cut(&mut self, name: &str) {
        let whole = name.char_indices().nth(self.share).is_none();
        let kept = if whole { usize::MAX } else { self.share.saturating_sub(1) };
        for c in name.chars().take(kept) {
            self.text.push(if c == '"' && self.unquoted { '\'' } else { c });
        }
        if !whole && self.share > 0 {
            self.text.push('…');
        }
    }

    /// A sentence that the fact brought along, without its full stop.
    pub fn reason(&mut self, reason: &str) -> &mut Self {
        match reason.trim_end_matches(['.', ' ', '\n']) {
            "" => self.name("no reason given"),
            reason => self.name(reason),
        }
    }

    /// The last part of a path.
    pub fn file(&mut self, path: &str) -> &mut Self {
        let end = path.trim_end_matches(['/', '\\']);
        self.name(end.rsplit(['/', '\\']).next().unwrap_or(end))
    }

    /// A whole number, every digit of it.
    pub fn count(&mut self, number: impl Into<u64>) -> &mut Self {
        let mut number = number.into();
        let mut digits = [b'0'; DIGITS_MAX];
        let mut start = DIGITS_MAX;
        loop {
            start -= 1;
            digits[start] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.say(std::str::from_utf8(&digits[start..]).unwrap_or_default())
    }

    /// A whole number and what is counted: `1 token`, `12 tokens`.
    pub fn many(&mut self, number: impl Into<u64>, one: &str, more: &str) -> &mut Self {
        let number = number.into();
        self.count(number).say(" ").say(if number == 1 { one } else { more })
    }

    /// A number of tokens.
    pub fn tokens(&mut self, number: u32) -> &mut Self {
        self.many(number, "token", "tokens")
    }

    /// A number with one decimal, given in tenths.
    fn tenths(&mut self, tenths: u64) -> &mut Self {
        self.count(tenths / 10).say(".").count(tenths % 10)
    }

    /// A size: `98.4 MB`, `512 bytes`.
    pub fn bytes(&mut self, bytes: u64) -> &mut Self {
        const UNITS: [(u64, &str); 5] = [
            (1_000_000_000_000_000, " PB"),
            (1_000_000_000_000, " TB"),
            (1_000_000_000, " GB"),
            (1_000_000, " MB"),
            (1_000, " kB"),
        ];
        for (size, unit) in UNITS {
            if bytes >= size {
                return self.tenths(rounded_tenths(bytes, size)).say(unit);
            }
        }
        self.many(bytes, "byte", "bytes")
    }

    /// A number of weights: `134.5M`.
    pub fn parameters(&mut self, weights: u64) -> &mut Self {
        match weights {
            0..1_000_000 => self.count(weights),
            1_000_000..1_000_000_000 => self.tenths(rounded_tenths(weights, 1_000_000)).say("M"),
            _ => self.tenths(rounded_tenths(weights, 1_000_000_000)).say("B"),
        }
    }

    /// A duration: `0.4 ms`, `120 ms`, `1.3 s`, `2 min 5 s`, `3 h 20 min`.
    pub fn duration(&mut self, ms: f64) -> &mut Self {
        if !(0.0..MEASURE_MAX).contains(&ms) {
            return self.say("an unknown time");
        }
        // Casts of floats saturate.
        if ms < 9.95 {
            self.tenths((ms * 10.0 + 0.5) as u64).say(" ms")
        } else if ms < 999.5 {
            self.count((ms + 0.5) as u64).say(" ms")
        } else if ms < 59_950.0 {
            self.tenths((ms / 100.0 + 0.5) as u64).say(" s")
        } else {
            let seconds = (ms / 1_000.0 + 0.5) as u64;
            match seconds {
                0..3_600 => self.count(seconds / 60).say(" min ").count(seconds % 60).say(" s"),
                _ => self.count(seconds / 3_600).say(" h ").count(seconds / 60 % 60).say(" min"),
            }
        }
    }

    /// A time to come, as whole as it was set: `2 s`, `500 ms`.
    pub fn wait(&mut self, ms: u64) -> &mut Self {
        match ms {
            1_000..60_000 if ms.is_multiple_of(1_000) => self.count(ms / 1_000).say(" s"),
            _ => self.duration(ms as f64),
        }
    }

    /// A number that measures something, with one decimal: `24.5`.
    pub fn number(&mut self, number: f64) -> &mut Self {
        if !(0.0..MEASURE_MAX).contains(&number) {
            return self.say("?");
        }
        self.tenths((number * 10.0 + 0.5) as u64)
    }

    /// A speed: `24.5 tokens/s`.
    pub fn rate(&mut self, rate: f64) -> &mut Self {
        self.number(rate).say(" tokens/s")
    }

    /// How much of the whole is done, where there is a whole: ` (45%)`.
    pub fn percent(&mut self, done: u64, total: u64) -> &mut Self {
        if total == 0 {
            return self;
        }
        let percent = u128::from(done.min(total)) * 100 / u128::from(total);
        self.say(" (").count(percent as u64).say("%)")
    }
}

/// `number / unit` in tenths, rounded.
fn rounded_tenths(number: u64, unit: u64) -> u64 {
    let (tenth, half) = (unit / 10, unit / 20);
    number / tenth + u64::from(number % tenth >= half)
}

/// The most that each name may have so that all together keep to `room`: short ones leave what they do
/// not need to the long ones.
fn fair_share(names: &[usize], room: usize) -> usize {
    let mut share = 0;
    loop {
        let used: usize = names.iter().map(|&name| name.min(share)).sum();
        let hungry = names.iter().filter(|&&name| name > share).count();
        match room.saturating_sub(used).checked_div(hungry) {
            None => return usize::MAX,
            Some(0) => return share,
            Some(more) => share += more,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(pieces: impl Fn(&mut Line) -> &mut Line) -> String {
        write(60, false, &pieces)
    }

    #[test]
    fn numbers_read_as_people_say_them() {
        for (ms, expected) in [
            (0.0, "0.0 ms"),
            (0.44, "0.4 ms"),
            (9.94, "9.9 ms"),
            (9.96, "10 ms"),
            (120.4, "120 ms"),
            (999.4, "999 ms"),
            (999.6, "1.0 s"),
            (1_312.0, "1.3 s"),
            (59_949.0, "59.9 s"),
            (59_951.0, "1 min 0 s"),
            (125_000.0, "2 min 5 s"),
            (12_000_000.0, "3 h 20 min"),
            (f64::NAN, "an unknown time"),
            (f64::INFINITY, "an unknown time"),
            (1e9, "an unknown time"),
            (-0.1, "an unknown time"),
            (-1.0, "an unknown time"),
            (-0.0, "0.0 ms"),
            (f64::MIN_POSITIVE, "0.0 ms"),
        ] {
            let text = written(|line| line.duration(ms));
            assert_eq!(text, expected, "{ms}");
        }
        for (bytes, expected) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (999, "999 bytes"),
            (1_000, "1.0 kB"),
            (98_362_432, "98.4 MB"),
            (85_000_000_000, "85.0 GB"),
            (u64::MAX, "18446.7 PB"),
        ] {
            let text = written(|line| line.bytes(bytes));
            assert_eq!(text, expected, "{bytes}");
        }
    }

    #[test]
    fn counts_keep_every_digit() {
        for number in [0, 7, 10, 49_152, u64::MAX] {
            let text = written(|line| line.count(number));
            assert_eq!(text, number.to_string());
        }
    }

    #[test]
    fn waits_and_shares_of_a_whole() {
        let text = written(|line| {
            line.wait(2_000).say(", ").wait(500).say(", ").wait(90_000);
            line.percent(45, 98).percent(7, 0).percent(u64::MAX, u64::MAX).percent(9, 4)
        });
        assert_eq!(text, "2 s, 500 ms, 1 min 30 s (45%) (100%) (100%)");
    }

    #[test]
    fn a_long_name_is_cut_inside_and_the_end_stays() {
        let long = "é".repeat(5_000);
        let text = written(|line| {
            line.say("Read ").name(&long).say(" and ").name("b.gguf").say(" at last.")
        });
        assert_eq!(text.chars().count(), 60);
        assert!(text.starts_with("Read éé"), "{text}");
        assert!(text.ends_with("é… and b.gguf at last."), "{text}");
    }

    #[test]
    fn long_names_share_what_there_is() {
        let long = "n".repeat(500);
        let text = write(21, false, &|line| line.name(&long).say("|").name(&long));
        assert_eq!(text, "nnnnnnnnn…|nnnnnnnnn…");
        assert_eq!(fair_share(&[3, 4], 20), usize::MAX);
        assert_eq!(fair_share(&[100, 2, 100], 22), 10);
        assert_eq!(fair_share(&[100], 0), 0);
    }

    #[test]
    fn names_never_end_a_quotation() {
        let text = write(60, true, &|line| line.say("\"").name("a\"b").say("\""));
        assert_eq!(text, "\"a'b\"");
    }

    #[test]
    fn paths_and_reasons_lose_what_says_nothing() {
        let text = written(|line| {
            line.file("/models/a b/m.gguf").say(" ").file("C:\\m\\x.gguf").say(" ").file("/");
            line.say(" ").reason("is gone. ").say(" ").reason("...")
        });
        assert_eq!(text, "m.gguf x.gguf (unnamed) is gone no reason given");
    }
}
