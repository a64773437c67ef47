//! Promise: the contract over HTTP is written down as it is, and the worker hands it out.

use std::process::Command;

use sha2::{Digest as _, Sha256};

use crate::worker::{BINARY, Worker};

#[tokio::test(flavor = "multi_thread")]
async fn openapi_yaml_is_fresh_and_the_worker_serves_it() {
    let printed = Command::new(BINARY).arg("openapi").output().expect("the binary can be run");
    assert!(printed.status.success());
    let printed = String::from_utf8(printed.stdout).expect("UTF-8");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.yaml");
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        printed == kept,
        "openapi.yaml is stale: run `make openapi` and look at the difference"
    );
    let worker = Worker::tiny(&[]).await;
    let get = |path: &str| worker.client.get(worker.url(path)).send();
    let served = get("/openapi.yaml").await.expect("it answers");
    assert_eq!(served.headers()["content-type"], "application/yaml");
    assert_eq!(served.text().await.expect("a body"), printed);
    let docs = get("/docs").await.expect("it answers"); // follows the redirect to the folder
    assert_eq!(docs.status(), 200);
    let page = docs.text().await.expect("a body");
    assert!(page.contains("swagger-ui"), "{page}");
    for link in
        page.split(['"', '\'']).filter(|part| part.ends_with(".js") || part.ends_with(".css"))
    {
        assert!(!link.starts_with("http") && !link.starts_with("//"), "{link} is from elsewhere");
        let file = get(&format!("/docs/{}", link.trim_start_matches("./"))).await;
        assert_eq!(file.expect("it answers").status(), 200, "{link}");
    }
    assert_eq!(get("/docs/nothing").await.expect("it answers").status(), 404);
}

/// What clients/ was generated from, and what came out, is as it was then. The generators are pinned and
/// repeat themselves, so this needs no Node; `make test-clients` generates anew and compares the files.
#[test]
fn the_clients_are_generated_from_this_contract() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let kept = std::fs::read_to_string(root.join("clients/generated.sha256")).expect("it is there");
    let kept: Vec<(&str, &str)> = kept.lines().filter_map(|line| line.split_once("  ")).collect();
    let named = |path: &str| kept.iter().any(|(_, named)| *named == path);
    assert!(
        kept.len() == 7 && named("openapi.yaml") && named("clients/typescript/src/contract.ts")
    );
    for (digest, path) in kept {
        let bytes = std::fs::read(root.join(path)).expect("it is there");
        let found: String =
            Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, digest, "{path} is another than clients/ was made from: `make clients`");
    }
}

/// `make test-contract` runs it, with the path of schemathesis' command.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs schemathesis: run `make test-contract`"]
async fn schemathesis_finds_no_answer_outside_the_contract() {
    let command = std::env::var_os("SCHEMATHESIS").expect("`make test-contract` sets it");
    let seed = std::env::var("SEED").unwrap_or_else(|_| "41".to_owned());
    let worker = Worker::tiny(&["--model-alias", "*", "--queue", "4096", "--slots", "4"]).await;
    let hooks = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/contract/hooks.py");
    let status = Command::new(command)
        .env("SCHEMATHESIS_HOOKS", hooks)
        .current_dir(crate::worker::folder()) // where it keeps what it found
        .args(["run", &worker.url("/openapi.yaml"), "--seed", &seed, "--max-examples", "200"])
        .args(["--phases", "examples,coverage,fuzzing", "--exclude-path", "/shutdown"])
        .args(["--request-timeout", "120"])
        // No schema can say that prompt and answer have to fit this model's context.
        .args(["--exclude-checks", "positive_data_acceptance", "--warnings", "off"])
        .status()
        .expect("schemathesis can be run");
    assert!(status.success(), "SEED={seed}");
}
