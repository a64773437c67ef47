//! Promise: thousands of readers get every event in order; thousands of silent or slow connections are
//! closed, and nobody else waits for them; out of descriptors, the worker neither spins nor stays out.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::client::{Seen, address, follow, percentile, request};
use super::faults::planted;
use super::{cpu_ticks, many_descriptors, size, vitals};
use crate::worker::Worker;

/// Starts `JOBS` jobs of a token a second, and `READERS` readers on their streams.
#[tokio::test(flavor = "multi_thread")]
async fn many_readers_get_every_event_in_order() {
    many_descriptors();
    let (readers, seconds) = (size("READERS", 200), size("OPEN_SECONDS", 5));
    let (jobs, step_ms) = (8.min(readers), size("STEP_MS", 200));
    let worker = planted(&["--slots", "8", "--kv-mib", "8"], &format!("step {step_ms} 0")).await;
    let before = vitals(worker.pid());
    let tokens = seconds * 1_000 / step_ms;
    let mut makers = Vec::new();
    for job in 0..jobs {
        let body = json!({"prompt": "on", "max_tokens": tokens, "temperature": 0,
            "repetition_penalty": 0.1, "progress_every": 0, "job_id": format!("j{job}")});
        let (address, bytes) = (address(&worker), request("POST", "/execute", &body.to_string()));
        makers.push(tokio::spawn(async move { follow(&address, &bytes, |_| ()).await }));
    }
    for job in 0..jobs {
        let name = format!("j{job}");
        worker.wait(&name, |narration| narration["job_id"] == name.as_str());
    }
    let began = Instant::now();
    let mut tasks = Vec::new();
    for reader in 0..readers {
        let path = format!("/jobs/j{}/events", reader % jobs);
        let (address, bytes) = (address(&worker), request("GET", &path, ""));
        tasks.push(tokio::spawn(async move { follow(&address, &bytes, |_| ()).await }));
        if reader % 100 == 99 {
            tokio::time::sleep(Duration::from_millis(20)).await; // the backlog is bounded
        }
    }
    let opened = began.elapsed();
    tokio::time::sleep(Duration::from_millis(seconds as u64 * 500)).await;
    let (peak, threads, descriptors) = vitals(worker.pid());
    let expected: Vec<Seen> = all(makers).await;
    let seen = all(tasks).await;
    let events: u64 = seen.iter().map(|seen| seen.last).sum();
    for (reader, seen) in seen.iter().enumerate() {
        assert!(seen.sound(), "reader {reader}: {seen:?}");
        assert_eq!(seen.last, expected[reader % jobs].last, "reader {reader}");
        assert!(seen.whole, "reader {reader} was cut off");
    }
    eprintln!(
        "FIGURE readers={readers} seconds={} opened_s={:.1} events={events} lost=0 reordered=0 \
         rss_before_mib={} rss_mib={} threads={threads} descriptors={descriptors}",
        began.elapsed().as_secs(),
        opened.as_secs_f64(),
        before.0 / 1_024,
        peak / 1_024
    );
}

async fn all(tasks: Vec<tokio::task::JoinHandle<Seen>>) -> Vec<Seen> {
    let mut seen = Vec::new();
    for task in tasks {
        seen.push(task.await.expect("no panic"));
    }
    seen
}

/// The harness sees a reader that lost an event, got one twice, or two ends.
#[test]
fn the_reader_sees_what_is_lost_doubled_or_ended_twice() {
    let check = |text: &str, sound: bool| {
        let mut seen = Seen::default();
        seen.take(text.as_bytes());
        assert_eq!(seen.sound(), sound, "{text}");
    };
    check("id: 1\nevent: started\n\nid: 2\nevent: end\n\n", true);
    check("id: 1\nevent: started\n\nid: 3\nevent: end\n\n", false);
    check("id: 1\nevent: started\n\nid: 1\nevent: end\n\n", false);
    check("id: 1\nevent: started\n\n", false);
    check("id: 1\nevent: end\n\nid: 2\nevent: error\n\n", false);
}

/// What a hostile connection sends, and how its answer begins.
async fn hang_around(address: String, first: &'static [u8], drip: bool) -> (Duration, String) {
    let mut stream = TcpStream::connect(address).await.expect("the worker listens");
    let began = Instant::now();
    stream.write_all(first).await.expect("it can be sent");
    let (mut text, mut piece) = (Vec::new(), [0; 1_024]);
    loop {
        let read = tokio::time::timeout(Duration::from_secs(1), stream.read(&mut piece)).await;
        match read {
            Ok(Ok(count @ 1..)) => text.extend_from_slice(&piece[..count]),
            Ok(_) => return (began.elapsed(), String::from_utf8_lossy(&text).into_owned()),
            Err(_) if drip => drop(stream.write(b" ").await),
            Err(_) => {}
        }
    }
}

/// Asks over and over until told to stop; how long each answer took, ms.
async fn honest(address: String, stop: word::Stop) -> Vec<f64> {
    let mut took = Vec::new();
    while !stop.said() {
        let began = Instant::now();
        let body = json!({"prompt": "a", "max_tokens": 1}).to_string();
        let seen = follow(&address, &request("POST", "/execute", &body), |_| ()).await;
        assert!(seen.sound(), "an honest client is served: {seen:?}");
        took.push(began.elapsed().as_secs_f64() * 1e3);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    took.sort_by(f64::total_cmp);
    took
}

/// A word that everybody hears.
pub mod word {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[derive(Clone, Default)]
    pub struct Stop(Arc<AtomicBool>);

    impl Stop {
        pub fn say(&self) {
            self.0.store(true, Ordering::Release);
        }

        pub fn said(&self) -> bool {
            self.0.load(Ordering::Acquire)
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_silent_and_the_slow_are_closed_by_thousands() {
    many_descriptors();
    let (count, bodies) = (size("SILENT", 150), size("BODIES", 60));
    let worker = Worker::tiny(&["--queue", "256"]).await;
    let head = b"POST /execute HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000\r\n\
        Content-Type: application/json\r\n\r\n{\"prompt\":";
    let kinds: [(&str, usize, &[u8], bool); 4] = [
        ("silent", count, b"", false),
        ("slow headers", count, b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", true),
        ("slow bodies", bodies, head, true),
        ("idle after an answer", count, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", false),
    ];
    for (what, count, first, drip) in kinds {
        let stop = word::Stop::default();
        let honest = tokio::spawn(honest(address(&worker), stop.clone()));
        let mut tasks = Vec::new();
        for number in 0..count {
            tasks.push(tokio::spawn(hang_around(address(&worker), first, drip)));
            if number % 100 == 99 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let mut slowest = Duration::ZERO;
        for task in tasks {
            let (took, answer) = task.await.expect("no panic");
            slowest = slowest.max(took);
            let status = answer.get(9..12).unwrap_or("none");
            let right: &[&str] = match what {
                "slow bodies" => &["408"],
                "idle after an answer" => &["200"],
                _ => &["none", "408"],
            };
            assert!(right.contains(&status), "{what}: {answer}");
        }
        stop.say();
        let took = honest.await.expect("an honest client is served");
        eprintln!(
            "FIGURE {what}: {count} closed, the last after {:.1} s; honest requests={} p50_ms={:.0} \
             p99_ms={:.0}",
            slowest.as_secs_f64(),
            took.len(),
            percentile(&took, 0.5),
            percentile(&took, 0.99)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn out_of_descriptors_it_waits_and_comes_back() {
    let worker = Worker::tiny(&[]).await;
    let pid = worker.pid().to_string();
    let (_, _, used) = vitals(worker.pid());
    let limit = format!("--nofile={0}:{0}", used + 16);
    let set = std::process::Command::new("prlimit").args(["--pid", &pid, &limit]).status();
    assert!(set.expect("prlimit can be run").success());
    // More than it can take; what it can't waits in the system's backlog.
    let mut held = Vec::new();
    for _ in 0..64 {
        held.push(TcpStream::connect(address(&worker)).await.expect("the backlog takes it"));
    }
    let before = cpu_ticks(worker.pid());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let spun = cpu_ticks(worker.pid()) - before;
    // 2 s in a loop would be 200 ticks; looking 20 times a second costs next to none.
    assert!(spun < 100, "it spins: {spun} ticks of CPU time in 2 s");
    let began = Instant::now();
    drop(held);
    let body = json!({"prompt": "a", "max_tokens": 2}).to_string();
    let seen = follow(&address(&worker), &request("POST", "/execute", &body), |_| ()).await;
    assert!(seen.sound(), "{seen:?}");
    eprintln!("FIGURE out of descriptors: back after {:.2} s", began.elapsed().as_secs_f64());
}
