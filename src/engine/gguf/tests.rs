//! Headers that lie: each told apart, none believed, none a panic.

use std::sync::atomic::{AtomicU32, Ordering};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::*;
use support::{F32, GgufBuilder, Q8_0, tiny_llama};

#[path = "../../../tests/support/gguf.rs"]
pub(crate) mod support;

/// A file that is gone with its value.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(bytes: &[u8]) -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("rbees-gguf-{}-{number}.gguf", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, bytes).expect("the temporary folder takes files");
        Scratch(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn read(&self) -> Result<Gguf> {
        Gguf::open(&self.0).map(|(gguf, _)| gguf)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Reads bytes as a file of this length would be, without a disk.
fn read(bytes: &[u8]) -> Result<Gguf> {
    Gguf::from_bytes("test.gguf", bytes)
}

fn check_error(bytes: &[u8], expected: &str) {
    let error = read(bytes).map(|_| ()).expect_err(expected);
    assert_eq!(error.kind(), Kind::Model);
    let text = error.to_string();
    assert!(text.contains(expected), "expected '{expected}' in '{text}'");
    assert!(text.starts_with("test.gguf: ") && text.chars().count() < 400, "{text}");
    assert!(!text.contains(char::is_control), "{text:?}");
}

/// A small file with a value of each sort and two tensors.
fn sound() -> GgufBuilder {
    GgufBuilder::new()
        .meta_str("general.architecture", "llama")
        .meta_u32("number", 7)
        .meta_f32("float", 0.5)
        .meta_bool("yes", true)
        .meta_raw("negative", 11, &(-3i64).to_le_bytes())
        .meta_strs("texts", &["a", "", "蜂"])
        .meta_i32s("ints", &[1, -1])
        .meta_f32s("floats", &[1.0, 2.0])
        .meta_list_raw("bytes", 0, 3, &[1, 2, 3])
        .tensor("a", &[2, 32], Q8_0, &[0; 68])
        .tensor("b", &[3], F32, &[0; 12])
}

#[test]
fn a_sound_header_is_read_as_it_was_written() {
    let bytes = sound().build();
    let gguf = read(&bytes).expect("a sound header");
    assert_eq!(gguf.architecture().ok(), Some("llama"));
    assert_eq!(gguf.uint("number").ok(), Some(7));
    assert_eq!(gguf.uint_opt("negative"), None);
    assert_eq!(gguf.float_opt("negative"), Some(-3.0));
    assert_eq!(gguf.float_opt("float"), Some(0.5));
    assert_eq!(gguf.bool_opt("yes"), Some(true));
    assert_eq!(gguf.texts("texts").ok(), Some(["a", "", "蜂"].map(str::to_owned).as_slice()));
    assert_eq!(gguf.ints_opt("ints"), Some([1, -1].as_slice()));
    assert_eq!(gguf.floats_opt("floats"), Some([1.0, 2.0].as_slice()));
    assert_eq!(gguf.bytes_opt("bytes"), Some([1, 2, 3].as_slice()));
    assert_eq!(gguf.text_opt("number"), None);
    let [a, b] = gguf.tensors() else { panic!("two tensors") };
    assert_eq!((a.name.as_str(), a.dtype, a.bytes), ("a", DType::Q8_0, 68));
    assert_eq!(a.shape, [2, 32]);
    assert_eq!(a.offset % 32, 0);
    assert_eq!(b.offset, a.offset + 96);
    assert_eq!(gguf.file_bytes(), b.offset + 12);
    assert_eq!(gguf.parameters(), 67);
    assert_eq!(gguf.quantization(), "Q8_0");
    assert!(read(&sound().version(2).build()).is_ok());
}

#[test]
fn what_is_missing_or_of_another_type_is_told() {
    let gguf = read(&sound().build()).expect("a sound header");
    let text = |result: Result<&str>| result.expect_err("must fail").to_string();
    assert!(
        text(gguf.text("number"))
            .contains("expected a text at metadata key 'number', found an integer")
    );
    assert!(text(gguf.text("nowhere")).contains("found nothing"));
    assert!(gguf.uint("ints").is_err() && gguf.texts("ints").is_err());
}

#[test]
fn a_header_cut_anywhere_is_called_cut() {
    let bytes = sound().build();
    for length in 4..bytes.len() {
        check_error(&bytes[..length], "cut short: fetch it again");
    }
    check_error(b"GGU", "cut short");
    check_error(b"", "cut short");
}

#[test]
fn lies_in_the_start_of_the_header() {
    check_error(b"FUGG\x03\0\0\0", "expected 'GGUF' at byte 0, found 'FUGG'");
    check_error(&GgufBuilder::new().version(1).build(), "found version 1");
    check_error(&GgufBuilder::new().version(3 << 24).build(), "found a big-endian file");
    let with_counts = |tensors: u64, entries: u64| {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend(tensors.to_le_bytes());
        bytes.extend(entries.to_le_bytes());
        bytes
    };
    check_error(&with_counts(u64::MAX, 0), "at most 16384 tensors, found 18446744073709551615");
    check_error(&with_counts(0, 4_097), "at most 4096 metadata entries, found 4097");
    check_error(&with_counts(16_384, 4_096), "cut short");
}

#[test]
fn lies_in_the_metadata() {
    let list = |code, count| GgufBuilder::new().meta_list_raw("k", code, count, &[0; 8]).build();
    let raw = |code, value: &[u8]| GgufBuilder::new().meta_raw("k", code, value).build();
    check_error(&sound().meta_u32("number", 8).build(), "'number', before byte");
    check_error(&sound().meta_u32("number", 8).build(), "the key stands in the file twice");
    check_error(&GgufBuilder::new().meta_u32("", 8).build(), "found an empty text");
    check_error(&raw(13, &[0; 8]), "'k', before byte 37: value type 13 is unknown");
    check_error(&raw(7, &[2]), "expected a boolean, found 2");
    check_error(&raw(8, &(2u64 << 20).to_le_bytes()), "at most 1048576 bytes in a text");
    check_error(&raw(8, &[1, 0, 0, 0, 0, 0, 0, 0, 0xff]), "'k', before byte 46: expected UTF-8");
    check_error(&list(9, 1), "arrays within arrays");
    check_error(&list(13, 1), "element type 13 is unknown");
    check_error(&list(0, u64::MAX), "at most 2097152 array elements");
    check_error(&list(8, 2_000_000), "cut short");
    check_error(&list(4, 1_000), "cut short");
    let booleans = GgufBuilder::new().meta_list_raw("k", 7, 2, &[1, 3]).build();
    check_error(&booleans, "expected a boolean, found 3");
    let huge = GgufBuilder::new().meta_list_raw("k", 10, 1, &u64::MAX.to_le_bytes()).build();
    check_error(&huge, "is too large for an array");
    let tokens = GgufBuilder::new().meta_list_raw(
        "tokenizer.ggml.tokens",
        8,
        1,
        &[1, 0, 0, 0, 0, 0, 0, 0, 0x80],
    );
    check_error(&tokens.build(), "metadata key 'tokenizer.ggml.tokens'");
    for wrong in [0, 4, 24, 8_192] {
        check_error(&sound().meta_u32("general.alignment", wrong).build(), "power of two from 8");
    }
    check_error(&sound().meta_str("general.alignment", "8").build(), "found a text");
    let aligned = GgufBuilder::new().meta_u32("general.alignment", 64).align_data(64);
    assert!(read(&aligned.tensor("a", &[1], F32, &[0; 4]).build()).is_ok());
}

#[test]
fn lies_about_tensors() {
    let one = |dims: &[u64], dtype| GgufBuilder::new().tensor("t", dims, dtype, &[0; 64]).build();
    let at = |dims: &[u64], offset| GgufBuilder::new().tensor_at("t", dims, F32, offset).build();
    check_error(
        &sound().tensor("a", &[1], F32, &[0; 4]).build(),
        "the name stands in the file twice",
    );
    check_error(&one(&[], F32), "expected 1 to 4 dimensions, found 0");
    check_error(&one(&[1; 5], F32), "expected 1 to 4 dimensions, found 5");
    check_error(&one(&[2, 0], F32), "tensor 't', before byte");
    check_error(&one(&[2, 0], F32), "a dimension is 0");
    check_error(&one(&[1 << 32, 1 << 32], F32), "more than 64 bits");
    check_error(&one(&[1 << 63], F32), "more than 64 bits");
    check_error(&one(&[2, 33], Q8_0), "rows of 33 weights aren't whole blocks of 32 (Q8_0)");
    check_error(&one(&[32, 1], Q8_0), "rows of 1 weights");
    check_error(&one(&[32], 4), "the type number 4");
    check_error(&one(&[32], 23), "the type IQ4_XS, which the engine can't compute with");
    check_error(&one(&[17], F32), "tensor 't' ends at byte");
    check_error(&at(&[1], 4), "offset 4 is no multiple of 32");
    check_error(&at(&[1], u64::MAX - 31), "the offset is more than 64 bits hold");
    check_error(&at(&[1], 1 << 40), "cut short");
    let overlap = sound().tensor_at("c", &[1], F32, 64);
    check_error(&overlap.build(), "tensor 'c', before byte");
    check_error(&sound().tensor_at("c", &[1], F32, 0).build(), "overlaps that of tensor 'a'");
    check_error(
        &GgufBuilder::new().tensor(&"n".repeat(257), &[1], F32, &[0; 4]).build(),
        "at most 256",
    );
}

#[test]
fn names_in_errors_are_cleaned_and_cut() {
    let name = format!("\u{1b}[31m\u{202e}{}\n", "n".repeat(200));
    check_error(&GgufBuilder::new().tensor(&name, &[0], F32, &[]).build(), &"n".repeat(60));
    assert_eq!(shown("a\u{7f}\u{200b}b\r\n"), "ab");
    assert_eq!(shown(&"x".repeat(65)), "x".repeat(64) + "…");
    assert_eq!(shown(&"x".repeat(64)), "x".repeat(64));
}

#[test]
fn no_mutation_makes_it_panic() {
    let sound = sound().build();
    let mut refused = 0;
    for seed in 0..20_000 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut bytes = sound.clone();
        for _ in 0..=random.next_u32() % 4 {
            let at = random.next_u32() as usize % bytes.len();
            match random.next_u32() % 4 {
                0 => bytes[at] = random.next_u32() as u8,
                1 => bytes[at] ^= 1 << (random.next_u32() % 8),
                2 => {
                    let word = [0, 1, u64::MAX, 1 << 63, 1 << 20][random.next_u32() as usize % 5];
                    let end = (at + 8).min(bytes.len());
                    bytes[at..end].copy_from_slice(&word.to_le_bytes()[..end - at]);
                }
                _ => bytes.truncate(at.max(1)),
            }
        }
        match read(&bytes) {
            Ok(gguf) => {
                for tensor in gguf.tensors() {
                    assert!(tensor.offset + tensor.bytes <= bytes.len() as u64, "seed {seed}");
                }
            }
            Err(error) => {
                refused += 1;
                assert_eq!(error.kind(), Kind::Model, "seed {seed}");
            }
        }
    }
    assert!(refused > 10_000, "only {refused} mutations were refused");
}

#[test]
fn a_whole_model_is_read_from_disk() {
    let file = Scratch::new(&tiny_llama(1));
    let gguf = file.read().expect("a sound file");
    assert_eq!(gguf.architecture().ok(), Some("llama"));
    assert_eq!(gguf.quantization(), "F32");
    assert_eq!(gguf.path(), file.0);
    let missing =
        Gguf::open(Path::new("/nowhere/none.gguf")).map(|_| ()).expect_err("no such file");
    assert!(missing.to_string().starts_with("none.gguf: the model file can't be opened"));
    let folder = Gguf::open(&std::env::temp_dir()).map(|_| ()).expect_err("a folder");
    assert!(folder.to_string().contains("found a folder"), "{folder}");
}
