//! A text in pieces: whatever the cuts, what comes out, joined, is what the whole becomes; what is held
//! back is bounded, and nothing of a secret that is too long to be held gets out.

use super::pieces::{CARRIERS, Dice, every_secret, pieces};
use super::{key, rounds, secrets, seed};
use crate::engine::{Stream, redact};
use crate::policy::Policy;

/// What comes out of the pieces, and the most bytes that were held back at a time.
fn joined(policy: &Policy, pieces: &[&str]) -> String {
    let mut stream = Stream::default();
    let mut out = String::new();
    for piece in pieces {
        out.push_str(&stream.push(policy, piece));
    }
    out + &stream.finish(policy)
}

/// Places at which a text can be cut.
fn places(text: &str) -> Vec<usize> {
    (0..=text.len()).filter(|&place| text.is_char_boundary(place)).collect()
}

#[test]
fn every_two_and_three_cuts_equal_the_whole() {
    let policy = Policy::default();
    let mut texts: Vec<String> = CARRIERS.iter().map(|&text| text.to_owned()).collect();
    texts.extend(secrets().into_iter().map(|(secret, _)| format!("so {secret} is.")));
    for text in &texts {
        let whole = redact(&policy, text);
        let places = places(text);
        for (at, &a) in places.iter().enumerate() {
            let cut = joined(&policy, &[&text[..a], &text[a..]]);
            assert_eq!(cut, whole, "{text:?} cut at {a}");
            for &b in &places[at..] {
                let cut = joined(&policy, &[&text[..a], &text[a..b], &text[b..]]);
                assert_eq!(cut, whole, "{text:?} cut at {a} and {b}");
            }
        }
    }
}

#[test]
fn texts_at_random_in_pieces_at_random_equal_the_whole() {
    let seed = seed(23);
    let policies = [
        Policy::default(),
        Policy::read(r#"{"deny":["heron","her"],"allow":["ada@example.org"],"patterns":["ACME-[0-9]{3,6}","her+x"]}"#)
            .expect("understood"),
    ];
    let secrets = every_secret();
    let pieces = pieces(&secrets);
    let mut dice = Dice(seed);
    for round in 0..rounds() {
        let text: String = (0..1 + dice.below(9)).map(|_| dice.pick(&pieces)).collect();
        let policy = &policies[round % policies.len()];
        let places = places(&text);
        let mut cuts: Vec<usize> =
            (0..dice.below(7)).map(|_| places[dice.below(places.len())]).collect();
        if round % 5 == 0 {
            cuts.clone_from(&places); // one character at a time
        }
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let parts: Vec<&str> = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
        assert_eq!(
            joined(policy, &parts),
            redact(policy, &text),
            "SEED={seed}, round {round}, from {parts:?}"
        );
    }
}

#[test]
fn plain_text_is_held_back_by_a_word_at_most() {
    let policy = Policy::default();
    let mut stream = Stream::default();
    let (mut given, mut out) = (0, 0);
    for word in "The capital of France is Paris, and it lies on the Seine . "
        .repeat(40)
        .split_inclusive(' ')
    {
        given += word.len();
        out += stream.push(&policy, word).len();
        assert!(given - out <= "capital ".len(), "{} bytes are held", given - out);
    }
}

#[test]
fn what_is_too_long_to_be_held_leaks_nothing() {
    let policy = Policy::default();
    let body = key("", 64).repeat(1_000);
    for (before, after, expected) in [
        ("-----BEGIN PRIVATE KEY-----\n", "\n-----END PRIVATE KEY----- end", " end"),
        ("password=\"", "\" rest\nend", "\nend"),
        ("see Authorization: Bearer ", " rest\nend", "\nend"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJ", ".sig\nend", "\nend"),
    ] {
        let text = format!("{before}{body}{after}");
        let pieces: Vec<&str> = text
            .as_bytes()
            .chunks(97)
            .map(|piece| std::str::from_utf8(piece).expect("ASCII"))
            .collect();
        let mut stream = Stream::default();
        let (mut out, mut given) = (String::new(), 0);
        for piece in pieces {
            given += piece.len();
            out.push_str(&stream.push(&policy, piece));
            assert!(out.len() <= given);
        }
        out.push_str(&stream.finish(&policy));
        assert!(out.ends_with(expected), "{out:?}");
        assert!(!out.contains("4fK9wQz7"), "{} bytes of {before}", out.len());
    }
}

#[test]
fn a_megabyte_in_pieces_is_read_in_linear_time() {
    let policy = Policy::default();
    for piece in ["a ", "ab@c.de ", "password=x ", "-----", "eyJ", "4111 ", "x://a:", "\""] {
        let mut stream = Stream::default();
        let mut out = 0;
        for _ in 0..100_000 / piece.len() {
            out += stream.push(&policy, piece).len();
        }
        out += stream.finish(&policy).len();
        assert!(out <= 1_300_000);
    }
}
