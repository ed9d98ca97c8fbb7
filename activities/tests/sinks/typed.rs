//! Typed spans as the OTLP sink tells them, against a real HTTP server on this machine. As the OpenAI
//! sink tells them: `openai.rs`.

use durable_spans_activity::{OtlpOptions, OtlpProtocol, OtlpSink, SpanBatch, SpanSink};
use durable_spans_model::{
    Span, SpanId, Timestamp, TraceId,
    data::{Agent, Evaluation, Function, Generation, Response, Retrieval, SpanData, Speech, Usage},
};
use serde_json::{Map, Value, json};

use crate::server::{Server, ok};

fn span() -> Span {
    let at = Timestamp::from_unix_ns(1_795_248_235_245_743_000);
    let mut span = Span::new(TraceId::from_bits(1), SpanId::from_bits(2), "draft", at);
    span.end_timestamp = Some(at);
    span
}

fn with(data: impl SpanData) -> Span {
    let mut span = span();
    span.set(data);
    span
}

/// The span as it was sent, in OTLP's JSON.
async fn sent(span: Span) -> Value {
    let server = Server::start(ok).await;
    let options = OtlpOptions::new(&server.base_url).protocol(OtlpProtocol::Json);
    OtlpSink::new(options).unwrap().upsert_batch(&SpanBatch::from_iter([span])).await.unwrap();
    let request: Value = serde_json::from_str(&server.received()[0].text()).unwrap();
    request["resourceSpans"][0]["scopeSpans"][0]["spans"][0].clone()
}

/// Attributes by name.
fn attributes(of: &Value) -> Map<String, Value> {
    let attributes = of["attributes"].as_array().unwrap();
    let named = attributes.iter().map(|a| (a["key"].as_str().unwrap().into(), a["value"].clone()));
    let named: Map<String, Value> = named.collect();
    assert_eq!(named.len(), attributes.len(), "no attribute twice: {of}");
    named
}

/// Those that conventions for generative AI have.
async fn told(span: Span) -> Value {
    let mut attributes = attributes(&sent(span).await);
    attributes.retain(|name, _| name.starts_with("gen_ai.") || name.starts_with("llm."));
    attributes.into()
}

fn text(value: &str) -> Value {
    json!({ "stringValue": value })
}

fn int(value: u64) -> Value {
    json!({ "intValue": value.to_string() })
}

fn double(value: f64) -> Value {
    json!({ "doubleValue": value })
}

fn texts(value: &str) -> Value {
    json!({"arrayValue": {"values": [text(value)]}})
}

#[tokio::test]
async fn a_generation_has_model_settings_messages_tokens_and_cost() {
    let generation = Generation::new("gpt-4o")
        .provider("openai")
        .messages("hi")
        .config("temperature", 1)
        .config("max_tokens", 100)
        .output(json!([{"role": "assistant", "content": "yo"}]))
        .response_model("gpt-4o-2024-08-06")
        .response_id("chatcmpl-1")
        .finish_reason("stop")
        .usage(Usage::new(12, 34).cached(8).reasoning(30).cost_usd(0.0012));
    let yo =
        r#"[{"finish_reason":"stop","parts":[{"content":"yo","type":"text"}],"role":"assistant"}]"#;
    assert_eq!(
        told(with(generation)).await,
        json!({
            "gen_ai.operation.name": text("chat"),
            "gen_ai.provider.name": text("openai"),
            "gen_ai.request.model": text("gpt-4o"),
            "gen_ai.response.model": text("gpt-4o-2024-08-06"),
            "gen_ai.response.id": text("chatcmpl-1"),
            "gen_ai.response.finish_reasons": texts("stop"),
            "gen_ai.request.temperature": double(1.0),
            "gen_ai.request.max_tokens": int(100),
            "gen_ai.input.messages":
                text(r#"[{"parts":[{"content":"hi","type":"text"}],"role":"user"}]"#),
            "gen_ai.output.messages": text(yo),
            "gen_ai.usage.input_tokens": int(12),
            "gen_ai.usage.output_tokens": int(34),
            "gen_ai.usage.cache_read.input_tokens": int(8),
            "gen_ai.usage.reasoning.output_tokens": int(30),
            "gen_ai.usage.cost": double(0.0012),
            "llm.cost.total": double(0.0012),
        })
    );
}

#[tokio::test]
async fn a_response_is_told_from_its_body() {
    let body = json!({
        "id": "resp_1",
        "model": "gpt-4o-2024-08-06",
        "temperature": 0.5,
        "output": [{"type": "message", "role": "assistant", "content": [
            {"type": "output_text", "text": "yo"},
        ]}],
        "usage": {
            "input_tokens": 3, "input_tokens_details": {"cached_tokens": 2}, "output_tokens": 4,
        },
    });
    assert_eq!(
        told(with(Response::of(body).input("hi"))).await,
        json!({
            "gen_ai.operation.name": text("chat"),
            "gen_ai.request.model": text("gpt-4o-2024-08-06"),
            "gen_ai.response.model": text("gpt-4o-2024-08-06"),
            "gen_ai.response.id": text("resp_1"),
            "gen_ai.request.temperature": double(0.5),
            "gen_ai.input.messages":
                text(r#"[{"parts":[{"content":"hi","type":"text"}],"role":"user"}]"#),
            "gen_ai.output.messages":
                text(r#"[{"parts":[{"content":"yo","type":"text"}],"role":"assistant"}]"#),
            "gen_ai.usage.input_tokens": int(3),
            "gen_ai.usage.output_tokens": int(4),
            "gen_ai.usage.cache_read.input_tokens": int(2),
        })
    );
}

#[tokio::test]
async fn a_cost_in_euros_is_not_told_as_dollars() {
    let mut span = span();
    span.set_usage(Usage::new(1, 2).cost(0.5, "EUR"));
    let attributes = attributes(&sent(span).await);
    assert!(!attributes.contains_key("gen_ai.usage.cost"));
    assert!(!attributes.contains_key("llm.cost.total"));
    assert_eq!(attributes["gen_ai.usage.input_tokens"], int(1));
    let usage = r#"{"cost":0.5,"currency":"EUR","input_tokens":1,"output_tokens":2}"#;
    assert_eq!(attributes["metadata.usage"], text(usage));
}

#[tokio::test]
async fn an_output_that_was_handed_on_does_not_count_its_usage_again() {
    let usage = json!({"input_tokens": 1, "output_tokens": 2});
    let mut step = span();
    step.output.insert("usage".into(), usage.clone());
    assert_eq!(told(step).await, json!({}));
    let mut call = with(Generation::new("m"));
    call.output.insert("usage".into(), usage);
    assert_eq!(told(call).await["gen_ai.usage.output_tokens"], int(2));
}

#[tokio::test]
async fn agents_tools_searches_speech_and_judgements_have_their_operations() {
    assert_eq!(
        told(with(Agent::new("triage"))).await,
        json!({
            "gen_ai.operation.name": text("invoke_agent"), "gen_ai.agent.name": text("triage"),
        })
    );
    let function = Function::new("weather").call_id("c1").input(r#"{"city":"Paris"}"#);
    assert_eq!(
        told(with(function.output(json!({"sky": "grey"})))).await,
        json!({
            "gen_ai.operation.name": text("execute_tool"),
            "gen_ai.tool.name": text("weather"),
            "gen_ai.tool.type": text("function"),
            "gen_ai.tool.call.id": text("c1"),
            "gen_ai.tool.call.arguments": text(r#"{"city":"Paris"}"#),
            "gen_ai.tool.call.result": text(r#"{"sky":"grey"}"#),
        })
    );
    let search = Retrieval::new("spans?").source("kb-1").top_k(3).documents(json!([{"id": "d1"}]));
    assert_eq!(
        told(with(search)).await,
        json!({
            "gen_ai.operation.name": text("retrieval"),
            "gen_ai.data_source.id": text("kb-1"),
            "gen_ai.request.top_k": double(3.0),
            "gen_ai.retrieval.query.text": text("spans?"),
            "gen_ai.retrieval.documents": text(r#"[{"id":"d1"}]"#),
        })
    );
    assert_eq!(
        told(with(Speech::new("tts-1").input("hi"))).await,
        json!({
            "gen_ai.operation.name": text("generate_content"),
            "gen_ai.output.type": text("speech"),
            "gen_ai.request.model": text("tts-1"),
            "gen_ai.input.messages":
                text(r#"[{"parts":[{"content":"hi","type":"text"}],"role":"user"}]"#),
        })
    );
    assert_eq!(
        told(with(Evaluation::new("relevance").score(4.0).label("pass"))).await,
        json!({
            "gen_ai.evaluation.name": text("relevance"),
            "gen_ai.evaluation.score.value": double(4.0),
            "gen_ai.evaluation.score.label": text("pass"),
        })
    );
}

#[tokio::test]
async fn events_metrics_and_tags_are_told() {
    let mut span = span();
    let fields = json!({"queue": "q", "depth": 3}).as_object().unwrap().clone();
    span.add_event("queued", Timestamp::from_unix_ns(1_795_248_235_000_000_000), fields);
    span.set_metric("quality", 4.5);
    span.add_tag("beta");
    let span = sent(span).await;
    assert_eq!(span["events"].as_array().unwrap().len(), 1);
    let event = &span["events"][0];
    assert_eq!(event["name"], "queued");
    assert_eq!(event["timeUnixNano"], "1795248235000000000");
    assert_eq!(Value::from(attributes(event)), json!({"queue": text("q"), "depth": int(3)}));
    let attributes = attributes(&span);
    assert_eq!(attributes["metrics.quality"], double(4.5));
    assert_eq!(attributes["metadata.tags"], texts("beta"));
    assert!(!attributes.contains_key("metadata.events"));
}

#[tokio::test]
async fn events_of_another_form_stay_metadata() {
    let mut span = span();
    span.metadata.insert("events".into(), json!([{"name": "queued"}]));
    let span = sent(span).await;
    assert_eq!(span["events"], json!([]));
    assert_eq!(attributes(&span)["metadata.events"], text(r#"[{"name":"queued"}]"#));
}
