use serde_json::{Map, Value};

use crate::{
    assessment::check_assessment_type,
    item::{check_hex, check_id, check_status, check_timestamp, check_type},
    read,
    refusal::Refusal,
    search::{metadata::Condition, terms::Terms},
};

/// Most spans that one page of a search holds.
pub const MAX_PAGE_SPANS: usize = 1000;

/// Spans of a page where the request does not say.
const DEFAULT_PAGE_SPANS: usize = 100;

/// Most ids that one search may name, a pair of trace and span counting twice: the limit of SGP.
const MAX_IDS: usize = 10_000;

/// What `POST /v5/spans/search` asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Search {
    pub(crate) filters: Filters,
    pub(crate) sort_by: SortBy,
    pub(crate) order: Order,
    pub(crate) ties: Ties,
    pub(crate) limit: usize,
    pub(crate) cursor: Option<Cursor>,
    /// Whether a page may end before it is full, for its size or the time that it takes.
    pub(crate) allow_partial_results: bool,
}

/// Which spans are wanted: those that pass all filters. `None` lets all pass.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Filters {
    pub(crate) trace_ids: Option<Vec<String>>,
    pub(crate) span_ids: Option<Vec<String>>,
    pub(crate) parent_ids: Option<Vec<String>>,
    /// Trace and span.
    pub(crate) spans: Option<Vec<(String, String)>>,
    pub(crate) excluded_trace_ids: Option<Vec<String>>,
    pub(crate) excluded_span_ids: Option<Vec<String>>,
    pub(crate) excluded_spans: Option<Vec<(String, String)>>,
    pub(crate) names: Option<Vec<String>>,
    pub(crate) statuses: Option<Vec<String>>,
    pub(crate) types: Option<Vec<String>>,
    pub(crate) group_id: Option<String>,
    pub(crate) application_variant_ids: Option<Vec<String>>,
    pub(crate) obs_trace_ids: Option<Vec<String>>,
    pub(crate) obs_span_ids: Option<Vec<String>>,
    pub(crate) assessment_types: Option<Vec<String>>,
    pub(crate) min_duration_ns: Option<i64>,
    pub(crate) max_duration_ns: Option<i64>,
    /// The earliest start.
    pub(crate) from_ns: Option<i64>,
    /// The latest start.
    pub(crate) to_ns: Option<i64>,
    /// Only spans without a parent.
    pub(crate) parents_only: bool,
    pub(crate) terms: Terms,
    /// All of them must hold.
    pub(crate) metadata: Vec<Condition>,
}

/// What the answer is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SortBy {
    Start,
    /// Spans without an end count as shorter than all others.
    Duration,
    /// Spans that reported none count as zero.
    InputTokens,
    OutputTokens,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Ascending,
    Descending,
}

/// The order of spans that are alike in what the answer is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ties {
    /// By trace id and id, bytewise, as SGP does.
    Ids,
    /// In the order of arrival.
    Arrival,
}

/// Where a page goes on: at a span that was on the page before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cursor {
    /// The page after this span.
    After(String),
    /// The page that ends before this span.
    Before(String),
}

impl Search {
    /// Reads query parameters and body. What is not known is refused by name, since a filter that is
    /// silently ignored gives a wrong answer that looks right.
    pub(crate) fn parse(query: &[(String, String)], body: &[u8]) -> Result<Self, Refusal> {
        let mut search = Self {
            filters: Filters::default(),
            sort_by: SortBy::Start,
            order: Order::Descending,
            ties: Ties::Ids,
            limit: DEFAULT_PAGE_SPANS,
            cursor: None,
            allow_partial_results: false,
        };
        for (name, value) in query {
            search.set_parameter(name, value)?;
        }
        for (name, value) in &read::fields(body)? {
            if !value.is_null() {
                search.filters.set(name, value)?;
            }
        }
        search.filters.check()?;
        Ok(search)
    }

    fn set_parameter(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        match name {
            "limit" => {
                let limit = value.parse().ok().filter(|n| (1..=MAX_PAGE_SPANS).contains(n));
                let reason = || format!("must be a number from 1 to {MAX_PAGE_SPANS}");
                self.limit = limit.ok_or_else(|| Refusal::invalid("limit", &reason()))?;
            }
            "sort_order" => {
                self.order = match value {
                    "asc" => Order::Ascending,
                    "desc" => Order::Descending,
                    _ => return Err(Refusal::invalid("sort_order", "must be asc or desc")),
                }
            }
            "sort_by" => {
                self.sort_by = match value {
                    "start_timestamp" => SortBy::Start,
                    "duration_ms" => SortBy::Duration,
                    "input_tokens" => SortBy::InputTokens,
                    "output_tokens" => SortBy::OutputTokens,
                    _ => {
                        let known =
                            "must be start_timestamp, duration_ms, input_tokens or output_tokens";
                        return Err(Refusal::invalid("sort_by", known));
                    }
                }
            }
            "starting_after" | "ending_before" => {
                check_id(name, value)?;
                let cursor = match name {
                    "starting_after" => Cursor::After(value.to_owned()),
                    _ => Cursor::Before(value.to_owned()),
                };
                if self.cursor.replace(cursor).is_some() {
                    return Err(Refusal::invalid(name, "must be the only cursor"));
                }
            }
            "from_ts" => self.filters.from_ns = Some(check_timestamp(name, value)?),
            "to_ts" => self.filters.to_ns = Some(check_timestamp(name, value)?),
            "allow_partial_results" => {
                self.allow_partial_results = match value {
                    "true" | "True" | "1" => true,
                    "false" | "False" | "0" => false,
                    _ => return Err(Refusal::invalid(name, "must be true or false")),
                }
            }
            _ => return Err(unknown(name)),
        }
        Ok(())
    }
}

impl Filters {
    fn set(&mut self, name: &str, value: &Value) -> Result<(), Refusal> {
        let ids = || texts(name, value, check_id).map(Some);
        let hex = |digits| texts(name, value, |field, id| check_hex(field, id, digits)).map(Some);
        match name {
            "trace_ids" => self.trace_ids = ids()?,
            "span_ids" => self.span_ids = ids()?,
            "parent_ids" => self.parent_ids = ids()?,
            "excluded_trace_ids" => self.excluded_trace_ids = excluded(value, ids)?,
            "excluded_span_ids" => self.excluded_span_ids = excluded(value, ids)?,
            "spans" => self.spans = Some(pairs(name, value)?),
            "excluded_spans" => {
                self.excluded_spans = excluded(value, || pairs(name, value).map(Some))?;
            }
            "names" => self.names = Some(texts(name, value, any)?),
            "statuses" => self.statuses = Some(texts(name, value, check_status)?),
            "types" => self.types = Some(texts(name, value, check_type)?),
            "group_id" => {
                let id =
                    value.as_str().ok_or_else(|| Refusal::invalid(name, "must be a string"))?;
                check_id(name, id)?;
                self.group_id = Some(id.to_owned());
            }
            "application_variant_ids" => {
                self.application_variant_ids = Some(texts(name, value, any)?);
            }
            "obs_trace_ids" => self.obs_trace_ids = hex(32)?,
            "obs_span_ids" => self.obs_span_ids = hex(16)?,
            "assessment_types" => {
                self.assessment_types = Some(texts(name, value, check_assessment_type)?);
            }
            "min_duration_ms" => self.min_duration_ns = Some(milliseconds(name, value)?),
            "max_duration_ms" => self.max_duration_ns = Some(milliseconds(name, value)?),
            "parents_only" => {
                let only = value.as_bool();
                self.parents_only =
                    only.ok_or_else(|| Refusal::invalid(name, "must be true or false"))?;
            }
            "search_texts" => {
                let terms = texts(name, value, any)?;
                self.terms = Terms::parse(&terms.iter().map(String::as_str).collect::<Vec<_>>())?;
            }
            "extra_metadata" => {
                let filter = value.as_object();
                let filter = filter.ok_or_else(|| Refusal::invalid(name, "must be an object"))?;
                self.metadata.push(Condition::parse(filter)?);
            }
            // Where the tracing of Agentex puts them.
            "acp_types" => self.must_be_in_metadata("__acp_type__", name, value)?,
            "agentex_agent_ids" => self.must_be_in_metadata("__agent_id__", name, value)?,
            "agentex_agent_names" => self.must_be_in_metadata("__agent_name__", name, value)?,
            _ => return Err(unknown(name)),
        }
        Ok(())
    }

    fn must_be_in_metadata(&mut self, key: &str, name: &str, value: &Value) -> Result<(), Refusal> {
        let values = texts(name, value, any)?.into_iter().map(Value::from).collect();
        self.metadata.push(Condition::OneOf(key.to_owned(), values));
        Ok(())
    }

    fn check(&mut self) -> Result<(), Refusal> {
        if let (Some(from), Some(to)) = (self.from_ns, self.to_ns)
            && from > to
        {
            return Err(Refusal::invalid("from_ts", "must not be after to_ts"));
        }
        let singles = [
            &self.trace_ids,
            &self.span_ids,
            &self.parent_ids,
            &self.excluded_trace_ids,
            &self.excluded_span_ids,
        ];
        let pairs = [&self.spans, &self.excluded_spans];
        let count = singles.into_iter().flatten().map(Vec::len).sum::<usize>()
            + pairs.into_iter().flatten().map(|pairs| 2 * pairs.len()).sum::<usize>();
        if count > MAX_IDS {
            let reason = format!(
                "with the other filters by id, holds {count} ids (a pair counts twice), at most {MAX_IDS} are allowed"
            );
            return Err(Refusal::invalid("trace_ids", &reason));
        }
        // Pairs take precedence, says SGP.
        if self.excluded_spans.is_some() {
            self.excluded_span_ids = None;
        }
        Ok(())
    }
}

/// Refuses a filter or parameter that nobody has, or that makes no sense here.
pub(crate) fn unknown(name: &str) -> Refusal {
    Refusal::invalid(name, "is no filter or parameter of a search in the collector")
}

fn any(_: String, _: &str) -> Result<(), Refusal> {
    Ok(())
}

/// An array of texts. An empty one is refused: whether it means nothing or everything, somebody
/// would be surprised.
fn texts(
    name: &str,
    value: &Value,
    check: impl Fn(String, &str) -> Result<(), Refusal>,
) -> Result<Vec<String>, Refusal> {
    let read = |(index, text): (usize, &Value)| {
        let field = format!("{name}[{index}]");
        let Some(text) = text.as_str() else {
            return Err(Refusal::invalid(field, "must be a string"));
        };
        check(field, text)?;
        Ok(text.to_owned())
    };
    array(name, value)?.iter().enumerate().map(read).collect()
}

fn array<'a>(name: &str, value: &'a Value) -> Result<&'a [Value], Refusal> {
    match value.as_array() {
        None => Err(Refusal::invalid(name, "must be an array")),
        Some(values) if values.is_empty() => {
            Err(Refusal::invalid(name, "must not be empty: leave it out to let all spans pass"))
        }
        Some(values) => Ok(values),
    }
}

/// To exclude nothing is plain enough.
fn excluded<T>(
    value: &Value,
    read: impl Fn() -> Result<Option<T>, Refusal>,
) -> Result<Option<T>, Refusal> {
    if value.as_array().is_some_and(Vec::is_empty) { Ok(None) } else { read() }
}

fn pairs(name: &str, value: &Value) -> Result<Vec<(String, String)>, Refusal> {
    let read = |(index, pair): (usize, &Value)| {
        let place = format!("{name}[{index}]");
        let pair: &Map<String, Value> =
            pair.as_object().ok_or_else(|| Refusal::invalid(&place, "must be an object"))?;
        let id = |key: &str| {
            let field = format!("{place}.{key}");
            let Some(id) = pair.get(key).and_then(Value::as_str) else {
                return Err(Refusal::invalid(field, "must be a string"));
            };
            check_id(field, id)?;
            Ok(id.to_owned())
        };
        Ok((id("trace_id")?, id("span_id")?))
    };
    array(name, value)?.iter().enumerate().map(read).collect()
}

fn milliseconds(name: &str, value: &Value) -> Result<i64, Refusal> {
    let ms = value.as_i64().filter(|ms| *ms >= 0);
    let ms = ms.ok_or_else(|| Refusal::invalid(name, "must be a whole number, not negative"))?;
    Ok(ms.saturating_mul(1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(query: &[(&str, &str)], body: &Value) -> Result<Search, String> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let query: Vec<_> = query.iter().map(own).collect();
        Search::parse(&query, body.to_string().as_bytes()).map_err(|refusal| {
            assert_eq!(refusal.status(), 422);
            refusal.detail()
        })
    }

    #[test]
    fn a_search_for_everything_is_a_page_of_the_newest_hundred() {
        let search = parse(&[], &json!({"names": null})).unwrap();
        assert_eq!(search.filters, Filters::default());
        assert_eq!((search.sort_by, search.order), (SortBy::Start, Order::Descending));
        assert_eq!((search.limit, search.cursor), (100, None));
        assert_eq!(Search::parse(&[], b"").unwrap().filters, Filters::default());
    }

    #[test]
    fn every_parameter_is_read() {
        let query = [
            ("limit", "1000"),
            ("sort_order", "asc"),
            ("sort_by", "duration_ms"),
            ("starting_after", "a b"),
            ("allow_partial_results", "true"),
            ("from_ts", "1970-01-01T00:00:01Z"),
            ("to_ts", "1970-01-01T00:00:01Z"),
        ];
        let search = parse(&query, &json!({})).unwrap();
        assert_eq!((search.sort_by, search.order), (SortBy::Duration, Order::Ascending));
        assert_eq!(search.cursor, Some(Cursor::After("a b".into())));
        assert_eq!(search.filters.from_ns, Some(1_000_000_000));
        assert!(search.allow_partial_results && search.limit == 1000);
    }

    #[test]
    fn every_filter_is_read() {
        let one = |text: &str| Some(vec![text.to_owned()]);
        let pair = || Some(vec![("t".to_owned(), "s".to_owned())]);
        let hex = "0af7651916cd43dd8448eb211c80319c";
        let filters = parse(
            &[],
            &json!({
                "trace_ids": ["a"], "span_ids": ["b"], "parent_ids": ["c"],
                "spans": [{"trace_id": "t", "span_id": "s"}],
                "excluded_trace_ids": ["d"], "excluded_span_ids": ["e"], "excluded_spans": [],
                "names": ["f"], "statuses": ["ERROR"], "types": ["CUSTOM"], "group_id": "g",
                "application_variant_ids": ["h"], "obs_trace_ids": [hex], "obs_span_ids": [hex[..16]],
                "assessment_types": ["rating"], "min_duration_ms": 0, "max_duration_ms": 5,
                "parents_only": true, "search_texts": ["word"], "extra_metadata": {"k": 1},
                "acp_types": ["sync"], "agentex_agent_ids": ["i"], "agentex_agent_names": ["j"],
            }),
        );
        let filters = filters.unwrap().filters;
        let conditions = [("__acp_type__", "sync"), ("__agent_id__", "i"), ("__agent_name__", "j")]
            .map(|(key, value)| Condition::OneOf(key.into(), vec![value.into()]));
        for condition in conditions {
            assert!(filters.metadata.contains(&condition), "{condition:?}");
        }
        let expected = Filters {
            trace_ids: one("a"),
            span_ids: one("b"),
            parent_ids: one("c"),
            spans: pair(),
            excluded_trace_ids: one("d"),
            excluded_span_ids: one("e"),
            excluded_spans: None,
            names: one("f"),
            statuses: one("ERROR"),
            types: one("CUSTOM"),
            group_id: Some("g".into()),
            application_variant_ids: one("h"),
            obs_trace_ids: one(hex),
            obs_span_ids: one(&hex[..16]),
            assessment_types: one("rating"),
            min_duration_ns: Some(0),
            max_duration_ns: Some(5_000_000),
            from_ns: None,
            to_ns: None,
            parents_only: true,
            terms: Terms::parse(&["word"]).unwrap(),
            metadata: filters.metadata.clone(),
        };
        assert_eq!(filters, expected);
    }

    #[test]
    fn excluded_pairs_take_precedence_over_excluded_ids() {
        let body = json!({
            "excluded_span_ids": ["e"],
            "excluded_spans": [{"trace_id": "t", "span_id": "s"}],
        });
        let filters = parse(&[], &body).unwrap().filters;
        assert_eq!(filters.excluded_span_ids, None);
        assert_eq!(filters.excluded_spans.unwrap().len(), 1);
    }

    #[test]
    fn ids_are_counted_over_all_filters() {
        let ids = |count: usize| vec!["x"; count];
        let pairs = vec![json!({"trace_id": "t", "span_id": "s"}); 2000];
        let body = |span_ids| {
            json!({
                "trace_ids": ids(1000), "span_ids": ids(span_ids), "parent_ids": ids(1000),
                "excluded_span_ids": ids(1000), "excluded_trace_ids": ids(1000), "spans": pairs,
            })
        };
        assert!(parse(&[], &body(2000)).is_ok());
        let detail = parse(&[], &body(2001)).unwrap_err();
        assert!(detail.contains("holds 10001 ids"), "{detail}");
    }

    #[test]
    fn a_wrong_value_is_refused_with_the_field_named() {
        for (name, value) in [
            ("limit", "0"),
            ("limit", "1001"),
            ("limit", "x"),
            ("sort_order", "up"),
            ("sort_by", "name"),
            ("starting_after", ""),
            ("from_ts", "yesterday"),
            ("to_ts", "2026-11-21T08:03:54"),
            ("allow_partial_results", "maybe"),
            ("tpyo", "1"),
        ] {
            let detail = parse(&[(name, value)], &json!({})).unwrap_err();
            assert!(detail.starts_with(&format!("{name} ")), "{detail}");
        }
        let both = [("starting_after", "a"), ("ending_before", "b")];
        assert!(parse(&both, &json!({})).unwrap_err().contains("only cursor"));
        let reversed = [("from_ts", "2026-11-21T00:00:01Z"), ("to_ts", "2026-11-21T00:00:00Z")];
        assert!(parse(&reversed, &json!({})).unwrap_err().starts_with("from_ts "));
        for (field, body) in [
            ("trace_ids", json!({"trace_ids": []})),
            ("trace_ids", json!({"trace_ids": "t"})),
            ("trace_ids[1]", json!({"trace_ids": ["t", 1]})),
            ("names", json!({"names": []})),
            ("statuses[0]", json!({"statuses": ["OK"]})),
            ("types[0]", json!({"types": ["LLM"]})),
            ("obs_span_ids[0]", json!({"obs_span_ids": ["x"]})),
            ("assessment_types[0]", json!({"assessment_types": ["x"]})),
            ("min_duration_ms", json!({"min_duration_ms": -1})),
            ("max_duration_ms", json!({"max_duration_ms": 1.5})),
            ("group_id", json!({"group_id": ["g"]})),
            ("spans[0].span_id", json!({"spans": [{"trace_id": "t"}]})),
            ("excluded_spans", json!({"excluded_spans": {}})),
            ("extra_metadata", json!({"extra_metadata": []})),
            ("search_texts[0]", json!({"search_texts": ["x"]})),
            ("parents_only", json!({"parents_only": 1})),
            ("tpyo", json!({"tpyo": ["x"]})),
            ("body", json!([])),
        ] {
            let detail = parse(&[], &body).unwrap_err();
            assert!(detail.starts_with(&format!("{field} ")), "{detail}");
        }
    }
}
