//! Promise: a client may go wherever its job stands and however it goes: in order, cut off, deaf, or
//! without a word. Its job is ended or goes on as its request asked, its place is free, and whoever
//! stays is told that the worker lives.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::metrics::{scrape, value};
use crate::stream::{long_job, slow, until_token};
use crate::worker::{BINARY, Worker, folder, frames, kind, take_frames};

/// How a client leaves.
#[derive(Clone, Copy, Debug)]
enum Way {
    Closed,
    Cut,
}

/// What it had asked for.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Own,
    Chunks,
    Whole,
}

/// Where its job stands.
#[derive(Clone, Copy, Debug)]
enum Place {
    Queue,
    Prefill,
    Decode,
}

/// Sends a request and leaves the answer unread; `buffer` is what the system may take in for it.
async fn send(
    worker: &Worker,
    path: &str,
    body: &Value,
    id: &str,
    buffer: Option<u32>,
) -> TcpStream {
    let address = worker.url("").trim_start_matches("http://").parse().expect("an address");
    let socket = TcpSocket::new_v4().expect("a socket");
    if let Some(bytes) = buffer {
        socket.set_recv_buffer_size(bytes).expect("it can be set");
    }
    let mut stream = socket.connect(address).await.expect("the worker listens");
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         X-Correlation-Id: {id}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("it reads");
    stream
}

async fn leave(stream: TcpStream, way: Way) {
    if matches!(way, Way::Cut) {
        #[expect(deprecated, reason = "a linger of 0 blocks nothing: it cuts off")]
        stream.set_linger(Some(Duration::ZERO)).expect("it can be set");
    }
    drop(stream);
}

/// A request that runs for long, with a prompt that nobody has sent before.
fn request(asked: Asked, model: &str, prompt: &str, tokens: u32) -> (&'static str, Value) {
    let mut body = json!({"prompt": prompt, "max_tokens": tokens, "temperature": 0,
        "repetition_penalty": 0.1});
    if matches!(asked, Asked::Own) {
        return ("/execute", body);
    }
    body["model"] = json!(model);
    body["stream"] = json!(matches!(asked, Asked::Chunks));
    body["logit_bias"] = json!({"0": -100, "2": -100}); // no end of text
    ("/v1/completions", body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_frees_its_place_wherever_its_job_stands() {
    let worker = slow(&["--slots", "1"]).await;
    let health = worker.client.get(worker.url("/health")).send().await.expect("it answers");
    let health: Value = health.json().await.expect("JSON");
    let model = health["model"].as_str().expect("a name").to_owned();
    let (mut number, mut in_prefill) = (0, 0);
    for place in [Place::Queue, Place::Prefill, Place::Decode] {
        for asked in [Asked::Own, Asked::Chunks, Asked::Whole] {
            for way in [Way::Closed, Way::Cut] {
                number += 1;
                let (case, first) = (format!("case-{number}"), format!("first-{number}"));
                let mut running = None;
                if matches!(place, Place::Queue) {
                    let mut response = worker.post("/execute", &long_job(&first)).await;
                    until_token(&mut response).await;
                    running = Some(response);
                }
                let (prompt, tokens, sign) = match place {
                    Place::Queue => (case.clone(), 400, "request-queued"),
                    Place::Prefill => {
                        (format!("{case} {}", "qzx ".repeat(750)), 600, "prefill-progress")
                    }
                    Place::Decode => (case.clone(), 3_900, "tokens-generated"),
                };
                let (path, body) = request(asked, &model, &prompt, tokens);
                let stream = send(&worker, path, &body, &case, None).await;
                worker.wait(&format!("{sign} of {asked:?}"), |n| {
                    n["correlation_id"] == case.as_str() && kind(n) == sign
                });
                leave(stream, way).await;
                let what = format!("the end of {asked:?} in {place:?}, left by {way:?}");
                let ended = worker.wait(&what, |n| {
                    n["correlation_id"] == case.as_str() && kind(n).starts_with("inference-c")
                });
                let ended = &ended["fact"]["inference-cancelled"];
                assert_eq!(ended["by"], "disconnect", "{what}");
                match place {
                    Place::Queue => assert_eq!(ended["tokens_out"], 0, "{what}"),
                    Place::Prefill => in_prefill += usize::from(ended["tokens_out"] == 0),
                    Place::Decode => assert!(ended["tokens_out"].as_u64() >= Some(10), "{what}"),
                }
                if let Some(running) = running {
                    worker.post("/cancel", &json!({ "job_id": first })).await;
                    let last = frames(running).await;
                    assert_eq!(last.last().expect("frames").data["code"], "CANCELLED", "{what}");
                }
            }
        }
    }
    assert!(in_prefill > 0, "none was left before its first token");
    let done = worker.execute(&json!({"prompt": "a", "max_tokens": 2})).await;
    assert_eq!(done.last().expect("frames").event, "end");
    while value(&scrape(&worker).await, "worker_active_jobs") > 0.0 {}
    let told = scrape(&worker).await;
    assert_eq!(value(&told, "worker_kv_blocks{state=\"held\"}"), 0.0, "memory leaks");
    assert_eq!(value(&told, "worker_queue_depth"), 0.0);
    assert_eq!(value(&told, "worker_requests_total{outcome=\"cancelled\"}"), 18.0 + 6.0);
}

/// Whether the worker still holds its end of a connection open.
fn is_open(worker: &Worker, stream: &TcpStream) -> bool {
    let port = |address: std::io::Result<std::net::SocketAddr>| address.expect("bound").port();
    let (theirs, ours) = (port(stream.peer_addr()), port(stream.local_addr()));
    let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", worker.pid()));
    table.expect("it runs").lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let ends = |field: Option<&str>, port: u16| {
            field.is_some_and(|field| field.ends_with(&format!(":{port:04X}")))
        };
        ends(fields.next(), theirs) && ends(fields.next(), ours) && fields.next() == Some("01")
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_nothing_is_let_go_and_its_job_does_as_it_asked() {
    let worker = slow(&["--slots", "1", "--reader-stall-ms", "1000"]).await;
    // The first one runs for longer than anybody waits for its reader, however fast the machine is.
    for (id, on_disconnect, tokens) in [("deaf-1", "cancel", 3_900), ("deaf-2", "continue", 300)] {
        // A narration with each token fills whatever holds an answer that nobody reads.
        let body = json!({"prompt": id, "job_id": id, "max_tokens": tokens, "temperature": 0,
            "repetition_penalty": 0.1, "progress_every": 1, "on_disconnect": on_disconnect});
        let mut stream = send(&worker, "/execute", &body, id, Some(4_096)).await;
        worker.wait("it runs", |n| n["job_id"] == id && kind(n) == "inference-started");
        while is_open(&worker, &stream) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let ended =
            worker.wait("its end", |n| n["job_id"] == id && kind(n).starts_with("inference-c"));
        let log = worker.client.get(worker.url(&format!("/jobs/{id}/events"))).send().await;
        let log = frames(log.expect("it answers")).await;
        let last = log.last().expect("frames");
        if on_disconnect == "cancel" {
            assert_eq!(ended["fact"]["inference-cancelled"]["by"], "disconnect");
            assert_eq!(last.data["code"], "CANCELLED");
        } else {
            assert_eq!(kind(&ended), "inference-completed");
            assert_eq!(last.data["tokens_out"], tokens, "{last:?}");
        }
        // What the system had taken in for it is not the whole.
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(!String::from_utf8_lossy(&rest).contains("\nevent: end"), "{}", rest.len());
        let done = worker.execute(&json!({"prompt": "a", "max_tokens": 2})).await;
        assert_eq!(done.last().expect("frames").event, "end", "the slot is free");
    }
}

/// The worker and its clients in a network of their own, whose only link goes down.
const ISLAND: &str = r#"
ip link set lo up || exit 1
"$0" serve --port 8080 --slots 1 --reader-stall-ms 1000 --keep-alive-ms 100 --exit-with-parent \
    --model "$1/tiny.gguf" &
ask() { curl -sN --max-time 100 -o /dev/null "http://127.0.0.1:8080$1" \
    -H 'content-type: application/json' -H "x-correlation-id: $2" -d "$3" & }
until curl -sf --max-time 5 -o /dev/null http://127.0.0.1:8080/ready; do sleep 0.05; done
long='"max_tokens": 4000, "temperature": 0, "repetition_penalty": 0.1'
ask /execute decodes "{\"prompt\": \"a\", $long}"
until [ -e "$1/decodes" ]; do sleep 0.05; done
ask /execute waits "{\"prompt\": \"a\", $long}"
ask /v1/completions unstreamed "{\"model\": \"any\", \"prompt\": \"a\", $long}"
until [ -e "$1/all" ]; do sleep 0.05; done
ip link set lo down
wait
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_vanishes_without_a_word_is_noticed() {
    let island = || Command::new("unshare");
    let can = island().args(["-rn", "ip", "link", "set", "lo", "up"]).output();
    if !can.is_ok_and(|output| output.status.success()) {
        eprintln!("not checked: this system lets nobody make a network of his own");
        return;
    }
    let folder = folder();
    let options = crate::gguf::TinyOptions {
        seed: 7,
        layers: 12,
        context_length: 4_096,
        ..Default::default()
    };
    let model = crate::gguf::tiny_llama_with(&options);
    std::fs::write(folder.join("tiny.gguf"), model).expect("a temporary file");
    let mut command = island();
    command.args(["-rn", "--fork", "--kill-child", "sh", "-c", ISLAND, BINARY]).arg(&folder);
    command.env("RBEES_MODEL_ALIAS", "any");
    let worker = Worker::run(&mut command);
    let is = |n: &Value, id: &str, wanted: &str| n["correlation_id"] == id && kind(n) == wanted;
    worker.wait("a first request runs", |n| is(n, "decodes", "tokens-generated"));
    std::fs::write(folder.join("decodes"), "").expect("a sign");
    for id in ["waits", "unstreamed"] {
        worker.wait(id, |n| is(n, id, "request-queued"));
    }
    std::fs::write(folder.join("all"), "").expect("a sign");
    for id in ["decodes", "waits", "unstreamed"] {
        let ended = worker.wait(&format!("the end of {id}"), |n| {
            n["correlation_id"] == id && kind(n).starts_with("inference-c")
        });
        assert_eq!(ended["fact"]["inference-cancelled"]["by"], "disconnect", "{id}: {ended}");
    }
    drop(worker);
    std::fs::remove_dir_all(&folder).expect("it was made above");
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_broken_by_a_sign_of_life_on_both_kinds_of_stream() {
    let worker = slow(&["--slots", "1", "--keep-alive-ms", "100", "--model-alias", "any"]).await;
    let mut running = worker.post("/execute", &long_job("running")).await;
    until_token(&mut running).await;
    let (asked, chunks) = (
        json!({"prompt": "a", "max_tokens": 3, "temperature": 0}),
        json!({"model": "any", "prompt": "a", "max_tokens": 3, "temperature": 0, "stream": true}),
    );
    for (path, body, ping) in [
        ("/execute", &asked, "\n\n: ping\n: ping\n"),
        ("/v1/completions", &chunks, ": ping\n\n: ping\n\n"),
    ] {
        let mut waiting = worker.post(path, body).await;
        let mut text = Vec::new();
        while !String::from_utf8_lossy(&text).contains(ping) {
            let bytes = waiting.chunk().await.expect("it does not break").expect("it goes on");
            text.extend_from_slice(&bytes);
        }
        assert!(String::from_utf8_lossy(&text).starts_with("data: {"), "something came at once");
        let job = waiting.headers()["x-job-id"].to_str().expect("ASCII").to_owned();
        assert_eq!(worker.post("/cancel", &json!({ "job_id": job })).await.status(), 202);
        while let Some(bytes) = waiting.chunk().await.expect("it does not break") {
            text.extend_from_slice(&bytes);
        }
        if path == "/execute" {
            let mut frames = Vec::new();
            take_frames(&mut text, &mut frames);
            assert_eq!(frames.last().expect("frames").data["code"], "CANCELLED");
            assert!(text.is_empty(), "pings are no frames");
        } else {
            assert!(text.ends_with(b"data: [DONE]\n\n"));
        }
    }
}
