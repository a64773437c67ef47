//! Facts for trials: every kind with every case of its enums, and each pushed to both ends of what it
//! can hold. Told to nobody; calls no filter.

use std::sync::Arc;

use serde_json::Value;

use crate::limits::{FACT_CHARS_MAX, VIOLATIONS_MAX};
use crate::narration::{Fact, Narrator, Nowhere, Scope, Told, clean};

/// An end of what a fact can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Zeros, empty texts and lists, nothing optional.
    Least,
    /// The largest numbers, the longest texts and lists.
    Most,
}

/// A told fact for trials, as a request would tell it, its texts safe as filters get them.
pub fn told(fact: Fact) -> Told {
    let scope = Scope {
        job_id: Some("job".into()),
        correlation_id: Some("request".into()),
        trace_id: None,
    };
    let mut told = Narrator::new("worker".into(), Arc::new(Nowhere)).telling(fact, &scope).stamp();
    clean::narration(&mut told.narration);
    told
}

/// The fact with each field pushed to one end, as far as its type lets it.
pub fn pushed(fact: &Fact, end: End) -> Fact {
    let Ok(mut whole) = serde_json::to_value(fact) else { return fact.clone() };
    push(&mut whole, "", end);
    serde_json::from_value(whole).unwrap_or_else(|_| fact.clone())
}

/// Pushes what lies at `pointer`, and everything in it.
fn push(whole: &mut Value, pointer: &str, end: End) {
    let Some(here) = whole.pointer(pointer).cloned() else { return };
    match here {
        Value::Object(fields) => {
            for name in fields.keys() {
                push(whole, &format!("{pointer}/{name}"), end);
                if end == End::Least {
                    try_without(whole, pointer, name);
                }
            }
        }
        Value::Array(items) => {
            push(whole, &format!("{pointer}/0"), end);
            let item = whole.pointer(&format!("{pointer}/0")).or(items.first()).cloned();
            let items = match end {
                End::Least => Vec::new(),
                End::Most => item.into_iter().cycle().take(VIOLATIONS_MAX).collect(),
            };
            try_set(whole, pointer, items.into());
        }
        Value::Number(number) => {
            let candidates: &[Value] = match (end, number.is_f64()) {
                (End::Least, true) => &[Value::from(0.0)],
                (End::Least, false) => &[Value::from(0)],
                (End::Most, true) => &[Value::from(1e12)],
                (End::Most, false) => {
                    &[u64::MAX, u32::MAX.into(), u16::MAX.into(), u8::MAX.into()].map(Value::from)
                }
            };
            let _ = candidates.iter().any(|value| try_set(whole, pointer, value.clone()));
        }
        Value::String(text) => {
            // Longest in characters and in bytes; the text of `other` has to stay a JSON object.
            let long = "Ä🐝".repeat(FACT_CHARS_MAX / 2);
            let text = match (end, text.as_str()) {
                (_, "{}") if end == End::Most => format!("{{\"k\":\"{}\"}}", &long[..3 * 256]),
                (_, "{}") => text,
                (End::Least, _) => String::new(),
                (End::Most, _) => long,
            };
            try_set(whole, pointer, text.into());
        }
        Value::Bool(_) | Value::Null => {}
    }
}

/// Sets what lies at `pointer`, unless that makes it no fact any more.
fn try_set(whole: &mut Value, pointer: &str, value: Value) -> bool {
    let Some(place) = whole.pointer_mut(pointer) else { return false };
    let before = std::mem::replace(place, value);
    let sound = is_fact(whole);
    if !sound && let Some(place) = whole.pointer_mut(pointer) {
        *place = before;
    }
    sound
}

/// Leaves a field out, unless it has to be there.
fn try_without(whole: &mut Value, pointer: &str, name: &str) {
    let mut without = whole.clone();
    if let Some(Value::Object(fields)) = without.pointer_mut(pointer) {
        fields.remove(name);
    }
    if is_fact(&without) {
        *whole = without;
    }
}

fn is_fact(value: &Value) -> bool {
    serde_json::from_value::<Fact>(value.clone()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_can_be_pushed_to_both_ends() {
        for fact in Fact::samples() {
            for end in [End::Least, End::Most] {
                assert_eq!(pushed(&fact, end).kind(), fact.kind());
            }
        }
        let failed = Fact::samples().into_iter().find(|fact| fact.kind() == "callback-failed");
        let failed = failed.expect("the vocabulary has it");
        let Fact::CallbackFailed(least) = pushed(&failed, End::Least) else { panic!("its kind") };
        assert_eq!((least.status, least.attempt, least.url.as_str()), (None, 0, ""));
        let Fact::CallbackFailed(most) = pushed(&failed, End::Most) else { panic!("its kind") };
        assert_eq!((most.status, most.attempt), (Some(u16::MAX), u32::MAX));
        assert_eq!(most.reason.chars().count(), FACT_CHARS_MAX);
    }

    #[test]
    fn every_case_of_an_enum_is_tried() {
        let told = |kind: &str| Fact::cases().iter().filter(|fact| fact.kind() == kind).count();
        assert_eq!(told("health-checked"), 5);
        assert_eq!(told("inference-completed"), 3);
        assert_eq!(told("startup"), 1);
    }
}
