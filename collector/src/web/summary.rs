use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::Serialize;

use super::{query::Status, record::Record};

/// Most tags of a trace that are listed.
const MAX_TAGS: usize = 8;

/// What a list says of a trace, from all its spans.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) status: Status,
    #[serde(skip)]
    start_ns: i64,
    /// When the last of its spans ended, `None` while the trace goes on or if none has ended.
    #[serde(serialize_with = "text")]
    pub(crate) end_ns: Option<i64>,
    pub(crate) spans: usize,
    pub(crate) open: usize,
    pub(crate) errors: usize,
    pub(crate) tokens: u64,
    pub(crate) cost: f64,
    pub(crate) tags: Vec<String>,
    /// Spans whose parents have not arrived.
    pub(crate) pending: usize,
    /// Attempts of activities that left no span.
    pub(crate) lost_attempts: u64,
    /// Spans with a value that was cut.
    pub(crate) truncated: usize,
    /// Spans that runs could not record.
    pub(crate) dropped: u64,
}

impl Summary {
    /// `times` are start and end of each span, in Unix nanoseconds.
    pub(crate) fn of(spans: &[Record<'_>], times: &[(i64, Option<i64>)]) -> Self {
        let index: HashMap<&str, usize> =
            spans.iter().enumerate().map(|(at, span)| (&*span.id, at)).collect();
        let parent = |at: usize| index.get(spans[at].parent_id.as_deref()?).copied();
        let open = times.iter().filter(|(_, end)| end.is_none()).count();
        let mut summary = Self {
            status: Status::Pending,
            start_ns: times.iter().map(|(start, _)| *start).min().unwrap_or(0),
            end_ns: times.iter().filter_map(|(_, end)| *end).max(),
            spans: spans.len(),
            open,
            errors: spans.iter().filter(|span| span.status() == "ERROR").count(),
            tokens: 0,
            cost: 0.0,
            tags: Vec::new(),
            pending: 0,
            lost_attempts: lost_attempts(spans),
            truncated: 0,
            dropped: 0,
        };
        let usages: Vec<_> = spans.iter().map(Record::usage).collect();
        // A span that sums up the usage of spans below it would count twice.
        let mut sums_up = HashSet::new();
        for at in (0..spans.len()).filter(|at| !usages[*at].is_none()) {
            let mut above = parent(at);
            while let Some(at) = above.filter(|at| sums_up.insert(*at)) {
                above = parent(at);
            }
        }
        let mut tags = BTreeSet::new();
        for (at, span) in spans.iter().enumerate() {
            if !sums_up.contains(&at) {
                summary.tokens = summary.tokens.saturating_add(usages[at].tokens);
                summary.cost += usages[at].cost;
            }
            tags.extend(span.tags());
            summary.pending += usize::from(span.parent_id.is_some() && parent(at).is_none());
            summary.truncated += usize::from(span.metadata.contains_key("truncated"));
            summary.dropped = summary.dropped.saturating_add(span.dropped());
        }
        summary.tags = tags.into_iter().take(MAX_TAGS).map(str::to_owned).collect();
        summary.status = status(spans, times);
        if summary.status == Status::Open {
            summary.end_ns = None;
        }
        summary
    }

    /// From the first start to the last end; zero while the trace goes on.
    pub(crate) fn duration_ns(&self) -> i64 {
        self.end_ns.map_or(0, |end| end.saturating_sub(self.start_ns))
    }
}

/// How a span with this record ended, if it is the end of its trace.
pub(crate) fn status_of(span: &Record<'_>, ended: bool) -> Status {
    match span.status() {
        _ if !ended => Status::Open,
        "ERROR" => Status::Error,
        "CANCELED" => Status::Canceled,
        _ => Status::Success,
    }
}

/// The status of the earliest root, or of the run that goes on where that one continued as new.
fn status(spans: &[Record<'_>], times: &[(i64, Option<i64>)]) -> Status {
    let roots = (0..spans.len()).filter(|at| spans[*at].parent_id.is_none());
    let Some(mut last) = roots.min_by_key(|at| times[*at].0) else { return Status::Pending };
    let mut next: HashMap<&str, usize> = HashMap::new();
    for (at, span) in spans.iter().enumerate() {
        if let Some(parent) = span.parent_id.as_deref().filter(|_| span.is("temporal.continued")) {
            next.insert(parent, at);
        }
    }
    // A run that continued as new goes on until its next run has arrived.
    while spans[last].is("temporal.continued_as_new") {
        match next.remove(&*spans[last].id) {
            Some(at) => last = at,
            None => return Status::Open,
        }
    }
    status_of(&spans[last], times[last].1.is_some())
}

/// Attempts below the highest number of each activity that left no span.
fn lost_attempts(spans: &[Record<'_>]) -> u64 {
    let activities: HashSet<&str> =
        spans.iter().filter(|span| span.kind() == Some("activity")).map(|span| &*span.id).collect();
    let mut numbers: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for span in spans.iter().filter(|span| span.kind() == Some("activity_attempt")) {
        if let Some(parent) = span.parent_id.as_deref().filter(|id| activities.contains(id))
            && let Some(number) = span.number("temporal.attempt").filter(|number| *number > 0)
        {
            numbers.entry(parent).or_default().insert(number);
        }
    }
    let lost = numbers
        .values()
        .map(|numbers| numbers.last().copied().unwrap_or(0).saturating_sub(numbers.len() as u64));
    lost.fold(0, u64::saturating_add)
}

fn text<S: serde::Serializer>(ns: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
    // JavaScript's numbers hold no nanoseconds since 1970.
    ns.map(|ns| ns.to_string()).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn summary(spans: &[(Value, i64, Option<i64>)]) -> Summary {
        let bodies: Vec<String> = spans.iter().map(|(span, ..)| span.to_string()).collect();
        let records: Vec<_> = bodies.iter().map(|body| Record::parse(body).unwrap()).collect();
        let times: Vec<_> = spans.iter().map(|(_, start, end)| (*start, *end)).collect();
        Summary::of(&records, &times)
    }

    fn span(id: &str, parent: Option<&str>, metadata: Value) -> Value {
        let mut span = json!({"name": id, "id": id, "metadata": metadata});
        if let Some(parent) = parent {
            span["parent_id"] = parent.into();
        }
        span
    }

    #[test]
    fn figures_are_sums_over_the_spans_and_usage_is_counted_where_it_arose() {
        let mut failed = span("c", Some("b"), json!({"usage": {"total_tokens": 3}}));
        failed["status"] = "ERROR".into();
        let summary = summary(&[
            (span("a", None, json!({"usage": {"total_tokens": 10}, "tags": ["x"]})), 5, Some(90)),
            (
                span(
                    "b",
                    Some("a"),
                    json!({"durable_spans.dropped": {"buffer_full": 3, "rejected": 1}}),
                ),
                6,
                Some(95),
            ),
            (failed, 7, Some(8)),
            (span("d", Some("b"), json!({"usage": {"total_tokens": 7}, "cost": 0.5})), 8, None),
            (span("e", Some("gone"), json!({"truncated": ["input.x"]})), 9, Some(10)),
        ]);
        assert_eq!((summary.tokens, summary.cost), (10, 0.5));
        assert_eq!((summary.spans, summary.open, summary.errors), (5, 1, 1));
        assert_eq!((summary.pending, summary.truncated, summary.dropped), (1, 1, 4));
        assert_eq!((summary.status, summary.duration_ns()), (Status::Success, 90));
        assert_eq!(summary.tags, ["x"]);
    }

    #[test]
    fn a_trace_stands_as_the_last_of_its_runs_stands() {
        let first = span("1", None, json!({"temporal.continued_as_new": true}));
        let going_on = json!({"temporal.continued": true, "temporal.continued_as_new": true});
        let second = span("2", Some("1"), going_on);
        let mut third = span("3", Some("2"), json!({"temporal.continued": true}));
        third["status"] = "ERROR".into();
        let runs = [(first, 0, Some(1)), (second, 1, Some(2)), (third, 2, Some(3))];
        assert_eq!(summary(&runs).status, Status::Error);
        assert_eq!(summary(&runs[..2]).status, Status::Open);
        assert_eq!(summary(&runs[1..]).status, Status::Pending);
    }

    #[test]
    fn attempts_without_a_span_are_counted_below_the_highest_number() {
        let attempt = |id: &str, number: u64| {
            let metadata = json!({"temporal.kind": "activity_attempt", "temporal.attempt": number});
            (span(id, Some("act"), metadata), 0, Some(1))
        };
        let activity = (span("act", None, json!({"temporal.kind": "activity"})), 0, Some(1));
        assert_eq!(summary(&[activity.clone(), attempt("2", 2), attempt("5", 5)]).lost_attempts, 3);
        assert_eq!(summary(&[activity, attempt("1", 1)]).lost_attempts, 0);
        assert_eq!(summary(&[attempt("2", 2)]).lost_attempts, 0);
    }
}
