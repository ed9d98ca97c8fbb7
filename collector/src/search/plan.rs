use durable_spans_model::SpanStatus;
use rusqlite::{Transaction, params_from_iter, types::Value};

use crate::{
    refusal::Refusal,
    search::{
        candidates,
        filters::{Cursor, Filters, Order, Search, SortBy, Ties},
    },
};

/// Most rows that are collected and sorted for one page. With more, walking in the order of the
/// answer until the page is full is the better way.
pub(crate) const MAX_SORTED_ROWS: usize = 20_000;

const SUCCESS: &str = SpanStatus::Success.as_str();

/// A condition of SQL, with the values for its question marks.
#[derive(Clone, Debug)]
struct Condition {
    sql: String,
    values: Vec<Value>,
}

/// How to find the rows of a page: one SQL query that gives the rows of spans and their starts in
/// the order of the answer, without end.
///
/// SQLite knows no statistics of a file that grows all the time, so that the index is chosen here:
/// the one that leaves the fewest rows, if these are few, or else the one that has the order of the
/// answer.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) sql: String,
    pub(crate) values: Vec<Value>,
}

/// A way to the rows: through an index, by a condition that it can look up.
struct Driver {
    /// What to tell SQLite after the name of the table.
    index: &'static str,
    condition: Condition,
    /// Whether the rows come by start.
    by_start: bool,
}

impl Plan {
    pub(crate) fn new(transaction: &Transaction<'_>, search: &Search) -> Result<Self, Refusal> {
        let driver = choose(transaction, search)?;
        let mut conditions = conditions(&search.filters);
        let ascending = (search.order == Order::Ascending) != search.is_backwards();
        if let Some(cursor) = &search.cursor {
            conditions.push(beyond(transaction, search, cursor, ascending)?);
        }
        let direction = if ascending { "ASC" } else { "DESC" };
        let index = driver.index;
        // First what the index can look up.
        let conditions: Vec<_> = std::iter::once(driver.condition).chain(conditions).collect();
        let sql = format!(
            "SELECT rowid, start_ns FROM span {index} WHERE {} ORDER BY {}",
            join(&conditions),
            order_columns(search).map(|column| format!("{column} {direction}")).join(", "),
        );
        let values = conditions.into_iter().flat_map(|condition| condition.values).collect();
        Ok(Self { sql, values })
    }
}

impl Search {
    pub(crate) fn is_backwards(&self) -> bool {
        matches!(self.cursor, Some(Cursor::Before(_)))
    }

    fn key(&self) -> &'static str {
        match self.sort_by {
            SortBy::Start => "start_ns",
            SortBy::Duration => "ifnull(end_ns - start_ns, -1)",
            SortBy::InputTokens => "ifnull(input_tokens, 0)",
            SortBy::OutputTokens => "ifnull(output_tokens, 0)",
        }
    }
}

/// The key, and what decides between equals. The row number is the order of arrival.
fn order_columns(search: &Search) -> [&'static str; 3] {
    match search.ties {
        Ties::Ids => [search.key(), "trace_id", "id"],
        Ties::Arrival => [search.key(), "rowid", "id"],
    }
}

fn choose(transaction: &Transaction<'_>, search: &Search) -> Result<Driver, Refusal> {
    let mut best: Option<(usize, Driver)> = None;
    for driver in drivers(&search.filters) {
        let count = driver.count(transaction)?;
        if best.as_ref().is_none_or(|(least, _)| count < *least) {
            best = Some((count, driver));
        }
    }
    if let Some(rows) = candidates::find(transaction, &search.filters)?
        && best.as_ref().is_none_or(|(least, _)| rows.len() < *least)
    {
        let condition = Condition::any_of("rowid", rows);
        best = Some((0, Driver { index: "NOT INDEXED", condition, by_start: false }));
    }
    match best {
        Some((count, driver))
            if count <= MAX_SORTED_ROWS || driver.by_start && search.sort_by == SortBy::Start =>
        {
            Ok(driver)
        }
        _ => Ok(Driver::walk(search)),
    }
}

/// The ways to find what these filters let pass.
fn drivers(filters: &Filters) -> Vec<Driver> {
    let mut drivers = Vec::new();
    let mut add = |index, condition: Option<Condition>, by_start| {
        drivers.extend(condition.map(|condition| Driver { index, condition, by_start }));
    };
    let any_of = |column, texts: &Option<Vec<String>>| {
        texts.as_ref().map(|texts| Condition::any_of(column, texts.clone()))
    };
    let is_one = |texts: &Option<Vec<String>>| texts.as_ref().is_some_and(|ids| ids.len() == 1);
    let Filters { trace_ids, span_ids, parent_ids, names, .. } = filters;
    add("INDEXED BY span_by_id", any_of("id", span_ids), false);
    let of_pairs = filters.spans.iter().map(|pairs| pairs.iter().map(|(_, id)| id.clone()));
    let of_pairs = of_pairs.map(|ids| Condition::any_of("id", ids.collect::<Vec<_>>())).next();
    add("INDEXED BY span_by_id", of_pairs, false);
    let of_trace = match filters.parents_only {
        true => "INDEXED BY root_of_trace",
        false => "INDEXED BY span_of_trace",
    };
    add(of_trace, any_of("trace_id", trace_ids), is_one(trace_ids));
    add("INDEXED BY span_by_parent", any_of("parent_id", parent_ids), false);
    let variants = any_of("application_variant_id", &filters.application_variant_ids);
    add("INDEXED BY span_by_variant", variants, false);
    add("INDEXED BY span_by_obs_trace", any_of("obs_trace_id", &filters.obs_trace_ids), false);
    add("INDEXED BY span_by_obs_span", any_of("obs_span_id", &filters.obs_span_ids), false);
    let group = filters.group_id.as_ref().map(|id| Condition::new("group_id = ?", [id.clone()]));
    add("INDEXED BY span_by_group", group, true);
    add("INDEXED BY span_by_name", any_of("name", names), is_one(names));
    let failures =
        filters.statuses.as_ref().filter(|names| names.iter().all(|name| name != SUCCESS));
    let failed = failures.map(|names| {
        let Condition { sql, values } = Condition::any_of("status", names.clone());
        // Tells SQLite that the index holds them all.
        Condition { sql: format!("status <> '{SUCCESS}' AND {sql}"), values }
    });
    add("INDEXED BY failed_by_start", failed, is_one(&filters.statuses));
    let types = filters.assessment_types.as_ref().map(|types| assessed(types));
    add("NOT INDEXED", types, false);
    let window = (filters.from_ns.is_some() || filters.to_ns.is_some()).then(|| {
        let from = filters.from_ns.unwrap_or(i64::MIN);
        let to = filters.to_ns.unwrap_or(i64::MAX);
        Condition::new("start_ns BETWEEN ? AND ?", [from, to])
    });
    match filters.parents_only {
        true => {
            let roots = "INDEXED BY root_by_start";
            add(roots, window.or(Some(Condition::new("start_ns > ?", [i64::MIN]))), true);
        }
        false => add("INDEXED BY span_by_start", window, true),
    }
    drivers
}

impl Driver {
    /// Number of its rows, at most one more than matters.
    fn count(&self, transaction: &Transaction<'_>) -> Result<usize, Refusal> {
        let Self { index, condition, .. } = self;
        // The partial indexes of roots need to be told that only roots are wanted.
        let roots = if index.contains("root_") { "AND parent_id IS NULL" } else { "" };
        let sql = format!(
            "SELECT count(*) FROM (SELECT 1 FROM span {index} WHERE {} {roots} LIMIT {})",
            condition.sql,
            MAX_SORTED_ROWS + 1,
        );
        let mut query = transaction.prepare_cached(&sql)?;
        let count: i64 = query.query_row(params_from_iter(&condition.values), |row| row.get(0))?;
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// All spans, in the order of the answer.
    fn walk(search: &Search) -> Self {
        let index = match (search.sort_by, search.filters.parents_only) {
            (SortBy::Start, true) => "INDEXED BY root_by_start",
            (SortBy::Start, false) => "INDEXED BY span_by_start",
            (SortBy::Duration, _) => "INDEXED BY span_by_duration",
            (SortBy::InputTokens, _) => "INDEXED BY span_by_input_tokens",
            (SortBy::OutputTokens, _) => "INDEXED BY span_by_output_tokens",
        };
        let least = format!("{} >= ?", search.key());
        Self { index, condition: Condition::new(least, [i64::MIN]), by_start: true }
    }
}

/// All filters but those that need a look into the span.
fn conditions(filters: &Filters) -> Vec<Condition> {
    let mut conditions = Vec::new();
    let lists = [
        ("trace_id", &filters.trace_ids),
        ("id", &filters.span_ids),
        ("parent_id", &filters.parent_ids),
        ("name", &filters.names),
        ("status", &filters.statuses),
        ("type", &filters.types),
        ("application_variant_id", &filters.application_variant_ids),
        ("obs_trace_id", &filters.obs_trace_ids),
        ("obs_span_id", &filters.obs_span_ids),
    ];
    for (column, texts) in lists {
        // The plus keeps SQLite from looking for an index of its own.
        let column = format!("+{column}");
        conditions.extend(texts.iter().map(|texts| Condition::any_of(&column, texts.clone())));
    }
    let excluded = [("trace_id", &filters.excluded_trace_ids), ("id", &filters.excluded_span_ids)];
    for (column, texts) in excluded {
        conditions.extend(texts.iter().map(|texts| {
            let Condition { sql, values } = Condition::any_of(column, texts.clone());
            Condition { sql: format!("NOT ({sql})"), values }
        }));
    }
    conditions.extend(filters.spans.iter().map(|spans| pairs("IN", spans)));
    conditions.extend(filters.excluded_spans.iter().map(|spans| pairs("NOT IN", spans)));
    conditions
        .extend(filters.group_id.iter().map(|id| Condition::new("+group_id = ?", [id.clone()])));
    conditions.extend(filters.assessment_types.iter().map(|types| assessed(types)));
    let bounds = [
        ("start_ns >= ?", filters.from_ns),
        ("start_ns <= ?", filters.to_ns),
        ("end_ns - start_ns >= ?", filters.min_duration_ns),
        ("end_ns - start_ns <= ?", filters.max_duration_ns),
    ];
    conditions.extend(bounds.into_iter().filter_map(|(sql, ns)| Some(Condition::new(sql, [ns?]))));
    if filters.parents_only {
        conditions.push(Condition { sql: "parent_id IS NULL".into(), values: Vec::new() });
    }
    if filters.terms.texts.is_empty() && !filters.terms.trace_ids.is_empty() {
        conditions.push(Condition::any_of("+trace_id", filters.terms.trace_ids.clone()));
    }
    conditions
}

fn assessed(types: &[String]) -> Condition {
    let Condition { sql, values } = Condition::any_of("assessment.type", types.to_vec());
    let sql = format!(
        "rowid IN (SELECT s.rowid FROM assessment JOIN span AS s
            ON s.trace_id = assessment.trace_id AND s.id = assessment.span_id WHERE {sql})"
    );
    Condition { sql, values }
}

fn pairs(operator: &str, pairs: &[(String, String)]) -> Condition {
    let pairs = serde_json::json!(pairs).to_string();
    let sql = format!(
        "(trace_id, id) {operator} (SELECT value ->> '$[0]', value ->> '$[1]' FROM json_each(?))"
    );
    Condition { sql, values: vec![pairs.into()] }
}

/// What lies beyond the cursor, in the direction of the walk.
fn beyond(
    transaction: &Transaction<'_>,
    search: &Search,
    cursor: &Cursor,
    ascending: bool,
) -> Result<Condition, Refusal> {
    let (field, text) = match cursor {
        Cursor::After(text) => ("starting_after", text),
        Cursor::Before(text) => ("ending_before", text),
    };
    let row = find_cursor(transaction, search, field, text)?;
    let columns = order_columns(search);
    let sql = format!("SELECT {} FROM span WHERE rowid = ?", columns.join(", "));
    let place: [Value; 3] = transaction
        .prepare_cached(&sql)?
        .query_row([row], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]))?;
    let operator = if ascending { ">" } else { "<" };
    // The first part alone is something that an index can look up.
    let key = columns[0];
    let sql = format!("{key} {operator}= ? AND ({}) {operator} (?, ?, ?)", columns.join(", "));
    let values = std::iter::once(place[0].clone()).chain(place).collect();
    Ok(Condition { sql, values })
}

/// The row of a cursor. SGP's cursor is a bare span id, which only a trace makes unique; guessing
/// between several would skip spans or repeat them for ever. `@` and a row is the collector's own.
fn find_cursor(
    transaction: &Transaction<'_>,
    search: &Search,
    field: &str,
    text: &str,
) -> Result<i64, Refusal> {
    let id = || Condition::new("id = ?", [text.to_owned()]);
    // If several spans have this id, the filters may tell which one was on the page before.
    for conditions in [vec![id()], [vec![id()], conditions(&search.filters)].concat()] {
        let sql = format!(
            "SELECT rowid FROM span INDEXED BY span_by_id WHERE {} LIMIT 2",
            join(&conditions)
        );
        let values = conditions.into_iter().flat_map(|condition| condition.values);
        let mut query = transaction.prepare_cached(&sql)?;
        let rows = query.query_map(params_from_iter(values), |row| row.get(0))?;
        match rows.collect::<Result<Vec<i64>, _>>()?[..] {
            [only] => return Ok(only),
            [] => break,
            _ => {}
        }
    }
    let own = text.strip_prefix('@').and_then(|row| row.parse::<i64>().ok());
    if let Some(row) = own
        && transaction.prepare_cached("SELECT 1 FROM span WHERE rowid = ?")?.exists([row])?
    {
        return Ok(row);
    }
    let exists = transaction.prepare_cached("SELECT 1 FROM span WHERE id = ?")?.exists([text])?;
    Err(Refusal::invalid(
        field,
        if exists {
            "names spans of several traces: search one trace at a time"
        } else {
            "names no span of this search"
        },
    ))
}

fn join(conditions: &[Condition]) -> String {
    let conditions: Vec<_> = conditions.iter().map(|condition| &*condition.sql).collect();
    conditions.join(" AND ")
}

impl Condition {
    fn new<V: Into<Value>, const N: usize>(sql: impl Into<String>, values: [V; N]) -> Self {
        Self { sql: sql.into(), values: values.map(Into::into).into() }
    }

    fn any_of<V: Into<Value> + Into<serde_json::Value>>(column: &str, mut values: Vec<V>) -> Self {
        if values.len() == 1
            && let Some(only) = values.pop()
        {
            return Self::new(format!("{column} = ?"), [only]);
        }
        let values = serde_json::Value::from(values).to_string();
        Self::new(format!("{column} IN (SELECT value FROM json_each(?))"), [values])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::open_writer;
    use serde_json::json;

    /// The steps that SQLite takes for a search in a file with so many spans, half of them roots.
    fn steps(spans: usize, query: &[(&str, &str)], filters: serde_json::Value) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let mut connection = open_writer(&dir.path().join("spans.sqlite")).unwrap();
        connection
            .execute(
                "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?)
                INSERT INTO span (trace_id, id, parent_id, start_ns, name, status, type, group_id, body)
                SELECT 't', 'id' || n, CASE n % 2 WHEN 0 THEN 'p' END, n, 'name', 'SUCCESS', 'CUSTOM', 'g', '{}'
                FROM n",
                [i64::try_from(spans).unwrap()],
            )
            .unwrap();
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let query: Vec<_> = query.iter().map(own).collect();
        let search = Search::parse(&query, filters.to_string().as_bytes()).unwrap();
        let transaction = connection.transaction().unwrap();
        let plan = Plan::new(&transaction, &search).unwrap();
        let mut explain = transaction.prepare(&format!("EXPLAIN QUERY PLAN {}", plan.sql)).unwrap();
        let steps = explain.query_map(params_from_iter(plan.values), |row| row.get(3)).unwrap();
        steps.map(Result::unwrap).collect()
    }

    fn sorts(steps: &[String]) -> bool {
        steps.iter().any(|step| step == "USE TEMP B-TREE FOR ORDER BY")
    }

    #[test]
    fn many_rows_are_walked_in_the_order_of_the_answer() {
        for (query, filters, index) in [
            (&[][..], json!({}), "span_by_start"),
            (&[], json!({"statuses": ["SUCCESS"], "min_duration_ms": 1}), "span_by_start"),
            (&[("starting_after", "id7")], json!({}), "span_by_start"),
            (&[("ending_before", "id7")], json!({}), "span_by_start"),
            (&[], json!({"trace_ids": ["t"]}), "span_of_trace"),
            (&[("starting_after", "id7")], json!({"trace_ids": ["t"]}), "span_of_trace"),
            (&[], json!({"trace_ids": ["t", "u"]}), "span_by_start"),
            (&[], json!({"names": ["name"]}), "span_by_name"),
            (&[], json!({"group_id": "g"}), "span_by_group"),
            (&[], json!({"parents_only": true}), "root_by_start"),
            (&[], json!({"parents_only": true, "trace_ids": ["t"]}), "root_of_trace"),
            (&[("from_ts", "1970-01-01T00:00:00Z")], json!({}), "span_by_start"),
            (&[("sort_by", "duration_ms")], json!({"trace_ids": ["t"]}), "span_by_duration"),
            (&[("sort_by", "input_tokens")], json!({}), "span_by_input_tokens"),
            (&[("sort_by", "output_tokens")], json!({}), "span_by_output_tokens"),
        ] {
            let steps = steps(2 * (MAX_SORTED_ROWS + 1), query, filters.clone());
            assert!(!sorts(&steps), "{filters}: {steps:?}");
            assert!(steps[0].contains(index), "{filters}: {steps:?}");
        }
    }

    #[test]
    fn few_rows_are_found_by_the_filter_that_leaves_the_fewest() {
        for (filters, index) in [
            (json!({"trace_ids": ["t"], "span_ids": ["id7"]}), "span_by_id"),
            (json!({"trace_ids": ["u"], "group_id": "g"}), "span_of_trace"),
            (json!({"parent_ids": ["q"]}), "span_by_parent"),
            (json!({"statuses": ["ERROR", "CANCELED"]}), "failed_by_start"),
            (json!({"statuses": ["ERROR"], "trace_ids": ["t"]}), "failed_by_start"),
            (json!({"names": ["other"], "trace_ids": ["t"]}), "span_by_name"),
            (json!({"spans": [{"trace_id": "t", "span_id": "id7"}]}), "span_by_id"),
            (json!({"application_variant_ids": ["v"]}), "span_by_variant"),
            (json!({"obs_trace_ids": ["0af7651916cd43dd8448eb211c80319c"]}), "span_by_obs_trace"),
            (json!({"obs_span_ids": ["00f067aa0ba902b7"]}), "span_by_obs_span"),
            (json!({"assessment_types": ["rating"]}), "INTEGER PRIMARY KEY"),
        ] {
            let steps = steps(1000, &[], filters.clone());
            assert!(steps[0].contains(index), "{filters}: {steps:?}");
        }
    }
}
