//! The sink is down past the close of a run, and the worker's process ends.

use std::time::Duration;

use durable_spans::{BreakerState, DropReason, DurableSpans, MemorySink, SinkError, Span};
use temporalio_client::{
    Client, WorkflowExecutionInfo, WorkflowGetResultOptions, WorkflowHandle,
    errors::WorkflowGetResultError,
};
use temporalio_common::{
    UntypedWorkflow,
    protos::temporal::api::history::v1::{HistoryEvent, history_event::Attributes},
};
use temporalio_sdk::{
    Worker,
    workflow_replayer::{WorkflowReplayer, WorkflowReplayerOptions},
};

use crate::{
    harness::{Fleet, all_ended, facts, of_workflow, replayed_spans, while_running},
    workflows::{Fewer, Quiet, Recorded, TenTimesMore, Work},
};

pub(crate) fn worker(fleet: &Fleet, spans: &DurableSpans) -> Worker {
    let mut options = fleet.worker_options();
    options.register_activities(Work);
    options.register_workflow::<Quiet>().unwrap().register_workflow::<Recorded>().unwrap();
    spans.install(&mut options).unwrap();
    fleet.untraced_worker(options)
}

/// The workflow ids of the couriers that a run has sent.
pub(crate) fn couriers(events: &[HistoryEvent]) -> Vec<String> {
    let started = events.iter().filter_map(|event| match &event.attributes {
        Some(Attributes::StartChildWorkflowExecutionInitiatedEventAttributes(child)) => {
            let is_courier = child.workflow_type.as_ref()?.name == "durable_spans.courier";
            is_courier.then(|| child.workflow_id.clone())
        }
        _ => None,
    });
    started.collect()
}

pub(crate) async fn until_ended(client: &Client, workflow_id: &str) {
    end_of(client, workflow_id).await.unwrap();
}

pub(crate) async fn end_of(
    client: &Client,
    workflow_id: &str,
) -> Result<(), WorkflowGetResultError> {
    let info = WorkflowExecutionInfo::builder().namespace("default").workflow_id(workflow_id);
    let handle = WorkflowHandle::<_, UntypedWorkflow>::new(client.clone(), info.build());
    handle.get_result(WorkflowGetResultOptions::default()).await.map(drop)
}

/// Another process, with a sink that works.
fn next_process() -> (DurableSpans, MemorySink) {
    let sink = MemorySink::new();
    (DurableSpans::new(sink.clone()), sink)
}

#[tokio::test(flavor = "multi_thread")]
async fn couriers_carry_the_spans_past_the_close_and_the_death_of_the_process() {
    let fleet = Fleet::new("courier").await;
    fleet.sink.fail_with(|_| Some(SinkError::retryable("down")));
    let handle = while_running(worker(&fleet, &fleet.spans), async {
        let start = fleet.client.start_workflow(Recorded::run, 3u32, fleet.start_options());
        let handle = start.await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        handle
    })
    .await;
    assert!(fleet.sink.spans().is_empty());
    let id = handle.info().workflow_id.clone();
    let history = || fleet.history(&id, None);
    let started = couriers(&history().into_events().await.unwrap());
    assert_eq!(started.len(), 1);

    let (spans, sink) = next_process();
    while_running(worker(&fleet, &spans), until_ended(&fleet.client, &started[0])).await;
    let live = of_workflow(&sink.spans());
    assert!(all_ended(&live));
    let replayed = replayed_spans(history(), |options| {
        options.register_workflow::<Recorded>().unwrap();
    })
    .await;
    assert_eq!(facts(&live), facts(&replayed));
    let statistics = spans.statistics();
    assert_eq!(statistics.delivered, live.len() as u64);

    for register in [more, fewer] {
        let mut options = WorkflowReplayerOptions::new().build();
        register(&mut options);
        spans.install_replayer(&mut options);
        WorkflowReplayer::new(options).unwrap().replay_workflow(history()).await.unwrap();
    }
}

fn more(options: &mut WorkflowReplayerOptions) {
    options.register_workflow::<TenTimesMore>().unwrap();
}

fn fewer(options: &mut WorkflowReplayerOptions) {
    options.register_workflow::<Fewer>().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_for_one_courier_is_shared_and_the_process_that_lives_on_sends_once() {
    let fleet = Fleet::new("couriers").await;
    fleet.sink.fail_with(|_| Some(SinkError::retryable("down")));
    while_running(worker(&fleet, &fleet.spans), async {
        // About 640 bytes of JSON each.
        let start = fleet.client.start_workflow(Quiet::run, 5_000, fleet.start_options());
        let handle = start.await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        let history = fleet.history(handle.info().workflow_id.as_str(), None);
        let started = couriers(&history.into_events().await.unwrap());
        assert_eq!(started.len(), 4);
        fleet.sink.fail_with(|_| None);
        for courier in started {
            until_ended(&fleet.client, &courier).await;
        }
    })
    .await;
    let spans: Vec<Span> = fleet.sink.spans();
    assert_eq!(spans.len(), 5_001);
    assert!(all_ended(&spans));
    let statistics = fleet.spans.flush(Duration::from_secs(10)).await;
    assert_eq!((statistics.recorded, statistics.delivered, statistics.deferred), (5_001, 5_001, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_courier_that_gives_up_names_what_is_lost() {
    let sink = MemorySink::new();
    let spans = DurableSpans::new(sink.clone()).courier_patience(Duration::from_secs(1));
    let fleet = Fleet::with("gives-up", spans, sink, Default::default()).await;
    fleet.sink.fail_with(|_| Some(SinkError::retryable("down")));
    let error = while_running(worker(&fleet, &fleet.spans), async {
        let start = fleet.client.start_workflow(Quiet::run, 2, fleet.start_options());
        let handle = start.await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        assert_ne!(fleet.spans.breaker(), BreakerState::Closed);
        let history = fleet.history(handle.info().workflow_id.as_str(), None);
        let started = couriers(&history.into_events().await.unwrap());
        end_of(&fleet.client, &started[0]).await.unwrap_err()
    })
    .await;
    let error = format!("{error:?}");
    assert!(error.contains("gave up, 3 spans are lost to memory: Quiet "), "{error}");
    assert!(error.contains(", step "), "{error}");
    let statistics = fleet.spans.flush(Duration::from_secs(10)).await;
    assert_eq!(statistics.dropped[&DropReason::Expired], 3);
    assert_eq!((statistics.recorded, statistics.delivered, statistics.deferred), (3, 0, 0));
}
