//! A span of Opper as one of SGP, and back.

use std::{borrow::Cow, time::SystemTime};

use durable_spans_model::{SpanType, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    item::{Item, Object, Record, Text},
    refusal::Refusal,
};

/// The body of `POST /v3/spans`.
#[derive(Debug, Deserialize)]
pub(super) struct NewSpan {
    name: String,
    trace_id: Option<String>,
    parent_id: Option<String>,
    #[serde(rename = "type")]
    span_type: Option<String>,
    input: Option<Value>,
    start_time: Option<String>,
    #[serde(flatten)]
    rest: Change,
}

/// The body of `PATCH /v3/spans/{id}`: what it names is replaced, the rest stays.
#[derive(Debug, Deserialize)]
pub(super) struct Change {
    output: Option<Value>,
    error: Option<String>,
    end_time: Option<String>,
    meta: Option<Map<String, Value>>,
    metadata: Option<Map<String, Value>>,
    tags: Option<Map<String, Value>>,
}

/// Where Opper's own fields stand in the metadata.
const TYPE: &str = "opper_type";

fn text(text: impl Into<String>) -> Text<'static> {
    Text(Cow::Owned(text.into()))
}

fn object(fields: &Map<String, Value>) -> Result<Object<'static>, Refusal> {
    let raw = serde_json::value::to_raw_value(fields).map_err(Refusal::corrupt)?;
    Ok((!fields.is_empty()).then_some(Cow::Owned(raw)))
}

impl NewSpan {
    /// The span with a new id: Opper's server assigns it.
    pub(super) fn into_record(self, account_id: &str) -> Result<Record<'static>, Refusal> {
        let new_id = || uuid::Uuid::new_v4().to_string();
        let now = || Timestamp::from(SystemTime::now()).to_string();
        let mut item = Item::default();
        item.id = Some(text(new_id()));
        item.trace_id = text(self.trace_id.unwrap_or_else(new_id));
        item.parent_id = self.parent_id.map(text);
        item.name = text(self.name);
        item.start_timestamp = text(self.start_time.unwrap_or_else(now));
        item.input =
            object(&self.input.into_iter().map(|input| ("input".into(), input)).collect())?;
        let mut metadata = Map::new();
        if let Some(span_type) = self.span_type {
            item.span_type = Some(text(sgp_type(&span_type).as_str()));
            metadata.insert(TYPE.into(), span_type.into());
        }
        self.rest.apply(&mut item, metadata)?;
        item.into_record(account_id)
    }
}

impl Change {
    /// The stored span with the change.
    pub(super) fn of<'a>(self, stored: &'a str) -> Result<Record<'a>, Refusal> {
        let (mut item, account_id) = Item::stored(stored)?;
        let metadata =
            item.metadata.as_deref().map(|metadata| serde_json::from_str(metadata.get()));
        let metadata = metadata.transpose().map_err(Refusal::corrupt)?.unwrap_or_default();
        self.apply(&mut item, metadata)?;
        item.into_record(&account_id)
    }

    fn apply(self, item: &mut Item<'_>, mut metadata: Map<String, Value>) -> Result<(), Refusal> {
        let Self { output, error, end_time, .. } = self;
        if let Some(output) = output {
            item.output = object(&Map::from_iter([("output".to_owned(), output)]))?;
        }
        if let Some(end_time) = end_time {
            item.end_timestamp = Some(text(end_time));
        }
        for (name, fields) in
            [("meta", self.meta), ("metadata", self.metadata), ("tags", self.tags)]
        {
            if let Some(fields) = fields {
                metadata.insert(name.to_owned(), fields.into());
            }
        }
        if let Some(message) = error {
            item.status = Some(text("ERROR"));
            metadata.insert("error".into(), true.into());
            metadata.insert("error_type".into(), "Error".into());
            metadata.insert("error_message".into(), message.into());
            metadata.insert("error_category".into(), "unknown".into());
        }
        item.metadata = object(&metadata)?;
        Ok(())
    }
}

/// Opper's types are free text.
fn sgp_type(name: &str) -> SpanType {
    match name {
        "call" | "generation" | "llm" | "completion" => SpanType::Completion,
        "tool" | "function" => SpanType::CodeExecution,
        "agent" | "workflow" => SpanType::AgentWorkflow,
        "retrieval" | "retriever" | "query" => SpanType::KbRetrieval,
        _ => SpanType::Custom,
    }
}

/// A stored span as Opper's clients read it, whoever has sent it.
pub(super) fn shown(item: &Value) -> Value {
    let metadata = &item["metadata"];
    // What came from elsewhere is shown as it is.
    let part = |object: &Value, name: &str| match &object[name] {
        Value::Null => object.clone(),
        part => part.clone(),
    };
    json!({
        "id": item["id"],
        "trace_id": item["trace_id"],
        "parent_id": item["parent_id"],
        "name": item["name"],
        "type": metadata.get(TYPE).unwrap_or(&item["type"]),
        "input": part(&item["input"], "input"),
        "output": part(&item["output"], "output"),
        "error": metadata["error_message"],
        "start_time": item["start_timestamp"],
        "end_time": item["end_timestamp"],
        "status": status(item),
        "meta": metadata["meta"],
        "metadata": part(metadata, "metadata"),
        "tags": metadata["tags"],
    })
}

pub(super) fn status(item: &Value) -> &'static str {
    match (item["status"].as_str(), item["end_timestamp"].is_string()) {
        (Some("ERROR"), _) => "error",
        (Some("CANCELED"), _) => "canceled",
        (_, true) => "success",
        (_, false) => "running",
    }
}
