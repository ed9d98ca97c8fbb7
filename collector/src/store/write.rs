use std::{borrow::Cow, collections::BTreeMap};

use axum::http::StatusCode;
use rusqlite::{OptionalExtension, Transaction, params};

use crate::{
    item::Record,
    refusal::Refusal,
    rules::{self, Link, Stored},
    store::Mode,
};

pub(super) const SPAN: &str = "SELECT body FROM span WHERE trace_id = ? AND id = ?";

pub(super) const ANY_SPAN_OF_ID: &str = "SELECT 1 FROM span WHERE id = ? LIMIT 1";

pub(super) const LINK: &str =
    "SELECT parent_id, end_ns IS NOT NULL FROM span WHERE trace_id = ? AND id = ?";

const UPSERT: &str = "
    INSERT INTO span (
        trace_id, id, parent_id, start_ns, end_ns, name, status, type, input_tokens,
        output_tokens, group_id, application_variant_id, obs_trace_id, obs_span_id, body
    )
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (trace_id, id) DO UPDATE SET
        parent_id = excluded.parent_id, start_ns = excluded.start_ns, end_ns = excluded.end_ns,
        name = excluded.name, status = excluded.status, type = excluded.type,
        input_tokens = excluded.input_tokens, output_tokens = excluded.output_tokens,
        group_id = excluded.group_id, application_variant_id = excluded.application_variant_id,
        obs_trace_id = excluded.obs_trace_id, obs_span_id = excluded.obs_span_id,
        body = excluded.body
    WHERE span.end_ns IS NULL OR excluded.end_ns IS NOT NULL
    RETURNING rowid
";

/// Checks and writes a batch. Answers with each span as its write left it.
pub(super) fn batch(
    transaction: &Transaction<'_>,
    records: Vec<Record<'_>>,
    mode: Mode,
) -> Result<Vec<String>, Refusal> {
    rules::check(&records, &mut InTransaction(transaction))?;
    if mode == Mode::Create {
        check_new(transaction, &records)?;
    }
    note_traces(transaction, &records)?;
    let mut upsert = transaction.prepare_cached(UPSERT)?;
    let mut stale = transaction.prepare_cached("INSERT OR IGNORE INTO stale_text VALUES (?)")?;
    let mut stored = transaction.prepare_cached(SPAN)?;
    let newest: Option<i64> = transaction
        .prepare_cached("SELECT max(rowid) FROM span")?
        .query_row([], |row| row.get(0))?;
    let mut bodies = Vec::with_capacity(records.len());
    for record in records {
        let row: Option<i64> = upsert
            .query_row(
                params![
                    record.trace_id,
                    record.id,
                    record.parent_id,
                    record.start_ns,
                    record.end_ns,
                    record.name,
                    record.status,
                    record.span_type,
                    record.usage.input_tokens,
                    record.usage.output_tokens,
                    record.group_id,
                    record.application_variant_id,
                    record.obs_trace_id,
                    record.obs_span_id,
                    record.body
                ],
                |row| row.get(0),
            )
            .optional()?;
        // The index of words finds new rows by itself, changed ones not.
        if let Some(row) = row
            && newest.is_some_and(|newest| row <= newest)
        {
            stale.execute([row])?;
        }
        bodies.push(match row {
            Some(_) => record.body,
            None => stored.query_row([record.trace_id, record.id], |row| row.get(0))?,
        });
    }
    Ok(bodies)
}

/// Creating a span does not overwrite one, be it stored or in the same batch.
fn check_new(transaction: &Transaction<'_>, records: &[Record<'_>]) -> Result<(), Refusal> {
    let mut keys = std::collections::HashSet::new();
    let mut stored = transaction.prepare_cached(SPAN)?;
    for (index, Record { trace_id, id, .. }) in records.iter().enumerate() {
        if !keys.insert((trace_id, id)) || stored.exists([trace_id, id])? {
            let reason = "exists in this trace: PUT /v5/spans/batch replaces spans";
            let field = format!("items[{index}].id");
            return Err(Refusal::of_field(StatusCode::CONFLICT, field, reason));
        }
    }
    Ok(())
}

fn note_traces(transaction: &Transaction<'_>, records: &[Record<'_>]) -> rusqlite::Result<()> {
    let mut starts: BTreeMap<&str, i64> = BTreeMap::new();
    for record in records {
        let start = starts.entry(&record.trace_id).or_insert(record.start_ns);
        *start = record.start_ns.min(*start);
    }
    let mut note = transaction.prepare_cached(
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
