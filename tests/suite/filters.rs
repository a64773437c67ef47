//! Promise: operators' filters decide; a change is live without a restart; a broken one changes nothing
//! and is told.

use serde_json::{Value, json};

use crate::worker::{Worker, folder, kind};

const PLAIN: &str = "[[filter]]\nbuiltin = \"storyteller\"\n[filter.config]\ncute = false\n\
    [[filter]]\nbuiltin = \"redact\"\n";

async fn narrations(worker: &Worker) -> Vec<Value> {
    let frames = worker.execute(&json!({"prompt": "a", "max_tokens": 1})).await;
    frames.into_iter().filter(|f| f.event == "narration").map(|f| f.data).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_manifest_is_live_and_a_broken_one_changes_nothing() {
    let folder = folder();
    let manifest = folder.join("filters.toml");
    std::fs::write(&manifest, PLAIN).expect("a temporary file");
    let worker = Worker::tiny(&["--filters", folder.to_str().expect("UTF-8")]).await;
    assert!(narrations(&worker).await.iter().all(|n| n.get("cute").is_none()));

    std::fs::write(&manifest, PLAIN.replace("cute = false", "cute = true")).expect("a file");
    worker.wait("the new chain", |n| n["fact"]["filter-loaded"]["generation"] == 2);
    let cute = narrations(&worker).await;
    assert!(!cute.is_empty() && cute.iter().all(|n| n["cute"].is_string()), "{cute:?}");

    let broken = [
        ("[[filter]]\ncolour = 1\n", "line 2"),
        ("[[filter]]\nbuiltin = \"storyteller\"\n[filter.config]\nsurprise = 1\n", "surprise"),
        ("[[filter]]\npath = \"gone.wasm\"\n", "can't be read"),
        ("[[filter]]\nbuiltin = \"redact\"\non-failure = \"skip\"\n", "takes things out"),
    ];
    for (text, expected) in broken {
        std::fs::write(&manifest, text).expect("a file");
        let reason = |n: &Value| n["fact"]["filter-rejected"]["reason"].to_string();
        let rejected = worker.wait(expected, |n| reason(n).contains(expected));
        assert_eq!(rejected["severity"], "error");
        assert!(narrations(&worker).await.iter().all(|n| n["cute"].is_string()), "{expected}");
    }
    std::fs::remove_dir_all(&folder).expect("it was made above");
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_are_the_filters_own() {
    let folder = folder();
    let text = PLAIN
        .replace("cute = false", "routes = { cache-reset = [\"stdout\"], tokens-generated = [] }");
    std::fs::write(folder.join("filters.toml"), text).expect("a temporary file");
    let worker = Worker::tiny(&["--filters", folder.to_str().expect("UTF-8")]).await;
    let body = json!({"prompt": "a", "max_tokens": 3, "progress_every": 1});
    let frames = worker.execute(&body).await;
    let seen: Vec<String> =
        frames.iter().filter(|f| f.event == "narration").map(|f| kind(&f.data)).collect();
    assert!(seen.contains(&"inference-started".to_owned()), "{seen:?}");
    assert!(!seen.iter().any(|k| k == "cache-reset" || k == "tokens-generated"), "{seen:?}");
    worker.fact("cache-reset");
    worker.fact("inference-completed");
    assert!(!worker.told().iter().any(|n| kind(n) == "tokens-generated"));
    std::fs::remove_dir_all(&folder).expect("it was made above");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_of_another_world_ends_the_start_with_6() {
    let folder = folder();
    for (bytes, expected) in [
        (&b"\0asm\x0d\0\x01\0"[..], "another world"),
        (&b"\0asm\x01\0\0\0\xff"[..], "core module"),
        (&b"no wasm at all"[..], "no WebAssembly"),
    ] {
        std::fs::write(folder.join("10-odd.wasm"), bytes).expect("a temporary file");
        let arguments = ["--filters", folder.to_str().expect("UTF-8")];
        let (status, stderr, told) = Worker::spawn("none.gguf".as_ref(), &arguments).ended();
        assert_eq!(status.code(), Some(6), "{stderr}");
        assert!(stderr.contains(expected), "expected {expected:?} in {stderr}");
        let last = told.last().expect("the last words");
        assert_eq!(kind(last), "filter-rejected");
        assert_eq!(last["fact"]["filter-rejected"]["name"], "10-odd");
    }
    std::fs::remove_dir_all(&folder).expect("it was made above");
}
