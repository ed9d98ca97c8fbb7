//! The OpenAI sink against a real HTTP server on this machine.

use durable_spans_activity::{OpenAiOptions, OpenAiSink, SpanBatch, SpanSink};
use durable_spans_model::{
    Span, SpanError, SpanId, TraceId,
    data::{
        Agent, Custom, Function, Generation, Guardrail, Handoff, McpTools, Response, SpanData,
        Speech, SpeechGroup, Task, Transcription, Turn, Usage,
    },
};
use serde_json::{Value, json};

use crate::server::{Server, ok, shown, status};

/// What OpenAI's Agents SDK sent for one span of each type.
fn captured() -> Value {
    serde_json::from_str(include_str!("openai_agents.json")).unwrap()
}

fn sink(server: &Server) -> OpenAiSink {
    let options = OpenAiOptions::new("sk-x")
        .base_url(format!("{}/v1", server.base_url))
        .organization("org-1")
        .project("proj-1")
        .gzip(false);
    OpenAiSink::new(options).unwrap()
}

/// A span as SGP's own tracing records that item: inputs and outputs in their places, the rest in
/// the metadata.
fn recorded(item: &Value) -> Span {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut data = item["span_data"].as_object().unwrap().clone();
    let mut span = Span::new(
        text(&item["trace_id"]).parse().unwrap(),
        text(&item["id"]).parse().unwrap(),
        data.get("name").map_or("unnamed".to_owned(), text),
        text(&item["started_at"]).parse().unwrap(),
    );
    span.end_timestamp = Some(text(&item["ended_at"]).parse().unwrap());
    span.parent_id = item["parent_id"].as_str().map(|id| id.parse().unwrap());
    span.group_id = Some("conv-1".into());
    for (name, part) in [("input", &mut span.input), ("output", &mut span.output)] {
        match data.remove(name) {
            None | Some(Value::Null) => {}
            // Tools have text, which is recorded as what it says.
            Some(Value::String(json)) if json.starts_with('{') => {
                *part = serde_json::from_str(&json).unwrap();
            }
            Some(value) => {
                part.insert(name.to_owned().into(), value);
            }
        }
    }
    span.metadata.insert("openai_metadata".into(), data.into());
    if let Some(error) = item["error"].as_object() {
        span.metadata.insert("error_message".into(), error["message"].clone());
        span.metadata.insert("error_data".into(), error["data"].clone());
    }
    if span.parent_id.is_none() {
        span.metadata.insert("openai_trace_metadata".into(), json!({"user": "u1"}));
    }
    span
}

#[tokio::test]
async fn the_wire_form_of_each_type_is_that_of_openais_own_exporter() {
    let captured = captured();
    let items = &expected(&captured);
    let server = Server::start(ok).await;
    let options = OpenAiOptions::new("sk-x")
        .base_url(format!("{}/v1", server.base_url))
        .organization("org-1")
        .project("proj-1")
        .workflow_name("Agent workflow");
    let sink = OpenAiSink::new(options.gzip(false)).unwrap();
    sink.upsert_batch(&items[1..].iter().map(recorded).collect()).await.unwrap();

    let [request] = &server.received()[..] else { panic!("one request") };
    assert_eq!(json!(request.method.as_str()), captured["method"]);
    assert_eq!(json!(request.target), captured["path"]);
    for header in captured["headers"].as_array().unwrap() {
        let name = header[0].as_str().unwrap().to_lowercase();
        if ["authorization", "content-type"].contains(&&*name) || name.starts_with("openai-") {
            assert_eq!(request.header(&name), header[1].as_str(), "{name}");
        }
    }
    let sent: Value = serde_json::from_str(&request.text()).unwrap();
    let types: Vec<_> = items[1..].iter().map(|item| &item["span_data"]["type"]).collect();
    assert_eq!(types.len(), 11);
    for (index, item) in items.iter().enumerate() {
        assert_eq!(&sent["data"][index], item, "item {index}");
    }
    assert_eq!(sent["data"].as_array().unwrap().len(), items.len());
}

/// What OpenAI itself is sent: the exporter leaves the usage of a response out for OpenAI alone.
fn expected(captured: &Value) -> Vec<Value> {
    let mut items = captured["body"]["data"].as_array().unwrap().clone();
    for item in &mut items {
        if item["span_data"]["type"] == "response" {
            item["span_data"].as_object_mut().unwrap().remove("usage");
        }
    }
    items
}

/// Each type as it is set, in the order of the captured items.
fn typed() -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    fn add(spans: &mut Vec<Span>, data: impl SpanData) {
        let mut span = step(1, spans.len() as u128 + 1, None);
        span.set(data);
        spans.push(span);
    }
    let message = |role: &str, content: &str| json!([{"role": role, "content": content}]);
    let generation = Generation::new("gpt-x")
        .messages(message("user", "hi"))
        .output("yo")
        .config("temperature", 0.1)
        .usage(Usage::new(3, 4));
    add(&mut spans, generation);
    let function = Function::new("t1").input(json!({"a": 1})).output(json!({"b": 2}));
    add(&mut spans, function);
    spans[1].set_error(SpanError::new("Tool", "tool failed").data("code", 5));
    add(&mut spans, Handoff::new("triage", "b"));
    add(&mut spans, Guardrail::new("no_pii").triggered(true));
    add(&mut spans, Custom::new("db").field("rows", 3));
    add(&mut spans, Response::default());
    add(&mut spans, McpTools::new("s").result(["x"]));
    add(&mut spans, Transcription::new("m").audio("", "pcm"));
    add(&mut spans, Speech::new("m").audio("", "pcm"));
    add(&mut spans, SpeechGroup::new("x"));
    add(&mut spans, Agent::new("triage").handoffs(["b"]).tools(["t1"]).output_type("str"));
    spans
}

async fn sent(spans: Vec<Span>) -> Vec<Value> {
    let server = Server::start(ok).await;
    sink(&server).upsert_batch(&SpanBatch::from_iter(spans)).await.unwrap();
    let sent: Value = serde_json::from_str(&server.received()[0].text()).unwrap();
    let items = sent["data"].as_array().unwrap().iter();
    items.filter(|item| item["object"] == "trace.span").cloned().collect()
}

#[tokio::test]
async fn each_type_that_is_set_is_sent_as_openais_own_exporter_sends_it() {
    let spans = typed();
    let sent = sent(spans).await;
    let expected = expected(&captured());
    assert_eq!(sent.len(), expected.len() - 1);
    for (sent, expected) in sent.iter().zip(&expected[1..]) {
        assert_eq!(sent["span_data"], expected["span_data"]);
        assert_eq!(sent["error"], expected["error"]);
    }
}

/// As the SDK 0.24.0 exports them.
#[tokio::test]
async fn a_task_and_a_turn_are_custom_spans() {
    let mut task = step(1, 1, None);
    task.set(Task::new("answer").usage(Usage::new(3, 4)));
    let mut turn = step(1, 2, None);
    turn.set(Turn::new(1, "triage"));
    let sent = sent(vec![task, turn]).await;
    assert_eq!(
        sent[0]["span_data"],
        json!({"type": "custom", "name": "task", "data": {
            "sdk_span_type": "task",
            "name": "answer",
            "usage": {"input_tokens": 3, "output_tokens": 4},
        }})
    );
    assert_eq!(
        sent[1]["span_data"],
        json!({"type": "custom", "name": "turn", "data": {
            "sdk_span_type": "turn", "turn": 1, "agent_name": "triage",
        }})
    );
}

#[tokio::test]
async fn of_usage_openai_gets_two_counts_and_the_rest_as_details() {
    let with = |usage: Usage| {
        let mut span = step(1, 1, None);
        span.set(Generation::new("m").usage(usage));
        span
    };
    let all = Usage::new(12, 34).cached(8).reasoning(30).cost_usd(0.5);
    let mut of_chat = with(Usage::default());
    of_chat.metadata["openai_metadata"]["usage"] =
        json!({"prompt_tokens": 1, "completion_tokens": 2});
    let none = with(Usage::default().cost_usd(0.5));
    let spans = [with(all), of_chat, none].into_iter().zip(1..);
    let spans = spans.map(|(span, id)| Span { id: SpanId::from_bits(id), ..span }).collect();
    let sent = sent(spans).await;
    let usages: Vec<_> = sent.iter().map(|item| item["span_data"]["usage"].clone()).collect();
    assert_eq!(
        usages,
        [
            json!({"input_tokens": 12, "output_tokens": 34, "details": {
                "input_tokens_details": {"cached_tokens": 8},
                "output_tokens_details": {"reasoning_tokens": 30},
                "cost": 0.5, "currency": "USD",
            }}),
            json!({"input_tokens": 1, "output_tokens": 2, "details": {
                "prompt_tokens": 1, "completion_tokens": 2,
            }}),
            Value::Null,
        ]
    );
}

fn step(trace: u128, id: u128, parent: Option<u128>) -> Span {
    let time = "2026-11-21T08:04:08.083275+00:00".parse().unwrap();
    let mut span = Span::new(TraceId::from_bits(trace), SpanId::from_bits(id), "step", time);
    span.end_timestamp = Some(time);
    span.parent_id = parent.map(SpanId::from_bits);
    span
}

#[tokio::test]
async fn a_trace_is_told_once_and_again_only_if_that_failed() {
    let answers = std::sync::Mutex::new(vec![200, 200, 503]);
    let answers = std::sync::Arc::new(answers);
    let server = Server::start(move |_| status(answers.lock().unwrap().pop().unwrap_or(200))).await;
    let sink = sink(&server);
    let first = SpanBatch::from_iter([step(1, 2, Some(1)), step(2, 5, None)]);
    assert!(sink.upsert_batch(&first).await.unwrap_err().is_retryable());
    sink.upsert_batch(&first).await.unwrap();
    sink.upsert_batch(&SpanBatch::from_iter([step(1, 1, None), step(3, 1, None)])).await.unwrap();

    let told: Vec<Vec<String>> = server
        .received()
        .iter()
        .map(|request| {
            let body: Value = serde_json::from_str(&request.text()).unwrap();
            let traces = body["data"].as_array().unwrap().clone().into_iter();
            let traces = traces.filter(|item| item["object"] == "trace");
            traces.map(|trace| format!("{} {}", trace["id"], trace["workflow_name"])).collect()
        })
        .collect();
    let trace = |number: u128, name: &str| format!("\"trace_{number:032x}\" \"{name}\"");
    let both = vec![trace(1, "Agent workflow"), trace(2, "step")];
    assert_eq!(told, [both.clone(), both, vec![trace(3, "step")]]);
}

#[tokio::test]
async fn its_contract_is_once_and_in_batches_of_128() {
    let server = Server::start(ok).await;
    let sink = sink(&server);
    assert!(!sink.contract().takes_open_spans());
    let error = OpenAiSink::new(OpenAiOptions::new("sk-secret\n")).unwrap_err().to_string();
    assert!(error.contains("OPENAI_API_KEY") && !error.contains("sk-secret"), "{error}");
}

#[tokio::test]
async fn the_key_is_never_shown() {
    let server = Server::start(|request| {
        let text = format!("{:?}", request.headers);
        let response = axum::http::Response::builder().status(400);
        response.header("content-type", "text/plain").body(text.into()).unwrap()
    })
    .await;
    let options = OpenAiOptions::new("sk-secret").base_url(&server.base_url);
    let shown_options = format!("{options:?}");
    let sink = OpenAiSink::new(options).unwrap();
    let error = sink.upsert_batch(&SpanBatch::from_iter([step(1, 1, None)])).await.unwrap_err();
    for text in [shown_options, format!("{sink:?}"), shown(&error)] {
        assert!(!text.contains("sk-secret"), "{text}");
    }
}
