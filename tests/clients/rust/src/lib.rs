//! What the clients of the matrix share: how they are asked, and the one line of JSON that a case ends
//! with. It never judges: `matrix.py` does.

use serde_json::{Value, json};

/// What a client is asked: `PROGRAM URL CASE`, and the environment.
pub struct Case {
    pub url: String,
    pub name: String,
    pub prompt: String,
    pub tokens: u32,
}

impl Case {
    pub fn from_command_line() -> Self {
        let [url, name] = std::array::from_fn(|at| std::env::args().nth(at + 1).expect("URL CASE"));
        let prompt = std::env::var("PROMPT").expect("PROMPT is set");
        let tokens = std::env::var("TOKENS").expect("TOKENS is set").parse().expect("a number");
        Self { url, name, prompt, tokens }
    }
}

/// What a client found.
#[derive(Default)]
pub struct Found {
    pub text: String,
    pub narrations: u32,
    pub rest: serde_json::Map<String, Value>,
}

impl Found {
    pub fn note(&mut self, key: &str, value: impl Into<Value>) {
        self.rest.insert(key.to_owned(), value.into());
    }

    /// Prints it, with the version of `package` as the lock has it.
    pub fn print(mut self, package: &str) {
        self.note("version", version(package));
        self.note("text", self.text.clone());
        self.note("narrations", self.narrations);
        println!("{}", json!(self.rest));
    }
}

fn version(package: &str) -> &'static str {
    let lock = include_str!("../Cargo.lock");
    let mut lines = lock.lines().skip_while(|line| *line != format!("name = \"{package}\""));
    let version = lines.nth(1).expect("the lock has it");
    version.trim_start_matches("version = ").trim_matches('"')
}
