//! The traces that may match a search by metadata, from the index of words, so that not all need to
//! be looked at.

use rusqlite::{Connection, params};

use super::{queries::Place, query::Query};
use crate::search::candidates;

const OF_ROWS: &str = "
    SELECT start_ns, trace_id FROM trace
    WHERE key IN (SELECT trace_key FROM span WHERE arrival IN (SELECT value FROM json_each(?1)))
        AND start_ns >= ?2 AND start_ns < ?3 AND (start_ns, trace_id) < (?4, ?5)
    ORDER BY start_ns DESC, trace_id DESC
";

/// All of them that began from `from_ns` and before `to_ns`, newest first, beyond a cursor. `None`
/// if the index cannot help: then those that match are many, as a rule, and soon found.
pub(super) fn find(
    connection: &Connection,
    query: &Query,
    (from_ns, to_ns): (i64, i64),
    after: Option<&Place>,
) -> rusqlite::Result<Option<Vec<Place>>> {
    // The index must not grow between what is asked of it.
    let transaction = connection.unchecked_transaction()?;
    let mut fewest: Option<Vec<i64>> = None;
    for words in query.indexed() {
        let rows = candidates::with_words(&transaction, &words)?;
        if let Some(rows) = rows
            && fewest.as_ref().is_none_or(|fewest| rows.len() < fewest.len())
        {
            fewest = Some(rows);
        }
    }
    let Some(rows) = fewest else { return Ok(None) };
    let (start_ns, trace_id) = after.map_or((i64::MAX, ""), |(start, id)| (*start, id.as_str()));
    let rows = serde_json::Value::from(rows).to_string();
    let mut places = transaction.prepare_cached(OF_ROWS)?;
    let places = places.query_map(params![rows, from_ns, to_ns, start_ns, trace_id], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?;
    places.collect::<Result<_, _>>().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{assert_finds_by_index, item, put, store};

    fn shortlist(store: &crate::Store, text: &str, after: Option<Place>) -> Option<Vec<String>> {
        let query = Query::parse(&[("q".to_owned(), text.to_owned())], 0).unwrap();
        let range = (i64::MIN, i64::MAX);
        let found = store.read(|c| find(c, &query, range, after.as_ref()).unwrap());
        found.map(|places| places.into_iter().map(|(_, id)| id).collect())
    }

    #[test]
    fn it_names_what_may_match_whether_indexed_yet_or_not() {
        let (_dir, store) = store();
        let span = |trace: &str, start_s, metadata: serde_json::Value| {
            let mut span = item(trace, "r", start_s);
            span["metadata"] = metadata;
            put(&store, &[span]);
        };
        use serde_json::json;
        span("t1", 1, json!({"tenant": "ACME", "plan": {"seats": 17}}));
        span("t2", 2, json!({"tenant": "globex", "tags": ["eu west"]}));
        span("t3", 3, json!({"tenant": "acme corp"}));
        while store.index_some().unwrap() {}
        let found = |text: &str| shortlist(&store, text, None).map(|ids| ids.join(" "));
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(found("tenant:acme"), some("t3 t1"));
        assert_eq!(found("tenant:globex tenant:acme"), some("t2"));
        assert_eq!(found("plan.seats:17"), some("t1"));
        assert_eq!(found("tag:\"eu west\""), some("t2"));
        assert_eq!(found("plan:*"), some("t1"));
        assert_eq!(found("tenant:nobody"), some(""));
        // The index cannot tell.
        for text in ["acme", "-tenant:acme", "name:x", "é:*", ""] {
            assert_eq!(found(text), None, "{text}");
        }
        span("t4", 4, json!({"tenant": "other"}));
        assert_eq!(found("tenant:acme"), some("t4 t3 t1"));
        let after = store.read(|c| super::super::queries::candidates(c, (0, i64::MAX), None, 1));
        assert_eq!(shortlist(&store, "tenant:acme", after.unwrap().pop()).unwrap(), ["t3", "t1"]);
        store.read(|connection| assert_finds_by_index(connection, OF_ROWS));
    }
}
