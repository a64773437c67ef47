//! Colour and columns for people; without a terminal, or with NO_COLOR, text alone.

use std::io::{IsTerminal as _, stdout};

/// Whether to colour.
#[derive(Clone, Copy)]
pub struct Paint(bool);

impl Paint {
    /// As stdout can bear it.
    pub fn for_stdout() -> Self {
        Paint(stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none())
    }

    /// For errors.
    pub fn red(self, text: &str) -> String {
        self.code("31;1", text)
    }

    /// For warnings.
    pub fn yellow(self, text: &str) -> String {
        self.code("33;1", text)
    }

    /// For what is new or well.
    pub fn green(self, text: &str) -> String {
        self.code("32", text)
    }

    /// For names.
    pub fn bold(self, text: &str) -> String {
        self.code("1", text)
    }

    /// For what matters less.
    pub fn dim(self, text: &str) -> String {
        self.code("2", text)
    }

    fn code(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Characters that fit in a line: those of the terminal where it says so, else plenty.
pub fn columns() -> usize {
    std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).unwrap_or(140)
}

/// A text cut to `width` characters, with a sign that it was.
pub fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Rows as a table: each column as wide as its widest cell, the last one cut to the line.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let width_of = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
        cells.chain([head[at].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width_of).collect();
    let line = |cells: &[String]| {
        let mut line = String::new();
        for (at, cell) in cells.iter().enumerate() {
            if at + 1 == head.len() {
                let left = columns().saturating_sub(line.chars().count()).max(16);
                line.push_str(&cut(cell, left));
            } else {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', widths[at] - cell.chars().count() + 2));
            }
        }
        line.trim_end().to_owned()
    };
    let head: Vec<String> = head.iter().map(|&name| name.to_owned()).collect();
    std::iter::once(&head).chain(rows).map(|row| line(row)).collect()
}

/// A count of bytes for people.
pub fn bytes(count: usize) -> String {
    match count {
        0..10_000 => format!("{count} bytes"),
        10_000..10_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        _ => format!("{:.1} MB", count as f64 / 1e6),
    }
}

/// A duration for people.
pub fn time(duration: std::time::Duration) -> String {
    let us = duration.as_secs_f64() * 1e6;
    match us {
        ..10.0 => format!("{us:.2} µs"),
        ..1_000.0 => format!("{us:.0} µs"),
        ..1_000_000.0 => format!("{:.1} ms", us / 1e3),
        _ => format!("{:.1} s", us / 1e6),
    }
}
