//! Spans of a request that stands in a file.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::{
    common::v1::{KeyValue, any_value},
    trace::v1::Span,
};
use serde_json::value::RawValue;

use super::span;
use crate::web::export::otlp::{INPUT, OUTPUT, Parts, SPAN};

/// The spans of a request in OTLP's JSON, as the API takes them: those that a collector has
/// exported as they were, others as `POST /v1/traces` would store them.
///
/// # Errors
///
/// Says what is wrong with the first that cannot be read.
pub(crate) fn spans(request: &str) -> Result<Vec<String>, String> {
    let request: ExportTraceServiceRequest = serde_json::from_str(request).map_err(|error| {
        format!("is no trace export of OTLP/JSON, at column {}", error.column())
    })?;
    let mut spans = Vec::new();
    for of_resource in request.resource_spans {
        let resource = of_resource.resource.unwrap_or_default();
        for of_scope in of_resource.scope_spans {
            let scope = of_scope.scope.unwrap_or_default();
            for span in of_scope.spans {
                spans.push(match restored(&span)? {
                    Some(span) => span,
                    None => {
                        let item = span::item(span, &scope, &resource);
                        let item = item.map_err(|refusal| refusal.detail())?;
                        serde_json::to_string(&item).map_err(|error| error.to_string())?
                    }
                });
            }
        }
    }
    Ok(spans)
}

/// The span that was exported, if a collector did that.
fn restored(span: &Span) -> Result<Option<String>, String> {
    let Some(kept) = text(&span.attributes, SPAN) else { return Ok(None) };
    let wrong = |what: &str| format!("has a span whose attribute {what} is not what was exported");
    let mut parts: Parts<'_> = serde_json::from_str(kept).map_err(|_| wrong(SPAN))?;
    for name in [INPUT, OUTPUT] {
        if let Some(part) = parts.get_mut(name)
            && part.get() == "null"
        {
            let text = text(&span.attributes, name).ok_or_else(|| wrong(name))?;
            *part = serde_json::from_str::<&RawValue>(text).map_err(|_| wrong(name))?;
        }
    }
    serde_json::to_string(&parts).map(Some).map_err(|_| wrong(SPAN))
}

/// The first attribute of this name, if it is a text.
fn text<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a str> {
    let attribute = attributes.iter().find(|attribute| attribute.key == name)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => Some(text),
        _ => None,
    }
}
