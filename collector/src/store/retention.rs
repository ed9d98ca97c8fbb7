//! Forgets old traces, so that the file stays within bounds.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

use crate::{CollectorError, store::Store};

/// Spans that are forgotten in one transaction: some ten milliseconds, in which writers wait.
const STEP: i64 = 1_000;

/// Unused pages that are given back to the disk in one step.
const FREED_PAGES: i64 = 2_000;

/// Traces that were written to as lately as this are kept, in seconds.
const GRACE_S: i64 = 60;

/// What a collector keeps. By default everything, for ever.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Retention {
    /// How long a trace is kept after its last span has arrived.
    pub(crate) max_age: Option<Duration>,
    /// How big the file may become, in bytes in use.
    pub(crate) max_bytes: Option<u64>,
}

/// How much was forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Forgotten {
    pub(crate) traces: usize,
    pub(crate) spans: usize,
}

const ROW_OF_ID: &str = "
    SELECT rowid FROM span WHERE id_key IN (SELECT id_key(part << 14, ?1) FROM part) AND id = ?1
    ORDER BY rowid DESC LIMIT 1
";

impl Store {
    /// Forgets some of what is not to be kept, and says what. `None` once there is nothing more to
    /// do.
    pub(crate) fn forget_some(
        &self,
        retention: Retention,
    ) -> Result<Option<Forgotten>, CollectorError> {
        self.writer.alone(|connection| {
            let Some(trace_id) = next_trace(connection, retention)? else {
                return Ok(give_back(connection)?.then(Forgotten::default));
            };
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let forgotten = forget(&transaction, &trace_id)?;
            transaction.commit()?;
            Ok(Some(forgotten))
        })
    }
}

impl Store {
    /// Forgets a trace with all that belongs to it. False if it is not known.
    pub(crate) fn forget_trace(&self, trace_id: &str) -> Result<bool, CollectorError> {
        let sql = "SELECT 1 FROM trace WHERE trace_id = ?";
        let mut known = false;
        while self.read(|reader| reader.prepare_cached(sql)?.exists([trace_id]))? {
            known = true;
            self.writer.alone(|connection| {
                let transaction =
                    connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                forget(&transaction, trace_id)?;
                transaction.commit()
            })?;
        }
        Ok(known)
    }

    /// Forgets a span, the one that arrived last if several traces have this id. False if there is
    /// none. Its children stay, without their parent.
    pub(crate) fn forget_span(&self, id: &str) -> Result<bool, CollectorError> {
        self.writer.alone(|connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let row = transaction.query_row(ROW_OF_ID, [id], |row| row.get(0)).optional()?;
            if let Some(row) = row {
                forget_rows(&transaction, &[row])?;
            }
            transaction.commit()?;
            Ok(row.is_some())
        })
    }
}

/// The trace to forget next: that which has been without new spans for longest.
fn next_trace(
    connection: &Connection,
    retention: Retention,
) -> Result<Option<String>, CollectorError> {
    let is_too_big = match retention.max_bytes {
        Some(max_bytes) => used_bytes(connection)? > max_bytes,
        None => false,
    };
    let age_s = retention.max_age.and_then(|age| i64::try_from(age.as_secs()).ok());
    let least_age_s = match (is_too_big, age_s) {
        (true, _) => GRACE_S,
        (false, Some(age_s)) => age_s.max(GRACE_S),
        (false, None) => return Ok(None),
    };
    let mut oldest = connection.prepare_cached(
        "SELECT trace_id FROM trace WHERE written_s < unixepoch() - ? ORDER BY written_s LIMIT 1",
    )?;
    Ok(oldest.query_row([least_age_s], |row| row.get(0)).optional()?)
}

/// Forgets a trace, or a part of a big one, whose turn comes again until it is gone.
fn forget(transaction: &Transaction<'_>, trace_id: &str) -> Result<Forgotten, rusqlite::Error> {
    let mut rows = transaction.prepare_cached(
        "SELECT rowid FROM span WHERE trace_key = (SELECT key FROM trace WHERE trace_id = ?)
         ORDER BY start_ns DESC LIMIT ?",
    )?;
    let rows = rows.query_map((trace_id, STEP), |row| row.get(0))?;
    let rows: Vec<i64> = rows.collect::<Result<_, _>>()?;
    forget_rows(transaction, &rows)?;
    let is_gone = i64::try_from(rows.len()).is_ok_and(|count| count < STEP);
    if is_gone {
        for table in ["assessment", "trace"] {
            transaction.execute(&format!("DELETE FROM {table} WHERE trace_id = ?"), [trace_id])?;
        }
    }
    Ok(Forgotten { traces: usize::from(is_gone), spans: rows.len() })
}

fn forget_rows(transaction: &Transaction<'_>, rows: &[i64]) -> Result<(), rusqlite::Error> {
    for sql in [
        "DELETE FROM span_text WHERE rowid = ?",
        "DELETE FROM stale_text WHERE span_row = ?",
        "DELETE FROM span WHERE rowid = ?",
    ] {
        let mut delete = transaction.prepare_cached(sql)?;
        for row in rows {
            delete.execute([row])?;
        }
    }
    // SQLite gives the numbers of the last rows to new ones, which are not in the index of words.
    transaction.execute(
        "UPDATE text_progress SET up_to = min(up_to, ifnull((SELECT max(rowid) FROM span), 0))",
        [],
    )?;
    Ok(())
}

/// What the rows and indexes take up, without pages that wait for new ones.
fn used_bytes(connection: &Connection) -> Result<u64, CollectorError> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let pages = pragma("page_count")? - pragma("freelist_count")?;
    Ok(pages.unsigned_abs() * pragma("page_size")?.unsigned_abs())
}

/// Makes the file shorter by pages that wait for new rows, if there are many.
fn give_back(connection: &Connection) -> Result<bool, CollectorError> {
    let unused: i64 = connection.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
    // In a file from before there was retention, 1 for full or 2 for incremental is missing.
    let mode: i64 = connection.pragma_query_value(None, "auto_vacuum", |row| row.get(0))?;
    if unused < FREED_PAGES || mode == 0 {
        return Ok(false);
    }
    connection.execute_batch(&format!("PRAGMA incremental_vacuum({FREED_PAGES})"))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{item, put, store};

    fn traces(store: &Store) -> Vec<String> {
        store.traces(100).unwrap().iter().map(|trace| trace.trace_id.to_string()).collect()
    }

    /// As if the last span of the trace had come so many seconds ago.
    fn age(store: &Store, trace_id: &str, seconds: i64) {
        let sql = "UPDATE trace SET written_s = unixepoch() - ? WHERE trace_id = ?";
        store.writer.alone(|writer| writer.execute(sql, (seconds, trace_id)).unwrap());
    }

    fn forget_all(store: &Store, retention: Retention) {
        while store.forget_some(retention).unwrap().is_some() {}
    }

    #[test]
    fn traces_without_news_for_too_long_are_forgotten_with_all_that_belongs_to_them() {
        let (_dir, store) = store();
        for (trace_id, seconds) in [("old", 7200), ("young", 3000), ("new", 0)] {
            put(&store, &[item(trace_id, "a", 1), item(trace_id, "b", 2)]);
            age(&store, trace_id, seconds);
        }
        while store.index_some().unwrap() {}
        let retention =
            Retention { max_age: Some(Duration::from_secs(3600)), ..Retention::default() };
        forget_all(&store, retention);
        assert_eq!(traces(&store), ["young", "new"]);
        let rows = |table| {
            let sql = format!("SELECT count(*) FROM {table}");
            store.read(|reader| reader.query_row(&sql, [], |row| row.get::<_, i64>(0)).unwrap())
        };
        assert_eq!((rows("span"), rows("trace"), rows("stale_text")), (4, 2, 0));
        assert_eq!(store.forget_some(Retention::default()).unwrap(), None);
    }

    #[test]
    fn the_oldest_traces_make_room_but_not_those_that_are_being_written() {
        let (_dir, store) = store();
        for n in 0..40 {
            let mut big = item(&format!("t{n:02}"), "a", n);
            big["input"]["text"] = "x".repeat(50_000).into();
            put(&store, &[big]);
            age(&store, &format!("t{n:02}"), if n == 39 { 0 } else { 1000 - i64::from(n) });
        }
        let retention = Retention { max_bytes: Some(1_000_000), ..Retention::default() };
        forget_all(&store, retention);
        let left = traces(&store);
        assert!((5..20).contains(&left.len()), "{left:?}");
        assert_eq!(left[0], "t39");
        assert_eq!(left.last().unwrap(), &format!("t{:02}", 40 - left.len()));
        let used = store.read(used_bytes).unwrap();
        assert!(used <= 1_000_000, "{used}");

        forget_all(&store, Retention { max_bytes: Some(0), ..Retention::default() });
        assert_eq!(traces(&store), ["t39"]);
    }

    #[test]
    fn a_file_shrinks_when_a_big_trace_is_forgotten_bit_by_bit() {
        let (dir, store) = store();
        let path = dir.path().join("spans.sqlite");
        for batch in 0..3 {
            let items: Vec<_> = (0..1000)
                .map(|n| {
                    let mut item = item("t", &format!("{batch}-{n}"), 1);
                    item["input"]["text"] = "x".repeat(10_000).into();
                    item
                })
                .collect();
            put(&store, &items);
        }
        age(&store, "t", 100);
        let retention =
            Retention { max_age: Some(Duration::from_secs(10)), ..Retention::default() };
        forget_all(&store, retention);
        assert!(traces(&store).is_empty());
        let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
        store.writer.alone(|writer| writer.execute_batch(checkpoint).unwrap());
        let bytes = std::fs::metadata(path).unwrap().len();
        assert!(bytes < 10_000_000, "{bytes}");
        // Rows that are numbered anew are indexed as well.
        put(&store, &[item("u", "a", 1)]);
        assert!(store.index_some().unwrap());
    }
}
