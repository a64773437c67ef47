//! What a token and a narration cost: the model's bare loop against the same tokens through
//! `POST /execute` with narration on, in turns, and one event through the default chain. Asserts
//! nothing; prints medians.

#![allow(clippy::print_stdout, missing_docs)] // printing is its purpose

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use rbees_workerd::engine::{self, Budget, Chunk, Logits};
use rbees_workerd::filter::{Chains, Host, Instances};
use rbees_workerd::narration::{Fact, Narrator, Nowhere, Scope};

const MODEL: &str = "models/SmolLM2-135M-Instruct.Q4_1.gguf";
const TOKENS: usize = 24;
const PAIRS: usize = 5;
const BUDGET: Budget = Budget { sequences: 1, kv_bytes: 1 << 29 };
const EVENTS: usize = 20_000;

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let narrator = Narrator::new("bench".into(), Arc::new(Nowhere));
    chain(&narrator);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(MODEL);
    let (device, _) = engine::device::cpu();
    let mut loaded =
        engine::load(&path, &device, BUDGET, &narrator, &|_, _| {}).expect("run `make model`");
    let mut worker = Command::new(env!("CARGO_BIN_EXE_rbees-workerd"))
        .args(["serve", "--port", "0", "--narration", "json", "--model"])
        .arg(&path)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the worker can be run");
    let mut lines = BufReader::new(worker.stdout.take().expect("it is piped")).lines();
    let mut address = String::new();
    for line in lines.by_ref().map_while(Result::ok) {
        let told: serde_json::Value = serde_json::from_str(&line).expect("narrations are JSON");
        if let Some(bound) = told["fact"]["server-bound"]["address"].as_str() {
            address = bound.to_owned();
        }
        if told["fact"]["warmup-completed"].is_object() {
            break;
        }
    }
    std::thread::spawn(move || lines.for_each(drop));
    std::thread::sleep(std::time::Duration::from_millis(200));
    let (mut bare, mut served) = (Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        bare.push(bare_loop(&mut loaded));
        served.push(execute(&address));
    }
    let ratios = served.iter().zip(&bare).map(|(served, bare)| served / bare).collect();
    println!("bare loop            {:8.2} tokens/s", median(bare));
    println!("POST /execute        {:8.2} tokens/s", median(served));
    println!(
        "served / bare        {:8.3} (median of {PAIRS} pairs, {TOKENS} tokens each)",
        median(ratios)
    );
    worker.kill().expect("it runs");
    worker.wait().expect("it ran");
}

/// Greedy decoding without sampler, text, narration or HTTP; tokens a second after the first.
fn bare_loop(loaded: &mut engine::Loaded) -> f64 {
    let mut tokens = loaded.language.tokenizer.encode("The bees").expect("plain text");
    let blocks: Vec<u32> = (0..loaded.decoder.blocks() as u32).collect();
    let (mut logits, mut position, mut began) = (Logits::default(), 0, Instant::now());
    for n in 0..TOKENS {
        let chunk = Chunk { blocks: &blocks, position, tokens: &tokens, logits: true };
        loaded.decoder.step(&[chunk], &mut logits).expect("the model computes");
        position += tokens.len();
        let best = logits.row(0).iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
        tokens = vec![u32::try_from(best.expect("a vocabulary").0).expect("it fits")];
        if n == 0 {
            began = Instant::now();
        }
    }
    (TOKENS - 1) as f64 / began.elapsed().as_secs_f64()
}

/// The same tokens through HTTP; the rate that a client sees.
fn execute(address: &str) -> f64 {
    let body = format!(
        "{{\"prompt\":\"The bees\",\"max_tokens\":{TOKENS},\"temperature\":0,\"progress_every\":5}}"
    );
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(
        stream,
        "POST /execute HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("it reads");
    let (mut text, mut moments, mut seen) = (String::new(), Vec::new(), 0);
    let mut piece = [0; 4_096];
    while let Ok(read @ 1..) = stream.read(&mut piece) {
        text.push_str(&String::from_utf8_lossy(&piece[..read]));
        let now = text.matches("event: token").count();
        moments.extend(std::iter::repeat_n(Instant::now(), now - seen));
        seen = now;
    }
    let (first, last) = (moments[0], moments[moments.len() - 1]);
    (moments.len() - 1) as f64 / last.duration_since(first).as_secs_f64()
}

/// One event of a request through the default chain, in µs.
fn chain(narrator: &Narrator) {
    let chains = Chains::new(Arc::new(Host::new().expect("wasm runs")), None);
    chains.reload(narrator).expect("the default chain is sound");
    let _timed = chains.host().awake();
    let chain = chains.current();
    let scope = Scope {
        job_id: Some("01a20832-ff63-774e-bfb5-32dae7b11823".into()),
        correlation_id: Some("01a20832-ff60-7185-9962-e9d027aaf233".into()),
        trace_id: None,
    };
    let completed = Fact::samples().into_iter().find(|fact| fact.kind() == "inference-completed");
    let completed = completed.expect("the vocabulary has it");
    let mut instances = Instances::default();
    let mut times = Vec::with_capacity(EVENTS);
    for _ in 0..EVENTS {
        let told = narrator.telling(completed.clone(), &scope).stamp();
        let began = Instant::now();
        chain.narrate(&mut instances, &told.context, told.narration, &mut |_| {});
        times.push(began.elapsed().as_secs_f64() * 1e6);
    }
    let mut fresh = Vec::with_capacity(500);
    for _ in 0..500 {
        let told = narrator.telling(completed.clone(), &scope).stamp();
        let began = Instant::now();
        chain.narrate(&mut Instances::default(), &told.context, told.narration, &mut |_| {});
        fresh.push(began.elapsed().as_secs_f64() * 1e6);
    }
    println!("default chain        {:8.2} µs an event (storyteller, redact)", median(times));
    println!("with fresh instances {:8.2} µs the first event of a job", median(fresh));
}
