//! Uses all that version 0.1.0 of the contract offers a filter. It is not to be changed once that
//! version is released: every later worker has to run it.

use std::cell::RefCell;

#[allow(unsafe_code)]
mod contract {
    wit_bindgen::generate!({ world: "text-filter", path: "../../../wit/0.1.0" });
    export!(Guest010 with_types_in self);
    use super::Guest010;
}

use contract::exports::rbees::narration::filter::{Context, Description, Narration};
use contract::exports::rbees::narration::{filter, text};
use contract::rbees::narration::facts::Fact;
use contract::rbees::narration::log;
use contract::rbees::narration::types::{Severity, Sinks};

thread_local! {
    static CONFIG: RefCell<String> = const { RefCell::new(String::new()) };
    static HELD: RefCell<String> = const { RefCell::new(String::new()) };
}

struct Guest010;

impl filter::Guest for Guest010 {
    fn describe() -> Description {
        Description {
            name: "contract-0-1-0".to_owned(),
            version: "0.1.0".to_owned(),
            kinds: Some(vec!["inference-started".to_owned(), "inference-completed".to_owned()]),
            redacts: false,
            config_schema: "{\"type\":\"object\"}".to_owned(),
        }
    }

    fn configure(config: String) -> Result<(), String> {
        if config.contains("refuse") {
            return Err("refuse: I was told to".to_owned());
        }
        CONFIG.set(config);
        Ok(())
    }

    fn narrate(context: Context, mut narration: Narration) -> Narration {
        log::write(Severity::Info, &format!("fact {}", context.sequence));
        match &mut narration.fact {
            Fact::InferenceStarted(fact) => fact.prompt_chars += 1_000,
            Fact::InferenceCompleted(_) => narration.sinks = Sinks::STDOUT,
            _ => {}
        }
        let config = CONFIG.with_borrow(Clone::clone);
        let job = context.job_id.is_some();
        narration.human = format!("{} by {}, job {job}, {config}", context.kind, context.actor);
        narration.cute = None;
        narration.story = Some(format!("told {}", narration.target.len()));
        narration
    }
}

/// Holds back one character, and lets no `e` through.
impl text::Guest for Guest010 {
    fn push(piece: String) -> String {
        HELD.with_borrow_mut(|held| {
            held.push_str(&piece.replace(['e', 'E'], "_"));
            let at = held.char_indices().next_back().map_or(0, |(at, _)| at);
            let rest = held.split_off(at);
            std::mem::replace(held, rest)
        })
    }

    fn finish() -> String {
        HELD.take()
    }
}
