//! The OTLP sink against a real HTTP server on this machine. Against a real backend: `tests/phoenix.rs`.

use std::time::Duration;

use axum::{body::Body, http::Response};
use durable_spans_activity::{
    Deliverer, DropReason, FanOut, OtlpOptions, OtlpProtocol, OtlpSink, SpanBatch, SpanSink,
};
use durable_spans_model::{ErrorCategory, Span, SpanError, SpanId, SpanType, Timestamp};
use durable_spans_workflow::{FlushGroup, digest};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use serde_json::{Value, json};

use crate::server::{Received, Server, ok, shown, status};

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A generation that failed, as SGP's own tracing records one.
fn generation() -> Span {
    let mut span = Span::new(
        "c58c5e1e-bcff-46d8-81c5-4dc1a5fdafea".parse().unwrap(),
        "d7b120b6-aaee-4219-a7ce-b3252a18c3fa".parse().unwrap(),
        "Generation",
        time("2026-11-21T08:03:55.245743+00:00"),
    );
    span.parent_id = Some("8f0b39cc-1972-4605-a116-8050044808ad".parse().unwrap());
    span.group_id = Some("conv-1".into());
    span.span_type = SpanType::Completion;
    span.end_timestamp = Some(time("2026-11-21T08:03:55.277882+00:00"));
    span.input.insert("input".into(), json!([{"role": "user", "content": "hi"}]));
    span.output.insert("output".into(), json!([{"role": "assistant", "content": "yo"}]));
    span.metadata.insert(
        "openai_metadata".into(),
        json!({
            "type": "generation", "model": "gpt-x", "model_config": {"temperature": 0.1},
            "usage": {"input_tokens": 3, "output_tokens": 4},
        }),
    );
    span.metadata.insert("temporal.attempt".into(), 2.into());
    span.metadata.insert("ok".into(), true.into());
    span.set_error(SpanError::new("Timeout", "no answer").category(ErrorCategory::Platform));
    span
}

fn root() -> Span {
    let mut span = generation();
    span.id = span.parent_id.take().unwrap();
    Span { name: "run".into(), ..Span::new(span.trace_id, span.id, "", span.start_timestamp) }
}

fn json_options(server: &Server) -> OtlpOptions {
    OtlpOptions::new(&server.base_url).protocol(OtlpProtocol::Json).service_name("ranking")
}

/// The only span of the only request.
fn span_of(server: &Server) -> Value {
    let request: Value = serde_json::from_str(&server.received()[0].text()).unwrap();
    request["resourceSpans"][0]["scopeSpans"][0]["spans"][0].clone()
}

fn text(value: &str) -> Value {
    json!({"stringValue": value})
}

/// Attributes by name, whose order says nothing.
fn attributes(of: &Value) -> Value {
    let attributes = of["attributes"].as_array().unwrap();
    let named = attributes.iter().map(|a| (a["key"].as_str().unwrap().into(), a["value"].clone()));
    let named: serde_json::Map<_, _> = named.collect();
    assert_eq!(named.len(), attributes.len(), "no attribute twice");
    Value::Object(named)
}

#[tokio::test]
async fn a_generation_is_told_by_the_conventions_for_generative_ai() {
    let server = Server::start(ok).await;
    let sink = OtlpSink::new(json_options(&server)).unwrap();
    sink.upsert_batch(&SpanBatch::from_iter([generation()])).await.unwrap();

    let mut span = span_of(&server);
    assert_eq!(
        attributes(&span),
        json!({
            "sgp.span_type": text("COMPLETION"),
            "openinference.span.kind": text("LLM"),
            "input.value": text(r#"{"input":[{"content":"hi","role":"user"}]}"#),
            "input.mime_type": text("application/json"),
            "output.value": text(r#"{"output":[{"content":"yo","role":"assistant"}]}"#),
            "output.mime_type": text("application/json"),
            "session.id": text("conv-1"),
            "error.type": text("Timeout"),
            "gen_ai.operation.name": text("chat"),
            "gen_ai.request.model": text("gpt-x"),
            "gen_ai.request.temperature": {"doubleValue": 0.1},
            "gen_ai.usage.input_tokens": {"intValue": "3"},
            "gen_ai.usage.output_tokens": {"intValue": "4"},
            "gen_ai.input.messages":
                text(r#"[{"parts":[{"content":"hi","type":"text"}],"role":"user"}]"#),
            "gen_ai.output.messages":
                text(r#"[{"parts":[{"content":"yo","type":"text"}],"role":"assistant"}]"#),
            "gen_ai.conversation.id": text("conv-1"),
            "temporal.attempt": {"intValue": "2"},
            "metadata.ok": {"boolValue": true},
            "metadata.error_category": text("platform"),
            "metadata.openai_metadata": text(concat!(
                r#"{"model":"gpt-x","model_config":{"temperature":0.1},"type":"generation","#,
                r#""usage":{"input_tokens":3,"output_tokens":4}}"#
            )),
        })
    );
    let events = span["events"].take();
    assert_eq!(events[0]["name"], "exception");
    assert_eq!(
        attributes(&events[0]),
        json!({"exception.message": text("no answer"), "exception.type": text("Timeout")})
    );
    span.as_object_mut().unwrap().retain(|name, _| !["attributes", "events"].contains(&&**name));
    assert_eq!(
        span,
        json!({
            "traceId": "c58c5e1ebcff46d881c54dc1a5fdafea",
            "spanId": "a7ceb3252a18c3fa",
            "parentSpanId": "a1168050044808ad",
            "name": "Generation",
            "kind": 3,
            "startTimeUnixNano": "1795248235245743000",
            "endTimeUnixNano": "1795248235277882000",
            "status": {"code": 2, "message": "no answer"},
            "traceState": "", "flags": 0, "links": [],
            "droppedAttributesCount": 0, "droppedEventsCount": 0, "droppedLinksCount": 0,
        })
    );
}

#[tokio::test]
async fn the_run_before_and_the_span_of_another_tracing_system_are_links() {
    let server = Server::start(ok).await;
    let sink = OtlpSink::new(json_options(&server)).unwrap();
    let mut run = root();
    let mut note = |name: &'static str, value: &str| run.metadata.insert(name.into(), value.into());
    note("temporal.previous_trace_id", "e09a4c2f-5346-217f-4ee6-0747f125923c");
    note("temporal.previous_span_id", "8f0b39cc-1972-4605-a116-8050044808ad");
    run.obs_trace_id = Some("4bf92f3577b34da6a3ce929d0e0e4736".into());
    run.obs_span_id = Some("00f067aa0ba902b7".into());
    sink.upsert_batch(&SpanBatch::from_iter([run])).await.unwrap();
    let links = span_of(&server)["links"].clone();
    let ids: Vec<_> =
        links.as_array().unwrap().iter().map(|l| (&l["traceId"], &l["spanId"])).collect();
    assert_eq!(
        ids,
        [
            (&json!("e09a4c2f5346217f4ee60747f125923c"), &json!("a1168050044808ad")),
            (&json!("4bf92f3577b34da6a3ce929d0e0e4736"), &json!("00f067aa0ba902b7")),
        ]
    );
}

#[tokio::test]
async fn the_resource_says_whose_spans_these_are() {
    let server = Server::start(ok).await;
    let options = json_options(&server)
        .namespace("prod")
        .task_queue("rank")
        .build_id("7f3a")
        .resource_attribute("team", "search");
    let sink = OtlpSink::new(options).unwrap();
    sink.upsert_batch(&SpanBatch::from_iter([root()])).await.unwrap();
    let request: Value = serde_json::from_str(&server.received()[0].text()).unwrap();
    let resource = attributes(&request["resourceSpans"][0]["resource"]);
    assert_eq!(
        resource,
        json!({
            "service.name": text("ranking"),
            "telemetry.sdk.name": text("durable-spans"),
            "telemetry.sdk.language": text("rust"),
            "telemetry.sdk.version": text(env!("CARGO_PKG_VERSION")),
            "temporal.namespace": text("prod"),
            "temporal.task_queue": text("rank"),
            "temporal.worker.build_id": text("7f3a"),
            "team": text("search"),
        })
    );
}

#[tokio::test]
async fn protobuf_says_the_same_and_is_compressed() {
    let server = Server::start(ok).await;
    let spans: Vec<Span> =
        (1..=20).map(|id| Span { id: SpanId::from_bits(id), ..generation() }).collect();
    let batch = SpanBatch::from_iter(spans);
    let protobuf = OtlpOptions::new(&server.base_url).service_name("ranking");
    OtlpSink::new(protobuf).unwrap().upsert_batch(&batch).await.unwrap();
    OtlpSink::new(json_options(&server).gzip(false)).unwrap().upsert_batch(&batch).await.unwrap();

    let [protobuf, json] = &server.received()[..] else { panic!("two requests") };
    for (request, content_type) in
        [(protobuf, "application/x-protobuf"), (json, "application/json")]
    {
        assert_eq!(request.target, "/v1/traces");
        assert_eq!(request.method.as_str(), "POST");
        assert_eq!(request.header("content-type"), Some(content_type));
    }
    assert!(protobuf.is_gzip() && !json.is_gzip());
    let told = ExportTraceServiceRequest::decode(&protobuf.bytes()[..]).unwrap();
    assert_eq!(told, serde_json::from_slice(&json.bytes()).unwrap());
    assert_eq!(told.resource_spans[0].scope_spans[0].spans.len(), 20);
}

/// The answer to a batch of which some spans were rejected.
fn partial(request: &Received, rejected: i64, message: &str) -> Response<Body> {
    let body = if request.header("content-type") == Some("application/json") {
        let rejected = rejected.to_string();
        let partial = json!({"rejectedSpans": rejected, "errorMessage": message});
        json!({"partialSuccess": partial}).to_string().into_bytes()
    } else {
        let error_message = message.to_owned();
        let partial = ExportTracePartialSuccess { rejected_spans: rejected, error_message };
        ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec()
    };
    Response::builder().status(200).body(Body::from(body)).unwrap()
}

#[tokio::test]
async fn spans_that_were_rejected_in_part_are_counted_and_none_is_sent_again() {
    for protocol in [OtlpProtocol::Protobuf, OtlpProtocol::Json] {
        let server = Server::start(|request| partial(request, 2, "too old: k=sk-secret")).await;
        let options = OtlpOptions::new(&server.base_url).protocol(protocol);
        let sink = OtlpSink::new(options.header("x-key", "sk-secret")).unwrap();
        let batch = SpanBatch::from_iter([generation(), root()]);
        let error = sink.upsert_batch(&batch).await.unwrap_err();
        assert_eq!(error.rejected_spans(), Some(2));
        assert_eq!(error.to_string(), "the sink rejected 2 spans: too old: k=***");
        assert!(!shown(&error).contains("sk-secret"));
    }
    let server = Server::start(|request| partial(request, 0, "deprecated")).await;
    let sink = OtlpSink::new(OtlpOptions::new(&server.base_url)).unwrap();
    sink.upsert_batch(&SpanBatch::from_iter([root()])).await.unwrap();
}

#[tokio::test]
async fn answers_of_any_form_are_a_success_if_their_status_is() {
    for answer in ["", "{}", "null", r#"{"status":"ok"}"#, "<p>fine"] {
        let server = Server::start(move |_| Response::new(Body::from(answer))).await;
        let sink = OtlpSink::new(json_options(&server)).unwrap();
        sink.upsert_batch(&SpanBatch::from_iter([root()])).await.unwrap();
    }
}

#[tokio::test]
async fn no_secret_of_a_preset_is_ever_shown() {
    let server = Server::start(|request| {
        // A server that repeats the key, without what stands before it.
        let value = request.header("authorization").or(request.header("x-api-key")).unwrap();
        let key = value.rsplit(' ').next().unwrap();
        let response = Response::builder().status(400).header("content-type", "text/plain");
        response.body(Body::from(format!("bad {key} sk-secret"))).unwrap()
    })
    .await;
    for options in [
        OtlpOptions::langfuse("pk-public", "sk-secret"),
        OtlpOptions::langsmith("sk-secret", Some("p")),
        OtlpOptions::braintrust("sk-secret", "project_name:p"),
    ] {
        let options = options.with_base_url(&server.base_url);
        let debug = format!("{options:?}");
        let sink = OtlpSink::new(options).unwrap();
        let error = sink.upsert_batch(&SpanBatch::from_iter([root()])).await.unwrap_err();
        assert!(error.to_string().ends_with("(400): bad *** ***"), "{error}");
        for text in [debug, format!("{sink:?}"), shown(&error)] {
            assert!(!text.contains("sk-secret") && !text.contains("cGstcHVibGlj"), "{text}");
        }
    }
}

#[tokio::test]
async fn each_preset_has_the_headers_and_names_of_its_backend() {
    let server = Server::start(ok).await;
    let langsmith = OtlpOptions::langsmith("k", Some("ranking"));
    let presets = [
        (OtlpOptions::langfuse("pk", "sk"), "langfuse"),
        (langsmith, "langsmith"),
        (OtlpOptions::braintrust("k", "project_name:ranking"), "braintrust"),
    ];
    for (options, name) in presets {
        let options = options.with_base_url(&server.base_url).protocol(OtlpProtocol::Json);
        let sink = OtlpSink::new(options).unwrap();
        assert_eq!(sink.name(), name);
        assert!(!sink.contract().takes_open_spans());
        sink.upsert_batch(&SpanBatch::from_iter([generation()])).await.unwrap();
    }
    let [langfuse, langsmith, braintrust] = &server.received()[..] else { panic!("three") };
    assert_eq!(langfuse.target, "/api/public/otel/v1/traces");
    assert_eq!(langfuse.header("authorization"), Some("Basic cGs6c2s="));
    assert_eq!(langfuse.header("x-langfuse-ingestion-version"), Some("4"));
    assert_eq!(langsmith.target, "/otel/v1/traces");
    assert_eq!(langsmith.header("x-api-key"), Some("k"));
    assert_eq!(langsmith.header("langsmith-project"), Some("ranking"));
    assert_eq!(braintrust.target, "/otel/v1/traces");
    assert_eq!(braintrust.header("authorization"), Some("Bearer k"));
    assert_eq!(braintrust.header("x-bt-parent"), Some("project_name:ranking"));

    let told = |request: &Received| {
        let request: Value = serde_json::from_str(&request.text()).unwrap();
        attributes(&request["resourceSpans"][0]["scopeSpans"][0]["spans"][0])
    };
    let input = text(r#"{"input":[{"content":"hi","role":"user"}]}"#);
    let output = text(r#"{"output":[{"content":"yo","role":"assistant"}]}"#);
    let told = [told(langfuse), told(langsmith), told(braintrust)];
    assert_eq!(told[0]["langfuse.observation.input"], input);
    assert_eq!(told[0]["langfuse.observation.output"], output);
    assert_eq!(told[0]["langfuse.observation.type"], text("generation"));
    assert_eq!(told[1]["gen_ai.prompt"], input);
    assert_eq!(told[1]["gen_ai.completion"], output);
    assert_eq!(told[1]["langsmith.span.kind"], text("llm"));
    assert_eq!(told[2]["braintrust.input_json"], input);
    assert_eq!(told[2]["braintrust.output_json"], output);
    assert_eq!(told[2]["braintrust.span_attributes"], text(r#"{"type":"llm"}"#));
    for told in told {
        assert_eq!(told["gen_ai.usage.input_tokens"], json!({"intValue": "3"}));
        assert_eq!(told["session.id"], text("conv-1"));
    }
}

#[tokio::test]
async fn errors_say_which_setting_of_which_backend_to_mend() {
    let server = Server::start(|_| status(401)).await;
    let message = async |options: OtlpOptions| {
        let sink = OtlpSink::new(options.with_base_url(&server.base_url)).unwrap();
        sink.upsert_batch(&SpanBatch::from_iter([root()])).await.unwrap_err().to_string()
    };
    assert_eq!(
        message(OtlpOptions::langfuse("a", "b")).await,
        "Langfuse refused the API key (401): check LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY"
    );
    assert_eq!(
        message(OtlpOptions::new("")).await,
        "the OTLP backend refused the API key (401): check OTEL_EXPORTER_OTLP_HEADERS"
    );
    let error = OtlpSink::new(OtlpOptions::new("nowhere")).unwrap_err().to_string();
    assert!(error.contains("OTEL_EXPORTER_OTLP_ENDPOINT"), "{error}");
}

#[tokio::test]
async fn what_the_backend_would_drop_without_a_word_is_counted() {
    let server = Server::start(ok).await;
    let options = OtlpOptions::new(&server.base_url).oldest(Duration::from_secs(24 * 3600));
    let deliverer = Deliverer::new(OtlpSink::new(options).unwrap());
    let mut old = generation();
    old.start_timestamp = time("2020-01-01T00:00:00+00:00");
    old.end_timestamp = Some(time("2020-01-02T00:00:00+00:00"));
    let group = FlushGroup {
        flush: 1,
        digest: digest(&[old.clone()]),
        part_of: None,
        spans: vec![old].into(),
    };
    deliverer.take_last("run", &group);
    let statistics = deliverer.flush(Duration::from_secs(10)).await;
    assert_eq!(statistics.dropped[&DropReason::TooOld], 1);
    assert!(server.received().is_empty());
}

#[tokio::test]
async fn two_backends_of_one_kind_are_told_apart() {
    let server = Server::start(ok).await;
    let sink = || OtlpSink::new(OtlpOptions::new(&server.base_url)).unwrap();
    let both = FanOut::from(Deliverer::new(sink())).and(sink());
    let names: Vec<_> = both.by_sink().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["otlp", "otlp-2"]);
    assert_eq!(both.flush(Duration::from_secs(1)).await.recorded, 0);
}
