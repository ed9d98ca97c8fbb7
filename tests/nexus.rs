//! Nexus operations have spans, and their services learn the trace.

#![cfg(feature = "nexus")]
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::{Arc, Mutex};

use axum::{
    Json, Router,
    extract::Path,
    http::{HeaderMap, HeaderName, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use durable_spans::{DurableSpans, FlushPolicy, MemorySink, Span, SpanStatus, TraceParent};
use durable_spans_test_server::TemporalServer;
use serde_json::json;
use temporalio_client::{
    Client, ClientOptions, WorkflowFetchHistoryOptions, WorkflowGetResultOptions,
    WorkflowStartOptions, grpc::OperatorService, tonic::IntoRequest,
};
use temporalio_common::protos::temporal::api::{
    nexus::v1::{EndpointSpec, EndpointTarget, endpoint_target},
    operatorservice::v1::CreateNexusEndpointRequest,
};
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{
    NexusOperationOptions, Runtime, Worker, WorkerOptions, WorkflowContext, WorkflowResult,
    runtime::RuntimeOptions,
    workflow_replayer::{WorkflowReplayer, WorkflowReplayerOptions},
};

/// Starts three operations: one that is done at once, one that goes on, one that fails.
#[workflow]
#[derive(Default)]
struct Outside;

#[workflow_methods]
impl Outside {
    #[run(name = "Outside")]
    async fn run(ctx: &mut WorkflowContext<Self>, endpoint: String) -> WorkflowResult<()> {
        for operation in ["now", "later", "never"] {
            let options = NexusOperationOptions::builder()
                .endpoint(endpoint.clone())
                .service("shop")
                .operation(operation)
                .build();
            let _started = ctx.start_nexus_operation(options).await;
        }
        Ok(())
    }
}

type Heard = Arc<Mutex<Vec<String>>>;

/// A service that speaks Nexus over HTTP, and keeps the traces that it is told.
async fn service(heard: Heard) -> String {
    let operate = async move |Path((_, operation)): Path<(String, String)>, headers: HeaderMap| {
        let text = headers.get("traceparent").map(|text| text.to_str().unwrap().to_owned());
        heard.lock().unwrap().extend(text);
        match operation.as_str() {
            "now" => Json(json!("done")).into_response(),
            "later" => {
                let going_on = json!({ "token": "t-1", "state": "running" });
                (StatusCode::CREATED, Json(going_on)).into_response()
            }
            _ => refusal(),
        }
    };
    let router = Router::new().route("/{service}/{operation}", post(operate));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

fn refusal() -> Response {
    let state = HeaderName::from_static("nexus-operation-state");
    let failure = Json(json!({ "message": "sold out" }));
    (StatusCode::FAILED_DEPENDENCY, [(state, "failed")], failure).into_response()
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_have_spans_and_services_learn_the_trace_and_none_counts_for_the_rule() {
    let heard = Heard::default();
    let url = service(heard.clone()).await;
    // Nobody calls back, but a server that does not know where to is no client of services.
    let callback = "component.nexusoperations.callback.endpoint.template=\"http://127.0.0.1:1/\"";
    let options = TemporalServer::options().arg("--dynamic-config-value").arg(callback);
    let server = options.start().await.unwrap();
    let mut connection = server.connection().await.unwrap();
    let name = format!("nexus-{}", std::process::id());
    let variant = endpoint_target::Variant::External(endpoint_target::External { url });
    let spec = EndpointSpec {
        name: name.clone(),
        target: Some(EndpointTarget { variant: Some(variant) }),
        ..Default::default()
    };
    let create = CreateNexusEndpointRequest { spec: Some(spec) };
    connection.create_nexus_endpoint(create.into_request()).await.unwrap();

    let sink = MemorySink::new();
    // If Nexus operations counted, there would be a flush for each.
    let spans = DurableSpans::new(sink.clone()).flush_policy(FlushPolicy::new().operations(1));
    let mut options = ClientOptions::new("default").build();
    spans.install_client(&mut options);
    let client = Client::new(connection, options).unwrap();
    let mut options = WorkerOptions::new(name.clone()).build();
    options.register_workflow::<Outside>().unwrap();
    spans.install(&mut options).unwrap();
    let runtime = Runtime::from_current_tokio(RuntimeOptions::builder().build().unwrap()).unwrap();
    let mut worker = Worker::new(&runtime, client.clone(), options).unwrap();
    let stop = worker.shutdown_handle();
    let scenario = async {
        let start = WorkflowStartOptions::new(name.clone(), name.clone()).build();
        let handle = client.start_workflow(Outside::run, name.clone(), start).await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        stop();
        handle
    };
    let limit = std::time::Duration::from_secs(60);
    let scenario = async { tokio::time::timeout(limit, scenario).await.unwrap() };
    let (ended, handle) = tokio::join!(worker.run(), scenario);
    ended.unwrap();

    let recorded = sink.spans();
    let named = |name: &str| recorded.iter().find(|span| span.name == name).unwrap();
    let root = named("Outside");
    let operations = ["shop/now", "shop/later", "shop/never"].map(named);
    for operation in operations {
        assert_eq!(operation.parent_id.as_ref(), Some(&root.id));
        assert_eq!(operation.metadata["temporal.kind"], "nexus_operation");
        assert_eq!(operation.metadata["temporal.nexus_endpoint"], name);
        assert!(operation.end_timestamp.is_some());
    }
    let [now, later, never] = operations;
    assert_eq!([now.status, later.status], [SpanStatus::Success; 2]);
    assert_eq!(later.metadata["temporal.nexus_result_unseen"], true);
    assert!(!now.metadata.contains_key("temporal.nexus_result_unseen"));
    assert_eq!(never.status, SpanStatus::Error);
    assert_eq!(never.metadata["error_message"], "sold out");
    let told = |span: &Span| TraceParent::of(&span.trace_id, &span.id).unwrap().to_string();
    assert_eq!(*heard.lock().unwrap(), operations.map(told));

    // One event of ours: the flush at the close.
    let history = handle.fetch_history(WorkflowFetchHistoryOptions::default());
    let events = history.into_events().await.unwrap();
    let flushes = events.iter().filter(|event| {
        let text = format!("{event:?}");
        text.contains("MarkerRecorded")
    });
    assert_eq!(flushes.count(), 1);
    let mut options = WorkflowReplayerOptions::new().build();
    options.register_workflow::<Outside>().unwrap();
    spans.install_replayer(&mut options);
    let history = handle.fetch_history(WorkflowFetchHistoryOptions::default());
    WorkflowReplayer::new(options).unwrap().replay_workflow(history).await.unwrap();
}
