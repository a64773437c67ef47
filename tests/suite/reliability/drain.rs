//! Promise: whenever the worker is asked to end, and whatever takes its stdout, every stream gets its
//! one last frame and the worker exits 0.

use std::time::{Duration, Instant};

use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;

use super::client::{address, follow, request};
use super::faults::planted;
use super::{many_descriptors, size};
use crate::load::seed;
use crate::stream::slow;
use crate::worker::{Worker, kind};

const GRACE_MS: u64 = 300;

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_at_any_instant_gives_every_stream_its_last_frame() {
    many_descriptors();
    let (seed, rounds, streams) = (seed(), size("INSTANTS", 3), size("STREAMS", 40));
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let (mut slowest, mut well, mut cut) = (Duration::ZERO, 0, 0);
    for round in 0..rounds {
        let grace = GRACE_MS.to_string();
        let arguments = ["--grace-ms", &grace, "--slots", "8", "--queue", "256"];
        let worker = Worker::tiny(&arguments).await;
        let mut tasks = Vec::new();
        for number in 0..streams {
            let body = json!({"prompt": "on", "max_tokens": random.random_range(1..200),
                "temperature": 0, "repetition_penalty": 0.1, "job_id": format!("j{number}")});
            let (at, bytes) = (address(&worker), request("POST", "/execute", &body.to_string()));
            tasks.push(tokio::spawn(async move { follow(&at, &bytes, |_| ()).await }));
        }
        tokio::time::sleep(Duration::from_micros(random.random_range(0..900_000))).await;
        worker.signal("TERM");
        let asked = Instant::now();
        for task in tasks {
            let seen = task.await.expect("no panic");
            match seen.status {
                200 => assert!(seen.sound() && seen.whole, "SEED={seed} round {round}: {seen:?}"),
                // Before it was taken: refused, or the worker was gone.
                found => assert!(found == 503 || found == 0, "SEED={seed} {round}: {seen:?}"),
            }
            let told = ["", "SHUTTING_DOWN"].contains(&seen.code.as_str());
            assert!(told, "SEED={seed} round {round}: {seen:?}");
            well += seen.ends;
            cut += seen.errors;
        }
        let (status, stderr, told) = worker.ended();
        slowest = slowest.max(asked.elapsed());
        assert_eq!(status.code(), Some(0), "SEED={seed} round {round}: {stderr}");
        assert_eq!(told.iter().filter(|n| kind(n) == "server-shutdown").count(), 1);
    }
    eprintln!(
        "FIGURE SIGTERM: {rounds} instants x {streams} streams: {well} ended well, {cut} with \
         SHUTTING_DOWN, 0 without a last frame; slowest exit {:.2} s after the signal (grace {} s)",
        slowest.as_secs_f64(),
        GRACE_MS as f64 / 1e3
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_in_prefill_in_a_reload_and_twice_is_a_graceful_end() {
    for moment in ["prefill", "reload", "twice", "queued", "draining reload"] {
        let filters = crate::worker::folder();
        let manifest = filters.join("filters.toml");
        let chain = "[[filter]]\nbuiltin = \"storyteller\"\n[[filter]]\nbuiltin = \"redact\"\n";
        std::fs::write(&manifest, chain).expect("a temporary file");
        let shown = filters.display().to_string();
        // Each step takes 30 ms, so that a moment lasts long enough to be met.
        let arguments = ["--grace-ms", "400", "--slots", "1", "--filters", &shown];
        let worker = planted(&arguments, "step 30 0").await;
        let body = json!({"prompt": "long ".repeat(300), "max_tokens": 400, "temperature": 0,
            "repetition_penalty": 0.1, "job_id": "j0"});
        let (at, bytes) = (address(&worker), request("POST", "/execute", &body.to_string()));
        let stream = tokio::spawn(async move { follow(&at, &bytes, |_| ()).await });
        worker.fact("prefill-progress");
        let mut second = None;
        match moment {
            "reload" => {
                std::fs::write(&manifest, chain.replace("\n[[", "\n\n[[")).expect("it is ours");
                worker.signal("HUP");
            }
            "queued" => {
                let (at, bytes) = (
                    address(&worker),
                    request(
                        "POST",
                        "/execute",
                        "{\"prompt\":\"a\",\"max_tokens\":3,\"job_id\":\"j1\"}",
                    ),
                );
                second = Some(tokio::spawn(async move { follow(&at, &bytes, |_| ()).await }));
                worker.fact("request-queued");
            }
            _ => {}
        }
        worker.signal("TERM");
        match moment {
            "twice" => {
                worker.fact("server-shutdown");
                worker.signal("TERM");
            }
            "draining reload" => worker.signal("HUP"),
            _ => {}
        }
        for stream in [Some(stream), second].into_iter().flatten() {
            let seen = stream.await.expect("no panic");
            assert!(seen.sound() && seen.whole, "{moment}: {seen:?}");
        }
        let (status, stderr, _) = worker.ended();
        assert_eq!(status.code(), Some(0), "{moment}: {stderr}");
        std::fs::remove_dir_all(&filters).expect("it was made above");
    }
}

/// A stdout whose reader stops for a while and comes back: what is told is told without a doubt.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes on a busy machine: `make soak` runs it"]
async fn a_stdout_that_stops_and_goes_on_is_told_what_was_lost() {
    let worker = slow(&["--slots", "4"]).await;
    let at = address(&worker);
    worker.pause_stdout(true);
    // More than the pipe and the queue before it take.
    let body = json!({"prompt": "hum", "max_tokens": 3_500, "temperature": 0,
        "repetition_penalty": 0.1, "progress_every": 1});
    for _ in 0..2 {
        let bytes = request("POST", "/execute", &body.to_string());
        let seen = follow(&at, &bytes, |_| ()).await;
        assert!(seen.sound() && seen.whole, "{seen:?}");
    }
    let metrics = worker.client.get(worker.url("/metrics")).send().await.expect("it answers");
    let metrics = metrics.text().await.expect("a body");
    let lost = metrics
        .lines()
        .find_map(|line| line.strip_prefix("worker_narrations_lost_total{sink=\"stdout\"} "));
    let lost: u64 = lost.and_then(|n| n.parse().ok()).unwrap_or(0);
    assert!(lost > 0, "nothing was lost: the queue has no bound");
    worker.pause_stdout(false);
    let told: u64 = loop {
        // Somebody has to tell something for the losses to be told after it.
        let body = json!({"prompt": "a", "max_tokens": 1});
        assert_eq!(worker.execute(&body).await.last().expect("frames").event, "end");
        let losses: u64 = worker
            .told()
            .iter()
            .filter(|n| n["fact"]["narration-lost"]["sink"] == "stdout")
            .map(|n| n["fact"]["narration-lost"]["count"].as_u64().expect("a number"))
            .sum();
        if losses >= lost {
            break losses;
        }
    };
    eprintln!("FIGURE stdout that stopped: {lost} lost by the count, {told} told");
}

/// Nothing kept is what a supervisor needs to start it again at once, on the same port.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes on a busy machine: `make soak` runs it"]
async fn after_any_end_the_same_port_serves_again_at_once() {
    let folder = crate::worker::folder();
    let model = folder.join("tiny.gguf");
    std::fs::write(&model, crate::gguf::tiny_llama(7)).expect("a temporary file");
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = free.local_addr().expect("it is bound").port();
    drop(free);
    for end in ["TERM", "KILL", "INT", "KILL"] {
        let worker = Worker::spawn_on(port, &model, &["--grace-ms", "300"]);
        worker.ready().await;
        let body = json!({"prompt": "on", "max_tokens": 200, "temperature": 0}).to_string();
        let (at, bytes) = (address(&worker), request("POST", "/execute", &body));
        let stream = tokio::spawn(async move { follow(&at, &bytes, |_| ()).await });
        worker.fact("inference-started");
        worker.signal(end);
        let seen = stream.await.expect("no panic");
        assert!(end == "KILL" || (seen.sound() && seen.whole), "{end}: {seen:?}");
        let (status, _, _) = worker.ended();
        assert_eq!(status.code(), (end != "KILL").then_some(0), "{end}");
    }
    std::fs::remove_dir_all(&folder).expect("it was made above");
}
