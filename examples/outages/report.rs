//! What the user sees at the end.

use std::{
    io::{self, Write},
    time::Duration,
};

use serde::Serialize;

use crate::table::Finding;

/// The table, for people.
pub(crate) fn write_text(findings: &[Finding], out: &mut dyn Write) -> io::Result<()> {
    let width = findings.iter().map(|finding| finding.title.len()).max().unwrap_or(0);
    writeln!(
        out,
        "{:6}  {:width$}  {:>8}  {:>9}  {:>7}  {:>8}  {:>4}  {:>10}  {:>7}  {:>5}  {:>8}  {:9}  holds",
        "sink",
        "fault",
        "delayed",
        "at most",
        "later",
        "recorded",
        "lost",
        "duplicates",
        "at most",
        "calls",
        "couriers",
        "run"
    )?;
    for Finding { class, title, at_most, outcome, broken, .. } in findings {
        let at_most = at_most.map_or_else(|| "completes".to_owned(), seconds);
        writeln!(
            out,
            "{:6}  {title:width$}  {:>8}  {at_most:>9}  {:>7}  {:>8}  {:>4}  {:>10}  {:>7}  {:>5}  {:>8}  {:9}  {}",
            class.name(),
            seconds(outcome.delayed),
            seconds(outcome.later),
            outcome.recorded,
            outcome.lost.len(),
            outcome.duplicates,
            outcome.may_double,
            outcome.calls,
            outcome.couriers,
            outcome.status,
            if broken.is_empty() { "yes".to_owned() } else { format!("NO: {}", broken.join("; ")) },
        )?;
    }
    out.flush()
}

/// The same as one JSON list on one line, for programs.
pub(crate) fn write_json(findings: &[Finding], out: &mut dyn Write) -> io::Result<()> {
    let rows: Vec<_> = findings.iter().map(JsonRow::new).collect();
    serde_json::to_writer(&mut *out, &rows)?;
    writeln!(out)?;
    out.flush()
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

#[derive(Serialize)]
struct JsonRow {
    sink: String,
    fault: String,
    delayed_s: f64,
    recorded: usize,
    lost: usize,
    duplicates: usize,
    run_status: &'static str,
}

impl JsonRow {
    fn new(finding: &Finding) -> Self {
        let outcome = &finding.outcome;
        Self {
            sink: finding.class.name(),
            fault: finding.row.name(),
            delayed_s: outcome.delayed.as_millis() as f64 / 1_000.0,
            recorded: outcome.recorded,
            lost: outcome.lost.len(),
            duplicates: outcome.duplicates,
            run_status: outcome.status,
        }
    }
}
