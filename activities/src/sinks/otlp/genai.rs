//! What language models and agents did, by OpenTelemetry's conventions for generative AI.
//!
//! The data is found where SGP's own tracing puts it: in the metadata `openai_metadata`, or in the
//! metadata itself, under the names `model`, `usage` and so on.

use durable_spans_model::{Span, SpanType};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use serde_json::{Map, Value, json};

use super::attributes::{any_value, attribute, number};

/// The kinds of spans that backends for language models tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Model,
    Agent,
    Tool,
    Retriever,
    Reranker,
    Guardrail,
    Evaluator,
    Chain,
}

pub(super) fn kind(span: &Span) -> Kind {
    match data(span).get("type").and_then(Value::as_str) {
        Some("generation" | "response" | "transcription" | "speech") => return Kind::Model,
        Some("agent") => return Kind::Agent,
        Some("function" | "mcp_tools") => return Kind::Tool,
        Some("guardrail") => return Kind::Guardrail,
        _ => {}
    }
    match span.span_type {
        SpanType::Completion => Kind::Model,
        SpanType::AgentTracer | SpanType::AgentWorkflow => Kind::Agent,
        SpanType::CodeExecution | SpanType::ExternalEndpoint => Kind::Tool,
        SpanType::KbRetrieval | SpanType::DocumentSearch | SpanType::FileRetrieval => {
            Kind::Retriever
        }
        SpanType::Reranking => Kind::Reranker,
        SpanType::Guardrail | SpanType::OutputGuardrail => Kind::Guardrail,
        SpanType::Evaluation => Kind::Evaluator,
        _ => Kind::Chain,
    }
}

pub(super) fn attributes(span: &Span) -> Vec<KeyValue> {
    let data = data(span);
    let text = |name: &str| data.get(name).and_then(Value::as_str);
    let mut attributes = Vec::new();
    match kind(span) {
        Kind::Model => {
            attributes.push(attribute("gen_ai.operation.name", "chat"));
            if let Some(model) = text("model") {
                attributes.push(attribute("gen_ai.request.model", model));
            }
            if let Some(provider) = text("provider") {
                attributes.push(attribute("gen_ai.provider.name", provider));
            }
            if let Some(id) = text("response_id") {
                attributes.push(attribute("gen_ai.response.id", id));
            }
            attributes.extend(parameters(data));
            attributes.extend(usage(data));
            let messages = [
                ("gen_ai.input.messages", &span.input, ["input", "messages"]),
                ("gen_ai.output.messages", &span.output, ["output", "messages"]),
            ];
            for (name, values, places) in messages {
                let found = places.iter().find_map(|place| told(values.get(*place)?));
                attributes.extend(found.map(|messages| attribute(name, messages.to_string())));
            }
        }
        Kind::Agent if text("type") == Some("agent") => {
            attributes.push(attribute("gen_ai.operation.name", "invoke_agent"));
            attributes.push(attribute("gen_ai.agent.name", text("name").unwrap_or(&span.name)));
        }
        Kind::Tool if text("type") == Some("function") => {
            attributes.push(attribute("gen_ai.operation.name", "execute_tool"));
            attributes.push(attribute("gen_ai.tool.name", text("name").unwrap_or(&span.name)));
        }
        _ => return attributes,
    }
    if let Some(group_id) = &span.group_id {
        attributes.push(attribute("gen_ai.conversation.id", group_id.as_str()));
    }
    attributes
}

fn data(span: &Span) -> &Map<String, Value> {
    match span.metadata.get("openai_metadata") {
        Some(Value::Object(data)) => data,
        _ => &span.metadata,
    }
}

fn parameters(data: &Map<String, Value>) -> Vec<KeyValue> {
    let Some(Value::Object(config)) = data.get("model_config") else { return Vec::new() };
    let known = ["temperature", "top_p", "top_k", "max_tokens", "frequency_penalty"];
    let given = known.into_iter().filter_map(|name| {
        let value = config.get(name).filter(|value| value.is_number())?;
        let key = format!("gen_ai.request.{name}");
        Some(KeyValue { key, value: Some(any_value(value)), ..KeyValue::default() })
    });
    given.collect()
}

fn usage(data: &Map<String, Value>) -> Vec<KeyValue> {
    let Some(Value::Object(usage)) = data.get("usage") else { return Vec::new() };
    let tokens = [
        ("gen_ai.usage.input_tokens", ["input_tokens", "prompt_tokens"]),
        ("gen_ai.usage.output_tokens", ["output_tokens", "completion_tokens"]),
    ];
    let counts = tokens.into_iter().filter_map(|(name, places)| {
        let count = places.into_iter().find_map(|place| usage.get(place)?.as_i64())?;
        Some(number(name, count))
    });
    counts.collect()
}

/// Messages of the usual form, role and content, as the conventions write them: role and parts.
fn told(messages: &Value) -> Option<Value> {
    let message = |message: &Value| {
        let (role, content) = (message.get("role")?.as_str()?, message.get("content")?.as_str()?);
        Some(json!({"role": role, "parts": [{"type": "text", "content": content}]}))
    };
    let messages: Option<Vec<Value>> = messages.as_array()?.iter().map(message).collect();
    messages.filter(|messages| !messages.is_empty()).map(Value::Array)
}
