//! What follows a schema parses and fits it, and nothing else gets through; what can't be honoured is
//! said.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::*;
use crate::engine::gguf::tests::{Scratch, support};

fn language() -> Arc<Language> {
    let file = Scratch::new(&support::tiny_llama(1));
    let tokenizer = Tokenizer::from_gguf(&file.read().expect("a sound file"));
    Arc::new(Language::new(tokenizer.expect("a known tokenizer"), None))
}

/// A text by random choice among the tokens that the constraint allows; none if it never ended.
fn random_text(language: &Arc<Language>, schema: &Value, seed: u64) -> Option<String> {
    let grammar = Grammar::JsonSchema(schema.clone());
    let mut constraint = language.constrain(grammar).expect("a schema that can be honoured");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut bytes = Vec::new();
    for _ in 0..2_000 {
        let allowed = constraint.allowed().expect("within bounds");
        let tokens: Vec<u32> = (0..language.tokenizer.vocabulary())
            .filter(|t| allowed.get(*t as usize / 32).is_some_and(|w| w >> (t % 32) & 1 == 1))
            .collect();
        assert!(!tokens.is_empty(), "nothing may follow {:?}", String::from_utf8_lossy(&bytes));
        // Closing marks are taken where they may come, or random strings would hardly end.
        let closing = tokens.iter().find(|t| {
            let text = language.tokenizer.token_bytes(**t);
            random.next_u32() % 3 == 0 && [&b"\""[..], b"]", b"}"].contains(&text)
        });
        let token = *closing.unwrap_or(&tokens[random.next_u32() as usize % tokens.len()]);
        if language.tokenizer.ends(token) {
            return Some(String::from_utf8(bytes).expect("JSON is UTF-8"));
        }
        bytes.extend_from_slice(language.tokenizer.token_bytes(token));
        if constraint.take(token).expect("an allowed token") {
            return Some(String::from_utf8(bytes).expect("JSON is UTF-8"));
        }
    }
    None
}

#[test]
fn whatever_comes_out_is_json_of_that_form() {
    let language = language();
    let schema = json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 8},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "kind": {"enum": ["bee", "wasp"]},
            "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
        },
        "required": ["name", "age", "kind"],
        "additionalProperties": false,
    });
    let mut ended = 0;
    for seed in 0..25 {
        let Some(text) = random_text(&language, &schema, seed) else { continue };
        ended += 1;
        let value: Value =
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("seed {seed}: {e}: {text}"));
        assert!(value["name"].as_str().expect("seed {seed}").chars().count() <= 8, "{text}");
        assert!(value["age"].as_u64().is_some_and(|age| age <= 120), "seed {seed}: {text}");
        assert!(["bee", "wasp"].contains(&value["kind"].as_str().expect("a text")), "{text}");
        let known = ["name", "age", "kind", "tags"];
        assert!(value.as_object().expect("an object").keys().all(|k| known.contains(&&**k)));
        assert!(!text.contains('\n'), "one line: {text}");
    }
    assert!(ended >= 20, "only {ended} of 25 texts ended");
}

#[test]
fn one_of_choices_that_exclude_each_other_is_taken() {
    let language = language();
    let shape = |kind: &str, size: &str| {
        json!({"type": "object", "properties": {"kind": {"const": kind}, size: {"type": "boolean"}},
            "required": ["kind", size], "additionalProperties": false})
    };
    let schema = json!({"oneOf": [shape("bee", "wings"), shape("hive", "full"), {"type": "null"}]});
    let mut kinds = std::collections::BTreeSet::new();
    for seed in 0..40 {
        let text = random_text(&language, &schema, seed).expect("a short text");
        let value: Value = serde_json::from_str(&text).expect("JSON");
        match value["kind"].as_str() {
            Some("bee") => assert!(value["wings"].is_boolean(), "seed {seed}: {text}"),
            Some("hive") => assert!(value["full"].is_boolean(), "seed {seed}: {text}"),
            _ => assert!(value.is_null(), "seed {seed}: {text}"),
        }
        kinds.insert(value["kind"].to_string());
    }
    assert_eq!(kinds.len(), 3, "{kinds:?}");
}

#[test]
fn any_json_object_is_an_object() {
    let language = language();
    let mut constraint = language.constrain(Grammar::JsonObject).expect("it can be honoured");
    let allowed = constraint.allowed().expect("within bounds");
    let texts: Vec<&[u8]> = (0..language.tokenizer.vocabulary())
        .filter(|t| allowed.get(*t as usize / 32).is_some_and(|w| w >> (t % 32) & 1 == 1))
        .map(|t| language.tokenizer.token_bytes(t))
        .collect();
    assert_eq!(texts, [b"{"], "an object begins with a brace");
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    let language = language();
    let check = |schema: Value, expected: &str| {
        let result = language.constrain(Grammar::JsonSchema(schema)).map(|_| ());
        let error = result.expect_err(expected);
        assert_eq!(error.kind(), Kind::Request);
        let text = error.to_string();
        assert!(text.contains(expected), "expected '{expected}' in '{text}'");
        assert!(text.chars().count() < 300 && !text.contains('\n'), "{text}");
    };
    check(json!("text"), "expected an object");
    check(json!({"type": "object", "x-guidance": {"lenient": true}}), "x-guidance");
    check(json!({"type": "array", "uniqueItems": true}), "uniqueItems");
    check(json!({"type": "string", "pattern": "(unclosed"}), "");
    check(json!({"$ref": "https://example.org/schema.json"}), "");
    check(json!({"type": "honey"}), "");
    let overlap = json!([{"type": "integer", "minimum": 3}, {"type": "integer"}]);
    check(json!({"oneOf": overlap}), "oneOf is taken where its choices exclude each other");
    check(json!({"enum": ["x".repeat(GRAMMAR_BYTES_MAX)]}), "has more than");
    check(json!({"type": "integer", "minimum": 3, "maximum": 1}), "");
}

#[test]
fn what_would_take_for_ever_is_given_up() {
    let language = language();
    let deep = (0..100).fold(
        json!({"type": "null"}),
        |inner, _| json!({"type": "object", "properties": {"a": inner}, "required": ["a"]}),
    );
    assert!(language.constrain(Grammar::JsonSchema(deep)).is_ok(), "deep, but not much");
    let patterns =
        ["^([ab]*a[ab]{4000}){90}$", "^((a|b|c){1,1000}d){1,1000}$", "^(.*a.{300}){50}$"];
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let mut stopped = 0;
    for pattern in patterns {
        let hostile = json!({"type": "string", "pattern": pattern});
        let mut constraint = match language.constrain(Grammar::JsonSchema(hostile)) {
            Ok(constraint) => constraint,
            Err(error) => {
                assert_eq!(error.kind(), Kind::Request, "{error}");
                stopped += 1;
                continue;
            }
        };
        for _ in 0..300 {
            // What it costs a token is bounded too; beyond that the job fails, not the engine.
            let tokens: Vec<u32> = match constraint.allowed() {
                Ok(allowed) => (0..language.tokenizer.vocabulary())
                    .filter(|t| {
                        allowed.get(*t as usize / 32).is_some_and(|w| w >> (t % 32) & 1 == 1)
                    })
                    .collect(),
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Inference, "{error}");
                    stopped += 1;
                    break;
                }
            };
            let token = tokens[random.next_u32() as usize % tokens.len()];
            if let Err(error) = constraint.take(token) {
                assert_eq!(error.kind(), Kind::Inference, "{error}");
                stopped += 1;
                break;
            }
        }
    }
    assert!(stopped > 0, "no bound was ever reached");
}
