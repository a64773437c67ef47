//! Promise: no bytes on a connection make the worker fall, hang or answer with a 5xx; what two readers
//! may cut differently runs nothing; a body is read no further than its cap.

use rand::{RngExt as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::client::{Seen, address, follow, request};
use super::{many_descriptors, size};
use crate::load::seed;
use crate::worker::{Worker, kind};

const BODY: &str = "{\"prompt\":\"a\",\"max_tokens\":1}";

/// Sends bytes and says that no more come; what comes back.
async fn send(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.expect("the worker listens");
    let _ = stream.write_all(bytes).await; // it may be closed before all is written
    let _ = stream.shutdown().await;
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text).await; // a reset ends it too
    text
}

/// Every status in what came back, pipelined ones too.
fn statuses(text: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(text);
    let heads = text.split("HTTP/1.1 ").skip(1);
    heads.filter_map(|rest| rest.get(..3)?.parse().ok()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_mutation_of_a_request_gets_a_5xx_or_no_end() {
    many_descriptors();
    let (seed, count) = (seed(), size("MUTATIONS", 3_000));
    let worker = Worker::tiny(&["--queue", "4096"]).await;
    let address = address(&worker);
    let tasks: Vec<_> = (0..8_u64)
        .map(|task| {
            let address = address.clone();
            tokio::spawn(async move { mutate(&address, seed * 8 + task, count / 8).await })
        })
        .collect();
    let mut found = std::collections::BTreeMap::new();
    for task in tasks {
        for (status, times) in task.await.expect("no answer is wrong") {
            *found.entry(status).or_insert(0) += times;
        }
    }
    eprintln!("FIGURE mutated requests: {count}, answers by status: {found:?}");
    assert!(found.len() > 3, "the mutations reach too little: {found:?}");
    let after = follow(&address, &request("POST", "/execute", BODY), |_| ()).await;
    assert!(after.sound() && after.ends == 1, "{after:?}");
}

async fn mutate(address: &str, seed: u64, count: usize) -> std::collections::BTreeMap<u16, usize> {
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let mut found = std::collections::BTreeMap::new();
    for _ in 0..count {
        let mut bytes = crate::guard::SOUND[random.random_range(0..5_usize)].as_bytes().to_vec();
        for _ in 0..random.random_range(0..6_u32) {
            let at = random.random_range(0..bytes.len().max(1));
            match random.random_range(0..5_u32) {
                _ if bytes.is_empty() => {}
                0 => bytes[at] = random.random_range(0..=255),
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, b"\r\n: \0\t,;"[random.random_range(0..8)]),
                3 => bytes.truncate(at.max(1)),
                _ => bytes.extend_from_within(at..(at + 40).min(bytes.len())),
            }
        }
        for status in statuses(&send(address, &bytes).await) {
            let shown = String::from_utf8_lossy(&bytes);
            assert!(status < 500, "SEED={seed}: {status} for {shown:?}");
            *found.entry(status).or_insert(0) += 1;
        }
    }
    found
}

/// The harness sees a 5xx, also behind another answer.
#[test]
fn a_5xx_is_seen_wherever_it_stands() {
    assert_eq!(statuses(b"HTTP/1.1 200 OK\r\n\r\nokHTTP/1.1 500 X\r\n\r\n"), [200, 500]);
}

/// Heads with which a proxy before the worker may cut otherwise than the worker. `%` stands for the
/// sound headers beside.
const SMUGGLING: [&str; 60] = [
    "Content-Length: 29\r\nContent-Length: 0\r\n",
    "Content-Length: 0\r\nContent-Length: 29\r\n",
    "Content-Length: 29, 29, 0\r\n",
    "Content-Length: 29,0\r\n",
    "Content-Length: +29\r\n",
    "Content-Length: -29\r\n",
    "Content-Length: 0x1d\r\n",
    "Content-Length: 29;\r\n",
    "Content-Length: 2 9\r\n",
    "Content-Length: 29.0\r\n",
    "Content-Length: 1e1\r\n",
    "Content-Length: \"29\"\r\n",
    "Content-Length: ٢٩\r\n",
    "Content-Length: 18446744073709551645\r\n",
    "Content-Length: 99999999999999999999999999\r\n",
    "Content-Length:\r\n 29\r\n",
    "Content-Length\r\n: 29\r\n",
    "Content-Length : 29\r\n",
    " Content-Length: 29\r\n",
    "\tContent-Length: 29\r\n",
    "Content-Length: 29\r\n\tX: a\r\n",
    "Content-Length\0: 29\r\n",
    "Content-\nLength: 29\r\n",
    "Content-Length: 29\0\r\n",
    "Content-Length: 29\rX: a\r\n",
    "Transfer-Encoding: gzip\r\n",
    "Transfer-Encoding: identity\r\n",
    "Transfer-Encoding: xchunked\r\n",
    "Transfer-Encoding: chunkedx\r\n",
    "Transfer-Encoding: chunked, identity\r\n",
    "Transfer-Encoding: chunked, gzip\r\n",
    "Transfer-Encoding: gzip, chunked, gzip\r\n",
    "Transfer-Encoding: chunked;q=1\r\n",
    "Transfer-Encoding: \"chunked\"\r\n",
    "Transfer-Encoding: chunked\0\r\n",
    "Transfer-Encoding: \x0bchunked\r\n",
    "Transfer-Encoding: chu nked\r\n",
    "Transfer-Encoding: cow\r\nTransfer-Encoding: gzip\r\n",
    "Transfer-Encoding : chunked\r\n",
    " Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding\0: chunked\r\n",
    "Transfer\nEncoding: chunked\r\n",
    "X: a\r\n\r\nTransfer-Encoding: chunked\r\n",
    "X: a\rTransfer-Encoding: chunked\r\n",
    "X: a\nTransfer-Encoding: gzip\r\n",
    "Transfer-Encoding: ,\r\n",
    "Transfer-Encoding: \r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n",
    "Transfer-Encoding: gzip\r\nContent-Length: 29\r\n",
    "Transfer-Encoding: identity\r\nContent-Length: 29\r\n",
    "Host: evil.example\r\nContent-Length: 29\r\n",
    "Host: localhost\r\nContent-Length: 29\r\n",
    "Host : localhost\r\nContent-Length: 29\r\n",
    " Host: evil.example\r\nContent-Length: 29\r\n",
    "Connection: Content-Length\r\nContent-Length: 29, 29, 1\r\n",
    "Content_Length: 29\r\nContent-Length: x\r\n",
    "Upgrade: h2c\r\nContent-Length: 29\r\nContent-Length: 30\r\n",
    "Expect: 100-continue\r\nContent-Length: 29\r\nContent-Length: 2\r\n",
    "(\r\nContent-Length: 29\r\n",
    ": a\r\nContent-Length: 29\r\n",
];

#[tokio::test(flavor = "multi_thread")]
async fn sixty_ways_to_smuggle_run_nothing() {
    let worker = Worker::tiny(&[]).await;
    let address = address(&worker);
    let smuggled = "POST /execute HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
        Content-Length: 49\r\n\r\n{\"prompt\":\"a\",\"max_tokens\":1,\"job_id\":\"smuggled\"}";
    for head in SMUGGLING {
        for body in [BODY, "1d\r\n{\"prompt\":\"a\",\"max_tokens\":1}\r\n0\r\n\r\n"] {
            let bytes = format!(
                "POST /execute HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                 {head}\r\n{body}{smuggled}"
            );
            let found = statuses(&send(&address, bytes.as_bytes()).await);
            assert!(found.iter().all(|status| (400..500).contains(status)), "{head:?}: {found:?}");
        }
    }
    let ran = worker.told().iter().any(|told| kind(told) == "request-accepted");
    assert!(!ran, "something was run");
    // What is sound runs, so nothing above was refused for another reason.
    let sound = follow(&address, &request("POST", "/execute", BODY), |_| ()).await;
    assert_eq!(sound.ends, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunked_gibibyte_is_read_no_further_than_its_cap() {
    let worker = Worker::tiny(&[]).await;
    let mut stream = TcpStream::connect(address(&worker)).await.expect("the worker listens");
    let head = "POST /execute HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
        Transfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("it reads");
    let before = super::vitals(worker.pid()).0;
    let (mut reading, mut writing) = stream.into_split();
    let writer = tokio::spawn(async move {
        let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
        let mut sent = 0_u64;
        // Some at a time, so that what the system holds for both sides does not count as read.
        while sent < 1 << 30 && writing.write_all(&chunk).await.is_ok() {
            sent += 0x10000;
        }
        sent
    });
    let mut text = Vec::new();
    let _ = reading.read_to_end(&mut text).await; // it is cut off
    let mut seen = Seen::default();
    seen.take(&text);
    assert_eq!(seen.status, 413);
    drop(reading);
    let sent = writer.await.expect("it writes until it can't");
    let grown = super::vitals(worker.pid()).0.saturating_sub(before);
    let cap = 32_768 * 12 + 64 * 1024;
    // Both systems' buffers lie between: what was sent is more than what was read.
    eprintln!("FIGURE chunked GiB: cap={cap} sent={sent} worker_grew_kib={grown}");
    assert!(sent < 1 << 24, "{sent} bytes of it were taken");
}
