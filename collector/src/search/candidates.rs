//! Rows that may hold what a search looks for inside of spans, from the index of words.

use rusqlite::{ToSql, Transaction};

use crate::{
    refusal::Refusal,
    search::{
        filters::Filters,
        plan::MAX_SORTED_ROWS,
        terms::{Term, Terms},
    },
};

/// Most different names that are looked at for a term that may match names.
const MAX_NAMES: usize = 5_000;

/// Each name once, by jumps through the index.
const NAMES: &str = "
    WITH RECURSIVE known (name) AS (
        SELECT min(name) FROM span
        UNION ALL
        SELECT (SELECT min(name) FROM span WHERE name > known.name) FROM known
        WHERE known.name IS NOT NULL
    )
    SELECT name FROM known WHERE name IS NOT NULL LIMIT ?
";

/// The rows that may match the texts and the metadata of the filters, judged by the one of them that
/// leaves the fewest. `None` if that would be too many, or if the index cannot help.
pub(crate) fn find(
    transaction: &Transaction<'_>,
    filters: &Filters,
) -> Result<Option<Vec<i64>>, Refusal> {
    let mut best: Option<Vec<i64>> = None;
    let mut keep = |found: Option<Rows>| {
        if let Some(Rows(rows)) = found
            && best.as_ref().is_none_or(|best| rows.len() < best.len())
        {
            best = Some(rows);
        }
    };
    for term in &filters.terms.texts {
        keep(of_term(transaction, term, &filters.terms)?);
    }
    for query in filters.metadata.iter().filter_map(|condition| condition.indexed()) {
        keep(Rows::default().with_words(transaction, &query)?);
    }
    Ok(best)
}

fn of_term(
    transaction: &Transaction<'_>,
    term: &Term,
    terms: &Terms,
) -> Result<Option<Rows>, Refusal> {
    let Some(indexed) = term.indexed() else { return Ok(None) };
    let Some(mut rows) = Rows::default().with_words(transaction, &indexed.query())? else {
        return Ok(None);
    };
    if term.may_match_name() {
        let mut query = transaction.prepare_cached(NAMES)?;
        let names = query.query_map([limit(MAX_NAMES)], |row| row.get::<_, String>(0))?;
        let names = names.collect::<Result<Vec<_>, _>>()?;
        if names.len() > MAX_NAMES {
            return Ok(None);
        }
        for name in names.iter().filter(|name| term.matches_name(name)) {
            let sql = "SELECT rowid FROM span INDEXED BY span_by_name WHERE name = ? LIMIT ?";
            if !rows.add(transaction, sql, &[name])? {
                return Ok(None);
            }
        }
    }
    for trace_id in &terms.trace_ids {
        let sql = "
            SELECT rowid FROM span WHERE trace_key = (SELECT key FROM trace WHERE trace_id = ?)
            LIMIT ?";
        if !rows.add(transaction, sql, &[trace_id])? {
            return Ok(None);
        }
    }
    Ok(Some(rows))
}

fn limit(most: usize) -> i64 {
    i64::try_from(most + 1).unwrap_or(i64::MAX)
}

/// The rows whose words fit a query of the index, or that are not in the index yet. `None` if these
/// would be too many.
pub(crate) fn with_words(
    transaction: &Transaction<'_>,
    words: &str,
) -> rusqlite::Result<Option<Vec<i64>>> {
    Ok(Rows::default().with_words(transaction, words)?.map(|Rows(rows)| rows))
}

#[derive(Default)]
struct Rows(Vec<i64>);

impl Rows {
    /// With the rows whose words fit, and those that are not in the index yet.
    fn with_words(
        mut self,
        transaction: &Transaction<'_>,
        words: &str,
    ) -> rusqlite::Result<Option<Self>> {
        let indexed = "SELECT rowid FROM span_text WHERE span_text MATCH ? LIMIT ?";
        let new = "SELECT rowid FROM span WHERE rowid > (SELECT up_to FROM text_progress) LIMIT ?";
        let stale = "SELECT span_row FROM stale_text LIMIT ?";
        let complete = self.add(transaction, indexed, &[&words])?
            && self.add(transaction, new, &[])?
            && self.add(transaction, stale, &[])?;
        Ok(complete.then_some(self))
    }

    /// Adds what the query gives, whose last question mark is a limit. False if it is too much.
    fn add(
        &mut self,
        transaction: &Transaction<'_>,
        sql: &str,
        values: &[&dyn ToSql],
    ) -> rusqlite::Result<bool> {
        let limit = limit(MAX_SORTED_ROWS);
        let values: Vec<&dyn ToSql> =
            values.iter().copied().chain([&limit as &dyn ToSql]).collect();
        let mut query = transaction.prepare_cached(sql)?;
        let rows = query.query_map(&values[..], |row| row.get(0))?;
        self.0.extend(rows.collect::<Result<Vec<i64>, _>>()?);
        Ok(self.0.len() <= MAX_SORTED_ROWS)
    }
}
