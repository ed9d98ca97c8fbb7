//! The `span_data` of a span, with the fields that OpenAI's ingest knows for its type.

use durable_spans_model::{Fields, Span, SpanType, data::Usage};
use serde_json::{Map, Value, json};

/// Most bytes of JSON of an input or an output.
const FIELD_BYTES: usize = 100_000;

const MARK: &str = "... [truncated]";

/// Where a field comes from if the metadata does not name it.
#[derive(Clone, Copy)]
enum Place {
    /// Null is what is sent then.
    Nothing,
    /// The name of the span.
    Name,
    /// Input or output: the value of that name in it, or all of it.
    Input,
    Output,
    /// The same as text, as tools have it.
    InputText,
    OutputText,
    /// Input or output of a chat: a list of messages. A text is a message of that role.
    Messages(&'static str),
    Answer(&'static str),
    /// What the span reports.
    Usage,
}

use Place::{Answer, Input, InputText, Messages, Name, Nothing, Output, OutputText};

/// The fields of each type.
const TYPES: &[(&str, &[(&str, Place)])] = &[
    (
        "agent",
        &[("name", Name), ("handoffs", Nothing), ("tools", Nothing), ("output_type", Nothing)],
    ),
    (
        "function",
        &[("name", Name), ("input", InputText), ("output", OutputText), ("mcp_data", Nothing)],
    ),
    (
        "generation",
        &[
            ("input", Messages("user")),
            ("output", Answer("assistant")),
            ("model", Nothing),
            ("model_config", Nothing),
            ("usage", Place::Usage),
        ],
    ),
    // OpenAI knows the rest from the id; its own exporter leaves out the usage, too.
    ("response", &[("response_id", Nothing)]),
    ("handoff", &[("from_agent", Nothing), ("to_agent", Nothing)]),
    ("guardrail", &[("name", Name), ("triggered", Nothing)]),
    ("mcp_tools", &[("server", Nothing), ("result", Nothing)]),
    (
        "transcription",
        &[("input", Input), ("output", Output), ("model", Nothing), ("model_config", Nothing)],
    ),
    (
        "speech",
        &[
            ("input", Input),
            ("output", Output),
            ("model", Nothing),
            ("model_config", Nothing),
            ("first_content_at", Nothing),
        ],
    ),
    ("speech_group", &[("input", Input)]),
];

pub(super) fn of(span: &Span) -> Value {
    match span.metadata.get("openai_metadata") {
        Some(Value::Object(told)) => told_by(span, told),
        _ => told_by(span, &span.metadata.clone().into_map()),
    }
}

/// `told` is what the span says by OpenAI's own names.
fn told_by(span: &Span, told: &Map<String, Value>) -> Value {
    let kind = match told.get("type") {
        Some(Value::String(kind)) => kind,
        _ => kind_of(span.span_type),
    };
    let Some((kind, fields)) = TYPES.iter().find(|(known, _)| *known == kind) else {
        return custom(span, told);
    };
    let mut data = Map::new();
    data.insert("type".to_owned(), (*kind).into());
    for (name, from) in *fields {
        let value = match (told.get(*name), from) {
            (Some(value), from) if !matches!(from, Place::Usage) => value.clone(),
            (_, from) => from.value(span, told, name),
        };
        data.insert((*name).to_owned(), cut(value));
    }
    Value::Object(data)
}

/// As SGP's own tracing turns OpenAI's types into its own, backwards.
fn kind_of(span_type: SpanType) -> &'static str {
    match span_type {
        SpanType::Completion => "generation",
        SpanType::AgentTracer | SpanType::AgentWorkflow => "agent",
        SpanType::CodeExecution => "function",
        SpanType::Guardrail | SpanType::OutputGuardrail => "guardrail",
        _ => "custom",
    }
}

fn custom(span: &Span, told: &Map<String, Value>) -> Value {
    let data = match told.get("data") {
        Some(data) => cut(data.clone()),
        None => {
            let parts =
                [("input", &span.input), ("output", &span.output), ("metadata", &span.metadata)];
            let filled = parts.into_iter().filter(|(_, values)| !values.is_empty());
            let data = filled.map(|(name, values)| (name.to_owned(), cut(values.clone().into())));
            Value::Object(data.collect())
        }
    };
    json!({ "type": "custom", "name": told.get("name").unwrap_or(&json!(span.name)), "data": data })
}

impl Place {
    fn value(self, span: &Span, told: &Map<String, Value>, name: &str) -> Value {
        let part = |values: &Fields| match values.get(name) {
            Some(value) => value.clone(),
            None if values.is_empty() => Value::Null,
            None => values.clone().into(),
        };
        let text = |value: Value| match value {
            Value::Null | Value::String(_) => value,
            other => Value::String(other.to_string()),
        };
        let messages = |value: Value, role: &str| match value {
            Value::String(text) => json!([{ "role": role, "content": text }]),
            value => value,
        };
        match self {
            Nothing => Value::Null,
            Name => (*span.name).into(),
            Input => part(&span.input),
            Output => part(&span.output),
            InputText => text(part(&span.input)),
            OutputText => text(part(&span.output)),
            Messages(role) => messages(part(&span.input), role),
            Answer(role) => messages(part(&span.output), role),
            Place::Usage => usage(span, told),
        }
    }
}

/// Input and output tokens, and under `details` whatever else the span says of its usage: OpenAI takes
/// nothing else, and no usage without these two.
fn usage(span: &Span, told: &Map<String, Value>) -> Value {
    let mut usage = Usage::of(span).into_json();
    let (Some(input), Some(output)) = (usage.remove("input_tokens"), usage.remove("output_tokens"))
    else {
        return Value::Null;
    };
    let said = told.get("usage").and_then(Value::as_object).cloned().unwrap_or_default();
    let mut details = Map::new();
    for (name, value) in said.into_iter().chain(usage) {
        match (&*name, value) {
            ("input_tokens" | "output_tokens", _) | (_, Value::Null) => {}
            ("details", Value::Object(more)) => details.extend(more),
            (_, value) => {
                details.insert(name, value);
            }
        }
    }
    let mut usage = json!({ "input_tokens": input, "output_tokens": output });
    if !details.is_empty() {
        usage["details"] = details.into();
    }
    usage
}

/// A value whose JSON is larger than OpenAI takes is its beginning, as text with a mark.
fn cut(value: Value) -> Value {
    let json = value.to_string();
    if json.len() <= FIELD_BYTES {
        return value;
    }
    let text = match value {
        Value::String(text) => text,
        _ => json,
    };
    // The quotation marks count, too.
    let mut room = FIELD_BYTES - MARK.len() - 2;
    let fitting = text.char_indices().find(|(_, character)| {
        let bytes = json_bytes(*character);
        let fits = bytes <= room;
        room = room.saturating_sub(bytes);
        !fits
    });
    let kept = fitting.map_or(&*text, |(end, _)| &text[..end]);
    Value::String(format!("{kept}{MARK}"))
}

/// How many bytes JSON needs for a character.
fn json_bytes(character: char) -> usize {
    match character {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        other => other.len_utf8(),
    }
}

#[cfg(test)]
mod tests {
    use durable_spans_model::{SpanId, Timestamp, TraceId};
    use proptest::prelude::*;

    use super::*;

    fn span(span_type: SpanType) -> Span {
        let start = Timestamp::from_unix_ns(0);
        let span = Span::new(TraceId::from_bits(1), SpanId::from_bits(2), "s", start);
        Span { span_type, ..span }
    }

    #[test]
    fn a_span_without_openais_metadata_is_of_the_type_that_its_own_says() {
        let mut tool = span(SpanType::CodeExecution);
        tool.input.insert("a".into(), 1.into());
        let data = json!({
            "type": "function", "name": "s", "input": r#"{"a":1}"#, "output": null, "mcp_data": null,
        });
        assert_eq!(of(&tool), data);
        let mut step = span(SpanType::Standalone);
        step.metadata.insert("temporal.attempt".into(), 2.into());
        let data = json!({"metadata": {"temporal.attempt": 2}});
        assert_eq!(of(&step), json!({"type": "custom", "name": "s", "data": data}));
    }

    #[test]
    fn a_type_that_openai_does_not_know_is_a_custom_one() {
        let mut span = span(SpanType::Standalone);
        span.metadata.insert("type".into(), "teleport".into());
        assert_eq!(of(&span)["type"], "custom");
    }

    proptest! {
        #[test]
        fn no_field_is_over_a_hundred_thousand_bytes(
            unit in prop_oneof![Just("x"), Just("\""), Just("é"), Just("\u{1}"), Just("ab\n\u{1F980}")],
            count in 0..60_000usize,
            nested: bool,
        ) {
            let text = unit.repeat(count);
            let value = if nested { json!([{"role": "user", "content": text}]) } else { json!(text) };
            let before = value.to_string().len();
            let cut = cut(value.clone());
            let after = cut.to_string().len();
            prop_assert!(after <= FIELD_BYTES);
            if before <= FIELD_BYTES {
                prop_assert_eq!(cut, value);
            } else {
                prop_assert!(cut.as_str().unwrap().ends_with(MARK));
                prop_assert!(after > FIELD_BYTES * 9 / 10, "{} bytes are left", after);
            }
        }
    }
}
