//! The storyteller: gives each fact its words, and says where it goes by default. It never changes a
//! fact, never rewords what an earlier filter worded, and never opens a sink.

mod line;
mod policy;
mod routes;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;
mod words;

use std::cell::RefCell;

use policy::Policy;

/// What the contract says, as Rust: made from the WIT, hence its own rules of style.
#[allow(unsafe_code)]
mod contract {
    wit_bindgen::generate!({ world: "narration-filter", path: "../../wit/0.1.0" });

    #[cfg(target_arch = "wasm32")]
    export!(Storyteller with_types_in self);

    #[cfg(target_arch = "wasm32")]
    use super::Storyteller;
}

use contract::exports::rbees::narration::filter::{Context, Description, Guest, Narration};

thread_local! {
    static POLICY: RefCell<Policy> = const { RefCell::new(Policy::DEFAULT) };
}

/// The filter itself.
struct Storyteller;

impl Guest for Storyteller {
    fn describe() -> Description {
        Description {
            name: "storyteller".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kinds: None,
            redacts: false,
            config_schema: policy::schema(),
        }
    }

    fn configure(config: String) -> Result<(), String> {
        let policy = Policy::read(&config)?;
        POLICY.set(policy);
        Ok(())
    }

    fn narrate(_: Context, narration: Narration) -> Narration {
        POLICY.with_borrow(|policy| tell(policy, narration))
    }
}

/// Closes the sinks that the routing table leaves out, and words what still has no words.
fn tell(policy: &Policy, mut narration: Narration) -> Narration {
    let open = policy.sinks(&narration.fact);
    narration.sinks = narration.sinks & open;
    if narration.sinks.bits() == 0 {
        return narration;
    }
    let words = words::of(&narration.fact, policy.cute, policy.story);
    if narration.human.is_empty() {
        narration.human = words.human;
    }
    narration.cute = narration.cute.or(words.cute);
    narration.story = narration.story.or(words.story);
    narration
}
