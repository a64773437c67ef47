//! Our side of `make bench-peers`: the bare decoder, candle's stock llama, and a client that asks a
//! server (ours or llama.cpp's) from several connections at once. Prints a JSON object a line;
//! asserts nothing.

#![allow(clippy::print_stdout, missing_docs)] // printing is its purpose

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use candle_core::quantized::gguf_file::Content;
use candle_core::{Device, Tensor};
use candle_transformers::models::quantized_llama::ModelWeights;
use rbees_workerd::engine::{self, Budget, Chunk, Decoder, Logits};
use rbees_workerd::limits::PREFILL_CHUNK_TOKENS_MAX;
use rbees_workerd::narration::{Narrator, Nowhere};

/// Tokens that one measurement of decoding makes.
const DECODED: usize = 64;
/// Tokens of each sequence before decoding in batches begins, as in llama.cpp's program.
const BATCH_PROMPT: usize = 16;
/// Tokens that a served request asks for.
const SERVED: usize = 64;
/// Words of a served prompt: about 512 tokens.
const SERVED_WORDS: usize = 480;
/// What candle's llama is spared: it needs minutes for a long prompt.
const CANDLE_TOKENS_MAX: usize = 512;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["bare", model, threads, prefill, depths, batches, ..] => {
            limit_threads(threads);
            bare(model, &numbers(prefill), &numbers(depths), &numbers(batches));
        }
        ["candle", model, threads, prefill, depths, ..] => {
            limit_threads(threads);
            candle(model, &numbers(prefill), &numbers(depths));
        }
        ["served", address, server, clients, ..] => served(address, server, numbers(clients)[0]),
        _ => println!("usage: make bench-peers"),
    }
}

/// Both decoders ask candle how many threads to take, and candle asks this variable.
fn limit_threads(threads: &str) {
    let set = std::env::var("RAYON_NUM_THREADS").is_ok_and(|set| set == threads);
    assert!(set, "RAYON_NUM_THREADS={threads} must be set: scripts/bench-peers.py does");
}

fn numbers(list: &str) -> Vec<usize> {
    list.split(',').map(|number| number.parse().expect("numbers, separated by commas")).collect()
}

fn tell(line: &str, tokens: usize, took: Duration) {
    let rate = tokens as f64 / took.as_secs_f64();
    println!("{}", serde_json::json!({ "line": line, "tokens_s": rate }));
}

/// Tokens without meaning, the same every time.
fn token(at: usize) -> u32 {
    (at * 7_919 % 30_000 + 100) as u32
}

/// A sequence of the bare decoder, in blocks of its own.
struct Sequence {
    blocks: Vec<u32>,
    length: usize,
}

/// Gives all sequences `tokens` more tokens each, in chunks as long as the scheduler cuts at most.
fn advance(decoder: &mut dyn Decoder, sequences: &mut [Sequence], tokens: usize, logits: bool) {
    let mut out = Logits::default();
    let mut left = tokens;
    while left > 0 {
        let count = left.min(PREFILL_CHUNK_TOKENS_MAX);
        left -= count;
        let fed: Vec<Vec<u32>> = sequences
            .iter()
            .map(|sequence| (0..count).map(|at| token(sequence.length + at)).collect())
            .collect();
        let chunks: Vec<Chunk<'_>> = sequences
            .iter()
            .zip(&fed)
            .map(|(sequence, tokens)| Chunk {
                blocks: &sequence.blocks,
                position: sequence.length,
                tokens,
                logits: logits && left == 0,
            })
            .collect();
        decoder.step(&chunks, &mut out).expect("the model computes");
        sequences.iter_mut().for_each(|sequence| sequence.length += count);
    }
}

fn bare(model: &str, prefill: &[usize], depths: &[usize], batches: &[usize]) {
    let narrator = Narrator::new("bench".into(), Arc::new(Nowhere));
    let (device, _) = engine::device::cpu();
    let budget = Budget { sequences: 8, kv_bytes: 1 << 29 };
    let loaded = engine::load(Path::new(model), &device, budget, &narrator, &|_, _| {});
    let mut decoder = loaded.expect("run `make model`").decoder;
    let decoder = decoder.as_mut();
    let tokens = decoder.block_tokens();
    let own = |at: usize, length: usize| {
        let blocks = length.div_ceil(tokens);
        let blocks = (at * blocks..(at + 1) * blocks).map(|block| block as u32);
        Sequence { blocks: blocks.collect(), length: 0 }
    };
    advance(decoder, &mut [own(0, 32)], 32, true);
    for &length in prefill {
        let mut sequence = [own(0, length)];
        let began = Instant::now();
        advance(decoder, &mut sequence, length, true);
        tell(&format!("prefill {length}"), length, began.elapsed());
    }
    for &depth in depths {
        let mut sequence = [own(0, depth + DECODED)];
        advance(decoder, &mut sequence, depth, false);
        let began = Instant::now();
        (0..DECODED).for_each(|_| advance(decoder, &mut sequence, 1, true));
        tell(&format!("decode {DECODED} at depth {depth}"), DECODED, began.elapsed());
    }
    for &count in batches {
        let length = BATCH_PROMPT + DECODED;
        let mut sequences: Vec<Sequence> = (0..count).map(|at| own(at, length)).collect();
        advance(decoder, &mut sequences, BATCH_PROMPT, false);
        let began = Instant::now();
        (0..DECODED).for_each(|_| advance(decoder, &mut sequences, 1, true));
        tell(&format!("decode of {count} sequences"), count * DECODED, began.elapsed());
    }
}

fn candle(model: &str, prefill: &[usize], depths: &[usize]) {
    let mut file = std::fs::File::open(model).expect("run `make model`");
    let content = Content::read(&mut file).expect("the file is sound");
    let weights = ModelWeights::from_gguf(content, &mut file, &Device::Cpu);
    let mut weights = weights.expect("a llama");
    let mut forward = |first: usize, count: usize| {
        let tokens: Vec<u32> = (first..first + count).map(token).collect();
        let input = Tensor::new(&tokens[..], &Device::Cpu).and_then(|input| input.unsqueeze(0));
        weights.forward(&input.expect("a tensor"), first).expect("the model computes");
    };
    forward(0, 32);
    for &length in prefill.iter().filter(|length| **length <= CANDLE_TOKENS_MAX) {
        let began = Instant::now();
        forward(0, length);
        tell(&format!("prefill {length}"), length, began.elapsed());
    }
    for &depth in depths.iter().filter(|depth| **depth <= CANDLE_TOKENS_MAX) {
        forward(0, depth.max(1));
        let (first, began) = (depth.max(1), Instant::now());
        (0..DECODED).for_each(|at| forward(first + at, 1));
        tell(&format!("decode {DECODED} at depth {depth}"), DECODED, began.elapsed());
    }
}

/// All clients at once; what they saw, together.
fn served(address: &str, server: &str, clients: usize) {
    let start = Arc::new(Barrier::new(clients));
    let asking: Vec<_> = (0..clients)
        .map(|client| {
            let (start, address) = (Arc::clone(&start), address.to_owned());
            let server = server.to_owned();
            std::thread::spawn(move || {
                start.wait();
                let began = Instant::now();
                (began, ask(&address, &server, client))
            })
        })
        .collect();
    let (mut first, mut gaps, mut tokens) = (vec![], vec![], 0);
    let mut spans: Vec<(Instant, Instant)> = vec![];
    for client in asking {
        let (began, moments) = client.join().expect("the server answers");
        let ms = |from: Instant, to: Instant| to.duration_since(from).as_secs_f64() * 1e3;
        first.push(ms(began, moments[0]));
        gaps.extend(moments.windows(2).map(|pair| ms(pair[0], pair[1])));
        tokens += moments.len();
        spans.push((began, moments[moments.len() - 1]));
    }
    let begin = spans.iter().map(|span| span.0).min().expect("a client");
    let end = spans.iter().map(|span| span.1).max().expect("a client");
    let told = serde_json::json!({
        "first_ms": quantile(&mut first, 0.5),
        "gap_p50_ms": quantile(&mut gaps, 0.5),
        "gap_p99_ms": quantile(&mut gaps, 0.99),
        "tokens_s": tokens as f64 / end.duration_since(begin).as_secs_f64(),
    });
    println!("{told}");
}

fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * part).round() as usize]
}

/// One request; when each of its tokens came.
fn ask(address: &str, server: &str, client: usize) -> Vec<Instant> {
    // Every prompt begins in its own way, so that no server can answer from another one's cache.
    let moment = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = moment.expect("a clock").subsec_nanos() as usize + client * 7_919;
    let mut prompt = format!("Story {seed} of the bees.");
    const WORDS: [&str; 8] =
        ["honey", "flower", "garden", "wing", "summer", "queen", "light", "the"];
    for at in 0..SERVED_WORDS {
        prompt.push(' ');
        prompt.push_str(WORDS[(seed / (at + 1) + at) % WORDS.len()]);
    }
    let (path, body, mark) = if server == "ours" {
        let body = serde_json::json!({
            "prompt": prompt, "max_tokens": SERVED, "temperature": 0, "progress_every": 16
        });
        ("/execute", body, "event: token")
    } else {
        let body = serde_json::json!({
            "prompt": prompt, "n_predict": SERVED, "temperature": 0, "stream": true,
            "ignore_eos": true, "cache_prompt": false
        });
        ("/completion", body, "data: {")
    };
    let body = body.to_string();
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("it reads");
    let (mut text, mut moments) = (String::new(), Vec::new());
    let mut piece = [0; 16_384];
    while let Ok(read @ 1..) = stream.read(&mut piece) {
        text.push_str(&String::from_utf8_lossy(&piece[..read]));
        let count = text.matches(mark).count();
        moments.extend(std::iter::repeat_n(Instant::now(), count));
        // A mark that was cut stays in what is kept.
        let kept = text.rfind(mark).map_or(0, |at| at + mark.len());
        text.drain(..kept);
    }
    assert!(!moments.is_empty(), "{address}{path} answered without tokens: {text}");
    moments
}
