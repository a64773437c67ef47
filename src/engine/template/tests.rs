//! Templates as models have them, and templates made to hurt.

use super::*;

#[path = "../../../tests/support/gguf.rs"]
mod support;

fn message(role: &str, content: &str) -> Message {
    Message { role: role.to_owned(), content: content.to_owned() }
}
