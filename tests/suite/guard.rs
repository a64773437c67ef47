//! Promise: whoever may not call gets nowhere, by no spelling of a path and no form of a header; what
//! is too large or too slow is cut off with its own status, and others are served meanwhile.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;

use crate::worker::{Worker, folder, kind};

const TOKEN: &str = "honey-42";

/// Every route with its method, and whether it needs no token.
const ROUTES: [(&str, &str, bool); 18] = [
    ("POST", "/execute", false),
    ("POST", "/cancel", false),
    ("POST", "/shutdown", false),
    ("GET", "/jobs/x", false),
    ("GET", "/jobs/x/events", false),
    ("GET", "/metrics", false),
    ("GET", "/filters", false),
    ("GET", "/v1/models", false),
    ("GET", "/v1/models/x", false),
    ("POST", "/v1/chat/completions", false),
    ("POST", "/v1/completions", false),
    ("GET", "/nowhere", false),
    ("GET", "/v1/nowhere", false),
    ("GET", "/health", true),
    ("GET", "/ready", true),
    ("GET", "/", true),
    ("GET", "/openapi.yaml", true),
    ("GET", "/docs/", true),
];

/// Sends raw bytes and reads the answer's head and what follows, until the worker closes or says enough.
fn raw(worker: &Worker, bytes: &[u8]) -> String {
    let mut stream = connect(worker);
    let _ = stream.write_all(bytes); // it may be closed before all is written
    answer(&mut stream)
}

fn connect(worker: &Worker) -> TcpStream {
    let address = worker.url("").trim_start_matches("http://").to_owned();
    let stream = TcpStream::connect(address).expect("the worker listens");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("it can be set");
    stream
}

/// What comes back until the connection is closed.
fn answer(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut piece) {
        text.extend_from_slice(&piece[..count]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn status(answer: &str) -> u16 {
    let code = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    code.and_then(|code| code.parse().ok()).unwrap_or(0)
}

fn request(method: &str, path: &str, headers: &str) -> Vec<u8> {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: 0\r\n{headers}\r\n"
    )
    .into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_route_opens_without_the_token_however_it_is_written() {
    let folder = folder();
    let file = folder.join("token");
    std::fs::write(&file, TOKEN).expect("a temporary file");
    let worker = Worker::tiny(&["--api-token-file", file.to_str().expect("UTF-8")]).await;
    let faults = [
        String::new(),
        "Authorization: \r\n".into(),
        "Authorization: Bearer\r\n".into(),
        "Authorization: Bearer \r\n".into(),
        "Authorization: Bearer honey-41\r\n".into(),
        "Authorization: Bearer honey-4\r\n".into(),
        "Authorization: Bearer honey-422\r\n".into(),
        "Authorization: Bearer HONEY-42\r\n".into(),
        format!("Authorization: Basic {TOKEN}\r\n"),
        format!("Authorization: {TOKEN}\r\n"),
        format!("Authorization: Bearer{TOKEN}\r\n"),
        format!("Authorization: Bearer \"{TOKEN}\"\r\n"),
        format!("Authorization: Bearer x\r\nAuthorization: Bearer {TOKEN}\r\n"),
        format!("Authorization: Bearer {TOKEN}, Bearer {TOKEN}\r\n"),
        format!("X-Api-Key: {TOKEN}\r\n"),
        format!("Cookie: token={TOKEN}\r\n"),
    ];
    for (method, path, open) in ROUTES {
        for fault in &faults {
            let found = status(&raw(&worker, &request(method, path, fault)));
            assert_eq!(found == 401, !open, "{method} {path} with {fault:?}: {found}");
        }
        let right = format!("Authorization: bearer  {TOKEN}\r\n");
        if path != "/shutdown" {
            let found = status(&raw(&worker, &request(method, path, &right)));
            assert!(found != 401 && found != 0, "{method} {path}: {found}");
        }
    }
    // Spellings that a proxy or router might take for an open path, or an open one for another.
    for path in [
        "//execute",
        "/./execute",
        "/health/../execute",
        "/docs/../execute",
        "/docs/..%2fexecute",
        "/health/",
        "/health%2f..%2fexecute",
        "/execute/",
        "/execute?/health",
        "/execute;/health",
        "/EXECUTE",
        "/%65xecute",
        "/execute%00/health",
        "/ready/../metrics",
        "/metrics#/health",
        "http://localhost/execute",
        "http://health/metrics",
        "/jobs/..%2f..%2fhealth",
    ] {
        for method in ["GET", "POST"] {
            let answer = raw(&worker, &request(method, path, ""));
            let found = status(&answer);
            let served = (200..300).contains(&found) && !path.starts_with("/docs/");
            assert!(!served && found != 0, "{method} {path}: {answer}");
        }
    }
    assert!(!worker.told().iter().any(|told| kind(told) == "request-accepted"));
    std::fs::remove_dir_all(&folder).expect("it was made above");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_cap_lets_its_own_size_through_and_no_more() {
    let worker = Worker::tiny(&[]).await;
    let body = |bytes: usize| {
        let filled = " ".repeat(bytes - 30);
        format!("{{\"prompt\":\"a\",\"max_tokens\":1}}{filled} ")
    };
    let post = |body: String| {
        let request = worker.client.post(worker.url("/execute"));
        request.header("content-type", "application/json").body(body).send()
    };
    let cap = 32_768 * 12 + 64 * 1024;
    let within = body(cap);
    assert_eq!(within.len(), cap);
    assert_eq!(post(within).await.expect("it answers").status(), 200);
    assert_eq!(post(body(cap + 1)).await.expect("it answers").status(), 413);
    // In chunks, without a length said before: read no further than the cap.
    let mut stream = connect(&worker);
    let head = "POST /execute HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
        Transfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("it reads");
    let mut sink = stream.try_clone().expect("a second handle");
    let writer = std::thread::spawn(move || {
        let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
        (0..1_024).take_while(|_| sink.write_all(&chunk).is_ok()).count()
    });
    assert_eq!(status(&answer(&mut stream)), 413);
    drop(stream);
    let sent = writer.join().expect("it writes until it can't");
    assert!(sent < 1_024, "all of a 64 MiB body was taken");
    let prompt = |chars: usize| json!({"prompt": "é".repeat(chars), "max_tokens": 1});
    let field = |found: serde_json::Value| found["errors"][0]["constraint"].clone();
    let over = worker.post("/execute", &prompt(32_769)).await;
    assert_eq!(over.status(), 400);
    assert_eq!(field(over.json().await.expect("JSON")), "length");
    let within = worker.post("/execute", &prompt(32_768)).await; // too long for this model alone
    assert_eq!(field(within.json().await.expect("JSON")), "context");
    for (bytes, expected) in [(8_192, 404), (8_193, 414), (70_000, 431)] {
        let path = format!("/jobs/{}", "a".repeat(bytes - 6));
        assert_eq!(status(&raw(&worker, &request("GET", &path, ""))), expected, "{bytes}");
    }
    let wide = format!("X-Wide: {}\r\n", "a".repeat(70_000));
    assert_eq!(status(&raw(&worker, &request("GET", "/health", &wide))), 431);
    let many: String = (0..100).map(|n| format!("X-{n}: a\r\n")).collect();
    assert_eq!(status(&raw(&worker, &request("GET", "/health", &many))), 431);
    // As many faults as a body can hold are counted, not all repeated.
    let faults: Vec<String> = (0..20_000).map(|n| format!("\"x{n}\":1")).collect();
    let answer = post(format!("{{{}}}", faults.join(","))).await.expect("it answers");
    assert_eq!(answer.status(), 400);
    let answer: serde_json::Value = answer.json().await.expect("JSON");
    let errors = answer["errors"].as_array().expect("a list");
    assert_eq!(errors.len(), 256);
    // Two fields are missing besides; 255 faults are named.
    assert_eq!(errors[255]["constraint"], format!("{} more", 20_002 - 255));
    assert_eq!(worker.post("/execute", &prompt(3)).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_slow_and_the_silent_are_cut_off_and_nobody_waits_for_them() {
    let worker = Worker::tiny(&[]).await;
    let silent: Vec<TcpStream> = (0..50).map(|_| connect(&worker)).collect();
    let headers: Vec<TcpStream> = (0..50)
        .map(|_| {
            let mut stream = connect(&worker);
            stream.write_all(b"GET /health HTTP/1.1\r\nHost: loc").expect("it reads");
            stream
        })
        .collect();
    let bodies: Vec<TcpStream> = (0..50)
        .map(|_| {
            let mut stream = connect(&worker);
            let head = "POST /execute HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\
                Content-Type: application/json\r\n\r\n{\"prompt";
            stream.write_all(head.as_bytes()).expect("it reads");
            stream
        })
        .collect();
    let done = worker.execute(&json!({"prompt": "honest", "max_tokens": 3})).await;
    assert_eq!(done.last().expect("frames").event, "end");
    for mut stream in bodies {
        assert_eq!(status(&answer(&mut stream)), 408);
    }
    for mut stream in silent.into_iter().chain(headers) {
        let text = answer(&mut stream); // ends: the read times out later than the worker does
        assert!(text.is_empty() || status(&text) == 408, "{text}");
        assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)), "it is closed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_two_readers_may_cut_differently_are_refused() {
    let worker = Worker::tiny(&[]).await;
    let json = "Content-Type: application/json\r\n";
    let body = "{\"prompt\":\"a\",\"max_tokens\":1}";
    let cases = [
        format!("Host: localhost\r\nHost: localhost\r\n{json}Content-Length: 29\r\n\r\n{body}"),
        format!("Host: localhost\r\nHost: evil.example\r\n{json}Content-Length: 29\r\n\r\n{body}"),
        format!("{json}Content-Length: 29\r\n\r\n{body}"),
        format!("Host: localhost, evil.example\r\n{json}Content-Length: 29\r\n\r\n{body}"),
        format!("Host: localhost@evil.example\r\n{json}Content-Length: 29\r\n\r\n{body}"),
        format!("Host : localhost\r\n{json}Content-Length: 29\r\n\r\n{body}"),
        format!("Host: localhost\r\n{json}Content-Length: 29\r\nContent-Length: 3\r\n\r\n{body}"),
        format!("Host: localhost\r\n{json}Content-Length: 29, 3\r\n\r\n{body}"),
        format!("Host: localhost\r\n{json}Content-Length: +29\r\n\r\n{body}"),
        format!("Host: localhost\r\n{json}Content-Length: -1\r\n\r\n{body}"),
        format!("Host: localhost\r\n{json}Content-Length: 0x1d\r\n\r\n{body}"),
        format!("Host: localhost\r\n{json}Transfer-Encoding: gzip\r\n\r\n{body}"),
        format!("Host: localhost\r\n{json}Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
        format!("Host: localhost\r\n{json}Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
        format!(
            "Host: localhost\r\n{json}Transfer-Encoding: chunked\r\n\r\nZZ\r\n{body}\r\n0\r\n\r\n"
        ),
        format!(
            "Host: localhost\r\n{json}Transfer-Encoding: chunked\r\n\r\n-1\r\n{body}\r\n0\r\n\r\n"
        ),
        format!("Host: localhost\r\n {json}Content-Length: 29\r\n\r\n{body}"),
        format!("Host: localhost\r\nX: a\0b\r\n{json}Content-Length: 29\r\n\r\n{body}"),
    ];
    for case in cases {
        let bytes = format!("POST /execute HTTP/1.1\r\nConnection: close\r\n{case}");
        let answer = raw(&worker, bytes.as_bytes());
        let found = status(&answer);
        assert!(found == 0 || (400..500).contains(&found), "{case:?}: {answer}");
    }
    assert!(!worker.told().iter().any(|told| kind(told) == "request-accepted"));
    // A length beside chunks: one reading alone, and nothing after it taken for a request.
    let both = format!(
        "POST /execute HTTP/1.1\r\nHost: localhost\r\n{json}Content-Length: 4\r\n\
         Transfer-Encoding: chunked\r\n\r\n1d\r\n{body}\r\n0\r\n\r\n\
         GET /smuggled HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    );
    let answer = raw(&worker, both.as_bytes());
    assert!(!answer.contains("404 Not Found") || status(&answer) == 200, "{answer}");
    assert_eq!(worker.execute(&json!({"prompt": "a", "max_tokens": 1})).await[0].event, "started");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_a_named_origin_may_call_and_no_other() {
    let worker = Worker::tiny(&["--cors-origin", "https://hive.example"]).await;
    let post = |origin: &str| {
        let request = worker.client.post(worker.url("/execute")).header("origin", origin);
        request.json(&json!({"prompt": "a", "max_tokens": 1})).send()
    };
    let named = post("https://hive.example").await.expect("it answers");
    assert_eq!(named.status(), 200);
    assert_eq!(named.headers()["access-control-allow-origin"], "https://hive.example");
    assert_eq!(named.headers()["vary"], "origin");
    let other = post("https://evil.example").await.expect("it answers");
    assert_eq!(other.status(), 403);
    assert!(!other.headers().contains_key("access-control-allow-origin"));
    let ask = |origin: &'static str| {
        let request = worker.client.request(reqwest::Method::OPTIONS, worker.url("/execute"));
        let request = request.header("origin", origin);
        request.header("access-control-request-method", "POST").send()
    };
    let yes = ask("https://hive.example").await.expect("it answers");
    assert_eq!(
        (yes.status().as_u16(), &yes.headers()["access-control-allow-methods"]),
        (204, &"GET, POST".parse().expect("a value"))
    );
    assert_eq!(ask("https://evil.example").await.expect("it answers").status(), 403);
}

/// Requests that are sent as they are, and with bytes changed.
pub const SOUND: [&str; 5] = [
    "GET /health HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n",
    "POST /execute HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
        Content-Length: 29\r\n\r\n{\"prompt\":\"a\",\"max_tokens\":1}",
    "POST /execute HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
        Transfer-Encoding: chunked\r\n\r\n1d\r\n{\"prompt\":\"a\",\"max_tokens\":1}\r\n0\r\n\r\n",
    "GET /jobs/x/events HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: 3\r\n\r\n",
    "OPTIONS /v1/models HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n\
        Access-Control-Request-Method: GET\r\n\r\n",
];

#[tokio::test(flavor = "multi_thread")]
async fn no_bytes_make_it_fall_or_hang() {
    let seed = crate::load::seed();
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let count = std::env::var("RAW_REQUESTS").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000);
    let worker = Worker::tiny(&[]).await;
    for _ in 0..count {
        let mut bytes = SOUND[random.random_range(0..SOUND.len())].as_bytes().to_vec();
        for _ in 0..random.random_range(0..6_u32) {
            let at = random.random_range(0..bytes.len());
            match random.random_range(0..4_u32) {
                0 => bytes[at] = random.random_range(0..=255),
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, b"\r\n: \0\t,;"[random.random_range(0..8)]),
                _ => bytes.extend_from_within(at..(at + 40).min(bytes.len())),
            }
        }
        let mut stream = connect(&worker);
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write); // so that it waits for no more
        let text = answer(&mut stream);
        let found = status(&text);
        assert!(found < 500, "SEED={seed} {:?}: {text}", String::from_utf8_lossy(&bytes));
    }
    let done = worker.execute(&json!({"prompt": "a", "max_tokens": 2})).await;
    assert_eq!(done.last().expect("frames").event, "end");
}
