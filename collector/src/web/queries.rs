//! What the page reads from the tables. Read only, each query by an index.

use rusqlite::{Connection, OptionalExtension, Row, params};

/// Traces by start, newest first, in a range of starts and beyond a cursor.
const CANDIDATES: &str = "
    SELECT trace_id, start_ns FROM trace
    WHERE start_ns >= ?1 AND start_ns < ?2 AND (start_ns, trace_id) < (?3, ?4)
    ORDER BY start_ns DESC, trace_id DESC LIMIT ?5
";

const ROOT: &str = "
    SELECT body, start_ns, end_ns FROM span
    WHERE trace_key = (SELECT key FROM trace WHERE trace_id = ?) AND parent_id IS NULL
    ORDER BY start_ns, rowid LIMIT 1
";

const COUNT: &str = "
    SELECT count(*) FROM span WHERE trace_key = (SELECT key FROM trace WHERE trace_id = ?)
";

const SPANS: &str = "
    SELECT body, start_ns, end_ns FROM span
    WHERE trace_key = (SELECT key FROM trace WHERE trace_id = ?) ORDER BY start_ns, rowid LIMIT ?
";

const SPAN: &str = "
    SELECT body, start_ns, end_ns FROM span
    WHERE trace_key = (SELECT key FROM trace WHERE trace_id = ?1)
        AND id_key & 281474976710655 = id_key(0, ?2) AND id = ?2
";

/// The length tells a change of a span that had ended before; it is known without reading the
/// text.
const FINGERPRINT: &str = "
    SELECT count(*), count(end_ns), coalesce(max(rowid), 0), coalesce(sum(octet_length(body)), 0)
    FROM span WHERE trace_key = (SELECT key FROM trace WHERE trace_id = ?)
";

/// A place in the list of traces: start in Unix nanoseconds, and id.
pub(crate) type Place = (i64, String);

/// A span as it is stored: its JSON, and start and end in Unix nanoseconds.
pub(crate) struct Stored {
    pub(crate) body: String,
    pub(crate) start_ns: i64,
    pub(crate) end_ns: Option<i64>,
}

/// Differs, in all likelihood, when anything of a trace was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Fingerprint {
    pub(crate) spans: i64,
    ended: i64,
    last_row: i64,
    bytes: i64,
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}-{}-{}", self.spans, self.ended, self.last_row, self.bytes)
    }
}

/// The next traces that began from `from_ns` and before `to_ns`, newest first.
pub(crate) fn candidates(
    connection: &Connection,
    (from_ns, to_ns): (i64, i64),
    after: Option<&Place>,
    limit: usize,
) -> rusqlite::Result<Vec<Place>> {
    let (start_ns, trace_id) = after.map_or((i64::MAX, ""), |(start, id)| (*start, id.as_str()));
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut query = connection.prepare_cached(CANDIDATES)?;
    let rows = query.query_map(params![from_ns, to_ns, start_ns, trace_id, limit], |row| {
        Ok((row.get(1)?, row.get(0)?))
    })?;
    rows.collect()
}

/// The earliest root of a trace.
pub(crate) fn root(connection: &Connection, trace_id: &str) -> rusqlite::Result<Option<Stored>> {
    connection.prepare_cached(ROOT)?.query_row([trace_id], stored).optional()
}

pub(crate) fn count(connection: &Connection, trace_id: &str) -> rusqlite::Result<usize> {
    let count: i64 = connection.prepare_cached(COUNT)?.query_row([trace_id], |row| row.get(0))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// The spans of a trace by start, then in order of arrival, at most `limit` of them.
pub(crate) fn spans(
    connection: &Connection,
    trace_id: &str,
    limit: usize,
) -> rusqlite::Result<Vec<Stored>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut query = connection.prepare_cached(SPANS)?;
    query.query_map(params![trace_id, limit], stored)?.collect()
}

pub(crate) fn span(
    connection: &Connection,
    trace_id: &str,
    id: &str,
) -> rusqlite::Result<Option<Stored>> {
    connection.prepare_cached(SPAN)?.query_row([trace_id, id], stored).optional()
}

pub(crate) fn fingerprint(
    connection: &Connection,
    trace_id: &str,
) -> rusqlite::Result<Fingerprint> {
    connection.prepare_cached(FINGERPRINT)?.query_row([trace_id], |row| {
        Ok(Fingerprint {
            spans: row.get(0)?,
            ended: row.get(1)?,
            last_row: row.get(2)?,
            bytes: row.get(3)?,
        })
    })
}

fn stored(row: &Row<'_>) -> rusqlite::Result<Stored> {
    Ok(Stored { body: row.get(0)?, start_ns: row.get(1)?, end_ns: row.get(2)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::assert_finds_by_index;

    #[test]
    fn no_query_of_the_page_walks_over_all_spans() {
        let dir = tempfile::tempdir().unwrap();
        let connection = crate::schema::open_writer(&dir.path().join("spans.sqlite")).unwrap();
        for sql in [CANDIDATES, ROOT, COUNT, SPANS, SPAN, FINGERPRINT] {
            assert_finds_by_index(&connection, sql);
        }
    }
}
