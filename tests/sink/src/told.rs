use std::io::Read;

use anyhow::{Context, Result};
use durable_spans_model::{SpanId, TraceId};
use flate2::read::GzDecoder;
use hyper::{
    Method,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
    http::request::Parts,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, trace::v1::Span as OtlpSpan,
};
use prost::Message;
use serde_json::{Value, json};

/// What the span of an activity's attempt says of itself.
const ATTEMPT: &str = "activity_attempt";

/// What a request tells of spans, in the form of any of the clients that a collector listens to.
pub(crate) enum Told {
    /// A list under this name: SGP's `items`, OpenAI's `data`.
    List(&'static str, Vec<Value>),
    /// One span, created or finished, as Opper's clients speak.
    One(Value),
    /// A trace export of OpenTelemetry, in protobuf.
    Otlp(ExportTraceServiceRequest),
    /// Nothing: the request only reads.
    Nothing,
}

impl Told {
    pub(crate) fn read(head: &Parts, body: &[u8]) -> Result<Self> {
        if head.method == Method::GET {
            return Ok(Self::Nothing);
        }
        let mut bytes = Vec::new();
        if head.headers.contains_key(CONTENT_ENCODING) {
            GzDecoder::new(body).read_to_end(&mut bytes)?;
        } else {
            bytes.extend_from_slice(body);
        }
        let content_type = head.headers.get(CONTENT_TYPE);
        if content_type.is_some_and(|kind| kind == "application/x-protobuf") {
            return Ok(Self::Otlp(ExportTraceServiceRequest::decode(&bytes[..])?));
        }
        let mut body: Value = serde_json::from_slice(&bytes).context("a body is no JSON")?;
        for list in ["items", "data"] {
            if let Value::Array(spans) = &mut body[list] {
                return Ok(Self::List(list, std::mem::take(spans)));
            }
        }
        Ok(Self::One(body))
    }

    /// The same request with what is left of it.
    pub(crate) fn write(&self) -> Vec<u8> {
        match self {
            Self::List(list, spans) => json!({ *list: spans }).to_string().into_bytes(),
            Self::One(span) => span.to_string().into_bytes(),
            Self::Otlp(export) => export.encode_to_vec(),
            Self::Nothing => Vec::new(),
        }
    }

    pub(crate) fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::List(_, spans) => spans.len(),
            Self::One(_) => 1,
            Self::Otlp(export) => otlp_spans(export).count(),
            Self::Nothing => 0,
        }
    }

    /// Leaves the first half. Of one span, that span.
    pub(crate) fn halve(&mut self) {
        let half = self.len().div_ceil(2);
        match self {
            Self::List(_, spans) => spans.truncate(half),
            Self::Otlp(export) => {
                let mut left = half;
                let all = &mut export.resource_spans;
                for spans in all.iter_mut().flat_map(|spans| &mut spans.scope_spans) {
                    spans.spans.truncate(left);
                    left -= spans.spans.len();
                }
            }
            Self::One(_) | Self::Nothing => {}
        }
    }

    pub(crate) fn has_name(&self, name: &str) -> bool {
        let is_it = |span: &Value| span["name"] == name || span["span_data"]["name"] == name;
        match self {
            Self::List(_, spans) => spans.iter().any(is_it),
            Self::One(span) => is_it(span),
            Self::Otlp(export) => otlp_spans(export).any(|span| span.name == name),
            Self::Nothing => false,
        }
    }

    /// Whether all of it are spans of attempts, which do not come from a workflow.
    pub(crate) fn is_of_attempts(&self) -> bool {
        let is_attempt = |span: &Value| span.to_string().contains(&format!("\"{ATTEMPT}\""));
        match self {
            // OpenAI's list holds what the trace is called, too.
            Self::List(_, spans) => {
                spans.iter().filter(|span| span["object"] != "trace").all(is_attempt)
            }
            Self::One(span) => is_attempt(span),
            Self::Otlp(export) => otlp_spans(export).all(is_otlp_attempt),
            Self::Nothing => true,
        }
    }

    /// Trace and id of each span, where a backend of OpenTelemetry may keep every copy of it.
    pub(crate) fn otlp_ids(&self) -> Vec<(TraceId, SpanId)> {
        let Self::Otlp(export) = self else { return Vec::new() };
        let id = |span: &OtlpSpan| {
            Some((hex(&span.trace_id).parse().ok()?, hex(&span.span_id).parse().ok()?))
        };
        otlp_spans(export).filter_map(id).collect()
    }
}

fn otlp_spans(export: &ExportTraceServiceRequest) -> impl Iterator<Item = &OtlpSpan> {
    export.resource_spans.iter().flat_map(|of| &of.scope_spans).flat_map(|of| &of.spans)
}

fn is_otlp_attempt(span: &OtlpSpan) -> bool {
    use opentelemetry_proto::tonic::common::v1::any_value::Value::StringValue;
    let values = span.attributes.iter().filter_map(|attribute| attribute.value.as_ref());
    values.filter_map(|value| value.value.as_ref()).any(|value| match value {
        StringValue(text) => text == ATTEMPT,
        _ => false,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
