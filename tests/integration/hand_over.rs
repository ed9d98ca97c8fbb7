//! How a flush gets at its spans: what is left for it in memory stays no longer than the flush, and a
//! flush that does not find it acknowledges nothing.

use std::sync::{Arc, Mutex};

use durable_spans::{DurableSpans, FlushPolicy, MemorySink, Span, WorkflowTracing};
use durable_spans_activity::{Deliverer, FlushActivity};
use durable_spans_workflow::HandOver;
use temporalio_client::{WorkflowGetResultOptions, WorkflowHistory};
use temporalio_sdk::{
    Worker,
    workflow_replayer::{WorkflowReplayer, WorkflowReplayerOptions},
};

use crate::{
    harness::{Fleet, all_ended, facts, of_workflow, while_running},
    workflows::{Recorded, Work},
};

/// Its runs flush about every other round, so that there are several flushes of each.
async fn fleet(name: &str) -> Fleet {
    let sink = MemorySink::new();
    let often = FlushPolicy::new().operations(5);
    let spans = DurableSpans::new(sink.clone()).flush_policy(often);
    Fleet::with(name, spans, sink, Default::default()).await
}

/// Runs a workflow on a worker that leaves groups at `left` and looks for them at `sought`. Returns its
/// history.
async fn run(
    fleet: &Fleet,
    tracing: WorkflowTracing,
    left: &HandOver,
    sought: &HandOver,
) -> Vec<u8> {
    let handle = while_running(worker(fleet, tracing, left, sought), async {
        let start = fleet.client.start_workflow(Recorded::run, 12u32, fleet.start_options());
        let handle = start.await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        handle
    })
    .await;
    let history = fleet.history(handle.info().workflow_id.as_str(), None);
    history.to_json().await.unwrap()
}

fn worker(fleet: &Fleet, tracing: WorkflowTracing, left: &HandOver, sought: &HandOver) -> Worker {
    let mut options = fleet.worker_options();
    // So that each workflow task begins with a replay.
    options.max_cached_workflows = 0;
    let deliverer = Deliverer::new(fleet.sink.clone());
    options.register_activities(Work);
    options.register_activities(FlushActivity::new(deliverer).hand_over(sought.clone()));
    options.register_workflow::<Recorded>().unwrap();
    options.workflow_interceptor(tracing.hand_over(left.clone()).interceptor());
    fleet.untraced_worker(options)
}

async fn replay(history: &[u8], tracing: WorkflowTracing) {
    let mut options = WorkflowReplayerOptions::new().build();
    options.register_workflow::<Recorded>().unwrap();
    options.workflow_interceptor(tracing.interceptor());
    let history = WorkflowHistory::from_json(history).unwrap();
    WorkflowReplayer::new(options).unwrap().replay_workflow(history).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_stays_of_what_runs_and_replays_hand_over() {
    let fleet = fleet("hand-over").await;
    let place = HandOver::new();
    let history = run(&fleet, WorkflowTracing::new(), &place, &place).await;
    let live = of_workflow(&fleet.sink.spans());
    assert!(live.len() > 8 && all_ended(&live));
    assert!(place.is_empty(), "{place:?}");

    let replayed = Arc::new(Mutex::new(Told::default()));
    let (of_replay, seen) = (HandOver::new(), replayed.clone());
    let observed = WorkflowTracing::new().hand_over(of_replay.clone()).observer(move |group| {
        seen.lock().unwrap().add(&group.spans);
    });
    replay(&history, observed).await;
    assert!(of_replay.is_empty(), "{of_replay:?}");
    let replayed = replayed.lock().unwrap();
    assert!(replayed.flushes > 1);
    assert_eq!(facts(&replayed.ended()), facts(&live));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_that_finds_no_spans_acknowledges_none_and_the_last_resort_gets_all() {
    let fleet = fleet("hand-over-lost").await;
    let rescued = Arc::new(Mutex::new(Told::default()));
    let seen = rescued.clone();
    let tracing = WorkflowTracing::new().last_resort(move |_, group| {
        seen.lock().unwrap().add(&group.spans);
    });
    let left = HandOver::new();
    let history = run(&fleet, tracing, &left, &HandOver::new()).await;
    assert_eq!(fleet.sink.spans(), []);
    assert!(left.is_empty(), "{left:?}");

    let expected = Arc::new(Mutex::new(Told::default()));
    let seen = expected.clone();
    let observed = WorkflowTracing::new().observer(move |group| {
        seen.lock().unwrap().add(&group.spans);
    });
    replay(&history, observed).await;
    let rescued = rescued.lock().unwrap().ended();
    assert!(rescued.len() > 8);
    assert_eq!(facts(&rescued), facts(&expected.lock().unwrap().ended()));
}

/// The last record of each span that a hook of the tracing was called with.
#[derive(Default)]
struct Told {
    flushes: usize,
    sink: MemorySink,
}

impl Told {
    fn add(&mut self, spans: &[Span]) {
        self.flushes += 1;
        crate::harness::store(&self.sink, spans);
    }

    fn ended(&self) -> Vec<Span> {
        let spans = self.sink.spans();
        assert!(all_ended(&spans));
        spans
    }
}
