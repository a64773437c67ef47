//! Prints what `filter check` found, for people or as JSON. Judges nothing.

use std::fmt::Write as _;
use std::io::Write as _;

use super::check::{Report, Row, Verdict};
use super::lint::{Problem, Severity};
use super::paint::{self, Paint};
use crate::error::{Error, Kind, Result};

/// Writes a report to stdout.
pub fn print(report: &Report, json: bool) -> Result<()> {
    let text = if json {
        serde_json::to_string_pretty(report)
            .map_err(|e| Error::new(Kind::Internal, "the report is no JSON").because(e))?
    } else {
        for_people(report, Paint::for_stdout())
    };
    out(&text)
}

/// Writes a text and a line break to stdout.
pub fn out(text: &str) -> Result<()> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::new(Kind::Internal, "stdout can't be written").because(error))
        }
        _ => Ok(()), // whoever reads has seen enough
    }
}

fn for_people(report: &Report, paint: Paint) -> String {
    let mut text = String::new();
    head(&mut text, report, paint);
    table(&mut text, &report.facts, paint);
    for problem in &report.problems {
        fault(&mut text, problem, paint);
    }
    if let Some(cost) = &report.cost {
        let _ = writeln!(
            text,
            "cost: {} an event (99 of 100 within {}), {} to start, {} of memory",
            paint::time(cost.call_median),
            paint::time(cost.call_p99),
            paint::time(cost.start_median),
            paint::bytes(cost.memory_bytes),
        );
    }
    text.push_str(&verdict(report, paint));
    text
}

fn head(text: &mut String, report: &Report, paint: Paint) {
    let form = if report.core_module { "a core module" } else { "a component" };
    let imports = match report.imports.as_slice() {
        [] => "nothing".to_owned(),
        names => names.join(", "),
    };
    let kinds = report.kinds.as_ref().map_or("all".to_owned(), |kinds| kinds.join(", "));
    let redacts =
        if report.redacts { "yes: its failure can never let a narration through" } else { "no" };
    let takes_text = if report.takes_text { "yes, where `text = true`" } else { "no" };
    let schema = match &report.config_schema["properties"] {
        serde_json::Value::Object(properties) if !properties.is_empty() => {
            properties.keys().cloned().collect::<Vec<_>>().join(", ")
        }
        _ => "nothing".to_owned(),
    };
    let _ = writeln!(
        text,
        "{} {} ({})\n  file     {}, {}\n  sha256   {}\n  contract rbees:narration@{}\n  \
         imports  {imports}\n  kinds    {kinds}\n  redacts  {redacts}\n  text     {takes_text}\n  \
         config   {schema}\n",
        paint.bold(&report.name),
        report.version,
        report.file,
        paint::bytes(report.bytes),
        form,
        report.sha256,
        report.contract,
    );
}

fn table(text: &mut String, facts: &[Row], paint: Paint) {
    let (unwanted, rows): (Vec<&Row>, Vec<&Row>) =
        facts.iter().partition(|row| row.verdict == Verdict::NotWanted);
    let cells: Vec<Vec<String>> = rows.iter().map(|row| cells(row)).collect();
    if !cells.is_empty() {
        let lines = paint::table(&["fact", "does", "goes to", "changes", "reads"], &cells);
        for (at, line) in lines.iter().enumerate() {
            let line = if at == 0 { paint.dim(line) } else { line.clone() };
            let _ = writeln!(text, "{line}");
        }
    }
    if !unwanted.is_empty() {
        let kinds: Vec<&str> = unwanted.iter().map(|row| row.kind.as_str()).collect();
        let line = format!("not wanted, so never called for: {}", kinds.join(", "));
        let _ = writeln!(text, "{}", paint.dim(&line));
    }
    text.push('\n');
}

fn cells(row: &Row) -> Vec<String> {
    let does = match row.verdict {
        Verdict::NotWanted => "not wanted",
        Verdict::Same => "passes",
        Verdict::Changed => "changes",
        Verdict::Dropped => "drops",
        Verdict::Failed => "FAILS",
    };
    let goes = match row.sinks.1.as_slice() {
        _ if row.verdict == Verdict::Failed => "withheld".to_owned(),
        [] => "nowhere".to_owned(),
        open => open.join(" "),
    };
    vec![
        row.kind.clone(),
        does.into(),
        goes,
        paint::cut(&row.changed.join(" "), 28),
        row.human.clone(),
    ]
}

fn fault(text: &mut String, problem: &Problem, paint: Paint) {
    let label = match problem.severity {
        Severity::Error => paint.red(&format!("error[{}]", problem.code)),
        Severity::Warning => paint.yellow(&format!("warning[{}]", problem.code)),
    };
    let field = problem.field.as_ref().map_or(String::new(), |field| format!(": {field}"));
    let _ = writeln!(text, "{label}: {}\n  --> {}{field}", problem.message, problem.place);
    if let Some(excerpt) = problem.excerpt.as_ref().filter(|excerpt| !excerpt.is_empty()) {
        let _ = writeln!(text, "   | {}", paint::cut(excerpt, paint::columns().saturating_sub(5)));
    }
    let _ = writeln!(text, "   = {}", problem.advice);
    match problem.more.as_slice() {
        [] => {}
        [one] => {
            let _ = writeln!(text, "   = also at {one}");
        }
        [one, rest @ ..] => {
            let _ = writeln!(text, "   = also at {one} and {} more places", rest.len());
        }
    }
    text.push('\n');
}

fn verdict(report: &Report, paint: Paint) -> String {
    let errors = report.problems.iter().filter(|p| p.severity == Severity::Error).count();
    let warnings = report.problems.len() - errors;
    match (errors, warnings) {
        (0, 0) => paint.green("clean"),
        (0, warnings) => paint.yellow(&format!("{warnings} to look at")),
        (errors, warnings) => {
            paint.red(&format!("{errors} wrong, {warnings} to look at: do not deploy it like this"))
        }
    }
}
