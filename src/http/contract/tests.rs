//! Holds the contract against the readers of requests, the wire of narrations and the routes.

use serde_json::Value;

use super::*;
use crate::http::fields::Violation;
use crate::http::openai::{Endpoint, parse};
use crate::http::request::{parse_cancel, parse_execute};

type Parse = fn(&[u8]) -> Vec<Violation>;

/// Every request with a body, and who reads it.
const REQUESTS: [(&str, Parse); 4] = [
    ("ExecuteRequest", |body| parse_execute(body).err().unwrap_or_default()),
    ("CancelRequest", |body| parse_cancel(body).err().unwrap_or_default()),
    ("ChatRequest", |body| parse(Endpoint::Chat, body).err().unwrap_or_default()),
    ("CompletionRequest", |body| parse(Endpoint::Completions, body).err().unwrap_or_default()),
];

/// Fields of an object in the document, with their schemas.
fn fields(schema: &str) -> Vec<(String, Value)> {
    let document = serde_json::to_value(Document::openapi()).expect("it is JSON");
    let properties = &document["components"]["schemas"][schema]["properties"];
    let properties = properties.as_object().unwrap_or_else(|| panic!("{schema} is missing"));
    properties.iter().map(|(name, field)| (name.clone(), field.clone())).collect()
}

/// What is wrong with one field that is given like this.
fn wrong(parse: Parse, field: &str, value: &str) -> Vec<Violation> {
    let found = parse(format!("{{\"{field}\": {value}}}").as_bytes());
    found.into_iter().filter(|v| v.field == field || v.field == "body").collect()
}

#[test]
fn a_request_may_say_what_the_contract_lists() {
    for (schema, parse) in REQUESTS {
        for (field, _) in fields(schema) {
            let found = wrong(parse, &field, "[[]]"); // no field takes a list of lists
            assert!(!found.is_empty(), "{schema}.{field} is not looked at");
            assert!(found.iter().all(|v| v.constraint != "unknown"), "{schema}.{field}");
        }
    }
}

#[test]
fn every_number_is_held_to_the_bounds_of_the_contract() {
    for (schema, parse) in REQUESTS {
        for (field, shape) in fields(schema) {
            let is = |kind: &str| shape["type"] == kind || shape["type"][0] == kind;
            if !is("integer") && !is("number") {
                continue;
            }
            let refused = |value: &str| {
                let found = wrong(parse, &field, value);
                assert!(!found.is_empty(), "{schema}.{field} = {value}");
            };
            let taken = |value: &str| {
                let mut found = wrong(parse, &field, value);
                found.retain(|v| v.constraint != "logprobs"); // needs another field beside it
                assert!(found.is_empty(), "{schema}.{field} = {value}: {found:?}");
            };
            for odd in ["1e400", "NaN", "Infinity", "\"1\"", "[]", "{}", "true", "0x1", "01", "1."]
            {
                refused(odd);
            }
            if is("integer") {
                ["1.5", "1e3", "1e308", "36893488147419103232"].iter().for_each(|odd| refused(odd));
            }
            if shape["type"] != "integer" && shape["type"] != "number" {
                taken("null"); // as OpenAI's clients leave fields out
            } else {
                refused("null");
            }
            if let Some(min) = shape["minimum"].as_f64() {
                taken(&format!("{min}"));
                refused(&format!("{}", min - 1.0));
                if is("number") {
                    taken("-0.0");
                    refused("-1e-9");
                }
            }
            if let Some(max) = shape["maximum"].as_f64() {
                taken(&format!("{max}"));
                refused(&format!("{}", max + 1.0));
                refused("9223372036854775808");
                refused("1e308");
            }
        }
    }
}

#[test]
fn every_narration_is_as_the_contract_says() {
    use std::sync::Arc;

    use crate::narration::{Fact, Narrator, Nowhere, Scope, wire};
    let document = serde_json::to_value(Document::openapi()).expect("it is JSON");
    let schema = &document["components"]["schemas"]["Narration"];
    assert!(schema["additionalProperties"].is_null(), "on a stream it has its type besides");
    let narrator = Narrator::new("w".into(), Arc::new(Nowhere));
    let id = || Some("id".to_owned());
    let scope = Scope { job_id: id(), correlation_id: id(), trace_id: id() };
    for fact in Fact::samples() {
        let kind = fact.kind().to_owned();
        let told = narrator.telling(fact, &scope).stamp();
        let json = wire::line(&told.context, &told.narration);
        let read: Result<Narration, _> = serde_json::from_str(&json);
        // A fact of a later vocabulary goes by its own name, which this one can't list.
        assert!(kind == "other" || read.is_ok(), "{kind}: {:?} in {json}", read.err());
        let fields: serde_json::Map<_, _> = serde_json::from_str(&json).expect("an object");
        for field in fields.keys() {
            assert!(schema["properties"][field].is_object(), "{kind}: the contract has no {field}");
        }
    }
}

#[test]
fn every_error_has_an_example_and_every_stream_its_events() {
    let document = serde_json::to_value(Document::openapi()).expect("it is JSON");
    assert_eq!(document["openapi"], "3.1.0");
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            for (status, response) in operation["responses"].as_object().expect("responses") {
                if status.starts_with(['4', '5']) && path != "/ready" {
                    let content = response["content"].as_object().expect("content");
                    let (_, content) = content.iter().next().expect("one kind");
                    assert!(content["example"].is_object(), "{method} {path} {status}");
                }
            }
        }
    }
    let shown = &document["components"]["schemas"]["StreamEvent"]["oneOf"];
    assert_eq!(shown.as_array().map(Vec::len), Some(6));
}
