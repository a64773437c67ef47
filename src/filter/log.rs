//! What a filter says to those who debug it: lines of its log import and what it writes to stderr or
//! stdout through WASI. All of it goes to the worker's stderr, cleaned, cut and counted; never to stdout.

use std::sync::Arc;

use crate::limits::{FILTER_COMPLAINT_CHARS_MAX, FILTER_LOG_CHARS_MAX, FILTER_LOG_LINES_MAX};
use crate::narration::{Severity, clean};

/// The log of one instance.
pub struct Log {
    filter: Arc<str>,
    lines: u32,
    /// What was written since the last line break.
    partial: Vec<u8>,
    /// The end of what it wrote to stderr, for the reason of a failure at its start.
    complaint: String,
}

impl Log {
    /// An empty log under the name of `filter`.
    pub const fn new(filter: Arc<str>) -> Self {
        Log { filter, lines: 0, partial: Vec::new(), complaint: String::new() }
    }

    /// Writes one line, unless too many were written before.
    pub fn line(&mut self, level: Severity, message: &str) {
        self.lines = self.lines.saturating_add(1);
        if self.lines > FILTER_LOG_LINES_MAX {
            return;
        }
        let filter = &*self.filter;
        let message = clean::line(message, FILTER_LOG_CHARS_MAX);
        match level {
            Severity::Debug => tracing::debug!(target: "filter", filter, "{message}"),
            Severity::Info => tracing::info!(target: "filter", filter, "{message}"),
            Severity::Warn => tracing::warn!(target: "filter", filter, "{message}"),
            Severity::Error => tracing::error!(target: "filter", filter, "{message}"),
        }
        if self.lines == FILTER_LOG_LINES_MAX {
            tracing::warn!(target: "filter", filter, "no further lines of this instance are shown");
        }
    }

    /// Takes what a guest writes to its stderr: each whole line becomes a line of the log.
    pub fn stderr(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                self.end_of_line();
            } else if self.partial.len() < FILTER_LOG_CHARS_MAX {
                self.partial.push(byte);
            }
        }
    }

    /// The end of what it wrote to stderr, as one line; empty if that was nothing.
    pub fn complaint(&mut self) -> &str {
        self.end_of_line();
        &self.complaint
    }

    fn end_of_line(&mut self) {
        let bytes = std::mem::take(&mut self.partial);
        let text = String::from_utf8_lossy(&bytes);
        if text.trim().is_empty() {
            return;
        }
        self.line(Severity::Warn, &text);
        if !self.complaint.is_empty() {
            self.complaint.push(' ');
        }
        self.complaint.push_str(&clean::line(text.trim(), FILTER_LOG_CHARS_MAX));
        let chars = self.complaint.chars().count();
        let excess = chars.saturating_sub(FILTER_COMPLAINT_CHARS_MAX);
        if let Some((from, _)) = self.complaint.char_indices().nth(excess) {
            self.complaint.drain(..from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_stderr_is_kept_in_one_bounded_line() {
        let mut log = Log::new("f".into());
        log.stderr(b"first\n\nsec");
        log.stderr("ond\x1b[2J \u{fc}".as_bytes());
        assert_eq!(log.complaint(), "first second \u{fc}");
        log.stderr(&b"x".repeat(100_000));
        log.stderr("\n\u{fc}end".repeat(1_000).as_bytes());
        assert!(log.complaint().chars().count() <= FILTER_COMPLAINT_CHARS_MAX);
        assert!(log.complaint().ends_with("\u{fc}end"));
    }
}
