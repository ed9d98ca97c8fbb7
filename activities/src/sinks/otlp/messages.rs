//! Messages of chats, in the form that OpenTelemetry's conventions have for them: role and parts.

use serde_json::{Map, Value, json};

/// Messages as OpenAI's two APIs have them; a text is one message of that role. `None` for whatever is
/// no message: half a conversation would not be true.
pub(super) fn told(messages: &Value, role: &str, finish_reason: Option<&str>) -> Option<Value> {
    if let Value::String(text) = messages {
        let message = with_reason(message(role, vec![text_part(text)]), finish_reason);
        return Some(json!([message]));
    }
    let messages = messages.as_array().filter(|messages| !messages.is_empty())?;
    let told = messages.iter().map(|message| {
        Some(with_reason(of_message(message).or_else(|| of_item(message))?, finish_reason))
    });
    told.collect::<Option<Vec<Value>>>().map(Value::Array)
}

fn message(role: &str, parts: Vec<Value>) -> Value {
    json!({ "role": role, "parts": parts })
}

fn with_reason(mut message: Value, finish_reason: Option<&str>) -> Value {
    if let (Value::Object(message), Some(reason)) = (&mut message, finish_reason) {
        message.insert("finish_reason".to_owned(), reason.into());
    }
    message
}

/// A message with role and content.
fn of_message(value: &Value) -> Option<Value> {
    let role = value.get("role")?.as_str()?;
    let content = value.get("content").unwrap_or(&Value::Null);
    if let Some(id) = value.get("tool_call_id") {
        return Some(message(role, vec![response_part(id, content)]));
    }
    let mut parts = match content {
        Value::Null => Vec::new(),
        Value::String(text) => vec![text_part(text)],
        Value::Array(parts) => parts.iter().map(part).collect::<Option<_>>()?,
        _ => return None,
    };
    let calls = value.get("tool_calls").and_then(Value::as_array);
    for call in calls.into_iter().flatten() {
        parts.push(call_part(call.get("id")?, call.get("function")?)?);
    }
    Some(message(role, parts))
}

/// An item of the Responses API that is no message.
fn of_item(item: &Value) -> Option<Value> {
    match item.get("type")?.as_str()? {
        "function_call" => Some(message("assistant", vec![call_part(item.get("call_id")?, item)?])),
        "function_call_output" => {
            Some(message("tool", vec![response_part(item.get("call_id")?, item.get("output")?)]))
        }
        _ => None,
    }
}

fn part(part: &Value) -> Option<Value> {
    match part.get("type")?.as_str()? {
        "text" | "input_text" | "output_text" => Some(text_part(part.get("text")?.as_str()?)),
        // The conventions take parts of any other type as they are.
        _ => Some(part.clone()),
    }
}

fn text_part(text: &str) -> Value {
    json!({ "type": "text", "content": text })
}

fn call_part(id: &Value, call: &Value) -> Option<Value> {
    let mut part = Map::from_iter([
        ("type".to_owned(), "tool_call".into()),
        ("id".to_owned(), id.clone()),
        ("name".to_owned(), call.get("name")?.clone()),
    ]);
    if let Some(arguments) = call.get("arguments") {
        part.insert("arguments".to_owned(), parsed(arguments));
    }
    Some(part.into())
}

fn response_part(id: &Value, response: &Value) -> Value {
    json!({ "type": "tool_call_response", "id": id, "response": parsed(response) })
}

/// Models write arguments as JSON in a text.
fn parsed(value: &Value) -> Value {
    let object = value.as_str().and_then(|text| serde_json::from_str(text).ok());
    object.filter(Value::is_object).unwrap_or_else(|| value.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_with_tools_keeps_calls_and_answers() {
        let call = json!({"id": "c1", "type": "function", "function": {
            "name": "weather", "arguments": r#"{"city": "Paris"}"#,
        }});
        let chat = json!([
            {"role": "system", "content": [{"type": "text", "text": "be brief"}]},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]},
            {"role": "assistant", "content": null, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "rainy"},
        ]);
        let call = json!({"type": "tool_call", "id": "c1", "name": "weather", "arguments": {"city": "Paris"}});
        let response = json!({"type": "tool_call_response", "id": "c1", "response": "rainy"});
        let expected = json!([
            {"role": "system", "parts": [{"type": "text", "content": "be brief"}]},
            {"role": "user", "parts": [{"type": "image_url", "image_url": {"url": "u"}}]},
            {"role": "assistant", "parts": [call]},
            {"role": "tool", "parts": [response]},
        ]);
        assert_eq!(told(&chat, "user", None), Some(expected));

        let items = json!([
            {"type": "function_call", "call_id": "c1", "name": "weather",
                "arguments": r#"{"city": "Paris"}"#},
            {"type": "function_call_output", "call_id": "c1", "output": "rainy"},
        ]);
        let expected = json!([
            {"role": "assistant", "parts": [call]}, {"role": "tool", "parts": [response]},
        ]);
        assert_eq!(told(&items, "user", None), Some(expected));
    }

    #[test]
    fn a_text_is_a_message() {
        let expected = json!([
            {"role": "assistant", "parts": [{"type": "text", "content": "yo"}], "finish_reason": "stop"},
        ]);
        assert_eq!(told(&json!("yo"), "assistant", Some("stop")), Some(expected));
    }

    #[test]
    fn what_is_no_message_is_not_told_and_nor_is_half_a_conversation() {
        let known = json!({"role": "user", "content": "hi"});
        for messages in [
            json!(7),
            json!([]),
            json!([known, {"type": "reasoning"}]),
            json!([known, "hi"]),
            json!([{"role": "user", "content": 7}]),
        ] {
            assert_eq!(told(&messages, "user", None), None, "{messages}");
        }
    }
}
