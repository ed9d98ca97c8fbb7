use std::io::Read;

use csv::{ErrorKind, Reader, ReaderBuilder, StringRecord};
use serde_json::{Map, Value, value::RawValue};

use super::ImportError;
use crate::web::export::csv::unguarded;

/// Columns of text, and the fields of a span that they are.
const TEXTS: [(&str, &str); 13] = [
    ("trace_id", "trace_id"),
    ("id", "id"),
    ("name", "name"),
    ("start", "start_timestamp"),
    ("end", "end_timestamp"),
    ("parent_id", "parent_id"),
    ("group_id", "group_id"),
    ("type", "type"),
    ("status", "status"),
    ("application_interaction_id", "application_interaction_id"),
    ("application_variant_id", "application_variant_id"),
    ("obs_trace_id", "obs_trace_id"),
    ("obs_span_id", "obs_span_id"),
];

/// Those among them that each span needs.
const NEEDED: usize = 4;

/// Columns of JSON, which are called like the fields of a span.
const OBJECTS: [&str; 4] = ["input", "output", "metadata", "expected"];

/// The rows of CSV whose first line names its columns, in any order. Others are left alone.
#[derive(Debug)]
pub(super) struct Rows<R> {
    reader: Reader<R>,
    /// Lines before the first one that the reader sees.
    before: u64,
    columns: StringRecord,
}

impl<R: Read> Rows<R> {
    pub(super) fn open(input: R, before: u64) -> Result<Self, ImportError> {
        let mut reader = ReaderBuilder::new().from_reader(input);
        let columns = reader.headers().map_err(|error| explain(error, before))?.clone();
        let missing =
            TEXTS[..NEEDED].iter().find(|(column, _)| !columns.iter().any(|c| c == *column));
        if let Some((column, _)) = missing {
            let reason = format!(
                "is neither a JSON object nor CSV with a column {column}: import takes JSON lines, \
                 OTLP's JSON and CSV, as export writes them (with commas between its columns)"
            );
            return Err(ImportError::of_line(before + 1, reason));
        }
        Ok(Self { reader, before, columns })
    }

    /// The next span and its line.
    pub(super) fn next(&mut self) -> Result<Option<(u64, String)>, ImportError> {
        let mut row = StringRecord::new();
        if !self.reader.read_record(&mut row).map_err(|error| explain(error, self.before))? {
            return Ok(None);
        }
        let line = self.before + row.position().map_or(0, csv::Position::line);
        let cell = |column: &str| {
            let at = self.columns.iter().position(|name| name == column)?;
            row.get(at).filter(|text| !text.is_empty()).map(unguarded)
        };
        let mut fields: Map<String, Value> = Map::new();
        for (column, field) in TEXTS {
            fields.extend(cell(column).map(|text| (field.to_owned(), text.into())));
        }
        let mut span = Value::from(fields).to_string();
        for name in OBJECTS {
            let Some(text) = cell(name) else { continue };
            // As it stands, so that no number loses a digit.
            let raw = serde_json::from_str::<&RawValue>(text).map_err(|error| {
                let reason = format!("{name} is not valid JSON: {error}");
                ImportError::of_line(line, reason)
            })?;
            span.pop();
            span += &format!(r#","{name}":{}}}"#, raw.get());
        }
        Ok(Some((line, span)))
    }
}

/// What is wrong with a field, with the name of its column instead.
pub(super) fn by_column(detail: &str) -> String {
    let (field, rest) = detail.split_once(' ').unwrap_or((detail, ""));
    let column = TEXTS.iter().find(|(_, name)| *name == field).map_or(field, |(column, _)| column);
    format!("{column} {rest}")
}

fn explain(error: csv::Error, before: u64) -> ImportError {
    let line = before + error.position().map_or(1, csv::Position::line);
    match error.into_kind() {
        ErrorKind::Io(error) => error.into(),
        ErrorKind::UnequalLengths { expected_len, len, .. } => {
            let reason = format!(
                "has {len} cells, where the first line has {expected_len}: quote cells that hold \
                 commas, quotes or line breaks"
            );
            ImportError::of_line(line, reason)
        }
        ErrorKind::Utf8 { .. } => {
            ImportError::of_line(line, "is no UTF-8 text: save the file as UTF-8")
        }
        other => ImportError::of_line(line, format!("is not valid CSV: {other:?}")),
    }
}
