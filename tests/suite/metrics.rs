//! Promise: what the worker does can be counted from outside, by the names of the contract, at any
//! moment of its life.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::stream::{long_job, slow, until_token};
use crate::worker::Worker;

pub async fn scrape(worker: &Worker) -> String {
    let response = worker.client.get(worker.url("/metrics")).send().await.expect("it answers");
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    response.text().await.expect("a body")
}

/// The value of one series, by its name with labels as they are written.
pub fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series} is missing in\n{text}")).parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_is_counted_by_the_names_of_the_contract() {
    let worker = Worker::tiny(&[]).await;
    let before = scrape(&worker).await;
    assert_eq!(value(&before, "worker_requests_total{outcome=\"completed\"}"), 0.0);
    let body = json!({"prompt": "hi", "max_tokens": 7, "temperature": 0, "progress_every": 0});
    let frames = worker.execute(&body).await;
    let out = frames.last().expect("frames").data["tokens_out"].as_f64().expect("a number");
    assert_eq!(worker.post("/execute", &json!({})).await.status(), 400);
    let after = scrape(&worker).await;
    assert_eq!(value(&after, "worker_requests_total{outcome=\"completed\"}"), 1.0);
    assert_eq!(value(&after, "worker_requests_total{outcome=\"rejected\"}"), 1.0);
    assert_eq!(value(&after, "worker_tokens_generated_total"), out);
    assert!(value(&after, "worker_tokens_in_total") >= 1.0);
    assert_eq!(value(&after, "worker_inference_duration_ms_count"), 1.0);
    assert_eq!(value(&after, "worker_time_to_first_token_seconds_count"), 1.0);
    assert_eq!(value(&after, "worker_inter_token_seconds_count"), out - 1.0);
    assert_eq!(value(&after, "worker_queue_depth"), 0.0);
    assert_eq!(value(&after, "worker_active_jobs"), 0.0);
    assert!(value(&after, "worker_resident_bytes") > 0.0);
    assert!(value(&after, "worker_uptime_seconds") > 0.0);
    for sink in ["stdout", "sse"] {
        let series =
            format!("worker_narrations_total{{kind=\"inference-completed\",sink=\"{sink}\"}}");
        assert_eq!(value(&after, &series), 1.0);
        assert_eq!(value(&after, &format!("worker_narrations_lost_total{{sink=\"{sink}\"}}")), 0.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kv_cache_shows_whose_its_blocks_are() {
    let worker = slow(&["--slots", "2"]).await;
    let blocks = async |state: &str| {
        value(&scrape(&worker).await, &format!("worker_kv_blocks{{state=\"{state}\"}}"))
    };
    let (all, size) = (blocks("free").await, "worker_kv_block_tokens");
    let size = value(&scrape(&worker).await, size);
    assert!(all * size >= 4_096.0, "room for the context: {all} blocks of {size}");
    let prompt = "the bees hum on and on ".repeat(20); // 200 bytes or more: several blocks
    let mut body = long_job("j");
    body["prompt"] = json!(prompt);
    body["max_tokens"] = json!(3_000);
    let mut running = worker.post("/execute", &body).await;
    until_token(&mut running).await;
    assert!(blocks("held").await * size >= 200.0);
    assert_eq!(worker.post("/cancel", &json!({"job_id": "j"})).await.status(), 202);
    crate::worker::frames(running).await;
    while blocks("held").await > 0.0 {}
    let kept = blocks("kept").await;
    assert!(kept > 0.0 && kept + blocks("free").await == all, "{kept} of {all}");
    assert_eq!(value(&scrape(&worker).await, "worker_prefix_reused_tokens_total"), 0.0);
    let again = json!({"prompt": prompt, "max_tokens": 1});
    let frames = worker.execute(&again).await;
    let reset = frames.iter().find_map(|f| f.data["fact"]["cache-reset"].as_object());
    let reused = reset.expect("it is told")["reused_tokens"].as_f64().expect("a number");
    assert!(reused > 0.0);
    assert_eq!(value(&scrape(&worker).await, "worker_prefix_reused_tokens_total"), reused);
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_finds_nothing_but_the_name_that_the_contract_fixes() {
    if Command::new("promtool").arg("--version").output().is_err() {
        eprintln!("not checked: promtool is not installed (Debian's package `prometheus` has it)");
        return;
    }
    let worker = Worker::tiny(&[]).await;
    worker.execute(&json!({"prompt": "hi", "max_tokens": 3})).await;
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it was there just now");
    let text = scrape(&worker).await;
    let mut stdin = promtool.stdin.take().expect("it is piped");
    stdin.write_all(text.as_bytes()).expect("promtool reads");
    drop(stdin);
    let output = promtool.wait_with_output().expect("promtool ends");
    let found = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    for line in found.lines().filter(|line| !line.trim().is_empty()) {
        assert!(line.starts_with("worker_inference_duration_ms "), "{found}\n{text}");
    }
}
