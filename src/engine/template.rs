//! Chat templates. They come out of model files, so from strangers, and are treated as hostile:
//! `guard` refuses or rewrites the source before the parser sees it, `sandbox` is what a template
//! can call. Renders on a thread of its own, so that deep recursion meets a stack that is known.
//! Memory and output are bounded (see `sandbox`), steps by fuel, time by a deadline. What remains:
//! the deadline is looked at between tags, calls and comparisons of a filter, not within one, so a
//! tag that compares large values a few hundred times can overstay it by less than a second.
//! Never reads a template, a path or a name from a request; invents no template.

mod guard;
mod sandbox;
#[cfg(test)]
mod tests;

use std::io;
use std::thread;

use minijinja::{Environment, ErrorKind, Value};

use super::gguf::shown;
use crate::error::{Error, Kind, Result};
use crate::limits::{TEMPLATE_BYTES_MAX, TEMPLATE_OUTPUT_BYTES_MAX, TEMPLATE_STACK_BYTES};

const NAME: &str = "chat";

/// One message of a chat. Has neither `Debug` nor `Display`: a prompt must not leak.
#[derive(Clone)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, whatever the template knows.
    pub role: String,
    /// What is said.
    pub content: String,
}

/// A compiled chat template, as Hugging Face's `apply_chat_template` would run it.
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    /// Checks and compiles `source`; `bos` and `eos` are the names of the model's tokens.
    ///
    /// # Errors
    /// [`Kind::Model`] if the source is too long, nested too deep, uses a construct that has no
    /// bound, or is no template.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<ChatTemplate> {
        if source.len() > TEMPLATE_BYTES_MAX {
            let length = source.len();
            return Err(unusable(format_args!(
                "expected at most {TEMPLATE_BYTES_MAX} bytes, found {length}"
            )));
        }
        let guarded = guard::guarded(source)
            .map_err(|fault| unusable(format_args!("line {}: {}", fault.line, fault.problem)))?;
        let environment = apart(|| {
            let mut environment = sandbox::environment();
            environment.add_template_owned(NAME, guarded).map_err(|error| {
                let line = error.line().unwrap_or(0);
                let detail = shown(error.detail().unwrap_or("it can't be parsed"));
                unusable(format_args!("line {line}: {detail}"))
            })?;
            Ok(environment)
        })?;
        let (source, bos, eos) = (source.to_owned(), bos.to_owned(), eos.to_owned());
        Ok(ChatTemplate { environment, source, bos, eos })
    }

    /// The text of a chat, ready to be tokenized, ending where the assistant shall begin.
    ///
    /// # Errors
    /// [`Kind::Request`] if the template refuses the conversation, [`Kind::Model`] if it fails,
    /// needs too many steps or makes too much text. Neither repeats what a message says.
    pub fn render(&self, messages: &[Message]) -> Result<String> {
        apart(|| {
            sandbox::start();
            let mut output = Capped(Vec::new());
            let template = self.environment.get_template(NAME).map_err(|e| self.failed(&e))?;
            template
                .render_captured_to(self.context(messages), &mut output)
                .map_err(|error| self.failed(&error))?;
            String::from_utf8(output.0).map_err(|_| failure("it wrote no UTF-8"))
        })
    }

    fn context(&self, messages: &[Message]) -> Value {
        let message = |message: &Message| {
            let (role, content) = (message.role.as_str(), message.content.as_str());
            minijinja::context! { role, content }
        };
        minijinja::context! {
            messages => messages.iter().map(message).collect::<Vec<_>>(),
            add_generation_prompt => true,
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
            tools => (),
            documents => (),
        }
    }

    /// What a failure of rendering may tell: minijinja's own words can repeat a message, so only
    /// words which stand in the template itself are passed on.
    fn failed(&self, error: &minijinja::Error) -> Error {
        if let Some(words) = sandbox::refusal(error) {
            let known = self.source.contains(words);
            let words = if known { shown(words) } else { "it gives no fixed reason".to_owned() };
            return Error::new(
                Kind::Request,
                format!("the model's chat template refuses this conversation: {words}"),
            );
        }
        if error.kind() == ErrorKind::OutOfFuel {
            return failure("it needs more steps than are allowed");
        }
        if error.kind() == ErrorKind::WriteFailure {
            return failure(format_args!("it makes more than {TEMPLATE_OUTPUT_BYTES_MAX} bytes"));
        }
        let line = error.line().unwrap_or(0);
        failure(format_args!("{} in line {line}", sandbox::reason(error)))
    }
}

fn unusable(problem: impl std::fmt::Display) -> Error {
    Error::new(
        Kind::Model,
        format!(
            "the model's chat template can't be used: {problem}; take a model with another one"
        ),
    )
}

fn failure(problem: impl std::fmt::Display) -> Error {
    Error::new(
        Kind::Model,
        format!("the model's chat template fails: {problem}; send a prompt without messages"),
    )
}

/// Runs `work` on a thread with the stack that the depth limits are made for.
fn apart<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread =
            thread::Builder::new().name("template".to_owned()).stack_size(TEMPLATE_STACK_BYTES);
        let running = thread.spawn_scoped(scope, work).map_err(|error| {
            Error::new(Kind::Internal, "no thread for the chat template: free some memory")
                .because(error)
        })?;
        running.join().unwrap_or_else(|_| Err(failure("the template engine gave up on it")))
    })
}

/// Takes as much output as is allowed, then fails.
struct Capped(Vec<u8>);

impl io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > TEMPLATE_OUTPUT_BYTES_MAX {
            return Err(io::Error::other("the rendered chat is too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
