//! Promise: the default model answers sensibly, and its tokens arrive one by one as they are made.

use serde_json::json;

use crate::worker::{Worker, real_model, text};

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
