//! Promise: guests of any language and of every released contract run, and can open nothing.

use serde_json::{Value, json};

use crate::guests::guest;
use crate::worker::{Worker, folder, kind, text};

/// The chain of one guest, with a configuration in TOML.
fn deploy(name: &str, target: &str, keys: &str) -> std::path::PathBuf {
    let folder = folder();
    std::fs::copy(guest(name, target), folder.join("guest.wasm")).expect("it was built");
    let text = format!("[[filter]]\npath = \"guest.wasm\"\n{keys}\n");
    std::fs::write(folder.join("filters.toml"), text).expect("a temporary file");
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_of_wasi_gets_clocks_and_randomness_and_nothing_else() {
    let folder = deploy("wasi", "wasm32-wasip2", "");
    let worker = Worker::tiny(&["--filters", folder.to_str().expect("UTF-8")]).await;
    let told = worker.fact("server-bound");
    assert_eq!(told["human"], "had [] clock true random true");
    std::fs::remove_dir_all(&folder).expect("it was made above");
}

#[test]
fn a_panic_of_a_guest_shows_its_message_and_place() {
    let folder = deploy("wasi", "wasm32-wasip2", "[filter.config]\npanic = true");
    let arguments = ["--filters", folder.to_str().expect("UTF-8")];
    let (status, stderr, told) = Worker::spawn("none.gguf".as_ref(), &arguments).ended();
    assert_eq!(status.code(), Some(6), "{stderr}");
    let rejected = told.iter().find(|n| kind(n) == "filter-rejected").expect("it is told");
    let reason = rejected["fact"]["filter-rejected"]["reason"].to_string();
    for expected in ["this is what the operator has to see", "src/lib.rs:", "trapped"] {
        assert!(reason.contains(expected) && stderr.contains(expected), "{expected} in {reason}");
    }
    std::fs::remove_dir_all(&folder).expect("it was made above");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_of_contract_0_1_0_still_works() {
    let folder = deploy("contract-0-1-0", "wasm32-unknown-unknown", "[filter.config]\nkey = 7");
    let worker = Worker::tiny(&["--filters", folder.to_str().expect("UTF-8")]).await;
    let frames = worker.execute(&json!({"prompt": "a", "max_tokens": 2})).await;
    let seen: Vec<Value> =
        frames.into_iter().filter(|f| f.event == "narration").map(|f| f.data).collect();
    let started = seen.iter().find(|n| kind(n) == "inference-started").expect("it goes to both");
    assert_eq!(started["human"], "inference-started by candle-backend, job true, {\"key\":7}");
    assert!(started["fact"]["inference-started"]["prompt_chars"].as_u64() > Some(1_000));
    assert!(started["story"].as_str().is_some_and(|s| s.starts_with("told ")), "{started}");
    assert!(!seen.iter().any(|n| kind(n) == "inference-completed"), "its sink was closed");
    worker.fact("inference-completed");
    let unworded = worker.fact("server-bound");
    assert_eq!(unworded["human"], "", "a kind that it doesn't want");
    std::fs::remove_dir_all(&folder).expect("it was made above");
}

#[test]
fn an_unknown_version_is_refused_with_both_named() {
    let folder = deploy("contract-0-1-0", "wasm32-unknown-unknown", "");
    let path = folder.join("guest.wasm");
    let bytes = std::fs::read(&path).expect("it was copied");
    let component = wit_component::ComponentEncoder::default()
        .module(&bytes)
        .and_then(|mut encoder| encoder.encode())
        .expect("it carries its contract");
    let text = "rbees:narration/filter@0.1.0".as_bytes();
    let mut younger = component.clone();
    let places: Vec<usize> = component
        .windows(text.len())
        .enumerate()
        .filter_map(|(at, window)| (window == text).then_some(at))
        .collect();
    assert!(!places.is_empty());
    for at in places {
        younger[at + text.len() - 3] = b'9';
    }
    std::fs::write(&path, younger).expect("a temporary file");
    let arguments = ["--filters", folder.to_str().expect("UTF-8")];
    let (status, _, told) = Worker::spawn("none.gguf".as_ref(), &arguments).ended();
    assert_eq!(status.code(), Some(6));
    let rejected = told.iter().find(|n| kind(n) == "filter-rejected").expect("it is told");
    let reason = rejected["fact"]["filter-rejected"]["reason"].to_string();
    assert!(reason.contains("0.9.0") && reason.contains("0.1.0"), "{reason}");
    std::fs::remove_dir_all(&folder).expect("it was made above");
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_text_goes_through_the_filters_that_are_turned_on_for_it() {
    let body = json!({"prompt": "a b", "max_tokens": 200, "seed": 11, "progress_every": 7});
    let plain = Worker::tiny(&[]).await.execute(&body).await;
    let folder = deploy("contract-0-1-0", "wasm32-unknown-unknown", "text = true");
    let worker = Worker::tiny(&["--filters", folder.to_str().expect("UTF-8")]).await;
    let filtered = worker.execute(&body).await;
    let expected = text(&plain).replace(['e', 'E'], "_");
    assert!(expected.contains('_'), "another seed is needed: {expected:?}");
    assert_eq!(text(&filtered), expected);
    let indices: Vec<u64> = filtered
        .iter()
        .filter(|frame| frame.event == "token")
        .map(|frame| frame.data["i"].as_u64().expect("an index"))
        .collect();
    assert!(indices.is_sorted(), "{indices:?}");
    let last = |frames: &[crate::worker::Frame]| frames.last().expect("an end").clone();
    assert_eq!(last(&filtered).event, "end");
    assert_eq!(last(&filtered).data["tokens_out"], last(&plain).data["tokens_out"]);
    assert!(indices.last() < last(&plain).data["tokens_out"].as_u64().as_ref(), "{indices:?}");
    let state: Value = worker
        .client
        .get(worker.url("/filters"))
        .send()
        .await
        .expect("it listens")
        .json()
        .await
        .expect("JSON");
    let filter = &state["filters"][0];
    assert_eq!((&filter["name"], &filter["text"]), (&json!("guest"), &json!(true)));
    assert!(filter["calls"].as_u64() > Some(8), "{state}");
    assert_eq!(filter["digest"].as_str().map(str::len), Some(64));
    std::fs::remove_dir_all(&folder).expect("it was made above");
}

#[test]
fn a_secret_in_generated_text_does_not_get_out_however_it_is_cut() {
    use rbees_workerd::filter::chain::{Entry, OnFailure};
    use rbees_workerd::filter::component::Component;
    use rbees_workerd::filter::{Chain, Host, TextRun, builtin};
    use std::sync::Arc;

    let host = Arc::new(Host::new().expect("wasm runs"));
    let _timed = host.awake();
    let bytes = builtin::component("redact").expect("it is built in");
    let component = Arc::new(Component::load(&host, bytes, 32).expect("it is sound"));
    let limit = std::time::Duration::from_millis(1_000);
    let policy = OnFailure::Withhold;
    let mut entry = Entry::new("redact".into(), component, "{}".into(), policy, limit, 32);
    entry.text = true;
    let chain = Arc::new(Chain::new(Arc::clone(&host), vec![entry], 1));
    let secret = "ghp_4fK9wQz7TnB2mXc8RjL5vHs3YpD6gAe1UoWi";
    let text = format!("Use the key {secret} and write to ada@example.org.");
    let through = |pieces: &[&str]| {
        let mut run = TextRun::begin(&chain).expect("it is turned on");
        let mut out = String::new();
        for piece in pieces {
            out.push_str(&run.push(piece, &mut |_| {}).expect("it does not fail"));
            assert!(!out.contains("ghp_") && !out.contains("ada"), "{out}");
        }
        out + &run.finish(&mut |_| {}).expect("it does not fail")
    };
    let whole = through(&[&text]);
    assert_eq!(whole, "Use the key [redacted:api-key] and write to [redacted:email].");
    for cut in 1..text.len() {
        assert_eq!(through(&[&text[..cut], &text[cut..]]), whole, "cut at {cut}");
    }
    let letters: Vec<&str> = text.split("").collect();
    assert_eq!(through(&letters), whole, "cut everywhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_says_is_redacted_before_anybody_reads_it() {
    let body = json!({"prompt": "a b", "max_tokens": 200, "seed": 11});
    let said = text(&Worker::tiny(&[]).await.execute(&body).await);
    // The model knows no secrets: whatever it says over several tokens is declared one.
    let letters: Vec<char> = said.chars().collect();
    let sound = |secret: &&[char]| secret.iter().all(|c| c.is_ascii_alphanumeric() || *c == ' ');
    let secret = letters.windows(4).find(sound);
    let secret = secret.unwrap_or_else(|| panic!("another seed is needed: {said:?}"));
    let secret: String = secret.iter().collect();
    let folder = folder();
    let keys = format!("text = true\n[filter.config]\ndeny = [\"{secret}\"]\n");
    let manifest = format!("[[filter]]\nbuiltin = \"redact\"\n{keys}");
    std::fs::write(folder.join("filters.toml"), manifest).expect("a temporary file");
    let worker = Worker::tiny(&["--filters", folder.to_str().expect("UTF-8")]).await;
    let frames = worker.execute(&body).await;
    assert!(text(&frames).contains("[redacted:denied]"), "{said:?} became {:?}", text(&frames));
    assert!(!text(&frames).contains(&secret), "{secret} in {:?}", text(&frames));
    assert!(frames.iter().all(|frame| !frame.data.to_string().contains(&secret)), "{secret}");
    let models = worker.client.get(worker.url("/v1/models")).send().await.expect("it listens");
    let models: Value = models.json().await.expect("JSON");
    let model = &models["data"][0]["id"];
    let body = json!({"model": model, "prompt": "a b", "max_tokens": 200, "seed": 11});
    let reply: Value = worker.post("/v1/completions", &body).await.json().await.expect("JSON");
    let answer = reply["choices"][0]["text"].as_str().expect("a completion");
    assert!(answer.contains("[redacted:denied]") && !answer.contains(&secret), "{answer:?}");
    std::fs::remove_dir_all(&folder).expect("it was made above");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_changes_nothing_and_its_differences_are_counted() {
    let folder = deploy("contract-0-1-0", "wasm32-unknown-unknown", "shadow = true\ntext = true");
    let worker = Worker::tiny(&["--filters", folder.to_str().expect("UTF-8")]).await;
    let body = json!({"prompt": "a b", "max_tokens": 200, "seed": 11});
    let frames = worker.execute(&body).await;
    assert!(text(&frames).contains('e'), "another seed is needed");
    let narrated: Vec<String> =
        frames.iter().filter(|f| f.event == "narration").map(|f| kind(&f.data)).collect();
    assert!(narrated.contains(&"inference-completed".to_owned()), "it closed no sink");
    let state: Value = worker
        .client
        .get(worker.url("/filters"))
        .send()
        .await
        .expect("it listens")
        .json()
        .await
        .expect("JSON");
    let filter = &state["filters"][0];
    assert_eq!(filter["shadow_differences"], 3, "{state}");
    let samples = filter["shadow_samples"].as_array().expect("a list");
    let changed = |kind: &str| samples.iter().find(|s| s["kind"] == kind).map(|s| &s["changed"]);
    assert_eq!(changed("inference-started"), Some(&json!(["fact", "human", "story"])));
    assert_eq!(changed("inference-completed"), Some(&json!(["sinks", "human", "story"])));
    assert_eq!(changed("text"), Some(&json!(["text"])));
    std::fs::remove_dir_all(&folder).expect("it was made above");
}
