//! Sinks that do not take what they get. No run is harmed, and nothing is lost silently.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use durable_spans::{
    DropReason, DurableSpans, Limits, MemorySink, SgpOptions, SgpSink, Statistics, WorkflowTracing,
};
use durable_spans_collector::{Collector, RunningCollector};
use temporalio_client::WorkflowGetResultOptions;

use crate::{
    harness::{Fleet, all_ended, facts, named, of_workflow, replayed_spans, while_running},
    workflows::{Large, Named, Order, Quiet, Ship, Work},
};

async fn collector(key: Option<&str>) -> (tempfile::TempDir, RunningCollector) {
    let dir = tempfile::tempdir().unwrap();
    let mut collector = Collector::open(dir.path().join("spans.sqlite")).unwrap();
    if let Some(key) = key {
        collector = collector.api_key(key);
    }
    let running = collector.serve(([127, 0, 0, 1], 0)).await.unwrap();
    (dir, running)
}

async fn fleet(name: &str, options: SgpOptions) -> Fleet {
    let spans = DurableSpans::new(SgpSink::new(options).unwrap());
    Fleet::with(name, spans, MemorySink::new(), Default::default()).await
}

/// Runs `Named` with these names for its spans and returns how long that took.
async fn run_named(fleet: &Fleet, names: &[&str]) -> Duration {
    let mut options = fleet.worker_options();
    options.register_activities(Work).register_workflow::<Named>().unwrap();
    let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
    while_running(fleet.worker(options), async {
        let start = Instant::now();
        let run = fleet.client.start_workflow(Named::run, names, fleet.start_options());
        let handle = run.await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        start.elapsed()
    })
    .await
}

fn counts(statistics: &Statistics) -> (u64, u64, u64, u64) {
    let Statistics { recorded, delivered, deferred, .. } = statistics;
    (*recorded, *delivered, *deferred, statistics.dropped_total())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_collector_holds_is_what_the_workflow_recorded() {
    let (_dir, collector) = collector(None).await;
    let fleet = fleet("end-to-end", SgpOptions::new(collector.url())).await;
    let mut options = fleet.worker_options();
    options.register_activities(Work);
    options.register_workflow::<Order>().unwrap().register_workflow::<Ship>().unwrap();
    let handle = while_running(fleet.worker(options), async {
        let start = fleet.client.start_workflow(Order::run, 1u32, fleet.start_options());
        let handle = start.await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        handle
    })
    .await;

    let traces = collector.store().traces(10).unwrap();
    assert_eq!(traces.len(), 1);
    let spans = collector.store().spans(&traces[0].trace_id).unwrap();
    assert!(all_ended(&spans));
    assert_eq!(counts(&fleet.spans.statistics()), (spans.len() as u64, spans.len() as u64, 0, 0));

    let history = fleet.history(handle.info().workflow_id.as_str(), handle.run_id());
    let replayed = replayed_spans(history, |options| {
        options.register_workflow::<Order>().unwrap();
    })
    .await;
    let stored = facts(&of_workflow(&spans));
    for fact in facts(&replayed) {
        assert!(stored.contains(&fact), "{fact}");
    }
    collector.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_sink_harms_no_run_and_everything_is_counted_as_deferred() {
    // A port that was free a moment ago, with nobody behind it.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let fleet = fleet("unreachable", SgpOptions::new(format!("http://{closed}"))).await;
    let elapsed = run_named(&fleet, &["a", "b"]).await;
    assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
    // The run, 2 spans, 1 activity and its attempt.
    assert_eq!(counts(&fleet.spans.statistics()), (5, 0, 5, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_drops_nothing_and_the_right_one_delivers() {
    let (_dir, collector) = collector(Some("right")).await;
    let options = SgpOptions::new(collector.url()).account_id("account");
    let wrong = fleet("wrong-key", options.clone().api_key("wrong")).await;
    run_named(&wrong, &["a", "b"]).await;
    assert_eq!(counts(&wrong.spans.statistics()), (5, 0, 5, 0));
    assert!(collector.store().traces(10).unwrap().is_empty());

    let right = fleet("right-key", options.api_key("right")).await;
    run_named(&right, &["a", "b"]).await;
    assert_eq!(counts(&right.spans.statistics()), (5, 5, 0, 0));
    collector.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_that_the_server_refuses_is_dropped_alone() {
    let (_dir, collector) = collector(None).await;
    let fleet = fleet("refused", SgpOptions::new(collector.url())).await;
    run_named(&fleet, &["good", "nul \0 in a name", "also good"]).await;
    let statistics = fleet.spans.statistics();
    assert_eq!(counts(&statistics), (6, 5, 0, 1));
    assert_eq!(statistics.dropped[&DropReason::Rejected], 1);
    let trace = &collector.store().traces(10).unwrap()[0];
    let stored = collector.store().spans(&trace.trace_id).unwrap();
    assert_eq!(stored.len(), 5);
    collector.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_flush_that_fails_gives_its_spans_to_the_last_resort() {
    let fleet = Fleet::new("last-resort").await;
    let mut options = fleet.worker_options();
    // Without the flush activity, so that the flush fails at once.
    options.register_activities(Work).register_workflow::<Quiet>().unwrap();
    let rescued = Arc::new(Mutex::new(Vec::new()));
    let keep = rescued.clone();
    let tracing = WorkflowTracing::new().last_resort(move |run_id, group| {
        let names = group.spans.iter().map(|span| span.name.to_string());
        keep.lock().unwrap().push((run_id.to_owned(), names.collect::<Vec<_>>()));
    });
    options.workflow_interceptor(tracing.interceptor());
    let handle = while_running(fleet.untraced_worker(options), async {
        let start = fleet.client.start_workflow(Quiet::run, 2, fleet.start_options());
        let handle = start.await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        handle
    })
    .await;
    let run_id = handle.run_id().unwrap().to_owned();
    let names = ["Quiet", "step", "step"].map(str::to_owned).to_vec();
    assert_eq!(*rescued.lock().unwrap(), [(run_id, names)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_of_five_megabytes_and_a_full_buffer_harm_no_run_and_are_told() {
    let sink = MemorySink::new();
    let spans = DurableSpans::new(sink.clone()).limits(Limits::new().buffer_spans(10));
    let fleet = Fleet::with("limits", spans, sink, Default::default()).await;
    let mut options = fleet.worker_options();
    options.register_activities(Work);
    options.register_workflow::<Large>().unwrap();
    while_running(fleet.worker(options), async {
        let start = fleet.client.start_workflow(Large::run, 14, fleet.start_options());
        let handle = start.await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
    })
    .await;
    let spans = fleet.sink.spans();
    let statistics = fleet.spans.statistics();
    // "large", 14 steps and the root, of which 10 and the root fit.
    assert_eq!(counts(&statistics), (16, 11, 0, 5));
    assert_eq!(statistics.dropped[&DropReason::BufferFull], 5);
    assert_eq!(named(&spans, "Large").metadata["durable_spans.dropped"]["buffer_full"], 5);
    let large = named(&spans, "large");
    assert!(large.input["text"].as_str().unwrap().ends_with("(truncated, 5000002 bytes)"));
    assert_eq!(large.metadata["truncated"], serde_json::json!(["input.text"]));
}
