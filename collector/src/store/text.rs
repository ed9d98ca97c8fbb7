//! Brings spans into the index of words, some time after they were stored: storing must be fast.

use rusqlite::{Transaction, TransactionBehavior};

use crate::{
    CollectorError,
    search::content::Content,
    store::{Store, corrupt},
};

/// Spans that are indexed in one transaction: some ten milliseconds, in which writers wait.
const STEP: i64 = 1_000;

const NEW: &str = "
    SELECT rowid, body FROM span WHERE rowid > (SELECT up_to FROM text_progress)
    ORDER BY rowid LIMIT ?
";

const STALE: &str = "
    SELECT span_row, (SELECT body FROM span WHERE rowid = span_row) FROM stale_text LIMIT ?
";

impl Store {
    /// Brings some of the spans that wait into the index. False once there are none.
    pub(crate) fn index_some(&self) -> Result<bool, CollectorError> {
        self.writer.alone(|connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let any = index_new(&transaction)? | index_stale(&transaction)?;
            transaction.commit()?;
            Ok(any)
        })
    }
}

fn index_new(transaction: &Transaction<'_>) -> Result<bool, CollectorError> {
    let mut query = transaction.prepare_cached(NEW)?;
    let mut rows = query.query([STEP])?;
    let mut last: Option<i64> = None;
    while let Some(row) = rows.next()? {
        let number = row.get(0)?;
        write(transaction, number, Some(row.get_ref(1)?.as_str().map_err(corrupt)?))?;
        last = Some(number);
    }
    if let Some(last) = last {
        transaction.prepare_cached("UPDATE text_progress SET up_to = ?")?.execute([last])?;
    }
    Ok(last.is_some())
}

fn index_stale(transaction: &Transaction<'_>) -> Result<bool, CollectorError> {
    let mut query = transaction.prepare_cached(STALE)?;
    let rows = query.query_map([STEP], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let rows: Vec<(i64, Option<String>)> = rows.collect::<Result<_, _>>()?;
    let mut done = transaction.prepare_cached("DELETE FROM stale_text WHERE span_row = ?")?;
    for (number, body) in &rows {
        write(transaction, *number, body.as_deref())?;
        done.execute([number])?;
    }
    Ok(!rows.is_empty())
}

/// A span that is gone has no words.
fn write(
    transaction: &Transaction<'_>,
    row: i64,
    body: Option<&str>,
) -> Result<(), CollectorError> {
    let Some(body) = body else {
        transaction.prepare_cached("DELETE FROM span_text WHERE rowid = ?")?.execute([row])?;
        return Ok(());
    };
    let words = Content::read(body).map_err(corrupt)?.texts().concat();
    let mut replace = transaction
        .prepare_cached("INSERT OR REPLACE INTO span_text (rowid, words) VALUES (?, ?)")?;
    replace.execute((row, words))?;
    Ok(())
}
