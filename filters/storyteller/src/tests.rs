//! What the storyteller promises of every kind of fact: words within their limits, the routing table,
//! and a policy that refuses what it does not understand.

use crate::contract::exports::rbees::narration::filter::Narration;
use crate::contract::rbees::narration::facts::{Fact, HealthChecked, WorkerState};
use crate::contract::rbees::narration::types::Sinks;
use crate::policy::{self, Policy};
use crate::routes::{KINDS, index};
use crate::samples::{Filling, filled, usual};
use crate::words::{self, CUTE_CHARS_MAX, HUMAN_CHARS_MAX, STORY_CHARS_MAX, Words};

/// Kinds whose parts never speak with each other.
const SILENT: &[&str] = &[
    "startup",
    "cpu-ready",
    "cuda-ready",
    "metal-ready",
    "model-load-progress",
    "warmup-started",
    "warmup-completed",
    "heartbeat-failed",
    "server-started",
    "server-bound",
    "bind-failed",
    "inference-started",
    "cache-reset",
    "prefill-progress",
    "tokens-generated",
    "filter-loaded",
    "filter-rejected",
    "filter-quarantined",
    "narration-lost",
    "other",
];

fn kind(fact: &Fact) -> &'static str {
    KINDS[index(fact)].0
}

fn narration(fact: Fact, sinks: Sinks) -> Narration {
    let target = "job".to_owned();
    Narration { fact, target, sinks, human: String::new(), cute: None, story: None }
}

fn is_emoji(c: char) -> bool {
    matches!(c, '\u{1f300}'..='\u{1faff}' | '\u{2600}'..='\u{27bf}' | '\u{23f3}')
}

fn check(fact: &Fact, words: &Words) {
    let kind = kind(fact);
    let human = &words.human;
    assert!((10..=HUMAN_CHARS_MAX).contains(&human.chars().count()), "{kind}: {human}");
    assert!(human.ends_with('.'), "{kind}: {human}");
    let cute = words.cute.as_ref().expect("always told");
    assert!((10..=CUTE_CHARS_MAX).contains(&cute.chars().count()), "{kind}: {cute}");
    assert!(cute.chars().any(is_emoji), "{kind}: {cute}");
    assert!(!cute.contains(['"', '“', '”', '«', '»']), "{kind}: {cute}");
    if let Some(story) = &words.story {
        assert!((10..=STORY_CHARS_MAX).contains(&story.chars().count()), "{kind}: {story}");
        let quotes = story.matches('"').count();
        assert!(quotes >= 2 && quotes % 2 == 0, "{kind}: {story}");
        assert!(!SILENT.contains(&kind), "{kind} is not a talk: {story}");
    }
}

#[test]
fn every_kind_has_words_within_their_limits() {
    let facts = usual();
    assert_eq!(
        facts.iter().map(index).collect::<std::collections::BTreeSet<_>>().len(),
        KINDS.len()
    );
    for fact in &facts {
        let words = words::of(fact, true, true);
        check(fact, &words);
        assert_eq!(words.story.is_none(), SILENT.contains(&kind(fact)), "{}", kind(fact));
        println!("{}\n  {}\n  {}", kind(fact), words.human, words.cute.as_deref().unwrap_or("-"));
        println!("  {}", words.story.as_deref().unwrap_or("-"));
    }
}

#[test]
fn usual_words_are_not_cut() {
    for fact in usual() {
        let words = words::of(&fact, true, true);
        let all = [Some(words.human), words.cute, words.story];
        assert!(!all.iter().flatten().any(|text| text.contains('…')), "{all:?}");
    }
}

#[test]
fn extreme_payloads_keep_the_limits() {
    let long = "x".repeat(5_000);
    let wide = "ü🐝".repeat(2_500);
    let quotes = "\"'\"".repeat(40);
    for text in ["", ".", "\n", "/", "C:\\", &long, &wide, &quotes] {
        for number in [0, 1, 2, 1_000, u64::from(u32::MAX), u64::MAX] {
            for measure in
                [0.0, -0.0, -1.0, 0.049, 59_999.99, 1e300, f64::NAN, f64::INFINITY, f64::MIN]
            {
                for fact in filled(&Filling { text, number, measure }) {
                    check(&fact, &words::of(&fact, true, true));
                }
            }
        }
    }
}

#[test]
fn one_of_a_thing_is_singular() {
    for fact in filled(&Filling { text: "name", number: 1, measure: 1.0 }) {
        let words = words::of(&fact, true, true);
        let text = [Some(words.human), words.cute, words.story]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join("|");
        for wrong in ["1 tokens", "1 drops", "1 petals", "1 requests", "1 failures", "1 bytes"] {
            let whole = text
                .match_indices(wrong)
                .any(|(at, _)| !text[..at].ends_with(|c: char| c.is_ascii_digit() || c == '.'));
            assert!(!whole, "{text}");
        }
    }
}

#[test]
fn the_texts_that_are_not_wanted_are_not_told() {
    for fact in usual() {
        let words = words::of(&fact, false, false);
        assert!(!words.human.is_empty() && words.cute.is_none() && words.story.is_none());
    }
}

#[test]
fn the_default_routing_table() {
    let both = Sinks::STDOUT | Sinks::SSE;
    for fact in usual() {
        let kind = kind(&fact);
        let per_request = kind.starts_with("request-")
            || kind.starts_with("inference-")
            || matches!(
                kind,
                "prompt-tokenized" | "cache-reset" | "prefill-progress" | "tokens-generated"
            );
        let expected = if per_request { both } else { Sinks::STDOUT };
        assert_eq!(Policy::DEFAULT.sinks(&fact), expected, "{kind}");
        let told = crate::tell(&Policy::DEFAULT, narration(fact.clone(), Sinks::STDOUT));
        assert_eq!(told.sinks, Sinks::STDOUT, "{kind}: a sink was opened");
        let told = crate::tell(&Policy::DEFAULT, narration(fact, both));
        assert_eq!(told.sinks, expected, "{kind}");
    }
}

#[test]
fn what_is_worded_stays_as_it_is() {
    let mut given =
        narration(Fact::HealthChecked(HealthChecked { state: WorkerState::Ready }), Sinks::STDOUT);
    given.human = "All is well.".to_owned();
    given.story = Some("\"Well?\" asks a. \"Well,\" says b.".to_owned());
    let told = crate::tell(&Policy::DEFAULT, given.clone());
    assert_eq!((&told.human, &told.story), (&given.human, &given.story));
    assert!(told.cute.is_some());
}

#[test]
fn a_policy_is_read() {
    let policy = Policy::read(
        r#"{"cute":false,"story":false,"routes":{"tokens-generated":["sse"],"cache-reset":[],"startup":["sse","stdout"]}}"#,
    )
    .expect("understood");
    assert!(!policy.cute && !policy.story);
    for fact in usual() {
        let expected = match kind(&fact) {
            "tokens-generated" => Sinks::SSE,
            "cache-reset" => Sinks::empty(),
            "startup" => Sinks::STDOUT | Sinks::SSE,
            _ => Policy::DEFAULT.sinks(&fact),
        };
        assert_eq!(policy.sinks(&fact), expected, "{}", kind(&fact));
    }
    let dropped = usual().into_iter().find(|fact| kind(fact) == "cache-reset").expect("a sample");
    let told = crate::tell(&policy, narration(dropped, Sinks::STDOUT | Sinks::SSE));
    assert!(told.sinks == Sinks::empty() && told.human.is_empty());
    assert!(Policy::read("{}").is_ok());
}

#[test]
fn a_policy_that_is_not_understood_is_refused_by_name() {
    for (config, named) in [
        (r#"{"cuet":true}"#, "cuet"),
        (r#"{"cute":"yes"}"#, "boolean"),
        (r#"{"routes":{"tokens":["sse"]}}"#, "tokens"),
        (r#"{"routes":{"startup":["syslog"]}}"#, "syslog"),
        (r#"{"routes":{"startup":"stdout"}}"#, "sequence"),
        (r#"{"cute":true} trailing"#, "trailing"),
        ("[]", "invalid"),
        ("", "EOF"),
    ] {
        let error = Policy::read(config).err().expect(config);
        assert!(error.contains(named), "{config}: {error}");
    }
}

#[test]
fn the_schema_is_json_and_knows_every_kind() {
    let schema: serde_json::Value = serde_json::from_str(&policy::schema()).expect("JSON");
    let kinds = schema["properties"]["routes"]["propertyNames"]["enum"].as_array();
    assert_eq!(kinds.map(Vec::len), Some(KINDS.len()));
}
