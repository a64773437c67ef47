//! Promise: no model file panics the worker, makes it allocate without bound, or changes what it
//! serves once it is loaded.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rbees_workerd::engine::{self, Budget, Chunk, Logits};
use rbees_workerd::error::Kind;
use rbees_workerd::narration::{Narrator, Nowhere};
use serde_json::json;

use crate::worker::{BINARY, Worker, folder, kind, text};

#[path = "../zoo/models.rs"]
mod zoo;

/// Mutations that the quick form tries; `RBEES_FUZZ_ROUNDS` asks for more.
const ROUNDS: u64 = 600;

/// Shows a file to the real worker; what is wrong with how it ends.
fn show(animal: &zoo::Animal, folder: &Path) -> Option<String> {
    let path = folder.join(format!("{}.gguf", animal.name.replace([' ', '/'], "-")));
    std::fs::write(&path, &animal.bytes).expect("a temporary file");
    let told = path.with_extension("told");
    let stderr = path.with_extension("stderr");
    let file = |path: &Path| std::fs::File::create(path).expect("a temporary file");
    let mut child = std::process::Command::new(BINARY)
        .args(["serve", "--port", "0", "--kv-mib", "8", "--model"])
        .arg(&path)
        .env_remove("RUST_LOG")
        .stdout(file(&told))
        .stderr(file(&stderr))
        .spawn()
        .expect("the worker can be run");
    let text = |path: &Path| {
        String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
    };
    let status = loop {
        if let Some(status) = child.try_wait().expect("it can be waited for") {
            break status;
        }
        if text(&told).contains("\"warmup-completed\"") {
            child.kill().expect("it runs");
            child.wait().expect("it ran");
            return Some(format!("{}: it is served", animal.name));
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    let (told, stderr) = (text(&told), text(&stderr));
    let line = stderr.trim_end();
    let clean = line.lines().count() == 1 && !line.contains(char::is_control);
    let sound = status.code() == Some(3) && clean && !line.contains("panicked");
    if !sound || !line.contains(animal.says) || line.chars().count() > 500 {
        return Some(format!("{}: {status}: {stderr}", animal.name));
    }
    let cleanly = told.contains("model-load-failed") && !told.contains('\u{1b}');
    (!cleanly).then(|| format!("{}: it was not told, or not cleanly", animal.name))
}

#[test]
fn every_animal_ends_with_3_and_one_line() {
    let animals = zoo::all();
    assert!(animals.len() >= 40, "{} animals", animals.len());
    let folder = folder();
    let wrong = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for part in animals.chunks(animals.len().div_ceil(4)) {
            let (wrong, folder) = (&wrong, &folder);
            scope.spawn(move || {
                for animal in part {
                    wrong.lock().expect("no panic").extend(show(animal, folder));
                }
            });
        }
    });
    std::fs::remove_dir_all(&folder).expect("it was made above");
    let wrong = wrong.into_inner().expect("no panic");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Loads a model and computes a few tokens; errors are fine, panics are not.
fn load_and_step(path: &Path) -> Result<(), Kind> {
    let narrator = Narrator::new("fuzz".into(), Arc::new(Nowhere));
    let (device, _) = engine::device::cpu();
    let budget = Budget { sequences: 2, kv_bytes: 1 << 20 };
    let loaded = engine::load(path, &device, budget, &narrator, &|_, _| {});
    let mut loaded = loaded.map_err(|error| error.kind())?;
    let blocks: Vec<u32> = (0..loaded.decoder.blocks() as u32).collect();
    let chunk = Chunk { blocks: &blocks, position: 0, tokens: &[1, 2], logits: true };
    loaded.decoder.step(&[chunk], &mut Logits::default()).map_err(|error| error.kind())
}

/// The tiny model with a few bytes changed, most of them in its header.
fn mutated(sound: &[u8], seed: u64) -> Vec<u8> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut bytes = sound.to_vec();
    for _ in 0..=random.next_u32() % 3 {
        let header = random.next_u32() % 8 > 0;
        let most = if header { 9_000 } else { bytes.len() };
        let at = random.next_u32() as usize % most.min(bytes.len());
        match random.next_u32() % 5 {
            0 => bytes[at] = random.next_u32() as u8,
            1 => bytes[at] ^= 1 << (random.next_u32() % 8),
            2 => {
                let word = [0, 1, u64::MAX, 1 << 63, 1 << 31, 7][random.next_u32() as usize % 6];
                let end = (at + 8).min(bytes.len());
                bytes[at..end].copy_from_slice(&word.to_le_bytes()[..end - at]);
            }
            3 => {
                let from = random.next_u32() as usize % bytes.len();
                let length = (random.next_u32() as usize % 64).min(bytes.len() - from.max(at));
                bytes.copy_within(from..from + length, at);
            }
            _ if random.next_u32() % 8 == 0 => bytes.truncate(at.max(1)),
            _ => bytes[at] = bytes[at].wrapping_add(1),
        }
    }
    bytes
}

/// The seeds among `rounds` whose file makes `load` panic.
fn panics(rounds: u64, load: impl Fn(&Path) -> Result<(), Kind>) -> (Vec<u64>, u64) {
    let folder = folder();
    let (path, sound) = (folder.join("mutant.gguf"), crate::gguf::tiny_llama(1));
    let (mut found, mut loaded) = (Vec::new(), 0);
    for seed in 0..rounds {
        std::fs::write(&path, mutated(&sound, seed)).expect("a temporary file");
        match catch_unwind(AssertUnwindSafe(|| load(&path))) {
            Ok(Ok(())) => loaded += 1,
            Ok(Err(Kind::Model | Kind::Inference | Kind::OutOfMemory)) => {}
            Ok(Err(_)) | Err(_) => found.push(seed),
        }
    }
    std::fs::remove_dir_all(&folder).expect("it was made above");
    (found, loaded)
}

#[test]
fn no_mutation_panics() {
    let rounds = std::env::var("RBEES_FUZZ_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let (found, loaded) = panics(rounds.unwrap_or(ROUNDS), load_and_step);
    assert!(found.is_empty(), "seeds {found:?} panic, or fail as no model should");
    assert!(loaded > 0, "every mutant was refused: nothing was tried");
}

#[test]
fn the_harness_sees_a_planted_panic() {
    let planted = |path: &Path| {
        let bytes = std::fs::read(path).expect("it was written");
        assert!(bytes.get(8..16).is_some_and(|count| count[1..] == [0; 7]), "planted");
        Ok(())
    };
    let (found, _) = panics(3_000, planted);
    assert!(!found.is_empty(), "3,000 mutants, and none met the planted bug");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_the_file_changes_nothing() {
    let model = crate::gguf::tiny_llama(7);
    let worker = Worker::with_model(&model, &[]).await;
    let path = worker.fact("model-load-started")["fact"]["model-load-started"]["path"].clone();
    let path = Path::new(path.as_str().expect("a path"));
    let body = json!({"prompt": "the bees", "max_tokens": 24, "temperature": 0});
    let expected = text(&worker.execute(&body).await);
    let other = path.with_extension("other");
    for round in 0..200 {
        match round % 4 {
            0 => std::fs::File::create(path).and_then(|file| file.set_len(100)),
            1 => std::fs::write(path, vec![0xff; model.len()]),
            2 => std::fs::write(&other, b"no model").and_then(|()| std::fs::rename(&other, path)),
            _ => std::fs::remove_file(path).and_then(|()| std::fs::write(path, &model)),
        }
        .expect("the file is ours");
        assert_eq!(text(&worker.execute(&body).await), expected, "round {round}");
    }
    assert!(!worker.told().iter().any(|n| kind(n) == "inference-failed"));
}
