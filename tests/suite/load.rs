//! Promise: clients that leave, workers that end and a stdout that nobody reads each touch only what
//! is theirs: other streams go on, every stream gets its last frame, and nothing leaks.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::stream::{long_job, slow};
use crate::worker::{BINARY, Worker, folder, frames, kind, take_frames};

/// A seed that can be given, and is printed so that a failure can be repeated.
pub fn seed() -> u64 {
    let given = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or(41);
    eprintln!("SEED={seed}");
    seed
}

/// How a client leaves.
#[derive(Clone, Copy, Debug)]
enum Leave {
    /// Closes in order.
    Fin,
    /// Cuts off.
    Reset,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_leave_at_any_frame_and_nobody_else_notices() {
    let worker = slow(&["--slots", "4"]).await;
    let mut honest = worker.post("/execute", &long_job("honest")).await;
    let mut text = Vec::new();
    let count = std::env::var("FRAMES").ok().and_then(|count| count.parse().ok()).unwrap_or(24);
    for frame in 0..count {
        let how = if frame % 2 == 0 { Leave::Fin } else { Leave::Reset };
        let job = format!("left-{frame}");
        leave(&worker, &job, frame, how).await;
        let ended = worker.wait(&format!("the end of {job}, left by {how:?}"), |n| {
            n["job_id"] == job.as_str() && kind(n).starts_with("inference-c")
        });
        assert_eq!(ended["fact"]["inference-cancelled"]["by"], "disconnect", "{ended}");
        text.extend_from_slice(&honest.chunk().await.expect("it goes on").expect("it goes on"));
    }
    assert_eq!(worker.post("/cancel", &json!({"job_id": "honest"})).await.status(), 202);
    while let Some(bytes) = honest.chunk().await.expect("it does not break") {
        text.extend_from_slice(&bytes);
    }
    let mut frames = Vec::new();
    take_frames(&mut text, &mut frames);
    let ids: Vec<String> = frames.iter().map(|frame| frame.id.clone()).collect();
    assert_eq!(ids, (1..=ids.len()).map(|n| n.to_string()).collect::<Vec<_>>());
    let health = worker.client.get(worker.url("/health")).send().await.expect("it answers");
    let health: Value = health.json().await.expect("JSON");
    assert_eq!((&health["active_jobs"], &health["queued_jobs"]), (&json!(0), &json!(0)));
}

/// Starts a job, reads that many frames, and leaves.
async fn leave(worker: &Worker, job: &str, frames: usize, how: Leave) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let address = worker.url("").trim_start_matches("http://").to_owned();
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("the worker listens");
    let body = long_job(job).to_string();
    let head = format!(
        "POST /execute HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("it reads");
    let (mut text, mut piece) = (Vec::new(), [0; 512]);
    worker.wait("the job", |n| n["job_id"] == job);
    while text.windows(5).filter(|w| w == b"\nid: ").count() < frames {
        let count = stream.read(&mut piece).await.expect("it does not break");
        assert!(count > 0, "it goes on");
        text.extend_from_slice(&piece[..count]);
    }
    if matches!(how, Leave::Reset) {
        #[expect(deprecated, reason = "a linger of 0 blocks nothing: it cuts off")]
        stream.set_linger(Some(Duration::ZERO)).expect("it can be set");
    }
    drop(stream);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_under_load_gives_every_stream_its_last_frame() {
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed());
    for round in 0..3 {
        let worker = slow(&["--grace-ms", "300", "--slots", "4", "--queue", "64"]).await;
        let mut streams = Vec::new();
        for number in 0..24 {
            let tokens: u32 = random.random_range(1..400);
            let body = json!({"prompt": "on", "max_tokens": tokens, "temperature": 0,
                "repetition_penalty": 0.1, "job_id": format!("j{number}")});
            let response = worker.post("/execute", &body).await;
            assert_eq!(response.status(), 200);
            streams.push(tokio::spawn(frames(response)));
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..600))).await;
        worker.signal("TERM");
        for (number, stream) in streams.into_iter().enumerate() {
            let frames = stream.await.expect("the stream is whole");
            let last = frames.iter().filter(|f| f.event == "end" || f.event == "error");
            assert_eq!(last.count(), 1, "round {round}, stream {number}");
            let last = frames.last().expect("frames");
            let code = last.data["code"].as_str().unwrap_or("none");
            assert!(last.event == "end" || code == "SHUTTING_DOWN", "{last:?}");
        }
        let (status, stderr, told) = worker.ended();
        assert_eq!(status.code(), Some(0), "{stderr}");
        assert_eq!(told.iter().filter(|n| kind(n) == "server-shutdown").count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stdout_that_takes_nothing_stops_nobody_and_is_counted() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let (reader, closed) = std::io::pipe().expect("a pipe");
    drop(reader);
    let (_unread, stopped) = std::io::pipe().expect("a pipe");
    for (what, stdout) in
        [("full", Stdio::from(full)), ("closed", closed.into()), ("stopped", stopped.into())]
    {
        let folder = folder();
        let model = folder.join("tiny.gguf");
        std::fs::write(&model, crate::gguf::tiny_llama(7)).expect("a temporary file");
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("it is bound");
        drop(free);
        let mut child = Command::new(BINARY)
            .args(["serve", "--port", &address.port().to_string(), "--model"])
            .arg(&model)
            .stdout(stdout)
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary can be run");
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let url = |path: &str| format!("http://{address}{path}");
        let until = Instant::now() + Duration::from_secs(120);
        while !client.get(url("/ready")).send().await.is_ok_and(|r| r.status() == 200) {
            assert!(Instant::now() < until, "{what}: it never became ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let body = json!({"prompt": "hum", "max_tokens": 200, "temperature": 0,
            "repetition_penalty": 0.1, "progress_every": 1});
        for _ in 0..3 {
            let response = client.post(url("/execute")).json(&body).send().await;
            let frames = frames(response.expect("it answers")).await;
            assert_eq!(frames.last().expect("frames").event, "end", "{what}");
            assert!(frames.iter().any(|frame| frame.event == "narration"), "{what}");
        }
        let metrics = client.get(url("/metrics")).send().await.expect("it answers");
        let metrics = metrics.text().await.expect("a body");
        if what != "stopped" {
            let lost = metrics.lines().find_map(|line| {
                line.strip_prefix("worker_narrations_lost_total{sink=\"stdout\"} ")
            });
            assert!(lost.is_some_and(|lost| lost != "0"), "{what}: {lost:?}");
        }
        assert_eq!(client.post(url("/shutdown")).send().await.expect("it answers").status(), 202);
        assert_eq!(child.wait().expect("it ends").code(), Some(0), "{what}");
        std::fs::remove_dir_all(&folder).expect("it was made above");
    }
}
