//! Promise: secrets that reach the worker by any way come out by none: not on stdout, on a stream, in an
//! answer to a fault, in metrics or in the log at its most talkative.

use std::process::Command;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::gguf::tiny_llama;
use crate::worker::{BINARY, Worker, folder};

/// A secret of its own for each way in, so that a leak says which way it came.
fn canary(way: &str) -> String {
    format!("sk-ant-{way}-4fK9wQz7TnB2mXc8RjL5vHs3")
}

/// A model file with a secret in its metadata: in a text that is never told, and in its name.
fn model() -> Vec<u8> {
    tiny_llama_named(&canary("metadata"))
}

fn tiny_llama_named(name: &str) -> Vec<u8> {
    let bytes = tiny_llama(7);
    let (old, key) = ("tiny llama", "general.name");
    let at = find(&bytes, key.as_bytes()) + key.len();
    let text = find(&bytes[at..], old.as_bytes()) + at;
    // The name's length is a u64 before it; the data behind the header is aligned to 32 bytes.
    assert_eq!(bytes[text - 8..text], (old.len() as u64).to_le_bytes());
    let name = format!("{name}{}", " ".repeat(42 - name.len()));
    let mut changed = bytes[..text - 8].to_vec();
    changed.extend_from_slice(&(name.len() as u64).to_le_bytes());
    changed.extend_from_slice(name.as_bytes());
    changed.extend_from_slice(&bytes[text + old.len()..]);
    changed
}

fn find(bytes: &[u8], wanted: &[u8]) -> usize {
    bytes.windows(wanted.len()).position(|window| window == wanted).expect("it is there")
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_come_out_nowhere() {
    let place = folder().join(canary("folder"));
    std::fs::create_dir_all(&place).expect("a temporary folder");
    let file = place.join(format!("{}.gguf", canary("file")));
    std::fs::write(&file, model()).expect("a temporary file");
    let manager = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let pool = manager.local_addr().expect("it is bound");
    let manager = tokio::spawn(async move {
        let (mut stream, _) = manager.accept().await.expect("the worker calls");
        let mut piece = [0; 4_096];
        let _ = stream.read(&mut piece).await.expect("it can be read");
        let answer = "HTTP/1.1 204 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.expect("it can be answered");
    });
    let mut command = Command::new(BINARY);
    command
        .args(["-vvv", "serve", "--port", "0", "--model"])
        .arg(&file)
        .args(["--callback-url", &format!("http://ada:{0}@{pool}/x?k={0}", canary("url"))])
        .args(["--heartbeat-s", "0"])
        .env("RBEES_API_TOKEN", canary("token"))
        .env("AWS_SECRET_ACCESS_KEY", canary("environment"));
    let worker = Worker::run(&mut command);
    let url = |path: &str| worker.url(path);
    let client = &worker.client;
    let token = format!("Bearer {}", canary("token"));
    let mut heard = String::new();

    // Refused for its token, its path, its body, its field and its value.
    let wrong = format!("Bearer {}", canary("wrong"));
    let refused = client.post(url("/execute")).header("authorization", &wrong).send();
    heard += &refused.await.expect("an answer").text().await.expect("text");
    for path in [format!("/{}", canary("path")), format!("/jobs/{}", canary("job"))] {
        let query = format!("{path}?token={}", canary("query"));
        let request = client.get(url(&query)).header("authorization", &token);
        let request = request.header("cookie", format!("session={}", canary("cookie")));
        heard += &request.send().await.expect("an answer").text().await.expect("text");
    }
    let bodies = [
        format!("{{\"prompt\": \"{}\", ", canary("broken")),
        json!({"prompt": canary("prompt"), "max_tokens": 1, "password": canary("value")})
            .to_string(),
        json!({"prompt": canary("prompt"), "max_tokens": canary("number")}).to_string(),
        json!({"prompt": "a", "max_tokens": 1, canary("field"): 1}).to_string(),
    ];
    for body in bodies {
        // The answer names an unknown field to the one who sent it; what is told of it does not.
        let named = body.contains("sk-ant-field");
        let request = client.post(url("/execute")).header("authorization", &token);
        let request = request.header("content-type", "application/json").body(body);
        let answer = request.send().await.expect("an answer").text().await.expect("text");
        if !named {
            heard += &answer;
            continue;
        }
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        heard += &answer["narration"].to_string();
    }
    for path in ["/metrics", "/filters"] {
        let request = client.get(url(path)).header("authorization", &token);
        heard += &request.send().await.expect("an answer").text().await.expect("text");
    }
    // A whole job, as soon as the model is there.
    worker.fact("ready-announced");
    manager.await.expect("it was called");
    let body = json!({"prompt": canary("prompt"), "max_tokens": 2, "temperature": 0});
    let request = client.post(url("/execute")).header("authorization", &token).json(&body);
    let stream = request.send().await.expect("an answer").text().await.expect("text");
    // `started` names the model as its file does; what is told of it is the filters' matter.
    heard.extend(stream.split("\n\n").filter(|frame| !frame.contains("event: started")));

    worker.signal("TERM");
    let (_, log, told) = worker.ended();
    assert!(log.contains("DEBUG") || log.contains("TRACE"), "the log is talkative");
    let told: String = told.iter().map(|narration| format!("{narration}\n")).collect();
    for (what, text) in [("an answer", &heard), ("stdout", &told), ("the log", &log)] {
        if let Some(at) = text.find("4fK9wQz7TnB2") {
            let around = at.saturating_sub(160)..(at + 60).min(text.len());
            panic!("{what} has a canary: {:?}", String::from_utf8_lossy(&text.as_bytes()[around]));
        }
    }
    std::fs::remove_dir_all(place.parent().expect("it has one")).expect("it was made above");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_models_name_is_one_safe_line_wherever_it_is_shown() {
    let hostile = tiny_llama_named("bee\x1b]0;t\x07\n\u{202e}x\u{2028}\u{9b}2Jy");
    let worker = Worker::with_model(&hostile, &[]).await;
    let body = json!({"prompt": "a", "max_tokens": 1});
    let mut shown = worker.post("/execute", &body).await.text().await.expect("text");
    for path in ["/health", "/ready", "/v1/models", "/metrics"] {
        let request = worker.client.get(worker.url(path)).send();
        shown += &request.await.expect("an answer").text().await.expect("text");
    }
    let told: String = worker.told().iter().map(|told| format!("{told}\n")).collect();
    for (what, text) in [("an answer", shown), ("stdout", told)] {
        assert!(text.contains("bee x y"), "{what} does not show it: {text}");
        let written = ["\\u001b", "\\u009b", "\\u202e", "\\u2028"];
        assert!(!written.iter().any(|mark| text.contains(mark)), "{what}: {text}");
        let raw = |c: char| (c.is_control() && c != '\n') || "\u{202e}\u{2028}".contains(c);
        assert!(!text.contains(raw), "{what}: {text:?}");
    }
}
