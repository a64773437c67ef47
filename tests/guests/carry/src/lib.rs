//! Carries every text of a narration in and out and gives it one sentence: what a filter costs that does
//! next to nothing. For `make bench`.

#[allow(unsafe_code)]
mod contract {
    wit_bindgen::generate!({ world: "narration-filter", path: "../../../wit/0.1.0" });
    export!(Carry with_types_in self);
    use super::Carry;
}

use contract::exports::rbees::narration::filter::{Context, Description, Guest, Narration};

struct Carry;

impl Guest for Carry {
    fn describe() -> Description {
        Description {
            name: "carry".to_owned(),
            version: "0.1.0".to_owned(),
            kinds: None,
            redacts: false,
            config_schema: "{}".to_owned(),
        }
    }

    fn configure(_: String) -> Result<(), String> {
        Ok(())
    }

    fn narrate(context: Context, mut narration: Narration) -> Narration {
        narration.human.clear();
        for part in [context.actor.as_str(), " is done with ", &narration.target, "."] {
            narration.human.push_str(part);
        }
        narration
    }
}
