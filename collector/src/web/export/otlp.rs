use std::{borrow::Cow, collections::BTreeMap};

use serde_json::{Map, Value, json, value::RawValue};

use crate::web::{queries::Stored, record::Record};

const SCOPE: &str = "durable-spans";

/// Most spans of a request.
const REQUEST_SPANS: usize = 1_000;

/// The attributes of a span's input and output: JSON objects as text.
pub(crate) const INPUT: &str = "input";
pub(crate) const OUTPUT: &str = "output";

/// The attribute that holds all of a span, for import to read, but `null` where an attribute of its
/// own has the input or the output.
pub(crate) const SPAN: &str = "durable_spans.span";

/// The fields of a span, not a byte of which is changed.
pub(crate) type Parts<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

/// `ExportTraceServiceRequest`s in OTLP's JSON, on one line each.
///
/// OTLP's ids are 16 and 8 bytes. Ids of ours lose their upper half as span ids, others are hashed;
/// as they came they stand in the attributes `durable_spans.trace_id` and `durable_spans.span_id`.
/// A span that is open has no end. What OTLP cannot say is in the attribute [`SPAN`].
pub(super) fn write(spans: &[Stored]) -> String {
    spans.chunks(REQUEST_SPANS).map(request).collect()
}

fn request(spans: &[Stored]) -> String {
    let spans: Vec<Value> = spans.iter().filter_map(span).collect();
    let request = json!({ "resourceSpans": [{
        "resource": { "attributes": [attribute("service.name", &SCOPE.into())] },
        "scopeSpans": [{
            "scope": { "name": SCOPE, "version": env!("CARGO_PKG_VERSION") },
            "spans": spans,
        }],
    }]});
    format!("{request}\n")
}

fn span(stored: &Stored) -> Option<Value> {
    #[derive(serde::Deserialize)]
    struct OfTrace {
        trace_id: String,
    }
    let OfTrace { trace_id } = serde_json::from_str(&stored.body).ok()?;
    let record = Record::parse(&stored.body).ok()?;
    let mut attributes = vec![
        attribute("durable_spans.trace_id", &trace_id.as_str().into()),
        attribute("durable_spans.span_id", &record.id.as_ref().into()),
        attribute("durable_spans.type", &record.span_type().into()),
    ];
    if let Some(group_id) = &record.group_id {
        attributes.push(attribute("session.id", &group_id.as_str().into()));
    }
    for (name, part) in [(INPUT, record.input), (OUTPUT, record.output)] {
        if let Some(part) = part.filter(|part| is_told(part)) {
            attributes.push(attribute(name, &part.get().into()));
        }
    }
    attributes.push(attribute(SPAN, &all_but_told(&stored.body)?.into()));
    attributes.extend(record.metadata.iter().map(|(key, value)| attribute(key, value)));
    let mut status = Map::new();
    match record.status() {
        "ERROR" => {
            status.insert("code".into(), 2.into());
            let message = record.text("error_message").unwrap_or_default();
            status.insert("message".into(), message.into());
        }
        "CANCELED" => attributes.push(attribute("durable_spans.canceled", &true.into())),
        _ => {}
    }
    let mut span = json!({
        "traceId": trace_bytes(&trace_id),
        "spanId": span_bytes(&record.id),
        "name": record.name,
        "kind": 1,
        "startTimeUnixNano": stored.start_ns.to_string(),
        "attributes": attributes,
        "status": status,
    });
    if let Some(end_ns) = stored.end_ns {
        span["endTimeUnixNano"] = end_ns.to_string().into();
    }
    if let Some(parent_id) = &record.parent_id {
        span["parentSpanId"] = span_bytes(parent_id).into();
    }
    Some(span)
}

/// Whether it is worth an attribute.
fn is_told(part: &RawValue) -> bool {
    part.get() != "{}"
}

fn all_but_told(body: &str) -> Option<String> {
    let mut parts: Parts<'_> = serde_json::from_str(body).ok()?;
    // What every collector adds by itself.
    for name in ["account_id", "object", "input_tokens", "output_tokens"] {
        parts.remove(name);
    }
    for name in [INPUT, OUTPUT] {
        if let Some(part) = parts.get_mut(name)
            && is_told(part)
        {
            *part = RawValue::NULL;
        }
    }
    serde_json::to_string(&parts).ok()
}

fn attribute(key: &str, value: &Value) -> Value {
    let value = match value {
        Value::String(text) => json!({ "stringValue": text }),
        Value::Bool(flag) => json!({ "boolValue": flag }),
        Value::Number(number) => match number.as_i64() {
            // As text, as the rules of JSON for protobuf have it.
            Some(integer) => json!({ "intValue": integer.to_string() }),
            None => json!({ "doubleValue": number }),
        },
        other => json!({ "stringValue": other.to_string() }),
    };
    json!({ "key": key, "value": value })
}

fn trace_bytes(id: &str) -> String {
    let hex = id.replace('-', "");
    let hex = hex.strip_prefix("trace_").unwrap_or(&hex);
    if is_hex(hex, 32) { hex.to_ascii_lowercase() } else { format!("{:032x}", hash(id)) }
}

fn span_bytes(id: &str) -> String {
    let hex = id.replace('-', "").to_ascii_lowercase();
    if is_hex(&hex, 16) {
        hex
    } else if is_hex(&hex, 32) {
        hex[16..].to_owned()
    } else {
        format!("{:016x}", hash(id) as u64)
    }
}

/// Whether it is hex of that length, and not zero, which is no id.
fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length
        && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        && text.bytes().any(|byte| byte != b'0')
}

/// FNV-1a: the same in every export, and of nobody's secret.
fn hash(text: &str) -> u128 {
    let basis = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    let prime = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    text.bytes().fold(basis, |hash: u128, byte| (hash ^ u128::from(byte)).wrapping_mul(prime))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_becomes_a_span_of_opentelemetry() {
        let body = r#"{"name":"n","id":"d7b120b6-aaee-4219-a7ce-b3252a18c3fa","parent_id":"span_x",
            "trace_id":"c58c5e1e-bcff-46d8-81c5-4dc1a5fdafea","status":"ERROR","input":{"a":1},
            "metadata":{"error_message":"boom","n":7,"f":0.5,"list":[1]}}"#;
        let stored = Stored { body: body.into(), start_ns: 5, end_ns: None };
        let request: Value = serde_json::from_str(&write(&[stored])).unwrap();
        let span = &request["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
        assert_eq!(span["traceId"], "c58c5e1ebcff46d881c54dc1a5fdafea");
        assert_eq!(span["spanId"], "a7ceb3252a18c3fa");
        assert_eq!(span["parentSpanId"], span_bytes("span_x"));
        assert_eq!(span["startTimeUnixNano"], "5");
        assert_eq!(span.get("endTimeUnixNano"), None);
        assert_eq!(span["status"], json!({"code": 2, "message": "boom"}));
        let value = |key: &str| {
            let attributes = span["attributes"].as_array().unwrap();
            attributes.iter().find(|one| one["key"] == key).unwrap()["value"].clone()
        };
        assert_eq!(value("n"), json!({"intValue": "7"}));
        assert_eq!(value("f"), json!({"doubleValue": 0.5}));
        assert_eq!(value("list"), json!({"stringValue": "[1]"}));
        assert_eq!(value("input"), json!({"stringValue": "{\"a\":1}"}));
    }

    #[test]
    fn ids_of_any_kind_become_ids_of_opentelemetry() {
        assert_eq!(trace_bytes("trace_0E1b9cd342ae48548dcf52ca2c4c6bcd").len(), 32);
        assert!(trace_bytes("trace_0E1b9cd342ae48548dcf52ca2c4c6bcd").starts_with("0e1b"));
        assert_eq!(span_bytes("00f067aa0ba902b7"), "00f067aa0ba902b7");
        for id in ["x", "é", "00000000-0000-0000-0000-000000000000"] {
            assert!(is_hex(&trace_bytes(id), 32) && is_hex(&span_bytes(id), 16), "{id}");
        }
    }
}
