//! The throttle: thins out narrations of progress, so that each kind comes at most so often. It never
//! holds one back for later, never drops the first or the last of its kind, and words nothing.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde::Deserialize;

/// What the contract says, as Rust: made from the WIT, hence its own rules of style.
#[allow(unsafe_code)]
mod contract {
    wit_bindgen::generate!({ world: "narration-filter", path: "../../wit/0.1.0" });

    #[cfg(target_arch = "wasm32")]
    export!(Throttle with_types_in self);

    #[cfg(target_arch = "wasm32")]
    use super::Throttle;
}

use contract::exports::rbees::narration::filter::{Context, Description, Guest, Narration};
use contract::rbees::narration::facts::Fact;
use contract::rbees::narration::types::Sinks;

/// The kinds that tell of progress.
const KINDS: [&str; 3] = ["model-load-progress", "prefill-progress", "tokens-generated"];
/// Least time between two narrations of a kind unless configured otherwise, ms.
const EVERY_MS: u64 = 1_000;
/// Longest such time, ms.
const EVERY_MS_MAX: u64 = 3_600_000;
/// JSON Schema of the configuration.
const SCHEMA: &str = r#"{"type":"object","additionalProperties":false,"properties":{"every_ms":{"type":"object","description":"least time between two narrations of a kind, ms; 0: all of them","additionalProperties":false,"properties":{"model-load-progress":{"type":"integer","minimum":0,"maximum":3600000,"default":1000},"prefill-progress":{"type":"integer","minimum":0,"maximum":3600000,"default":1000},"tokens-generated":{"type":"integer","minimum":0,"maximum":3600000,"default":1000}}}}}"#;

/// The configuration as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    every_ms: BTreeMap<String, u64>,
}

/// How often each kind may come, and when it last did.
struct Pace {
    every_us: [u64; KINDS.len()],
    last_us: [Option<u64>; KINDS.len()],
}

impl Pace {
    const DEFAULT: Self =
        Self { every_us: [EVERY_MS * 1_000; KINDS.len()], last_us: [None; KINDS.len()] };

    /// The pace that a JSON configuration asks for. The error names what it does not understand.
    fn read(config: &str) -> Result<Self, String> {
        let config: Config = serde_json::from_str(config).map_err(|error| error.to_string())?;
        let mut pace = Self::DEFAULT;
        for (kind, ms) in &config.every_ms {
            let place = KINDS.iter().position(|known| known == kind).ok_or_else(|| {
                format!("every_ms: `{kind}` tells of no progress, only {}", KINDS.join(", "))
            })?;
            if *ms > EVERY_MS_MAX {
                return Err(format!("every_ms.{kind}: {ms} is more than {EVERY_MS_MAX}"));
            }
            pace.every_us[place] = ms * 1_000;
        }
        Ok(pace)
    }

    /// Whether a narration of this kind may pass at this time; notes it if so.
    fn passes(&mut self, fact: &Fact, now_us: u64) -> bool {
        let (place, last) = match fact {
            Fact::ModelLoadProgress(f) => (0, f.bytes_done >= f.bytes_total),
            Fact::PrefillProgress(f) => (1, f.tokens_done >= f.tokens_total),
            Fact::TokensGenerated(_) => (2, false),
            _ => return true,
        };
        let due = self.last_us[place]
            .is_none_or(|before| now_us.saturating_sub(before) >= self.every_us[place]);
        if due {
            self.last_us[place] = Some(now_us);
        }
        due || last
    }
}

thread_local! {
    static PACE: RefCell<Pace> = const { RefCell::new(Pace::DEFAULT) };
}

/// The filter itself. An instance serves one job, so each job has a pace of its own.
struct Throttle;

impl Guest for Throttle {
    fn describe() -> Description {
        Description {
            name: "throttle".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kinds: Some(KINDS.map(str::to_owned).to_vec()),
            redacts: false,
            config_schema: SCHEMA.to_owned(),
        }
    }

    fn configure(config: String) -> Result<(), String> {
        PACE.set(Pace::read(&config)?);
        Ok(())
    }

    fn narrate(context: Context, mut narration: Narration) -> Narration {
        if !PACE.with_borrow_mut(|pace| pace.passes(&narration.fact, context.timestamp_us)) {
            narration.sinks = Sinks::empty();
        }
        narration
    }
}

#[cfg(test)]
mod tests {
    use super::contract::rbees::narration::facts::{Cpu, PrefillProgress, TokensGenerated};
    use super::*;

    fn tokens(tokens: u32) -> Fact {
        Fact::TokensGenerated(TokensGenerated { tokens, tokens_per_second: 25.0 })
    }

    #[test]
    fn a_kind_comes_at_most_so_often() {
        let mut pace = Pace::read(r#"{"every_ms":{"tokens-generated":100}}"#).expect("understood");
        let told: Vec<u64> =
            (0..1_000).step_by(30).filter(|ms| pace.passes(&tokens(1), ms * 1_000)).collect();
        assert_eq!(told, [0, 120, 240, 360, 480, 600, 720, 840, 960]);
    }

    #[test]
    fn the_last_of_a_kind_and_other_kinds_always_pass() {
        let mut pace = Pace::read("{}").expect("understood");
        let prefill =
            |tokens_done| Fact::PrefillProgress(PrefillProgress { tokens_done, tokens_total: 64 });
        assert!(pace.passes(&prefill(16), 0));
        assert!(!pace.passes(&prefill(32), 1_000));
        assert!(pace.passes(&prefill(64), 2_000));
        let cpu = Fact::CpuReady(Cpu { threads: 2, instruction_set: "avx2".to_owned() });
        assert!(pace.passes(&cpu, 0) && pace.passes(&cpu, 0));
        assert!(pace.passes(&tokens(1), 2_000), "each kind has a pace of its own");
    }

    #[test]
    fn nought_lets_everything_through_and_a_clock_set_back_does_no_harm() {
        let mut pace = Pace::read(r#"{"every_ms":{"tokens-generated":0}}"#).expect("understood");
        assert!((0..9).all(|us| pace.passes(&tokens(1), us)));
        let mut pace = Pace::DEFAULT;
        assert!(pace.passes(&tokens(1), 5_000_000));
        assert!(!pace.passes(&tokens(2), 4_000_000));
        assert!(pace.passes(&tokens(3), 6_000_000));
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        for (config, named) in [
            (r#"{"every":1}"#, "every"),
            (r#"{"every_ms":{"startup":1}}"#, "startup"),
            (r#"{"every_ms":{"tokens-generated":-1}}"#, "invalid value"),
            (r#"{"every_ms":{"tokens-generated":3600001}}"#, "3600000"),
        ] {
            let error = Pace::read(config).err().expect(config);
            assert!(error.contains(named), "{config}: {error}");
        }
        assert!(serde_json::from_str::<serde_json::Value>(SCHEMA).is_ok());
    }
}
