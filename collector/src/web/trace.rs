use std::collections::{HashMap, HashSet};

use durable_spans_model::SpanId;
use rusqlite::Connection;
use serde::Serialize;

use super::{
    queries::{self, Fingerprint},
    record::{Needle, Record},
};
use crate::lost::{self, Activity};

/// Most spans of a trace that the page is given; it says so where there are more.
pub(crate) const MAX_ROWS: usize = 100_000;

/// Longest error message in a row, in characters. The detail pane has all of it.
const MAX_MESSAGE_CHARS: usize = 300;

/// A trace without its inputs and outputs.
#[derive(Debug, Serialize)]
pub(crate) struct Trace {
    /// Changes when anything of the trace does.
    version: String,
    /// Unix nanoseconds, as text, that all times of the rows count from.
    base: String,
    /// Number of its spans; there may be fewer rows.
    total: i64,
    spans: Vec<Row>,
}

/// What the page draws of one span. What is not there is left out.
#[derive(Debug, Serialize)]
struct Row {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    name: String,
    #[serde(rename = "type")]
    span_type: String,
    status: String,
    /// Nanoseconds since the base.
    start: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u64>,
    /// The attempt that it was a part of, where that has left no span of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    within: Option<Within>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    tokens: u64,
    #[serde(skip_serializing_if = "is_free")]
    cost: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    workflow_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    dropped: u64,
    /// Whether a value was cut.
    #[serde(skip_serializing_if = "is_false")]
    truncated: bool,
    /// Whether the run continues another one.
    #[serde(skip_serializing_if = "is_false")]
    continued: bool,
    #[serde(skip_serializing_if = "is_false")]
    continued_as_new: bool,
    /// Whether the code that it covers was given up, and not ended.
    #[serde(skip_serializing_if = "is_false")]
    abandoned: bool,
}

/// An attempt without a span.
#[derive(Debug, Serialize)]
struct Within {
    activity: String,
    attempt: u32,
    lost: bool,
}

/// The rows of a trace, by start; `None` if nothing of it is known, or it still is at `seen`.
pub(crate) fn trace(
    connection: &Connection,
    trace_id: &str,
    seen: Option<&str>,
) -> rusqlite::Result<Answer> {
    let fingerprint: Fingerprint = queries::fingerprint(connection, trace_id)?;
    let version = fingerprint.to_string();
    if fingerprint.spans == 0 {
        return Ok(Answer::Unknown);
    }
    if seen == Some(&version) {
        return Ok(Answer::Unchanged);
    }
    let spans = queries::spans(connection, trace_id, MAX_ROWS)?;
    let base_ns = spans.first().map_or(0, |span| span.start_ns);
    let since = |ns: i64| ns.saturating_sub(base_ns);
    let rows = spans.iter().filter_map(|span| {
        let record = Record::parse(&span.body).ok()?;
        Some(Row::of(&record, since(span.start_ns), span.end_ns.map(since)))
    });
    let mut rows: Vec<Row> = rows.collect();
    note_missing_attempts(&mut rows);
    Ok(Answer::Trace(Trace {
        version,
        base: base_ns.to_string(),
        total: fingerprint.spans,
        spans: rows,
    }))
}

/// Says of rows whose parent has not arrived which attempt they belong to, if it is one.
fn note_missing_attempts(rows: &mut [Row]) {
    let id = |text: &str| text.parse::<SpanId>().ok();
    let known: HashSet<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    let missing = rows.iter().filter_map(|row| row.parent.as_deref());
    let missing: HashSet<SpanId> =
        missing.filter(|parent| !known.contains(parent)).filter_map(id).collect();
    if missing.is_empty() {
        return;
    }
    let mut last: HashMap<&str, u64> = HashMap::new();
    for row in rows.iter().filter(|row| row.kind.as_deref() == Some("activity_attempt")) {
        if let (Some(activity), Some(number)) = (&row.parent, row.attempt) {
            let last = last.entry(activity).or_default();
            *last = number.max(*last);
        }
    }
    let activities = rows.iter().filter(|row| row.kind.as_deref() == Some("activity"));
    let activities: Vec<(SpanId, bool, u64)> = activities
        .filter_map(|row| {
            let last = last.get(row.id.as_str()).copied().unwrap_or(0);
            Some((id(&row.id)?, row.end.is_some(), last))
        })
        .collect();
    let activities = activities.iter().map(|(id, has_ended, last)| Activity {
        id,
        has_ended: *has_ended,
        last: *last,
    });
    let found = lost::find(missing.iter().collect(), activities);
    for row in rows {
        let parent = row.parent.as_deref().and_then(id);
        row.within = parent.and_then(|parent| found.get(&parent)).map(|of| Within {
            activity: of.activity.to_string(),
            attempt: of.number,
            lost: of.is_lost,
        });
    }
}

/// What came of asking for a trace.
#[derive(Debug)]
pub(crate) enum Answer {
    Unknown,
    Unchanged,
    Trace(Trace),
}

impl Row {
    fn of(record: &Record<'_>, start: i64, end: Option<i64>) -> Self {
        let usage = record.usage();
        let text = |key| record.text(key).map(str::to_owned);
        let failed = record.status() != "SUCCESS";
        let error = record.text("error_message").filter(|_| failed);
        Self {
            id: record.id.clone().into_owned(),
            parent: record.parent_id.clone(),
            within: None,
            name: record.name.clone().into_owned(),
            span_type: record.span_type().to_owned(),
            status: record.status().to_owned(),
            start,
            end,
            kind: text("temporal.kind"),
            attempt: record.number("temporal.attempt"),
            queue_ms: record.number("temporal.queue_ms"),
            error: error.map(|text| text.chars().take(MAX_MESSAGE_CHARS).collect()),
            model: record.model().map(str::to_owned),
            tokens: usage.tokens,
            cost: usage.cost,
            workflow_id: text("temporal.workflow_id"),
            run_id: text("temporal.run_id"),
            namespace: text("temporal.namespace"),
            dropped: record.dropped(),
            truncated: record.metadata.contains_key("truncated"),
            continued: record.is("temporal.continued"),
            continued_as_new: record.is("temporal.continued_as_new"),
            abandoned: record.is("temporal.abandoned"),
        }
    }
}

/// Ids of the spans that hold a text.
pub(crate) fn search(
    connection: &Connection,
    trace_id: &str,
    text: &str,
) -> rusqlite::Result<Vec<String>> {
    let needle = Needle::new(text);
    let spans = queries::spans(connection, trace_id, MAX_ROWS)?;
    let found = spans.iter().filter_map(|span| {
        let record = Record::parse(&span.body).ok()?;
        record.contains(&needle).then(|| record.id.into_owned())
    });
    Ok(found.collect())
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_free(cost: &f64) -> bool {
    *cost == 0.0
}

fn is_false(flag: &bool) -> bool {
    !flag
}
