//! A team's own wording: says how requests end and when the worker stops in the words that the team
//! greps for and its alerts know. Leaves the routes alone, and every other narration as it is.

use std::cell::RefCell;

use serde::Deserialize;

/// What the contract says, as Rust: made from the WIT.
mod contract {
    wit_bindgen::generate!({ world: "narration-filter", path: "../../../wit/0.1.0" });

    #[cfg(target_arch = "wasm32")]
    export!(TeamVoice with_types_in self);

    #[cfg(target_arch = "wasm32")]
    use super::TeamVoice;
}

use contract::exports::rbees::narration::filter::{Context, Description, Guest, Narration};
use contract::rbees::narration::facts::Fact;

/// JSON Schema of the configuration.
const SCHEMA: &str = r#"{"type":"object","additionalProperties":false,"properties":{"team":{"type":"string","maxLength":16,"default":"team","description":"name that each of its lines begins with"},"slow_ms":{"type":"number","minimum":0,"default":2000,"description":"time to the first token from which on a request counts as slow"}}}"#;

/// The configuration; a key that is not here is refused by its name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    team: String,
    slow_ms: f64,
}

impl Default for Config {
    fn default() -> Self {
        Config { team: "team".to_owned(), slow_ms: 2_000.0 }
    }
}

thread_local! {
    static CONFIG: RefCell<Config> = RefCell::default();
}

/// The filter. The worker keeps an instance for each job, so what is kept here belongs to one request.
struct TeamVoice;

impl Guest for TeamVoice {
    /// Called once, when the filter is loaded.
    fn describe() -> Description {
        Description {
            name: "team-voice".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            // It isn't called for other kinds, which then cost nothing. None: all kinds.
            kinds: Some(
                ["inference-completed", "inference-failed", "server-shutdown"]
                    .map(str::to_owned)
                    .to_vec(),
            ),
            redacts: false,
            config_schema: SCHEMA.to_owned(),
        }
    }

    /// Called once an instance, with `[filter.config]` as JSON.
    fn configure(config: String) -> Result<(), String> {
        let config: Config = serde_json::from_str(&config).map_err(|error| error.to_string())?;
        if config.team.chars().count() > 16 {
            return Err("team: at most 16 characters".to_owned());
        }
        CONFIG.set(config);
        Ok(())
    }

    /// Called for every fact of the kinds above, in order.
    fn narrate(_: Context, mut narration: Narration) -> Narration {
        CONFIG.with_borrow(|config| {
            if let Some(words) = words(config, &narration.fact) {
                narration.human = words;
            }
        });
        narration
    }
}

/// The plain sentence, at most 100 characters: past tense, since it is over.
fn words(config: &Config, fact: &Fact) -> Option<String> {
    let team = &config.team;
    Some(match fact {
        Fact::InferenceCompleted(f) => {
            let verdict = if f.time_to_first_token_ms > config.slow_ms { "SLOW" } else { "OK" };
            format!(
                "{team} {verdict} in={} out={} ttft={:.0}ms rate={:.1}/s",
                f.prompt_tokens, f.tokens_out, f.time_to_first_token_ms, f.tokens_per_second
            )
        }
        Fact::InferenceFailed(f) => format!("{team} FAILED after {} tokens", f.tokens_out),
        Fact::ServerShutdown(f) => format!("{team} STOPPED with {} jobs", f.jobs_in_flight),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::contract::rbees::narration::facts::{FailureCode, InferenceFailed, ServerStarted};
    use super::contract::rbees::narration::facts::{InferenceCompleted, StopReason};
    use super::*;

    /// A sample event. `events.ndjson` holds a whole recording, for `rbees-workerd filter replay`.
    fn completed(time_to_first_token_ms: f64) -> Fact {
        Fact::InferenceCompleted(InferenceCompleted {
            prompt_tokens: 5,
            tokens_out: 6,
            time_to_first_token_ms,
            decode_ms: 195.4,
            tokens_per_second: 25.6,
            stop_reason: StopReason::MaxTokens,
        })
    }

    #[test]
    fn the_end_of_a_request_is_told_in_the_teams_words() {
        let config: Config = serde_json::from_str(r#"{"team":"hive"}"#).expect("understood");
        let words = |fact: &Fact| words(&config, fact);
        assert_eq!(
            words(&completed(193.0)).as_deref(),
            Some("hive OK in=5 out=6 ttft=193ms rate=25.6/s")
        );
        assert!(words(&completed(2_001.0)).is_some_and(|line| line.contains("SLOW")));
        let code = FailureCode::InferenceFailed;
        let failed = InferenceFailed { code, reason: "a fault".to_owned(), tokens_out: 3 };
        assert_eq!(
            words(&Fact::InferenceFailed(failed)).as_deref(),
            Some("hive FAILED after 3 tokens")
        );
        let started = ServerStarted { address: "127.0.0.1:0".to_owned() };
        assert_eq!(words(&Fact::ServerStarted(started)), None);
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        let error = TeamVoice::configure(r#"{"taem":"hive"}"#.to_owned()).expect_err("a typo");
        assert!(error.contains("taem"), "{error}");
        assert!(TeamVoice::configure(r#"{"team":"a name that is too long"}"#.to_owned()).is_err());
    }
}
