use durable_spans_model::{SpanId, TraceId};
use serde_json::{Map, Value};

use crate::refusal::Refusal;

/// Most spans that one page of a search holds.
pub const MAX_PAGE_SPANS: usize = 1000;

/// Spans of a page where the request does not say.
const DEFAULT_PAGE_SPANS: usize = 100;

/// Most traces that one search may name, the limit of SGP.
const MAX_TRACES: usize = 10_000;

/// What `POST /v5/spans/search` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Search {
    /// Spans of these traces only, `None` for all traces.
    pub(crate) trace_ids: Option<Vec<String>>,
    /// Only spans without a parent.
    pub(crate) parents_only: bool,
    pub(crate) order: Order,
    pub(crate) limit: usize,
    /// Id of the last span of the page before.
    pub(crate) starting_after: Option<String>,
}

/// Order of the answer by start, then by trace id and span id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    OldestFirst,
    NewestFirst,
}

/// Reads query parameters and body. What the collector cannot do it refuses by name, since a
/// filter that is silently ignored gives a wrong answer that looks right.
pub(crate) fn parse(query: &[(String, String)], body: &[u8]) -> Result<Search, Refusal> {
    let mut search = Search {
        trace_ids: None,
        parents_only: false,
        order: Order::NewestFirst,
        limit: DEFAULT_PAGE_SPANS,
        starting_after: None,
    };
    for (name, value) in query {
        search.set_parameter(name, value)?;
    }
    for (name, value) in &read_object(body)? {
        if !value.is_null() {
            search.set_filter(name, value)?;
        }
    }
    if search.trace_ids.is_none() && !search.parents_only {
        return Err(Refusal::invalid("trace_ids", "is required unless parents_only is true"));
    }
    Ok(search)
}

fn read_object(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    if body.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(filters)) => Ok(filters),
        Ok(_) => Err(Refusal::invalid("body", "must be an object of filters")),
        Err(error) => {
            let status = axum::http::StatusCode::BAD_REQUEST;
            Err(Refusal::of_field(status, "body", &format!("is not valid JSON: {error}")))
        }
    }
}

impl Search {
    fn set_parameter(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        match name {
            "limit" => {
                let limit = value.parse().ok().filter(|n| (1..=MAX_PAGE_SPANS).contains(n));
                let reason = || format!("must be a number from 1 to {MAX_PAGE_SPANS}");
                self.limit = limit.ok_or_else(|| Refusal::invalid("limit", &reason()))?;
            }
            "sort_order" => {
                self.order = match value {
                    "asc" => Order::OldestFirst,
                    "desc" => Order::NewestFirst,
                    _ => return Err(Refusal::invalid("sort_order", "must be asc or desc")),
                }
            }
            "sort_by" if value == "start_timestamp" => {}
            "sort_by" => {
                return Err(Refusal::invalid(
                    "sort_by",
                    "must be start_timestamp in the collector",
                ));
            }
            "starting_after" => {
                check_id(name, value)?;
                self.starting_after = Some(value.to_owned());
            }
            // A page that grows too big ends early and says has_more, asked to or not.
            "allow_partial_results" => {}
            _ => return Err(unknown(name)),
        }
        Ok(())
    }

    fn set_filter(&mut self, name: &str, value: &Value) -> Result<(), Refusal> {
        match (name, value) {
            ("trace_ids", Value::Array(ids)) => self.trace_ids = Some(read_trace_ids(ids)?),
            ("trace_ids", _) => return Err(Refusal::invalid(name, "must be an array of ids")),
            ("parents_only", Value::Bool(only)) => self.parents_only = *only,
            ("parents_only", _) => return Err(Refusal::invalid(name, "must be true or false")),
            _ => return Err(unknown(name)),
        }
        Ok(())
    }
}

fn read_trace_ids(ids: &[Value]) -> Result<Vec<String>, Refusal> {
    if !(1..=MAX_TRACES).contains(&ids.len()) {
        let reason = format!("must hold 1 to {MAX_TRACES} ids");
        return Err(Refusal::invalid("trace_ids", &reason));
    }
    let read = |(index, id): (usize, &Value)| {
        let field = || format!("trace_ids[{index}]");
        let id = id.as_str().ok_or_else(|| Refusal::invalid(field(), "must be a string"))?;
        match id.parse::<TraceId>() {
            Ok(_) => Ok(id.to_owned()),
            Err(error) => Err(Refusal::invalid(field(), error.reason())),
        }
    };
    ids.iter().enumerate().map(read).collect()
}

fn check_id(field: &str, id: &str) -> Result<(), Refusal> {
    let parsed = id.parse::<SpanId>();
    parsed.map(drop).map_err(|error| Refusal::invalid(field, error.reason()))
}

/// Refuses a filter of SGP's that the collector does not have, or one that nobody has.
pub(crate) fn unknown(name: &str) -> Refusal {
    Refusal::invalid(
        name,
        "is not supported by the collector, which filters by trace_ids and parents_only and takes limit, sort_order and starting_after",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &[(&str, &str)], body: &str) -> Result<Search, String> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let query: Vec<_> = query.iter().map(own).collect();
        super::parse(&query, body.as_bytes()).map_err(|refusal| {
            assert!(matches!(refusal.status(), 400 | 422));
            refusal.detail().to_owned()
        })
    }

    #[test]
    fn a_plain_search_is_the_hundred_newest_spans_of_its_traces() {
        let expected = Search {
            trace_ids: Some(vec!["t".into()]),
            parents_only: false,
            order: Order::NewestFirst,
            limit: 100,
            starting_after: None,
        };
        assert_eq!(parse(&[], r#"{"trace_ids":["t"],"names":null}"#), Ok(expected));
    }

    #[test]
    fn every_parameter_is_read() {
        let query = [
            ("limit", "1000"),
            ("sort_order", "asc"),
            ("sort_by", "start_timestamp"),
            ("starting_after", "a b"),
            ("allow_partial_results", "true"),
        ];
        let expected = Search {
            trace_ids: None,
            parents_only: true,
            order: Order::OldestFirst,
            limit: 1000,
            starting_after: Some("a b".into()),
        };
        assert_eq!(parse(&query, r#"{"parents_only":true}"#), Ok(expected));
    }

    #[test]
    fn a_search_without_bounds_is_refused() {
        for body in ["", "{}", r#"{"parents_only":false}"#, r#"{"trace_ids":null}"#] {
            let detail = parse(&[], body).unwrap_err();
            assert!(detail.starts_with("trace_ids is required"), "{detail}");
        }
    }

    /// All the filters of scale-gp-beta 0.7.0 that are not implemented.
    #[test]
    fn a_filter_that_the_collector_does_not_have_is_refused_by_name() {
        for name in [
            "acp_types",
            "agentex_agent_ids",
            "agentex_agent_names",
            "application_variant_ids",
            "assessment_types",
            "excluded_span_ids",
            "excluded_spans",
            "excluded_trace_ids",
            "extra_metadata",
            "group_id",
            "max_duration_ms",
            "min_duration_ms",
            "names",
            "obs_span_ids",
            "obs_trace_ids",
            "parent_ids",
            "search_texts",
            "span_ids",
            "spans",
            "statuses",
            "types",
            "tpyo",
        ] {
            let detail = parse(&[], &format!(r#"{{"trace_ids":["t"],"{name}":[]}}"#)).unwrap_err();
            assert!(detail.starts_with(&format!("{name} is not supported")), "{detail}");
        }
        for name in ["ending_before", "from_ts", "to_ts", "tpyo"] {
            let detail = parse(&[(name, "1")], r#"{"trace_ids":["t"]}"#).unwrap_err();
            assert!(detail.starts_with(&format!("{name} is not supported")), "{detail}");
        }
    }

    #[test]
    fn a_wrong_value_is_refused_with_the_field_named() {
        for (query, body, field) in [
            (Some(("limit", "0")), r#"{"trace_ids":["t"]}"#, "limit"),
            (Some(("limit", "1001")), r#"{"trace_ids":["t"]}"#, "limit"),
            (Some(("limit", "x")), r#"{"trace_ids":["t"]}"#, "limit"),
            (Some(("sort_order", "up")), r#"{"trace_ids":["t"]}"#, "sort_order"),
            (Some(("sort_by", "duration_ms")), r#"{"trace_ids":["t"]}"#, "sort_by"),
            (Some(("starting_after", "")), r#"{"trace_ids":["t"]}"#, "starting_after"),
            (None, r#"{"trace_ids":[]}"#, "trace_ids"),
            (None, r#"{"trace_ids":"t"}"#, "trace_ids"),
            (None, r#"{"trace_ids":["t",1]}"#, "trace_ids[1]"),
            (None, r#"{"trace_ids":["a\u0000b"]}"#, "trace_ids[0]"),
            (None, r#"{"parents_only":1}"#, "parents_only"),
            (None, "[]", "body"),
            (None, "{", "body"),
        ] {
            let detail = parse(query.as_slice(), body).unwrap_err();
            assert!(detail.starts_with(&format!("{field} ")), "{detail}");
        }
    }
}
