use std::{
    borrow::Cow,
    collections::BTreeMap,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use durable_spans_model::{Span, SpanStatus, Timestamp, TraceId};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::{
    CollectorError,
    batch::Record,
    error::Kind,
    page::{self, Page},
    refusal::Refusal,
    rules::{self, Link, Stored},
    schema,
    search::Search,
};

const SPANS_OF_TRACE: &str = "SELECT body FROM span WHERE trace_id = ? ORDER BY start_ns, rowid";

const SPAN: &str = "SELECT body FROM span WHERE trace_id = ? AND id = ?";

const ANY_SPAN_OF_ID: &str = "SELECT 1 FROM span WHERE id = ? LIMIT 1";

const LINK: &str = "SELECT parent_id, end_ns IS NOT NULL FROM span WHERE trace_id = ? AND id = ?";

const LATEST_TRACES: &str = "
    SELECT trace.trace_id, trace.start_ns,
        (SELECT count(*) FROM span WHERE span.trace_id = trace.trace_id),
        root.body ->> '$.name', root.body ->> '$.status', root.end_ns
    FROM trace LEFT JOIN span AS root ON root.rowid = (
        SELECT rowid FROM span
        WHERE span.trace_id = trace.trace_id AND span.parent_id IS NULL
        ORDER BY span.start_ns, span.rowid LIMIT 1)
    ORDER BY trace.start_ns DESC, trace.trace_id DESC LIMIT ?
";

/// The spans in one SQLite file.
///
/// Its methods wait for the disk: call them from async code within `spawn_blocking`.
#[derive(Debug)]
pub struct Store {
    // Two connections: in WAL mode a long read does not hold up the writer.
    writer: Mutex<Connection>,
    reader: Mutex<Connection>,
}

/// One line of a list of traces.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceSummary {
    /// The trace.
    pub trace_id: TraceId,
    /// The earliest start that any of its spans ever reported.
    pub start_timestamp: Timestamp,
    /// Number of its spans so far.
    pub span_count: u64,
    /// Its root, `None` while all its spans have parents. The earliest, where there are several.
    pub root: Option<RootSummary>,
}

/// The root of a trace in a [`TraceSummary`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RootSummary {
    /// What the root span is called.
    pub name: String,
    /// How it ended, or [`SpanStatus::Success`] while it goes on.
    pub status: SpanStatus,
    /// When it ended, `None` while it goes on.
    pub end_timestamp: Option<Timestamp>,
}

impl Store {
    pub(crate) fn open(path: &Path) -> Result<Self, CollectorError> {
        let writer = schema::open_writer(path)?;
        let reader = schema::open_reader(path)?;
        Ok(Self { writer: writer.into(), reader: reader.into() })
    }

    /// All spans of a trace by start, then in order of arrival; none for a trace that is not known.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or a span in it was changed from outside.
    pub fn spans(&self, trace_id: &TraceId) -> Result<Vec<Span>, CollectorError> {
        self.bodies(trace_id, |body| serde_json::from_str(body).map_err(corrupt))
    }

    /// The spans of [`Store::spans`] in that order, as the API answers with them.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or a span in it was changed from outside.
    pub fn items(&self, trace_id: &TraceId) -> Result<Vec<serde_json::Value>, CollectorError> {
        self.bodies(trace_id, |body| serde_json::from_str(body).map_err(corrupt))
    }

    /// The latest traces, newest first, at most `limit` of them. Knows traces without a root too.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or a span in it was changed from outside.
    pub fn traces(&self, limit: usize) -> Result<Vec<TraceSummary>, CollectorError> {
        let reader = lock(&self.reader);
        let mut query = reader.prepare_cached(LATEST_TRACES)?;
        let mut rows = query.query([i64::try_from(limit).unwrap_or(i64::MAX)])?;
        let mut traces = Vec::new();
        while let Some(row) = rows.next()? {
            let root = match row.get::<_, Option<String>>(3)? {
                None => None,
                Some(name) => Some(RootSummary {
                    name,
                    status: read_status(row.get(4)?)?,
                    end_timestamp: row.get::<_, Option<i64>>(5)?.map(Timestamp::from_unix_ns),
                }),
            };
            traces.push(TraceSummary {
                trace_id: row.get::<_, String>(0)?.parse().map_err(corrupt)?,
                start_timestamp: Timestamp::from_unix_ns(row.get(1)?),
                span_count: row.get::<_, i64>(2)?.unsigned_abs(),
                root,
            });
        }
        Ok(traces)
    }

    fn bodies<T>(
        &self,
        trace_id: &TraceId,
        read: impl Fn(&str) -> Result<T, CollectorError>,
    ) -> Result<Vec<T>, CollectorError> {
        let reader = lock(&self.reader);
        let mut query = reader.prepare_cached(SPANS_OF_TRACE)?;
        let mut rows = query.query([trace_id.to_string()])?;
        let mut spans = Vec::new();
        while let Some(row) = rows.next()? {
            spans.push(read(row.get_ref(0)?.as_str().map_err(corrupt)?)?);
        }
        Ok(spans)
    }

    /// Reads with queries of the caller's own, for the page.
    pub(crate) fn read<T>(&self, work: impl FnOnce(&Connection) -> T) -> T {
        work(&lock(&self.reader))
    }

    /// Stores a batch as a whole or not at all. Answers with each span as its write left it.
    pub(crate) fn upsert(&self, records: Vec<Record<'_>>) -> Result<Vec<String>, Refusal> {
        let mut writer = lock(&self.writer);
        let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        rules::check(&records, &mut InTransaction(&transaction))?;
        note_traces(&transaction, &records)?;
        let bodies = write(&transaction, records)?;
        transaction.commit()?;
        Ok(bodies)
    }

    pub(crate) fn search(&self, search: &Search) -> Result<Page, Refusal> {
        // One transaction, so that all queries see the same state.
        page::read(&lock(&self.reader).transaction()?, search)
    }
}

/// A panic elsewhere rolled its transaction back, so what it left behind is fit for use.
fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

fn corrupt(source: impl std::error::Error + Send + Sync + 'static) -> CollectorError {
    Kind::Corrupt { source: Box::new(source) }.into()
}

fn read_status(status: Option<String>) -> Result<SpanStatus, CollectorError> {
    let Some(status) = status else { return Ok(SpanStatus::default()) };
    serde_json::from_value(status.into()).map_err(corrupt)
}

struct InTransaction<'a>(&'a Transaction<'a>);

impl Stored for InTransaction<'_> {
    fn link(&mut self, trace_id: &str, id: &str) -> Result<Option<Link<'static>>, Refusal> {
        let mut query = self.0.prepare_cached(LINK)?;
        let link = query.query_row([trace_id, id], |row| {
            let parent_id = row.get::<_, Option<String>>(0)?.map(Cow::Owned);
            Ok(Link { parent_id, completed: row.get(1)? })
        });
        Ok(link.optional()?)
    }

    fn exists_anywhere(&mut self, id: &str) -> Result<bool, Refusal> {
        let mut query = self.0.prepare_cached(ANY_SPAN_OF_ID)?;
        Ok(query.exists([id])?)
    }
}

fn note_traces(transaction: &Transaction<'_>, records: &[Record<'_>]) -> rusqlite::Result<()> {
    let mut starts: BTreeMap<&str, i64> = BTreeMap::new();
    for record in records {
        let start = starts.entry(&record.trace_id).or_insert(record.start_ns);
        *start = record.start_ns.min(*start);
    }
    let mut note = transaction.prepare_cached(
        "INSERT INTO trace (trace_id, start_ns) VALUES (?, ?)
         ON CONFLICT DO UPDATE SET start_ns = excluded.start_ns
         WHERE excluded.start_ns < trace.start_ns",
    )?;
    for start in starts {
        note.execute(start)?;
    }
    Ok(())
}

fn write(transaction: &Transaction<'_>, records: Vec<Record<'_>>) -> rusqlite::Result<Vec<String>> {
    let mut upsert = transaction.prepare_cached(
        "INSERT INTO span (trace_id, id, parent_id, start_ns, end_ns, body)
         VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT (trace_id, id) DO UPDATE SET
             parent_id = excluded.parent_id, start_ns = excluded.start_ns,
             end_ns = excluded.end_ns, body = excluded.body
         WHERE span.end_ns IS NULL OR excluded.end_ns IS NOT NULL",
    )?;
    let mut stored = transaction.prepare_cached(SPAN)?;
    let mut bodies = Vec::with_capacity(records.len());
    for record in records {
        let Record { trace_id, id, parent_id, start_ns, end_ns, body } = record;
        let written = upsert.execute(params![trace_id, id, parent_id, start_ns, end_ns, body])?;
        bodies.push(if written > 0 {
            body
        } else {
            stored.query_row([trace_id, id], |row| row.get(0))?
        });
    }
    Ok(bodies)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    pub(crate) fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("spans.sqlite")).unwrap();
        (dir, store)
    }

    pub(crate) fn item(trace_id: &str, id: &str, start_s: u32) -> serde_json::Value {
        json!({
            "name": format!("span {id}"),
            "id": id,
            "trace_id": trace_id,
            "start_timestamp": format!("2026-11-21T08:03:{start_s:02}Z"),
        })
    }

    fn completed(mut item: serde_json::Value) -> serde_json::Value {
        item["end_timestamp"] = "2026-11-21T09:00:00Z".into();
        item
    }

    pub(crate) fn put(store: &Store, items: &[serde_json::Value]) -> Vec<String> {
        let body = json!({ "items": items }).to_string();
        store.upsert(crate::batch::parse(body.as_bytes(), "local").unwrap()).unwrap()
    }

    #[test]
    fn traces_come_newest_first_with_and_without_a_root() {
        let (_dir, store) = store();
        let mut root = completed(item("old", "r", 10));
        root["status"] = "ERROR".into();
        let mut child = item("old", "c", 11);
        child["parent_id"] = "r".into();
        let mut orphan = item("new", "c", 30);
        orphan["parent_id"] = "never sent".into();
        put(&store, &[child, root, orphan, item("open", "r", 20)]);

        let traces = store.traces(10).unwrap();
        let ids: Vec<_> = traces.iter().map(|trace| trace.trace_id.to_string()).collect();
        assert_eq!(ids, ["new", "open", "old"]);
        assert_eq!(traces[0].root, None);
        assert_eq!(traces[0].span_count, 1);
        assert_eq!(traces[1].root.as_ref().unwrap().end_timestamp, None);
        assert_eq!(traces[2].span_count, 2);
        assert_eq!(
            traces[2].root,
            Some(RootSummary {
                name: "span r".into(),
                status: SpanStatus::Error,
                end_timestamp: Some("2026-11-21T09:00:00Z".parse().unwrap()),
            })
        );
        assert_eq!(traces[2].start_timestamp, "2026-11-21T08:03:10Z".parse().unwrap());
        assert_eq!(store.traces(1).unwrap(), traces[..1]);
    }

    #[test]
    fn a_write_that_loses_is_answered_with_what_is_stored() {
        let (_dir, store) = store();
        let won = put(&store, &[completed(item("t", "a", 1))]);
        assert_eq!(put(&store, &[item("t", "a", 1)]), won);
    }

    /// Each frequent query must find its rows by an index, however big the file grows.
    #[test]
    fn no_query_walks_over_all_spans() {
        let (_dir, store) = store();
        let reader = lock(&store.reader);
        for sql in [SPANS_OF_TRACE, SPAN, ANY_SPAN_OF_ID, LINK, LATEST_TRACES] {
            assert_finds_by_index(&reader, sql);
        }
    }

    /// Fails if `sql` reads a table or an index from end to end. A scan in the order of the answer
    /// is fine: it ends with the limit.
    pub(crate) fn assert_finds_by_index(connection: &Connection, sql: &str) {
        let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let values = rusqlite::params_from_iter(vec!["1"; plan.parameter_count()]);
        let steps: Vec<String> =
            plan.query_map(values, |row| row.get(3)).unwrap().map(Result::unwrap).collect();
        let sorts = steps.iter().any(|step| step.contains("TEMP B-TREE"));
        let walks = steps.iter().any(|step| {
            let in_order = step.contains("_by_start") && !sorts;
            step.starts_with("SCAN") && !step.contains("json_each") && !in_order
        });
        assert!(!walks, "{sql}: {steps:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Writes come as (open or completed, in one batch with the write before or on its own).
        #[test]
        fn any_order_of_open_and_completed_writes_leaves_the_last_completed_one(
            writes in proptest::collection::vec((any::<bool>(), any::<bool>()), 1..12),
        ) {
            let (_dir, store) = store();
            let mut batches: Vec<Vec<serde_json::Value>> = Vec::new();
            for (n, (is_completed, joins)) in writes.iter().enumerate() {
                let mut write = item("t", "a", 1);
                write["output"]["n"] = n.into();
                let write = if *is_completed { completed(write) } else { write };
                match batches.last_mut() {
                    Some(batch) if *joins => batch.push(write),
                    _ => batches.push(vec![write]),
                }
            }
            for batch in &batches {
                put(&store, batch);
            }

            let last_completed = writes.iter().rposition(|(is_completed, _)| *is_completed);
            let spans = store.spans(&"t".parse().unwrap()).unwrap();
            prop_assert_eq!(spans.len(), 1);
            prop_assert_eq!(spans[0].end_timestamp.is_some(), last_completed.is_some());
            let winner = last_completed.unwrap_or(writes.len() - 1);
            prop_assert_eq!(&spans[0].output["n"], &serde_json::Value::from(winner));
        }
    }
}
