//! Promise: OpenAI's clients work unchanged. Chunks are as they bear them, what is not supported is
//! refused by name, narration comes only to who asked, and a client that leaves ends its job.

use serde_json::{Value, json};

use crate::stream::slow;
use crate::worker::{Worker, kind};

const CHAT: &str = "/v1/chat/completions";

async fn model_of(worker: &Worker) -> String {
    let list = worker.client.get(worker.url("/v1/models")).send().await.expect("it answers");
    let list: Value = list.json().await.expect("JSON");
    assert_eq!(list["object"], "list");
    list["data"][0]["id"].as_str().expect("a name").to_owned()
}

fn chat(model: &str, more: Value) -> Value {
    let mut body = json!({"model": model, "messages": [{"role": "user", "content": "hum"}],
        "max_tokens": 12, "seed": 4});
    let more = more.as_object().expect("an object").clone();
    body.as_object_mut().expect("an object").extend(more);
    body
}

/// Forbids the tiny model's ends of text: those in a chat's own marks would be drawn to.
fn ends() -> Value {
    json!({"0": -100, "2": -100})
}

/// The chunks of a stream, which has to be as clients bear it, and ends with `[DONE]`.
async fn chunks(response: reqwest::Response) -> Vec<Value> {
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["cache-control"], "no-cache, no-transform");
    let text = response.text().await.expect("it does not break");
    let mut blocks: Vec<&str> = text.split_terminator("\n\n").collect();
    assert_eq!(blocks.pop(), Some("data: [DONE]"), "{text}");
    let read = |block: &&str| {
        let json = block.strip_prefix("data: ").unwrap_or_else(|| panic!("{block} in {text}"));
        assert!(!json.contains('\n'), "no id, event or retry: {json}");
        serde_json::from_str(json).expect("JSON")
    };
    blocks.iter().filter(|block| **block != ": ping").map(read).collect()
}

fn content(chunks: &[Value]) -> String {
    let texts = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
    texts.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_is_the_same_streamed_and_whole() {
    let worker = Worker::tiny(&[]).await;
    let model = model_of(&worker).await;
    let streamed = worker.post(CHAT, &chat(&model, json!({"stream": true}))).await;
    let job_id = streamed.headers()["x-job-id"].to_str().expect("ASCII").to_owned();
    let streamed = chunks(streamed).await;
    assert_eq!(streamed[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    for chunk in &streamed {
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!(chunk["model"], model.as_str());
        assert_eq!(chunk["id"], format!("chatcmpl-{job_id}"));
        assert_eq!(chunk["choices"][0]["index"], 0);
        assert!(chunk.get("usage").is_none() && chunk.get("narration").is_none(), "{chunk}");
    }
    let (last, before) = streamed.split_last().expect("chunks");
    assert!(before.iter().all(|chunk| chunk["choices"][0]["finish_reason"].is_null()));
    let reason = &last["choices"][0]["finish_reason"];
    assert!(*reason == "length" || *reason == "stop", "{last}");
    let whole = worker.post(CHAT, &chat(&model, json!({}))).await;
    assert_eq!(whole.status(), 200);
    let whole: Value = whole.json().await.expect("JSON");
    assert_eq!(whole["object"], "chat.completion");
    assert_eq!(whole["choices"][0]["message"]["role"], "assistant");
    assert_eq!(whole["choices"][0]["message"]["content"], content(&streamed));
    assert_eq!(whole["choices"][0]["finish_reason"], *reason);
    let tokens = |name: &str| whole["usage"][name].as_u64().expect("a number");
    assert_eq!(tokens("total_tokens"), tokens("prompt_tokens") + tokens("completion_tokens"));
    assert!(tokens("prompt_tokens") > 0 && whole.get("narration").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_comes_last_and_only_when_asked_for() {
    let worker = Worker::tiny(&[]).await;
    let model = model_of(&worker).await;
    let asked = json!({"stream": true, "stream_options": {"include_usage": true}});
    for (path, object) in [(CHAT, "chat.completion.chunk"), ("/v1/completions", "text_completion")]
    {
        let mut body = chat(&model, asked.clone());
        if path != CHAT {
            body.as_object_mut().expect("an object").remove("messages");
            body["prompt"] = json!("hum");
        }
        let chunks = chunks(worker.post(path, &body).await).await;
        let (last, before) = chunks.split_last().expect("chunks");
        assert_eq!((&last["object"], &last["choices"]), (&json!(object), &json!([])));
        assert!(last["usage"]["completion_tokens"].as_u64() > Some(0), "{last}");
        assert!(before.iter().all(|chunk| chunk.get("usage") == Some(&Value::Null)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completion_takes_a_prompt_and_sixteen_tokens_unless_told_otherwise() {
    let worker = Worker::tiny(&[]).await;
    let model = model_of(&worker).await;
    let body = json!({"model": model, "prompt": ["the bees"], "temperature": 0, "stream": true});
    let pieces = chunks(worker.post("/v1/completions", &body).await).await;
    let streamed: String =
        pieces.iter().filter_map(|chunk| chunk["choices"][0]["text"].as_str()).collect();
    let body = json!({"model": model, "prompt": "the bees", "temperature": 0});
    let whole: Value = worker.post("/v1/completions", &body).await.json().await.expect("JSON");
    assert_eq!(whole["choices"][0]["text"], streamed);
    assert!(whole["usage"]["completion_tokens"].as_u64() <= Some(16), "{whole}");
    assert!(whole["id"].as_str().expect("a string").starts_with("cmpl-"), "{whole}");
}

#[tokio::test(flavor = "multi_thread")]
async fn narration_rides_in_ordinary_chunks_where_it_was_asked_for() {
    let worker = Worker::tiny(&[]).await;
    let model = model_of(&worker).await;
    let asked = json!({"stream": true, "stream_options": {"include_narration": true}});
    let by_option = worker.post(CHAT, &chat(&model, asked)).await;
    let body = chat(&model, json!({"stream": true}));
    let by_header = worker.client.post(worker.url(CHAT)).header("x-narration", "sse").json(&body);
    let by_header = by_header.send().await.expect("it answers");
    for response in [by_option, by_header] {
        let chunks = chunks(response).await;
        let told: Vec<&Value> =
            chunks.iter().filter(|chunk| chunk.get("narration").is_some()).collect();
        let kinds: Vec<String> = told.iter().map(|chunk| kind(&chunk["narration"])).collect();
        assert_eq!(kinds[0], "request-accepted");
        assert!(kinds.iter().any(|kind| kind == "inference-completed"), "{kinds:?}");
        let empty = json!([{"index": 0, "delta": {}, "logprobs": null, "finish_reason": null}]);
        assert!(told.iter().all(|chunk| chunk["choices"] == empty));
    }
    let whole = worker.client.post(worker.url(CHAT)).header("x-narration", "sse");
    let whole = whole.json(&chat(&model, json!({}))).send().await.expect("it answers");
    let whole: Value = whole.json().await.expect("JSON");
    assert_eq!(kind(&whole["narration"][0]), "request-accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn chats_that_name_no_length_run_side_by_side() {
    // Memory for little more than one whole context, for four requests.
    let worker = slow(&["--slots", "4", "--kv-mib", "9"]).await;
    let model = model_of(&worker).await;
    let told = crate::metrics::scrape(&worker).await;
    let figure = |name: &str| crate::metrics::value(&told, name) as u64;
    let tokens = figure("worker_kv_blocks{state=\"free\"}") * figure("worker_kv_block_tokens");
    assert!((4_096..8_192).contains(&tokens), "{tokens}");
    let open = json!({"stream": true, "temperature": 0, "max_tokens": null,
        "repetition_penalty": 0.1, "logit_bias": ends()});
    let before = worker.told().len();
    let mut streams = Vec::new();
    for _ in 0..4 {
        streams.push(worker.post(CHAT, &chat(&model, open.clone())).await);
    }
    for stream in &streams {
        let job = stream.headers()["x-job-id"].to_str().expect("ASCII");
        worker.wait("it runs", |n| kind(n) == "inference-started" && n["job_id"] == job);
    }
    let told = worker.told().split_off(before);
    let fourth = told.iter().rposition(|n| kind(n) == "inference-started").expect("it is told");
    let ended = |n: &Value| matches!(&*kind(n), "inference-completed" | "inference-cancelled");
    assert!(!told[..fourth].iter().any(ended), "nobody has to end before another one begins");
    let started = told.iter().find(|n| kind(n) == "inference-started").expect("it is told");
    let started = &started["fact"]["inference-started"];
    let block = figure("worker_kv_block_tokens");
    let share = tokens / block / 4 * block - started["prompt_tokens"].as_u64().expect("a number");
    assert_eq!(started["max_tokens"], share, "a request's share of the memory");
    // Who names a number has it, whatever the share.
    let more = chat(&model, json!({"max_tokens": share + 500, "stream": true}));
    drop(streams);
    let response = worker.post(CHAT, &more).await;
    let job = response.headers()["x-job-id"].to_str().expect("ASCII").to_owned();
    let accepted =
        worker.wait("it", |n| kind(n) == "request-accepted" && n["job_id"] == job.as_str());
    assert_eq!(accepted["fact"]["request-accepted"]["max_tokens"], share + 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_supported_is_refused_by_name() {
    let worker = Worker::tiny(&[]).await;
    let model = model_of(&worker).await;
    for (name, value) in [
        ("n", json!(2)),
        ("tools", json!([{"type": "function", "function": {"name": "f"}}])),
        ("frequency_penalty", json!(0.5)),
        ("audio", json!({"voice": "alloy", "format": "mp3"})),
        ("store", json!(true)),
        ("surprise", json!(1)),
        ("max_tokens", json!(0)),
        ("seed", json!(0.5)),
        ("stop", json!(["a", "b", "c", "d", "e"])),
        ("stream_options", json!({"include_usage": true})),
        ("metadata", json!({"a": 1})),
    ] {
        let response = worker.post(CHAT, &chat(&model, json!({ name: value }))).await;
        assert_eq!(response.status(), 400, "{name}");
        let answer: Value = response.json().await.expect("JSON");
        assert_eq!(answer["error"]["param"], name, "{answer}");
        assert_eq!(answer["error"]["type"], "invalid_request_error");
    }
    let harmless = json!({"n": 1, "tools": [], "user": "u", "store": false, "stop": null,
        "metadata": {"a": "b"}, "presence_penalty": 0.0, "response_format": {"type": "text"},
        "max_tokens": null, "max_completion_tokens": 3, "seed": -1, "service_tier": "auto"});
    let response = worker.post(CHAT, &chat(&model, harmless)).await;
    assert_eq!(response.status(), 200, "{}", response.text().await.expect("a body"));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_before_the_stream_have_openais_shape() {
    let worker = Worker::tiny(&["--model-alias", "bee,queen"]).await;
    let model = model_of(&worker).await;
    let response = worker.post(CHAT, &chat("gpt-4o", json!({}))).await;
    assert_eq!(response.status(), 404);
    let answer: Value = response.json().await.expect("JSON");
    assert_eq!(answer["error"]["code"], "model_not_found");
    assert!(answer["error"]["message"].as_str().expect("a string").contains(&model), "{answer}");
    let alias = worker.post(CHAT, &chat("queen", json!({"stream": true}))).await;
    assert_eq!(chunks(alias).await[0]["model"], model.as_str());
    let long = "hum ".repeat(600);
    let message = json!([{"role": "user", "content": [{"type": "text", "text": long}]}]);
    let body = json!({"model": "bee", "messages": message, "stream": true});
    let response = worker.post(CHAT, &body).await;
    assert_eq!(response.status(), 400);
    let answer: Value = response.json().await.expect("JSON");
    assert_eq!(answer["error"]["code"], "context_length_exceeded");
    let message = answer["error"]["message"].as_str().expect("a string");
    assert!(message.contains("512") && message.contains("tokens"), "{message}");
    let wrong = worker.client.get(worker.url("/v1/nothing")).send().await.expect("it answers");
    assert_eq!(wrong.status(), 404);
    let answer: Value = wrong.json().await.expect("JSON");
    assert_eq!(answer["error"]["type"], "invalid_request_error", "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_in_the_middle_is_told_and_done() {
    let worker = slow(&[]).await;
    let model = model_of(&worker).await;
    let body = chat(
        &model,
        json!({"stream": true, "max_tokens": 4000, "temperature": 0,
        "repetition_penalty": 0.1, "logit_bias": ends()}),
    );
    let response = worker.post(CHAT, &body).await;
    let job_id = response.headers()["x-job-id"].to_str().expect("ASCII").to_owned();
    assert_eq!(worker.post("/cancel", &json!({ "job_id": job_id })).await.status(), 202);
    let chunks = chunks(response).await;
    let last = chunks.last().expect("chunks");
    assert_eq!(last["error"]["code"], "CANCELLED");
    assert!(last["error"]["message"].is_string() && last["error"]["type"].is_string());
    let reason = |chunk: &&Value| !chunk["choices"][0]["finish_reason"].is_null();
    assert_eq!(chunks.iter().filter(reason).count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_ends_its_job_streamed_or_not() {
    let worker = slow(&[]).await;
    let model = model_of(&worker).await;
    for stream in [false, true] {
        let body = chat(
            &model,
            json!({"stream": stream, "max_tokens": 4000, "temperature": 0,
            "repetition_penalty": 0.1, "logit_bias": ends()}),
        );
        let request = worker.client.post(worker.url(CHAT)).json(&body).send();
        let before = worker.told().len();
        let task = tokio::spawn(request);
        worker.wait_after(before, "it runs", |n| kind(n) == "inference-started");
        task.abort();
        drop(task.await);
        let ended = worker.wait_after(before, "its end", |n| kind(n) == "inference-cancelled");
        assert_eq!(ended["fact"]["inference-cancelled"]["by"], "disconnect");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn log_probabilities_are_told_where_they_were_asked_for() {
    let worker = Worker::tiny(&[]).await;
    let model = model_of(&worker).await;
    let asked = json!({"logprobs": true, "top_logprobs": 3, "temperature": 0});
    let whole = worker.post(CHAT, &chat(&model, asked.clone())).await;
    let whole: Value = whole.json().await.expect("JSON");
    let told = whole["choices"][0]["logprobs"]["content"].as_array().expect("a list");
    assert_eq!(whole["usage"]["completion_tokens"], told.len());
    for token in told {
        let top = token["top_logprobs"].as_array().expect("a list");
        assert_eq!((top.len(), &top[0]["logprob"]), (3, &token["logprob"]), "greedy: {token}");
        assert!(token["logprob"].as_f64() <= Some(0.0) && token["bytes"].is_array());
    }
    let mut streamed = chat(&model, asked);
    streamed["stream"] = json!(true);
    let chunks = chunks(worker.post(CHAT, &streamed).await).await;
    let parts = chunks.iter().filter_map(|c| c["choices"][0]["logprobs"]["content"].as_array());
    assert_eq!(parts.flatten().collect::<Vec<_>>(), told.iter().collect::<Vec<_>>());
    let body = json!({"model": model, "prompt": "hum", "logprobs": 2, "max_tokens": 5});
    let text: Value = worker.post("/v1/completions", &body).await.json().await.expect("JSON");
    let told = &text["choices"][0]["logprobs"];
    let count = told["tokens"].as_array().map(Vec::len);
    assert!(count > Some(0), "{text}");
    for list in ["token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(told[list].as_array().map(Vec::len), count, "{list}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bias_and_a_schema_act_and_what_is_wrong_with_them_is_said() {
    let worker = Worker::tiny(&[]).await;
    let model = model_of(&worker).await;
    let answer = async |more: Value| -> Value {
        let response = worker.post(CHAT, &chat(&model, more)).await;
        response.json().await.expect("JSON")
    };
    let biased = answer(json!({"logit_bias": {"70": 100}, "logprobs": true})).await;
    let told = biased["choices"][0]["logprobs"]["content"].as_array().expect("a list");
    assert!(told.iter().all(|token| token["bytes"] == told[0]["bytes"]), "{biased}");
    let schema = json!({"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}},
        "required": ["colour"], "additionalProperties": false});
    let format = json!({"type": "json_schema", "json_schema": {"name": "c", "schema": schema}});
    let held = answer(json!({"response_format": format, "max_tokens": 200})).await;
    let text = held["choices"][0]["message"]["content"].as_str().expect("a string");
    let read: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {held}"));
    assert!(read["colour"] == "red" || read["colour"] == "blue", "{read}");
    assert_eq!(held["choices"][0]["finish_reason"], "stop");
    for (more, param) in [
        (json!({"logit_bias": {"70": 101}}), "logit_bias"),
        (json!({"logit_bias": {"seventy": 1}}), "logit_bias"),
        (json!({"logit_bias": {"4000000000": 1}}), "logit_bias"),
        (json!({"top_logprobs": 2}), "top_logprobs"),
        (json!({"logprobs": true, "top_logprobs": 21}), "top_logprobs"),
        (json!({"response_format": {"type": "xml"}}), "response_format.type"),
        (json!({"response_format": {"type": "json_schema"}}), "response_format.json_schema"),
        (
            json!({"response_format": {"type": "json_schema",
                "json_schema": {"name": "c", "schema": {"type": "surprise"}}}}),
            "response_format",
        ),
    ] {
        assert_eq!(answer(more.clone()).await["error"]["param"], param, "{more}");
    }
}
