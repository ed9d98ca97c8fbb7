//! A span of OpenTelemetry as one of SGP.

use std::borrow::Cow;

use durable_spans_model::{SpanStatus, Timestamp};
use opentelemetry_proto::tonic::{
    common::v1::InstrumentationScope,
    resource::v1::Resource,
    trace::v1::{
        Span,
        span::{Event, Link, SpanKind},
        status::StatusCode,
    },
};
use serde_json::{Map, Value, json};

use crate::{
    item::{Item, Object, Text},
    otlp::{convention, value},
    refusal::Refusal,
};

/// What stands in for an empty name, which SGP does not take.
const NO_NAME: &str = "(no name)";

/// The attributes become metadata under their own names, and what else there is goes under `otel`.
///
/// # Errors
///
/// For ids and times that OTLP itself calls invalid.
pub(super) fn item(
    span: Span,
    scope: &InstrumentationScope,
    resource: &Resource,
) -> Result<Item<'static>, Refusal> {
    let trace_id = id("traceId", &span.trace_id, 16)?;
    let span_id = id("spanId", &span.span_id, 8)?;
    let is_root = span.parent_span_id.iter().all(|byte| *byte == 0);
    let parent_id = if is_root { None } else { Some(id("parentSpanId", &span.parent_span_id, 8)?) };
    let start = time("startTimeUnixNano", span.start_time_unix_nano)?;
    // A span that is sent has ended as a rule; one that has not has no end.
    let end = match span.end_time_unix_nano {
        0 => None,
        ns => Some(time("endTimeUnixNano", ns)?),
    };
    let kind = span.kind();
    let status = span.status.clone().unwrap_or_default();
    let failed = status.code() == StatusCode::Error;

    let mut metadata = value::map(span.attributes);
    let span_type = convention::span_type(&metadata, kind);
    let group_id = convention::group_id(&metadata);
    let (input, output) = convention::take_input_and_output(&mut metadata);
    let events: Vec<Value> = span.events.into_iter().map(event).collect();
    if failed {
        set_error(&mut metadata, &status.message, &events);
    }
    let otel = json!({
        "kind": kind_name(kind),
        "scope": scope.name,
        "scope_version": scope.version,
        "scope_attributes": value::map(scope.attributes.clone()),
        "resource": value::map(resource.attributes.clone()),
        "trace_state": span.trace_state,
        "events": events,
        "links": span.links.into_iter().map(link).collect::<Vec<_>>(),
        "dropped_attributes": span.dropped_attributes_count,
        "dropped_events": span.dropped_events_count,
        "dropped_links": span.dropped_links_count,
    });
    metadata.insert("otel".to_owned(), without_empty(otel));

    let text = |text: String| Text(Cow::Owned(text));
    let mut item = Item::default();
    item.name = text(if span.name.is_empty() { NO_NAME.to_owned() } else { span.name });
    item.id = Some(text(span_id));
    item.trace_id = text(trace_id);
    item.parent_id = parent_id.map(text);
    item.start_timestamp = text(start);
    item.end_timestamp = end.map(text);
    item.status = failed.then(|| text(SpanStatus::Error.as_str().to_owned()));
    item.span_type = Some(text(span_type.as_str().to_owned()));
    item.group_id = group_id.map(text);
    item.input = object(input)?;
    item.output = object(output)?;
    item.metadata = object(metadata)?;
    Ok(item)
}

fn id(field: &str, bytes: &[u8], length: usize) -> Result<String, Refusal> {
    if bytes.len() == length && bytes.iter().any(|byte| *byte != 0) {
        return Ok(value::hex(bytes));
    }
    Err(Refusal::invalid(field, &format!("must be {length} bytes, not all of them zero")))
}

fn time(field: &str, ns: u64) -> Result<String, Refusal> {
    match i64::try_from(ns) {
        Ok(ns) if ns > 0 => Ok(Timestamp::from_unix_ns(ns).to_string()),
        _ => Err(Refusal::invalid(field, "must be a time after 1970 and before 2262")),
    }
}

/// The metadata that SGP shows for an error. An exception that was recorded says more than the
/// status.
fn set_error(metadata: &mut Map<String, Value>, message: &str, events: &[Value]) {
    let exception = events.iter().rev().find(|event| event["name"] == "exception");
    let of_exception = |key: &str| exception?["attributes"][key].as_str().map(str::to_owned);
    let error_type = of_exception("exception.type")
        .or_else(|| Some(metadata.get("error.type")?.as_str()?.to_owned()));
    let message = Some(message.to_owned()).filter(|message| !message.is_empty());
    let message = message.or_else(|| of_exception("exception.message"));
    metadata.insert("error".to_owned(), true.into());
    metadata.insert("error_type".to_owned(), error_type.unwrap_or("Error".to_owned()).into());
    metadata.insert("error_message".to_owned(), message.unwrap_or_default().into());
    metadata.insert("error_category".to_owned(), "unknown".into());
}

fn event(event: Event) -> Value {
    without_empty(json!({
        "name": event.name,
        "time": i64::try_from(event.time_unix_nano).map_or(Value::Null, |ns| {
            Timestamp::from_unix_ns(ns).to_string().into()
        }),
        "attributes": value::map(event.attributes),
        "dropped_attributes": event.dropped_attributes_count,
    }))
}

fn link(link: Link) -> Value {
    without_empty(json!({
        "trace_id": value::hex(&link.trace_id),
        "span_id": value::hex(&link.span_id),
        "trace_state": link.trace_state,
        "attributes": value::map(link.attributes),
        "dropped_attributes": link.dropped_attributes_count,
    }))
}

fn kind_name(kind: SpanKind) -> &'static str {
    match kind {
        SpanKind::Unspecified => "",
        SpanKind::Internal => "internal",
        SpanKind::Server => "server",
        SpanKind::Client => "client",
        SpanKind::Producer => "producer",
        SpanKind::Consumer => "consumer",
    }
}

fn without_empty(value: Value) -> Value {
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Number(number) => number.as_u64() == Some(0),
        Value::Bool(_) => false,
    };
    match value {
        Value::Object(mut fields) => {
            fields.retain(|_, value| !is_empty(value));
            fields.into()
        }
        other => other,
    }
}

fn object(fields: Map<String, Value>) -> Result<Object<'static>, Refusal> {
    if fields.is_empty() {
        return Ok(None);
    }
    let raw = serde_json::value::to_raw_value(&fields).map_err(Refusal::corrupt)?;
    Ok(Some(Cow::Owned(raw)))
}
