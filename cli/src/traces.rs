use std::{
    collections::HashSet,
    fmt::Write as _,
    io::{self, Write},
};

use anstyle::{AnsiColor, Style};
use anyhow::bail;
use durable_spans_collector::tree::{self, printable};
use durable_spans_model::{Span, SpanStatus};
use serde_json::json;

use crate::{
    args::{List, Show},
    client::{self, Identity, RawSpan, SpansClient},
};

/// Prints the newest traces, one line each.
pub(crate) async fn list(args: List) -> anyhow::Result<()> {
    let client = SpansClient::new(args.server)?;
    // A trace may have several roots; the newest one stands for it.
    let mut traces = HashSet::new();
    let is_new = |root: &Identity| traces.insert(root.trace_id.clone());
    let roots = client.search(&json!({ "parents_only": true }), "desc", args.limit, is_new).await?;
    if args.format.json {
        return print(io::stdout(), &json_array(&roots)).map(drop);
    }
    let roots = parse_all(&roots)?;
    if roots.is_empty() {
        anstream::eprintln!("no traces at {} yet", client.url());
    }
    print(anstream::stdout(), &lines(&roots)).map(drop)
}

/// Prints one trace as a tree.
pub(crate) async fn show(args: Show) -> anyhow::Result<()> {
    let client = SpansClient::new(args.server)?;
    let filters = json!({ "trace_ids": [args.trace_id] });
    let spans = client.search(&filters, "asc", usize::MAX, |_| true).await?;
    if spans.is_empty() {
        bail!("trace {} was not found at {}", printable(&args.trace_id.to_string()), client.url());
    }
    if args.format.json {
        return print(io::stdout(), &json_array(&spans)).map(drop);
    }
    print(anstream::stdout(), &coloured_tree(&parse_all(&spans)?)).map(drop)
}

pub(crate) fn parse_all(spans: &[RawSpan]) -> anyhow::Result<Vec<Span>> {
    spans.iter().map(|span| client::parse(span)).collect()
}

/// One line for each root, so that the ids are easy to copy: start, trace id, and the root's row.
pub(crate) fn lines(roots: &[Span]) -> String {
    let mut text = String::new();
    for root in roots {
        let start = root.start_timestamp;
        let trace_id = printable(&root.trace_id.to_string());
        for row in tree::rows(std::slice::from_ref(root)) {
            let style = style(root);
            let _ = writeln!(text, "{start}  {trace_id}  {style}{row}{style:#}");
        }
    }
    text
}

fn coloured_tree(spans: &[Span]) -> String {
    let mut text = String::new();
    for row in tree::rows(spans) {
        let style = style(row.span());
        let _ = writeln!(text, "{style}{row}{style:#}");
    }
    text
}

/// Only what needs a look gets a colour.
pub(crate) fn style(span: &Span) -> Style {
    match span.status {
        SpanStatus::Error => AnsiColor::Red.on_default(),
        SpanStatus::Canceled => AnsiColor::Yellow.on_default(),
        SpanStatus::Success if span.end_timestamp.is_none() => AnsiColor::Cyan.on_default(),
        SpanStatus::Success => Style::new(),
    }
}

/// A JSON array with one span to a line, not a byte of which is changed.
fn json_array(spans: &[RawSpan]) -> String {
    let spans: Vec<&str> = spans.iter().map(|span| span.get()).collect();
    format!("[{}]\n", spans.join(",\n"))
}

/// Prints all at once. A reader that has seen enough (`| head`) is no failure; tells whether there
/// still is one.
pub(crate) fn print(mut to: impl Write, text: &str) -> anyhow::Result<bool> {
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(id: &str, status: SpanStatus) -> Span {
        let start = "2026-11-21T08:00:00Z".parse().unwrap();
        let mut span =
            Span::new("t\nt".parse().unwrap(), id.parse().unwrap(), id.to_owned(), start);
        span.end_timestamp = Some(start);
        span.status = status;
        span
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn a_list_has_one_line_for_each_trace() {
        let text = lines(&[span("a", SpanStatus::Success), span("b", SpanStatus::Error)]);
        assert_eq!(
            plain(&text),
            "2026-11-21T08:00:00.000000+00:00  t\u{fffd}t  a [STANDALONE] 0us SUCCESS\n\
             2026-11-21T08:00:00.000000+00:00  t\u{fffd}t  b [STANDALONE] 0us ERROR\n"
        );
    }

    #[test]
    fn colours_mark_errors_and_leave_the_text_alone() {
        let spans = [span("a", SpanStatus::Success), span("b", SpanStatus::Error)];
        let text = coloured_tree(&spans);
        assert!(text.starts_with("a [STANDALONE]"), "{text:?}");
        assert!(text.contains("\u{1b}[31mb [STANDALONE]"), "{text:?}");
        assert_eq!(plain(&text), tree::render(&spans));
    }
}
