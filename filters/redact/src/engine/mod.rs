//! The scanner: one pass over a text from left to right. Each find is made at a trigger byte by looking a
//! bounded way ahead or back; only what is taken out may be long, and it is not read again. So the time
//! is linear in the text, and what was replaced is never taken for a secret anew.

mod auth;
mod card;
mod email;
mod family;
mod home;
mod named;
mod pem;
mod prefix;
mod stream;
mod triggers;
mod url;

pub use family::Family;
pub use stream::Stream;
pub use triggers::Triggers;

use std::borrow::Cow;
use std::cell::Cell;

use crate::policy::Policy;
use triggers::{ANYWHERE, BOUNDARY, LITERAL};

/// What to do with a piece of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Replace it.
    Take(Family),
    /// A home folder: a tilde says as much without the name.
    Tilde,
    /// Pass it on as it is, unread: a replacement, or what the operator allows.
    Keep,
}

/// A piece of text, and what to do with it.
#[derive(Clone, Copy, Debug)]
struct Find {
    start: usize,
    end: usize,
    verdict: Verdict,
}

impl Find {
    const fn new(start: usize, end: usize, family: Family) -> Self {
        Self { start, end, verdict: Verdict::Take(family) }
    }

    /// Both finds as one, with what lies between them.
    fn joined(self, other: Self) -> Self {
        let verdict = if self.verdict == Verdict::Keep { other.verdict } else { self.verdict };
        Self { start: self.start.min(other.start), end: self.end.max(other.end), verdict }
    }
}

/// Takes secrets and personal data out of a text; borrows it when there are none.
pub fn redact<'t>(policy: &Policy, text: &'t str) -> Cow<'t, str> {
    let mut scan = Scan::new(policy, text);
    scan.advance(&mut Progress::default());
    scan.finish()
}

/// The same for the value of a key: one that is named like a secret loses its value whole.
pub fn redact_named<'t>(policy: &Policy, key: &str, text: &'t str) -> Cow<'t, str> {
    let secret = named::is_secret(key, text) && !policy.allows(text);
    if secret && policy.replaced(text).is_none() {
        return Cow::Owned(policy.replacement(Family::Secret).to_owned());
    }
    redact(policy, text)
}

/// Whether a key's number counts or measures something, and is no card's.
pub fn measures(key: &str) -> bool {
    card::measures(key)
}

/// A text being read.
struct Scan<'p, 't> {
    policy: &'p Policy,
    text: &'t str,
    bytes: &'t [u8],
    /// What was read and written so far, where it differs from the text.
    clean: String,
    /// Where the text begins that was not copied to `clean`.
    copied: usize,
    /// End of the last find: nothing before it is looked at again.
    floor: usize,
    /// What a reader of the result sees before `floor`.
    floor_byte: u8,
    /// No token begins before here.
    no_jwt_before: usize,
    /// Whether more text may follow, so that the end of this one decides nothing.
    open: bool,
    /// Whether a decision met the end of a text that more may follow.
    met_end: Cell<bool>,
}

/// How far a text was read, and what is settled next.
#[derive(Clone, Copy, Default)]
struct Progress {
    at: usize,
    planned: Option<Find>,
}

/// What a decision changes, to be taken back where it met the end.
struct Kept {
    clean: usize,
    copied: usize,
    floor: usize,
    floor_byte: u8,
    no_jwt_before: usize,
}

impl<'p, 't> Scan<'p, 't> {
    fn new(policy: &'p Policy, text: &'t str) -> Self {
        Self {
            policy,
            text,
            bytes: text.as_bytes(),
            clean: String::new(),
            copied: 0,
            floor: 0,
            floor_byte: b' ',
            no_jwt_before: 0,
            open: false,
            met_end: Cell::new(false),
        }
    }

    /// Reads on to the end, or to a decision that more text may change.
    fn advance(&mut self, progress: &mut Progress) {
        while progress.at < self.text.len() {
            let planned = progress.planned;
            if planned.is_none_or(|find| find.start > progress.at) {
                let limit = planned.map_or(self.text.len(), |find| find.start);
                progress.at = self.next_trigger(progress.at, limit);
                if progress.at == limit && !self.met_end.get() {
                    continue;
                }
            }
            if self.met_end.get() {
                return;
            }
            let (kept, before) = (self.kept(), *progress);
            self.decide(progress);
            if self.met_end.get() {
                self.take_back(kept);
                *progress = before;
                return;
            }
        }
    }

    /// Settles what is planned for here, or looks what the trigger byte here belongs to.
    fn decide(&mut self, progress: &mut Progress) {
        let at = progress.at;
        if let Some(find) = progress.planned.take_if(|find| find.start <= at) {
            progress.at = self.settle(find);
            return;
        }
        match (self.find(at), progress.planned) {
            (None, _) => progress.at += 1,
            // Ends before the planned one begins.
            (Some(find), Some(next)) if find.start <= at && find.end <= next.start => {
                progress.at = self.settle(find);
            }
            // Settled in the next round, unless it begins further on.
            (Some(find), next) => {
                progress.planned = Some(next.map_or(find, |next| find.joined(next)));
                progress.at += usize::from(find.start > at);
            }
        }
    }

    fn kept(&self) -> Kept {
        let (clean, copied) = (self.clean.len(), self.copied);
        let Self { floor, floor_byte, no_jwt_before, .. } = *self;
        Kept { clean, copied, floor, floor_byte, no_jwt_before }
    }

    fn take_back(&mut self, kept: Kept) {
        self.clean.truncate(kept.clean);
        let Kept { copied, floor, floor_byte, no_jwt_before, .. } = kept;
        (self.copied, self.floor, self.floor_byte) = (copied, floor, floor_byte);
        self.no_jwt_before = no_jwt_before;
    }

    /// Notes that what comes behind the end of the text would matter.
    fn meet_end(&self) {
        self.met_end.set(self.open);
    }

    /// Where it is worth looking closer next, or `limit`. Nearly all time is spent here.
    fn next_trigger(&self, from: usize, limit: usize) -> usize {
        let table = &self.policy.triggers.0;
        let mut before = table[usize::from(self.before(from))];
        for (place, &byte) in self.bytes[from..limit].iter().enumerate() {
            let bits = table[usize::from(byte)];
            // One test a byte: a boundary before lets through what begins a word.
            let mask = ANYWHERE | LITERAL | ((before & BOUNDARY) >> 4);
            if bits & mask != 0 && (self.is_plausible(from + place, bits) || self.met_end.get()) {
                return from + place;
            }
            before = bits;
        }
        limit
    }

    /// Whether the next bytes speak for a find. Nearly all triggers stop here.
    fn is_plausible(&self, at: usize, bits: u8) -> bool {
        let next = |width: usize| self.byte(at + width).unwrap_or(b' ');
        if bits & LITERAL != 0 {
            return true;
        }
        match self.bytes[at] {
            b'-' => next(1) == b'-' && next(2) == b'-',
            b'/' => matches!(next(1), b'h' | b'U'),
            b'\\' => matches!(next(1), b'U' | b'u' | b'\\'),
            b'%' => next(1) == b'4',
            b'@' | b':' | b'=' => true,
            b'0'..=b'9' => next(1).is_ascii_digit(),
            byte @ (b'b' | b'B') => auth::may_begin_with(byte, next(1)),
            byte => prefix::may_begin_with(byte, next(1)),
        }
    }

    /// What the trigger byte here belongs to.
    fn find(&mut self, at: usize) -> Option<Find> {
        if let Some(end) = self.mark(at) {
            return Some(Find { start: at, end, verdict: Verdict::Keep });
        }
        if let Some(find) = self.denied(at) {
            return Some(find);
        }
        match self.bytes[at] {
            b'@' => email::find(self, at),
            b'%' => email::find_encoded(self, at),
            b':' if self.begins(at, b"://") => url::find(self, at),
            b':' => named::find(self, at),
            b'=' => named::find(self, at),
            b'/' | b'\\' => home::find(self, at),
            b'-' => pem::find(self, at),
            // A literal's first byte, in the middle of a word.
            _ if self.before(at).is_ascii_alphanumeric() => None,
            b'0'..=b'9' => card::find(self, at),
            _ => prefix::find(self, at).or_else(|| auth::find(self, at)),
        }
    }

    /// Does what a find says. Returns where to read on.
    fn settle(&mut self, find: Find) -> usize {
        let Find { start, mut end, verdict } = find;
        let replacement = match verdict {
            Verdict::Take(_) if self.policy.allows(&self.text[start..end]) => None,
            Verdict::Take(family) => Some(self.policy.replacement(family)),
            Verdict::Tilde => Some("~"),
            Verdict::Keep => None,
        };
        self.floor_byte = self.bytes[end - 1];
        if let Some(replacement) = replacement {
            end = self.whole(start, end);
            self.clean.push_str(&self.text[self.copied..start]);
            self.clean.push_str(replacement);
            self.copied = end;
            self.floor_byte = replacement.bytes().next_back().unwrap_or(b' ');
        }
        self.floor = end;
        end
    }

    /// End of a find, and of what begins in it and reaches beyond: numbers and credentials have blanks.
    fn whole(&self, start: usize, end: usize) -> usize {
        let mut whole = end;
        let mut at = start;
        while at < whole {
            if !self.before(at).is_ascii_alphanumeric() {
                let inner = match self.bytes[at] {
                    b'0'..=b'9' => card::find(self, at),
                    b'b' | b'B' => auth::find(self, at),
                    _ => None,
                };
                whole = inner.map_or(whole, |inner| whole.max(inner.end));
            }
            at += 1;
        }
        whole
    }

    fn finish(mut self) -> Cow<'t, str> {
        if self.copied == 0 {
            return Cow::Borrowed(self.text);
        }
        self.clean.push_str(&self.text[self.copied..]);
        Cow::Owned(self.clean)
    }

    /// The byte before, as a reader of the result sees it; a space at the beginning.
    fn before(&self, at: usize) -> u8 {
        if at == self.floor { self.floor_byte } else { self.bytes[at - 1] }
    }

    fn byte(&self, at: usize) -> Option<u8> {
        let byte = self.bytes.get(at).copied();
        if byte.is_none() {
            self.meet_end();
        }
        byte
    }

    /// Whether these bytes stand here.
    fn begins(&self, at: usize, wanted: &[u8]) -> bool {
        self.starts_with(at, wanted, u8::clone)
    }

    /// The same after each byte of the text was changed.
    fn starts_with(&self, at: usize, wanted: &[u8], change: impl Fn(&u8) -> u8) -> bool {
        wanted
            .iter()
            .enumerate()
            .all(|(place, &byte)| self.byte(at + place).is_some_and(|found| change(&found) == byte))
    }

    /// How many bytes from here on, at most `most`, satisfy a condition.
    fn count(&self, from: usize, most: usize, wanted: impl Fn(u8) -> bool) -> usize {
        let rest = self.bytes.get(from..).unwrap_or_default();
        let count = rest.iter().take(most).take_while(|&&byte| wanted(byte)).count();
        if count == rest.len() && count < most {
            self.meet_end();
        }
        count
    }

    /// The byte that a reader of the result sees behind a find: none where something else begins
    /// that will be replaced, so that a second reading decides as the first.
    fn behind(&self, at: usize) -> Option<u8> {
        self.byte(at).filter(|_| !self.ends(at) && self.denied(at).is_none())
    }

    /// Whether nothing that began before reaches beyond here: a replacement or a private key begins.
    fn ends(&self, at: usize) -> bool {
        self.mark(at).is_some() || (self.bytes[at] == b'-' && pem::begin(self, at).is_some())
    }

    /// End of the replacement that stands here.
    fn mark(&self, at: usize) -> Option<usize> {
        let bits = self.policy.triggers.0[usize::from(self.byte(at)?)];
        if bits & LITERAL == 0 {
            return None;
        }
        let rest = self.text.get(at..)?;
        if self.open && self.policy.may_begin(rest) {
            self.meet_end();
        }
        self.policy.replaced(rest).map(|length| at + length)
    }

    /// What the operator denies, where no replacement stands in it.
    fn denied(&self, at: usize) -> Option<Find> {
        let bits = self.policy.triggers.0[usize::from(self.bytes[at])];
        if bits & LITERAL == 0 {
            return None;
        }
        let rest = self.text.get(at..)?;
        if self.open && self.policy.may_begin(rest) {
            self.meet_end();
        }
        let denied = self.policy.denied(rest).map(|length| (length, Family::Denied));
        let matched = self.policy.patterns.iter().filter_map(|pattern| {
            let found = pattern.longest(rest.as_bytes(), || self.meet_end());
            found.map(|length| (length, Family::Pattern))
        });
        let (length, family) =
            denied.into_iter().chain(matched).max_by_key(|(length, _)| *length)?;
        let end = at + length;
        let whole = (at + 1..end).all(|inside| self.mark(inside).is_none());
        whole.then_some(Find::new(at, end, family))
    }

    /// End of the bytes from here on that satisfy a condition. A replacement and a private key end them.
    fn run(&self, from: usize, wanted: impl Fn(u8) -> bool) -> usize {
        self.run_to(from, usize::MAX, wanted)
    }

    /// The same, and not beyond `limit`.
    fn run_to(&self, from: usize, limit: usize, wanted: impl Fn(u8) -> bool) -> usize {
        let mut at = from;
        while at < limit && self.byte(at).is_some_and(&wanted) && !self.ends(at) {
            at += 1;
        }
        at
    }

    /// The text between, up to a character boundary.
    fn look(&self, start: usize, end: usize) -> &'t str {
        &self.text[start..self.text.floor_char_boundary(end)]
    }

    /// End of the blanks from here on, a few at most.
    fn blanks(&self, from: usize) -> usize {
        const BLANKS_MAX: usize = 4;
        from + self.count(from, BLANKS_MAX, |byte| matches!(byte, b' ' | b'\t'))
    }

    /// Whether the text was cut here, so that what stands before may be half a secret.
    fn is_cut(&self, at: usize) -> bool {
        self.begins(at, "…".as_bytes()) || self.begins(at, b"...")
    }

    /// `end` without the punctuation of the sentence around.
    fn trimmed(&self, start: usize, end: usize) -> usize {
        let around = ['.', ',', ';', ':', '!', '?', ')', ']', '}', '>', '|', '…'];
        start + self.look(start, end).trim_end_matches(around).len()
    }
}

/// Whether letters and digits look drawn by chance rather than written by a person.
fn looks_random(word: &[u8]) -> bool {
    let digit = word.iter().any(u8::is_ascii_digit);
    let letter = word.iter().any(u8::is_ascii_alphabetic);
    let lower = word.iter().any(u8::is_ascii_lowercase);
    let inner_upper = word.iter().skip(1).any(u8::is_ascii_uppercase);
    (word.len() >= 8 && digit && letter)
        || (word.len() >= 12 && lower && inner_upper)
        || longest_run(word) >= 16
}

/// Most letters and digits in a row.
fn longest_run(word: &[u8]) -> usize {
    word.split(|byte| !byte.is_ascii_alphanumeric()).map(<[u8]>::len).max().unwrap_or(0)
}
