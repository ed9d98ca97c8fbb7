use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use durable_spans_model::{Span, SpanStatus, Timestamp, TraceId};
use rusqlite::{Connection, OptionalExtension};

use crate::{
    CollectorError,
    error::Kind,
    item::Record,
    refusal::Refusal,
    schema,
    search::{
        filters::Search,
        results::{self, Results},
    },
    store::{readers::Readers, writer::Writer},
};

mod assessments;
mod readers;
pub(crate) mod retention;
pub(crate) mod text;
pub(crate) mod update;
pub(crate) mod write;
mod writer;

const SPANS_OF_TRACE: &str = "
    SELECT body FROM span WHERE trace_key = (SELECT key FROM trace WHERE trace_id = ?)
    ORDER BY start_ns, rowid
";

/// The one that arrived last, if several traces have a span of this id.
const SPAN_OF_ID: &str = "
    SELECT body FROM span WHERE id_key IN (SELECT id_key(part << 14, ?1) FROM part) AND id = ?1
    ORDER BY rowid DESC LIMIT 1
";

const LATEST_TRACES: &str = "
    SELECT trace.trace_id, trace.start_ns,
        (SELECT count(*) FROM span WHERE trace_key = trace.key),
        root.body ->> '$.name', root.body ->> '$.status', root.end_ns
    FROM trace LEFT JOIN span AS root ON root.rowid = (
        SELECT rowid FROM span
        WHERE trace_key = trace.key AND parent_id IS NULL
        ORDER BY span.start_ns, span.rowid LIMIT 1)
    ORDER BY trace.start_ns DESC, trace.trace_id DESC LIMIT ?
";

/// From when on the log is moved into the file, in pages of 4 KiB.
const LONG_LOG_PAGES: i64 = 16_000;

/// The spans in one SQLite file.
///
/// Its methods wait for the disk: call them from async code within `spawn_blocking`.
#[derive(Debug)]
pub struct Store {
    // In WAL mode reads do not hold up the writer, nor the other way round.
    writer: Writer,
    readers: Readers,
}

/// What a write does with a span that is stored already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Refuses the batch.
    Create,
    /// Replaces it, unless it has ended and the new one has not.
    Upsert,
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
        Ok(Self { writer: Writer::new(writer), readers: Readers::open(path)? })
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
        let reader = self.readers.take();
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
        let reader = self.readers.take();
        let mut query = reader.prepare_cached(SPANS_OF_TRACE)?;
        let mut rows = query.query([trace_id.to_string()])?;
        let mut spans = Vec::new();
        while let Some(row) = rows.next()? {
            spans.push(read(row.get_ref(0)?.as_str().map_err(corrupt)?)?);
        }
        Ok(spans)
    }

    /// Stores a batch as a whole or not at all, as [`Mode`] says. Answers with each span as its write
    /// left it.
    pub(crate) fn write(
        &self,
        records: Vec<Record<'_>>,
        mode: Mode,
    ) -> Result<Vec<String>, Refusal> {
        self.writer.join(|connection| write::batch(connection, records, mode))
    }

    /// Writes a single span that must not exist yet.
    pub(crate) fn create(&self, record: Record<'_>) -> Result<String, Refusal> {
        let bodies = self.write(vec![record], Mode::Create).map_err(Refusal::of_only_item)?;
        bodies.into_iter().next().ok_or_else(|| Refusal::not_found("span"))
    }

    /// Changes a span, given as its JSON, and answers with it. What has ended must stay so.
    pub(crate) fn update(
        &self,
        id: &str,
        change: impl for<'a> FnOnce(&'a str) -> Result<Record<'a>, Refusal>,
    ) -> Result<String, Refusal> {
        let updated = self.writer.join(|connection| update::span(connection, id, change));
        updated.map_err(Refusal::of_only_item)
    }

    /// The JSON of a span, of the one that arrived last if several traces have this id.
    pub(crate) fn span(&self, id: &str) -> Result<String, Refusal> {
        let reader = self.readers.take();
        let found = reader.prepare_cached(SPAN_OF_ID)?.query_row([id], |row| row.get(0));
        found.optional()?.ok_or_else(|| Refusal::not_found("span"))
    }

    /// The JSON of a span of a trace.
    pub(crate) fn span_of_trace(
        &self,
        trace_id: &str,
        id: &str,
    ) -> Result<Option<String>, Refusal> {
        let reader = self.readers.take();
        let mut query = reader.prepare_cached(write::SPAN)?;
        Ok(query.query_row([trace_id, id], |row| row.get(0)).optional()?)
    }

    pub(crate) fn search(&self, search: &Search) -> Result<Results, Refusal> {
        // One transaction, so that all queries see the same state.
        let mut reader = self.readers.take();
        results::read(&reader.transaction()?, search)
    }

    /// Waits for a lull in the writing, a second at most.
    pub(crate) fn wait_for_writers(&self) {
        for _ in 0..100 {
            if !self.writer.is_busy() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Moves SQLite's log into the file if it has become long.
    pub(crate) fn shorten_log(&self) -> Result<(), CollectorError> {
        /// Answers with how long the log is, in pages.
        fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<i64> {
            let sql = format!("PRAGMA wal_checkpoint({mode})");
            connection.query_row(&sql, [], |row| row.get(1))
        }

        if self.read(|reader| checkpoint(reader, "NOOP"))? < LONG_LOG_PAGES {
            return Ok(());
        }
        // The bulk of it while others read and write, so that nobody waits long for the rest.
        self.read(|reader| checkpoint(reader, "PASSIVE"))?;
        self.writer.alone(|writer| {
            // While somebody reads from the log it stays: the next time, then.
            writer.busy_timeout(Duration::ZERO)?;
            // The log begins anew, in the place that it has.
            let emptied = checkpoint(writer, "RESTART");
            writer.busy_timeout(schema::BUSY_TIMEOUT)?;
            emptied
        })?;
        Ok(())
    }

    /// Runs queries that only read.
    pub(crate) fn read<T>(&self, work: impl FnOnce(&Connection) -> T) -> T {
        work(&self.readers.take())
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
        store.write(crate::batch::parse(body.as_bytes(), "local").unwrap(), Mode::Upsert).unwrap()
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
        let reader = store.readers.take();
        for sql in [
            SPANS_OF_TRACE,
            SPAN_OF_ID,
            write::SPAN,
            write::ANY_SPAN_OF_ID,
            write::LINK,
            LATEST_TRACES,
        ] {
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
            // One row for each of the parts of the file.
            let is_short = step == "SCAN part";
            step.starts_with("SCAN") && !step.contains("json_each") && !in_order && !is_short
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
