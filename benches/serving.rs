//! What serving several requests at once costs and gives: tokens a second for 1, 2, 4 and 8 of them,
//! how long a token waits while another request's prompt is computed, and the time to the first token
//! with and without a prompt that is known, and the memory that all of it takes. Asserts nothing; prints medians.

#![allow(clippy::print_stdout, missing_docs, dead_code)] // printing is its purpose

#[path = "../tests/support/gguf.rs"]
mod gguf;
#[path = "../tests/support/worker.rs"]
mod worker;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use worker::{Worker, kind, real_model};

const TOKENS: u32 = 48;
const ROUNDS: usize = 3;
const LONG_TOKENS: usize = 4_000;
/// Enough tokens to last while the long prompt is computed.
const BESIDE_TOKENS: u32 = 600;

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn percentile(mut values: Vec<f64>, part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * part).round() as usize]
}

/// A text of about so many tokens that no other seed begins with.
fn prompt(seed: usize, tokens: usize) -> String {
    let words = ["the", "bee", "field", "of", "summer", "flies", "home", "with", "honey", "and"];
    let mut text = format!("{seed} {} ", seed * 7919 % 1_000);
    for n in 0..tokens.saturating_sub(4) {
        text.push_str(words[(n * 31 + n / 7 + seed * n) % words.len()]);
        text.push(' ');
    }
    text
}

fn body(prompt: &str, max_tokens: u32) -> Value {
    json!({"prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "progress_every": 0,
        "repetition_penalty": 0.9})
}

struct Run {
    began: Instant,
    tokens: Vec<Instant>,
    facts: Vec<Value>,
}

impl Run {
    fn first_ms(&self) -> f64 {
        self.tokens.first().map_or(f64::NAN, |at| (*at - self.began).as_secs_f64() * 1e3)
    }

    fn pauses_ms(&self) -> Vec<f64> {
        self.tokens.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64() * 1e3).collect()
    }
}

async fn run(worker: &Worker, body: Value) -> Run {
    let began = Instant::now();
    let frames = worker.execute(&body).await;
    let tokens = frames.iter().filter(|f| f.event == "token").map(|f| f.at).collect();
    let facts = frames.into_iter().filter(|f| f.event == "narration").map(|f| f.data).collect();
    Run { began, tokens, facts }
}

/// What the worker tells to be resident, MiB.
async fn resident_mib(worker: &Worker) -> f64 {
    let health = worker.client.get(worker.url("/health")).send().await.expect("it answers");
    let health: Value = health.json().await.expect("JSON");
    health["resident_bytes"].as_f64().unwrap_or(f64::NAN) / f64::from(1 << 20)
}

async fn at_once(worker: &Worker, count: usize, round: usize) -> f64 {
    let prompts = (0..count).map(|n| prompt(1_000 * count + 10 * round + n, 16));
    let runs = prompts.map(|text| run(worker, body(&text, TOKENS)));
    let runs = futures_util::future::join_all(runs).await;
    // From the moment when all decode to the first that ends.
    let from = runs.iter().filter_map(|run| run.tokens.first()).max().expect("tokens");
    let to = runs.iter().filter_map(|run| run.tokens.last()).min().expect("tokens");
    let inside = runs.iter().flat_map(|run| &run.tokens).filter(|at| *at > from && *at <= to);
    inside.count() as f64 / (*to - *from).as_secs_f64()
}

async fn beside_a_prefill(worker: &Worker, round: usize) -> (Vec<f64>, Vec<f64>, f64) {
    let decoding = run(worker, body(&prompt(50_000 + round, 16), BESIDE_TOKENS));
    let long = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        run(worker, body(&prompt(60_000 + round, LONG_TOKENS), 1)).await
    };
    let (decoding, long) = futures_util::future::join(decoding, long).await;
    let until = long.tokens.first().copied().unwrap_or(long.began);
    let during = |at: &Instant| *at > long.began && *at < until;
    let pauses = decoding
        .tokens
        .windows(2)
        .map(|pair| (during(&pair[1]), (pair[1] - pair[0]).as_secs_f64() * 1e3));
    let (beside, alone): (Vec<_>, Vec<_>) = pauses.partition(|(during, _)| *during);
    let only = |pairs: Vec<(bool, f64)>| pairs.into_iter().map(|(_, pause)| pause).collect();
    (only(beside), only(alone), long.first_ms())
}

#[tokio::main]
async fn main() {
    let worker = Worker::spawn(&real_model(), &["--slots", "8", "--kv-mib", "512"]);
    while worker.client.get(worker.url("/ready")).send().await.expect("it answers").status() != 200
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("weights, one block, steps {:6.1} MiB", resident_mib(&worker).await);
    run(&worker, body("warm up", 8)).await;
    for count in [1, 2, 4, 8] {
        let mut rates = Vec::new();
        for round in 0..ROUNDS {
            rates.push(at_once(&worker, count, round).await);
        }
        println!("{count} at once            {:8.1} tokens/s in all", median(rates));
    }
    let (mut beside, mut alone, mut firsts) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let (b, a, first) = beside_a_prefill(&worker, round).await;
        beside.extend(b);
        alone.extend(a);
        firsts.push(first);
    }
    println!(
        "token to token, alone  {:8.1} ms p50 {:8.1} ms p99",
        percentile(alone.clone(), 0.5),
        percentile(alone, 0.99)
    );
    println!(
        "beside a prefill       {:8.1} ms p50 {:8.1} ms p99 ({} pauses, prompt of {LONG_TOKENS})",
        percentile(beside.clone(), 0.5),
        percentile(beside.clone(), 0.99),
        beside.len()
    );
    println!("its first token        {:8.1} ms", median(firsts));
    let (mut cold, mut warm, mut reused) = (Vec::new(), Vec::new(), 0);
    for round in 0..ROUNDS {
        let text = prompt(90_000 + round, 1_000);
        cold.push(run(&worker, body(&text, 2)).await.first_ms());
        let again = run(&worker, body(&text, 2)).await;
        warm.push(again.first_ms());
        let reset = again.facts.iter().find(|fact| kind(fact) == "cache-reset");
        reused =
            reset.and_then(|f| f["fact"]["cache-reset"]["reused_tokens"].as_u64()).unwrap_or(0);
    }
    println!("resident after all     {:8.1} MiB", resident_mib(&worker).await);
    println!("first token, cold      {:8.1} ms (prompt of about 1,000 tokens)", median(cold));
    println!("first token, warm      {:8.1} ms ({reused} tokens reused)", median(warm));
}
