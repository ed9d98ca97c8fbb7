//! Reads files of spans, so that they can be stored again: JSON lines, OTLP's JSON and CSV as a
//! collector exports them, and OTLP's JSON as other programs write it.
//!
//! The first line tells which it is. What comes back is what was exported, but for these:
//!
//! - The account is that of whoever imports, and the same goes for the id of a span without one.
//! - CSV names status and type where the span left them to their defaults, has times in UTC, and
//!   keeps no text that is empty apart from one that is missing.
//! - OTLP of other programs is read as `POST /v1/traces` does.
//!
//! ```
//! use durable_spans_collector::import::SpanFile;
//!
//! let file = r#"{"name":"a","id":"1","trace_id":"t","start_timestamp":"2026-11-21T08:00:00Z"}"#;
//! let mut spans = SpanFile::open(file.as_bytes())?;
//! while let Some(batch) = spans.next_batch()? {
//!     println!("{} spans, body of PUT /v5/spans/batch: {}", batch.len(), batch.body());
//! }
//! # Ok::<(), durable_spans_collector::import::ImportError>(())
//! ```

use std::{
    fmt,
    io::{self, BufRead, Read},
};

use serde_json::value::RawValue;

use crate::{item::Item, otlp, read};

mod csv;
mod http;

pub(crate) use http::routes;

/// Most spans, and most bytes unless one span alone is longer, of a [`Batch`].
const BATCH_SPANS: usize = 500;
const BATCH_BYTES: usize = 4_000_000;

/// Longest line, in bytes.
const MAX_LINE_BYTES: u64 = 1 << 30;

/// A file of spans, read span by span.
#[derive(Debug)]
pub struct SpanFile<R: Read> {
    source: Source<R>,
    /// What was read and is in no batch yet, by lines.
    read: std::collections::VecDeque<(u64, String)>,
    /// What was wrong with the line after these.
    failed: Option<ImportError>,
}

#[derive(Debug)]
enum Source<R: Read> {
    Lines(Lines<R>),
    Csv(csv::Rows<io::Chain<io::Cursor<Vec<u8>>, R>>),
}

impl<R: BufRead> SpanFile<R> {
    /// Reads as far as it takes to know what the file is.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or its first line is neither a JSON object nor the head of
    /// CSV with the columns that spans need.
    pub fn open(input: R) -> Result<Self, ImportError> {
        let mut lines = Lines { input, number: 0, first: None };
        let first = lines.next()?;
        let source = match first {
            Some(line) if !line.trim_start().starts_with('{') => {
                let before = lines.number - 1;
                let head = io::Cursor::new((line + "\n").into_bytes());
                Source::Csv(csv::Rows::open(head.chain(lines.input), before)?)
            }
            first => Source::Lines(Lines { first, ..lines }),
        };
        Ok(Self { source, read: Default::default(), failed: None })
    }

    /// The next spans, at most 500 and, unless one alone is longer, 4 MB of them; `None` at the end.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or a line holds no span that a collector would take. All spans
    /// before that line are in batches that were returned before.
    pub fn next_batch(&mut self) -> Result<Option<Batch>, ImportError> {
        let mut batch = Batch::default();
        let mut bytes = 0;
        loop {
            if self.read.is_empty() && self.failed.is_none() {
                match self.read_more() {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => self.failed = Some(error),
                }
            }
            let Some((line, span)) = self.read.pop_front() else {
                if batch.is_empty()
                    && let Some(error) = self.failed.take()
                {
                    return Err(error);
                }
                if self.failed.is_some() {
                    break;
                }
                continue;
            };
            let is_full = batch.len() == BATCH_SPANS || bytes + span.len() > BATCH_BYTES;
            if !batch.is_empty() && is_full {
                self.read.push_front((line, span));
                break;
            }
            bytes += span.len();
            batch.lines.push(line);
            batch.spans.push(span);
        }
        Ok((!batch.is_empty()).then_some(batch))
    }

    /// Reads the spans of one line. False at the end.
    fn read_more(&mut self) -> Result<bool, ImportError> {
        let (line, spans) = match &mut self.source {
            Source::Csv(rows) => match rows.next()? {
                Some((line, span)) => (line, vec![span]),
                None => return Ok(false),
            },
            Source::Lines(lines) => match lines.next()? {
                Some(text) => (lines.number, spans_of_line(lines.number, text)?),
                None => return Ok(false),
            },
        };
        let is_csv = matches!(self.source, Source::Csv(_));
        let told = |detail: String| if is_csv { csv::by_column(&detail) } else { detail };
        for span in &spans {
            let checked = RawValue::from_string(span.clone())
                .map_err(|error| ImportError::of_json(line, &error))
                .and_then(|raw| {
                    let record = read::object::<Item<'_>>(&raw);
                    let record = record.and_then(|item| item.into_record("local"));
                    record
                        .map(drop)
                        .map_err(|refusal| ImportError::of_line(line, told(refusal.detail())))
                });
            checked?;
        }
        self.read.extend(spans.into_iter().map(|span| (line, span)));
        Ok(true)
    }
}

/// A span as the API takes it, or the spans of a request of OTLP.
fn spans_of_line(line: u64, text: String) -> Result<Vec<String>, ImportError> {
    #[derive(serde::Deserialize)]
    struct Kind<'a> {
        #[serde(rename = "resourceSpans", borrow)]
        resource_spans: Option<&'a RawValue>,
    }

    if !text.trim_start().starts_with('{') {
        let reason = "holds no JSON object, which each line has to if the first one does";
        return Err(ImportError::of_line(line, reason));
    }
    let kind = serde_json::from_str::<Kind<'_>>(&text);
    match kind.map_err(|error| ImportError::of_json(line, &error))?.resource_spans {
        None => Ok(vec![text]),
        Some(_) => otlp::exported::spans(&text).map_err(|why| ImportError::of_line(line, why)),
    }
}

/// Spans that are sent at once.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    spans: Vec<String>,
    lines: Vec<u64>,
}

impl Batch {
    /// Number of spans; never 0 where it comes from a file.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether it holds no spans.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The body of a request to `PUT /v5/spans/batch`.
    pub fn body(&self) -> String {
        format!(r#"{{"items":[{}]}}"#, self.spans.join(","))
    }

    /// The line of the first span, from 1.
    pub fn first_line(&self) -> u64 {
        self.lines.first().copied().unwrap_or(1)
    }

    /// The line of the span that a refusal of the batch names, as in `items[3].parent_id belongs
    /// to another trace`. `None` if it names none.
    pub fn line_at_fault(&self, refusal: &str) -> Option<u64> {
        let (_, rest) = refusal.split_once("items[")?;
        let (index, _) = rest.split_once(']')?;
        self.lines.get(index.parse::<usize>().ok()?).copied()
    }
}

/// Lines that are not blank, and their numbers.
#[derive(Debug)]
struct Lines<R> {
    input: R,
    /// That of the line that was read last, from 1.
    number: u64,
    /// A line that was read ahead.
    first: Option<String>,
}

impl<R: BufRead> Lines<R> {
    fn next(&mut self) -> Result<Option<String>, ImportError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        loop {
            self.number += 1;
            let mut line = Vec::new();
            let input = &mut self.input;
            let length = input.take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut line)?;
            if length == 0 {
                return Ok(None);
            }
            if length as u64 > MAX_LINE_BYTES {
                let reason = format!("is over {MAX_LINE_BYTES} bytes: export fewer spans at once");
                return Err(ImportError::of_line(self.number, reason));
            }
            let line = String::from_utf8(line).map_err(|_| {
                ImportError::of_line(self.number, "is no UTF-8 text: save the file as UTF-8")
            })?;
            // Spreadsheets put a mark before the first line.
            let text = if self.number == 1 { line.trim_start_matches('\u{feff}') } else { &line };
            if !text.trim().is_empty() {
                return Ok(Some(text.trim_end_matches(['\n', '\r']).to_owned()));
            }
        }
    }
}

/// Why a file of spans cannot be read any further.
#[derive(Debug)]
pub struct ImportError {
    /// From 1; `None` if the file as a whole is at fault.
    line: Option<u64>,
    reason: String,
    source: Option<io::Error>,
}

impl ImportError {
    /// The line at fault, from 1. `None` if it was not the content that failed.
    pub fn line(&self) -> Option<u64> {
        self.line
    }

    fn of_line(line: u64, reason: impl Into<String>) -> Self {
        Self { line: Some(line), reason: reason.into(), source: None }
    }

    fn of_json(line: u64, error: &serde_json::Error) -> Self {
        let reason = format!(
            "is not valid JSON at column {}: one span, or one request of OTLP, has to stand on one \
             line, as `jq -c .` writes it",
            error.column()
        );
        Self::of_line(line, reason)
    }
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            // What refusals say begins with a field.
            Some(line) => write!(f, "line {line}: {}", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

impl std::error::Error for ImportError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

impl From<io::Error> for ImportError {
    fn from(source: io::Error) -> Self {
        Self { line: None, reason: "the file cannot be read".to_owned(), source: Some(source) }
    }
}

#[cfg(test)]
mod tests;
