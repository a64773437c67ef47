//! Promise: a worker that serves for hours, its filters changed all the while, does not grow: memory,
//! threads and descriptors stay as they are. `SOAK_MINUTES` is the full form's length.

use std::time::{Duration, Instant};

use serde_json::json;

use super::client::{address, follow, request};
use super::{size, vitals};
use crate::worker::{Worker, folder};

/// Slope of a line through these points, by least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let across: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    across / points.iter().map(|p| (p.0 - x).powi(2)).sum::<f64>().max(f64::MIN_POSITIVE)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_serves_on_does_not_grow() {
    let minutes = size("SOAK_MINUTES", 0);
    let length = Duration::from_secs(if minutes == 0 { 6 } else { minutes as u64 * 60 });
    let pause = Duration::from_millis(size("SOAK_PAUSE_MS", 5) as u64);
    let filters = folder();
    let manifest = filters.join("filters.toml");
    let write = |n: usize| {
        let text = format!(
            "[[filter]]\nbuiltin = \"storyteller\"\ntimeout = {}\n[[filter]]\nbuiltin = \"redact\"\n",
            100 + n % 100
        );
        std::fs::write(manifest.with_extension("new"), text).expect("a temporary file");
        std::fs::rename(manifest.with_extension("new"), &manifest).expect("a temporary file");
    };
    write(0);
    let worker = Worker::tiny(&["--filters", &filters.display().to_string()]).await;
    let at = address(&worker);
    let (began, mut requests, mut reloads) = (Instant::now(), 0_u64, 0);
    let (mut points, mut resting) = (Vec::new(), Vec::new());
    let mut next = began;
    while began.elapsed() < length {
        let body = json!({"prompt": "on and on", "max_tokens": 1 + requests % 16}).to_string();
        let seen = follow(&at, &request("POST", "/execute", &body), |_| ()).await;
        assert!(seen.sound() && seen.ends == 1, "{seen:?}");
        requests += 1;
        if requests.is_multiple_of(64) {
            reloads += 1;
            write(reloads);
        }
        if Instant::now() >= next {
            // At rest: nobody is served, so what is there now is there for good.
            tokio::time::sleep(Duration::from_millis(300)).await;
            let (resident, threads, descriptors) = vitals(worker.pid());
            points.push((began.elapsed().as_secs_f64() / 3_600.0, resident as f64 / 1_024.0));
            resting.push((threads, descriptors));
            next = Instant::now() + length / 60;
        }
        tokio::time::sleep(pause).await;
    }
    // What is kept for late readers, and what allocators take their time for, fills up at first.
    let later = &points[points.len() / 2..];
    let (middle, last) = (resting[resting.len() / 2], resting[resting.len() - 1]);
    eprintln!(
        "FIGURE soak: {} s, {requests} requests, {reloads} reloads, rss_mib {:.1} -> {:.1} -> {:.1}, \
         slope of the second half {:.2} MiB/h, threads {} -> {}, descriptors {} -> {}",
        began.elapsed().as_secs(),
        points[0].1,
        later[0].1,
        later[later.len() - 1].1,
        slope(later),
        middle.0,
        last.0,
        middle.1,
        last.1
    );
    // The runtime's threads for blocking work come and go; whatever leaks leaks by the request.
    assert!(last.0 <= middle.0 + 8, "threads leak: {resting:?}");
    assert!(last.1 <= middle.1 + 8, "descriptors leak: {resting:?}");
    std::fs::remove_dir_all(&filters).expect("it was made above");
}

#[test]
fn a_slope_is_one() {
    let points: Vec<(f64, f64)> = (0..10).map(|n| (f64::from(n), 3.0 * f64::from(n))).collect();
    assert!((slope(&points) - 3.0).abs() < 1e-9);
}
