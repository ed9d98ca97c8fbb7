//! Two sinks, of which one is down at the close of a run.

use std::{collections::BTreeSet, time::Duration};

use durable_spans::{FileSink, SinkError, Span, SpanId};
use temporalio_client::WorkflowGetResultOptions;

use crate::{
    couriers::{couriers, until_ended, worker},
    harness::{Fleet, LIMIT, all_ended, while_running},
    workflows::Recorded,
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
