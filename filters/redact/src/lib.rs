//! The redactor: takes secrets and personal data out of every text of a narration, its fact included.
//! The same for generated text, piece by piece. It never words anything, never opens or closes a sink, and
//! never lets through what it took out.

mod engine;
#[doc(hidden)]
pub mod fuzzing;
mod pattern;
mod policy;
#[cfg(test)]
mod tests;
mod walk;

use std::cell::RefCell;

use policy::Policy;

/// What the contract says, as Rust: made from the WIT, hence its own rules of style.
#[allow(unsafe_code)]
mod contract {
    wit_bindgen::generate!({ world: "text-filter", path: "../../wit/0.1.0" });

    #[cfg(target_arch = "wasm32")]
    export!(Redactor with_types_in self);

    #[cfg(target_arch = "wasm32")]
    use super::Redactor;
}

use contract::exports::rbees::narration::filter::{Context, Description, Guest, Narration};
use contract::exports::rbees::narration::text;

use engine::Stream;

thread_local! {
    static POLICY: RefCell<Policy> = RefCell::new(Policy::default());
    static TEXT: RefCell<Stream> = RefCell::new(Stream::default());
}

/// The filter itself.
struct Redactor;

impl Guest for Redactor {
    fn describe() -> Description {
        Description {
            name: "redact".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kinds: None,
            redacts: true,
            config_schema: policy::SCHEMA.to_owned(),
        }
    }

    fn configure(config: String) -> Result<(), String> {
        let policy = Policy::read(&config)?;
        POLICY.set(policy);
        Ok(())
    }

    fn narrate(_: Context, mut narration: Narration) -> Narration {
        POLICY.with_borrow(|policy| walk::narration(policy, &mut narration));
        narration
    }
}

impl text::Guest for Redactor {
    fn push(piece: String) -> String {
        POLICY.with_borrow(|policy| TEXT.with_borrow_mut(|text| text.push(policy, &piece)))
    }

    fn finish() -> String {
        POLICY.with_borrow(|policy| TEXT.with_borrow_mut(|text| text.finish(policy)))
    }
}
