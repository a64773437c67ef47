//! Promise: the playground's files are open to everybody and self-contained; what the page asks of the
//! worker is not open. (How it works in a browser is held by `make test-web`.)

use serde_json::json;

use crate::worker::Worker;

#[tokio::test(flavor = "multi_thread")]
async fn its_files_are_open_and_its_calls_are_not() {
    let token = crate::worker::folder().join("token");
    std::fs::write(&token, "sesame").expect("a temporary file can be written");
    let worker = Worker::tiny(&["--api-token-file", &token.to_string_lossy()]).await;
    let mut waiting = vec!["/".to_owned()];
    let mut seen = Vec::new();
    while let Some(path) = waiting.pop() {
        let response = worker.client.get(worker.url(&path)).send().await.expect("it answers");
        assert_eq!(response.status(), 200, "{path}");
        let policy = response.headers()["content-security-policy"].to_str().expect("ASCII");
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        let text = response.text().await.expect("UTF-8");
        assert!(!text.contains("https://"), "{path} names another origin");
        seen.push(path);
        for name in text.split(['"', '\'']).filter_map(file_name) {
            let path = format!("/playground/{name}");
            if !seen.contains(&path) && !waiting.contains(&path) {
                waiting.push(path);
            }
        }
    }
    assert!(seen.len() >= 8, "the page loads {seen:?}");
    let body = json!({"prompt": "hi", "max_tokens": 1});
    assert_eq!(worker.post("/execute", &body).await.status(), 401);
    std::fs::remove_file(&token).expect("it is there");
}

/// The name of a file of the page, out of a reference to it.
fn file_name(text: &str) -> Option<&str> {
    let name = text.strip_prefix("playground/").or_else(|| text.strip_prefix("./"))?;
    (name.ends_with(".js") || name.ends_with(".css")).then_some(name)
}
