//! Traces as files: JSON lines, OTLP, CSV, and one compact JSON for a language model.

use std::{collections::HashMap, time::Duration};

use rusqlite::Connection;

use super::{
    list::{self, Kept, Walk},
    queries::{self, Stored},
    query::Query,
};

mod compact;
pub(crate) mod csv;
pub(crate) mod otlp;

/// Most spans of one trace in an export.
const MAX_SPANS: usize = 1_000_000;

/// How long one step of the export of a query looks for traces, while others wait to read.
const LOOK_FOR: Duration = Duration::from_millis(80);

/// How spans are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// One span a line, as the API answers with it.
    JsonLines,
    /// OTLP's JSON, one request a line, as the OpenTelemetry collector's file receiver reads it. The
    /// page and the command read it and CSV back, too.
    Otlp,
    Csv,
    /// A tree of what matters, for a language model to read. One trace or part of one.
    Compact,
}

impl Format {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "jsonl" => Some(Self::JsonLines),
            "otlp" => Some(Self::Otlp),
            "csv" => Some(Self::Csv),
            "compact" => Some(Self::Compact),
            _ => None,
        }
    }

    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::JsonLines | Self::Otlp => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Compact => "application/json",
        }
    }

    pub(crate) fn file_name(self) -> &'static str {
        match self {
            Self::JsonLines => "spans.jsonl",
            Self::Otlp => "spans.otlp.jsonl",
            Self::Csv => "spans.csv",
            Self::Compact => "spans.json",
        }
    }

    /// What stands before all traces.
    pub(crate) fn head(self) -> &'static str {
        match self {
            Self::Csv => csv::HEAD,
            _ => "",
        }
    }

    fn write(self, spans: &[Stored]) -> String {
        match self {
            Self::JsonLines => spans.iter().map(|span| json_line(&span.body)).collect(),
            Self::Otlp => otlp::write(spans),
            Self::Csv => csv::write(spans),
            Self::Compact => compact::write(spans),
        }
    }
}

/// A trace, or the part of it below and with `span_id`; `None` if nothing of it is known.
pub(crate) fn trace(
    connection: &Connection,
    format: Format,
    trace_id: &str,
    span_id: Option<&str>,
) -> rusqlite::Result<Option<String>> {
    let mut spans = queries::spans(connection, trace_id, MAX_SPANS)?;
    if let Some(span_id) = span_id {
        spans = subtree(spans, span_id);
    }
    Ok((!spans.is_empty()).then(|| format.write(&spans)))
}

/// The next traces of a query as text, and where to go on.
pub(crate) fn step(
    connection: &Connection,
    kept: &mut Kept,
    format: Format,
    query: &Query,
    after: Option<&str>,
) -> rusqlite::Result<(String, Option<String>)> {
    let mut walk = Walk::new(query, after.and_then(list::read_cursor), LOOK_FOR);
    let mut text = String::new();
    while let Some(line) = walk.next(connection, kept)? {
        text.push_str(&format.write(&queries::spans(connection, line.id(), MAX_SPANS)?));
        if text.len() > 1024 * 1024 {
            break;
        }
    }
    Ok((text, walk.cursor()))
}

fn subtree(spans: Vec<Stored>, top: &str) -> Vec<Stored> {
    let ids: Vec<(String, Option<String>)> = spans
        .iter()
        .map(|span| {
            let record = super::record::Record::parse(&span.body);
            record.map_or_else(|_| Default::default(), |r| (r.id.into_owned(), r.parent_id))
        })
        .collect();
    let mut children: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, (_, parent)) in ids.iter().enumerate() {
        if let Some(parent) = parent {
            children.entry(parent).or_default().push(at);
        }
    }
    let mut kept = vec![false; spans.len()];
    let mut todo: Vec<usize> = ids.iter().position(|(id, _)| id == top).into_iter().collect();
    while let Some(at) = todo.pop() {
        if !std::mem::replace(&mut kept[at], true) {
            todo.extend(children.get(ids[at].0.as_str()).into_iter().flatten());
        }
    }
    spans.into_iter().zip(kept).filter_map(|(span, kept)| kept.then_some(span)).collect()
}

/// What is stored may hold line breaks, as blanks between its tokens only: within a JSON text they
/// are escaped.
fn json_line(body: &str) -> String {
    let mut line = body.replace(['\n', '\r'], " ");
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{item, put, store};
    use serde_json::Value;

    #[test]
    fn a_json_line_is_what_was_stored_without_its_line_breaks() {
        let body = "{\"x\":\r\n 1.10, \"text\": \"a\\nb\"\n}";
        assert_eq!(json_line(body), "{\"x\":   1.10, \"text\": \"a\\nb\" }\n");
    }

    #[test]
    fn a_trace_is_exported_by_start_and_a_part_of_it_with_all_below() {
        let (_dir, store) = store();
        let below = |id: &str, parent: &str, start_s| {
            let mut span = item("t", id, start_s);
            span["parent_id"] = parent.into();
            span
        };
        put(
            &store,
            &[item("t", "a", 1), below("b", "a", 2), below("d", "b", 4), item("t", "c", 3)],
        );
        let export = |span| {
            let text = store.read(|c| trace(c, Format::JsonLines, "t", span)).unwrap();
            let ids = text.unwrap_or_default();
            let ids = ids.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            ids.map(|span| span["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(export(None), ["a", "b", "c", "d"]);
        assert_eq!(export(Some("a")), ["a", "b", "d"]);
        assert_eq!(export(Some("gone")), [""; 0]);
    }

    #[test]
    fn a_query_is_exported_trace_by_trace() {
        let (_dir, store) = store();
        put(&store, &[item("t1", "a", 1), item("t2", "b", 2), item("t3", "c", 3)]);
        let query = Query::parse(&[("q".into(), "-trace:t2".into())], 0).unwrap();
        let (text, next) =
            store.read(|c| step(c, &mut Kept::default(), Format::JsonLines, &query, None)).unwrap();
        assert_eq!(next, None);
        let ids: Vec<_> = text.lines().map(|l| l.contains("\"t3\"") as u8).collect();
        assert_eq!(ids, [1, 0]);
    }
}
