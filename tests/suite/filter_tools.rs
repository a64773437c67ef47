//! Promise: those who write filters see what the worker would do with them: `filter new`, `check`,
//! `replay`, `bench`, `list`, and the recording that `replay` reads.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::worker::{BINARY, Worker, folder};

/// Runs `filter …`; its code, stdout and stderr.
pub fn tool(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(BINARY);
    let output = command.arg("filter").args(arguments).env_remove("RUST_LOG").output();
    let output = output.expect("the binary can be run");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

fn checked(arguments: &[&str]) -> (i32, Value) {
    let (code, out, err) = tool(&[&["check", "--json"], arguments].concat());
    (code, serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out} {err}")))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn check_says_what_the_built_in_filters_do_and_finds_them_clean() {
    let (code, report) = checked(&["storyteller", "--first"]);
    assert_eq!((code, &report["problems"]), (0, &json!([])), "{report:#}");
    let facts = report["facts"].as_array().expect("a row a kind");
    assert_eq!(facts.len(), 35);
    let row = |kind: &str| facts.iter().find(|row| row["kind"] == kind).expect("a kind");
    assert_eq!(row("startup")["sinks"], json!([["stdout", "sse"], ["stdout"]]));
    assert_eq!(row("inference-completed")["verdict"], "changed");
    assert!(row("cpu-ready")["human"].as_str().is_some_and(|text| text.contains("42 threads")));
    assert!(report["cost"]["calls"].as_u64().is_some_and(|calls| calls >= 100), "{report:#}");

    let (code, report) = checked(&["redact"]);
    assert_eq!((code, &report["problems"]), (0, &json!([])), "{report:#}");
    assert_eq!(report["redacts"], true);

    let (code, report) = checked(&["throttle"]);
    assert_eq!((code, &report["problems"]), (0, &json!([])), "{report:#}");
    let wanted = |row: &&Value| row["verdict"] != "not-wanted";
    let rows = report["facts"].as_array().expect("a row a kind").iter().filter(wanted);
    assert_eq!(rows.count(), 3);
}

#[test]
fn check_says_what_the_worker_would_refuse() {
    let (code, report) = checked(&["redact", "--config", r#"{"alow":[]}"#]);
    assert_eq!(code, 1);
    let problem = &report["problems"][0];
    assert_eq!((&problem["severity"], &problem["place"]), (&json!("error"), &json!("configure")));
    assert!(problem["message"].as_str().is_some_and(|text| text.contains("alow")), "{problem}");

    let (code, out, err) = tool(&["check", "Cargo.toml"]);
    assert_eq!((code, out.as_str()), (6, ""), "{err}");
    assert!(err.contains("is no WebAssembly"), "{err}");
    let (code, _, err) = tool(&["check", "none.wasm"]);
    assert!(code == 6 && err.contains("built-in ones: storyteller, redact, throttle"), "{err}");
    let (code, _, err) = tool(&["check", "redact", "--config", "{"]);
    assert!(code == 2 && err.contains("--config"), "{err}");
}

#[test]
fn check_plants_secrets_and_sees_those_that_get_through() {
    // Told to keep an address, the redactor lets through what a redactor must not.
    let (code, report) = checked(&["redact", "--config", r#"{"allow":["ada@example.org"]}"#]);
    let leaks = report["problems"].as_array().expect("a list");
    assert_eq!(code, 1, "{report:#}");
    assert!(leaks.iter().all(|problem| problem["code"] == "leak"), "{report:#}");
    let message = leaks[0]["message"].as_str().expect("a string");
    assert!(message.contains("e-mail address got through"), "{message}");
    let fields: Vec<&str> = leaks.iter().filter_map(|problem| problem["field"].as_str()).collect();
    for field in ["target", "human", "fact.callback-failed.reason"] {
        assert!(fields.contains(&field), "{field} is missing in {fields:?}");
    }
}

#[test]
fn check_cuts_generated_text_as_a_model_does() {
    let (code, report) = checked(&["redact"]);
    assert_eq!((code, &report["takes_text"]), (0, &json!(true)), "{report:#}");
    assert_eq!(checked(&["throttle"]).1["takes_text"], false);

    // What may stand in a narration may stand in a text.
    let (_, report) = checked(&["redact", "--config", r#"{"allow":["ada@example.org"]}"#]);
    let places = |problem: &Value| [&problem["more"], &problem["place"]].map(Value::to_string);
    let problems = report["problems"].as_array().expect("a list");
    let named = |place: &str| problems.iter().any(|p| places(p).concat().contains(place));
    assert!(named("text, e-mail address"), "{report:#}");
    assert!(!named("text, card number"), "{report:#}");

    let folder = folder();
    for animal in crate::animals::text_animals() {
        let path = folder.join("animal.wasm");
        std::fs::write(&path, &animal.bytes).expect("a temporary file");
        let (code, report) = checked(&[text(&path)]);
        let problems = report["problems"].as_array().expect("a list");
        let failed = problems.iter().find(|p| p["code"] == "text-failed").expect(animal.name);
        let message = failed["message"].as_str().expect("a string");
        assert!(code == 1 && message.contains(animal.verdict), "{}: {failed:#}", animal.name);
    }
    std::fs::remove_dir_all(&folder).expect("it was made above");
}

#[test]
fn bench_says_what_a_filter_costs() {
    let (code, out, err) = tool(&["bench", "redact", "--calls", "200", "--json"]);
    assert_eq!(code, 0, "{err}");
    let cost: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(cost["calls"], 200);
    for figure in ["call_median_us", "call_p99_us", "start_median_us", "start_p99_us", "load_us"] {
        assert!(cost[figure].as_f64().is_some_and(|us| us > 0.0), "{figure} in {cost}");
    }
    assert!(cost["memory_bytes"].as_u64().is_some_and(|bytes| bytes >= 65_536), "{cost}");
}

const QUIET: &str = "[[filter]]\nbuiltin = \"storyteller\"\n[filter.config]\n\
    routes = { cache-reset = [], prompt-tokenized = [\"stdout\"] }\n[[filter]]\nbuiltin = \"redact\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn what_was_recorded_is_replayed_as_it_was_told_and_compared() {
    let folder = folder();
    let tape = folder.join("events.ndjson");
    let worker = Worker::tiny(&["--record", text(&tape)]).await;
    worker.execute(&json!({"prompt": "a", "max_tokens": 3, "progress_every": 1})).await;
    worker.signal("TERM");
    let (status, _, told) = worker.ended();
    assert!(status.success());
    let lines = std::fs::read_to_string(&tape).expect("it was recorded");
    assert_eq!(lines.lines().count(), told.len(), "the default chain drops none of these");
    assert!(!lines.contains("human"), "facts are recorded before any filter");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(&tape).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "only its owner may read it");
    }

    // The default chain says again what it said.
    let (code, out, err) = tool(&["replay", text(&tape), "--json"]);
    assert_eq!(code, 0, "{err}");
    let replayed: Vec<Value> =
        out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for narration in &told {
        let again = replayed.iter().find(|line| line["sequence"] == narration["sequence"]);
        assert_eq!(&again.expect("it was recorded")["narration"], narration);
    }

    // Another one shows only what it does differently.
    let quiet = folder.join("quiet");
    std::fs::create_dir(&quiet).expect("a folder");
    std::fs::write(quiet.join("filters.toml"), QUIET).expect("a file");
    let (code, out, _) = tool(&["replay", text(&tape), "--diff", text(&quiet), "--json"]);
    let differ: Vec<Value> =
        out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let kinds: Vec<&str> = differ.iter().filter_map(|line| line["kind"].as_str()).collect();
    assert_eq!((code, kinds), (1, vec!["prompt-tokenized", "cache-reset"]));
    assert_eq!(differ[0]["differs"], json!({"goes to": ["stdout sse", "stdout"]}));
    assert_eq!(differ[1]["differs"], json!({"goes to": ["stdout sse", "nowhere"]}));
    let (code, out, _) = tool(&["replay", text(&tape), "--diff", "default"]);
    assert!(code == 0 && out.contains("0 differ"), "{out}");

    // What is no recording says where.
    std::fs::write(&tape, format!("{}\n{{}}\n", lines.lines().next().expect("a line")))
        .expect("a file");
    let (code, _, err) = tool(&["replay", text(&tape)]);
    assert!(code == 2 && err.contains("line 2"), "{err}");
    std::fs::remove_dir_all(&folder).expect("it was made above");
}

#[tokio::test(flavor = "multi_thread")]
async fn list_shows_the_chain_of_a_running_worker() {
    let worker = Worker::tiny(&[]).await;
    worker.execute(&json!({"prompt": "a", "max_tokens": 1})).await;
    let url = worker.url("");
    let (code, out, err) = tool(&["list", "--url", &url]);
    assert_eq!(code, 0, "{err}");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "generation 1, without a folder");
    assert!(lines[2].starts_with("1  storyteller") && lines[3].starts_with("2  redact"), "{out}");
    assert!(lines[3].ends_with("redacts"), "{out}");
    let (_, out, _) = tool(&["list", "--url", &url, "--json"]);
    let state: Value = serde_json::from_str(&out).expect("JSON");
    assert!(state["filters"][0]["calls"].as_u64().is_some_and(|calls| calls > 0), "{state}");
    let (code, _, err) = tool(&["list", "--url", "http://127.0.0.1:9"]);
    assert!(code == 2 && err.contains("is a worker running there?"), "{err}");
}

/// A new project of that language, made where it is built again and again.
fn scaffold(lang: &str, name: &str) -> PathBuf {
    let into = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("new-{lang}"));
    let project = into.join(name);
    let _ = std::fs::remove_dir_all(&project);
    std::fs::create_dir_all(&into).expect("a folder below target");
    let (code, out, err) = tool(&["new", name, "--lang", lang, "--into", text(&into)]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("filter check"), "{out}");
    let (code, _, err) = tool(&["new", name, "--lang", lang, "--into", text(&into)]);
    assert!(code == 2 && err.contains("is there already"), "{err}");
    project
}

fn run(folder: &Path, program: &str, arguments: &[&str], shared: Option<&Path>) {
    let mut command = Command::new(program);
    command.current_dir(folder).args(arguments);
    for name in ["CARGO_ENCODED_RUSTFLAGS", "RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"]
    {
        command.env_remove(name);
    }
    if let Some(target) = shared {
        command.env("CARGO_TARGET_DIR", target);
    }
    let output = command.output().unwrap_or_else(|e| panic!("{program} can't be run: {e}"));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?} in {}: {words}", folder.display());
}

/// Deploys a file into the folder of a running worker, and waits until it is live there.
async fn goes_live(file: &Path, table: &str, changed: impl Fn(&Value) -> bool) {
    let folder = folder();
    std::fs::write(folder.join("filters.toml"), "[[filter]]\nbuiltin = \"storyteller\"\n")
        .expect("a file");
    let worker = Worker::tiny(&["--filters", text(&folder)]).await;
    std::fs::copy(file, folder.join("mine.wasm")).expect("it was built");
    let manifest = format!(
        "[[filter]]\nbuiltin = \"storyteller\"\n[[filter]]\npath = \"mine.wasm\"\nname = \"mine\"\n{table}\n"
    );
    std::fs::write(folder.join("filters.toml"), manifest).expect("a file");
    worker.wait("the new filter", |n| n["fact"]["filter-loaded"]["name"] == "mine");
    let client = &worker.client;
    let request = client.post(worker.url("/execute")).header("x-correlation-id", "acme-17");
    let body = json!({"prompt": "a", "max_tokens": 2});
    request.json(&body).send().await.expect("an answer").text().await.expect("a stream");
    let bad = client.post(worker.url("/execute")).header("x-correlation-id", "acme-18");
    bad.json(&json!({})).send().await.expect("an answer");
    worker.wait("what the new filter does", changed);
    std::fs::remove_dir_all(&folder).expect("it was made above");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_filter_in_rust_is_built_checked_and_live() {
    let project = scaffold("rust", "quiet-night");
    // The versions that are in the house already, so that nothing has to be fetched.
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("filters/Cargo.lock");
    std::fs::copy(lock, project.join("Cargo.lock")).expect("a file");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("new-rust/target");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    run(&project, &cargo, &["test", "--quiet"], Some(&target));
    run(
        &project,
        &cargo,
        &["build", "--quiet", "--release", "--target", "wasm32-unknown-unknown"],
        Some(&target),
    );
    let file = target.join("wasm32-unknown-unknown/release/quiet_night.wasm");
    let (code, report) = checked(&[text(&file), "--config", r#"{"team":"hive"}"#]);
    assert_eq!((code, &report["problems"]), (0, &json!([])), "{report:#}");
    assert_eq!((&report["name"], &report["core_module"]), (&json!("quiet-night"), &json!(true)));
    goes_live(&file, "[filter.config]\nteam = \"hive\"", |n| {
        n["human"].as_str().is_some_and(|text| text.starts_with("hive OK in=1 out=2"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs node and npm packages: make test-guests"]
async fn a_new_filter_in_javascript_is_built_checked_and_live() {
    let project = scaffold("js", "quiet-night");
    run(&project, "npm", &["install", "--no-audit", "--no-fund", "--no-package-lock"], None);
    run(&project, "npm", &["test"], None);
    run(&project, "npm", &["run", "build"], None);
    let file = project.join("quiet-night.wasm");
    let rules = r#"{"drop":[{"kinds":["cache-reset"]}]}"#;
    let (code, report) =
        checked(&[text(&file), "--timeout", "500", "--memory", "64", "--config", rules]);
    assert_eq!((code, &report["problems"]), (0, &json!([])), "{report:#}");
    let row = |kind: &str| report["facts"].as_array()?.iter().find(|row| row["kind"] == kind);
    assert_eq!(row("cache-reset").expect("a row")["verdict"], "dropped");
    assert_eq!(row("startup").expect("a row")["verdict"], "same");
    let table =
        "timeout = 500\nmemory = 64\n[filter.config]\ndrop = [{ kinds = [\"cache-reset\"] }]";
    goes_live(&file, table, |n| crate::worker::kind(n) == "inference-completed").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Python package: make test-guests"]
async fn a_new_filter_in_python_is_built_checked_and_live() {
    let project = scaffold("python", "quiet-night");
    run(&project, "make", &["test"], None);
    run(&project, "make", &[], None);
    let file = project.join("quiet-night.wasm");
    let tenants = r#"{"tenants":[{"prefix":"acme-"}]}"#;
    let limits = ["--timeout", "500", "--memory", "64", "--config", tenants];
    let (code, report) = checked(&[&[text(&file)], &limits[..]].concat());
    assert_eq!((code, &report["problems"]), (0, &json!([])), "{report:#}");
    let table = "timeout = 500\nmemory = 64\n[filter.config]\ntenants = [{ prefix = \"acme-\" }]";
    goes_live(&file, table, |n| {
        n["human"].as_str().is_some_and(|text| text.starts_with("[acme] "))
    })
    .await;
}
