//! A light reader of event streams: thousands of them fit beside the worker on one machine.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::worker::Worker;

/// What a stream was, seen line by line.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Number of its last event.
    pub last: u64,
    /// Events that came out of order, twice, or after one that was left out.
    pub wrong: u64,
    /// Terminal frames: `end` and `error`.
    pub ends: u64,
    pub errors: u64,
    /// Code of the error.
    pub code: String,
    /// Narrations among the events.
    pub narrations: u64,
    pub tokens: u64,
    /// Whether the connection was closed as HTTP has it, after the last chunk.
    pub whole: bool,
    pub status: u16,
    line: Vec<u8>,
}

impl Seen {
    /// Whether exactly one terminal frame came, as the last, and nothing is missing.
    pub fn sound(&self) -> bool {
        self.wrong == 0 && self.ends + self.errors == 1
    }

    /// Takes in what came next.
    pub fn take(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                self.line(&line);
            } else if self.line.len() < 256 {
                self.line.push(byte);
            }
        }
    }

    fn line(&mut self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end();
        if let Some(id) = text.strip_prefix("id: ") {
            let id: u64 = id.parse().unwrap_or(0);
            let after_end = self.ends + self.errors > 0;
            self.wrong += u64::from(id != self.last + 1 || after_end);
            self.last = id;
        }
        match text {
            "event: end" => self.ends += 1,
            "event: error" => self.errors += 1,
            "event: narration" => self.narrations += 1,
            "event: token" => self.tokens += 1,
            "0" => self.whole = true,
            _ => {}
        }
        if let Some(rest) = text.strip_prefix("data: {\"type\":\"error\",\"code\":\"") {
            self.code = rest.split('"').next().unwrap_or_default().to_owned();
        }
        if let Some(rest) = text.strip_prefix("HTTP/1.1 ") {
            self.status = rest.get(..3).and_then(|code| code.parse().ok()).unwrap_or(0);
        }
    }
}

pub fn address(worker: &Worker) -> String {
    worker.url("").trim_start_matches("http://").to_owned()
}

/// A request as bytes; closes afterwards.
pub fn request(method: &str, path: &str, body: &str) -> Vec<u8> {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Sends a request and reads its answer as a stream, to its end or the connection's.
pub async fn follow(address: &str, request: &[u8], mut each: impl FnMut(&Seen)) -> Seen {
    let mut seen = Seen::default();
    let Ok(mut stream) = TcpStream::connect(address).await else { return seen };
    if stream.write_all(request).await.is_err() {
        return seen;
    }
    let mut piece = [0; 2_048];
    while let Ok(count @ 1..) = stream.read(&mut piece).await {
        seen.take(&piece[..count]);
        each(&seen);
    }
    seen
}

/// The value at that share of sorted ones.
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    sorted.get(((sorted.len() as f64 - 1.0) * share) as usize).copied().unwrap_or(0.0)
}
