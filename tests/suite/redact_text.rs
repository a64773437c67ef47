//! Promise: what the model says goes through `redact` where the manifest turns it on: a text that the
//! operator denies does not get out, however it is cut into tokens.

use serde_json::json;

use crate::worker::{Worker, folder, text};

#[tokio::test(flavor = "multi_thread")]
async fn what_the_operator_denies_is_taken_out_of_what_the_model_says() {
    let folder = folder();
    let manifest = folder.join("filters.toml");
    let plain = "[[filter]]\nbuiltin = \"storyteller\"\n[[filter]]\nbuiltin = \"redact\"\n";
    std::fs::write(&manifest, plain).expect("a temporary file");
    let worker = Worker::tiny(&["--filters", folder.to_str().expect("UTF-8")]).await;
    let body = json!({"prompt": "a", "max_tokens": 64, "seed": 7});
    let said = text(&worker.execute(&body).await);
    let chars: Vec<char> = said.chars().collect();
    // Something that was cut by tokens: five letters from the middle, in a form that JSON keeps.
    let window = chars
        .windows(5)
        .skip(chars.len() / 3)
        .find(|window| window.iter().all(char::is_ascii_alphanumeric));
    let denied: String = window.expect("the model says letters").iter().collect();
    let manifest_text =
        format!("{plain}text = true\n[filter.config]\ndeny = [{}]\n", json!(denied));
    std::fs::write(&manifest, manifest_text).expect("a temporary file");
    worker.wait("the new chain", |n| n["fact"]["filter-loaded"]["generation"] == 2);
    let frames = worker.execute(&body).await;
    let redacted = text(&frames);
    assert!(!redacted.contains(&denied), "{denied:?} in {redacted:?}");
    assert!(redacted.contains("[redacted:denied]"), "{redacted:?}, without {denied:?}");
    assert_eq!(frames.iter().filter(|frame| frame.event == "end").count(), 1);
    std::fs::remove_dir_all(&folder).expect("it was made above");
}
