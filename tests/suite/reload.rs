//! Promise: a change is noticed however it was saved; what is known needs no compiler; a reload loses,
//! doubles and reorders nothing.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rbees_workerd::delivery::{Form, JobLog, Pipeline, Stdout};
use rbees_workerd::filter::compile::Compiler;
use rbees_workerd::filter::component::{Component, Failure};
use rbees_workerd::filter::{Chains, Host, TextRun, builtin};
use rbees_workerd::limits::COMPONENTS_RECENT_MAX;
use rbees_workerd::narration::facts::WarmupStarted;
use rbees_workerd::narration::{Fact, Narrator, Nowhere, Scope};
use serde_json::Value;

use crate::guests::guest;
use crate::worker::{BINARY, Worker, folder};

/// The figure in which the nth manifest differs, within what a filter may ask for.
const fn timeout_ms(n: usize) -> usize {
    100 + n % 900
}

/// Manifests that differ in one figure, all of the same length.
fn manifest(n: usize) -> String {
    format!(
        "[[filter]]\nbuiltin = \"storyteller\"\ntimeout = {}\n[filter.config]\ncute = {}\n\
         [[filter]]\nbuiltin = \"redact\"\n",
        timeout_ms(n),
        if n.is_multiple_of(2) { "true " } else { "false" }
    )
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("a temporary file");
}

fn link(target: &str, path: &Path) {
    std::os::unix::fs::symlink(target, path).expect("a temporary link");
}

fn rename(from: &Path, to: &Path) {
    std::fs::rename(from, to).expect("a temporary file");
}

/// A way in which a manifest gets saved: in its folder, for the nth time.
type Style = fn(&Path, usize);

const STYLES: [(&str, Style); 7] = [
    ("truncated and written", |folder, n| write(&folder.join("filters.toml"), &manifest(n))),
    ("renamed into place", |folder, n| {
        write(&folder.join(".new"), &manifest(n));
        rename(&folder.join(".new"), &folder.join("filters.toml"));
    }),
    ("as vim with a backup", |folder, n| {
        rename(&folder.join("filters.toml"), &folder.join("filters.toml~"));
        write(&folder.join("filters.toml"), &manifest(n));
        std::fs::remove_file(folder.join("filters.toml~")).expect("it was there");
    }),
    ("a link that leads elsewhere", |folder, n| {
        write(&folder.join(format!("v{n}")), &manifest(n));
        link(&format!("v{n}"), &folder.join(".link"));
        rename(&folder.join(".link"), &folder.join("filters.toml"));
    }),
    ("a ConfigMap", |folder, n| {
        std::fs::create_dir(folder.join(format!("..{n}"))).expect("a temporary folder");
        write(&folder.join(format!("..{n}/filters.toml")), &manifest(n));
        link(&format!("..{n}"), &folder.join("..data_tmp"));
        rename(&folder.join("..data_tmp"), &folder.join("..data"));
        if !folder.join("filters.toml").read_link().is_ok_and(|to| to.starts_with("..data")) {
            link("..data/filters.toml", &folder.join(".link"));
            rename(&folder.join(".link"), &folder.join("filters.toml"));
        }
    }),
    ("deleted and made anew", |folder, n| {
        std::fs::remove_file(folder.join("filters.toml")).expect("it was there");
        write(&folder.join("filters.toml"), &manifest(n));
    }),
    ("of the same size and time", |folder, n| {
        let path = folder.join("filters.toml");
        let time = std::fs::metadata(&path).and_then(|meta| meta.modified()).expect("a time");
        write(&path, &manifest(n));
        let file = std::fs::File::options().write(true).open(&path).expect("it is there");
        file.set_modified(time).expect("its time can be set");
    }),
];

async fn state(worker: &Worker) -> Value {
    let reply = worker.client.get(worker.url("/filters")).send().await.expect("it listens");
    reply.json().await.expect("JSON")
}

/// Waits until the chain is the one of `manifest(n)`.
async fn live(worker: &Worker, n: usize, how: &str) {
    for _ in 0..6_000 {
        let state = state(worker).await;
        let names: Vec<&Value> =
            state["filters"].as_array().expect("a list").iter().map(|f| &f["name"]).collect();
        assert_eq!(names, ["storyteller", "redact"], "{how}: a filter was dropped meanwhile");
        if state["filters"][0]["timeout_ms"] == timeout_ms(n) {
            assert!(state["last_rejection"].is_null(), "{how}: {state}");
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{how}: change {n} never became live");
}

async fn save_in_every_style(arguments: &[&str], watching: &str) {
    let rounds: usize = std::env::var("ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    let outer = folder();
    let inner = outer.join("filters.d");
    std::fs::create_dir(&inner).expect("a temporary folder");
    write(&inner.join("filters.toml"), &manifest(0));
    let path = inner.to_str().expect("UTF-8");
    let worker = Worker::tiny(&[&["--filters", path], arguments].concat()).await;
    assert_eq!(state(&worker).await["watching"], watching);
    let mut n = 0;
    for (how, save) in STYLES {
        for _ in 0..rounds {
            n += 1;
            save(&inner, n);
            live(&worker, n, how).await;
        }
        let _ = std::fs::remove_file(inner.join("filters.toml"));
        write(&inner.join("filters.toml"), &manifest(n));
    }
    for _ in 0..rounds {
        n += 1;
        let next = outer.join("next");
        std::fs::create_dir(&next).expect("a temporary folder");
        write(&next.join("filters.toml"), &manifest(n));
        rename(&inner, &outer.join(format!("old-{n}")));
        rename(&next, &inner);
        live(&worker, n, "the folder itself replaced").await;
    }
    std::fs::remove_dir_all(&outer).expect("it was made above");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_noticed_however_it_was_saved() {
    save_in_every_style(&[], "events").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_noticed_without_file_events() {
    save_in_every_style(&["--filters-poll"], "poll").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_loads_the_filters_anew() {
    let worker = Worker::tiny(&[]).await;
    let before = state(&worker).await["generation"].as_u64().expect("a number");
    let pid = rustix::process::Pid::from_raw(worker.pid() as i32).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).expect("it runs");
    for _ in 0..6_000 {
        if state(&worker).await["generation"].as_u64() == Some(before + 1) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it never reloaded");
}

#[test]
fn a_child_compiles_and_what_is_kept_needs_no_compiler() {
    let folder = folder();
    let cache = folder.join("cache");
    let load = |compiler: &str, bytes: &[u8]| {
        let host = Host::new().expect("wasm runs");
        let host = host.compiling(Compiler::Child(compiler.into()), Some(&cache));
        Component::load(&host, bytes, 32).map(|component| component.description().name.clone())
    };
    let storyteller = builtin::component("storyteller").expect("it is built in");
    let redact = builtin::component("redact").expect("it is built in");
    assert_eq!(load(BINARY, storyteller).as_deref(), Ok("storyteller"));
    assert_eq!(load("/no/compiler", storyteller).as_deref(), Ok("storyteller"));
    let Err(Failure(reason)) = load("/no/compiler", redact) else { panic!("who compiled it?") };
    assert!(reason.contains("can't be run"), "{reason}");
    let Err(Failure(reason)) = load(BINARY, &storyteller[..storyteller.len() / 2]) else {
        panic!("half a component was compiled");
    };
    assert!(reason.starts_with("is no valid component"), "{reason}");
    let Err(Failure(reason)) = load("/bin/false", redact) else { panic!("it compiles nothing") };
    assert!(reason.contains("can't be compiled"), "{reason}");
    std::fs::remove_dir_all(&folder).expect("it was made above");
}

/// Collects what is written.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no writer panics").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A thread that tells facts of the worker's own and of one job after the other, in turns; the sum of
/// all of them is more than 2,000 a second where the machine is free.
fn teller(pipeline: &Arc<Pipeline>, narrator: &Narrator, done: &Arc<AtomicBool>) -> JoinHandle<()> {
    let (pipeline, narrator, done) = (pipeline.clone(), narrator.clone(), Arc::clone(done));
    std::thread::spawn(move || {
        while !done.load(Ordering::Relaxed) {
            let id = Some(uuid::Uuid::now_v7().to_string());
            let scope = Scope { job_id: id.clone(), correlation_id: id, trace_id: None };
            let log = JobLog::new();
            let feed = pipeline.feed(narrator.clone(), scope, log.clone());
            for tokens in 0..10 {
                narrator.tell(Fact::WarmupStarted(WarmupStarted { tokens }));
                feed.tell(Fact::WarmupStarted(WarmupStarted { tokens }));
            }
            pipeline.flush(Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(10));
        }
    })
}

/// Whose fact a line tells, and its number; it has words.
fn read(line: &str) -> (Option<String>, u64) {
    let line: Value = serde_json::from_str(line).expect("JSON");
    assert!(line["human"].as_str().is_some_and(|human| !human.is_empty()), "{line}");
    (line["job_id"].as_str().map(str::to_owned), line["sequence"].as_u64().expect("a number"))
}

#[test]
fn reloads_under_load_lose_double_and_reorder_nothing() {
    let reloads: usize = std::env::var("RELOADS").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let folder = folder();
    write(&folder.join("filters.toml"), &manifest(0));
    let pipeline = Pipeline::new();
    let narrator = Narrator::new("reload".into(), pipeline.clone());
    let host = Arc::new(Host::new().expect("wasm runs"));
    let chains = Arc::new(Chains::new(host, Some(folder.clone())));
    chains.reload(&narrator).expect("the manifest is sound");
    let lines = Lines::default();
    let stdout = Stdout::spawn(Form::Json, false, lines.clone()).expect("a thread");
    pipeline.start(&chains, &narrator, &stdout).expect("threads");
    let done = Arc::new(AtomicBool::new(false));
    let tellers: Vec<_> = (0..4).map(|_| teller(&pipeline, &narrator, &done)).collect();
    let began = Instant::now();
    for n in 1..=reloads {
        write(&folder.join("filters.toml"), &manifest(n));
        chains.reload(&narrator).expect("the manifest is sound");
        // A hundred broken ones in a row in the middle, one after each good one otherwise.
        write(&folder.join("filters.toml"), "[[filter]]\nbuiltin = 7\n");
        for _ in 0..if n == reloads / 2 { 100 } else { 1 } {
            chains.reload(&narrator).expect_err("it is broken");
        }
        let current = chains.current();
        let serves = (current.entries().len(), current.entries()[0].timeout.as_millis());
        assert_eq!(serves, (2, timeout_ms(n) as u128), "the last good one serves");
    }
    done.store(true, Ordering::Relaxed);
    tellers.into_iter().for_each(|teller| teller.join().expect("it tells to the end"));
    pipeline.flush(Duration::from_secs(60));
    stdout.flush(Duration::from_secs(60));
    let took = began.elapsed().as_secs_f64();
    let written = String::from_utf8(lines.0.lock().expect("no panic").clone()).expect("UTF-8");
    let told: Vec<(Option<String>, u64)> = written.lines().map(read).collect();
    eprintln!("{reloads} reloads, {} events, {:.0} a second", told.len(), told.len() as f64 / took);
    // Each job's facts, and the worker's own, come in the order of their numbers.
    let mut last: HashMap<&Option<String>, u64> = HashMap::new();
    for (job, number) in &told {
        let before = last.insert(job, *number).unwrap_or(0);
        assert!(before < *number, "reordered: {before} before {number} of {job:?}");
    }
    let mut numbers: Vec<u64> = told.iter().map(|(_, number)| *number).collect();
    numbers.sort_unstable();
    let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
    assert_eq!(numbers, expected, "lost or doubled");
    assert!(last.len() > 1 && numbers.len() > reloads, "{}", numbers.len());
    std::fs::remove_dir_all(&folder).expect("it was made above");
}

#[test]
fn reloads_leave_no_memory_behind() {
    let test = "reload::reloads_in_a_process_of_their_own";
    let output = std::process::Command::new(std::env::current_exe().expect("this test has a file"))
        .args(["--exact", test, "--ignored", "--nocapture", "--test-threads", "1"])
        .output()
        .expect("the test's own binary can be run");
    let text = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{said}");
}

/// Filters that differ in a section without meaning, so that each is another file; more of them than are
/// kept in memory.
fn variants() -> Vec<Vec<u8>> {
    let guest = crate::animals::hoarder();
    let variant = |n: u8| [&guest[..], &[0, 3, 1, b'n', n]].concat();
    (0..2 * COMPONENTS_RECENT_MAX as u8).map(variant).collect()
}

/// Memory of this process, MiB.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a figure");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") >> 10
}

#[test]
#[ignore = "run by the test before, alone in its process"]
fn reloads_in_a_process_of_their_own() {
    let reloads: usize = std::env::var("RELOADS").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    let (deployed, cache) = (folder(), folder());
    std::fs::remove_dir(&cache).expect("it was made above"); // the host makes it, for its owner alone
    let host = Host::new().expect("wasm runs").compiling(Compiler::Here, Some(&cache));
    let chains = Chains::new(Arc::new(host), Some(deployed.clone()));
    let narrator = Narrator::new("flat".into(), Arc::new(Nowhere));
    let variants = variants();
    let (mut before, mut times) = (0, Vec::new());
    for n in 0..reloads + 3 * variants.len() {
        if n == 3 * variants.len() {
            before = resident_mib(); // all of them were compiled by now, and served twice
        }
        let bytes = &variants[n % variants.len()];
        std::fs::write(deployed.join("animal.wasm"), bytes).expect("a temporary file");
        let began = Instant::now();
        chains.reload(&narrator).expect("it is sound");
        times.push(began.elapsed());
        let current = chains.current();
        let digest = current.entries().last().map(|entry| entry.component.digest().to_owned());
        assert_eq!(digest, Some(rbees_workerd::filter::component::digest(bytes)));
    }
    times.sort_unstable();
    let (after, half) = (resident_mib(), times[times.len() / 2]);
    eprintln!("{reloads} reloads: {before} MiB before, {after} after; half within {half:?}");
    assert!(after <= before + 16, "{before} MiB became {after}");
    for folder in [deployed, cache] {
        std::fs::remove_dir_all(&folder).expect("it was made above");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_filter_reloads_nothing() {
    let folder = folder();
    write(&folder.join("filters.toml"), &manifest(0));
    let worker = Worker::tiny(&["--filters", folder.to_str().expect("UTF-8")]).await;
    write(&folder.join("notes.txt"), "nobody's business");
    write(&folder.join(".filters.toml.swp"), &manifest(5));
    write(&folder.join("filters.toml"), &manifest(1));
    live(&worker, 1, "written after other files").await;
    assert_eq!(state(&worker).await["generation"], 2);
    std::fs::remove_dir_all(&folder).expect("it was made above");
}

#[test]
fn a_text_stays_with_the_instances_that_it_began_with() {
    let folder = folder();
    let built = guest("contract-0-1-0", "wasm32-unknown-unknown");
    std::fs::copy(built, folder.join("guest.wasm")).expect("it was built");
    let with = |keys: &str| {
        let text = format!("[[filter]]\npath = \"guest.wasm\"\n{keys}");
        write(&folder.join("filters.toml"), &text);
    };
    let host = Arc::new(Host::new().expect("wasm runs"));
    let _timed = host.awake();
    let chains = Chains::new(host, Some(folder.clone()));
    let narrator = Narrator::new("text".into(), Pipeline::new());
    with("text = true\n");
    chains.reload(&narrator).expect("it is sound");
    let mut run = TextRun::begin(&chains.current()).expect("it is turned on");
    assert_eq!(run.push("one", &mut |_| {}).as_deref(), Ok("on"));
    with("text = true\n[filter.config]\nother = 1\n");
    chains.reload(&narrator).expect("it is sound");
    assert_eq!(run.push("two", &mut |_| {}).as_deref(), Ok("_tw"));
    with("text = false\n");
    chains.reload(&narrator).expect("it is sound");
    assert!(TextRun::begin(&chains.current()).is_none(), "new texts pass by");
    assert_eq!(run.finish(&mut |_| {}).as_deref(), Ok("o"));
    std::fs::remove_dir_all(&folder).expect("it was made above");
}
