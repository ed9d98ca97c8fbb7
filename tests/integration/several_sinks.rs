//! Two sinks, of which one is down at the close of a run.

use std::{collections::BTreeSet, time::Duration};

use durable_spans::{DropReason, DurableSpans, FileSink, MemorySink, SinkError, Span, SpanId};
use temporalio_client::WorkflowGetResultOptions;

use crate::{
    couriers::{couriers, end_of, until_ended, worker},
    harness::{Fleet, LIMIT, all_ended, while_running},
    workflows::{Quiet, Recorded},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_courier_brings_the_sink_that_was_down_what_the_other_had_at_once_and_has_once() {
    let fleet = Fleet::new("several_sinks").await;
    fleet.sink.fail_with(|_| Some(SinkError::retryable("down")));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spans.jsonl");
    let spans = fleet.spans.clone().also(FileSink::open(&path).unwrap());
    let in_file = || -> Vec<Span> {
        let lines = std::fs::read_to_string(&path).unwrap();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };

    while_running(worker(&fleet, &spans), async {
        let start = fleet.client.start_workflow(Recorded::run, 3u32, fleet.start_options());
        let handle = start.await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        let by_sink = spans.statistics_by_sink();
        let of = |name: &str| by_sink.iter().find(|(known, _)| known == name).unwrap().1.clone();
        assert_eq!(of("memory").delivered, 0);
        assert!(of("file").delivered > 0 && of("file").deferred == 0, "{by_sink:?}");
        assert!(in_file().iter().any(|span| span.parent_id.is_none()), "the root is there");

        fleet.sink.fail_with(|_| None);
        let history = fleet.history(handle.info().workflow_id.as_str(), None);
        let started = couriers(&history.into_events().await.unwrap());
        assert_eq!(started.len(), 1);
        until_ended(&fleet.client, &started[0]).await;
    })
    .await;
    let statistics = spans.flush(LIMIT.min(Duration::from_secs(10))).await;
    assert_eq!((statistics.deferred, statistics.dropped_total()), (0, 0));

    let (file, memory) = (in_file(), fleet.sink.spans());
    let ids =
        |spans: &[Span]| -> BTreeSet<SpanId> { spans.iter().map(|span| span.id.clone()).collect() };
    assert_eq!(ids(&file), ids(&memory));
    assert_eq!(ids(&file).len(), file.len(), "no span is in the file twice");
    assert!(all_ended(&memory));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_courier_that_gives_up_names_the_sink_that_lacks_the_spans() {
    let sink = MemorySink::new();
    let dir = tempfile::tempdir().unwrap();
    let file = FileSink::open(dir.path().join("spans.jsonl")).unwrap();
    let spans = DurableSpans::new(sink.clone()).also(file);
    let spans = spans.courier_patience(Duration::from_secs(1));
    let fleet = Fleet::with("lacking", spans, sink, Default::default()).await;
    fleet.sink.fail_with(|_| Some(SinkError::retryable("down")));
    let error = while_running(worker(&fleet, &fleet.spans), async {
        let start = fleet.client.start_workflow(Quiet::run, 2, fleet.start_options());
        let handle = start.await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        let history = fleet.history(handle.info().workflow_id.as_str(), None);
        let started = couriers(&history.into_events().await.unwrap());
        end_of(&fleet.client, &started[0]).await.unwrap_err()
    })
    .await;
    let error = format!("{error:?}");
    assert!(error.contains("gave up, 3 spans are lost to memory: Quiet "), "{error}");
    assert!(!error.contains("lost to file"), "{error}");
    fleet.spans.flush(Duration::from_secs(10)).await;
    for (name, statistics) in fleet.spans.statistics_by_sink() {
        let expired = statistics.dropped.get(&DropReason::Expired).copied().unwrap_or(0);
        let expected = if name == "memory" { (0, 3) } else { (3, 0) };
        assert_eq!((statistics.delivered, expired), expected, "{name}");
    }
}
