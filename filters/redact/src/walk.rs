//! Every text of a narration, one after the other: what is told, what is acted on, and each field of the
//! fact that holds text. A field that is missing here does not compile where the contract gains a kind.

use std::borrow::Cow;

use serde_json::Value;

use crate::contract::exports::rbees::narration::filter::Narration;
use crate::contract::rbees::narration::facts::{Fact, Other};
use crate::engine::{self, redact};
use crate::policy::Policy;

/// Redacts all texts of a narration in place.
pub fn narration(policy: &Policy, narration: &mut Narration) {
    text(policy, &mut narration.target);
    text(policy, &mut narration.human);
    narration.cute.iter_mut().for_each(|cute| text(policy, cute));
    narration.story.iter_mut().for_each(|story| text(policy, story));
    fact(policy, &mut narration.fact);
}

fn text(policy: &Policy, text: &mut String) {
    if let Cow::Owned(clean) = redact(policy, text) {
        *text = clean;
    }
}

fn fact(policy: &Policy, fact: &mut Fact) {
    let all = |texts: &mut [&mut String]| texts.iter_mut().for_each(|field| text(policy, field));
    match fact {
        Fact::Startup(f) => all(&mut [&mut f.version, &mut f.address, &mut f.model]),
        Fact::CpuReady(f) => all(&mut [&mut f.instruction_set]),
        Fact::CudaReady(f) | Fact::MetalReady(f) => all(&mut [&mut f.name]),
        Fact::ModelLoadStarted(f) => all(&mut [&mut f.path]),
        Fact::ModelLoaded(f) => all(&mut [&mut f.architecture, &mut f.name, &mut f.quantization]),
        Fact::ModelLoadFailed(f) => all(&mut [&mut f.path, &mut f.reason]),
        Fact::ReadyAnnounced(f) => all(&mut [&mut f.url]),
        Fact::CallbackAttempted(f) => all(&mut [&mut f.url]),
        Fact::CallbackFailed(f) => all(&mut [&mut f.url, &mut f.reason]),
        Fact::HeartbeatFailed(f) => all(&mut [&mut f.url, &mut f.reason]),
        Fact::ServerStarted(f) => all(&mut [&mut f.address]),
        Fact::ServerBound(f) => all(&mut [&mut f.address]),
        Fact::BindFailed(f) => all(&mut [&mut f.address, &mut f.reason]),
        Fact::RequestRejected(f) => {
            for violation in &mut f.violations {
                all(&mut [&mut violation.field, &mut violation.constraint]);
            }
        }
        Fact::RequestAccepted(f) => all(&mut [&mut f.endpoint]),
        Fact::InferenceFailed(f) => all(&mut [&mut f.reason]),
        Fact::FilterLoaded(f) => all(&mut [&mut f.name, &mut f.digest]),
        Fact::FilterRejected(f) => all(&mut [&mut f.name, &mut f.path, &mut f.reason]),
        Fact::FilterQuarantined(f) => all(&mut [&mut f.name, &mut f.reason]),
        Fact::NarrationLost(f) => all(&mut [&mut f.sink]),
        Fact::Other(f) => other(policy, f),
        Fact::ModelLoadProgress(_)
        | Fact::WarmupStarted(_)
        | Fact::WarmupCompleted(_)
        | Fact::HealthChecked(_)
        | Fact::ServerShutdown(_)
        | Fact::RequestQueued(_)
        | Fact::PromptTokenized(_)
        | Fact::InferenceStarted(_)
        | Fact::CacheReset(_)
        | Fact::PrefillProgress(_)
        | Fact::TokensGenerated(_)
        | Fact::InferenceCompleted(_)
        | Fact::InferenceCancelled(_) => {}
    }
}

/// A younger fact is JSON, which stays JSON; what does not parse is redacted as plain text.
fn other(policy: &Policy, other: &mut Other) {
    text(policy, &mut other.name);
    let clean = redact(policy, &other.json);
    if matches!(clean, Cow::Borrowed(_)) && !other.json.contains('\\') {
        return;
    }
    let json = match serde_json::from_str::<Value>(&other.json) {
        Ok(parsed) => {
            let redacted = value(policy, "", parsed.clone());
            if redacted == parsed {
                return;
            }
            redacted.to_string()
        }
        Err(_) => clean.into_owned(),
    };
    other.json = json;
}

fn value(policy: &Policy, key: &str, value_: Value) -> Value {
    match value_ {
        Value::String(text) => engine::redact_named(policy, key, &text).into_owned().into(),
        Value::Array(items) => items.into_iter().map(|item| value(policy, key, item)).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, field)| {
                let field = value(policy, &name, field);
                (redact(policy, &name).into_owned(), field)
            })
            .collect(),
        Value::Number(number) if engine::measures(key) => Value::Number(number),
        Value::Number(number) => match redact(policy, &number.to_string()) {
            Cow::Owned(clean) => clean.into(),
            Cow::Borrowed(_) => Value::Number(number),
        },
        kept => kept,
    }
}
