//! What these tests share: a sink over HTTP, turns, and the proof that no run was harmed.

use std::time::Duration;

use durable_spans::{DurableSpans, FlushPolicy, MemorySink, SgpOptions, SgpSink};
use durable_spans_test_sink::FaultySink;
use futures::{StreamExt, stream};
use temporalio_common::protos::temporal::api::history::v1::{
    HistoryEvent, history_event::Attributes,
};
use tokio::sync::{Mutex, MutexGuard};

use crate::harness::Fleet;

/// How many requests the tests make to the server at once.
pub(crate) const AT_ONCE: usize = 50;

pub(crate) struct Scene {
    pub(crate) sink: FaultySink,
    pub(crate) fleet: Fleet,
    _folder: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Scene {
    pub(crate) async fn new(name: &str, policy: FlushPolicy) -> Self {
        static TURN: Mutex<()> = Mutex::const_new(());
        let turn = TURN.lock().await;
        let folder = tempfile::tempdir().unwrap();
        let sink = FaultySink::start(folder.path().join("spans.sqlite")).await.unwrap();
        let fleet = fleet(name, &sink.url(), policy).await;
        Self { sink, fleet, _folder: folder, _turn: turn }
    }
}

/// A fleet that delivers to this URL.
pub(crate) async fn fleet(name: &str, sink_url: &str, policy: FlushPolicy) -> Fleet {
    let options = SgpOptions::new(sink_url).timeout(Duration::from_secs(2));
    let spans = DurableSpans::new(SgpSink::new(options).unwrap()).flush_policy(policy);
    Fleet::with(name, spans, MemorySink::new(), Default::default()).await
}

/// The histories of these runs. Asserts that each of them completed at its first attempt, and that
/// none of its workflow tasks failed.
///
/// Tasks that time out may be one in a hundred: under this load, the development server hands out
/// tasks that reach no worker, with and without tracing.
pub(crate) async fn unharmed(fleet: &Fleet, workflow_ids: &[String]) -> Vec<Vec<HistoryEvent>> {
    use Attributes::*;
    let histories = workflow_ids.iter().map(|id| fleet.history(id, None).into_events());
    let histories: Vec<_> = stream::iter(histories).buffered(AT_ONCE).collect().await;
    let histories: Vec<_> = histories.into_iter().map(Result::unwrap).collect();
    let mut timed_out = 0;
    for (events, id) in histories.iter().zip(workflow_ids) {
        let attributes: Vec<_> =
            events.iter().filter_map(|event| event.attributes.as_ref()).collect();
        let last = attributes.last().unwrap();
        assert!(matches!(last, WorkflowExecutionCompletedEventAttributes(_)), "{id}: {last:?}");
        for event in attributes {
            match event {
                WorkflowExecutionStartedEventAttributes(start) => assert_eq!(start.attempt, 1),
                WorkflowTaskFailedEventAttributes(failed) => panic!("{id}: {failed:?}"),
                WorkflowTaskTimedOutEventAttributes(_) => timed_out += 1,
                _ => {}
            }
        }
    }
    let first = workflow_ids.first();
    assert!(timed_out <= workflow_ids.len() / 100, "{timed_out} tasks of {first:?}… timed out");
    histories
}
