use std::time::{Duration, Instant};

use axum::http::StatusCode;
use durable_spans_model::Timestamp;
use rusqlite::{CachedStatement, Transaction, params_from_iter};
use serde_json::json;

use crate::{
    refusal::Refusal,
    search::{
        content::Content,
        filters::Search,
        plan::{Query, plan},
    },
};

/// Most bytes of spans on a page.
const MAX_PAGE_BYTES: usize = 16 * 1024 * 1024;

/// How long a search goes on that may answer with a part of the page.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long any search goes on.
const MAX_TIME: Duration = Duration::from_secs(20);

/// How long a search that has filled its page looks for one more match.
const LOOK_AHEAD: Duration = Duration::from_millis(50);

/// One page of a search.
#[derive(Debug, Default)]
pub(crate) struct Results {
    /// JSON objects.
    pub(crate) items: Vec<String>,
    pub(crate) has_more: bool,
    /// Where the next page begins, or going back, where the page before this one ends.
    cursor: Option<String>,
    is_backwards: bool,
    /// The start of the last span that was looked at, if time ran out.
    searched_through: Option<Timestamp>,
}

impl Results {
    /// The answer of the API.
    pub(crate) fn json(&self) -> String {
        let mut rest = json!({ "has_more": self.has_more, "object": "list", "total": 0 });
        if let Some(cursor) = &self.cursor {
            rest[if self.is_backwards { "prev_cursor" } else { "next_cursor" }] =
                (&**cursor).into();
        }
        if let Some(searched_through) = self.searched_through {
            rest["search_status"] = "partial".into();
            rest["searched_through"] = searched_through.to_string().into();
        }
        // The items as they stand, in front of the rest.
        format!(r#"{{"items":[{}],{}"#, self.items.join(","), &rest.to_string()[1..])
    }
}

/// Finds the rows first and their JSON after, so that sorting moves numbers and never bodies.
pub(crate) fn read(transaction: &Transaction<'_>, search: &Search) -> Result<Results, Refusal> {
    read_within(PATIENCE, transaction, search)
}

fn read_within(
    patience: Duration,
    transaction: &Transaction<'_>,
    search: &Search,
) -> Result<Results, Refusal> {
    let mut bodies = transaction.prepare_cached("SELECT body FROM span WHERE rowid = ?")?;
    let mut page = Page::new(search, patience);
    'page: for Query { sql, values } in plan(transaction, search)? {
        let mut query = transaction.prepare_cached(&sql)?;
        let mut rows = query.query(params_from_iter(values))?;
        while let Some(row) = rows.next()? {
            let place = Place { row: row.get(0)?, start_ns: row.get(1)? };
            if !page.take(place, &mut bodies)? {
                break 'page;
            }
        }
    }
    Ok(page.finish())
}

#[derive(Clone, Copy)]
struct Place {
    row: i64,
    start_ns: i64,
}

/// A page that is being filled.
struct Page<'a> {
    search: &'a Search,
    results: Results,
    bytes: usize,
    /// The last span that is on the page, or was looked at before the next one was found.
    last: Option<Place>,
    began: Instant,
    filled: Option<Instant>,
    /// How long a search goes on that may answer with a part of the page.
    patience: Duration,
}

impl<'a> Page<'a> {
    fn new(search: &'a Search, patience: Duration) -> Self {
        let results = Results { is_backwards: search.is_backwards(), ..Results::default() };
        Self {
            search,
            results,
            bytes: 0,
            last: None,
            began: Instant::now(),
            filled: None,
            patience,
        }
    }

    /// Looks at the span in this row. False if the page needs no more.
    fn take(&mut self, place: Place, bodies: &mut CachedStatement<'_>) -> Result<bool, Refusal> {
        if self.is_out_of_time()? {
            self.results.has_more = true;
            return Ok(false);
        }
        let is_full = self.results.items.len() == self.search.limit;
        if is_full && !self.search.filters.looks_inside() {
            self.results.has_more = true;
            return Ok(false);
        }
        let body: String = bodies.query_row([place.row], |row| row.get(0))?;
        if !self.is_wanted(&body)? {
            // A page that is full goes on after its last span, whatever was looked at since.
            if !is_full {
                self.last = Some(place);
            }
            return Ok(true);
        }
        if is_full || !self.has_room(body.len())? {
            self.results.has_more = true;
            return Ok(false);
        }
        self.results.items.push(body);
        self.last = Some(place);
        if self.results.items.len() == self.search.limit {
            self.filled = Some(Instant::now());
        }
        Ok(true)
    }

    fn is_wanted(&self, body: &str) -> Result<bool, Refusal> {
        if !self.search.filters.looks_inside() {
            return Ok(true);
        }
        let content = Content::read(body).map_err(Refusal::corrupt)?;
        Ok(content.matches(&self.search.filters))
    }

    fn is_out_of_time(&mut self) -> Result<bool, Refusal> {
        // Without a look inside, each row is on the page. And each page gets a bit further.
        if !self.search.filters.looks_inside() || self.last.is_none() {
            return Ok(false);
        }
        if let Some(filled) = self.filled {
            return Ok(filled.elapsed() > LOOK_AHEAD);
        }
        let spent = self.began.elapsed();
        if self.search.allow_partial_results && spent > self.patience {
            self.results.searched_through =
                self.last.map(|last| Timestamp::from_unix_ns(last.start_ns));
            return Ok(true);
        }
        if spent > MAX_TIME {
            let detail = "the search takes too long: narrow it by time or by another filter, or allow_partial_results";
            return Err(Refusal::new(StatusCode::BAD_REQUEST, detail).code("QUERY_TOO_BROAD"));
        }
        Ok(false)
    }

    fn has_room(&mut self, bytes: usize) -> Result<bool, Refusal> {
        self.bytes += bytes;
        if self.bytes <= MAX_PAGE_BYTES || self.results.items.is_empty() {
            return Ok(true);
        }
        if self.search.allow_partial_results {
            return Ok(false);
        }
        let detail = format!(
            "the page would be over {MAX_PAGE_BYTES} bytes: ask for a smaller limit, or allow_partial_results"
        );
        Err(Refusal::new(StatusCode::BAD_REQUEST, detail).code("SEARCH_RESULT_TOO_LARGE"))
    }

    fn finish(self) -> Results {
        let Self { mut results, last, .. } = self;
        if results.has_more {
            results.cursor = last.map(|last| format!("@{}", last.row));
        }
        if results.is_backwards {
            results.items.reverse();
        }
        results
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        search::filters::Cursor,
        store::tests::{item, put, store},
    };
    use serde_json::Value;

    #[test]
    fn a_search_that_runs_out_of_time_goes_on_from_where_it_was() {
        let (_dir, store) = store();
        let spans: Vec<_> = (0..9)
            .map(|n| {
                let mut item = item("t", &n.to_string(), n);
                item["metadata"]["even"] = (n % 2 == 0).into();
                item
            })
            .collect();
        put(&store, &spans);
        // The index of words cannot tell which they are.
        let filters = json!({"extra_metadata": {"$or": [{"even": true}]}}).to_string();
        let query = [("allow_partial_results".to_owned(), "true".to_owned())];
        let mut search = Search::parse(&query, filters.as_bytes()).unwrap();
        let mut found = Vec::new();
        let mut pages = 0;
        loop {
            let results = store.read(|reader| {
                read_within(Duration::ZERO, &reader.unchecked_transaction().unwrap(), &search)
            });
            let page: Value = serde_json::from_str(&results.unwrap().json()).unwrap();
            let items = page["items"].as_array().unwrap();
            found.extend(items.iter().map(|item| item["id"].as_str().unwrap().to_owned()));
            pages += 1;
            if page["has_more"] == false {
                break;
            }
            assert_eq!(page["search_status"], "partial");
            assert!(page["searched_through"].as_str().unwrap().starts_with("2026-11-21T08:03:0"));
            search.cursor = Some(Cursor::After(page["next_cursor"].as_str().unwrap().to_owned()));
        }
        assert_eq!(found, ["8", "6", "4", "2", "0"]);
        assert!(pages > 5, "{pages}");
    }
}
