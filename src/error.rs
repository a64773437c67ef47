//! The one error of the worker: a kind, a message that anybody may read, and a cause for the log.
//! The kind decides the exit code. Never holds a prompt, generated text or a secret.

use std::fmt;
use std::process::ExitCode;

/// What sort of thing went wrong; decides what the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Flags, environment or files of configuration.
    Config,
    /// The model file, its tokenizer or its template.
    Model,
    /// The address can't be bound.
    Bind,
    /// The pool manager could not be reached.
    Callback,
    /// A filter, or the chain's description.
    Filter,
    /// What a client sent.
    Request,
    /// The device's memory doesn't suffice.
    OutOfMemory,
    /// A computation of the engine failed.
    Inference,
    /// A fault of the worker itself.
    Internal,
}

impl Kind {
    /// The exit code of a worker that ends for an error of this kind (0 is a graceful end).
    pub const fn exit_code(self) -> u8 {
        match self {
            Kind::Config => 2,
            Kind::Model => 3,
            Kind::Bind => 4,
            Kind::Callback => 5,
            Kind::Filter => 6,
            Kind::Request | Kind::OutOfMemory | Kind::Inference | Kind::Internal => 1,
        }
    }
}

/// A failure: its [`Kind`], one line that says what was wrong, where, and what to do, and a cause.
///
/// `Display` gives the line alone; [`Error::trail`] adds the causes, for logs.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// A result whose failure is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error without a cause.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), cause: None }
    }

    /// The same error with what led to it.
    pub fn because(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// What sort of error this is.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The exit code of a worker that ends for it.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.kind.exit_code())
    }

    /// The message and every cause behind it, for logs.
    pub fn trail(&self) -> String {
        let mut trail = self.message.clone();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            trail.push_str(": ");
            trail.push_str(&error.to_string());
            cause = error.source();
        }
        trail
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_ref().map(|cause| &**cause as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_keeps_the_cause_to_itself() {
        let error = Error::new(Kind::Model, "the model is damaged")
            .because(std::io::Error::other("inner detail"));
        assert_eq!(error.to_string(), "the model is damaged");
        assert_eq!(error.trail(), "the model is damaged: inner detail");
        assert_eq!(error.kind().exit_code(), 3);
    }
}
