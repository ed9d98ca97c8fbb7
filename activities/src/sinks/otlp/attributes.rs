//! Our span as one of OpenTelemetry.

use durable_spans_model::{Fields, Span, SpanStatus, SpanType, Timestamp};
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, ArrayValue, KeyValue, any_value},
    trace::v1::{Span as OtlpSpan, Status, span, status},
};
use serde_json::Value;

use super::genai;
use crate::sinks::ids;

/// What backends call inputs and outputs, and the kinds of spans that they know.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dialect {
    pub(super) input: &'static str,
    pub(super) output: &'static str,
    /// The attribute for the kind of a span, and what it says of each kind.
    pub(super) kind: (&'static str, fn(genai::Kind) -> &'static str),
}

pub(super) fn otlp_span(span: &Span, dialect: Dialect) -> OtlpSpan {
    let start = unix_nano(span.start_timestamp);
    let end = span.end_timestamp.map_or(start, unix_nano).max(start);
    let parent = span.parent_id.as_ref();
    let kind = match (genai::kind(span), span.span_type) {
        (genai::Kind::Model, _) | (_, SpanType::KbRetrieval | SpanType::ExternalEndpoint) => {
            span::SpanKind::Client
        }
        _ => span::SpanKind::Internal,
    };
    OtlpSpan {
        trace_id: ids::trace_bits(&span.trace_id).to_be_bytes().to_vec(),
        span_id: ids::span_low_bits(&span.id).to_be_bytes().to_vec(),
        parent_span_id: parent
            .map(|id| ids::span_low_bits(id).to_be_bytes().to_vec())
            .unwrap_or_default(),
        name: span.name.to_string(),
        kind: kind.into(),
        start_time_unix_nano: start,
        end_time_unix_nano: end,
        attributes: attributes(span, dialect),
        events: events(span).unwrap_or_default().into_iter().chain(exception(span, end)).collect(),
        links: links(span),
        status: status(span),
        ..OtlpSpan::default()
    }
}

/// Times before 1970 cannot be told.
fn unix_nano(time: Timestamp) -> u64 {
    u64::try_from(time.unix_ns()).unwrap_or(0)
}

/// Only errors have a status: for whatever else happened, OpenTelemetry leaves it unset.
fn status(span: &Span) -> Option<Status> {
    (span.status == SpanStatus::Error).then(|| Status {
        message: text(span, "error_message").unwrap_or_default().to_owned(),
        code: status::StatusCode::Error.into(),
    })
}

/// To the run before, where each run of a chain has a trace of its own, and to the span of another
/// tracing system that this one ran in.
fn links(span: &Span) -> Vec<span::Link> {
    let link = |trace_id: &str, span_id: &str| {
        let (trace_id, span_id) = (trace_id.parse().ok()?, span_id.parse().ok()?);
        Some(span::Link {
            trace_id: ids::trace_bits(&trace_id).to_be_bytes().to_vec(),
            span_id: ids::span_low_bits(&span_id).to_be_bytes().to_vec(),
            ..span::Link::default()
        })
    };
    let previous = text(span, "temporal.previous_trace_id");
    let previous = previous.zip(text(span, "temporal.previous_span_id"));
    let observed = span.obs_trace_id.as_deref().zip(span.obs_span_id.as_deref());
    let linked = previous.into_iter().chain(observed);
    linked.filter_map(|(trace_id, span_id)| link(trace_id, span_id)).collect()
}

/// What happened within the span, by [`Span::add_event`]. `None` if anything else has that name in the
/// metadata.
fn events(span: &Span) -> Option<Vec<span::Event>> {
    let event = |event: &Value| {
        let event = event.as_object()?;
        let time: Timestamp = event.get("timestamp")?.as_str()?.parse().ok()?;
        let own = |name: &str| name != "name" && name != "timestamp";
        let attributes = event.iter().filter(|(name, value)| own(name) && !value.is_null());
        Some(span::Event {
            time_unix_nano: unix_nano(time),
            name: event.get("name")?.as_str()?.to_owned(),
            attributes: attributes.map(|(name, value)| of_value(name, any_value(value))).collect(),
            ..span::Event::default()
        })
    };
    span.metadata.get("events")?.as_array()?.iter().map(event).collect()
}

fn exception(span: &Span, time_unix_nano: u64) -> Option<span::Event> {
    let message = text(span, "error_message")?;
    let mut attributes = vec![attribute("exception.message", message)];
    if let Some(error_type) = text(span, "error_type") {
        attributes.push(attribute("exception.type", error_type));
    }
    Some(span::Event {
        time_unix_nano,
        name: "exception".to_owned(),
        attributes,
        ..span::Event::default()
    })
}

fn attributes(span: &Span, dialect: Dialect) -> Vec<KeyValue> {
    let (kind_name, kind_of) = dialect.kind;
    let mut attributes = vec![
        attribute("sgp.span_type", span.span_type.as_str()),
        attribute(kind_name, kind_of(genai::kind(span))),
    ];
    for (name, value) in [(dialect.input, &span.input), (dialect.output, &span.output)] {
        if !value.is_empty() {
            attributes.push(attribute(name, json(value)));
            if let Some(base) = name.strip_suffix(".value") {
                attributes.push(attribute(format!("{base}.mime_type"), "application/json"));
            }
        }
    }
    if let Some(group_id) = &span.group_id {
        attributes.push(attribute("session.id", &**group_id));
    }
    if span.status == SpanStatus::Canceled {
        attributes.push(attribute("durable_spans.status", "CANCELED"));
    }
    if let Some(error_type) = text(span, "error_type") {
        attributes.push(attribute("error.type", error_type));
    }
    attributes.extend(genai::attributes(span));
    let has_events = events(span).is_some();
    for (name, value) in span.metadata.iter() {
        let told = match name {
            // Told above, in OpenTelemetry's own words.
            "error" | "error_type" | "error_message" => true,
            "events" => has_events,
            name => attributes.iter().any(|told| told.key == name),
        };
        if told || value.is_null() {
            continue;
        }
        match value {
            // One by one, so that a backend can compare and sum them.
            Value::Object(metrics) if name == "metrics" => {
                let metrics = metrics.iter().filter(|(_, value)| !value.is_null());
                attributes.extend(
                    metrics.map(|(name, value)| {
                        of_value(&format!("metrics.{name}"), any_value(value))
                    }),
                );
            }
            value => attributes.push(of_value(&metadata_name(name), any_value(value))),
        }
    }
    attributes
}

/// A name with a dot says whose it is (`temporal.attempt`); any other could mean something else to
/// OpenTelemetry.
fn metadata_name(name: &str) -> String {
    if name.contains('.') { name.to_owned() } else { format!("metadata.{name}") }
}

/// Scalars and lists of text as what they are; anything else as JSON, since few backends show more.
pub(super) fn any_value(value: &Value) -> AnyValue {
    let text = |value: &Value| value.as_str().map(|text| of_text(text.to_owned()));
    let value = match value {
        Value::Bool(value) => any_value::Value::BoolValue(*value),
        Value::Number(number) => match number.as_i64() {
            Some(number) => any_value::Value::IntValue(number),
            None => any_value::Value::DoubleValue(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => any_value::Value::StringValue(text.clone()),
        Value::Array(values) if !values.is_empty() && values.iter().all(Value::is_string) => {
            let values = values.iter().filter_map(text).collect();
            any_value::Value::ArrayValue(ArrayValue { values })
        }
        other => any_value::Value::StringValue(other.to_string()),
    };
    AnyValue { value: Some(value) }
}

pub(super) fn attribute(name: impl Into<String>, text: impl Into<String>) -> KeyValue {
    KeyValue { value: Some(of_text(text.into())), ..named(name.into()) }
}

pub(super) fn of_value(name: &str, value: AnyValue) -> KeyValue {
    KeyValue { value: Some(value), ..named(name.to_owned()) }
}

fn named(key: String) -> KeyValue {
    KeyValue { key, ..KeyValue::default() }
}

fn of_text(text: String) -> AnyValue {
    AnyValue { value: Some(any_value::Value::StringValue(text)) }
}

pub(super) fn json(values: &Fields) -> String {
    serde_json::to_string(values).unwrap_or_default()
}

fn text<'a>(span: &'a Span, name: &str) -> Option<&'a str> {
    span.metadata.get(name)?.as_str()
}
