//! Starts the real worker, reads its narration, and speaks HTTP with it. Waits for facts, never for
//! times; a worker that a test forgets ends with the test.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a test waits for something that has to come; only a hang gets there.
const PATIENCE: Duration = Duration::from_secs(120);

/// The worker's binary.
pub const BINARY: &str = env!("CARGO_BIN_EXE_rbees-workerd");

/// A running worker.
pub struct Worker {
    child: Child,
    told: Arc<(Mutex<Vec<Value>>, Condvar)>,
    pub client: reqwest::Client,
    folder: PathBuf,
    paused: Arc<AtomicBool>,
}

/// One frame of a stream.
#[derive(Clone, Debug)]
pub struct Frame {
    pub id: String,
    pub event: String,
    pub data: Value,
    pub at: Instant,
}

/// An empty folder of a test's own.
pub fn folder() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("rbees-test-{}", uuid::Uuid::now_v7()));
    std::fs::create_dir_all(&folder).expect("a temporary folder can be made");
    folder
}

/// Path of the default model.
pub fn real_model() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/SmolLM2-135M-Instruct.Q4_1.gguf");
    assert!(path.exists(), "{} is missing: run `make model`", path.display());
    path
}

impl Worker {
    /// A worker with the tiny model, ready to serve.
    pub async fn tiny(arguments: &[&str]) -> Worker {
        Self::with_model(&crate::gguf::tiny_llama(7), arguments).await
    }

    /// A worker with a model of these bytes, ready to serve.
    pub async fn with_model(bytes: &[u8], arguments: &[&str]) -> Worker {
        let folder = folder();
        let path = folder.join("tiny.gguf");
        std::fs::write(&path, bytes).expect("a temporary file can be written");
        let mut worker = Self::spawn(&path, arguments);
        worker.folder = folder;
        worker.ready().await;
        worker
    }

    /// A worker that has just been started; it may never become ready.
    pub fn spawn(model: &Path, arguments: &[&str]) -> Worker {
        Self::spawn_on(0, model, arguments)
    }

    /// The same on a port of the test's choice.
    pub fn spawn_on(port: u16, model: &Path, arguments: &[&str]) -> Worker {
        let mut command = Command::new(BINARY);
        command.args(["serve", "--port", &port.to_string(), "--model"]).arg(model).args(arguments);
        Self::run(&mut command)
    }

    /// A worker by a command of the test's own making.
    pub fn run(command: &mut Command) -> Worker {
        // One for all tests: what one worker has compiled, the next takes as it is.
        let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-compiled");
        let mut child = command
            .env_remove("RUST_LOG")
            .env("RBEES_FILTER_CACHE", cache)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the worker's binary can be run");
        let told = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let paused = Arc::new(AtomicBool::new(false));
        let pause = Arc::clone(&paused);
        let (stdout, sink) = (child.stdout.take().expect("it is piped"), Arc::clone(&told));
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                while pause.load(Ordering::Acquire) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                let line = line.expect("stdout is UTF-8");
                let value = serde_json::from_str(&line)
                    .unwrap_or_else(|e| panic!("stdout holds more than narrations: {e}: {line}"));
                sink.0.lock().expect("no reader panics").push(value);
                sink.1.notify_all();
            }
        });
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        Worker { child, told, client, folder: PathBuf::new(), paused }
    }

    /// Stops reading its stdout, or goes on.
    pub fn pause_stdout(&self, paused: bool) {
        self.paused.store(paused, Ordering::Release);
    }

    /// The same worker, with a folder that is removed with it.
    pub fn within(mut self, folder: PathBuf) -> Worker {
        self.folder = folder;
        self
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Everything told so far.
    pub fn told(&self) -> Vec<Value> {
        self.told.0.lock().expect("no reader panics").clone()
    }

    /// The first narration for which `is` holds, as soon as it is told.
    pub fn wait(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        self.wait_after(0, what, is)
    }

    /// The same among those after the first `before`.
    pub fn wait_after(&self, before: usize, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let told = self.told.0.lock().expect("no reader panics");
        let missing = |told: &mut Vec<Value>| !told.iter().skip(before).any(&is);
        let (told, _) = self.told.1.wait_timeout_while(told, PATIENCE, missing).expect("no panic");
        told.iter().skip(before).find(|value| is(value)).cloned().unwrap_or_else(|| {
            panic!(
                "{what} was never told; told were {:?}",
                told.iter().map(kind).collect::<Vec<_>>()
            )
        })
    }

    /// The first narration of that kind.
    pub fn fact(&self, wanted: &str) -> Value {
        self.wait(wanted, |value| kind(value) == wanted)
    }

    /// `http://address` as `server-bound` told it.
    pub fn url(&self, path: &str) -> String {
        let bound = self.fact("server-bound");
        let address =
            bound["fact"]["server-bound"]["address"].as_str().expect("a string").to_owned();
        format!("http://{address}{path}")
    }

    pub async fn ready(&self) {
        let until = Instant::now() + PATIENCE;
        while self.client.get(self.url("/ready")).send().await.expect("it answers").status() != 200
        {
            assert!(Instant::now() < until, "the worker never became ready");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// `POST path` with a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> reqwest::Response {
        self.client.post(self.url(path)).json(body).send().await.expect("the worker answers")
    }

    /// Runs one request to its end.
    pub async fn execute(&self, body: &Value) -> Vec<Frame> {
        let response = self.post("/execute", body).await;
        assert_eq!(response.status(), 200, "{body}");
        frames(response).await
    }

    /// Sends a signal to the worker.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(status.expect("kill can be run").success());
    }

    /// Process id of the worker, or of what started it.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the worker has ended; its status and what it wrote to stderr.
    pub fn ended(mut self) -> (ExitStatus, String, Vec<Value>) {
        let mut stderr = String::new();
        let mut pipe = self.child.stderr.take().expect("it is piped");
        pipe.read_to_string(&mut stderr).expect("stderr is UTF-8");
        let status = self.child.wait().expect("it can be waited for");
        std::thread::sleep(Duration::from_millis(50)); // the reader of stdout gets its end
        (status, stderr, self.told())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if self.folder.starts_with(std::env::temp_dir()) {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// Kind of a narration's fact.
pub fn kind(narration: &Value) -> String {
    narration["fact"].as_object().and_then(|fact| fact.keys().next().cloned()).unwrap_or_default()
}

/// All frames of a stream, until the server ends it.
pub async fn frames(mut response: reqwest::Response) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut text = Vec::new();
    while let Some(bytes) = response.chunk().await.expect("the stream does not break") {
        text.extend_from_slice(&bytes);
        take_frames(&mut text, &mut frames);
    }
    assert!(text.is_empty(), "the stream ended within a frame");
    frames
}

/// Moves the whole frames out of `text`.
pub fn take_frames(text: &mut Vec<u8>, frames: &mut Vec<Frame>) {
    while let Some(end) = text.windows(2).position(|pair| pair == b"\n\n") {
        let block = String::from_utf8(text.drain(..end + 2).collect()).expect("UTF-8");
        let field = |name: &str| {
            let line = block.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim_start().to_owned()
        };
        let data = serde_json::from_str(&field("data:")).expect("data is JSON");
        frames.push(Frame { id: field("id:"), event: field("event:"), data, at: Instant::now() });
    }
}

/// The text of a stream's tokens.
pub fn text(frames: &[Frame]) -> String {
    let tokens = frames.iter().filter(|frame| frame.event == "token");
    tokens.map(|frame| frame.data["t"].as_str().expect("a string")).collect()
}
