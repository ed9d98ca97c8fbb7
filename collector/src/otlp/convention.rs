//! What the attributes of a span say about language models and agents, by the conventions of
//! OpenTelemetry (GenAI, today's and those before) and of OpenInference.

use durable_spans_model::SpanType;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::{Map, Value};

/// Attributes that are what went in, in the order of preference within a name.
const INPUT: [(&str, &str); 7] = [
    ("gen_ai.system_instructions", "system_instructions"),
    ("gen_ai.input.messages", "messages"),
    ("gen_ai.prompt", "prompt"),
    ("gen_ai.tool.call.arguments", "arguments"),
    ("gen_ai.retrieval.query.text", "query"),
    ("input.value", "value"),
    ("db.query.text", "query"),
];

/// Attributes that are what came out.
const OUTPUT: [(&str, &str); 5] = [
    ("gen_ai.output.messages", "messages"),
    ("gen_ai.completion", "completion"),
    ("gen_ai.tool.call.result", "result"),
    ("gen_ai.retrieval.documents", "documents"),
    ("output.value", "value"),
];

pub(super) fn span_type(attributes: &Map<String, Value>, kind: SpanKind) -> SpanType {
    let text = |name| attributes.get(name).and_then(Value::as_str);
    match text("gen_ai.operation.name") {
        Some("chat" | "text_completion" | "generate_content") => return SpanType::Completion,
        Some("execute_tool") => return SpanType::CodeExecution,
        Some("create_agent" | "invoke_agent" | "invoke_workflow") => {
            return SpanType::AgentWorkflow;
        }
        Some("retrieval") => return SpanType::KbRetrieval,
        Some(_) => return SpanType::Custom,
        None => {}
    }
    match text("openinference.span.kind") {
        Some("LLM") => SpanType::Completion,
        Some("TOOL") => SpanType::CodeExecution,
        Some("AGENT") => SpanType::AgentWorkflow,
        Some("RETRIEVER") => SpanType::KbRetrieval,
        Some("RERANKER") => SpanType::Reranking,
        Some("GUARDRAIL") => SpanType::Guardrail,
        Some("EVALUATOR") => SpanType::Evaluation,
        Some("PROMPT") => SpanType::PromptEngineering,
        Some(_) => SpanType::Custom,
        None if kind == SpanKind::Client => SpanType::ExternalEndpoint,
        None => SpanType::Standalone,
    }
}

/// The session or conversation that the trace belongs to, if its name is one that SGP takes.
pub(super) fn group_id(attributes: &Map<String, Value>) -> Option<String> {
    let names = ["gen_ai.conversation.id", "session.id"];
    let id = names.into_iter().find_map(|name| attributes.get(name)?.as_str())?;
    (!id.is_empty() && id.len() <= durable_spans_model::MAX_ID_BYTES && !id.contains('\0'))
        .then(|| id.to_owned())
}

/// Takes input and output out of the attributes. What is JSON in a text becomes JSON.
pub(super) fn take_input_and_output(
    attributes: &mut Map<String, Value>,
) -> (Map<String, Value>, Map<String, Value>) {
    let mut take = |names: &[(&str, &str)]| {
        let mut taken = Map::new();
        for (attribute, name) in names {
            if !taken.contains_key(*name)
                && let Some(value) = attributes.remove(*attribute)
            {
                taken.insert((*name).to_owned(), parsed(value));
            }
        }
        taken
    };
    (take(&INPUT), take(&OUTPUT))
}

fn parsed(value: Value) -> Value {
    match &value {
        Value::String(text) if text.starts_with(['{', '[']) => {
            serde_json::from_str(text).unwrap_or(value)
        }
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn attributes(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn operations_of_language_models_have_types() {
        for (value, kind, expected) in [
            (json!({"gen_ai.operation.name": "chat"}), SpanKind::Client, SpanType::Completion),
            (
                json!({"gen_ai.operation.name": "execute_tool"}),
                SpanKind::Internal,
                SpanType::CodeExecution,
            ),
            (
                json!({"gen_ai.operation.name": "invoke_agent"}),
                SpanKind::Client,
                SpanType::AgentWorkflow,
            ),
            (json!({"gen_ai.operation.name": "embeddings"}), SpanKind::Client, SpanType::Custom),
            (
                json!({"openinference.span.kind": "RETRIEVER"}),
                SpanKind::Internal,
                SpanType::KbRetrieval,
            ),
            (json!({"http.request.method": "GET"}), SpanKind::Client, SpanType::ExternalEndpoint),
            (json!({}), SpanKind::Server, SpanType::Standalone),
        ] {
            assert_eq!(span_type(&attributes(value.clone()), kind), expected, "{value}");
        }
    }

    #[test]
    fn messages_become_input_and_output() {
        let mut all = attributes(json!({
            "gen_ai.input.messages": r#"[{"role": "user"}]"#,
            "gen_ai.tool.call.result": "{no json",
            "input.value": "plain",
            "gen_ai.request.model": "m",
        }));
        let (input, output) = take_input_and_output(&mut all);
        assert_eq!(input, attributes(json!({"messages": [{"role": "user"}], "value": "plain"})));
        assert_eq!(output, attributes(json!({"result": "{no json"})));
        assert_eq!(all, attributes(json!({"gen_ai.request.model": "m"})));
    }

    #[test]
    fn a_conversation_groups_traces() {
        let group = |value| group_id(&attributes(value));
        assert_eq!(group(json!({"session.id": "s"})).as_deref(), Some("s"));
        assert_eq!(
            group(json!({"gen_ai.conversation.id": "c", "session.id": "s"})).as_deref(),
            Some("c")
        );
        assert_eq!(group(json!({"session.id": "x".repeat(300)})), None);
        assert_eq!(group(json!({"session.id": 7})), None);
    }
}
