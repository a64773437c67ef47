//! Why something could not be made. A computation itself does not fail.

use std::fmt;

/// What sort of thing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A setting that the kernels don't have.
    Setting,
    /// Weights or shapes that are not what was announced, or that the kernels can't compute.
    Weights,
    /// Memory that can't be had.
    Memory,
}

/// A failure: what sort, and one line that says what was wrong and what to do.
#[derive(Debug)]
pub struct Error {
    fault: Fault,
    message: String,
}

/// A result whose failure is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn new(fault: Fault, message: impl Into<String>) -> Self {
        Error { fault, message: message.into() }
    }

    /// What sort of failure this is.
    pub const fn fault(&self) -> Fault {
        self.fault
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
