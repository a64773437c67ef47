//! Promise: `model pull` fetches a model from a hub, continues what broke off, checks every byte it can,
//! and never writes outside its folder. `model inspect` says what a file is and whether it runs.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::worker::{BINARY, folder, real_model};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A hub with one repository, `owner/bees`.
#[derive(Default)]
struct Fake {
    files: Vec<(String, Vec<u8>)>,
    /// Digests that its listing lies about.
    lies: bool,
    /// Bytes after which a download breaks off, the first time each.
    breaks_after: Option<usize>,
    token: Option<&'static str>,
    state: Mutex<HashMap<String, usize>>,
    ranges: Mutex<Vec<String>>,
}

type Shared = State<Arc<Fake>>;

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Fake {
    fn allows(&self, headers: &HeaderMap) -> bool {
        let sent = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        self.token.is_none_or(|token| sent == Some(&format!("Bearer {token}")))
    }

    async fn serve(self) -> (String, Arc<Fake>) {
        let fake = Arc::new(self);
        let router = axum::Router::new()
            .route("/api/models/{owner}/{name}/revision/{revision}", axum::routing::get(list))
            .route("/{owner}/{name}/resolve/{commit}/{*file}", axum::routing::get(redirect))
            .route("/store/{*file}", axum::routing::get(send))
            .with_state(Arc::clone(&fake));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (url, fake)
    }
}

async fn list(
    State(fake): Shared,
    UrlPath((owner, name, _)): UrlPath<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    if !fake.allows(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if (owner.as_str(), name.as_str()) != ("owner", "bees") {
        return StatusCode::NOT_FOUND.into_response();
    }
    let siblings: Vec<Value> = fake
        .files
        .iter()
        .map(|(name, bytes)| {
            let sha256 = if fake.lies { digest(b"other bytes") } else { digest(bytes) };
            json!({"rfilename": name, "size": bytes.len(), "blobId": "b",
                "lfs": {"sha256": sha256, "size": bytes.len(), "pointerSize": 130}})
        })
        .collect();
    axum::Json(json!({"id": "owner/bees", "sha": COMMIT, "siblings": siblings})).into_response()
}

async fn redirect(
    UrlPath((_, _, commit, file)): UrlPath<(String, String, String, String)>,
) -> Response {
    assert_eq!(commit, COMMIT, "files are fetched at the commit that was listed");
    Redirect::temporary(&format!("/store/{}", file.replace(' ', "%20"))).into_response()
}

async fn send(State(fake): Shared, UrlPath(file): UrlPath<String>, headers: HeaderMap) -> Response {
    let Some((_, bytes)) = fake.files.iter().find(|(name, _)| *name == file) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    fake.ranges.lock().expect("no panic").push(range.unwrap_or("none").to_owned());
    let from = range.and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let from: usize = from.unwrap_or(0);
    let seen = {
        let mut state = fake.state.lock().expect("no panic");
        let count = state.entry(file).or_insert(0);
        *count += 1;
        *count
    };
    let rest = bytes[from..].to_vec();
    let status = if from > 0 { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let span = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
    let length = rest.len();
    let body = match fake.breaks_after {
        // It promises all, sends a piece, and closes.
        Some(after) if seen == 1 => {
            let piece = rest[..after.min(length)].to_vec();
            let sent = futures_util::stream::iter([Ok(axum::body::Bytes::from(piece))]);
            let broken = futures_util::stream::once(async {
                // The piece has to be out before the connection is cut.
                tokio::time::sleep(std::time::Duration::from_millis(300)).await;
                Err(std::io::Error::other("broken"))
            });
            axum::body::Body::from_stream(sent.chain(broken))
        }
        _ => axum::body::Body::from(rest),
    };
    let headers = [(header::CONTENT_RANGE, span), (header::CONTENT_LENGTH, length.to_string())];
    (status, headers, body).into_response()
}

async fn pull(url: &str, into: &Path, arguments: &[&str], token: Option<&str>) -> Output {
    let mut command = Command::new(BINARY);
    command.args(["model", "pull", "--into"]).arg(into).args(arguments);
    command.env("HF_ENDPOINT", url).env_remove("HF_TOKEN").env_remove("RUST_LOG");
    command.env("NO_PROXY", "*");
    if let Some(token) = token {
        command.env("HF_TOKEN", token);
    }
    let run = move || command.output().expect("the worker can be run");
    tokio::task::spawn_blocking(run).await.expect("no panic")
}

fn line(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_off_is_continued_and_checked() {
    let model = crate::gguf::tiny_llama(3);
    let files = vec![("README.md".into(), b"# Bees".to_vec()), ("bees.gguf".into(), model.clone())];
    let (url, fake) = Fake { files, breaks_after: Some(100_000), ..Fake::default() }.serve().await;
    let into = folder();
    let output = pull(&url, &into, &["owner/bees"], None).await;
    assert_eq!(output.status.code(), Some(0), "{}", line(&output));
    let path = into.join("bees.gguf");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), path.display().to_string());
    assert!(std::fs::read(&path).expect("it is there") == model, "other bytes");
    let ranges = fake.ranges.lock().expect("no panic").clone();
    assert_eq!(ranges.len(), 2, "{ranges:?}");
    let from: usize = ranges[1]
        .strip_prefix("bytes=")
        .and_then(|rest| rest.trim_end_matches('-').parse().ok())
        .expect("the second try asks for a range");
    assert!(from > 0 && from <= 100_000, "{ranges:?}");
    // Whole already: nothing is fetched again, and it is the model that was meant.
    let again = pull(&url, &into, &["owner/bees:bees"], None).await;
    assert!(again.status.success() && line(&again).contains("there already"), "{}", line(&again));
    assert_eq!(fake.ranges.lock().expect("no panic").len(), 2);
    let inspected = Command::new(BINARY).args(["model", "inspect", "--json"]).arg(&path).output();
    let inspected = inspected.expect("the worker can be run");
    let report: Value = serde_json::from_slice(&inspected.stdout).expect("JSON");
    assert_eq!((&report["runs"], &report["architecture"]), (&json!(true), &json!("llama")));
    std::fs::remove_dir_all(&into).expect("it was made above");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_in_several_files_becomes_a_folder() {
    let file = |name: &str| (name.to_owned(), name.as_bytes().to_vec());
    let names = ["config.json", "tokenizer.json", "model.safetensors", "onnx/model.onnx", "x.bin"];
    let files = names.iter().map(|name| file(name)).collect();
    let (url, _) = Fake { files, token: Some("hf_secret"), ..Fake::default() }.serve().await;
    let into = folder();
    let refused = pull(&url, &into, &["owner/bees"], None).await;
    assert_eq!(refused.status.code(), Some(3));
    assert!(line(&refused).contains("HF_TOKEN"), "{}", line(&refused));
    let output = pull(&url, &into, &["owner/bees"], Some("hf_secret")).await;
    assert!(output.status.success(), "{}", line(&output));
    assert!(!line(&output).contains("hf_secret"));
    for (name, there) in names.iter().zip([true, true, true, false, false]) {
        assert_eq!(into.join("bees").join(name).exists(), there, "{name}");
    }
    std::fs::remove_dir_all(&into).expect("it was made above");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_at_the_hub_ends_in_one_line_and_no_file() {
    let model = ("bees.gguf".to_owned(), b"GGUF and so on".to_vec());
    let lying = Fake { files: vec![model.clone()], lies: true, ..Fake::default() };
    let leading_out = Fake { files: vec![("../../bees.gguf".into(), vec![1])], ..Fake::default() };
    let several = Fake {
        files: vec![("a.Q4_0.gguf".into(), vec![1]), ("a.Q8_0.gguf".into(), vec![1])],
        ..Fake::default()
    };
    let cases = [
        (lying, "owner/bees", "other bytes"),
        (leading_out, "owner/bees", "neither GGUF nor safetensors"),
        (several, "owner/bees", "a.Q4_0.gguf, a.Q8_0.gguf"),
        (Fake::default(), "owner/wasps", "check the name"),
    ];
    for (fake, name, expected) in cases {
        let (url, _) = fake.serve().await;
        let into = folder();
        let output = pull(&url, &into, &[name], None).await;
        assert_eq!(output.status.code(), Some(3), "{}", line(&output));
        assert!(line(&output).contains(expected), "{}", line(&output));
        assert_eq!(line(&output).trim_end().lines().count(), 1, "{}", line(&output));
        assert!(is_empty(&into), "{expected}: something was left behind");
        std::fs::remove_dir_all(&into).expect("it was made above");
    }
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", nobody.local_addr().expect("it is bound"));
    drop(nobody);
    let output = pull(&url, &folder(), &["owner/bees"], None).await;
    assert!(line(&output).contains("can't be reached"), "{}", line(&output));
    let output = pull(&url, &folder(), &["../bees"], None).await;
    assert_eq!(output.status.code(), Some(2), "{}", line(&output));
}

#[test]
fn inspect_says_what_a_file_is_and_why_it_does_not_run() {
    let inspect = |path: &Path| {
        let output = Command::new(BINARY).args(["model", "inspect"]).arg(path).output();
        let output = output.expect("the worker can be run");
        (output.status.code(), String::from_utf8(output.stdout).expect("UTF-8"))
    };
    let (code, text) = inspect(&real_model());
    assert_eq!(code, Some(0), "{text}");
    for expected in ["runs", "llama", "Q4_1", "8,192 tokens", "49,152 tokens", "chat template  yes"]
    {
        assert!(text.contains(expected), "expected {expected:?} in {text}");
    }
    let folder = folder();
    let path = folder.join("odd.gguf");
    let mut odd = crate::gguf::tiny_llama(1);
    let at = odd.windows(5).position(|window| window == b"llama").expect("its architecture");
    odd[at..at + 5].copy_from_slice(b"lhama");
    std::fs::write(&path, odd).expect("a temporary file");
    let (code, text) = inspect(&path);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("does not run") && text.contains("lhama"), "{text}");
    assert!(text.contains("F32"), "what it is, is told all the same: {text}");
    std::fs::write(&path, b"no model").expect("a temporary file");
    assert_eq!(inspect(&path).0, Some(3));
    std::fs::remove_dir_all(&folder).expect("it was made above");
}
