//! Promise: the default model answers sensibly, and its tokens arrive one by one as they are made.

use serde_json::json;

use crate::worker::{Worker, real_model, text};

/// Memory beside what the engine counts: the program, the filters' host, tokenizer and threads.
const BESIDE_BYTES_MAX: u64 = 100_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn the_default_model_says_paris_token_by_token() {
    let worker = Worker::spawn(&real_model(), &[]);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(120);
    let ready = worker.url("/ready");
    while worker.client.get(&ready).send().await.expect("it answers").status() != 200 {
        assert!(std::time::Instant::now() < until, "the worker never became ready");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let body = json!({"prompt": "The capital of France is", "max_tokens": 4, "temperature": 0});
    let frames = worker.execute(&body).await;
    assert!(text(&frames).starts_with(" Paris"), "{}", text(&frames));
    let first = frames.iter().position(|f| f.event == "narration").expect("it narrates");
    let tokens: Vec<_> = frames.iter().filter(|f| f.event == "token").collect();
    assert!(tokens.len() >= 3, "{frames:?}");
    assert!(frames[first].at < tokens[0].at, "the first narration is there before the first token");
    let mut moments: Vec<_> = tokens.iter().map(|token| token.at).collect();
    moments.dedup();
    assert!(moments.len() >= 3, "tokens came all at once: {moments:?}");
    let end = frames.last().expect("frames");
    assert_eq!((end.event.as_str(), &end.data["stop_reason"]), ("end", &json!("MAX_TOKENS")));

    let chat = json!({"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 3});
    assert_eq!(worker.execute(&chat).await.last().expect("frames").event, "end");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_whose_step_takes_too_long_is_not_ready() {
    // A step of this model takes longer than a millisecond, so to this worker each one hangs.
    let worker = Worker::spawn(&real_model(), &["--stall-ms", "1"]);
    worker.fact("warmup-completed");
    let body = json!({"prompt": "on and on", "max_tokens": 2_000, "temperature": 0,
        "repetition_penalty": 0.1, "job_id": "j", "on_disconnect": "continue"});
    loop {
        // Until the model is announced as ready, there is no engine yet.
        let response = worker.post("/execute", &body).await;
        if response.status() == 200 {
            break;
        }
    }
    loop {
        let ready = worker.client.get(worker.url("/ready")).send().await.expect("it answers");
        if ready.status() == 503 {
            let body: serde_json::Value = ready.json().await.expect("JSON");
            assert_eq!(body["state"], "stalled");
            break;
        }
    }
    let told = worker.wait("the stall", |n| n["fact"]["health-checked"]["state"] == "stalled");
    assert_eq!(told["severity"], "error");
    let health = worker.client.get(worker.url("/health")).send().await.expect("it answers");
    assert_eq!(health.status(), 200, "the process works");
    worker.post("/cancel", &json!({"job_id": "j"})).await;
    worker.fact("inference-cancelled");
    loop {
        // With nothing to compute, no step can take long.
        let ready = worker.client.get(worker.url("/ready")).send().await.expect("it answers");
        if ready.status() == 200 {
            break;
        }
    }
}

/// The folder of a small model as Hugging Face publishes it, with tokenizer and template.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_safetensors_is_served() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let worker = Worker::spawn(&folder.join("tests/references/models/llama3"), &[]);
    let loaded = worker.fact("model-loaded");
    let loaded = &loaded["fact"]["model-loaded"];
    assert_eq!((&loaded["architecture"], &loaded["name"]), (&json!("llama"), &json!("llama3")));
    assert_eq!(loaded["context_length"], 256);
    worker.ready().await;
    let body =
        json!({"messages": [{"role": "user", "content": "Hum."}], "max_tokens": 8, "seed": 1});
    let frames = worker.execute(&body).await;
    assert_eq!(frames.last().expect("frames").event, "end", "{frames:?}");
}

/// A line of `/proc/PID/status`, in bytes.
fn status_bytes(worker: &Worker, key: &str) -> u64 {
    let path = format!("/proc/{}/status", worker.pid());
    let status = std::fs::read_to_string(path).expect("the worker runs");
    let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("the key is there");
    let number: String = line.chars().filter(char::is_ascii_digit).collect();
    number.parse::<u64>().expect("a number") * 1024
}

async fn resident_bytes(worker: &Worker) -> u64 {
    let health = worker.client.get(worker.url("/health")).send().await.expect("it answers");
    let health: serde_json::Value = health.json().await.expect("JSON");
    health["resident_bytes"].as_u64().expect("a number")
}

/// Loading holds one slab beside the weights, and what is told to be resident is.
#[tokio::test(flavor = "multi_thread")]
#[cfg(target_os = "linux")]
async fn memory_is_what_it_is_told_to_be() {
    let file = std::fs::metadata(real_model()).expect("it is there").len();
    let worker = Worker::spawn(&real_model(), &[]);
    worker.ready().await;
    let most = file * 13 / 10 + BESIDE_BYTES_MAX;
    let peak = status_bytes(&worker, "VmHWM:");
    assert!(peak <= most, "loading {file} bytes took {peak} at its peak, expected {most} at most");
    let before = resident_bytes(&worker).await;
    let body = json!({"prompt": "one two three four ".repeat(80), "max_tokens": 2,
        "temperature": 0});
    worker.execute(&body).await;
    let (told, real) = (resident_bytes(&worker).await, status_bytes(&worker, "VmRSS:"));
    eprintln!("file {file}, peak {peak}, told {before}, then {told}, resident {real}");
    // 320 tokens of 22.5 KiB, and what a step of them works on.
    assert!(told >= before + 320 * 23_040, "keys and values count: {before}, then {told}");
    assert!(told <= real, "told {told}, but only {real} are resident");
    assert!(real <= told + BESIDE_BYTES_MAX, "told {told}, but {real} are resident");
}
