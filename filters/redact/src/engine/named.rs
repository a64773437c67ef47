//! Values of keys that are named like secrets: `api_key=…`, `password: …`, `"token": "…"`, and the headers
//! that carry credentials. It never takes a number of tokens for a token.

use super::{Family, Find, Scan, looks_random};

/// Letters and digits of a name that are looked at, from its end.
const NAME_MAX: usize = 24;
/// Bytes before a colon or an equals sign that are looked at for them.
const NAME_BYTES_MAX: usize = 48;
/// Bytes of a value that are looked at to tell whether it is a secret.
const LOOK_BYTES_MAX: usize = 256;

/// Ends of names whose value is always a secret, without case and separators.
const SECRET: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "pwd",
    "secret",
    "apikey",
    "accesskey",
    "secretkey",
    "privatekey",
    "signingkey",
    "encryptionkey",
    "accountkey",
    "accesstoken",
    "refreshtoken",
    "authtoken",
    "apitoken",
    "sessiontoken",
    "bearertoken",
    "credential",
    "credentials",
];
/// Words that make a name a secret's only if its value looks like one; they stand for themselves.
const MAYBE: &[&str] = &["pass", "auth", "sig", "signature", "session", "sessionid", "jwt"];
/// Words that make a token one of the model's.
const OF_TEXT: &str = "first last next per max min eos bos pad unk sep cls mask stop start end special each by \
    prompt output input unexpected";
/// The last three bytes of every name in question, so that nearly all others are known by them.
const LASTS: [&[u8; 3]; 20] = [
    b"ord", b"swd", b"pwd", b"ase", b"ode", b"ret", b"key", b"ken", b"ial", b"als", b"ass", b"uth",
    b"sig", b"ure", b"ion", b"nid", b"_id", b"-id", b"jwt", b"kie",
];
/// Words that stand behind a colon without being a secret.
const PROSE: &str = "a an and are at can cannot could disabled enabled empty expected false for has hidden in \
    invalid is missing must no none not null of optional or redacted required should some \
    the to too true undefined unknown unset was will with wrong";
/// Schemes of an `Authorization` header.
const SCHEMES: &[&str] = &["bearer", "basic", "token", "apikey", "negotiate", "ntlm", "key"];
/// Schemes whose credentials reach to the end of the line.
const SCHEMES_WITH_FIELDS: &[&str] = &["digest", "aws4-hmac-sha256", "hawk", "signature", "oauth"];

/// What a name says of its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The value is a secret.
    Secret,
    /// The value is a secret if it is assigned, or looks like one.
    Token,
    /// The value is a secret if it looks like one.
    Maybe,
    Authorization,
    Cookie,
}

/// How a value stands behind its name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Link {
    Equals,
    Colon,
}

/// The secret behind the colon or equals sign here.
pub(super) fn find(scan: &Scan, at: usize) -> Option<Find> {
    let link = if scan.bytes[at] == b'=' { Link::Equals } else { Link::Colon };
    let path = link == Link::Colon && (scan.before(at) == b':' || scan.byte(at + 1) == Some(b':'));
    if path {
        return None;
    }
    let kind = kind_of(name_before(scan, at)?)?;
    // `:=`, `==` and `=>` as well.
    let after = at + 1 + usize::from(matches!(scan.byte(at + 1), Some(b'=' | b'>')));
    let value = Value::behind(scan, after)?;
    let text = scan.look(value.start, value.end);
    match kind {
        Kind::Authorization => authorization(scan, value.start),
        Kind::Cookie => {
            let start = value.start;
            let look = scan.run_to(start, start + LOOK_BYTES_MAX, is_in_line);
            scan.bytes[start..look]
                .contains(&b'=')
                .then(|| Find::new(start, line_end(scan, start), Family::Secret))
        }
        Kind::Secret | Kind::Token if names_scheme(text) => authorization(scan, value.start),
        // What was replaced in it may have held blanks.
        Kind::Token | Kind::Maybe
            if value.quoted && scan.byte(value.end).is_some() && scan.ends(value.end) =>
        {
            None
        }
        _ => is_value(kind, link, value.quoted, text).then(|| value.find(scan)),
    }
}

/// Whether the value of a key in JSON is a secret.
pub(super) fn is_secret(key: &str, value: &str) -> bool {
    match kind_of(key.as_bytes()) {
        None => false,
        Some(Kind::Authorization | Kind::Cookie) => !value.is_empty(),
        Some(kind) => is_value(kind, Link::Equals, true, value),
    }
}

/// What stands before the colon or equals sign, its quotes and blanks left out.
fn name_before<'s>(scan: &Scan<'_, 's>, at: usize) -> Option<&'s [u8]> {
    let start = scan.floor.max(at.saturating_sub(NAME_BYTES_MAX));
    let mut name = &scan.bytes[start..at];
    while let [rest @ .., b' ' | b'\t' | b'"' | b'\'' | b'`' | b'\\'] = name {
        name = rest;
    }
    name.last().is_some_and(u8::is_ascii_alphanumeric).then_some(name)
}

/// The end of a name in lower case without separators, and where its words begin.
struct Name {
    letters: [u8; NAME_MAX],
    begins: [bool; NAME_MAX],
    start: usize,
}

impl Name {
    fn read(name: &[u8]) -> Self {
        let mut read = Self { letters: [0; NAME_MAX], begins: [false; NAME_MAX], start: NAME_MAX };
        for (place, &byte) in name.iter().enumerate().rev() {
            if read.start == 0 {
                break;
            }
            if byte.is_ascii_alphanumeric() {
                let before = place.checked_sub(1).map_or(b' ', |place| name[place]);
                read.start -= 1;
                read.letters[read.start] = byte.to_ascii_lowercase();
                read.begins[read.start] = !before.is_ascii_alphanumeric()
                    || (byte.is_ascii_uppercase() && before.is_ascii_lowercase());
            } else if !matches!(byte, b'_' | b'-' | b'.' | b' ') {
                break;
            }
        }
        read
    }

    /// What stands before an ending.
    fn before(&self, ending: &str) -> Option<&[u8]> {
        self.letters[self.start..].strip_suffix(ending.as_bytes())
    }

    fn has_word(&self, word: &str) -> bool {
        self.before(word).is_some() && self.begins[NAME_MAX - word.len()]
    }
}

fn kind_of(name: &[u8]) -> Option<Kind> {
    let last = name.last_chunk::<3>()?.map(|byte| byte.to_ascii_lowercase());
    if !LASTS.contains(&&last) {
        return None;
    }
    let name = Name::read(name);
    if name.before("authorization").is_some() {
        return Some(Kind::Authorization);
    }
    if name.has_word("cookie") {
        return Some(Kind::Cookie);
    }
    if SECRET.iter().any(|ending| name.before(ending).is_some()) {
        return Some(Kind::Secret);
    }
    if let Some(before) = name.before("token") {
        let of_text = OF_TEXT.split(' ').any(|word| before.ends_with(word.as_bytes()));
        return (!of_text).then_some(Kind::Token);
    }
    MAYBE.iter().any(|word| name.has_word(word)).then_some(Kind::Maybe)
}

/// Where a value stands. The end of one without quotes may lie further on.
#[derive(Clone, Copy)]
struct Value {
    start: usize,
    end: usize,
    quoted: bool,
}

impl Value {
    fn behind(scan: &Scan, from: usize) -> Option<Self> {
        let from = scan.blanks(from);
        let escapes = scan.count(from, 3, |byte| byte == b'\\');
        let quote = scan.byte(from + escapes).filter(|byte| matches!(byte, b'"' | b'\'' | b'`'));
        let value = match quote {
            Some(quote) => {
                let start = from + escapes + 1;
                Self { start, end: quoted_end(scan, start, quote, escapes > 0), quoted: true }
            }
            None => {
                let end = unquoted_end(scan, from, from + LOOK_BYTES_MAX);
                Self { start: from, end: scan.trimmed(from, end), quoted: false }
            }
        };
        (value.start < value.end).then_some(value)
    }

    fn find(self, scan: &Scan) -> Find {
        let Self { start, mut end, quoted } = self;
        if !quoted {
            end = scan.trimmed(start, unquoted_end(scan, start, usize::MAX));
        }
        Find::new(start, end, Family::Secret)
    }
}

/// Where a value without quotes ends: with the word, or before a comma that another key follows.
fn unquoted_end(scan: &Scan, from: usize, limit: usize) -> usize {
    let mut at = from;
    loop {
        at = scan.run_to(at, limit, |byte| byte > b' ' && !b"\"'`&;<,".contains(&byte));
        if at >= limit || scan.byte(at) != Some(b',') || scan.ends(at) || is_key(scan, at + 1) {
            return at;
        }
        at += 1;
    }
}

/// Whether a name and an equals sign or a colon stand here.
fn is_key(scan: &Scan, from: usize) -> bool {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let end = scan.run_to(from, from + NAME_BYTES_MAX, is_name);
    let first = scan.byte(from).is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    match scan.byte(end) {
        // What a slash follows is a drive or a scheme.
        Some(b'=' | b':') => first && !matches!(scan.byte(end + 1), Some(b'\\' | b'/')),
        // One that was replaced in part is still a name.
        Some(_) => first && scan.ends(end),
        None => false,
    }
}

/// Whether a value goes on behind a blank: `token: Bearer …`.
fn names_scheme(value: &str) -> bool {
    value.eq_ignore_ascii_case("bearer") || value.eq_ignore_ascii_case("basic")
}

/// Where a quoted value ends: before its quote, or with the line when that was cut off.
fn quoted_end(scan: &Scan, start: usize, quote: u8, escaped: bool) -> usize {
    let mut at = start;
    while let Some(byte) = scan.byte(at) {
        let ends = byte == b'\n' || scan.ends(at);
        match byte {
            _ if ends => break,
            b'\\' if escaped && scan.byte(at + 1) == Some(quote) => break,
            b'\\' if !escaped && matches!(scan.byte(at + 1), Some(b'\\' | b'"' | b'\'' | b'`')) => {
                at += 1;
            }
            _ if byte == quote => break,
            _ => {}
        }
        at += 1;
    }
    at.min(scan.bytes.len())
}

fn is_in_line(byte: u8) -> bool {
    !matches!(byte, b'\n' | b'\r' | b'"' | b'\'')
}

fn line_end(scan: &Scan, start: usize) -> usize {
    let end = scan.run(start, is_in_line);
    scan.trimmed(start, end)
}

/// The credential in an `Authorization` header; its scheme stays.
fn authorization(scan: &Scan, from: usize) -> Option<Find> {
    let is_word = |byte: u8| byte > b' ' && !b"\"'`,;".contains(&byte);
    let word = scan.run(from, is_word);
    let scheme = scan.text.get(from..word)?.to_ascii_lowercase();
    let fields = SCHEMES_WITH_FIELDS.contains(&scheme.as_str());
    let (start, end) = if fields || SCHEMES.contains(&scheme.as_str()) {
        let start = scan.blanks(word);
        let end = if fields { line_end(scan, start) } else { scan.run(start, is_word) };
        (start, scan.trimmed(start, end))
    } else if is_prose(&scheme) {
        return None;
    } else {
        (from, scan.trimmed(from, word))
    };
    (start < end).then_some(Find::new(start, end, Family::Credential))
}

fn is_prose(word: &str) -> bool {
    PROSE.split(' ').any(|prose| prose == word)
}

/// Whether a value under such a name is a secret.
fn is_value(kind: Kind, link: Link, quoted: bool, value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    if is_prose(&lower) || value.bytes().all(|byte| byte == b'*') {
        return false;
    }
    if kind == Kind::Secret {
        // `pwd` is also the folder one is in.
        return !value.starts_with(['/', '~']);
    }
    let measured = value.starts_with(|c: char| c.is_ascii_digit())
        && value.trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | ',')).len()
            < 4;
    let assigned = quoted || link == Link::Equals;
    if kind == Kind::Token && assigned {
        return !measured && value.len() >= 6 && !value.contains(' ');
    }
    !measured && looks_random(value.as_bytes())
}
