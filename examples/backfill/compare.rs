//! Whether two sets of rows tell the same.

use std::{collections::BTreeMap, io::Write};

use durable_spans::{Span, SpanId, TraceId};
use serde::Serialize;

use crate::workload::SPANS_OF_AN_UNFINISHED_DESK;

pub(crate) type Rows = BTreeMap<(TraceId, SpanId), Span>;

/// What is printed with `--json`.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Comparison {
    pub(crate) runs: u64,
    pub(crate) spans_before: usize,
    pub(crate) spans_after: usize,
    /// Rows that did not come back, or, of runs that ended without their code, that never came.
    pub(crate) missing: usize,
    /// Rows that came back otherwise.
    pub(crate) differing: usize,
    /// Rows that nobody has recorded.
    pub(crate) extra: usize,
    /// Spans of the terminated and the timed-out run that had not reached the collector in time.
    pub(crate) recovered: usize,
    /// Attempts of activities, of which history keeps less than their workers told.
    pub(crate) attempts: usize,
    /// The first of the differences, for humans.
    #[serde(skip)]
    pub(crate) examples: Vec<String>,
}

impl Comparison {
    pub(crate) fn of(runs: u64, before: &Rows, after: &Rows) -> Self {
        let mut comparison =
            Self { runs, spans_before: before.len(), spans_after: after.len(), ..Self::default() };
        for (key, row) in before {
            match after.get(key) {
                None => {
                    comparison.missing += 1;
                    comparison.examples.push(format!("missing: {row:?}"));
                }
                Some(again) if !same(row, again) => {
                    comparison.differing += 1;
                    comparison.examples.push(format!("before: {row:?}\nafter:  {again:?}"));
                }
                Some(again) => comparison.attempts += usize::from(is_attempt(again)),
            }
        }
        comparison.count_unfinished(before, after);
        for (key, row) in after {
            if !before.contains_key(key) && !ended_without_code(after, row) {
                comparison.extra += 1;
                comparison.examples.push(format!("extra: {row:?}"));
            }
        }
        comparison
    }

    /// The runs whose code came to no end: everything that it recorded is there, and has ended.
    fn count_unfinished(&mut self, before: &Rows, after: &Rows) {
        for root in after.values().filter(|row| row.parent_id.is_none()) {
            if !ended_without_code(after, root) {
                continue;
            }
            let rows: Vec<_> =
                after.iter().filter(|(_, row)| row.trace_id == root.trace_id).collect();
            let ended = rows.iter().filter(|(_, row)| row.end_timestamp.is_some()).count();
            self.missing += SPANS_OF_AN_UNFINISHED_DESK.saturating_sub(ended);
            self.extra += ended.saturating_sub(SPANS_OF_AN_UNFINISHED_DESK);
            self.recovered += rows.iter().filter(|(key, _)| !before.contains_key(key)).count();
        }
    }

    pub(crate) fn is_whole(&self) -> bool {
        (self.missing, self.differing, self.extra) == (0, 0, 0)
    }

    pub(crate) fn write_text(&self, to: &mut impl Write) -> std::io::Result<()> {
        let Self { runs, spans_before, spans_after, missing, differing, extra, .. } = self;
        let Self { recovered, attempts, .. } = self;
        writeln!(to, "{runs} runs, {spans_before} spans before, {spans_after} after")?;
        writeln!(to, "missing {missing}, differing {differing}, extra {extra}")?;
        writeln!(
            to,
            "{recovered} spans of a terminated and a timed-out run came for the first time"
        )?;
        writeln!(to, "{attempts} attempts of activities are as history tells them")?;
        self.examples.iter().take(5).try_for_each(|example| writeln!(to, "{example}"))
    }
}

/// In all that the workflow's code recorded: ids, parent, name, type, status, data and times. Of an
/// attempt history knows its id, parent, name, type and status.
fn same(before: &Span, after: &Span) -> bool {
    if is_attempt(before) {
        let known =
            |span: &Span| (span.parent_id.clone(), span.name.clone(), span.span_type, span.status);
        return known(before) == known(after);
    }
    let mut before = before.clone();
    let mut after = after.clone();
    for row in [&mut before, &mut after] {
        // What the run knew of the sink by its end.
        for unsure in ["delivered", "deferred", "dropped"] {
            row.metadata.remove(&format!("durable_spans.{unsure}"));
        }
    }
    if before.end_timestamp.is_none() {
        // It was open when its run was terminated, and has its end from history now.
        before.end_timestamp = after.end_timestamp;
        before.status = after.status;
        after.metadata.retain(|name, _| before.metadata.contains_key(name));
    }
    before == after
}

fn is_attempt(span: &Span) -> bool {
    span.metadata.get("temporal.kind").is_some_and(|kind| kind == "activity_attempt")
}

/// Whether the run of a row's trace was terminated or timed out.
fn ended_without_code(rows: &Rows, row: &Span) -> bool {
    let of_trace = rows.values().filter(|other| other.trace_id == row.trace_id);
    of_trace.into_iter().any(|other| {
        let error_type = other.metadata.get("error_type").and_then(|error| error.as_str());
        other.parent_id.is_none() && matches!(error_type, Some("TerminatedError" | "TimeoutError"))
    })
}
