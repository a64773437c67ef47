//! Promise: a job can be asked how far it is, and read from where a reader stood, until it is forgotten.

use serde_json::{Value, json};

use crate::stream::{long_job, slow, until_token};
use crate::worker::{Worker, frames};

async fn state(worker: &Worker, job: &str) -> Value {
    let url = worker.url(&format!("/jobs/{job}"));
    let response = worker.client.get(url).send().await.expect("it answers");
    assert_eq!(response.status(), 200);
    response.json().await.expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_says_how_far_it_is() {
    let worker = slow(&[]).await;
    let mut running = worker.post("/execute", &long_job("running")).await;
    assert_eq!(running.headers()["x-job-id"], "running");
    until_token(&mut running).await;
    let found = state(&worker, "running").await;
    assert_eq!(found["state"], "running");
    assert!(found["tokens_out"].as_u64() > Some(0) && found.get("position").is_none(), "{found}");
    assert_eq!(worker.post("/cancel", &json!({"job_id": "running"})).await.status(), 202);
    let rest = frames(running).await;
    let found = state(&worker, "running").await;
    assert_eq!(
        (&found["state"], &found["error"]["code"]),
        (&json!("finished"), &json!("CANCELLED"))
    );
    assert_eq!(found["events"].to_string(), rest.last().expect("frames").id);
    let body = json!({"prompt": "a", "max_tokens": 3, "temperature": 0, "job_id": "done"});
    let done = worker.execute(&body).await;
    let found = state(&worker, "done").await;
    let end = &done.last().expect("frames").data;
    assert_eq!(found["end"]["stop_reason"], end["stop_reason"]);
    assert_eq!(found["tokens_out"], end["tokens_out"]);
    assert!(found.get("error").is_none(), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_says_where_it_stood_by_header_or_query() {
    let worker = Worker::tiny(&[]).await;
    let whole = worker.execute(&json!({"prompt": "a", "max_tokens": 9, "job_id": "r"})).await;
    let get = |query: &str, header: Option<&str>| {
        let request = worker.client.get(worker.url(&format!("/jobs/r/events{query}")));
        let request = match header {
            Some(id) => request.header("last-event-id", id),
            None => request,
        };
        request.send()
    };
    let first = |frames: Vec<crate::worker::Frame>| frames[0].id.clone();
    let by_query = get("?last_event_id=3", None).await.expect("it answers");
    assert_eq!(first(frames(by_query).await), "4");
    let both = get("?last_event_id=3", Some("5")).await.expect("it answers");
    assert_eq!(first(frames(both).await), "6", "the header is younger");
    let last = whole.len().to_string();
    for beyond in [last.as_str(), "4096", "9223372036854775807"] {
        let answer = get("", Some(beyond)).await.expect("it answers");
        assert_eq!(answer.status(), 204, "{beyond}");
    }
    for odd in ["x", "-1", "1.5", "+1", "9223372036854775808", " "] {
        let url = format!("?last_event_id={}", odd.trim());
        let status = get(&url, None).await.expect("it answers").status();
        assert_eq!(status, if odd == " " { 200 } else { 400 }, "{odd:?}");
        let status = get(&url, Some("5")).await.expect("it answers").status();
        assert_eq!(status, if odd == " " { 200 } else { 400 }, "{odd:?} beside a header");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_a_running_job_has_not_reached_is_refused() {
    let worker = slow(&[]).await;
    let mut running = worker.post("/execute", &long_job("j")).await;
    until_token(&mut running).await;
    let request = worker.client.get(worker.url("/jobs/j/events")).header("last-event-id", "999999");
    assert_eq!(request.send().await.expect("it answers").status(), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_waits_no_longer_than_it_may() {
    let worker = slow(&["--queue-timeout-ms", "1", "--slots", "1"]).await;
    let mut running = worker.post("/execute", &long_job("running")).await;
    until_token(&mut running).await; // at work: its own wait is over
    let waited = worker.execute(&long_job("waiting")).await;
    let last = &waited.last().expect("frames").data;
    assert_eq!((&last["type"], &last["code"]), (&json!("error"), &json!("TIMEOUT")));
    assert_eq!(state(&worker, "running").await["state"], "running");
}
