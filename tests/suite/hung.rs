//! Promise: a hung engine holds nothing but its jobs. Who asks for the worker's state gets it, and the
//! worker ends as asked, its streams with their last frame.

use std::process::Command;

use serde_json::{Value, json};

use crate::stream::{long_job, until_token};
use crate::worker::{BINARY, Worker, frames, real_model};

/// Runs a worker and, on SIGUSR1, stops its engine's thread for ever, as a debugger would: the thread
/// alone, in the middle of whatever it does. SIGTERM is handed on. Only the parent may do that on every
/// system, so this is one.
const TRACER: &str = r#"
import ctypes, os, signal, subprocess, sys
worker = subprocess.Popen(sys.argv[1:])
ptrace = ctypes.CDLL(None, use_errno=True).ptrace
ATTACH, ALL_THREADS = 16, 0x40000000
def hang(*_):
    tasks = f"/proc/{worker.pid}/task"
    for task in os.listdir(tasks):
        if open(f"{tasks}/{task}/comm").read().strip() == "engine":
            if ptrace(ATTACH, int(task), None, None) != 0:
                os.write(2, b"ptrace is refused\n")
                worker.kill()
signal.signal(signal.SIGUSR1, hang)
signal.signal(signal.SIGTERM, lambda *_: worker.send_signal(signal.SIGTERM))
while True:
    pid, status = os.waitpid(-1, ALL_THREADS)
    if not os.WIFSTOPPED(status) and pid == worker.pid:
        sys.exit(os.waitstatus_to_exitcode(status) & 0xff)
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_engine_is_seen_and_keeps_no_worker_from_its_end() {
    let mut command = Command::new("python3");
    command.args(["-c", TRACER, BINARY, "serve", "--port", "0", "--exit-with-parent"]);
    command.args(["--slots", "1", "--stall-ms", "300", "--grace-ms", "700", "--model"]);
    command.arg(real_model());
    let worker = Worker::run(&mut command);
    worker.ready().await;
    let mut running = worker.post("/execute", &long_job("runs")).await;
    until_token(&mut running).await;
    worker.signal("USR1");
    let get = |path: &str| worker.client.get(worker.url(path)).send();
    let refused = loop {
        let ready = get("/ready").await.expect("it answers");
        if ready.status() == 503 {
            break ready;
        }
    };
    assert!(refused.headers().contains_key("retry-after"));
    let state: Value = refused.json().await.expect("JSON");
    assert_eq!(state["state"], "stalled");
    let health: Value = get("/health").await.expect("it answers").json().await.expect("JSON");
    assert_eq!((&health["status"], &health["active_jobs"]), (&json!("stalled"), &json!(1)));
    let metrics = get("/metrics").await.expect("it answers").text().await.expect("a body");
    assert!(metrics.contains("worker_active_jobs 1"), "{metrics}");
    let job: Value = get("/jobs/runs").await.expect("it answers").json().await.expect("JSON");
    assert_eq!(job["state"], "running");
    assert_eq!(worker.post("/cancel", &json!({"job_id": "runs"})).await.status(), 202);
    let new = worker.post("/execute", &json!({"prompt": "a", "max_tokens": 1})).await;
    assert_eq!(new.status(), 503, "it takes no work that it can't do");
    let asked = std::time::Instant::now();
    worker.signal("TERM");
    let last = frames(running).await;
    let last = last.last().expect("frames");
    assert_eq!((last.event.as_str(), &last.data["code"]), ("error", &json!("SHUTTING_DOWN")));
    let (status, stderr, told) = worker.ended();
    eprintln!("ended {:?} after SIGTERM, with a grace of 700 ms", asked.elapsed());
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("the worker ends without it"), "{stderr}");
    assert!(told.iter().any(|n| crate::worker::kind(n) == "server-shutdown"));
}
