//! Promise: a stream is `started`, then what happens as it happens, then exactly one `end` or `error`;
//! every parameter acts; a job can be ended, resumed and replayed.

use serde_json::{Value, json};

use crate::gguf::{TinyOptions, tiny_llama_with};
use crate::worker::{Frame, Worker, frames, kind, take_frames, text};

fn last(frames: &[Frame]) -> &Frame {
    frames.last().expect("a stream has frames")
}

/// A worker whose model takes its time: many layers, and a context that nobody fills in a moment.
pub async fn slow(arguments: &[&str]) -> Worker {
    let options = TinyOptions { seed: 7, layers: 12, context_length: 4_096, ..Default::default() };
    Worker::with_model(&tiny_llama_with(&options), arguments).await
}

/// A request that is still running when somebody ends it. Greedy, and drawn to what it has said
/// before, so that no end of text can end it first.
pub fn long_job(job_id: &str) -> Value {
    json!({"prompt": "on and on", "max_tokens": 4_000, "temperature": 0,
        "repetition_penalty": 0.1, "job_id": job_id})
}

/// The first frames of a stream, up to the first token.
pub async fn until_token(response: &mut reqwest::Response) -> Vec<Frame> {
    let (mut text, mut frames) = (Vec::new(), Vec::new());
    while !frames.iter().any(|frame: &Frame| frame.event == "token") {
        let bytes = response.chunk().await.expect("it does not break").expect("it goes on");
        text.extend_from_slice(&bytes);
        take_frames(&mut text, &mut frames);
    }
    frames
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_are_numbered_and_end_once() {
    let worker = Worker::tiny(&[]).await;
    let frames = worker.execute(&json!({"prompt": "hi", "max_tokens": 8})).await;
    let ids: Vec<String> = frames.iter().map(|frame| frame.id.clone()).collect();
    assert_eq!(ids, (1..=ids.len()).map(|n| n.to_string()).collect::<Vec<_>>());
    for frame in &frames {
        assert_eq!(frame.data["type"], frame.event.as_str());
    }
    let terminal = frames.iter().filter(|f| f.event == "end" || f.event == "error").count();
    assert_eq!((terminal, last(&frames).event.as_str()), (1, "end"));
    assert_eq!(frames[0].event, "started");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_seed_gives_the_same_text_and_another_does_not() {
    let worker = Worker::tiny(&[]).await;
    let ask = |seed: u64| json!({"prompt": "the bees", "max_tokens": 40, "seed": seed, "temperature": 1.5});
    let once = text(&worker.execute(&ask(5)).await);
    let again = text(&worker.execute(&ask(5)).await);
    let other = text(&worker.execute(&ask(6)).await);
    assert_eq!(once, again);
    assert_ne!(once, other);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drawn_seed_is_told_and_repeats_its_text() {
    let worker = Worker::tiny(&[]).await;
    let first = worker.execute(&json!({"prompt": "buzz", "max_tokens": 30})).await;
    let seed = first[0].data["seed"].as_u64().expect("the seed is told");
    let body = json!({"prompt": "buzz", "max_tokens": 30, "seed": seed});
    assert_eq!(text(&first), text(&worker.execute(&body).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn sampling_parameters_act() {
    let worker = Worker::tiny(&[]).await;
    let base = json!({"prompt": "the bees", "max_tokens": 40, "seed": 1, "temperature": 2.0});
    let free = text(&worker.execute(&base).await);
    let greedy = text(&worker.execute(&with(&base, "temperature", json!(0))).await);
    assert_ne!(free, greedy);
    for (name, value) in [("top_k", json!(1)), ("top_p", json!(0)), ("min_p", json!(1))] {
        let narrowed = text(&worker.execute(&with(&base, name, value)).await);
        assert_eq!(narrowed, greedy, "{name} leaves only the likeliest token");
    }
    let greedy_base = with(&base, "temperature", json!(0));
    let penalised = worker.execute(&with(&greedy_base, "repetition_penalty", json!(2))).await;
    assert_ne!(text(&penalised), greedy);
}

fn with(base: &Value, name: &str, value: Value) -> Value {
    let mut body = base.clone();
    body[name] = value;
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_string_ends_the_text_and_no_part_of_it_is_sent() {
    let worker = Worker::tiny(&[]).await;
    let base = json!({"prompt": "the bees", "max_tokens": 60, "seed": 3, "temperature": 1.2});
    let whole = text(&worker.execute(&base).await);
    let letters: Vec<char> = whole.chars().collect();
    let middle = letters.len() / 2;
    let stop: String = letters[middle..middle + 3].iter().collect();
    let expected = whole.split(&stop).next().expect("split gives one").to_owned();
    let frames = worker.execute(&with(&base, "stop", json!([stop]))).await;
    assert_eq!(text(&frames), expected);
    assert_eq!(last(&frames).data["stop_reason"], "STOP_SEQUENCE");
    assert_eq!(last(&frames).data["stop_sequence_matched"], stop);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_ends_a_job_and_may_be_said_twice() {
    let worker = slow(&[]).await;
    let mut response = worker.post("/execute", &long_job("j")).await;
    until_token(&mut response).await;
    for _ in 0..2 {
        assert_eq!(worker.post("/cancel", &json!({"job_id": "j"})).await.status(), 202);
    }
    let cancelled = worker.fact("inference-cancelled");
    assert_eq!(cancelled["fact"]["inference-cancelled"]["by"], "client");
    let events = worker.client.get(worker.url("/jobs/j/events")).send().await.expect("it answers");
    let frames = frames(events).await;
    assert_eq!(last(&frames).data["code"], "CANCELLED");
    assert_eq!(worker.post("/cancel", &json!({"job_id": "never"})).await.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_leaves_ends_its_job_unless_told_otherwise() {
    let worker = slow(&[]).await;
    let mut response = worker.post("/execute", &long_job("left")).await;
    until_token(&mut response).await;
    drop(response);
    let cancelled = worker.fact("inference-cancelled");
    assert_eq!(cancelled["fact"]["inference-cancelled"]["by"], "disconnect");
    let body = json!({"prompt": "on", "max_tokens": 30, "temperature": 0, "job_id": "stays",
            "on_disconnect": "continue"});
    drop(worker.post("/execute", &body).await);
    let done =
        worker.wait("its end", |n| n["job_id"] == "stays" && kind(n) == "inference-completed");
    assert!(done["fact"]["inference-completed"]["tokens_out"].as_u64() > Some(0), "{done}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_a_job() {
    let worker = slow(&[]).await;
    let frames = worker.execute(&with(&long_job("late"), "timeout_ms", json!(1))).await;
    assert_eq!(
        (last(&frames).event.as_str(), &last(&frames).data["code"]),
        ("error", &json!("TIMEOUT"))
    );
    assert_eq!(worker.fact("inference-cancelled")["fact"]["inference-cancelled"]["by"], "deadline");
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_jobs_are_told_their_place_and_a_full_queue_says_so() {
    let worker = slow(&["--queue", "1", "--slots", "1"]).await;
    let mut running = worker.post("/execute", &long_job("running")).await;
    until_token(&mut running).await;
    let waiting = worker.post("/execute", &long_job("waiting")).await;
    let queued =
        worker.wait("its place", |n| n["job_id"] == "waiting" && kind(n) == "request-queued");
    assert_eq!(queued["fact"]["request-queued"]["ahead"], 1);
    let twice = worker.post("/execute", &long_job("waiting")).await;
    assert_eq!(twice.status(), 409);
    let refused = worker.post("/execute", &long_job("refused")).await;
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    drop((running, waiting));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_can_be_resumed_and_replayed() {
    let worker = Worker::tiny(&[]).await;
    let whole = worker.execute(&json!({"prompt": "a", "max_tokens": 12, "job_id": "r"})).await;
    let get = |after: usize| {
        let request = worker.client.get(worker.url("/jobs/r/events"));
        request.header("last-event-id", after.to_string()).send()
    };
    for after in [0, 1, 5, whole.len() - 1] {
        let rest = frames(get(after).await.expect("it answers")).await;
        let ids: Vec<&str> = rest.iter().map(|frame| frame.id.as_str()).collect();
        let expected: Vec<&str> = whole[after..].iter().map(|frame| frame.id.as_str()).collect();
        assert_eq!(ids, expected);
    }
    assert_eq!(get(whole.len()).await.expect("it answers").status(), 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_what_runs_with_a_terminal_frame() {
    let worker = slow(&["--grace-ms", "1"]).await;
    let mut response = worker.post("/execute", &long_job("j")).await;
    until_token(&mut response).await;
    assert_eq!(worker.post("/shutdown", &json!({})).await.status(), 202);
    let rest = frames(response).await;
    assert_eq!(last(&rest).data["code"], "SHUTTING_DOWN");
    let (status, stderr, _) = worker.ended();
    assert_eq!(status.code(), Some(0), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_reader_keeps_a_job_alive() {
    let worker = Worker::tiny(&[]).await;
    let mut first = worker
        .post(
            "/execute",
            &json!({"prompt": "on", "max_tokens": 300, "temperature": 0, "job_id": "shared"}),
        )
        .await;
    until_token(&mut first).await;
    let second =
        worker.client.get(worker.url("/jobs/shared/events")).send().await.expect("it answers");
    drop(first);
    let rest = frames(second).await;
    assert_eq!(last(&rest).event, "end", "{:?}", last(&rest));
}
