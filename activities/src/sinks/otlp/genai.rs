//! What language models and agents did, by OpenTelemetry's conventions for generative AI.
//!
//! The data is found where SGP's own tracing puts it: in the metadata `openai_metadata`, or in the
//! metadata itself, under the names `model`, `model_config` and so on.

use std::borrow::Cow;

use durable_spans_model::{Fields, Span, SpanType, data::Usage};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use serde_json::{Map, Value};

use super::{
    attributes::{any_value, attribute, json, of_value},
    messages,
};

/// A double there, although documents are counted.
const TOP_K: &str = "gen_ai.request.top_k";

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
    let name = || text("name").unwrap_or(&span.name);
    let mut attributes = usage(span);
    let operation = match (kind(span), text("type")) {
        (Kind::Model, kind) => {
            attributes.extend(model(span, &data));
            // The conventions know no speech of its own; this is their word for other media.
            let is_media = matches!(kind, Some("transcription" | "speech"));
            if is_media { "generate_content" } else { "chat" }
        }
        (Kind::Agent, Some("agent")) => {
            attributes.push(attribute("gen_ai.agent.name", name()));
            "invoke_agent"
        }
        (Kind::Tool, Some("function")) => {
            attributes.push(attribute("gen_ai.tool.name", name()));
            attributes.push(attribute("gen_ai.tool.type", "function"));
            if let Some(id) = text("call_id") {
                attributes.push(attribute("gen_ai.tool.call.id", id));
            }
            let values = [
                ("gen_ai.tool.call.arguments", &span.input),
                ("gen_ai.tool.call.result", &span.output),
            ];
            let values = values.into_iter().filter(|(_, values)| !values.is_empty());
            attributes.extend(values.map(|(name, values)| attribute(name, json(values))));
            "execute_tool"
        }
        (Kind::Retriever, _) => {
            if let Some(query) = span.input.get("query").and_then(Value::as_str) {
                attributes.push(attribute("gen_ai.retrieval.query.text", query));
            }
            if let Some(documents) = span.output.get("documents") {
                attributes.push(attribute("gen_ai.retrieval.documents", documents.to_string()));
            }
            let top_k = span.metadata.get(TOP_K).and_then(Value::as_f64).map(Value::from);
            attributes.extend(top_k.map(|top_k| of_value(TOP_K, any_value(&top_k))));
            "retrieval"
        }
        _ => return attributes,
    };
    attributes.push(attribute("gen_ai.operation.name", operation));
    if let Some(group_id) = &span.group_id {
        attributes.push(attribute("gen_ai.conversation.id", &**group_id));
    }
    attributes
}

fn data(span: &Span) -> Cow<'_, Map<String, Value>> {
    match span.metadata.get("openai_metadata") {
        Some(Value::Object(data)) => Cow::Borrowed(data),
        _ => Cow::Owned(span.metadata.clone().into_map()),
    }
}

fn model(span: &Span, data: &Map<String, Value>) -> Vec<KeyValue> {
    let nothing = Map::new();
    let part = |name: &str| data.get(name).and_then(Value::as_object).unwrap_or(&nothing);
    // The body of an answer of the Responses API, which repeats what was asked for.
    let body = part("openai_response");
    let text = |name: &str| data.get(name).and_then(Value::as_str);
    let answered = text("response_model").or_else(|| body.get("model")?.as_str());
    let texts = [
        ("gen_ai.request.model", text("model").or(answered)),
        ("gen_ai.response.model", answered),
        ("gen_ai.provider.name", text("provider")),
        ("gen_ai.response.id", text("response_id")),
        (
            "gen_ai.output.type",
            match text("type") {
                Some("transcription") => Some("text"),
                Some("speech") => Some("speech"),
                _ => None,
            },
        ),
    ];
    let texts = texts.into_iter().filter_map(|(name, text)| Some(attribute(name, text?)));
    let mut attributes: Vec<KeyValue> = texts.collect();
    let finish_reason = text("finish_reason");
    if let Some(reason) = finish_reason {
        let reasons = Value::from(vec![reason]);
        attributes.push(of_value("gen_ai.response.finish_reasons", any_value(&reasons)));
    }
    attributes.extend(parameters(part("model_config"), body));
    let found = |values: &Fields, places: [&str; 2], role, reason| {
        places.iter().find_map(|place| messages::told(values.get(place)?, role, reason))
    };
    let input = found(&span.input, ["input", "messages"], "user", None);
    let output = found(&span.output, ["output", "messages"], "assistant", finish_reason);
    let told = [("gen_ai.input.messages", input), ("gen_ai.output.messages", output)];
    let told = told.into_iter().filter_map(|(name, value)| Some((name, value?)));
    attributes.extend(told.map(|(name, value)| attribute(name, value.to_string())));
    attributes
}

/// How the model was asked: names of OpenAI, names of the conventions, and whether the value is a
/// whole number there.
const PARAMETERS: &[(&str, &str, bool)] = &[
    ("temperature", "temperature", false),
    ("top_p", "top_p", false),
    ("top_k", "top_k", false),
    ("max_tokens", "max_tokens", true),
    ("max_output_tokens", "max_tokens", true),
    ("max_completion_tokens", "max_tokens", true),
    ("frequency_penalty", "frequency_penalty", false),
    ("presence_penalty", "presence_penalty", false),
    ("seed", "seed", true),
    ("n", "choice.count", true),
];

fn parameters(config: &Map<String, Value>, body: &Map<String, Value>) -> Vec<KeyValue> {
    let mut given: Vec<KeyValue> = Vec::new();
    for (name, convention, is_whole) in PARAMETERS {
        let key = format!("gen_ai.request.{convention}");
        let value = config.get(*name).or_else(|| body.get(*name));
        let value = if *is_whole {
            value.and_then(Value::as_i64).map(Value::from)
        } else {
            value.and_then(Value::as_f64).map(Value::from)
        };
        if let Some(value) = value
            && given.iter().all(|known| known.key != key)
        {
            given.push(of_value(&key, any_value(&value)));
        }
    }
    given
}

/// Tokens and cost. There is no convention for a cost: `gen_ai.usage.cost` is what Langfuse reads,
/// `llm.cost.total` is OpenInference's. Both mean US dollars, so a cost in another currency is told by
/// the metadata alone.
///
/// An output that has a `usage` says it of a call of a model; that of any other span may be the
/// answer of such a call, handed on, and would count again in each span that it went through.
fn usage(span: &Span) -> Vec<KeyValue> {
    let usage = match kind(span) {
        Kind::Model => Usage::of(span),
        _ => Usage::reported(&Fields::new(), &span.metadata),
    };
    let counts = [
        ("gen_ai.usage.input_tokens", usage.input_tokens()),
        ("gen_ai.usage.output_tokens", usage.output_tokens()),
        ("gen_ai.usage.cache_read.input_tokens", usage.cached_tokens()),
        ("gen_ai.usage.reasoning.output_tokens", usage.reasoning_tokens()),
    ];
    let counts = counts.into_iter().map(|(name, count)| (name, count.map(Value::from)));
    let cost = usage.cost_in_usd().map(Value::from);
    let costs = [("gen_ai.usage.cost", cost.clone()), ("llm.cost.total", cost)];
    let known = counts.chain(costs).filter_map(|(name, value)| Some((name, value?)));
    known.map(|(name, value)| of_value(name, any_value(&value))).collect()
}
