use rusqlite::{ToSql, Transaction, params_from_iter};

use crate::{
    refusal::Refusal,
    search::{Order, Search},
};

/// A page ends early, with more to come, before its spans add up to more than this.
const MAX_PAGE_BYTES: usize = 16 * 1024 * 1024;

/// One page of a search, its items JSON objects.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) items: Vec<String>,
    pub(crate) has_more: bool,
}

/// Spans that began at the same time stay in the order in which they arrived, which is that of the
/// rows: a workflow's clock stands still between two awaits, and it sends its spans in order.
///
/// Finds the rows first and their JSON after, so that sorting moves numbers and never bodies.
pub(crate) fn read(transaction: &Transaction<'_>, search: &Search) -> Result<Page, Refusal> {
    let rows = matching_rows(transaction, search)?;
    let mut has_more = rows.len() > search.limit;
    let mut query = transaction.prepare_cached("SELECT body FROM span WHERE rowid = ?")?;
    let mut items: Vec<String> = Vec::new();
    let mut bytes = 0;
    for row in rows.into_iter().take(search.limit) {
        let body: String = query.query_row([row], |row| row.get(0))?;
        bytes += body.len();
        if bytes > MAX_PAGE_BYTES && !items.is_empty() {
            has_more = true;
            break;
        }
        items.push(body);
    }
    Ok(Page { items, has_more })
}

/// The rows of a page and one more, if there is one.
fn matching_rows(transaction: &Transaction<'_>, search: &Search) -> Result<Vec<i64>, Refusal> {
    let mut filter = Filter::of(search);
    if let Some(id) = &search.starting_after {
        let (start_ns, row) = find_cursor(transaction, Filter::of(search), id)?;
        let beyond = match search.order {
            Order::OldestFirst => "(start_ns, rowid) > (?, ?)",
            Order::NewestFirst => "(start_ns, rowid) < (?, ?)",
        };
        filter.conditions.push(beyond);
        filter.values.extend([Box::new(start_ns) as Box<dyn ToSql>, Box::new(row)]);
    }
    filter.values.push(Box::new(i64::try_from(search.limit + 1).unwrap_or(i64::MAX)));
    let mut query = transaction.prepare_cached(&filter.rows(search.order))?;
    let rows = query.query_map(params_from_iter(filter.values), |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Where a page goes on. SGP's cursor is a bare span id, which only a trace makes unique; guessing
/// between several would skip spans or repeat them for ever.
fn find_cursor(
    transaction: &Transaction<'_>,
    mut filter: Filter,
    id: &str,
) -> Result<(i64, i64), Refusal> {
    filter.conditions.push("id = ?");
    filter.values.push(Box::new(id.to_owned()));
    let mut query = transaction.prepare_cached(&filter.cursor())?;
    let rows =
        query.query_map(params_from_iter(filter.values), |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut found = rows.collect::<Result<Vec<_>, _>>()?;
    match (found.pop(), found.pop()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(Refusal::invalid("starting_after", "names no span of this search")),
        (Some(_), Some(_)) => Err(Refusal::invalid(
            "starting_after",
            "names spans of several traces: search one trace at a time",
        )),
    }
}

/// Conditions that must all hold, with the values for their question marks in the same order.
struct Filter {
    conditions: Vec<&'static str>,
    values: Vec<Box<dyn ToSql>>,
}

impl Filter {
    fn of(search: &Search) -> Self {
        let mut filter = Self { conditions: vec!["true"], values: Vec::new() };
        if let Some(trace_ids) = &search.trace_ids {
            filter.conditions.push("trace_id IN (SELECT value FROM json_each(?))");
            let trace_ids = serde_json::Value::from(trace_ids.clone());
            filter.values.push(Box::new(trace_ids.to_string()));
        }
        if search.parents_only {
            filter.conditions.push("parent_id IS NULL");
        }
        filter
    }

    fn rows(&self, order: Order) -> String {
        let direction = match order {
            Order::OldestFirst => "ASC",
            Order::NewestFirst => "DESC",
        };
        format!(
            "SELECT rowid FROM span WHERE {}
             ORDER BY start_ns {direction}, rowid {direction} LIMIT ?",
            self.conditions.join(" AND "),
        )
    }

    fn cursor(&self) -> String {
        format!("SELECT start_ns, rowid FROM span WHERE {} LIMIT 2", self.conditions.join(" AND "),)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{assert_finds_by_index, item, put, store};
    use durable_spans_model::Span;
    use serde_json::json;

    fn search(body: serde_json::Value) -> Search {
        crate::search::parse(&[], body.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_page_ends_early_when_its_spans_are_big() {
        let (_dir, store) = store();
        let big = |id| {
            let mut item = item("t", id, 1);
            item["input"]["text"] = "x".repeat(MAX_PAGE_BYTES / 2).into();
            item
        };
        for id in ["a", "b", "c"] {
            put(&store, &[big(id)]);
        }
        let mut search = search(json!({"trace_ids": ["t"]}));
        let mut ids = Vec::new();
        loop {
            let page = store.search(&search).unwrap();
            assert_eq!(page.items.len(), 1);
            let span: Span = serde_json::from_str(&page.items[0]).unwrap();
            ids.push(span.id.to_string());
            search.starting_after = ids.last().cloned();
            if !page.has_more {
                break;
            }
        }
        assert_eq!(ids, ["c", "b", "a"]);
    }

    #[test]
    fn a_cursor_that_names_no_span_or_several_is_refused() {
        let (_dir, store) = store();
        put(&store, &[item("t1", "a", 1), item("t2", "a", 2), item("t3", "b", 3)]);
        let mut both = search(json!({"trace_ids": ["t1", "t2"]}));
        both.starting_after = Some("a".into());
        assert!(store.search(&both).unwrap_err().detail().contains("several traces"));
        both.starting_after = Some("b".into());
        assert!(store.search(&both).unwrap_err().detail().contains("no span"));
        let mut one = search(json!({"trace_ids": ["t1"]}));
        one.starting_after = Some("a".into());
        assert!(store.search(&one).unwrap().items.is_empty());
    }

    #[test]
    fn no_search_walks_over_all_spans() {
        let dir = tempfile::tempdir().unwrap();
        let connection = crate::schema::open_writer(&dir.path().join("spans.sqlite")).unwrap();
        for body in [
            json!({"trace_ids": ["t"]}),
            json!({"parents_only": true}),
            json!({"trace_ids": ["t"], "parents_only": true}),
        ] {
            let mut filter = Filter::of(&search(body));
            assert_finds_by_index(&connection, &filter.rows(Order::OldestFirst));
            assert_finds_by_index(&connection, &filter.rows(Order::NewestFirst));
            filter.conditions.push("id = ?");
            assert_finds_by_index(&connection, &filter.cursor());
        }
    }
}
