//! Vocabularies of real models, where somebody has fetched llama.cpp's: its own recorded tokens.

use std::path::{Path, PathBuf};

use super::*;

/// Texts and their tokens, as llama.cpp keeps them beside a vocabulary.
fn recorded(gguf: &Path) -> Option<(Vec<String>, Vec<Vec<u32>>)> {
    let beside = |kind: &str| PathBuf::from(format!("{}.{kind}", gguf.display()));
    let texts = std::fs::read_to_string(beside("inp")).ok()?;
    let tokens = std::fs::read_to_string(beside("out")).ok()?;
    let texts = texts.split("\n__ggml_vocab_test__\n").map(str::to_owned).collect();
    let ids = |line: &str| line.split_whitespace().map(|id| id.parse().expect("an id")).collect();
    Some((texts, tokens.lines().map(ids).collect()))
}

/// For `make real-vocabularies`: `RBEES_VOCABULARIES` names a folder of llama.cpp's.
#[test]
#[ignore = "needs vocabularies of others: make real-vocabularies"]
fn real_vocabularies_cut_texts_as_llama_cpp_does() {
    let folder = std::env::var_os("RBEES_VOCABULARIES").expect("RBEES_VOCABULARIES");
    let files = std::fs::read_dir(folder).expect("a folder").flatten().map(|file| file.path());
    let mut files: Vec<PathBuf> =
        files.filter(|file| file.extension().is_some_and(|e| e == "gguf")).collect();
    files.sort();
    let (mut same, mut apart) = (0, Vec::new());
    for file in files {
        let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
        let Some((texts, expected)) = recorded(&file) else { continue };
        let (gguf, _) = Gguf::open(&file).unwrap_or_else(|error| panic!("{name}: {error}"));
        let tokenizer = match Tokenizer::from_gguf(&gguf) {
            Ok(tokenizer) => tokenizer,
            Err(error) => {
                eprintln!("{name}: not taken: {error}");
                continue;
            }
        };
        let before = apart.len();
        for (text, expected) in texts.iter().zip(&expected) {
            let found = tokenizer.encode(text).expect("tokens");
            match found == *expected {
                true => same += 1,
                false => apart.push(format!("{name}: {text:?}: {found:?}, expected {expected:?}")),
            }
        }
        eprintln!("{name}: {} texts, {} apart", texts.len(), apart.len() - before);
    }
    apart.iter().for_each(|apart| eprintln!("{apart}"));
    assert!(same > 0 && apart.is_empty(), "{} texts differ", apart.len());
}
