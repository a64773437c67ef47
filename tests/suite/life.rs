//! Promise: a worker is configured by flag, environment and file, in this order; it tells its pool
//! manager how to reach it, ends with its parent where asked to, and drains at whatever moment.

use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::stream::{long_job, slow};
use crate::worker::{BINARY, Worker, folder, kind};

/// A pool manager that hears `calls` calls and answers each with the status next in line.
fn manager(listener: TcpListener, statuses: &'static [u16]) -> tokio::task::JoinHandle<Vec<Value>> {
    tokio::spawn(async move {
        let mut heard = Vec::new();
        for status in statuses {
            let (mut stream, _) = listener.accept().await.expect("the worker calls");
            let mut request = Vec::new();
            while !request.ends_with(b"}") {
                let mut piece = [0; 1_024];
                let read = stream.read(&mut piece).await.expect("it can be read");
                request.extend_from_slice(&piece[..read]);
            }
            let answer =
                format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.expect("it can be answered");
            let request = String::from_utf8(request).expect("UTF-8");
            let body = request.split("\r\n\r\n").nth(1).expect("a body");
            heard.push(serde_json::from_str(body).expect("JSON"));
        }
        heard
    })
}

async fn listening() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/workers", listener.local_addr().expect("it is bound"));
    (listener, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_follow_the_ready_call_and_a_failed_one_ends_nothing() {
    let (listener, url) = listening().await;
    let heard = manager(listener, &[204, 500, 204]);
    let worker = Worker::tiny(&["--callback-url", &url, "--heartbeat-s", "1"]).await;
    let heard = heard.await.expect("the manager hears");
    assert!(heard[0].get("state").is_none(), "{}", heard[0]);
    for beat in &heard[1..] {
        for field in ["worker_id", "uri", "model_ref", "resident_bytes", "backend", "device", "pid"]
        {
            assert_eq!(beat[field], heard[0][field], "{field}");
            assert!(!beat[field].is_null(), "{field}");
        }
        assert_eq!((&beat["state"], &beat["active_jobs"]), (&json!("ready"), &json!(0)));
    }
    let failed = worker.fact("heartbeat-failed");
    assert_eq!((&failed["severity"], &failed["action"]), (&json!("warn"), &json!("heartbeat")));
    let health = worker.client.get(worker.url("/health")).send().await.expect("it lives");
    assert_eq!(health.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_advertised_url_is_announced_and_let_in() {
    let arguments = ["--host", "0.0.0.0", "--insecure", "--callback-url"];
    for (flag, value) in
        [("--advertise", "http://hive-1.example:9000"), ("--host-name", "hive-1.example")]
    {
        let (listener, url) = listening().await;
        let heard = manager(listener, &[200]);
        let worker = Worker::tiny(&[&arguments[..], &[&url, flag, value]].concat()).await;
        let bound = worker.url("");
        let port = bound.rsplit(':').next().expect("a port");
        let expected = match flag {
            "--advertise" => value.to_owned(),
            _ => format!("http://{value}:{port}"),
        };
        assert_eq!(heard.await.expect("the manager hears")[0]["uri"], expected);
        for (host, status) in [("hive-1.example:9000", 404), ("hive-2.example:9000", 421)] {
            let url = format!("http://127.0.0.1:{port}/jobs/none");
            let request = worker.client.get(url).header("host", host);
            assert_eq!(request.send().await.expect("it answers").status(), status, "{host}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_ends_with_its_parent_and_finishes_its_work_first() {
    let folder = folder();
    let model = folder.join("tiny.gguf");
    std::fs::write(&model, crate::gguf::tiny_llama(7)).expect("a temporary file");
    let mut shell = Command::new("sh");
    shell
        .args(["-c", r#""$0" "$@" & wait"#, BINARY, "serve", "--port", "0", "--exit-with-parent"])
        .args(["--worker-id", "orphan", "--model"])
        .arg(&model);
    let worker = Worker::run(&mut shell);
    worker.fact("warmup-completed");
    let body = json!({"prompt": "a", "max_tokens": 400, "job_id": "last", "progress_every": 1});
    let response = loop {
        let response = worker.post("/execute", &body).await;
        if response.status() == 200 {
            break response; // before, the model was loaded but not yet in service
        }
    };
    worker.signal("KILL");
    let frames = crate::worker::frames(response).await;
    let last = frames.last().expect("frames");
    assert_eq!(last.event, "end", "{}", last.data);
    let shutdown = worker.fact("server-shutdown");
    assert_eq!(shutdown["fact"]["server-shutdown"]["cause"], "parent-gone");
    let (_, stderr, _) = worker.ended(); // stderr is open until the worker itself has ended
    assert!(!stderr.contains("panicked"), "{stderr}");
    std::fs::remove_dir_all(&folder).expect("it was made above");
}

/// Whether the process has a handler for SIGTERM.
fn catches_sigterm(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("a mask");
    u64::from_str_radix(mask.trim(), 16).expect("hexadecimal") & (1 << 14) != 0
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_at_odd_moments_is_a_graceful_end() {
    for moment in ["handler", "startup", "server-started", "model-load-started", "warmup-started"] {
        let worker = Worker::spawn(&crate::worker::real_model(), &[]);
        match moment {
            "handler" => while !catches_sigterm(worker.pid()) {},
            told => drop(worker.fact(told)),
        }
        worker.signal("TERM");
        let (status, stderr, told) = worker.ended();
        assert_eq!(status.code(), Some(0), "{moment}: {stderr}");
        assert!(!stderr.contains("panicked"), "{moment}: {stderr}");
        let shutdown = told.iter().find(|n| kind(n) == "server-shutdown").expect(moment);
        assert_eq!(shutdown["fact"]["server-shutdown"]["cause"], "signal", "{moment}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_worker_still_answers_and_a_second_signal_ends_it() {
    let worker = slow(&["--grace-ms", "600000"]).await;
    let mut running = worker.post("/execute", &long_job("long")).await;
    let mut bytes = running.chunk().await.expect("it streams").expect("a first frame").to_vec();
    worker.signal("TERM");
    worker.fact("server-shutdown");
    let get = |path: &str| worker.client.get(worker.url(path)).send();
    let refused = worker.post("/execute", &json!({"prompt": "a", "max_tokens": 1})).await;
    let ready = get("/ready").await.expect("it still answers");
    let health = get("/health").await.expect("it still answers");
    assert_eq!((refused.status().as_u16(), ready.status().as_u16()), (503, 503));
    let wait = refused.headers()["retry-after"].to_str().expect("ASCII");
    assert!(wait.parse::<u64>().is_ok_and(|s| s > 0), "{wait}");
    assert_eq!(health.status(), 200);
    worker.signal("INT");
    while let Some(piece) = running.chunk().await.expect("the stream does not break") {
        bytes.extend_from_slice(&piece);
    }
    let mut frames = Vec::new();
    crate::worker::take_frames(&mut bytes, &mut frames);
    let last = frames.last().expect("frames");
    let (status, stderr, _) = worker.ended();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert_eq!((last.event.as_str(), &last.data["code"]), ("error", &json!("SHUTTING_DOWN")));
}

/// Seconds of an answer's `Retry-After`.
fn retry_after(answer: &reqwest::Response) -> u64 {
    let value = answer.headers()["retry-after"].to_str().expect("ASCII");
    value.parse().unwrap_or_else(|_| panic!("{value} is no number of seconds"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_worker_says_when_it_is_gone() {
    let short = json!({"prompt": "a", "max_tokens": 2, "temperature": 0});
    // Nothing has ended yet: what is known is the grace.
    let worker = slow(&["--grace-ms", "20000"]).await;
    let _running = worker.post("/execute", &long_job("long")).await;
    let asked = Instant::now();
    worker.signal("TERM");
    worker.fact("server-shutdown");
    for path in ["/execute", "/shutdown"] {
        let refused = worker.post(path, &short).await;
        assert_eq!(refused.status(), 503, "{path}");
        let (said, spent) = (retry_after(&refused), asked.elapsed().as_secs() + 1);
        assert!(said <= 20 && said + spent >= 20, "{said} s after {spent} s");
    }
    let ready = worker.client.get(worker.url("/ready")).send().await.expect("it answers");
    assert_eq!(ready.status(), 503);
    assert!((1..=20).contains(&retry_after(&ready)));
    drop(worker);
    // Jobs have ended at a rate: the one that is left is expected to end by it, long before the grace.
    let worker = slow(&["--grace-ms", "600000"]).await;
    let began = Instant::now();
    for _ in 0..9 {
        worker.execute(&short).await;
    }
    let mut running = worker.post("/execute", &long_job("long")).await;
    crate::stream::until_token(&mut running).await;
    worker.signal("TERM");
    worker.fact("server-shutdown");
    let refused = worker.post("/v1/completions", &json!({"model": "x", "prompt": "a"})).await;
    assert_eq!(refused.status(), 503);
    // Eight ended after the first, in less time than since the beginning.
    let most = began.elapsed().as_secs_f64() / 8.0;
    assert!(retry_after(&refused) as f64 <= most.ceil().max(1.0), "{most}");
}

fn check_file(text: &str, expected: &str) {
    let folder = folder();
    let file = folder.join("worker.toml");
    std::fs::write(&file, text).expect("a temporary file");
    let (status, stderr, _) =
        Worker::run(Command::new(BINARY).args(["serve", "--config"]).arg(&file)).ended();
    std::fs::remove_dir_all(&folder).expect("it was made above");
    assert_eq!(status.code(), Some(2), "{stderr}");
    assert!(stderr.contains(expected), "expected {expected:?} in {stderr}");
}

#[test]
fn a_file_that_is_wrong_names_its_line_and_no_value() {
    check_file("queue = 3\n\nsurprise = \"swordfish\"\n", "line 3: unknown field `surprise`");
    check_file("port = 70000", "line 1: ");
    check_file("port = ", "line 1: ");
    check_file("queue = 0\nmodel = \"m\"", "--queue is 1 to");
    check_file("", "no model is named");
    check_file(&"#".repeat(70_000), "has more than the 65536 bytes");
    check_file(
        "model = \"m\"\nhost = \"0.0.0.0\"\ninsecure = true\ncallback-url = \"http://a/\"",
        "give --advertise",
    );
    let missing = Worker::run(Command::new(BINARY).args(["serve", "--config", "none.toml"]));
    let (status, stderr, _) = missing.ended();
    assert_eq!(status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("none.toml can't be read"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let folder = folder();
    std::fs::write(folder.join("tiny.gguf"), crate::gguf::tiny_llama(7)).expect("temporary");
    std::fs::write(folder.join("token"), "honey-1").expect("temporary");
    let file = folder.join("worker.toml");
    let text = "model = \"tiny.gguf\"\nport = 0\nworker-id = \"file\"\ngrace-ms = 1001\n\
        narration = \"json\"\nhost-name = [\"hive.example\"]\napi-token-file = \"token\"\n";
    std::fs::write(&file, text).expect("temporary");
    let cases: [(&[&str], Option<&str>, &str, u64); 3] = [
        (&[], None, "file", 1001),
        (&[], Some("environment"), "environment", 1001),
        (&["--worker-id", "flag", "--grace-ms", "1003"], Some("environment"), "flag", 1003),
    ];
    for (arguments, environment, id, grace) in cases {
        let mut command = Command::new(BINARY);
        command.arg("serve").args(arguments).env("RBEES_CONFIG", &file);
        command.envs(environment.map(|id| ("RBEES_WORKER_ID", id)));
        command.envs(environment.map(|_| ("RBEES_API_TOKEN", "honey-2")));
        let worker = Worker::run(&mut command);
        worker.fact("warmup-completed");
        let token = if environment.is_some() { "honey-2" } else { "honey-1" };
        let request = worker.client.get(worker.url("/jobs/none")).bearer_auth(token);
        let answer = request.header("host", "hive.example").send().await.expect("it answers");
        assert_eq!(answer.status(), 404, "name and token count");
        worker.signal("TERM");
        let (status, stderr, told) = worker.ended();
        assert_eq!(status.code(), Some(0), "{stderr}");
        let shutdown = told.iter().find(|n| kind(n) == "server-shutdown").expect("it is told");
        assert_eq!(shutdown["worker_id"], id);
        assert_eq!(shutdown["fact"]["server-shutdown"]["grace_ms"], grace);
    }
    std::fs::remove_dir_all(&folder).expect("it was made above");
}
