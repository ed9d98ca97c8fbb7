use std::{collections::HashMap, fmt::Write as _, io, time::Duration};

use durable_spans_collector::tree::{self, printable};
use durable_spans_model::{Span, TraceId};
use serde_json::json;

use crate::{
    args::Watch,
    client::{self, Identity, RawSpan, SpansClient},
    traces::{lines, parse_all, print, style},
};

/// How often to look.
const EVERY: Duration = Duration::from_secs(1);

/// Most of the newest traces that are looked at each time.
const TRACES: usize = 200;

/// How many traces that were there before are shown to begin with.
const BEFORE: usize = 10;

/// Prints what is new until nobody reads it any more.
pub(crate) async fn watch(args: Watch) -> anyhow::Result<()> {
    let client = SpansClient::new(args.server)?;
    let mut seen = Seen::default();
    let mut reachable = true;
    loop {
        let found = match &args.trace_id {
            Some(trace_id) => of_trace(&client, trace_id).await,
            None => newest_roots(&client).await,
        };
        match found {
            Ok(spans) => {
                reachable = true;
                let first = std::mem::replace(&mut seen.looked, true);
                if first && spans.is_empty() {
                    let what = args.trace_id.as_ref().map(|id| printable(&id.to_string()));
                    let what = what.map_or("traces".to_owned(), |id| format!("trace {id}"));
                    anstream::eprintln!("waiting for {what} at {}", client.url());
                }
                let text = seen.news(spans, args.trace_id.is_some(), args.json, first)?;
                let goes_on = match args.json {
                    true => print(io::stdout(), &text)?,
                    false => print(anstream::stdout(), &text)?,
                };
                if !goes_on {
                    return Ok(());
                }
            }
            // A collector that is started again is watched again; one that never was there is not.
            Err(error) if !seen.looked => return Err(error),
            Err(error) => {
                if std::mem::take(&mut reachable) {
                    anstream::eprintln!("durable-spans: {error:#}; trying again");
                }
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn of_trace(client: &SpansClient, trace_id: &TraceId) -> anyhow::Result<Vec<RawSpan>> {
    client.search(&json!({ "trace_ids": [trace_id] }), "asc", usize::MAX, |_| true).await
}

/// Oldest first, as they are printed.
async fn newest_roots(client: &SpansClient) -> anyhow::Result<Vec<RawSpan>> {
    let filters = json!({ "parents_only": true });
    let mut roots = client.search(&filters, "desc", TRACES, |_| true).await?;
    roots.reverse();
    Ok(roots)
}

/// What was printed: each span, and whether it had ended.
#[derive(Default)]
struct Seen {
    looked: bool,
    ended: HashMap<Identity, bool>,
}

impl Seen {
    /// The lines of spans that are new, or have ended since.
    fn news(
        &mut self,
        spans: Vec<RawSpan>,
        of_trace: bool,
        as_json: bool,
        first: bool,
    ) -> anyhow::Result<String> {
        let parsed = parse_all(&spans)?;
        let is_news: Vec<bool> = parsed.iter().map(|span| self.note(span)).collect();
        let before = if first && !of_trace { parsed.len().saturating_sub(BEFORE) } else { 0 };
        let mut text = String::new();
        if as_json {
            let news = spans.iter().zip(&is_news).skip(before).filter(|(_, is_news)| **is_news);
            for (span, _) in news {
                let _ = writeln!(text, "{}", client::one_line(span));
            }
        } else if of_trace {
            let news: HashMap<*const Span, bool> =
                parsed.iter().map(std::ptr::from_ref).zip(is_news).collect();
            let is_news = |span: &Span| news.get(&std::ptr::from_ref(span)) == Some(&true);
            for row in tree::rows(&parsed) {
                let spans = [Some(row.span()), row.attempt(), row.call()];
                if spans.into_iter().flatten().any(is_news) {
                    let style = style(row.span());
                    let _ = writeln!(text, "{style}{row}{style:#}");
                }
            }
        } else {
            for (span, _) in parsed.iter().zip(is_news).skip(before).filter(|(_, is_news)| *is_news)
            {
                text.push_str(&lines(std::slice::from_ref(span)));
            }
        }
        Ok(text)
    }

    /// Whether a span is new, or has ended since.
    fn note(&mut self, span: &Span) -> bool {
        let key = Identity { id: span.id.to_string(), trace_id: span.trace_id.to_string() };
        let ended = span.end_timestamp.is_some();
        self.ended.insert(key, ended) != Some(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::RawValue;

    fn span(id: &str, parent: Option<&str>, ended: bool) -> RawSpan {
        let mut span = json!({"id": id, "trace_id": "t", "name": id,
            "start_timestamp": "2026-11-21T08:00:00Z"});
        if let Some(parent) = parent {
            span["parent_id"] = parent.into();
        }
        if ended {
            span["end_timestamp"] = "2026-11-21T08:00:01Z".into();
        }
        RawValue::from_string(span.to_string()).unwrap()
    }

    #[test]
    fn each_span_is_printed_when_it_is_new_and_when_it_ends() {
        let mut seen = Seen::default();
        let mut news = |spans: Vec<RawSpan>| {
            let text = seen.news(spans, true, false, false).unwrap();
            anstream::adapter::strip_str(&text).to_string()
        };
        assert_eq!(news(vec![span("a", None, false)]), "a [STANDALONE] open\n");
        assert_eq!(
            news(vec![span("a", None, false), span("b", Some("a"), true)]),
            "  b [STANDALONE] 1.000s SUCCESS\n"
        );
        let ended = || vec![span("a", None, true), span("b", Some("a"), true)];
        assert_eq!(news(ended()), "a [STANDALONE] 1.000s SUCCESS\n");
        assert_eq!(news(ended()), "");
    }

    #[test]
    fn a_watch_over_all_traces_begins_with_the_last_ten() {
        let mut seen = Seen::default();
        let roots = |count: u32| (0..count).map(|n| span(&n.to_string(), None, true)).collect();
        let first = seen.news(roots(15), false, true, true).unwrap();
        assert_eq!(first.lines().count(), 10);
        assert!(first.lines().next().unwrap().contains(r#""id":"5""#), "{first}");
        assert_eq!(seen.news(roots(16), false, true, false).unwrap().lines().count(), 1);
    }
}
