use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
};

use axum::http::StatusCode;
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use crate::{
    item::Record,
    refusal::Refusal,
    rules::{self, Link, Stored},
    schema::functions::{duration_class, id_hash, id_key, part},
    store::{Mode, writer::Failure},
};

/// A span of a trace, by the ids of both.
macro_rules! of_ids {
    ($columns:literal) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM span WHERE trace_key = (SELECT key FROM trace WHERE trace_id = ?1)
                AND id_key & 281474976710655 = id_key(0, ?2) AND id = ?2"
        )
    };
}

pub(super) const SPAN: &str = of_ids!("body");

pub(super) const ID: &str = of_ids!("id");

const TRACE_KEY: &str = "SELECT key FROM trace WHERE trace_id = ?";

pub(crate) const ANY_SPAN_OF_ID: &str = "
    SELECT 1 FROM span WHERE id_key IN (SELECT id_key(part << 14, ?1) FROM part) AND id = ?1 LIMIT 1
";

pub(super) const LINK: &str = "
    SELECT parent_id, end_ns IS NOT NULL FROM span
    WHERE trace_key = ? AND id_key & 281474976710655 = ? AND id = ?
";

const PLACE: &str = "
    SELECT arrival, end_ns IS NOT NULL FROM span
    WHERE trace_key = ? AND id_key & 281474976710655 = ? AND id = ?
";

// SQLite keeps an undo log for each statement that may give up halfway, which costs as much as the
// statement itself. With OR FAIL there is none: what fails here rolls back the whole transaction.
const INSERT: &str = "
    INSERT OR FAIL INTO span (
        arrival, trace_key, id_key, parent_key, start_ns, end_ns, duration_class, input_tokens,
        output_tokens, trace_id, id, parent_id, name, status, type, group_id,
        application_variant_id, obs_trace_id, obs_span_id, body
    )
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
";

const UPDATE: &str = "
    UPDATE OR FAIL span SET
        parent_key = ?4, start_ns = ?5, end_ns = ?6, duration_class = ?7, input_tokens = ?8,
        output_tokens = ?9, parent_id = ?12, name = ?13, status = ?14, type = ?15, group_id = ?16,
        application_variant_id = ?17, obs_trace_id = ?18, obs_span_id = ?19, body = ?20
    WHERE arrival = ?1 AND trace_key = ?2 AND id_key = ?3 AND trace_id = ?10 AND id = ?11
";

/// Checks and writes a batch. Answers with each span as its write left it.
pub(super) fn batch(
    connection: &Connection,
    records: Vec<Record<'_>>,
    mode: Mode,
) -> Result<Vec<String>, Failure> {
    rules::check(&records, &mut InTransaction::new(connection)).map_err(Failure::Refused)?;
    if mode == Mode::Create {
        check_new(connection, &records).map_err(Failure::Refused)?;
    }
    let traces = note_traces(connection, &records)?;
    let indexed_to: i64 = connection
        .prepare_cached("SELECT up_to FROM text_progress")?
        .query_row([], |row| row.get(0))?;
    let mut place = connection.prepare_cached(PLACE)?;
    let mut insert = connection.prepare_cached(INSERT)?;
    let mut update = connection.prepare_cached(UPDATE)?;
    let mut stale = connection.prepare_cached("INSERT OR IGNORE INTO stale_text VALUES (?)")?;
    let mut stored = connection.prepare_cached("SELECT body FROM span WHERE arrival = ?")?;
    let mut new_part = connection.prepare_cached("INSERT OR IGNORE INTO part VALUES (?)")?;
    let mut parts = BTreeSet::new();
    let mut next_row: i64 = connection
        .prepare_cached("SELECT ifnull(max(arrival), 0) + 1 FROM span")?
        .query_row([], |row| row.get(0))?;
    let mut written = HashSet::new();
    let mut bodies = Vec::with_capacity(records.len());
    for (record, Noted { key: trace_key, is_new }) in records.into_iter().zip(traces) {
        let hash = id_hash(record.id.as_bytes());
        // A trace that is new has no spans but those of this batch.
        let known: Option<(i64, bool)> = match is_new && written.insert((trace_key, hash)) {
            true => None,
            false => place
                .query_row((trace_key, hash, &record.id), |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?,
        };
        bodies.push(match known {
            Some((row, true)) if !record.is_completed() => {
                stored.query_row([row], |row| row.get(0))?
            }
            Some((row, _)) => {
                execute(&mut update, &record, row, trace_key, hash)?;
                // The index of words finds by itself what it has not come to yet.
                if row <= indexed_to {
                    stale.execute([row])?;
                }
                record.body
            }
            None => {
                execute(&mut insert, &record, next_row, trace_key, hash)?;
                if parts.insert(part(next_row)) {
                    new_part.execute([part(next_row)])?;
                }
                next_row += 1;
                record.body
            }
        });
    }
    Ok(bodies)
}

fn execute(
    statement: &mut CachedStatement<'_>,
    record: &Record<'_>,
    row: i64,
    trace_key: i64,
    hash: i64,
) -> rusqlite::Result<usize> {
    let parent_hash = record.parent_id.as_ref().map(|id| id_hash(id.as_bytes()));
    statement.execute(params![
        row,
        trace_key,
        id_key(row, hash),
        parent_hash.map(|hash| id_key(row, hash)),
        record.start_ns,
        record.end_ns,
        duration_class(record.end_ns.map(|end_ns| end_ns.saturating_sub(record.start_ns))),
        record.input_tokens,
        record.output_tokens,
        record.trace_id,
        record.id,
        record.parent_id,
        record.name,
        record.status,
        record.span_type,
        record.group_id,
        record.application_variant_id,
        record.obs_trace_id,
        record.obs_span_id,
        record.body,
    ])
}

fn check_new(connection: &Connection, records: &[Record<'_>]) -> Result<(), Refusal> {
    let mut keys = HashSet::new();
    let mut stored = connection.prepare_cached(SPAN)?;
    for (index, Record { trace_id, id, .. }) in records.iter().enumerate() {
        if !keys.insert((trace_id, id)) || stored.exists([trace_id, id])? {
            let reason = "exists in this trace: PUT /v5/spans/batch replaces spans";
            let field = format!("items[{index}].id");
            return Err(Refusal::of_field(StatusCode::CONFLICT, field, reason));
        }
    }
    Ok(())
}

/// A trace that is in the file.
#[derive(Clone, Copy)]
struct Noted {
    key: i64,
    /// Whether no batch before had spans of it.
    is_new: bool,
}

/// Notes the traces, and answers with that of each record.
fn note_traces(connection: &Connection, records: &[Record<'_>]) -> rusqlite::Result<Vec<Noted>> {
    let mut starts: BTreeMap<&str, i64> = BTreeMap::new();
    for record in records {
        let start = starts.entry(&record.trace_id).or_insert(record.start_ns);
        *start = record.start_ns.min(*start);
    }
    let mut known = connection.prepare_cached(TRACE_KEY)?;
    let mut insert = connection.prepare_cached(
        "INSERT INTO trace (trace_id, start_ns, written_s) VALUES (?, ?, unixepoch())",
    )?;
    let mut update = connection.prepare_cached(
        "UPDATE trace SET start_ns = min(start_ns, ?2), written_s = max(written_s, unixepoch())
         WHERE key = ?1 AND (start_ns > ?2 OR written_s < unixepoch())",
    )?;
    let mut traces = HashMap::with_capacity(starts.len());
    for (trace_id, start) in starts {
        let noted = match known.query_row([trace_id], |row| row.get(0)).optional()? {
            Some(key) => {
                update.execute((key, start))?;
                Noted { key, is_new: false }
            }
            None => Noted { key: insert.insert((trace_id, start))?, is_new: true },
        };
        traces.insert(trace_id, noted);
    }
    Ok(records.iter().map(|record| traces[&*record.trace_id]).collect())
}

/// Looks up one trace after the other.
struct InTransaction<'a> {
    connection: &'a Connection,
    /// The trace that was asked for last, and its key if it is known.
    trace: Option<(String, Option<i64>)>,
}

impl<'a> InTransaction<'a> {
    fn new(connection: &'a Connection) -> Self {
        Self { connection, trace: None }
    }

    fn trace_key(&mut self, trace_id: &str) -> rusqlite::Result<Option<i64>> {
        if let Some((id, key)) = &self.trace
            && id == trace_id
        {
            return Ok(*key);
        }
        let mut query = self.connection.prepare_cached(TRACE_KEY)?;
        let key = query.query_row([trace_id], |row| row.get(0)).optional()?;
        self.trace = Some((trace_id.to_owned(), key));
        Ok(key)
    }
}

impl Stored for InTransaction<'_> {
    fn link(&mut self, trace_id: &str, id: &str) -> Result<Option<Link<'static>>, Refusal> {
        // A trace that nobody knows has no spans.
        let Some(trace_key) = self.trace_key(trace_id)? else { return Ok(None) };
        let mut query = self.connection.prepare_cached(LINK)?;
        let link = query.query_row((trace_key, id_hash(id.as_bytes()), id), |row| {
            let parent_id = row.get::<_, Option<String>>(0)?.map(Cow::Owned);
            Ok(Link { parent_id, completed: row.get(1)? })
        });
        Ok(link.optional()?)
    }

    fn exists_anywhere(&mut self, id: &str) -> Result<bool, Refusal> {
        let mut query = self.connection.prepare_cached(ANY_SPAN_OF_ID)?;
        Ok(query.exists([id])?)
    }
}
