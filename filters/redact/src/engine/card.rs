//! Card numbers: 13 to 19 digits with a brand's first digits and a valid check digit, in one piece or in
//! groups. It never takes part of a longer number, a UUID, a digest, a decimal, or a count that has a
//! name or a unit for one.

use super::{Family, Find, Scan};

const DIGITS_MIN: usize = 13;
const DIGITS_MAX: usize = 19;
/// Digits from which on a number that was cut counts as a card without its check digit.
const DIGITS_CUT_MIN: usize = 12;
/// Least digits of a group.
const GROUP_MIN: usize = 2;
/// The same between full stops, where less would be a version or a date.
const DOTTED_MIN: usize = 4;
/// Blanks between two groups, at most.
const BLANKS_MAX: usize = 2;
/// Letters of the name before a number that are looked at, and blanks and signs behind it.
const NAME_BYTES_MAX: usize = 24;
/// Ends of names whose number counts or measures something.
const MEASURES: &[&str] = &[
    "seed",
    "bytes",
    "sequence",
    "offset",
    "timestamp",
    "micros",
    "nanos",
    "millis",
    "parameters",
    "tokens",
    "_us",
    "_ns",
    "_ms",
];
/// Units behind a number that counts or measures something.
const UNITS: &[&str] = &["bytes", "tokens", "parameters", "ns", "us", "µs", "ms"];

/// Whether the number of a card may begin with this byte.
pub(super) const fn may_begin(byte: u8) -> bool {
    matches!(byte, b'2'..=b'6')
}

/// The card number that begins here: the longest that ends with a group.
pub(super) fn find(scan: &Scan, at: usize) -> Option<Find> {
    let before = scan.before(at);
    let decimal = before == b'.' && at > scan.floor + 1 && scan.bytes[at - 2].is_ascii_digit();
    if decimal {
        return None;
    }
    let mut digits = [0; DIGITS_MAX];
    let mut count = 0;
    let mut separator = None;
    let mut found = None;
    let mut place = at;
    loop {
        let length = group_length(scan, place);
        let least = if separator == Some(b'.') { DOTTED_MIN } else { GROUP_MIN };
        if length < least || count + length > DIGITS_MAX {
            break;
        }
        for (digit, byte) in digits[count..].iter_mut().zip(&scan.bytes[place..place + length]) {
            *digit = byte - b'0';
        }
        count += length;
        place += length;
        let grouped = separator == Some(b'-');
        let whole = separator.is_none();
        if is_card(scan, &digits[..count], place)
            && !(whole && is_measure(scan, at, place))
            && !(grouped && (before == b'-' || is_dash(scan, place)))
        {
            found = Some(Find::new(at, place, Family::Card));
        }
        match scan.byte(place) {
            Some(b'.') if length < DOTTED_MIN => break,
            Some(next @ (b' ' | b'-' | b'.')) if separator.is_none_or(|same| same == next) => {
                separator = Some(next);
                let most = if next == b' ' { BLANKS_MAX } else { 1 };
                place += scan.count(place, most, |byte| byte == next);
            }
            _ => break,
        }
    }
    found
}

/// Digits in a row, one more than a card can have at most. A denied text ends them.
fn group_length(scan: &Scan, from: usize) -> usize {
    (from..=from + DIGITS_MAX)
        .take_while(|&at| scan.behind(at).is_some_and(|byte| byte.is_ascii_digit()))
        .count()
}

fn is_dash(scan: &Scan, at: usize) -> bool {
    scan.behind(at) == Some(b'-')
}

/// Whether a number in one piece has a name or a unit that says what it counts.
fn is_measure(scan: &Scan, start: usize, end: usize) -> bool {
    let from = scan.floor.max(start.saturating_sub(NAME_BYTES_MAX));
    let mut name = &scan.bytes[from..start];
    while let [rest @ .., b' ' | b':' | b'=' | b'"' | b'#'] = name {
        name = rest;
    }
    let ends = |word: &str| {
        let before = name.len().checked_sub(word.len());
        before.is_some_and(|at| name[at..].eq_ignore_ascii_case(word.as_bytes()))
    };
    let behind = end + scan.count(end, 1, |byte| byte == b' ');
    MEASURES.iter().any(|word| ends(word))
        || UNITS.iter().any(|unit| {
            let after = behind + unit.len();
            scan.begins(behind, unit.as_bytes())
                && !scan.byte(after).is_some_and(|byte| byte.is_ascii_alphanumeric())
        })
}

/// Whether a name says that its number counts or measures something.
pub(super) fn measures(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    MEASURES.iter().any(|word| name.ends_with(word))
}

fn is_card(scan: &Scan, digits: &[u8], end: usize) -> bool {
    if scan.is_cut(end) && digits.len() >= DIGITS_CUT_MIN {
        return has_brand(digits, true);
    }
    let next_is_digit = scan.byte(end + 1).is_some_and(|byte| byte.is_ascii_digit());
    let goes_on = match scan.behind(end) {
        Some(b'.') => next_is_digit,
        Some(byte) => byte.is_ascii_alphanumeric(),
        None => false,
    };
    digits.len() >= DIGITS_MIN && !goes_on && has_brand(digits, false) && has_check_digit(digits)
}

/// First digits of the brands, and the lengths that their numbers have.
fn has_brand(digits: &[u8], cut: bool) -> bool {
    let first = digits[..4].iter().fold(0, |number, &digit| number * 10 + u32::from(digit));
    let lengths: &[usize] = match first {
        4000..=4999 => &[13, 16, 19],
        2221..=2720 | 5100..=5599 => &[16],
        3400..=3499 | 3700..=3799 => &[15],
        3000..=3099 | 3600..=3699 | 3800..=3999 => &[14, 16],
        3528..=3589 => &[16, 19],
        5000..=5099 | 5600..=6999 => &[13, 14, 15, 16, 17, 18, 19],
        _ => &[],
    };
    lengths.contains(&digits.len()) || (cut && !lengths.is_empty())
}

/// The check digit of ISO/IEC 7812: from the right, every second digit is doubled.
fn has_check_digit(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, &digit)| match (place % 2, u32::from(digit)) {
            (0, digit) => digit,
            (_, digit) if digit > 4 => digit * 2 - 9,
            (_, digit) => digit * 2,
        })
        .sum();
    sum.is_multiple_of(10)
}
