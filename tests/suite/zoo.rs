//! Promise: no filter can hurt the worker, see another request, or let through what it was to keep back
//! by failing.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rbees_workerd::filter::chain::{Entry, OnFailure};
use rbees_workerd::filter::component::{Component, Failure};
use rbees_workerd::filter::{Chain, Host, Instances, TextRun, Verdict};
use rbees_workerd::limits::FILTER_INSTANCES_MAX;
use rbees_workerd::narration::{Fact, Narrator, Nowhere, Scope, Told};

use crate::animals::{self, Animal};

fn told(job: &str, kind: &str) -> Told {
    let scope =
        Scope { job_id: Some(job.into()), correlation_id: Some(job.into()), trace_id: None };
    let fact = Fact::samples().into_iter().find(|fact| fact.kind() == kind).expect("a kind");
    Narrator::new("zoo".into(), Arc::new(Nowhere)).telling(fact, &scope).stamp()
}

fn entry(host: &Host, bytes: &[u8], on_failure: OnFailure) -> Result<Entry, Failure> {
    let component = Arc::new(Component::load(host, bytes, 32)?);
    let limit = Duration::from_millis(10);
    Ok(Entry::new("animal".into(), component, "{}".into(), on_failure, limit, 32))
}

/// What the worker says of an animal: why it is refused, or how its first or second call fails.
fn verdict(host: &Host, animal: &Animal) -> Result<(), Failure> {
    let entry = entry(host, &animal.bytes, OnFailure::Withhold)?;
    let mut instance = entry.start(host)?;
    for _ in 0..2 {
        let told = told("job", "inference-completed");
        instance.narrate(&told.context, &told.narration, entry.timeout)?;
    }
    Ok(())
}

#[test]
fn every_animal_gets_its_verdict_and_the_host_does_not_grow() {
    let test = "zoo::in_a_process_of_its_own";
    let output = Command::new(std::env::current_exe().expect("this test has a file"))
        .args(["--exact", test, "--ignored", "--nocapture", "--test-threads", "1"])
        .output()
        .expect("the test's own binary can be run");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "run by the test before, alone in its process"]
fn in_a_process_of_its_own() {
    let rounds: usize = std::env::var("ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    let host = Host::new().expect("wasm runs");
    let _timed = host.awake();
    let tame = Animal { name: "tame", bytes: animals::Parts::tame().build(), verdict: "" };
    verdict(&host, &tame).expect("what does nothing wrong passes");
    let zoo = animals::animals();
    assert!(zoo.len() >= 40, "{}", zoo.len());
    let mut grown = 0;
    for animal in &zoo {
        let before = resident_bytes();
        for _ in 0..rounds {
            let Err(Failure(reason)) = verdict(&host, animal) else {
                panic!("{} got through", animal.name);
            };
            assert!(
                reason.contains(animal.verdict),
                "{}: expected {:?} in {reason:?}",
                animal.name,
                animal.verdict
            );
        }
        verdict(&host, &tame).expect("others are not touched");
        grown += resident_bytes().saturating_sub(before);
        eprintln!("{:40} grown {} KiB in all", animal.name, grown >> 10);
    }
    // Memory that the compiler frees goes back to the allocator, not to the system.
    assert!(grown <= 96 << 20, "the host grew by {} MiB", grown >> 20);
}

/// Memory of this process, bytes.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * 4_096_usize
}

#[test]
fn no_request_sees_another() {
    let host = Arc::new(Host::new().expect("wasm runs"));
    let hoarder = entry(&host, &animals::hoarder(), OnFailure::Withhold).expect("it is sound");
    let chain = Chain::new(Arc::clone(&host), vec![hoarder], 1);
    let _timed = host.awake();
    let events: usize = std::env::var("EVENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(4_000);
    let shared_leaks = crossings(&chain, events.min(400), true);
    assert!(shared_leaks > 0, "the harness would not notice a leak");
    assert_eq!(crossings(&chain, events, false), 0);
}

/// How often one of eight interleaved requests shows what only another was told.
fn crossings(chain: &Chain, events: usize, shared: bool) -> usize {
    let mut instances: Vec<Instances> = (0..8).map(|_| Instances::default()).collect();
    let mut crossed = 0;
    for event in 0..events {
        let job = (event * 7 + event / 8) % 8;
        let canary = format!("canary-of-{job}");
        let Told { context, mut narration } = told(&canary, "inference-completed");
        narration.target = canary.clone();
        let slot = if shared { 0 } else { job };
        let verdict = chain.narrate(&mut instances[slot], &context, narration, &mut |_| {});
        let Verdict::Deliver(out) = verdict else { panic!("{verdict:?}") };
        crossed += usize::from(!out.human.is_empty() && out.human != canary);
    }
    crossed
}

#[test]
fn a_failing_filter_has_its_policy_followed_to_the_letter() {
    let host = Arc::new(Host::new().expect("wasm runs"));
    let _timed = host.awake();
    let bytes = animals::fails_every_third();
    for (policy, expected) in [(OnFailure::Withhold, "ddwddwddw"), (OnFailure::Skip, "ddddddddd")] {
        let entry = entry(&host, &bytes, policy).expect("it is sound");
        let chain = Chain::new(Arc::clone(&host), vec![entry], 1);
        let (mut instances, mut facts) = (Instances::default(), Vec::new());
        let mut seen = String::new();
        for _ in 0..expected.len() {
            let Told { context, narration } = told("job", "inference-completed");
            let before = narration.clone();
            match chain.narrate(&mut instances, &context, narration, &mut |fact| facts.push(fact)) {
                Verdict::Deliver(out) => {
                    assert_eq!(out, before);
                    seen.push('d');
                }
                Verdict::Withheld(_) => seen.push('w'),
                Verdict::Dropped => seen.push('x'),
            }
        }
        assert_eq!(seen, expected);
        assert!(facts.is_empty(), "no three failures were in a row");
        assert_eq!(chain.entries()[0].stats.counts().failures, 3);
    }
}

#[test]
fn a_spinning_filter_is_quarantined_and_not_called_again() {
    let host = Arc::new(Host::new().expect("wasm runs"));
    let _timed = host.awake();
    let entry = entry(&host, &animals::spins(), OnFailure::Withhold).expect("it is sound");
    let chain = Chain::new(Arc::clone(&host), vec![entry], 1);
    let mut facts = Vec::new();
    for job in 0..50 {
        let Told { context, narration } = told(&job.to_string(), "inference-completed");
        let mut instances = Instances::default();
        let verdict =
            chain.narrate(&mut instances, &context, narration, &mut |fact| facts.push(fact));
        assert!(matches!(verdict, Verdict::Withheld(_)), "{verdict:?}");
    }
    assert_eq!(chain.entries()[0].stats.counts().calls, 3, "each for its limit, then none");
    assert!(matches!(facts.as_slice(), [Fact::FilterQuarantined(told)] if told.failures == 3));
}

#[test]
fn a_filter_that_fails_on_text_lets_nothing_more_through() {
    let host = Arc::new(Host::new().expect("wasm runs"));
    let _timed = host.awake();
    for animal in animals::text_animals() {
        let mut entry = entry(&host, &animal.bytes, OnFailure::Withhold).expect(animal.name);
        entry.text = true;
        let chain = Arc::new(Chain::new(Arc::clone(&host), vec![entry], 1));
        let mut run = TextRun::begin(&chain).expect("it is turned on");
        let failed = (0..200).find_map(|_| match run.push(&"x".repeat(1_000), &mut |_| {}) {
            Ok(text) => {
                assert_eq!(text, "", "{}", animal.name);
                None
            }
            Err(stopped) => Some(stopped.withheld),
        });
        let reason = failed.expect(animal.name).reason;
        assert!(reason.contains(animal.verdict), "{}: {reason}", animal.name);
    }
}

#[test]
fn a_full_house_is_no_filters_fault() {
    let host = Arc::new(Host::new().expect("wasm runs"));
    let _timed = host.awake();
    let guest = animals::hoarder();
    let entry = entry(&host, &guest, OnFailure::Withhold).expect("it is sound");
    let chain = Chain::new(Arc::clone(&host), vec![entry], 1);
    let narrate = |instances: &mut Instances| {
        let Told { context, narration } = told("job", "inference-completed");
        chain.narrate(instances, &context, narration, &mut |fact| panic!("{fact:?} was told"))
    };
    let mut jobs = Vec::new();
    while host.has_room(1) {
        jobs.push(Instances::default());
        let served = narrate(jobs.last_mut().expect("one was pushed"));
        assert!(matches!(served, Verdict::Deliver(_)), "{} jobs: {served:?}", jobs.len());
    }
    assert_eq!(jobs.len(), FILTER_INSTANCES_MAX as usize);
    for _ in 0..10 {
        let Verdict::Withheld(withheld) = narrate(&mut Instances::default()) else {
            panic!("there was no room")
        };
        assert!(withheld.reason.starts_with("has no room"), "{}", withheld.reason);
    }
    assert_eq!(host.take_turned_away(), 10);
    assert!(!chain.entries()[0].quarantined(), "it failed at nothing");
    assert!(matches!(narrate(&mut jobs[0]), Verdict::Deliver(_)), "who is in stays in");
    Component::load(&host, &guest, 32).expect("a trial has room of its own");
    jobs.pop();
    assert!(matches!(narrate(&mut Instances::default()), Verdict::Deliver(_)), "room again");
}
