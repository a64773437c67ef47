//! What a token and a narration cost: the model's bare loop against the same tokens through
//! `POST /execute` with narration on, in turns; one event natively, through one filter and through the
//! default chain; a reload. Asserts nothing; prints medians.

#![allow(clippy::print_stdout, missing_docs)] // printing is its purpose

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rbees_workerd::engine::{self, Budget, Chunk, Logits};
use rbees_workerd::filter::compile::Compiler;
use rbees_workerd::filter::component::{Component, Instance};
use rbees_workerd::filter::{Chains, Host, Instances, builtin};
use rbees_workerd::limits::COMPONENTS_RECENT_MAX;
use rbees_workerd::narration::{Context, Fact, Narration, Narrator, Nowhere, Scope, Told};

#[path = "../tests/support/guests.rs"]
mod guests;

const MODEL: &str = "models/SmolLM2-135M-Instruct.Q4_1.gguf";
const TOKENS: usize = 24;
const PAIRS: usize = 5;
const BUDGET: Budget = Budget { sequences: 1, kv_bytes: 1 << 29 };
const EVENTS: usize = 20_000;
const STARTS: usize = 500;

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let narrator = Narrator::new("bench".into(), Arc::new(Nowhere));
    filters(&narrator);
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

/// What an event of a request costs, in µs: natively, through one filter, through the default chain.
fn filters(narrator: &Narrator) {
    let told = typical(narrator);
    let native = timed(EVENTS, || natively(&told.context, &told.narration));
    let host = Arc::new(Host::new().expect("wasm runs"));
    let _timed = host.awake();
    let (cached, one) = (cached_reload(narrator), one_filter(&host, &told));
    let chains = Chains::new(host, None);
    chains.reload(narrator).expect("the default chain is sound");
    let chain = chains.current();
    let narrate = |instances: &mut Instances| {
        chain.narrate(instances, &told.context, told.narration.clone(), &mut |_| {})
    };
    let mut instances = Instances::default();
    let all = timed(EVENTS, || narrate(&mut instances));
    let fresh = timed(STARTS, || narrate(&mut Instances::default()));
    println!("native closure       {native:8.2} µs an event (the work of one filter)");
    println!("one filter           {one:8.2} µs an event (context and all texts carried over)");
    println!("default chain        {all:8.2} µs an event (storyteller, redact)");
    println!("with fresh instances {fresh:8.2} µs the first event of a job");
    println!("reload               {cached:8.2} µs of a cached component, without the file event");
}

/// Half of so many runs of `work` are within this, µs.
fn timed<T>(runs: usize, mut work: impl FnMut() -> T) -> f64 {
    let mut times = Vec::with_capacity(runs);
    for _ in 0..runs {
        let began = Instant::now();
        let result = work();
        times.push(began.elapsed().as_secs_f64() * 1e6);
        drop(result);
    }
    median(times)
}

/// The end of a request, with all its texts.
fn typical(narrator: &Narrator) -> Told {
    let scope = Scope {
        job_id: Some("01a20832-ff63-774e-bfb5-32dae7b11823".into()),
        correlation_id: Some("01a20832-ff60-7185-9962-e9d027aaf233".into()),
        trace_id: None,
    };
    let completed = Fact::samples().into_iter().find(|fact| fact.kind() == "inference-completed");
    narrator.telling(completed.expect("the vocabulary has it"), &scope).stamp()
}

/// What the guest `carry` does.
fn natively(context: &Context, narration: &Narration) -> Narration {
    let mut narration = narration.clone();
    narration.human = [&context.actor, " is done with ", &narration.target, "."].concat();
    narration
}

/// One call of the guest `carry`, on a narration that has its words.
fn one_filter(host: &Host, told: &Told) -> f64 {
    let file = guests::guest("carry", "wasm32-unknown-unknown");
    let bytes = std::fs::read(file).expect("it was built");
    let component = Component::load(host, &bytes, 32).expect("it is sound");
    let start = Instance::start(host, &component, &"carry".into(), 32, "{}");
    let (mut instance, limit) = (start.expect("it starts"), Duration::from_millis(10));
    let mut narration = told.narration.clone();
    (narration.human, narration.cute, narration.story) =
        (WORDS[0].into(), Some(WORDS[1].into()), Some(WORDS[2].into()));
    timed(EVENTS, || instance.narrate(&told.context, &narration, limit).expect("it narrates"))
}

/// What the storyteller says of it.
const WORDS: [&str; 3] = [
    "Generated 42 tokens in 13 ms (12.5 tokens/s), first after 13 ms; the token limit was reached.",
    "The jar is full to its rim: 42 drops of honey, poured at 12.5 a second and sealed with beeswax 🍯",
    "\"That was number 42, the last one,\" says candle-backend. \"I see it safely to the door,\" answers \
     http-server.",
];

/// From a changed file to the chain in service, where the compiled code is on disk and not in memory.
fn cached_reload(narrator: &Narrator) -> f64 {
    let folder = std::env::temp_dir().join(format!("rbees-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let host =
        Host::new().expect("wasm runs").compiling(Compiler::Here, Some(&folder.join("kept")));
    let chains = Chains::new(Arc::new(host), Some(folder.clone()));
    let storyteller = builtin::component("storyteller").expect("it is built in");
    // More files than are kept in memory; they differ in a section without meaning.
    let mut round = 0..;
    let mut reload = || {
        let n = round.next().unwrap_or_default() % (2 * COMPONENTS_RECENT_MAX as u8);
        let bytes = [storyteller, &[0, 3, 1, b'n', n]].concat();
        std::fs::write(folder.join("deployed.wasm"), bytes).expect("a temporary file");
        let began = Instant::now();
        chains.reload(narrator).expect("it is sound");
        began.elapsed().as_secs_f64() * 1e6
    };
    for _ in 0..2 * COMPONENTS_RECENT_MAX {
        reload();
    }
    let times = (0..STARTS).map(|_| reload()).collect();
    std::fs::remove_dir_all(&folder).expect("it was made above");
    median(times)
}
