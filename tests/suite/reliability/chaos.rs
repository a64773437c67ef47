//! Promise: under honest and hostile clients, reload storms, hostile filters, SIGTERM and `kill -9` from
//! a supervisor, the ledger balances: every request has one end, and every narration is delivered or
//! announced as lost. `make chaos` is the full form: `SEED`, `MINUTES`.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rbees_workerd::narration::Fact;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::client::{Seen, follow, request};
use super::load::word::Stop;
use super::{many_descriptors, size};
use crate::load::seed;
use crate::worker::{Worker, folder};

/// What everybody in it shares.
#[derive(Clone)]
struct Scene {
    address: String,
    stop: Stop,
    /// How often the worker was killed, counted before it is.
    kills: Arc<AtomicU64>,
    filters: PathBuf,
}

/// What became of requests, and of narrations.
#[derive(Clone, Debug, Default)]
struct Ledger(BTreeMap<&'static str, i64>);

impl Ledger {
    fn add(&mut self, entry: &'static str, count: i64) {
        *self.0.entry(entry).or_default() += count;
    }

    fn of(&self, entry: &str) -> i64 {
        self.0.get(entry).copied().unwrap_or(0)
    }

    fn join(&mut self, other: &Ledger) {
        for (entry, count) in &other.0 {
            self.add(entry, *count);
        }
    }

    /// Takes in how one request went; `killed`: the worker was killed meanwhile.
    fn request(&mut self, seen: &Seen, killed: bool) {
        self.add("requests sent", 1);
        let entry = match seen.status {
            0 if killed => "no answer: killed",
            0 => "no answer: down, or restarting",
            200 if seen.sound() && seen.ends == 1 => "terminal frame: end",
            200 if seen.sound() => "terminal frame: error",
            200 if killed && seen.wrong == 0 && seen.ends + seen.errors == 0 => "cut: killed",
            200 => "WRONG: lost, doubled or never ended",
            400..=499 | 503 => "refused",
            _ => "WRONG: another status",
        };
        self.add(entry, 1);
    }

    /// What is left over: of requests, of narrations.
    fn balance(&self) -> (i64, i64) {
        let requests = ["terminal frame: end", "terminal frame: error", "refused", "cut: killed"]
            .iter()
            .chain(&["no answer: killed", "no answer: down, or restarting"])
            .map(|entry| self.of(entry))
            .sum::<i64>();
        let narrations = self.of("narrations delivered") + self.of("narrations announced as lost");
        (self.of("requests sent") - requests, self.of("narrations told") - narrations)
    }

    fn table(&self) -> String {
        let rows = self.0.iter().map(|(entry, count)| format!("| {entry:<40} | {count:>9} |\n"));
        let (requests, narrations) = self.balance();
        let last = [("requests left over", requests), ("narrations left over", narrations)];
        let last = last.iter().map(|(entry, count)| format!("| {entry:<40} | {count:>9} |\n"));
        rows.chain(last).collect()
    }
}

/// Asks as clients do, and keeps book of it.
async fn honest(scene: Scene, seed: u64) -> Ledger {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut ledger = Ledger::default();
    while !scene.stop.said() {
        let body = json!({"prompt": "on and on ".repeat(random.random_range(1..20)),
            "max_tokens": random.random_range(1..60), "temperature": 0.8,
            "progress_every": random.random_range(0..10),
            "timeout_ms": if random.random_range(0..8) == 0 { 50 } else { 60_000 }});
        let before = scene.kills.load(Ordering::Acquire);
        let bytes = request("POST", "/execute", &body.to_string());
        let seen = follow(&scene.address, &bytes, |_| ()).await;
        let killed = scene.kills.load(Ordering::Acquire) != before;
        ledger.request(&seen, killed);
        if seen.status != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    ledger
}

/// Sends what nobody should, and leaves when it likes.
async fn hostile(scene: Scene, seed: u64) -> Ledger {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut ledger = Ledger::default();
    while !scene.stop.said() {
        ledger.add("hostile connections", 1);
        let Ok(mut stream) = TcpStream::connect(&scene.address).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let mut bytes = crate::guard::SOUND[random.random_range(0..5_usize)].as_bytes().to_vec();
        let at = random.random_range(0..bytes.len());
        match random.random_range(0..4_u32) {
            0 => bytes[at] = random.random_range(0..=255),
            1 => bytes.truncate(at),
            2 => bytes = (0..200).map(|_| random.random_range(0..=255)).collect(),
            _ => {
                let body = json!({"prompt": "leave", "max_tokens": 200}).to_string();
                bytes = request("POST", "/execute", &body);
            }
        }
        let _ = stream.write_all(&bytes).await;
        let mut piece = vec![0; random.random_range(1..2_000)];
        let wait = Duration::from_millis(random.random_range(0..200));
        let _ = tokio::time::timeout(wait, stream.read(&mut piece)).await;
        if random.random_range(0..2) == 0 {
            #[expect(deprecated, reason = "a linger of 0 blocks nothing: it cuts off")]
            let _ = stream.set_linger(Some(Duration::ZERO));
        }
    }
    ledger
}

/// The sound chain: everything told goes to stdout, so that nothing is dropped by a route.
fn chain(more: &str) -> String {
    let kinds: HashSet<String> = Fact::samples().iter().map(|f| f.kind().to_owned()).collect();
    let kinds = kinds.iter().filter(|kind| *kind != "other");
    let routes: Vec<String> = kinds.map(|kind| format!("{kind} = [\"stdout\", \"sse\"]")).collect();
    format!(
        "[[filter]]\nbuiltin = \"storyteller\"\ntimeout = 200\n[filter.config.routes]\n{}\n{more}\n\
         [[filter]]\nbuiltin = \"redact\"\ntimeout = 200\n",
        routes.join("\n")
    )
}

fn save(folder: &Path, name: &str, bytes: &[u8]) {
    let path = folder.join(name);
    std::fs::write(path.with_extension("new"), bytes).expect("it is ours");
    std::fs::rename(path.with_extension("new"), path).expect("it is ours");
}

/// Changes the filters without rest: sound, broken and hostile ones.
async fn storm(scene: Scene, seed: u64) -> Ledger {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut ledger = Ledger::default();
    let animals = crate::animals::animals();
    while !scene.stop.said() {
        ledger.add("filter changes", 1);
        match random.random_range(0..4_u32) {
            0 => save(&scene.filters, "filters.toml", b"[[filter]]\nbuiltin = \"nobody\"\n"),
            1 | 2 => {
                let animal = &animals[random.random_range(0..animals.len())];
                save(&scene.filters, "animal.wasm", &animal.bytes);
                let more = "[[filter]]\npath = \"animal.wasm\"\non-failure = \"skip\"\n";
                save(&scene.filters, "filters.toml", chain(more).as_bytes());
            }
            _ => save(&scene.filters, "filters.toml", chain("").as_bytes()),
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(50..1_500))).await;
    }
    save(&scene.filters, "filters.toml", chain("").as_bytes());
    ledger
}

/// Keeps a worker running: ends it now and then, gracefully or not, and starts it again.
async fn supervise(scene: Scene, model: PathBuf, seed: u64, until: Instant) -> Ledger {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut ledger = Ledger::default();
    let port: u16 = scene.address.rsplit(':').next().and_then(|p| p.parse().ok()).expect("a port");
    let filters = scene.filters.display().to_string();
    let mut last = false;
    while !last {
        // Before a start the chain is a sound one: else the worker is right to end with 6.
        save(&scene.filters, "filters.toml", chain("").as_bytes());
        let arguments = ["--filters", &filters, "--grace-ms", "500", "--slots", "4"];
        let worker = Worker::spawn_on(port, &model, &arguments);
        worker.fact("server-bound");
        ledger.add("lives", 1);
        let life = Duration::from_millis(random.random_range(1_000..8_000));
        let ends = (Instant::now() + life).min(until);
        while Instant::now() < ends {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if random.random_range(0..40) == 0 {
                worker.signal("HUP");
            }
        }
        last = Instant::now() >= until;
        if last {
            scene.stop.say(); // what still comes finds a worker that drains
        }
        if !last && random.random_range(0..2) == 0 {
            scene.kills.fetch_add(1, Ordering::AcqRel);
            ledger.add("ended by kill -9", 1);
            worker.signal("KILL");
            let (_, _, told) = worker.ended();
            unique(&told);
            ledger.add("narrations before a kill -9", told.len() as i64);
        } else {
            ledger.add("ended by SIGTERM", 1);
            worker.signal("TERM");
            let (status, stderr, told) = worker.ended();
            // 6 where it met a broken chain while it started: told, and right.
            let fair = [Some(0), Some(6)].contains(&status.code());
            assert!(fair, "{status}: {stderr}");
            assert!(!stderr.contains("panicked"), "{stderr}");
            narrations(&mut ledger, &told);
        }
    }
    ledger
}

fn unique(told: &[Value]) -> u64 {
    let mut known = HashSet::new();
    for narration in told {
        let sequence = narration["sequence"].as_u64().expect("a number");
        assert!(known.insert(sequence), "{sequence} was told twice");
    }
    known.into_iter().max().unwrap_or(0)
}

/// A life that ended in order: what was told, delivered and announced as lost.
fn narrations(ledger: &mut Ledger, told: &[Value]) {
    let last = unique(told);
    let withheld = told.iter().filter(|narration| narration.get("withheld").is_some()).count();
    let lost = told.iter().filter_map(|n| n["fact"]["narration-lost"]["count"].as_u64());
    ledger.add("narrations told", last as i64);
    ledger.add("narrations delivered", told.len() as i64);
    ledger.add("  of them withheld by a failed filter", withheld as i64);
    ledger.add("narrations announced as lost", lost.sum::<u64>() as i64);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_balances() {
    many_descriptors();
    let (seed, began) = (seed(), Instant::now());
    let seconds = size("MINUTES", 0) * 60;
    let until = began + Duration::from_secs(if seconds == 0 { 8 } else { seconds as u64 });
    let folder = folder();
    let model = folder.join("tiny.gguf");
    std::fs::write(&model, crate::gguf::tiny_llama(7)).expect("a temporary file");
    let filters = folder.join("filters");
    std::fs::create_dir(&filters).expect("a temporary folder");
    save(&filters, "filters.toml", chain("").as_bytes());
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = free.local_addr().expect("it is bound").to_string();
    drop(free);
    let scene = Scene { address, stop: Stop::default(), kills: Arc::default(), filters };
    let mut all = Vec::new();
    for n in 0..6 {
        all.push(tokio::spawn(honest(scene.clone(), seed * 100 + n)));
    }
    for n in 10..13 {
        all.push(tokio::spawn(hostile(scene.clone(), seed * 100 + n)));
    }
    all.push(tokio::spawn(storm(scene.clone(), seed * 100 + 20)));
    all.push(tokio::spawn(supervise(scene, model, seed * 100 + 30, until)));
    let mut ledger = Ledger::default();
    for task in all {
        ledger.join(&task.await.expect("nothing in it fails"));
    }
    eprintln!("SEED={seed}, {} s\n{}", began.elapsed().as_secs(), ledger.table());
    assert_eq!(ledger.balance(), (0, 0), "SEED={seed}: the ledger does not balance");
    assert!(ledger.of("terminal frame: end") > 0, "nothing was served");
    std::fs::remove_dir_all(&folder).expect("it was made above");
}

/// The ledger sees a stream without an end, and a narration that nobody announced as lost.
#[test]
fn a_ledger_with_a_hole_does_not_balance() {
    let mut ledger = Ledger::default();
    let mut seen = Seen::default();
    seen.take(b"HTTP/1.1 200 OK\r\nid: 1\nevent: started\n");
    ledger.request(&seen, true);
    assert_eq!(ledger.balance(), (0, 0), "a kill may cut");
    ledger.request(&seen, false);
    assert_eq!(ledger.balance(), (1, 0), "nothing else may");
    narrations(&mut ledger, &[json!({"sequence": 1}), json!({"sequence": 3})]);
    assert_eq!(ledger.balance(), (1, 1));
}
