//! The scheduler with a decoder that is a checksum of what lies in its blocks: whatever is computed in
//! the wrong place, shared by the wrong sequence or written too late changes every later token.

mod simulation;
mod toy;

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::Value;

use self::toy::{Asked, House, Toy, text};
use super::*;
use crate::limits::PREFILL_CHUNK_TOKENS;

/// Some prompts that begin alike, of different lengths, and how each is to be continued.
fn requests(seed: u64, count: usize) -> Vec<Asked> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut below = |n: u32| random.next_u32() % n;
    (0..count)
        .map(|_| {
            let (family, shared, own) = (below(3), below(90), below(40));
            let mut prompt: Vec<u32> = (0..shared).map(|n| 3 + (n * 7 + family) % 200).collect();
            prompt.extend((0..=own).map(|_| 3 + below(200)));
            Asked {
                prompt,
                max_tokens: 1 + below(30),
                temperature: if below(2) == 0 { 0.0 } else { 1.2 },
                seed: u64::from(below(1_000)),
                repetition_penalty: if below(3) == 0 { 1.3 } else { 1.0 },
                ..Asked::default()
            }
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_text_depends_on_company_or_on_the_cache() {
    for seed in 0..6 {
        let requests = requests(seed, 40);
        let alone = House::new(Toy::new(1, 4_096, 1), 1, false);
        let mut expected = Vec::new();
        for request in &requests {
            expected.push(text(&alone.run(request).await));
        }
        let (blocks, size) = [(64, 8), (48, 5), (300, 1), (16, 32)][seed as usize % 4];
        let company = House::new(Toy::new(8, blocks, size), 2 + seed as usize, true);
        let jobs: Vec<_> = requests.iter().map(|request| company.push(request)).collect();
        for (at, job) in jobs.into_iter().enumerate() {
            let frames = job.frames().await;
            assert_eq!(text(&frames), expected[at], "seed {seed}, request {at}");
        }
        assert!(company.pulse.reused_tokens.load(Ordering::Relaxed) > 0, "seed {seed}: no reuse");
        company.comes_to_rest().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_id_is_chosen_that_the_tokenizer_lacks() {
    let plain = House::new(Toy::new(1, 512, 8), 1, false);
    let padded = House::new(Toy::new(1, 512, 8).padded(49), 1, false);
    for (at, asked) in requests(3, 12).into_iter().enumerate() {
        let (grammar, logprobs) = (at % 3 == 0, (at % 2 == 0).then_some(2));
        let asked = Asked { grammar, logprobs, ..asked };
        let expected = plain.run(&asked).await;
        let found = padded.run(&asked).await;
        assert_eq!(text(&found), text(&expected), "request {at}");
        let told = |frames: &[Value]| -> Vec<Value> {
            frames.iter().filter_map(|frame| frame.get("logprobs").cloned()).collect()
        };
        assert_eq!(told(&found), told(&expected), "request {at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_prompt_takes_turns_and_others_get_a_token_every_step() {
    let toy = Toy::new(4, 512, 8);
    let steps = toy.steps();
    let gate = toy.gate();
    let house = House::new(toy, 4, true);
    let short = Asked { prompt: vec![5; 3], max_tokens: 60, endless: true, ..Asked::default() };
    let long = |token| Asked { prompt: vec![token; 300], max_tokens: 2, ..Asked::default() };
    let jobs = [house.push(&short), house.push(&long(6)), house.push(&long(7))];
    gate.open();
    for job in jobs {
        assert_eq!(job.frames().await.last().expect("frames")["type"], "end");
    }
    let steps = steps.lock().expect("no panic");
    let prompts = |step: &[toy::Taken]| -> Vec<toy::Taken> {
        step.iter().copied().filter(|taken| taken.tokens > 1 && taken.first >= 6).collect()
    };
    let busy: Vec<&Vec<toy::Taken>> = steps.iter().filter(|s| !prompts(s).is_empty()).collect();
    assert!(busy.len() >= 2 * 300 / PREFILL_CHUNK_TOKENS, "{}", busy.len());
    for step in &busy {
        let tokens: usize = prompts(step).iter().map(|taken| taken.tokens).sum();
        assert!(tokens <= PREFILL_CHUNK_TOKENS, "{tokens} tokens of prompts in one step");
    }
    // While both prompts are computed, they alternate, and the short one decodes in every step.
    let both = 2 * 300 / PREFILL_CHUNK_TOKENS - 2;
    let turns: Vec<u32> = busy.iter().map(|step| prompts(step)[0].first).take(both).collect();
    assert!(turns.windows(2).all(|pair| pair[0] != pair[1]), "{turns:?}");
    assert!(busy[1..both].iter().all(|step| step.iter().any(|taken| taken.tokens == 1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_fails_or_panics_costs_only_the_one_that_made_it() {
    let healthy = requests(11, 6);
    let alone = House::new(Toy::new(1, 4_096, 1), 1, false);
    let mut expected = Vec::new();
    for request in &healthy {
        expected.push(text(&alone.run(request).await));
    }
    for poison in [toy::FAILS, toy::PANICS] {
        let house = House::new(Toy::new(8, 256, 8), 8, true);
        let bad = Asked { prompt: vec![9, 9, poison, 9], max_tokens: 5, ..Asked::default() };
        let jobs: Vec<_> = healthy.iter().map(|request| house.push(request)).collect();
        let failed = house.push(&bad).frames().await;
        let last = failed.last().expect("frames");
        assert_eq!((&last["type"], &last["code"]), (&"error".into(), &"INFERENCE_FAILED".into()));
        for (job, expected) in jobs.into_iter().zip(&expected) {
            assert_eq!(&text(&job.frames().await), expected);
        }
        let after = house.run(&healthy[0]).await;
        assert_eq!(text(&after), expected[0], "the engine goes on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_waits_is_told_and_never_overtaken() {
    let toy = Toy::new(4, 10, 8);
    let gate = toy.gate();
    let house = House::new(toy, 4, true);
    let large = |token| Asked { prompt: vec![token; 50], max_tokens: 20, ..Asked::default() };
    let small = Asked { prompt: vec![4; 8], max_tokens: 4, ..Asked::default() };
    let first = house.push(&large(5));
    while house.queue.lengths() != (1, 0) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let jobs = [first, house.push(&large(6)), house.push(&small)];
    gate.open();
    let mut ends = Vec::new();
    for job in jobs {
        let frames = job.frames().await;
        ends.push(frames);
    }
    let facts = |frames: &[Value], kind: &str| -> Vec<Value> {
        let facts = frames.iter().filter_map(|f| f["fact"].get(kind).cloned());
        facts.collect()
    };
    assert!(facts(&ends[0], "request-queued").is_empty(), "the first one runs at once");
    let second = facts(&ends[1], "request-queued");
    assert_eq!((&second[0]["position"], &second[0]["ahead"]), (&1.into(), &1.into()), "{second:?}");
    let third = facts(&ends[2], "request-queued");
    let places: Vec<u64> = third.iter().filter_map(|place| place["position"].as_u64()).collect();
    assert_eq!(places, [2, 1], "told again when it moves up");
    assert!(ends.iter().all(|frames| frames.last().expect("frames")["type"] == "end"));
    // Nothing that is larger than all the memory hangs the engine.
    let never = Asked { prompt: vec![5; 70], max_tokens: 20, ..Asked::default() };
    assert_eq!(house.run(&never).await.last().expect("frames")["code"], "VRAM_OOM");
    assert_eq!(house.run(&small).await.last().expect("frames")["type"], "end");
    assert!(house.queue.ends_per_second() > Some(0.0));
    assert!(house.queue.seconds_for(3) > house.queue.seconds_for(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_in_prefill_takes_one_step() {
    let toy = Toy::new(2, 2_048, 8);
    let (steps, gate) = (toy.steps(), toy.gate());
    let house = House::new(toy, 2, true);
    let job = house.push(&Asked { prompt: vec![5; 8_000], max_tokens: 1, ..Asked::default() });
    gate.steps(3);
    while steps.lock().expect("no panic").len() < 3 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    job.cancel.cancel(CancelledBy::Client);
    gate.open();
    assert_eq!(job.frames().await.last().expect("frames")["code"], "CANCELLED");
    let taken = steps.lock().expect("no panic").len();
    assert!(taken <= 4, "{taken} steps");
    // What it had computed is of use to the next one.
    let again = Asked { prompt: vec![5; 100], max_tokens: 1, ..Asked::default() };
    let frames = house.run(&again).await;
    let reset = frames.iter().find_map(|f| f["fact"].get("cache-reset")).expect("it is told");
    assert!(reset["reused_tokens"].as_u64() >= Some(40), "{reset}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_turn_of_a_chat_computes_what_is_new() {
    let toy = Toy::new(2, 256, 8);
    let steps = toy.steps();
    let house = House::new(toy, 2, true);
    let endless = Asked { endless: true, max_tokens: 10, ..Asked::default() };
    let first = Asked { prompt: (3..103).collect(), ..endless.clone() };
    let frames = house.run(&first).await;
    let mut prompt = first.prompt.clone();
    prompt.extend(house.tokens(&text(&frames)));
    let known = prompt.len();
    prompt.extend([7; 20]);
    steps.lock().expect("no panic").clear();
    let second = Asked { prompt, ..endless };
    let reused = house.run(&second).await;
    let reset = reused.iter().find_map(|f| f["fact"].get("cache-reset")).expect("it is told");
    let count = |name: &str| reset[name].as_u64().expect("a number") as usize;
    // The last token of an answer is never computed, so it is not there.
    assert_eq!(count("reused_tokens"), known - 1, "{reset}");
    assert_eq!(count("reused_tokens") + count("tokens_to_compute"), second.prompt.len());
    let computed: usize =
        steps.lock().expect("no panic").iter().flatten().map(|taken| taken.tokens).sum();
    assert_eq!(computed, count("tokens_to_compute") + 9, "the prompt's rest and 9 tokens");
    let alone = House::new(Toy::new(1, 4_096, 1), 1, false);
    assert_eq!(text(&alone.run(&second).await), text(&reused));
}

#[tokio::test(flavor = "multi_thread")]
async fn log_probabilities_and_grammars_reach_the_stream() {
    let house = House::new(Toy::new(4, 512, 8), 4, true);
    let asked = Asked {
        prompt: vec![5; 20],
        max_tokens: 12,
        temperature: 0.9,
        logprobs: Some(3),
        ..Asked::default()
    };
    let frames = house.run(&asked).await;
    let told: Vec<&Value> =
        frames.iter().filter_map(|f| f["logprobs"].as_array()).flatten().collect();
    assert!(!told.is_empty());
    let bytes: Vec<u8> = told
        .iter()
        .flat_map(|t| t["bytes"].as_array().expect("bytes").iter())
        .map(|byte| byte.as_u64().expect("a byte") as u8)
        .collect();
    assert_eq!(String::from_utf8_lossy(&bytes), text(&frames), "they tell of the whole text");
    for token in told {
        assert_eq!(token["top"].as_array().map(Vec::len), Some(3));
        assert!(token["logprob"].as_f64() <= token["top"][0]["logprob"].as_f64(), "{token}");
    }
    let asked = Asked { grammar: true, max_tokens: 400, temperature: 1.0, ..asked };
    let frames = house.run(&asked).await;
    let last = frames.last().expect("frames");
    assert_eq!((&last["type"], &last["stop_reason"]), (&"end".into(), &"EOS".into()), "{last}");
    let value: Value = serde_json::from_str(&text(&frames)).expect("JSON");
    assert!(value["a"].is_boolean(), "{value}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_step_shows_and_ends_nothing_else() {
    let toy = Toy::new(2, 64, 8);
    let gate = toy.gate();
    let house = House::new(toy, 2, true);
    let job = house.push(&Asked { prompt: vec![5; 4], max_tokens: 2, ..Asked::default() });
    while house.pulse.step_time() < Duration::from_millis(20) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(house.queue.lengths(), (1, 0), "whoever looks gets an answer");
    gate.open();
    assert_eq!(job.frames().await.last().expect("frames")["type"], "end");
    while house.pulse.step_time() > Duration::ZERO {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
