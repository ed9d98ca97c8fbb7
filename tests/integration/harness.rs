//! What every test needs: a task queue of its own, a worker, and the spans that arrived.

use std::{
    future::Future,
    pin::pin,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use durable_spans::{
    DurableSpans, MemorySink, Span, SpanBatch, SpanSink, SpanStatus,
    testing::{Trace, assert_trace},
};
use futures::FutureExt;
use prost::Message;
use temporalio_client::{
    Client, ClientOptions, WorkflowExecutionInfo, WorkflowFetchHistoryOptions, WorkflowHandle,
    WorkflowHistory, WorkflowStartOptions,
};
use temporalio_common::{
    UntypedWorkflow, data_converters::DataConverter,
    protos::temporal::api::history::v1::HistoryEvent,
};
use temporalio_sdk::{
    Runtime, Worker, WorkerOptions, runtime::RuntimeOptions, workflow_replayer::WorkflowReplayer,
    workflow_replayer::WorkflowReplayerOptions,
};

/// How long anything may take before a test gives up.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A task queue with a client, and a sink in memory behind its installation.
pub(crate) struct Fleet {
    pub(crate) client: Client,
    pub(crate) spans: DurableSpans,
    pub(crate) sink: MemorySink,
    pub(crate) queue: String,
}

impl Fleet {
    pub(crate) async fn new(name: &str) -> Self {
        let sink = MemorySink::new();
        Self::with(name, DurableSpans::new(sink.clone()), sink, DataConverter::default()).await
    }

    pub(crate) async fn with(
        name: &str,
        spans: DurableSpans,
        sink: MemorySink,
        data_converter: DataConverter,
    ) -> Self {
        let mut options =
            ClientOptions::new("default").data_converter(data_converter.clone()).build();
        spans.install_client(&mut options);
        Self { client: client(options).await, spans, sink, queue: unique(name) }
    }

    /// Options of a worker for this queue.
    pub(crate) fn worker_options(&self) -> WorkerOptions {
        WorkerOptions::new(self.queue.clone()).build()
    }

    /// A traced worker.
    pub(crate) fn worker(&self, mut options: WorkerOptions) -> Worker {
        self.spans.install(&mut options).unwrap();
        self.untraced_worker(options)
    }

    pub(crate) fn untraced_worker(&self, options: WorkerOptions) -> Worker {
        let runtime = Runtime::from_current_tokio(RuntimeOptions::builder().build().unwrap());
        Worker::new(&runtime.unwrap(), self.client.clone(), options).unwrap()
    }

    pub(crate) fn start_options(&self) -> WorkflowStartOptions {
        WorkflowStartOptions::new(self.queue.clone(), unique(&self.queue)).build()
    }

    /// The events of the latest run of a workflow id.
    pub(crate) async fn events(&self, workflow_id: &str) -> Vec<HistoryEvent> {
        self.history(workflow_id, None).into_events().await.unwrap()
    }

    /// The history of a run, of the latest one of the workflow id where none is named.
    pub(crate) fn history(&self, workflow_id: &str, run_id: Option<&str>) -> WorkflowHistory {
        let mut info =
            WorkflowExecutionInfo::builder().namespace("default").workflow_id(workflow_id).build();
        info.run_id = run_id.map(str::to_owned);
        let handle = WorkflowHandle::<_, UntypedWorkflow>::new(self.client.clone(), info);
        handle.fetch_history(WorkflowFetchHistoryOptions::default())
    }
}

pub(crate) async fn client(options: ClientOptions) -> Client {
    let server = durable_spans_test_server::shared().await;
    Client::new(server.connection().await.unwrap(), options).unwrap()
}

/// A name that no other test of this or another process uses.
pub(crate) fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{name}-{}-{count}", std::process::id())
}

/// Runs the worker until `scenario` has ended, then stops it.
pub(crate) async fn while_running<T>(mut worker: Worker, scenario: impl Future<Output = T>) -> T {
    let stop = worker.shutdown_handle();
    let mut run = pin!(worker.run());
    let scenario = pin!(tokio::time::timeout(LIMIT, scenario));
    let result = tokio::select! {
        result = scenario => result.expect("the scenario ends within a minute"),
        ended = &mut run => panic!("the worker ended early: {ended:?}"),
    };
    stop();
    run.await.unwrap();
    result
}

/// Replays a history and returns the spans that its flushes carry.
pub(crate) async fn replayed_spans(
    history: WorkflowHistory,
    register: impl FnOnce(&mut WorkflowReplayerOptions),
) -> Vec<Span> {
    let replay = MemorySink::new();
    let sink = replay.clone();
    let mut options = WorkflowReplayerOptions::new().build();
    register(&mut options);
    let tracing = durable_spans::WorkflowTracing::new();
    options.workflow_interceptor(
        tracing.observer(move |group| store(&sink, &group.spans)).interceptor(),
    );
    WorkflowReplayer::new(options).unwrap().replay_workflow(history).await.unwrap();
    replay.spans()
}

pub(crate) fn store(sink: &MemorySink, spans: &[Span]) {
    let batch: SpanBatch = spans.iter().cloned().collect();
    let stored = sink.upsert_batch(&batch).now_or_never();
    stored.expect("a sink in memory answers at once").unwrap();
}

/// The spans as an indented tree.
pub(crate) fn tree(spans: &[Span]) -> String {
    Trace::from(spans.to_vec()).to_string()
}

/// Compares the spans with a tree that is indented like code.
#[track_caller]
pub(crate) fn assert_tree(spans: &[Span], expected: &str) {
    assert_trace!(spans, expected);
}

/// What must be the same live, after restarts and in replay: all but the times, and how many spans
/// the sink had confirmed when the root ended.
pub(crate) fn facts(spans: &[Span]) -> Vec<String> {
    let mut facts: Vec<String> = spans
        .iter()
        .map(|span| {
            let mut span = span.clone();
            span.start_timestamp = durable_spans::Timestamp::from_unix_ns(0);
            span.end_timestamp = span.end_timestamp.map(|_| span.start_timestamp);
            for unsure in ["delivered", "deferred", "dropped"] {
                span.metadata.remove(&format!("durable_spans.{unsure}"));
            }
            // The SDK's replayer does not know it.
            span.metadata.remove("temporal.namespace");
            for values in [&mut span.input, &mut span.output, &mut span.metadata] {
                // By name, whatever their order.
                *values = std::mem::take(values).into_map().into();
            }
            serde_json::to_string(&span).unwrap()
        })
        .collect();
    facts.sort();
    facts
}

/// The spans that a workflow recorded, without those that activities made.
pub(crate) fn of_workflow(spans: &[Span]) -> Vec<Span> {
    let kind = |span: &Span| span.metadata.get("temporal.kind").cloned();
    spans.iter().filter(|s| kind(s) != Some("activity_attempt".into())).cloned().collect()
}

pub(crate) fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let mut found = spans.iter().filter(|span| span.name == name);
    let span = found.next().unwrap_or_else(|| panic!("no span {name} in\n{}", tree(spans)));
    assert!(found.next().is_none(), "several spans {name}");
    span
}

pub(crate) fn all_ended(spans: &[Span]) -> bool {
    spans.iter().all(|span| span.end_timestamp.is_some())
}

pub(crate) fn errors(spans: &[Span]) -> Vec<&str> {
    let mut names: Vec<&str> = spans
        .iter()
        .filter(|span| span.status == SpanStatus::Error)
        .map(|span| &*span.name)
        .collect();
    names.sort_unstable();
    names
}

/// Size of an event in the server's history, in bytes.
pub(crate) fn event_bytes(event: &HistoryEvent) -> usize {
    event.encoded_len()
}
