//! Several workers with an Opper sink each, whose runs write one trace.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::http::Method;
use durable_spans_activity::{OpperOptions, OpperSink, SpanBatch, SpanSink};
use durable_spans_collector::Collector;
use durable_spans_model::{Span, SpanId, Timestamp, TraceId};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};

use crate::{
    opper::Opper,
    server::{Server, status},
};

fn sink(url: &str) -> OpperSink {
    OpperSink::new(OpperOptions::new("op-x").base_url(url).gzip(false)).unwrap()
}

fn open(id: u128, parent: Option<u128>) -> Span {
    let start: Timestamp = "2026-11-21T08:04:12.385716+00:00".parse().unwrap();
    let mut span =
        Span::new(TraceId::from_bits(1), SpanId::from_bits(id), format!("s{id:03}"), start);
    span.parent_id = parent.map(SpanId::from_bits);
    span
}

fn ended(id: u128, parent: Option<u128>) -> Span {
    let span = open(id, parent);
    Span { end_timestamp: Some(span.start_timestamp), ..span }
}

async fn send(sink: &OpperSink, spans: impl IntoIterator<Item = Span>) {
    sink.upsert_batch(&SpanBatch::from_iter(spans)).await.unwrap();
}

/// Against a real collector's Opper API.
#[tokio::test]
async fn a_run_that_moves_to_a_worker_which_knows_its_trace_leaves_no_double() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("spans.sqlite");
    let collector = Collector::open(&file).unwrap().serve(([127, 0, 0, 1], 0)).await.unwrap();
    let (first, second) = (sink(&collector.url()), sink(&collector.url()));
    // A run with the first worker, its child with the second: both know the trace.
    send(&first, [open(1, None), open(2, Some(1))]).await;
    send(&second, [open(20, Some(2)), ended(21, Some(20))]).await;
    send(&first, [ended(2, Some(1)), open(3, Some(1)), open(4, Some(3))]).await;
    // The first is deployed anew, and the run goes on with the second, which sends what the run has
    // not noted as acknowledged.
    send(&second, [ended(3, Some(1)), open(4, Some(3)), open(5, Some(3))]).await;
    // And back.
    let first = sink(&collector.url());
    let rest = [ended(4, Some(3)), ended(5, Some(3)), ended(20, Some(2)), ended(1, None)];
    send(&first, rest).await;

    let stored = Collector::open(&file).unwrap().store().spans(&TraceId::from_bits(1)).unwrap();
    let mut names: Vec<_> = stored.iter().map(|span| &*span.name).collect();
    names.sort_unstable();
    assert_eq!(names, ["s001", "s002", "s003", "s004", "s005", "s020", "s021"]);
    assert!(stored.iter().all(|span| span.end_timestamp.is_some()), "{stored:#?}");
    let by_id: BTreeMap<_, _> = stored.iter().map(|span| (&span.id, &*span.name)).collect();
    let parent = |name: &str| {
        let span = stored.iter().find(|span| span.name == name).unwrap();
        span.parent_id.as_ref().map(|id| by_id[id])
    };
    let parents = ["s001", "s002", "s003", "s004", "s005", "s020", "s021"].map(parent);
    let s001 = Some("s001");
    assert_eq!(parents, [None, s001, s001, Some("s003"), Some("s003"), Some("s002"), Some("s020")]);
}

#[tokio::test]
async fn what_two_workers_create_at_the_same_moment_is_told_when_its_root_has_ended() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _recorder = metrics::set_default_local_recorder(&recorder);
    let doubled = || {
        let all = snapshotter.snapshot().into_vec().into_iter();
        let mut counters = all.filter_map(|(key, _, _, value)| match value {
            DebugValue::Counter(count) if key.key().name() == "durable_spans_doubled" => {
                Some(count)
            }
            _ => None,
        });
        counters.next().unwrap_or(0)
    };
    let opper = Opper::default();
    let (answers, reads) = (opper.clone(), Arc::new(AtomicUsize::new(0)));
    let server = Server::start(move |request| {
        let is_read = request.method == Method::GET;
        // Both workers have looked before either of them creates.
        let is_early = is_read && reads.fetch_add(1, Ordering::Relaxed) < 2;
        if is_early { status(404) } else { answers.answer(request) }
    })
    .await;
    let (first, second) = (sink(&server.base_url), sink(&server.base_url));
    send(&first, [open(1, None), open(2, Some(1))]).await;
    send(&second, [open(2, Some(1))]).await;
    assert_eq!((opper.names().len(), doubled()), (3, 0));
    send(&first, [ended(2, Some(1)), ended(1, None)]).await;
    assert_eq!(doubled(), 1);
    // Told once, however often it is read.
    send(&first, [ended(3, Some(1))]).await;
    assert_eq!((opper.names().len(), doubled()), (4, 0));
}
