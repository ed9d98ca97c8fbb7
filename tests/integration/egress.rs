//! Workers that may not reach the network flush by normal activities on a task queue of others.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use durable_spans::{DropReason, DurableSpans, FlushPolicy, MemorySink};
use prost::Message;
use temporalio_client::{WorkflowGetResultOptions, WorkflowStartOptions};
use temporalio_common::{
    HasWorkflowDefinition,
    data_converters::DataConverter,
    protos::temporal::api::{
        common::v1::Payloads,
        history::v1::{HistoryEvent, history_event::Attributes},
    },
};
use temporalio_sdk::{
    Worker,
    workflow_replayer::{WorkflowReplayer, WorkflowReplayerOptions},
};

use crate::{
    codec::{Strict, assert_hidden},
    couriers::{couriers, until_ended},
    harness::{Fleet, all_ended, facts, named, of_workflow, replayed_spans, unique, while_running},
    workflows::{Bulky, Fewer, Quiet, Recorded, Silent, TenTimesMore, Work},
};

/// Temporal's default limit of a payload, in bytes.
const PAYLOAD_LIMIT: usize = 2 * 1024 * 1024;

/// Workers without a sink, and what delivers for them.
struct Inside {
    fleet: Fleet,
    outside: DurableSpans,
    egress: String,
}

impl Inside {
    async fn new(name: &str, policy: FlushPolicy, converter: DataConverter) -> Self {
        let sink = MemorySink::new();
        let egress = unique("egress");
        let inside = DurableSpans::through(egress.clone()).flush_policy(policy);
        let outside = DurableSpans::new(sink.clone());
        Self { fleet: Fleet::with(name, inside, sink, converter).await, outside, egress }
    }

    fn worker(&self) -> Worker {
        let mut options = self.fleet.worker_options();
        options.register_activities(Work).register_workflow::<Recorded>().unwrap();
        options.register_workflow::<Quiet>().unwrap().register_workflow::<Bulky>().unwrap();
        self.fleet.worker(options)
    }

    fn egress_worker(&self) -> Worker {
        self.fleet.untraced_worker(self.outside.egress_worker(self.egress.clone()).unwrap())
    }

    /// Runs a workflow to its end, and returns its id.
    async fn run<W>(&self, workflow: W, input: W::Input) -> String
    where
        W: HasWorkflowDefinition,
        W::Input: Send,
    {
        let options: WorkflowStartOptions = self.fleet.start_options();
        let start = self.fleet.client.start_workflow(workflow, input, options);
        let handle = start.await.unwrap();
        let _ = handle.get_result(WorkflowGetResultOptions::default()).await.map_err(drop).unwrap();
        handle.info().workflow_id.clone()
    }
}

/// Sizes of the inputs of the flushes.
fn flushes(events: &[HistoryEvent]) -> Vec<usize> {
    let flush = |event: &HistoryEvent| match &event.attributes {
        Some(Attributes::ActivityTaskScheduledEventAttributes(scheduled)) => {
            let is_flush = scheduled.activity_type.as_ref()?.name == "durable_spans.flush_packed";
            is_flush.then(|| scheduled.input.as_ref().map_or(0, Payloads::encoded_len))
        }
        _ => None,
    };
    events.iter().filter_map(flush).collect()
}

fn courier_inputs(events: &[HistoryEvent]) -> Vec<usize> {
    let input = |event: &HistoryEvent| match &event.attributes {
        Some(Attributes::StartChildWorkflowExecutionInitiatedEventAttributes(child)) => {
            child.input.as_ref().map(Payloads::encoded_len)
        }
        _ => None,
    };
    events.iter().filter_map(input).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_leave_by_activities_of_another_task_queue_whatever_the_code_records() {
    let policy = FlushPolicy::new().by_activity().operations(4);
    let inside = Inside::new("inside", policy, DataConverter::default()).await;
    let run = while_running(inside.worker(), inside.run(Recorded::run, 3));
    let id = while_running(inside.egress_worker(), run).await;
    let events = inside.fleet.events(&id).await;
    // Each of three rounds makes four operations, and each flush is one command.
    assert_eq!(flushes(&events).len(), 3);
    assert!(couriers(&events).is_empty());

    let live = inside.fleet.sink.spans();
    assert!(all_ended(&live));
    assert_eq!(of_workflow(&live), live);
    assert_eq!(named(&live, "Versioned").metadata["durable_spans.recorded"], live.len());
    assert_eq!(inside.outside.statistics().delivered, live.len() as u64);
    // The activities ran where no sink is.
    assert_eq!(inside.fleet.spans.statistics().dropped[&DropReason::NoSink], 3);

    let history = || inside.fleet.history(&id, None);
    let replayed = replayed_spans(history(), |options| {
        options.register_workflow::<Recorded>().unwrap();
    })
    .await;
    assert_eq!(facts(&live), facts(&replayed));
    for register in [more, fewer, silent] {
        let mut options = WorkflowReplayerOptions::new().build();
        register(&mut options);
        // By a worker with a sink, too: the policy is pinned.
        DurableSpans::new(MemorySink::new()).install_replayer(&mut options);
        WorkflowReplayer::new(options).unwrap().replay_workflow(history()).await.unwrap();
    }
}

fn more(options: &mut WorkflowReplayerOptions) {
    options.register_workflow::<TenTimesMore>().unwrap();
}

fn fewer(options: &mut WorkflowReplayerOptions) {
    options.register_workflow::<Fewer>().unwrap();
}

fn silent(options: &mut WorkflowReplayerOptions) {
    options.register_workflow::<Silent>().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_payload_is_over_the_limit_and_what_does_not_fit_goes_by_couriers() {
    let policy = FlushPolicy::new().by_activity().operations(120);
    let inside = Inside::new("bulky", policy, Strict::default().data_converter()).await;
    let spans = 150;
    let scenario = async {
        let id = inside.run(Bulky::run, spans).await;
        let events = inside.fleet.events(&id).await;
        for courier in couriers(&events) {
            until_ended(&inside.fleet.client, &courier).await;
        }
        events
    };
    let run = while_running(inside.worker(), scenario);
    let events = while_running(inside.egress_worker(), run).await;
    let (flushes, couriers) = (flushes(&events), courier_inputs(&events));
    // About 3.6 MB of JSON are new at each of the first two, and more than that at the close.
    assert_eq!(flushes.len(), 3);
    assert!(!couriers.is_empty());
    assert!(flushes.iter().chain(&couriers).all(|bytes| *bytes < PAYLOAD_LIMIT));
    assert!(flushes.iter().any(|bytes| *bytes > PAYLOAD_LIMIT / 3), "{flushes:?}");
    let live = inside.fleet.sink.spans();
    assert_eq!(of_workflow(&live).len() as u32, 1 + 2 * spans);
    assert!(all_ended(&live));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_anybody_at_the_egress_a_run_closes_in_time_and_nothing_of_it_is_in_clear() {
    let codec = Strict::default();
    let policy = FlushPolicy::new().by_activity();
    let inside = Inside::new("no-egress", policy, codec.data_converter()).await;
    let client = &inside.fleet.client;
    let (id, elapsed) = while_running(inside.worker(), async {
        let start = Instant::now();
        (inside.run(Quiet::run, 3).await, start.elapsed())
    })
    .await;
    assert!(elapsed < Duration::from_secs(3), "{elapsed:?}");
    let events = inside.fleet.events(&id).await;
    let couriers = couriers(&events);
    assert_eq!((flushes(&events).len(), couriers.len()), (1, 1));
    assert_hidden(&events, &["step", "xxxx"]);
    while_running(inside.egress_worker(), until_ended(client, &couriers[0])).await;
    assert_hidden(&inside.fleet.events(&couriers[0]).await, &["step", "xxxx"]);
    let spans = inside.fleet.sink.spans();
    assert_eq!(spans.len(), 4);
    assert!(all_ended(&spans));
    assert_eq!(codec.refused.load(Ordering::Relaxed), 0);
}
