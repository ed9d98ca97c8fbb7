use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use rusqlite::Connection;
use serde::Serialize;
use serde_json::Value;

use super::{
    queries::{self, Fingerprint, Place, Stored},
    query::{Query, Status},
    record::Record,
    shortlist,
    summary::{self, Summary},
};

/// How long one request looks for traces before it answers with what it has, and with where to go
/// on. The page shows how far back it has looked.
const LOOK_FOR: Duration = Duration::from_millis(80);

/// How long statistics are gathered.
const COUNT_FOR: Duration = Duration::from_millis(120);

/// How long one request sums up traces before it leaves the others to a request of their own.
const SUM_UP_FOR: Duration = Duration::from_millis(60);

/// Most traces that are looked at between two looks at the clock.
const STEP: usize = 64;

/// Most names that statistics are told of.
const MAX_NAMES: usize = 200;

/// Most summaries that are kept.
const MAX_KEPT: usize = 10_000;

/// Traces that a query finds, and where to go on.
#[derive(Debug, Serialize)]
pub(crate) struct Listing {
    pub(crate) traces: Vec<Line>,
    /// Where the next request goes on, `None` if nothing is left.
    pub(crate) next: Option<String>,
    /// How many traces were looked at.
    pub(crate) looked_at: usize,
}

/// One trace of a list.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    id: String,
    /// Unix nanoseconds, as text: JavaScript's numbers do not hold them.
    start: String,
    name: Option<String>,
    /// Of the root; the summary may know better.
    status: Status,
    group: Option<String>,
    workflow_id: Option<String>,
    spans: usize,
    /// `None` where there was no time for it.
    summary: Option<Summary>,
    #[serde(skip)]
    start_ns: i64,
}

/// Statistics of the traces of one name.
#[derive(Debug, Serialize)]
pub(crate) struct Statistics {
    name: Option<String>,
    count: usize,
    errors: usize,
    open: usize,
    p50_ns: Option<i64>,
    p95_ns: Option<i64>,
}

/// Statistics by name, most frequent first.
#[derive(Debug, Serialize)]
pub(crate) struct Overview {
    names: Vec<Statistics>,
    /// How many traces these are.
    traces: usize,
    /// Whether these are all that the query finds, or the latest of them.
    complete: bool,
}

/// Summaries of traces that have not changed since.
#[derive(Debug, Default)]
pub(crate) struct Kept(HashMap<String, (Fingerprint, Summary)>);

impl Kept {
    /// The summary of a trace, made anew where the trace has changed.
    pub(crate) fn summary(
        &mut self,
        connection: &Connection,
        trace_id: &str,
    ) -> rusqlite::Result<Summary> {
        let fingerprint = queries::fingerprint(connection, trace_id)?;
        if let Some((of, summary)) = self.0.get(trace_id)
            && *of == fingerprint
        {
            return Ok(summary.clone());
        }
        let spans = queries::spans(connection, trace_id, usize::MAX)?;
        let summary = with_records(&spans, Summary::of);
        self.keep(trace_id, fingerprint, &summary);
        Ok(summary)
    }

    fn keep(&mut self, trace_id: &str, fingerprint: Fingerprint, summary: &Summary) {
        if self.0.len() >= MAX_KEPT {
            self.0.clear();
        }
        self.0.insert(trace_id.to_owned(), (fingerprint, summary.clone()));
    }
}

/// Finds the next `limit` traces, newest first.
pub(crate) fn list(
    connection: &Connection,
    kept: &mut Kept,
    query: &Query,
    after: Option<Place>,
    limit: usize,
) -> rusqlite::Result<Listing> {
    let mut traces = Vec::new();
    let mut walk = Walk::new(query, after, LOOK_FOR);
    while traces.len() < limit {
        let Some(line) = walk.next(connection, kept)? else { break };
        traces.push(line);
    }
    let began = Instant::now();
    for line in traces.iter_mut().filter(|line| line.summary.is_none()) {
        if began.elapsed() > SUM_UP_FOR {
            break;
        }
        line.summary = Some(kept.summary(connection, &line.id)?);
    }
    let next = walk.cursor();
    Ok(Listing { traces, next, looked_at: walk.looked_at })
}

/// Counts, errors and durations by name, over as many of the latest traces as there is time for.
pub(crate) fn overview(
    connection: &Connection,
    kept: &mut Kept,
    query: &Query,
) -> rusqlite::Result<Overview> {
    let mut names: BTreeMap<Option<String>, (Statistics, Vec<i64>)> = BTreeMap::new();
    let mut walk = Walk::new(query, None, COUNT_FOR);
    walk.counts = false;
    let mut traces = 0;
    while let Some(line) = walk.next(connection, kept)? {
        traces += 1;
        let name = line.name.clone();
        let (statistics, durations) = names.entry(name.clone()).or_insert_with(|| {
            let none =
                Statistics { name, count: 0, errors: 0, open: 0, p50_ns: None, p95_ns: None };
            (none, Vec::new())
        });
        statistics.count += 1;
        let status = line.summary.as_ref().map_or(line.status, |summary| summary.status);
        statistics.errors += usize::from(status == Status::Error);
        statistics.open += usize::from(status == Status::Open);
        let end_ns = line.summary.as_ref().map_or(walk.root_end_ns, |summary| summary.end_ns);
        durations.extend(end_ns.map(|end| end.saturating_sub(line.start_ns).max(0)));
    }
    let mut names: Vec<Statistics> = names
        .into_values()
        .map(|(mut statistics, mut durations)| {
            durations.sort_unstable();
            statistics.p50_ns = quantile(&durations, 50);
            statistics.p95_ns = quantile(&durations, 95);
            statistics
        })
        .collect();
    names.sort_by_key(|statistics| std::cmp::Reverse(statistics.count));
    names.truncate(MAX_NAMES);
    Ok(Overview { names, traces, complete: walk.cursor().is_none() })
}

/// Goes through the traces of a query, newest first, until its time is up.
pub(crate) struct Walk<'q> {
    query: &'q Query,
    /// The last trace that was looked at.
    place: Option<Place>,
    ahead: std::vec::IntoIter<Place>,
    has_begun: bool,
    /// Whether nothing is left beyond `ahead`.
    exhausted: bool,
    looked_at: usize,
    began: Instant,
    patience: Duration,
    /// Whether lines tell the number of spans.
    counts: bool,
    /// When the root of the last line ended.
    root_end_ns: Option<i64>,
}

impl<'q> Walk<'q> {
    pub(crate) fn new(query: &'q Query, after: Option<Place>, patience: Duration) -> Self {
        Self {
            query,
            place: after,
            ahead: Vec::new().into_iter(),
            has_begun: false,
            exhausted: false,
            looked_at: 0,
            began: Instant::now(),
            patience,
            counts: true,
            root_end_ns: None,
        }
    }

    /// Where to go on, `None` when there is nothing more.
    pub(crate) fn cursor(&self) -> Option<String> {
        if self.exhausted && self.ahead.len() == 0 {
            return None;
        }
        let (start_ns, trace_id) = self.place.as_ref()?;
        Some(format!("{start_ns}:{trace_id}"))
    }

    /// The next trace that matches, `None` when the time is up or nothing is left.
    pub(crate) fn next(
        &mut self,
        connection: &Connection,
        kept: &mut Kept,
    ) -> rusqlite::Result<Option<Line>> {
        loop {
            // At least one look, or a slow machine would never get anywhere.
            if self.looked_at > 0 && self.began.elapsed() > self.patience {
                return Ok(None);
            }
            let Some((start_ns, trace_id)) = self.advance(connection)? else { return Ok(None) };
            self.looked_at += 1;
            if let Some(line) = self.look_at(connection, kept, start_ns, trace_id)? {
                return Ok(Some(line));
            }
        }
    }

    fn advance(&mut self, connection: &Connection) -> rusqlite::Result<Option<Place>> {
        if self.ahead.len() == 0 && !self.exhausted {
            let range =
                (self.query.from_ns.unwrap_or(i64::MIN), self.query.to_ns.unwrap_or(i64::MAX));
            let after = self.place.as_ref();
            let few = match std::mem::replace(&mut self.has_begun, true) {
                true => None,
                false => shortlist::find(connection, self.query, range, after)?,
            };
            let places = match few {
                Some(few) => {
                    self.exhausted = true;
                    few
                }
                None => {
                    let places = queries::candidates(connection, range, after, STEP)?;
                    self.exhausted = places.len() < STEP;
                    places
                }
            };
            self.ahead = places.into_iter();
        }
        let next = self.ahead.next();
        if next.is_some() {
            self.place = next.clone();
        }
        Ok(next)
    }

    fn look_at(
        &mut self,
        connection: &Connection,
        kept: &mut Kept,
        start_ns: i64,
        trace_id: String,
    ) -> rusqlite::Result<Option<Line>> {
        let root = queries::root(connection, &trace_id)?;
        let record = root.as_ref().and_then(|root| Record::parse(&root.body).ok());
        let (ended, goes_on) = match (&root, &record) {
            (Some(root), Some(record)) => {
                (root.end_ns.is_some(), record.is("temporal.continued_as_new"))
            }
            _ => (false, false),
        };
        self.root_end_ns = root.as_ref().and_then(|root| root.end_ns);
        let status = match &record {
            Some(record) => summary::status_of(record, ended),
            None => Status::Pending,
        };
        let known = (!goes_on).then_some(status);
        if !self.query.may_match(&trace_id, record.as_ref(), known) {
            return Ok(None);
        }
        let mut summary = None;
        let spans = if self.query.needs_spans() {
            let spans = queries::spans(connection, &trace_id, usize::MAX)?;
            if !self.query.may_be_in(spans.iter().map(|span| span.body.as_str())) {
                return Ok(None);
            }
            let matches = with_records(&spans, |records, times| {
                let of_trace = Summary::of(records, times);
                let matches = self.query.matches(&of_trace, records);
                summary = Some(of_trace);
                matches
            });
            if !matches {
                return Ok(None);
            }
            spans.len()
        } else if goes_on {
            // The root is not the end of the trace, so its status is not the trace's.
            let of_trace = kept.summary(connection, &trace_id)?;
            if !self.query.matches(&of_trace, &[]) {
                return Ok(None);
            }
            let spans = of_trace.spans;
            summary = Some(of_trace);
            spans
        } else if self.counts {
            queries::count(connection, &trace_id)?
        } else {
            0
        };
        Ok(Some(Line {
            start: start_ns.to_string(),
            start_ns,
            name: record.as_ref().map(|record| record.name.clone().into_owned()),
            status: summary.as_ref().map_or(status, |summary: &Summary| summary.status),
            group: record.as_ref().and_then(|record| record.group_id.clone()),
            workflow_id: record
                .as_ref()
                .and_then(|record| record.text("temporal.workflow_id").map(str::to_owned)),
            spans,
            summary,
            id: trace_id,
        }))
    }
}

impl Line {
    /// The id of the trace.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }
}

/// Reads a cursor that [`Walk::cursor`] wrote.
pub(crate) fn read_cursor(text: &str) -> Option<Place> {
    let (start_ns, trace_id) = text.split_once(':')?;
    Some((start_ns.parse().ok()?, trace_id.to_owned()))
}

/// Parses spans, leaving out what was changed from outside to something that is no span.
fn with_records<T>(
    spans: &[Stored],
    work: impl FnOnce(&[Record<'_>], &[(i64, Option<i64>)]) -> T,
) -> T {
    let (records, times): (Vec<_>, Vec<_>) = spans
        .iter()
        .filter_map(|span| Some((Record::parse(&span.body).ok()?, (span.start_ns, span.end_ns))))
        .unzip();
    work(&records, &times)
}

/// The value that `percent` of the sorted values do not exceed.
fn quantile(sorted: &[i64], percent: usize) -> Option<i64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).copied()
}

/// Summaries by trace id, for those that a list had no time for; an unknown trace has none. Stops
/// when its time is up.
pub(crate) fn summaries(
    connection: &Connection,
    kept: &mut Kept,
    trace_ids: &[String],
) -> rusqlite::Result<Value> {
    let began = Instant::now();
    let mut found = serde_json::Map::new();
    for trace_id in trace_ids {
        let summary = kept.summary(connection, trace_id)?;
        let summary =
            if summary.spans == 0 { Value::Null } else { durable_spans_model::to_json(summary) };
        found.insert(trace_id.clone(), summary);
        if began.elapsed() > SUM_UP_FOR {
            break;
        }
    }
    Ok(found.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{item, put, store};
    use serde_json::json;

    fn query(text: &str) -> Query {
        Query::parse(&[("q".to_owned(), text.to_owned())], 0).unwrap()
    }

    fn ids(listing: &Listing) -> Vec<&str> {
        listing.traces.iter().map(Line::id).collect()
    }

    #[test]
    fn traces_are_listed_page_by_page_and_by_what_their_spans_hold() {
        let (_dir, store) = store();
        let mut child = item("t2", "c", 3);
        child["parent_id"] = "r".into();
        child["input"] = json!({"city": "Zürich"});
        put(&store, &[item("t1", "r", 1), item("t2", "r", 2), child, item("t3", "r", 3)]);
        store.read(|connection| {
            let mut kept = Kept::default();
            let mut page = |query: &Query, after, limit| {
                list(connection, &mut kept, query, after, limit).unwrap()
            };
            let all = Query::default();
            let first = page(&all, None, 2);
            assert_eq!(ids(&first), ["t3", "t2"]);
            assert_eq!(first.traces[1].spans, 2);
            assert_eq!(first.traces[1].summary.as_ref().unwrap().open, 2);
            let rest = page(&all, read_cursor(&first.next.unwrap()), 2);
            assert_eq!(ids(&rest), ["t1"]);
            assert_eq!(rest.next, None);
            assert_eq!(ids(&page(&query("zürich"), None, 9)), ["t2"]);
            assert_eq!(ids(&page(&query("spans:<2"), None, 9)), ["t3", "t1"]);
        });
    }

    #[test]
    fn a_kept_summary_is_made_anew_when_the_trace_changes() {
        let (_dir, store) = store();
        let mut kept = Kept::default();
        put(&store, &[item("t", "r", 1)]);
        let mut status = |store: &crate::Store| {
            store.read(|connection| kept.summary(connection, "t").unwrap()).status
        };
        assert_eq!(status(&store), Status::Open);
        let mut ended = item("t", "r", 1);
        ended["end_timestamp"] = "2026-11-21T08:03:09Z".into();
        put(&store, &[ended.clone()]);
        assert_eq!(status(&store), Status::Success);
        ended["status"] = "ERROR".into();
        put(&store, &[ended]);
        assert_eq!(status(&store), Status::Error);
    }

    #[test]
    fn statistics_are_by_name_with_quantiles() {
        let (_dir, store) = store();
        for n in 1..=20 {
            let mut span = item(&format!("t{n}"), "r", 1);
            span["end_timestamp"] = format!("2026-11-21T08:03:{:02}Z", 1 + n).into();
            if n == 7 {
                span["status"] = "ERROR".into();
            }
            put(&store, &[span]);
        }
        let mut orphan = item("orphan", "c", 1);
        orphan["parent_id"] = "gone".into();
        put(&store, &[orphan]);
        let overview = store
            .read(|connection| overview(connection, &mut Kept::default(), &Query::default()))
            .unwrap();
        assert!(overview.complete);
        assert_eq!((overview.traces, overview.names.len()), (21, 2));
        let first = &overview.names[0];
        assert_eq!((first.name.as_deref(), first.count, first.errors), (Some("span r"), 20, 1));
        assert_eq!((first.p50_ns, first.p95_ns), (Some(10_000_000_000), Some(19_000_000_000)));
        assert_eq!((overview.names[1].name.as_deref(), overview.names[1].p50_ns), (None, None));
    }

    #[test]
    fn a_cursor_survives_ids_with_colons() {
        assert_eq!(read_cursor("-5:a:b"), Some((-5, "a:b".into())));
        assert_eq!(read_cursor("x:a"), None);
    }
}
