//! The language of the page's search field: words, and `key:value` terms.

use std::time::Duration;

use durable_spans_model::Timestamp;
use serde_json::Value;

use super::{
    record::{Needle, Record},
    summary::Summary,
};
use crate::{refusal::Refusal, search::terms::tokens};

/// What a trace must be like to be listed. All terms must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Query {
    terms: Vec<Term>,
    /// Traces that began at or after this time, in Unix nanoseconds.
    pub(crate) from_ns: Option<i64>,
    /// Traces that began before this time, in Unix nanoseconds.
    pub(crate) to_ns: Option<i64>,
}

#[derive(Clone, Debug, PartialEq)]
struct Term {
    negated: bool,
    test: Test,
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    /// Of the root, or of the trace as a whole.
    Name(Needle),
    Trace(String),
    Group(String),
    Status(Status),
    Compare(Figure, Sign, f64),
    /// Of any span.
    Span(Needle),
    Type(String),
    Tag(String),
    Metadata(String, String),
    Text(Needle),
}

/// How a trace stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Success,
    Error,
    Canceled,
    Open,
    /// Its root has not arrived.
    Pending,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Figure {
    DurationNs,
    Spans,
    Errors,
    Tokens,
    Cost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    Over,
    Under,
}

impl Query {
    /// Reads the parameters `q`, `status`, `range`, `from` and `to`. The range counts back from
    /// `now_ns`. Other parameters are not looked at.
    ///
    /// # Errors
    ///
    /// 422 with the parameter or the key at fault and what it takes.
    pub(crate) fn parse(parameters: &[(String, String)], now_ns: i64) -> Result<Self, Refusal> {
        let mut query = Self::default();
        for (name, value) in parameters.iter().filter(|(_, value)| !value.is_empty()) {
            match name.as_str() {
                "q" => query.terms.extend(read_terms(value)?),
                "status" => {
                    let test = Test::Status(read_status(value)?);
                    query.terms.push(Term { negated: false, test });
                }
                "range" => {
                    let range = read_duration(value).ok_or_else(|| {
                        Refusal::invalid("range", "must be a time span such as 15m, 6h or 7d")
                    })?;
                    let range_ns = i64::try_from(range.as_nanos()).unwrap_or(i64::MAX);
                    query.from_ns = Some(now_ns.saturating_sub(range_ns));
                }
                "from" => query.from_ns = Some(read_time(name, value)?),
                "to" => query.to_ns = Some(read_time(name, value)?),
                _ => {}
            }
        }
        Ok(query)
    }

    /// Whether the answer needs all spans of a trace, or the root will do.
    pub(crate) fn needs_spans(&self) -> bool {
        self.terms.iter().any(|term| {
            !matches!(term.test, Test::Name(_) | Test::Trace(_) | Test::Group(_) | Test::Status(_))
        })
    }

    /// What can be told from the root alone. For a root that is not the end of its trace,
    /// `status` is `None`, and its test is left to [`Query::matches`].
    pub(crate) fn may_match(
        &self,
        trace_id: &str,
        root: Option<&Record<'_>>,
        status: Option<Status>,
    ) -> bool {
        self.terms.iter().all(|Term { negated, test }| {
            let holds = match test {
                Test::Name(needle) => root.is_some_and(|root| needle.is_in(&root.name)),
                Test::Trace(id) => trace_id.starts_with(id),
                Test::Group(id) => root.is_some_and(|root| root.group_id.as_ref() == Some(id)),
                Test::Status(wanted) => match status {
                    Some(status) => status == *wanted,
                    None => return true,
                },
                _ => return true,
            };
            holds != *negated
        })
    }

    /// For each term that the index of words can judge, what to ask it: words that a span must hold
    /// for the trace to match, in the language of SQLite's FTS5.
    pub(crate) fn indexed(&self) -> Vec<String> {
        let positive = self.terms.iter().filter(|term| !term.negated);
        let texts = positive.filter_map(|term| match &term.test {
            Test::Metadata(key, value) if value == "*" => Some([key, ""]),
            // What JSON escapes, the index has without escapes.
            Test::Metadata(key, value) if !value.contains('\\') => Some([key, value]),
            Test::Metadata(key, _) => Some([key, ""]),
            Test::Tag(tag) => Some(["tags", tag]),
            _ => None,
        });
        let queries = texts.map(|texts| {
            let words = texts.into_iter().flat_map(tokens).filter(|word| word.is_ascii());
            words.map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" AND ")
        });
        queries.filter(|query| !query.is_empty()).collect()
    }

    /// Whether the spans with these bodies may pass [`Query::matches`], by their text alone.
    pub(crate) fn may_be_in<'a>(&self, bodies: impl Iterator<Item = &'a str> + Clone) -> bool {
        self.terms.iter().filter(|term| !term.negated).all(|term| match &term.test {
            Test::Text(needle) | Test::Span(needle) => {
                bodies.clone().any(|body| needle.is_in_json(body))
            }
            Test::Metadata(key, _) => {
                let name = Needle::new(key.rsplit('.').next().unwrap_or(key));
                bodies.clone().any(|body| name.is_in_json(body))
            }
            _ => true,
        })
    }

    /// The tests that [`Query::may_match`] left. `spans` are all spans of the trace.
    pub(crate) fn matches(&self, summary: &Summary, spans: &[Record<'_>]) -> bool {
        let any = |test: &dyn Fn(&Record<'_>) -> bool| spans.iter().any(test);
        self.terms.iter().all(|Term { negated, test }| {
            let holds = match test {
                Test::Name(_) | Test::Trace(_) | Test::Group(_) => return true,
                Test::Status(wanted) => summary.status == *wanted,
                Test::Compare(figure, sign, than) => {
                    let value = figure.of(summary);
                    match sign {
                        Sign::Over => value > *than,
                        Sign::Under => value < *than,
                    }
                }
                Test::Span(needle) => any(&|span| needle.is_in(&span.name)),
                Test::Type(wanted) => any(&|span| span.span_type().eq_ignore_ascii_case(wanted)),
                Test::Tag(wanted) => any(&|span| span.tags().any(|tag| tag == wanted)),
                Test::Metadata(key, wanted) => {
                    any(&|span| span.find(key).is_some_and(|value| says(value, wanted)))
                }
                Test::Text(needle) => any(&|span| span.contains(needle)),
            };
            holds != *negated
        })
    }
}

impl Figure {
    fn of(self, summary: &Summary) -> f64 {
        match self {
            Self::DurationNs => summary.duration_ns() as f64,
            Self::Spans => summary.spans as f64,
            Self::Errors => summary.errors as f64,
            Self::Tokens => summary.tokens as f64,
            Self::Cost => summary.cost,
        }
    }
}

fn says(value: &Value, wanted: &str) -> bool {
    match value {
        _ if wanted == "*" => true,
        Value::String(text) => text.eq_ignore_ascii_case(wanted),
        Value::Array(values) => values.iter().any(|value| says(value, wanted)),
        other => {
            let json = other.to_string();
            json == wanted
        }
    }
}

/// Splits at blanks outside of double quotes; a quote within quotes is written `\"`.
fn read_terms(text: &str) -> Result<Vec<Term>, Refusal> {
    let mut terms = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (negated, after) = match rest.strip_prefix('-') {
            Some(after) if !after.is_empty() && !after.starts_with(' ') => (true, after),
            _ => (false, rest),
        };
        let key_length =
            after.find(|c: char| !(c.is_alphanumeric() || "._-".contains(c))).unwrap_or(0);
        let (key, value_text) = match after[key_length..].strip_prefix(':') {
            // A URL is a text.
            Some(value) if key_length > 0 && !value.starts_with("//") => {
                (Some(&after[..key_length]), value)
            }
            _ => (None, after),
        };
        let (value, after) = take_value(value_text);
        let test = match key {
            Some(key) => read_test(key, &value)?,
            None => Test::Text(Needle::new(&value)),
        };
        terms.push(Term { negated, test });
        rest = after.trim_start();
    }
    Ok(terms)
}

fn take_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

fn read_test(key: &str, value: &str) -> Result<Test, Refusal> {
    if value.is_empty() {
        return Err(Refusal::invalid(key, "needs a value after the colon; * stands for any"));
    }
    let figure = |figure, read: fn(&str) -> Option<f64>, example: &str| {
        let (sign, number) = match value.as_bytes()[0] {
            b'>' => (Sign::Over, &value[1..]),
            b'<' => (Sign::Under, &value[1..]),
            _ => (Sign::Over, ""),
        };
        let reason = || format!("takes > or < and a number, such as {key}:>{example}");
        let than = read(number).ok_or_else(|| Refusal::invalid(key, &reason()))?;
        Ok(Test::Compare(figure, sign, than))
    };
    let number = |text: &str| text.parse().ok().filter(|number: &f64| number.is_finite());
    let duration = |text: &str| Some(read_duration(text)?.as_nanos() as f64);
    match key {
        "name" => Ok(Test::Name(Needle::new(value))),
        "trace" | "id" => Ok(Test::Trace(value.to_owned())),
        "group" => Ok(Test::Group(value.to_owned())),
        "status" => read_status(value).map(Test::Status),
        "span" => Ok(Test::Span(Needle::new(value))),
        "type" => Ok(Test::Type(value.to_owned())),
        "tag" => Ok(Test::Tag(value.to_owned())),
        "duration" => figure(Figure::DurationNs, duration, "1.5s"),
        "spans" => figure(Figure::Spans, number, "100"),
        "errors" => figure(Figure::Errors, number, "0"),
        "tokens" => figure(Figure::Tokens, number, "1000"),
        "cost" => figure(Figure::Cost, number, "0.5"),
        _ => Ok(Test::Metadata(key.to_owned(), value.to_owned())),
    }
}

fn read_status(text: &str) -> Result<Status, Refusal> {
    match text.to_ascii_lowercase().as_str() {
        "ok" | "success" => Ok(Status::Success),
        "error" | "failed" => Ok(Status::Error),
        "canceled" | "cancelled" => Ok(Status::Canceled),
        "open" | "running" => Ok(Status::Open),
        "pending" => Ok(Status::Pending),
        _ => Err(Refusal::invalid("status", "must be ok, error, canceled, open or pending")),
    }
}

fn read_time(name: &str, text: &str) -> Result<i64, Refusal> {
    let time = text.parse::<Timestamp>();
    time.map(Timestamp::unix_ns).map_err(|error| Refusal::invalid(name, error.reason()))
}

/// Reads `850us`, `20ms`, `1.5s`, `15m`, `6h`, `7d`.
fn read_duration(text: &str) -> Option<Duration> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic())?;
    let number: f64 = text[..unit].parse().ok()?;
    let seconds = match &text[unit..] {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number * seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(text: &str) -> Result<Query, String> {
        let parameters = [("q".to_owned(), text.to_owned())];
        Query::parse(&parameters, 0).map_err(|refusal| refusal.detail().to_owned())
    }

    fn matches(query: &str, spans: &[Value]) -> bool {
        let query = parse(query).unwrap();
        let bodies: Vec<String> = spans.iter().map(Value::to_string).collect();
        let records: Vec<_> = bodies.iter().map(|body| Record::parse(body).unwrap()).collect();
        let times: Vec<_> = records.iter().map(|_| (0, Some(2_000_000_000))).collect();
        let summary = Summary::of(&records, &times);
        let root = records.iter().find(|record| record.parent_id.is_none());
        let matches = query.matches(&summary, &records);
        assert!(!matches || query.may_be_in(bodies.iter().map(String::as_str)));
        query.may_match("trace-7", root, Some(summary.status)) && matches
    }

    #[test]
    fn every_kind_of_term_tests_what_it_says() {
        let spans = [
            json!({"name": "Order", "id": "r", "status": "ERROR", "group_id": "g",
                "metadata": {"tenant": "Acme", "n": 7, "a": {"b": true}, "tags": ["beta"]}}),
            json!({"name": "charge card", "id": "c", "parent_id": "r", "type": "COMPLETION",
                "input": {"say": "hello \"world\""}, "metadata": {"usage": {"total_tokens": 9}}}),
        ];
        for query in [
            "",
            "name:order",
            "trace:trace-",
            "group:g",
            "status:error",
            "span:\"charge c\"",
            "type:completion",
            "tag:beta",
            "tenant:acme",
            "tenant:*",
            "n:7",
            "a.b:true",
            "hello WORLD",
            r#""\"world\"""#,
            "duration:>1.5s duration:<3s spans:>1 errors:>0 errors:<2 tokens:>8",
            "-name:charge -nothing -tenant:other status:failed",
        ] {
            assert!(matches(query, &spans), "{query}");
            if !query.is_empty() && !query.contains(' ') {
                assert!(!matches(&format!("-{query}"), &spans), "-{query}");
            }
        }
        for query in ["name:charge", "status:ok", "n:8", "x:*", "cost:>0", "http://x", "tokens:>9"]
        {
            assert!(!matches(query, &spans), "{query}");
        }
    }

    #[test]
    fn a_wrong_term_is_refused_with_what_it_takes() {
        for (query, part) in [
            ("status:green", "status must be ok, error"),
            ("duration:1s", "duration takes > or <"),
            ("duration:>fast", "such as duration:>1.5s"),
            ("spans:>many", "spans takes"),
            ("tenant:", "tenant needs a value"),
        ] {
            let detail = parse(query).unwrap_err();
            assert!(detail.contains(part), "{query}: {detail}");
        }
    }

    #[test]
    fn ranges_and_times_bound_the_start() {
        let parse = |name: &str, value: &str| {
            Query::parse(&[(name.to_owned(), value.to_owned())], 7_200_000_000_000)
        };
        assert_eq!(parse("range", "1h").unwrap().from_ns, Some(3_600_000_000_000));
        assert_eq!(parse("to", "1970-01-01T00:00:01Z").unwrap().to_ns, Some(1_000_000_000));
        assert_eq!(parse("from", "").unwrap(), Query::default());
        assert!(parse("range", "long").unwrap_err().detail().contains("15m"));
        assert!(parse("from", "today").unwrap_err().detail().starts_with("from must be"));
    }
}
