use durable_spans_model::{SpanStatus, SpanType};
use rusqlite::{Transaction, params_from_iter, types::Value};

use crate::{
    refusal::Refusal,
    search::{
        candidates,
        filters::{Cursor, Filters, Order, Search, SortBy, Ties},
    },
    store::write,
};

/// Most rows that are collected and sorted for one page. With more, walking in the order of the
/// answer until the page is full is the better way.
pub(crate) const MAX_SORTED_ROWS: usize = 20_000;

/// All spans, trace by trace in the order of the traces' ids.
const SPANS_BY_TRACE_ID: &str = "(SELECT key, trace_id AS in_order FROM trace)
    CROSS JOIN span INDEXED BY span_by_ids ON trace_key = key";

const SUCCESS: &str = SpanStatus::Success.as_str();

/// The types that have no index.
const PLAIN: [&str; 2] = [SpanType::Custom.as_str(), SpanType::Standalone.as_str()];

/// A condition of SQL, with the values for its question marks.
#[derive(Clone, Debug)]
struct Condition {
    sql: String,
    values: Vec<Value>,
}

/// How to find the rows of a page: SQL queries that give, one after the other, the rows of spans
/// and their starts in the order of the answer, without end.
///
/// SQLite knows no statistics of a file that grows all the time, so that the index is chosen here:
/// the one that leaves the fewest rows, if these are few, or else the one that has the order of the
/// answer.
pub(crate) type Plan = Vec<Query>;

/// A query of a [`Plan`].
#[derive(Debug)]
pub(crate) struct Query {
    pub(crate) sql: String,
    pub(crate) values: Vec<Value>,
}

/// A way to the rows: through an index, by a condition that it can look up.
struct Driver {
    /// What to read from.
    from: &'static str,
    condition: Condition,
    /// Whether the rows come by start.
    by_start: bool,
    /// What to order its rows by, where that is not what the search says.
    order: Option<[&'static str; 2]>,
}

pub(crate) fn plan(transaction: &Transaction<'_>, search: &Search) -> Result<Plan, Refusal> {
    let place = search.cursor.as_ref().map(|cursor| find_place(transaction, search, cursor));
    let place = place.transpose()?;
    let mut conditions = conditions(&search.filters);
    conditions.extend(place.as_ref().map(|place| beyond(search, place)));
    let drivers = match choose(transaction, search)? {
        Some(driver) => vec![driver],
        None => Driver::walk(search, place.as_deref()),
    };
    Ok(drivers.into_iter().map(|driver| Query::new(search, driver, &conditions)).collect())
}

impl Query {
    fn new(search: &Search, driver: Driver, conditions: &[Condition]) -> Self {
        let direction = if search.is_ascending() { "ASC" } else { "DESC" };
        let order = driver.order.map_or_else(|| search.order_columns(), |order| order.to_vec());
        let order: Vec<_> = order.iter().map(|column| format!("{column} {direction}")).collect();
        // First what the index can look up.
        let conditions = [&[driver.condition], conditions].concat();
        let sql = format!(
            "SELECT arrival, start_ns FROM {} WHERE {} ORDER BY {}",
            driver.from,
            join(&conditions),
            order.join(", "),
        );
        let values = conditions.into_iter().flat_map(|condition| condition.values).collect();
        Self { sql, values }
    }
}

impl Search {
    fn is_ascending(&self) -> bool {
        (self.order == Order::Ascending) != self.is_backwards()
    }

    pub(crate) fn is_backwards(&self) -> bool {
        matches!(self.cursor, Some(Cursor::Before(_)))
    }

    /// What the answer is sorted by, and what decides between equals. The first can be looked up in
    /// an index. The row number is the order of arrival.
    fn order_columns(&self) -> Vec<&'static str> {
        let key = match self.sort_by {
            SortBy::Start => &["start_ns"][..],
            // The index has the class; SQLite sorts what is within one.
            SortBy::Duration => &["duration_class", "ifnull(end_ns - start_ns, -1)"],
            SortBy::InputTokens => &["ifnull(input_tokens, 0)"],
            SortBy::OutputTokens => &["ifnull(output_tokens, 0)"],
        };
        let ties = match self.ties {
            Ties::Ids => ["trace_id", "id"],
            Ties::Arrival => ["rowid", "id"],
        };
        [key, &ties].concat()
    }
}

/// The way that leaves few rows, if there is one.
fn choose(transaction: &Transaction<'_>, search: &Search) -> Result<Option<Driver>, Refusal> {
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
        best = Some((0, Driver::new("span NOT INDEXED", condition)));
    }
    let best = best.filter(|(count, driver)| {
        *count <= MAX_SORTED_ROWS || driver.by_start && search.sort_by == SortBy::Start
    });
    Ok(best.map(|(_, driver)| driver))
}

/// The ways to find what these filters let pass.
fn drivers(filters: &Filters) -> Vec<Driver> {
    let mut drivers = Vec::new();
    let mut add = |index, condition: Option<Condition>, by_start| {
        let driver = |condition| Driver { by_start, ..Driver::new(index, condition) };
        drivers.extend(condition.map(driver));
    };
    let any_of = |column, texts: &Option<Vec<String>>| {
        texts.as_ref().map(|texts| Condition::any_of(column, texts.clone()))
    };
    let is_one = |texts: &Option<Vec<String>>| texts.as_ref().is_some_and(|ids| ids.len() == 1);
    let Filters { trace_ids, span_ids, parent_ids, names, .. } = filters;
    add("span INDEXED BY span_by_id", span_ids.clone().map(Condition::any_id), false);
    let of_pairs = filters.spans.as_ref();
    let of_pairs = of_pairs.map(|pairs| pairs.iter().map(|(_, id)| id.clone()).collect());
    let of_pairs = of_pairs.map(Condition::any_id);
    add("span INDEXED BY span_by_id", of_pairs, false);
    let of_trace = match filters.parents_only {
        true => "span INDEXED BY root_of_trace",
        false => "span INDEXED BY span_of_trace",
    };
    add(of_trace, trace_ids.clone().map(Condition::any_trace), is_one(trace_ids));
    let of_parents = parent_ids.clone().map(|ids| Condition::any_key("parent_key", ids));
    add("span INDEXED BY span_by_parent", of_parents, false);
    let variants = any_of("application_variant_id", &filters.application_variant_ids);
    add("span INDEXED BY span_by_variant", variants, false);
    add("span INDEXED BY span_by_obs_trace", any_of("obs_trace_id", &filters.obs_trace_ids), false);
    add("span INDEXED BY span_by_obs_span", any_of("obs_span_id", &filters.obs_span_ids), false);
    let group = filters.group_id.as_ref().map(|id| Condition::new("group_id = ?", [id.clone()]));
    add("span INDEXED BY span_by_group", group, true);
    add("span INDEXED BY span_by_name", any_of("name", names), is_one(names));
    let failures =
        filters.statuses.as_ref().filter(|names| names.iter().all(|name| name != SUCCESS));
    let failed = failures.map(|names| {
        let Condition { sql, values } = Condition::any_of("status", names.clone());
        // Tells SQLite that the index holds them all.
        Condition { sql: format!("status <> '{SUCCESS}' AND {sql}"), values }
    });
    add("span INDEXED BY failed_by_start", failed, is_one(&filters.statuses));
    let typed =
        filters.types.as_ref().filter(|types| !types.iter().any(|of| PLAIN.contains(&&**of)));
    let typed = typed.map(|types| {
        let Condition { sql, values } = Condition::any_of("type", types.clone());
        let [custom, standalone] = PLAIN;
        Condition { sql: format!("type NOT IN ('{custom}', '{standalone}') AND {sql}"), values }
    });
    add("span INDEXED BY typed_by_start", typed, is_one(&filters.types));
    let types = filters.assessment_types.as_ref().map(|types| assessed(types));
    add("span NOT INDEXED", types, false);
    let window = (filters.from_ns.is_some() || filters.to_ns.is_some()).then(|| {
        let from = filters.from_ns.unwrap_or(i64::MIN);
        let to = filters.to_ns.unwrap_or(i64::MAX);
        Condition::new("start_ns BETWEEN ? AND ?", [from, to])
    });
    match filters.parents_only {
        true => {
            let roots = "span INDEXED BY root_by_start";
            add(roots, window.or(Some(Condition::new("start_ns > ?", [i64::MIN]))), true);
        }
        false => add("span INDEXED BY span_by_start", window, true),
    }
    drivers
}

impl Driver {
    fn new(from: &'static str, condition: Condition) -> Self {
        Self { from, condition, by_start: false, order: None }
    }

    /// Number of its rows, at most one more than matters.
    fn count(&self, transaction: &Transaction<'_>) -> Result<usize, Refusal> {
        let Self { from, condition, .. } = self;
        // The partial indexes of roots need to be told that only roots are wanted.
        let roots = if from.contains("root_") { "AND parent_id IS NULL" } else { "" };
        let sql = format!(
            "SELECT count(*) FROM (SELECT 1 FROM {from} WHERE {} {roots} LIMIT {})",
            condition.sql,
            MAX_SORTED_ROWS + 1,
        );
        let mut query = transaction.prepare_cached(&sql)?;
        let count: i64 = query.query_row(params_from_iter(&condition.values), |row| row.get(0))?;
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// All spans, in the order of the answer: one way, or several for one part of them each. The
    /// cursor may be at a place.
    fn walk(search: &Search, place: Option<&[Value]>) -> Vec<Self> {
        let all = |index| {
            let least = format!("{} >= ?", search.order_columns()[0]);
            vec![Self::new(index, Condition::new(least, [i64::MIN]))]
        };
        match (search.sort_by, search.filters.parents_only) {
            (SortBy::Start, true) => all("span INDEXED BY root_by_start"),
            (SortBy::Start, false) => all("span INDEXED BY span_by_start"),
            (SortBy::Duration, _) => all("span INDEXED BY span_by_duration"),
            (SortBy::InputTokens, _) => {
                Self::tokens(search, place, "input_tokens", "span INDEXED BY span_by_input_tokens")
            }
            (SortBy::OutputTokens, _) => Self::tokens(
                search,
                place,
                "output_tokens",
                "span INDEXED BY span_by_output_tokens",
            ),
        }
    }

    /// Those that used tokens have an index. Most spans did not: these come by their ids.
    fn tokens(
        search: &Search,
        place: Option<&[Value]>,
        column: &str,
        index: &'static str,
    ) -> Vec<Self> {
        let key = search.order_columns()[0];
        let (from, order) = match search.ties {
            Ties::Ids => (SPANS_BY_TRACE_ID, ["in_order", "id"]),
            Ties::Arrival => ("span NOT INDEXED", ["arrival", "id"]),
        };
        let some = format!("{column} > 0 AND {key} >= ?");
        let some = Self::new(index, Condition::new(some, [i64::MIN]));
        let mut none = Condition { sql: format!("{key} = 0"), values: Vec::new() };
        if let Some([Value::Integer(0), place, ..]) = place {
            // Something that the index can look up.
            let operator = if search.is_ascending() { ">=" } else { "<=" };
            none.sql += &format!(" AND {} {operator} ?", order[0]);
            none.values.push(place.clone());
        }
        let none = Self { order: Some(order), ..Self::new(from, none) };
        if search.is_ascending() { vec![none, some] } else { vec![some, none] }
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
            ON s.trace_key = (SELECT key FROM trace WHERE trace.trace_id = assessment.trace_id)
                AND s.id_key & 281474976710655 = id_key(0, assessment.span_id)
                AND s.id = assessment.span_id
            WHERE {sql})"
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

/// What the answer is sorted by, of the span at the cursor.
fn find_place(
    transaction: &Transaction<'_>,
    search: &Search,
    cursor: &Cursor,
) -> Result<Vec<Value>, Refusal> {
    let (field, text) = match cursor {
        Cursor::After(text) => ("starting_after", text),
        Cursor::Before(text) => ("ending_before", text),
    };
    let row = find_cursor(transaction, search, field, text)?;
    let columns = search.order_columns();
    let sql = format!("SELECT {} FROM span WHERE rowid = ?", columns.join(", "));
    let mut query = transaction.prepare_cached(&sql)?;
    Ok(query.query_row([row], |row| (0..columns.len()).map(|column| row.get(column)).collect())?)
}

/// What lies beyond the place, in the direction of the walk.
fn beyond(search: &Search, place: &[Value]) -> Condition {
    let operator = if search.is_ascending() { ">" } else { "<" };
    let columns = search.order_columns();
    let marks = vec!["?"; columns.len()].join(", ");
    // The first part alone is something that an index can look up.
    let key = columns[0];
    let sql = format!("{key} {operator}= ? AND ({}) {operator} ({marks})", columns.join(", "));
    Condition { sql, values: place[..1].iter().chain(place).cloned().collect() }
}

/// The row of a cursor. SGP's cursor is a bare span id, which only a trace makes unique; guessing
/// between several would skip spans or repeat them for ever. `@` and a row is the collector's own.
fn find_cursor(
    transaction: &Transaction<'_>,
    search: &Search,
    field: &str,
    text: &str,
) -> Result<i64, Refusal> {
    let id = || {
        let keys = Condition::any_id(vec![text.to_owned()]);
        vec![keys, Condition::new("+id = ?", [text.to_owned()])]
    };
    // If several spans have this id, the filters may tell which one was on the page before.
    for conditions in [id(), [id(), conditions(&search.filters)].concat()] {
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
    let exists = transaction.prepare_cached(write::ANY_SPAN_OF_ID)?.exists([text])?;
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

    fn any_id(ids: Vec<String>) -> Self {
        Self::any_key("id_key", ids)
    }

    /// May be true of other ids, too.
    fn any_key(column: &str, ids: Vec<String>) -> Self {
        let ids = serde_json::Value::from(ids).to_string();
        let keys = "SELECT id_key(part << 14, value) FROM part, json_each(?)";
        Self::new(format!("{column} IN ({keys})"), [ids])
    }

    fn any_trace(ids: Vec<String>) -> Self {
        let Self { sql, values } = Self::any_of("trace_id", ids);
        let is_one = !sql.contains(" IN ");
        let operator = if is_one { "=" } else { "IN" };
        Self { sql: format!("trace_key {operator} (SELECT key FROM trace WHERE {sql})"), values }
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
                INSERT INTO span (
                    trace_key, trace_id, id, parent_id, start_ns, name, status, type, group_id,
                    id_key, parent_key, duration_class, body
                )
                SELECT 1, 't', 'id' || n, CASE n % 2 WHEN 0 THEN 'p' END, n, 'name', 'SUCCESS',
                    'CUSTOM', 'g', id_key(n, 'id' || n),
                    CASE n % 2 WHEN 0 THEN id_key(n, 'p') END, duration_class(NULL), '{}'
                FROM n",
                [i64::try_from(spans).unwrap()],
            )
            .unwrap();
        connection.execute("INSERT INTO part VALUES (0)", []).unwrap();
        connection.execute("INSERT INTO trace VALUES (1, 't', 1, 1)", []).unwrap();
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let query: Vec<_> = query.iter().map(own).collect();
        let search = Search::parse(&query, filters.to_string().as_bytes()).unwrap();
        let transaction = connection.transaction().unwrap();
        let mut steps = Vec::new();
        for Query { sql, values } in plan(&transaction, &search).unwrap() {
            let mut explain = transaction.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let rows = explain.query_map(params_from_iter(values), |row| row.get(3)).unwrap();
            steps.extend(rows.map(Result::<String, _>::unwrap));
        }
        steps
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
            (&[], json!({"types": ["CUSTOM"]}), "span_by_start"),
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
            (json!({"types": ["GUARDRAIL"]}), "typed_by_start"),
            (json!({"types": ["GUARDRAIL", "COMPLETION"]}), "typed_by_start"),
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
