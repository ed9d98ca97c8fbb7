use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use axum::http::StatusCode;
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use crate::{
    item::Record,
    refusal::Refusal,
    rules::{self, Link, Stored},
    schema::functions::part,
    store::{Mode, writer::Failure},
};

pub(super) const SPAN: &str = "SELECT body FROM span WHERE trace_id = ? AND id = ?";

pub(crate) const ANY_SPAN_OF_ID: &str = "
    SELECT 1 FROM span WHERE id_key IN (SELECT id_key(part << 14, ?1) FROM part) AND id = ?1 LIMIT 1
";

pub(super) const LINK: &str =
    "SELECT parent_id, end_ns IS NOT NULL FROM span WHERE trace_id = ? AND id = ?";

const PLACE: &str = "SELECT rowid, end_ns IS NOT NULL FROM span WHERE trace_id = ? AND id = ?";

// SQLite keeps an undo log for each statement that may give up halfway, which costs as much as the
// statement itself. With OR FAIL there is none: what fails here rolls back the whole transaction.
const INSERT: &str = "
    INSERT OR FAIL INTO span (
        trace_id, id, parent_id, start_ns, end_ns, name, status, type, input_tokens,
        output_tokens, group_id, application_variant_id, obs_trace_id, obs_span_id, body,
        arrival, id_key, duration_class
    )
    VALUES (
        ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15,
        ?16, id_key(?16, ?2), duration_class(?5 - ?4)
    )
";

const UPDATE: &str = "
    UPDATE OR FAIL span SET
        parent_id = ?3, start_ns = ?4, end_ns = ?5, name = ?6, status = ?7, type = ?8,
        input_tokens = ?9, output_tokens = ?10, group_id = ?11, application_variant_id = ?12,
        obs_trace_id = ?13, obs_span_id = ?14, body = ?15, duration_class = duration_class(?5 - ?4)
    WHERE arrival = ?16 AND trace_id = ?1 AND id = ?2
";

/// Checks and writes a batch. Answers with each span as its write left it.
pub(super) fn batch(
    connection: &Connection,
    records: Vec<Record<'_>>,
    mode: Mode,
) -> Result<Vec<String>, Failure> {
    rules::check(&records, &mut InTransaction(connection)).map_err(Failure::Refused)?;
    if mode == Mode::Create {
        check_new(connection, &records).map_err(Failure::Refused)?;
    }
    note_traces(connection, &records)?;
    let indexed_to: i64 = connection
        .prepare_cached("SELECT up_to FROM text_progress")?
        .query_row([], |row| row.get(0))?;
    let mut place = connection.prepare_cached(PLACE)?;
    let mut insert = connection.prepare_cached(INSERT)?;
    let mut update = connection.prepare_cached(UPDATE)?;
    let mut stale = connection.prepare_cached("INSERT OR IGNORE INTO stale_text VALUES (?)")?;
    let mut stored = connection.prepare_cached(SPAN)?;
    let mut new_part = connection.prepare_cached("INSERT OR IGNORE INTO part VALUES (?)")?;
    let mut parts = BTreeSet::new();
    let mut next_row: i64 = connection
        .prepare_cached("SELECT ifnull(max(arrival), 0) + 1 FROM span")?
        .query_row([], |row| row.get(0))?;
    let mut bodies = Vec::with_capacity(records.len());
    for record in records {
        let key = [&record.trace_id, &record.id];
        let known: Option<(i64, bool)> =
            place.query_row(key, |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        bodies.push(match known {
            Some((_, true)) if !record.is_completed() => stored.query_row(key, |row| row.get(0))?,
            Some((row, _)) => {
                execute(&mut update, &record, row)?;
                // The index of words finds by itself what it has not come to yet.
                if row <= indexed_to {
                    stale.execute([row])?;
                }
                record.body
            }
            None => {
                execute(&mut insert, &record, next_row)?;
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
) -> rusqlite::Result<usize> {
    statement.execute(params![
        record.trace_id,
        record.id,
        record.parent_id,
        record.start_ns,
        record.end_ns,
        record.name,
        record.status,
        record.span_type,
        record.input_tokens,
        record.output_tokens,
        record.group_id,
        record.application_variant_id,
        record.obs_trace_id,
        record.obs_span_id,
        record.body,
        row
    ])
}

/// Creating a span does not overwrite one, be it stored or in the same batch.
fn check_new(connection: &Connection, records: &[Record<'_>]) -> Result<(), Refusal> {
    let mut keys = std::collections::HashSet::new();
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

fn note_traces(connection: &Connection, records: &[Record<'_>]) -> rusqlite::Result<()> {
    let mut starts: BTreeMap<&str, i64> = BTreeMap::new();
    for record in records {
        let start = starts.entry(&record.trace_id).or_insert(record.start_ns);
        *start = record.start_ns.min(*start);
    }
    let mut note = connection.prepare_cached(
        "INSERT INTO trace (trace_id, start_ns, written_s) VALUES (?, ?, unixepoch())
         ON CONFLICT DO UPDATE SET
             start_ns = min(start_ns, excluded.start_ns), written_s = excluded.written_s
         WHERE excluded.start_ns < trace.start_ns OR excluded.written_s > trace.written_s",
    )?;
    for start in starts {
        note.execute(start)?;
    }
    Ok(())
}

struct InTransaction<'a>(&'a Connection);

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
