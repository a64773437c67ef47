//! What a client sends: bytes on a connection, the body of a request for inference. The server is the
//! real one over a pipe in memory, with a model that never comes; nothing is computed.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::one_line;
use crate::delivery::{Form, Pipeline, Stdout};
use crate::error::Result;
use crate::filter::{Chains, Host};
use crate::http::openai::{Endpoint, parse};
use crate::http::request::{Asked, parse_execute};
use crate::http::{self, Access, App, Life};
use crate::job::{Queue, Registry};
use crate::limits::{OUTPUT_TOKENS_MAX, STOP_STRINGS_MAX};
use crate::measure;
use crate::narration::Narrator;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Room of the pipe in each direction, bytes.
const PIPE_BYTES: usize = 64 * 1024;

/// The body of a request for inference, by any endpoint: what is accepted is within its bounds, what
/// is not is told field by field, each in a line.
pub fn execute(bytes: &[u8]) {
    let answers = [
        parse_execute(bytes),
        parse(Endpoint::Chat, bytes).map(|(asked, _)| asked),
        parse(Endpoint::Completions, bytes).map(|(asked, _)| asked),
    ];
    for answer in answers {
        match answer {
            Ok(asked) => within(&asked),
            Err(violations) => {
                assert!(!violations.is_empty(), "refused without a reason");
                for violation in violations {
                    one_line(&violation.field);
                    one_line(&violation.message);
                }
            }
        }
    }
}

fn within(asked: &Asked) {
    let wish = &asked.wish;
    let sampling = &wish.sampling;
    assert!((0.0..=2.0).contains(&sampling.temperature), "{}", sampling.temperature);
    assert!((0.0..=1.0).contains(&sampling.top_p), "{}", sampling.top_p);
    assert!((0.0..=1.0).contains(&sampling.min_p), "{}", sampling.min_p);
    assert!((0.0..=2.0).contains(&sampling.repetition_penalty), "{}", sampling.repetition_penalty);
    assert!((1..=OUTPUT_TOKENS_MAX).contains(&wish.max_tokens), "{}", wish.max_tokens);
    assert!(wish.stop.len() <= STOP_STRINGS_MAX && wish.stop.iter().all(|stop| stop.chars() > 0));
    assert!(wish.logit_bias.iter().all(|(_, bias)| bias.is_finite()));
}

/// Bytes on a connection: whatever they are, what comes back are whole answers, none of them the
/// server's fault, and the connection ends.
pub fn http(bytes: &[u8]) {
    static SERVER: OnceLock<Server> = OnceLock::new();
    let server =
        SERVER.get_or_init(|| Server::new().expect("the parts of the worker can be built"));
    let answer = server.runtime.block_on(server.ask(bytes));
    let text = String::from_utf8_lossy(&answer);
    if !text.is_empty() {
        // Who speaks 1.0 is answered in 1.0.
        assert!(text.starts_with("HTTP/1."), "no answer: {:?}", text.get(..80));
    }
    for fault in ["HTTP/1.0 5", "HTTP/1.1 5"] {
        for (at, _) in text.match_indices(fault) {
            // The model never comes, so whoever asks for it is told so.
            let status = text.get(at + fault.len() - 1..at + fault.len() + 2);
            assert_eq!(status, Some("503"), "{:?}", text.get(at..at + 200));
        }
    }
}

struct Server {
    runtime: Runtime,
    router: Router,
    /// Where `/shutdown` is heard.
    _asked: mpsc::Receiver<()>,
}

impl Server {
    fn new() -> Result<Self> {
        let pipeline = Pipeline::new();
        let narrator = Narrator::new("fuzz".into(), pipeline.clone());
        let chains = Arc::new(Chains::new(Arc::new(Host::new()?), None));
        chains.reload(&narrator)?;
        let stdout = Stdout::spawn(Form::Json, false, std::io::sink())?;
        pipeline.start(&chains, &narrator, &stdout)?;
        let (shutdown, asked) = mpsc::channel(1);
        let app = App {
            narrator,
            pipeline,
            chains,
            jobs: Arc::new(Registry::default()),
            queue: Arc::new(Queue::new(1)),
            pulse: Arc::default(),
            model: OnceLock::new(),
            exporter: measure::install()?,
            aliases: Vec::new(),
            life: Life::new(([127, 0, 0, 1], 8080).into()),
            stall: PATIENCE,
            keep_alive: PATIENCE,
            access: Access::default(),
            job_timeout_ms: 1_000,
            wait_ms: 1_000,
            shutdown,
            grace_ms: 1_000,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a thread's own runtime can be made");
        Ok(Server { runtime, router: http::router(Arc::new(app)), _asked: asked })
    }

    /// All that comes back for these bytes.
    async fn ask(&self, bytes: &[u8]) -> Vec<u8> {
        let (ours, theirs) = duplex(PIPE_BYTES);
        let (mut answers, mut asks) = tokio::io::split(ours);
        let send = async {
            // A server that has refused reads no further.
            let _ = asks.write_all(bytes).await;
            let _ = asks.shutdown().await;
        };
        let mut answer = Vec::new();
        let read = answers.read_to_end(&mut answer);
        let (_, (), read) =
            tokio::join!(http::serve_one(theirs, self.router.clone(), PATIENCE), send, read);
        assert!(read.is_ok(), "a pipe in memory can be read");
        answer
    }
}
