use durable_spans_model::{Span, SpanType};
use serde_json::{Map, Value};

use super::shape::{Place, Row};

/// What stands in an expected line for further children, and for a value that does not matter.
const ANYTHING: [&str; 2] = ["…", "..."];

/// Whether the text is the one for further children.
pub(super) fn is_anything(text: &str) -> bool {
    ANYTHING.contains(&text)
}

/// What a line says of a span: its name, then columns, then data.
pub(super) struct Line<'a> {
    span: &'a Span,
    label: String,
    place: Option<&'static str>,
}

impl<'a> Line<'a> {
    pub(super) fn of(row: &Row<'a>) -> Self {
        let place = match row.place {
            Place::UnderItsParent | Place::Root => None,
            Place::ParentElsewhere => Some("(parent elsewhere)"),
            Place::Cycle => Some("(cycle)"),
        };
        Self { span: row.span, label: label(&row.span.name), place }
    }

    /// The line without its indent. The default type is left out.
    pub(super) fn short(&self, fields: &[String]) -> String {
        self.text(Some(self.span.span_type).filter(|it| *it != SpanType::default()), fields)
    }

    /// The line without its indent, with all columns.
    pub(super) fn full(&self, fields: &[String]) -> String {
        self.text(Some(self.span.span_type), fields)
    }

    fn text(&self, span_type: Option<SpanType>, fields: &[String]) -> String {
        let mut text = self.label.clone();
        let columns = [span_type.map(SpanType::as_str), Some(self.status()), self.kind()];
        for column in columns.into_iter().flatten().chain(self.place) {
            text.push(' ');
            text.push_str(column);
        }
        for field in fields {
            if let Some(mut value) = value_of(self.span, field).filter(|value| !is_nothing(value)) {
                // As cargo's features happen to be, objects keep the order in which they were filled.
                value.sort_all_objects();
                text.push_str(&format!(" {field}={value}"));
            }
        }
        text
    }

    fn status(&self) -> &'static str {
        match self.span.end_timestamp {
            Some(_) => self.span.status.as_str(),
            None => "open",
        }
    }

    fn kind(&self) -> Option<&'a str> {
        self.span.metadata.get("temporal.kind").and_then(Value::as_str)
    }

    /// Whether the line says what is expected: the name, and as many columns and data as one cares
    /// for, in any order.
    pub(super) fn meets(&self, expected: &str) -> bool {
        expected.strip_prefix(self.label.as_str()).is_some_and(|rest| self.has(rest))
    }

    fn has(&self, rest: &str) -> bool {
        let columns = rest.trim_start();
        if columns.is_empty() {
            return true;
        }
        if columns.len() == rest.len() {
            return false;
        }
        let known = [Some(self.span.span_type.as_str()), Some(self.status()), self.kind()];
        let known = known.into_iter().chain([self.place]).flatten();
        let mut rests = known.filter_map(|column| columns.strip_prefix(column));
        rests.any(|rest| self.has(rest))
            || self.after_data(columns).is_some_and(|rest| self.has(rest))
    }

    /// What follows the data that the text begins with, if the span has it so.
    fn after_data<'t>(&self, text: &'t str) -> Option<&'t str> {
        let (field, expected) = text.split_once('=')?;
        let value = value_of(self.span, field)?;
        if let Some(rest) = ANYTHING.iter().find_map(|any| expected.strip_prefix(any)) {
            return Some(rest);
        }
        let mut json = serde_json::Deserializer::from_str(expected).into_iter::<Value>();
        let is_equal = json.next()?.ok()? == value;
        is_equal.then(|| &expected[json.byte_offset()..])
    }
}

/// The data that an expected text speaks of.
pub(super) fn fields_in(text: &str) -> impl Iterator<Item = &str> {
    let fields = text.split_whitespace().filter_map(|word| Some(word.split_once('=')?.0));
    fields.filter(|field| is_field(field))
}

/// Whether the text names data of a span: `input`, `output` or `metadata`, or what they hold.
pub(super) fn is_field(field: &str) -> bool {
    ["input", "output", "metadata"].contains(&field.split('.').next().unwrap_or_default())
}

fn is_nothing(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty)
}

fn value_of(span: &Span, field: &str) -> Option<Value> {
    let (data, path) = match field.split_once('.') {
        Some((data, path)) => (data, Some(path)),
        None => (field, None),
    };
    let data = match data {
        "input" => &span.input,
        "output" => &span.output,
        "metadata" => &span.metadata,
        _ => return None,
    };
    match path {
        Some(path) => within(&|name| data.get(name), path).cloned(),
        None => Some(data.clone().into()),
    }
}

/// Names may hold dots, too.
fn within<'a>(get: &dyn Fn(&str) -> Option<&'a Value>, path: &str) -> Option<&'a Value> {
    get(path).or_else(|| {
        path.match_indices('.').find_map(|(dot, _)| {
            let inner = get(&path[..dot])?.as_object()?;
            within(&|name| inner.get(name), &path[dot + 1..])
        })
    })
}

/// A name on one line, and without blanks that could be taken for an indent.
fn label(name: &str) -> String {
    let mut label = String::new();
    for c in name.trim().chars() {
        match c.is_control() {
            true => label.extend(c.escape_default()),
            false => label.push(c),
        }
    }
    label
}

#[cfg(test)]
mod tests {
    use durable_spans_model::{SpanStatus, Timestamp};
    use serde_json::json;

    use super::*;
    use crate::testing::shape::rows;

    fn pay() -> Span {
        let at = Timestamp::from_unix_ns(0);
        let mut span = Span::new("t".parse().unwrap(), "a".parse().unwrap(), "pay the bill", at);
        span.input.insert("amount".into(), 7.into());
        span.output.insert("usage".into(), json!({"tokens": 12, "by model": {"a.b": "c d"}}));
        span.metadata.insert("temporal.kind".into(), "activity".into());
        span.end_timestamp = Some(at);
        span.status = SpanStatus::Error;
        span
    }

    fn meets(expected: &str) -> bool {
        let spans = [pay()];
        Line::of(&rows(&spans)[0]).meets(expected)
    }

    #[test]
    fn a_line_gives_the_name_and_as_many_columns_as_one_cares_for() {
        for met in [
            "pay the bill",
            "pay the bill ERROR",
            "pay the bill STANDALONE ERROR activity",
            "pay the bill activity  ERROR",
            "pay the bill input.amount=7 ERROR",
            r#"pay the bill output={"usage": {"by model": {"a.b": "c d"}, "tokens": 12}}"#,
            r#"pay the bill output.usage.by model.a.b="c d" activity"#,
            "pay the bill output.usage=… metadata.temporal.kind=...",
        ] {
            assert!(meets(met), "{met}");
        }
        for not_met in [
            "pay",
            "pay the bill SUCCESS",
            "pay the bill ERRO",
            "pay the bill ERRORS",
            "pay the billERROR",
            "pay the bill open",
            "pay the bill input.amount=70",
            "pay the bill input.amount=7.5",
            "pay the bill input.amount=",
            "pay the bill input.price=…",
            "pay the bill (parent elsewhere)",
        ] {
            assert!(!meets(not_met), "{not_met}");
        }
    }

    #[test]
    fn a_line_shows_the_fields_that_one_asks_for() {
        let spans = [pay()];
        let rows = rows(&spans);
        let line = Line::of(&rows[0]);
        assert_eq!(line.short(&[]), "pay the bill ERROR activity");
        let fields = ["input.amount".to_owned(), "input.none".to_owned(), "output".to_owned()];
        assert_eq!(
            line.full(&fields),
            "pay the bill STANDALONE ERROR activity input.amount=7 \
             output={\"usage\":{\"by model\":{\"a.b\":\"c d\"},\"tokens\":12}}"
        );
        assert!(line.meets(&line.full(&fields)));
    }

    #[test]
    fn a_name_stays_on_its_line() {
        assert_eq!(label(" a\nb "), "a\\nb");
    }
}
