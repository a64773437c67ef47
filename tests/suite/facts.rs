//! Promise: every one of the vocabulary's facts is told where it happens, in order, with its actor and
//! action, to the sinks it belongs to. (CUDA and Metal: see the tests of `engine::device`.)

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::worker::{Worker, kind};

fn check(narration: &Value, actor: &str, action: &str) {
    assert_eq!(narration["actor"], actor, "{narration}");
    assert_eq!(narration["action"], action, "{narration}");
    assert_eq!(narration["v"], 1);
    assert!(narration["human"].as_str().is_some_and(|text| !text.is_empty()), "{narration}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_workers_life_is_told_to_stdout_in_order() {
    let worker = Worker::tiny(&["--worker-id", "w-1"]).await;
    worker.signal("TERM");
    let (status, stderr, told) = worker.ended();
    assert_eq!(status.code(), Some(0), "{stderr}");
    let expected = [
        ("startup", "rbees-workerd", "startup"),
        ("server-started", "http-server", "server_start"),
        ("server-bound", "http-server", "server_bind"),
        ("cpu-ready", "device-manager", "device_init"),
        ("model-load-started", "model-loader", "model_load"),
        ("model-loaded", "model-loader", "model_load"),
        ("warmup-started", "candle-backend", "warmup"),
        ("warmup-completed", "candle-backend", "warmup"),
        ("server-shutdown", "http-server", "server_shutdown"),
    ];
    let life: Vec<&Value> =
        told.iter().filter(|n| expected.iter().any(|(wanted, ..)| kind(n) == *wanted)).collect();
    assert_eq!(life.len(), expected.len(), "{:?}", told.iter().map(kind).collect::<Vec<_>>());
    for (narration, (wanted, actor, action)) in life.into_iter().zip(expected) {
        assert_eq!(kind(narration), wanted);
        check(narration, actor, action);
        assert_eq!(narration["worker_id"], "w-1");
        assert!(narration.get("job_id").is_none(), "{narration}");
    }
    let sequences: Vec<u64> = told.iter().filter_map(|n| n["sequence"].as_u64()).collect();
    assert_eq!(sequences, (1..=sequences.len() as u64).collect::<Vec<_>>(), "a gap in the facts");
    let loaded = told.iter().find(|n| kind(n) == "model-loaded").expect("it was found above");
    let model = &loaded["fact"]["model-loaded"];
    assert_eq!(model["architecture"], "llama");
    assert_eq!(model["context_length"], 512);
    assert!(model["resident_bytes"].as_u64() >= Some(100_000), "{model}");
    let shutdown = told.last().expect("it was found above");
    assert_eq!(shutdown["fact"]["server-shutdown"]["cause"], "signal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requests_facts_reach_stdout_and_its_stream_in_order() {
    let worker = Worker::tiny(&[]).await;
    let body = json!({"prompt": "the bees are out and about in the wide field of summer flowers",
        "max_tokens": 6, "temperature": 0, "progress_every": 2, "job_id": "j.1"});
    let response = worker
        .client
        .post(worker.url("/execute"))
        .header("x-correlation-id", "c-42")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .json(&body)
        .send()
        .await
        .expect("it answers");
    assert_eq!(response.headers()["x-correlation-id"], "c-42");
    let frames = crate::worker::frames(response).await;
    let narrations: Vec<&Value> =
        frames.iter().filter(|f| f.event == "narration").map(|f| &f.data).collect();
    let kinds: Vec<String> = narrations.iter().map(|n| kind(n)).collect();
    assert_eq!(
        kinds[..4],
        ["request-accepted", "prompt-tokenized", "inference-started", "cache-reset"]
    );
    assert!(kinds.contains(&"prefill-progress".to_owned()), "{kinds:?}");
    let voices = [
        ("request-accepted", "http-server", "execute_request"),
        ("prompt-tokenized", "tokenizer", "tokenize"),
        ("inference-started", "candle-backend", "inference_start"),
        ("cache-reset", "candle-backend", "cache_reset"),
        ("prefill-progress", "candle-backend", "prefill"),
        ("tokens-generated", "candle-backend", "token_generate"),
        ("inference-completed", "candle-backend", "inference_complete"),
    ];
    for (wanted, actor, action) in voices {
        let narration = narrations.iter().find(|n| kind(n) == wanted);
        check(narration.unwrap_or_else(|| panic!("{wanted} not in {kinds:?}")), actor, action);
    }
    for narration in &narrations {
        assert_eq!(narration["correlation_id"], "c-42");
        assert_eq!(narration["trace_id"], "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(narration["job_id"], "j.1");
        let same = worker.wait("the same on stdout", |n| n["sequence"] == narration["sequence"]);
        let mut on_stream = (*narration).clone();
        on_stream.as_object_mut().expect("an object").remove("type");
        assert_eq!(same, on_stream, "stdout and stream tell the same");
    }
    let (first, last) = (&frames[0], &frames[frames.len() - 1]);
    assert_eq!((first.event.as_str(), last.event.as_str()), ("started", "end"));
    let done = narrations.iter().find(|n| kind(n) == "inference-completed").expect("checked above");
    let done = &done["fact"]["inference-completed"];
    assert_eq!(done["tokens_out"], last.data["tokens_out"]);
    assert_eq!(done["prompt_tokens"], narrations[2]["fact"]["inference-started"]["prompt_tokens"]);
    let before = frames.iter().position(|f| f.event == "token").expect("tokens came");
    let told = frames.iter().position(|f| f.event == "narration").expect("checked above");
    assert!(told < before, "the first narration comes before the first token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_is_told_and_its_narration_rides_in_the_answer() {
    let worker = Worker::tiny(&[]).await;
    let response = worker.post("/execute", &json!({"prompt": "a", "max_tokens": 0})).await;
    assert_eq!(response.status(), 400);
    let body: Value = response.json().await.expect("JSON");
    check(&body["narration"], "http-server", "error");
    let expected =
        json!({"status": 400, "violations": [{"field": "max_tokens", "constraint": "range"}]});
    assert_eq!(body["narration"]["fact"]["request-rejected"], expected);
    assert_eq!(worker.fact("request-rejected")["severity"], "warn");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_computation_is_told_and_the_worker_lives() {
    let mut model = crate::gguf::tiny_llama(7);
    // The last norm makes its input overflow, so that logits are no numbers.
    let ones = 1f32.to_le_bytes().repeat(64);
    let norm = model.windows(ones.len()).rposition(|w| w == ones).expect("the last norm");
    model[norm..norm + ones.len()].copy_from_slice(&f32::MAX.to_le_bytes().repeat(64));
    let worker = Worker::with_model(&model, &[]).await;
    let frames = worker.execute(&json!({"prompt": "hello there", "max_tokens": 3})).await;
    let last = &frames[frames.len() - 1];
    assert_eq!((last.event.as_str(), &last.data["code"]), ("error", &json!("INFERENCE_FAILED")));
    check(&worker.fact("inference-failed"), "candle-backend", "error");
    let health = worker.client.get(worker.url("/health")).send().await.expect("it lives");
    assert_eq!(health.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_told_and_ends_with_its_code() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("it is bound").port();
    let worker = Worker::spawn_on(port, "none.gguf".as_ref(), &[]);
    let (status, stderr, told) = worker.ended();
    assert_eq!(status.code(), Some(4), "{stderr}");
    assert!(stderr.contains("choose another --port"), "{stderr}");
    let failed = told.iter().find(|n| kind(n) == "bind-failed").expect("it is told");
    check(failed, "http-server", "error");
    assert_eq!(failed["fact"]["bind-failed"]["address"], format!("127.0.0.1:{port}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ready_call_is_made_and_told() {
    let manager = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/ready?key=hidden", manager.local_addr().expect("it is bound"));
    let heard = tokio::spawn(async move {
        let (mut stream, _) = manager.accept().await.expect("the worker calls");
        let mut request = Vec::new();
        while !request.ends_with(b"}") {
            let mut piece = [0; 1_024];
            let read = stream.read(&mut piece).await.expect("it can be read");
            request.extend_from_slice(&piece[..read]);
        }
        let answer = "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.expect("it can be answered");
        String::from_utf8(request).expect("UTF-8")
    });
    let worker = Worker::tiny(&["--callback-url", &url]).await;
    let request = heard.await.expect("the manager hears");
    let body = request.split("\r\n\r\n").nth(1).expect("a body");
    let ready: Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(ready["uri"], worker.url(""));
    assert_eq!(ready["device"], "cpu");
    check(&worker.fact("callback-attempted"), "rbees-workerd", "callback_ready");
    let announced = worker.fact("ready-announced");
    check(&announced, "rbees-workerd", "callback_ready");
    assert!(!announced.to_string().contains("hidden"), "{announced}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_never_answers_well_ends_the_worker() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/", closed.local_addr().expect("it is bound"));
    drop(closed);
    let worker = Worker::tiny(&["--callback-url", &url]).await;
    let (status, stderr, told) = worker.ended();
    assert_eq!(status.code(), Some(5), "{stderr}");
    assert_eq!(told.iter().filter(|n| kind(n) == "callback-attempted").count(), 5);
    let failed: Vec<&Value> = told.iter().filter(|n| kind(n) == "callback-failed").collect();
    assert_eq!(failed.len(), 5);
    assert!(failed[4]["fact"]["callback-failed"].get("retry_in_ms").is_none(), "{}", failed[4]);
    assert_eq!((&failed[0]["severity"], &failed[4]["severity"]), (&json!("warn"), &json!("error")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_is_taken_up_into_narrations_and_log_lines() {
    let worker = Worker::tiny(&["-v"]).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request = worker.client.post(worker.url("/execute"));
    let request = request.header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"));
    let body = json!({"prompt": "a", "max_tokens": 1});
    let answer = request.json(&body).send().await.expect("it answers");
    assert_eq!(answer.status(), 200);
    crate::worker::frames(answer).await; // who leaves ends the job
    assert_eq!(worker.fact("inference-completed")["trace_id"], trace);
    worker.signal("TERM");
    let (_, stderr, _) = worker.ended();
    assert!(stderr.lines().any(|line| line.contains(trace)), "{stderr}");
}
