//! `POST /v1/traces/ingest`, where the OpenAI Agents SDK sends its traces.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc, time::SystemTime};

use axum::{
    Router,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use durable_spans_model::{SpanStatus, SpanType, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    http::{account_id, with_body},
    item::{Item, Object, Record, Text, check_timestamp},
    read,
    refusal::Refusal,
    store::{Mode, Store},
};

/// What the SDK calls a trace whose name nobody has given.
const NO_NAME: &str = "Agent workflow";

/// The body of a request. Traces and spans come in any order, spans once they have ended.
#[derive(Deserialize)]
struct Export {
    data: Vec<Value>,
}

#[derive(Default, Deserialize)]
struct Trace {
    workflow_name: Option<String>,
    group_id: Option<String>,
    metadata: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
struct Span {
    id: String,
    trace_id: String,
    parent_id: Option<String>,
    started_at: String,
    ended_at: Option<String>,
    span_data: Option<Map<String, Value>>,
    error: Option<Failure>,
}

#[derive(Deserialize)]
struct Failure {
    message: Option<String>,
    data: Option<Value>,
}

pub(crate) fn routes() -> Router<Arc<Store>> {
    Router::new().route("/v1/traces/ingest", post(ingest))
}

async fn ingest(State(store): State<Arc<Store>>, request: Request) -> Result<Response, Refusal> {
    with_body(request, move |headers, body| {
        let export = read::body::<Export>(body)?;
        let records = records(&store, export, account_id(headers)?)?;
        store.write(records, Mode::Upsert)?;
        Ok(StatusCode::NO_CONTENT.into_response())
    })
    .await
}

fn records(
    store: &Store,
    export: Export,
    account_id: &str,
) -> Result<Vec<Record<'static>>, Refusal> {
    let mut roots: BTreeMap<String, Root> = BTreeMap::new();
    let mut records = Vec::new();
    for (index, item) in export.data.into_iter().enumerate() {
        let place = format!("data[{index}]");
        let within = |refusal: Refusal| refusal.within(&place);
        let wrong = |_| Refusal::invalid(&place, "is not a trace or span of the OpenAI Agents SDK");
        match item["object"].as_str() {
            Some("trace") => {
                let id = item["id"].as_str().unwrap_or_default().to_owned();
                let trace = serde_json::from_value(item).map_err(wrong)?;
                roots.entry(id).or_default().trace = Some(trace);
            }
            Some("trace.span") => {
                let span: Span = serde_json::from_value(item).map_err(wrong)?;
                let root = roots.entry(span.trace_id.clone()).or_default();
                root.spans_over(&span).map_err(within)?;
                records.push(span.into_item()?.into_record(account_id).map_err(within)?);
            }
            _ => {
                let reason = "must be trace or trace.span";
                return Err(Refusal::invalid(format!("{place}.object"), reason));
            }
        }
    }
    for (trace_id, root) in roots {
        let stored = store.span_of_trace(&trace_id, &trace_id)?;
        records.push(root.into_item(trace_id, stored.as_deref())?.into_record(account_id)?);
    }
    Ok(records)
}

/// The root of a trace: the trace itself, whose id it has. Nobody sends its times, so it reaches from
/// the first to the last of what is known of its spans.
#[derive(Default)]
struct Root {
    trace: Option<Trace>,
    start_ns: Option<i64>,
    end_ns: Option<i64>,
}

impl Root {
    fn spans_over(&mut self, span: &Span) -> Result<(), Refusal> {
        let start = check_timestamp("started_at", &span.started_at)?;
        self.start_ns = Some(self.start_ns.map_or(start, |known| known.min(start)));
        if let Some(ended_at) = &span.ended_at {
            self.end_ns = self.end_ns.max(Some(check_timestamp("ended_at", ended_at)?));
        }
        Ok(())
    }

    fn into_item(mut self, id: String, stored: Option<&str>) -> Result<Item<'static>, Refusal> {
        let stored: Option<Value> =
            stored.map(serde_json::from_str).transpose().map_err(Refusal::corrupt)?;
        let mut item = Item::default();
        item.name = text(NO_NAME);
        if let Some(stored) = stored {
            let time =
                |field: &str| Some(stored[field].as_str()?.parse::<Timestamp>().ok()?.unix_ns());
            self.start_ns = [self.start_ns, time("start_timestamp")].into_iter().flatten().min();
            self.end_ns = self.end_ns.max(time("end_timestamp"));
            let known = |field: &str| stored[field].as_str().map(text);
            item.name = known("name").unwrap_or(item.name);
            item.group_id = known("group_id");
            item.metadata = match &stored["metadata"] {
                Value::Object(metadata) => object(metadata.clone())?,
                _ => None,
            };
        }
        if let Some(trace) = self.trace {
            item.name = text(trace.workflow_name.as_deref().unwrap_or(NO_NAME));
            item.group_id = trace.group_id.as_deref().map(text);
            item.metadata = openai_metadata(trace.metadata.unwrap_or_default())?;
        }
        let start_ns = self.start_ns.unwrap_or(Timestamp::from(SystemTime::now()).unix_ns());
        item.start_timestamp = text(&Timestamp::from_unix_ns(start_ns).to_string());
        item.end_timestamp =
            self.end_ns.map(|ns| text(&Timestamp::from_unix_ns(ns.max(start_ns)).to_string()));
        item.span_type = Some(text(SpanType::AgentWorkflow.as_str()));
        item.trace_id = text(&id);
        item.id = Some(text(&id));
        Ok(item)
    }
}

impl Span {
    /// As SGP's own processor for the SDK maps it.
    fn into_item(self) -> Result<Item<'static>, Refusal> {
        let mut data = self.span_data.unwrap_or_default();
        let kind = data.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut item = Item::default();
        item.name = match data.get("name").and_then(Value::as_str) {
            Some(name) if !name.is_empty() => text(name),
            _ => text(&capitalized(&kind)),
        };
        item.span_type = Some(text(span_type(&kind).as_str()));
        item.input = content(&mut data, "input")?;
        item.output = content(&mut data, "output")?;
        data.insert("openai_span_id".into(), self.id.as_str().into());
        let mut metadata = Map::from_iter([("openai_metadata".to_owned(), data.into())]);
        if let Some(Failure { message, data }) = self.error {
            item.status = Some(text(SpanStatus::Error.as_str()));
            metadata.insert("error".into(), true.into());
            metadata.insert("error_type".into(), "Error".into());
            metadata.insert("error_message".into(), message.unwrap_or_default().into());
            metadata.insert("error_category".into(), "unknown".into());
            metadata.extend(data.map(|data| ("error_data".to_owned(), data)));
        }
        item.metadata = object(metadata)?;
        item.start_timestamp = text(&self.started_at);
        item.end_timestamp = self.ended_at.as_deref().map(text);
        // What has no parent is below the trace.
        item.parent_id = Some(text(self.parent_id.as_deref().unwrap_or(&self.trace_id)));
        item.trace_id = text(&self.trace_id);
        item.id = Some(text(&self.id));
        Ok(item)
    }
}

fn span_type(kind: &str) -> SpanType {
    match kind {
        "generation" | "response" => SpanType::Completion,
        "agent" => SpanType::AgentWorkflow,
        "function" => SpanType::CodeExecution,
        "guardrail" | "transcription" | "speech" | "speech_group" | "mcp_tools" => {
            SpanType::Standalone
        }
        _ => SpanType::Custom,
    }
}

/// Takes a value out of the data of a span. The SDK sends some objects as JSON in a text.
fn content(data: &mut Map<String, Value>, name: &str) -> Result<Object<'static>, Refusal> {
    let value = match data.remove(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => serde_json::from_str(&text).unwrap_or(Value::String(text)),
        Some(value) => value,
    };
    match value {
        Value::Object(fields) => object(fields),
        other => object(Map::from_iter([(name.to_owned(), other)])),
    }
}

fn openai_metadata(metadata: Map<String, Value>) -> Result<Object<'static>, Refusal> {
    object(Map::from_iter([("openai_metadata".to_owned(), metadata.into())]))
}

fn capitalized(kind: &str) -> String {
    let mut letters = kind.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => "Unnamed Span".to_owned(),
    }
}

fn text(text: &str) -> Text<'static> {
    Text(Cow::Owned(text.to_owned()))
}

fn object(fields: Map<String, Value>) -> Result<Object<'static>, Refusal> {
    let raw = serde_json::value::to_raw_value(&fields).map_err(Refusal::corrupt)?;
    Ok(Some(Cow::Owned(raw)))
}
