//! Chats against what `transformers` makes of them: by templates of our own, recorded, and by those that
//! real models carry, where somebody has fetched them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::*;

/// What `tests/references/make_templates.py` has recorded.
#[derive(Deserialize)]
struct Recorded {
    bos: String,
    eos: String,
    chats: Vec<Vec<Said>>,
    templates: BTreeMap<String, Answers>,
}

#[derive(Deserialize)]
struct Said {
    role: String,
    content: String,
}

#[derive(Deserialize)]
struct Answers {
    source: String,
    /// A text for each chat; none where the template refuses it.
    answers: Vec<Option<String>>,
}

/// How many texts are the same, and what is not: template, chat and both texts.
fn compared(path: &Path) -> (usize, Vec<String>) {
    let json = std::fs::read(path).expect("it has been recorded");
    let recorded: Recorded = serde_json::from_slice(&json).expect("a recording");
    let (mut same, mut others) = (0, Vec::new());
    for (name, Answers { source, answers }) in &recorded.templates {
        let template = match ChatTemplate::new(source, &recorded.bos, &recorded.eos) {
            Ok(template) => template,
            Err(error) => {
                others.push(format!("{name}: {error}"));
                continue;
            }
        };
        for (at, (chat, answer)) in recorded.chats.iter().zip(answers).enumerate() {
            let chat: Vec<Message> =
                chat.iter().map(|said| message(&said.role, &said.content)).collect();
            let found = template.render(&chat);
            let why = found.as_ref().err().map(ToString::to_string);
            match found.ok() == *answer {
                true => same += 1,
                false => others.push(format!("{name}, chat {at}: {why:?}, expected {answer:?}")),
            }
        }
    }
    (same, others)
}

#[test]
fn chats_render_as_transformers_renders_them() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/references/templates.json");
    let (same, others) = compared(&path);
    assert!(others.is_empty(), "{}", others.join("\n"));
    assert_eq!(same, 5 * 22);
}

/// Templates of others that are not rendered, and why.
const NOT_RENDERED: [(&str, &str); 3] = [
    ("Reka-Edge", "multiplies a text"),
    ("meetkai-functionary-medium-v3.2", "multiplies a text"),
    ("tencent-Hy3", "calls the method format"),
];

/// For `make real-templates`: `RBEES_TEMPLATES` names a recording of templates that aren't ours.
#[test]
#[ignore = "needs templates of others: make real-templates"]
fn templates_of_real_models_render_as_in_transformers() {
    let path = std::env::var_os("RBEES_TEMPLATES").map(PathBuf::from).expect("RBEES_TEMPLATES");
    let (same, others) = compared(&path);
    eprintln!("{same} texts are the same, {} are not", others.len());
    others.iter().for_each(|other| eprintln!("{}", other.chars().take(600).collect::<String>()));
    let known = |other: &&String| !NOT_RENDERED.iter().any(|known| other.starts_with(known.0));
    // Where only `transformers` refuses, a template wants tools, and there are none.
    let wrong = others.iter().filter(known).filter(|other| !other.ends_with("expected None"));
    assert!(same > 0 && wrong.count() == 0, "texts differ");
}
