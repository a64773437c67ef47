//! Promise: a tiny model of fixed weights writes the very bytes that are written here, greedy and drawn
//! with a seed, whatever instructions the processor has. Another text means that something changed in
//! tokenizer, decoder, sampler or the way out.

use serde_json::{Value, json};

use crate::gguf::tiny_llama;
use crate::worker::{Worker, text};

const GREEDY: &str = "d\u{604}3\u{15}\u{fffd}\u{fffd}\u{fffd}g\u{fffd}\u{fffd}W\
    \u{fffd}\u{fffd}\u{fffd}3f\u{fffd}\u{fffd}s\u{fffd}z\u{fffd}";
const DRAWN: &str = "d\u{604}~\u{fffd}`d\u{fffd}*+ tE\u{fffd} \
    atR\u{8}C&er\u{fffd}\u{7}\u{fffd}\u{fffd}";
const STRICT: &str = "d\u{fffd}\u{1c4}3\u{18}\\\u{17}G\u{fffd}a\u{fffd}\
    \u{fffd}ll\u{15}\u{fffd}\u{fffd}\u{fffd}'\u{fffd}\u{fffd}[\u{1f8}";

async fn written(worker: &Worker, wish: Value) -> String {
    let mut body = json!({"prompt": "the thing, in 2024", "max_tokens": 24});
    for (key, value) in wish.as_object().expect("an object") {
        body[key] = value.clone();
    }
    let frames = worker.execute(&body).await;
    assert_eq!(frames.last().expect("frames").event, "end");
    text(&frames)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_model_writes_the_same_bytes_for_ever() {
    let worker = Worker::with_model(&tiny_llama(7), &[]).await;
    assert_eq!(written(&worker, json!({"temperature": 0})).await, GREEDY);
    let drawn = json!({"temperature": 0.8, "top_p": 0.9, "seed": 11});
    assert_eq!(written(&worker, drawn).await, DRAWN);
    let strict = json!({"temperature": 1.1, "top_k": 5, "min_p": 0.05, "seed": 12,
        "repetition_penalty": 1.3});
    assert_eq!(written(&worker, strict).await, STRICT);
}
