use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, value::RawValue};

use crate::web::{queries::Stored, record::Record};

/// Longest text within a value, in characters.
const MAX_TEXT_CHARS: usize = 2_000;

/// Metadata that the tree says itself, or that tells a reader nothing.
const LEFT_OUT: &[&str] = &[
    "error",
    "error_message",
    "error_category",
    "temporal.run_id",
    "temporal.activity_id",
    "temporal.kind",
];

/// One JSON object per top span, children within, empty parts left out, long texts cut: as few
/// tokens as tell what happened.
pub(super) fn write(spans: &[Stored]) -> String {
    let records: Vec<(Record<'_>, &Stored)> =
        spans.iter().filter_map(|span| Some((Record::parse(&span.body).ok()?, span))).collect();
    let known: HashSet<&str> = records.iter().map(|(record, _)| &*record.id).collect();
    let mut children: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut tops = Vec::new();
    for (at, (record, _)) in records.iter().enumerate() {
        match record.parent_id.as_deref().filter(|id| known.contains(id)) {
            Some(parent) => children.entry(parent).or_default().push(at),
            None => tops.push(at),
        }
    }
    let base_ns = spans.first().map_or(0, |span| span.start_ns);
    // Children before parents, without recursion: traces may be deep.
    let mut order = tops.clone();
    let mut next = 0;
    while let Some(at) = order.get(next).copied() {
        order.extend(children.get(&*records[at].0.id).into_iter().flatten());
        next += 1;
    }
    let mut done: HashMap<usize, Value> = HashMap::new();
    for at in order.into_iter().rev() {
        let (record, stored) = &records[at];
        let mut object = object(record, stored, base_ns);
        let below = children.get(&*record.id).into_iter().flatten();
        let below: Vec<Value> = below.filter_map(|child| done.remove(child)).collect();
        if !below.is_empty() {
            object.insert("children".into(), below.into());
        }
        done.insert(at, object.into());
    }
    let mut tops: Vec<Value> = tops.iter().filter_map(|at| done.remove(at)).collect();
    match tops.len() {
        1 => tops.remove(0).to_string(),
        _ => Value::from(tops).to_string(),
    }
}

fn object(record: &Record<'_>, stored: &Stored, base_ns: i64) -> Map<String, Value> {
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
    put("name", record.name.as_ref().into());
    if record.span_type() != "STANDALONE" {
        put("type", record.span_type().into());
    }
    let ms = |ns: i64| Value::from(ns as f64 / 1e6);
    put("at_ms", ms(stored.start_ns.saturating_sub(base_ns)));
    match stored.end_ns {
        Some(end_ns) => put("took_ms", ms(end_ns.saturating_sub(stored.start_ns))),
        None => put("open", true.into()),
    };
    if record.status() != "SUCCESS" {
        put("status", record.status().into());
        if let Some(message) = record.text("error_message") {
            put("error", shorten(message.into()));
        }
    }
    for (name, part) in [("input", record.input), ("output", record.output)] {
        if let Some(value) = part.and_then(read) {
            put(name, value);
        }
    }
    let left = record.metadata.iter().filter(|(key, _)| !LEFT_OUT.contains(&key.as_str()));
    let metadata: Map<String, Value> =
        left.map(|(key, value)| (key.clone(), shorten(value.clone()))).collect();
    if !metadata.is_empty() {
        put("metadata", metadata.into());
    }
    object
}

/// `None` for what is empty.
fn read(part: &RawValue) -> Option<Value> {
    let values: Map<String, Value> = serde_json::from_str(part.get()).ok()?;
    (!values.is_empty()).then(|| shorten(values.into()))
}

fn shorten(mut value: Value) -> Value {
    match &mut value {
        Value::String(text) => {
            if let Some((end, _)) = text.char_indices().nth(MAX_TEXT_CHARS) {
                let bytes = text.len();
                text.truncate(end);
                text.push_str(&format!("… (cut, {bytes} bytes)"));
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| *value = shorten(value.take())),
        Value::Object(values) => {
            values.values_mut().for_each(|value| *value = shorten(value.take()));
        }
        _ => {}
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn stored(span: Value, start_ms: i64, end_ms: Option<i64>) -> Stored {
        Stored {
            body: span.to_string(),
            start_ns: start_ms * 1_000_000,
            end_ns: end_ms.map(|ms| ms * 1_000_000),
        }
    }

    #[test]
    fn a_subtree_is_nested_and_says_no_more_than_it_must() {
        let spans = [
            stored(
                json!({"name": "a", "id": "a", "parent_id": "above", "type": "CUSTOM",
                "input": {}, "metadata": {"temporal.kind": "workflow", "tenant": "x"}}),
                5,
                Some(9),
            ),
            stored(
                json!({"name": "b", "id": "b", "parent_id": "a", "status": "ERROR",
                "metadata": {"error_message": "boom"}, "output": {"text": "é".repeat(3000)}}),
                6,
                None,
            ),
        ];
        let text = write(&spans);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            value["children"][0]["output"]["text"],
            format!("{}… (cut, 6000 bytes)", "é".repeat(2000))
        );
        let mut rest = value;
        rest["children"][0]["output"] = Value::Null;
        assert_eq!(
            rest,
            json!({"name": "a", "type": "CUSTOM", "at_ms": 0.0, "took_ms": 4.0,
                "metadata": {"tenant": "x"}, "children": [
                    {"name": "b", "at_ms": 1.0, "open": true, "status": "ERROR", "error": "boom",
                     "output": null}]})
        );
    }
}
