//! What version 1.1 of the SDK does by itself, without tracing, that the fuzz test and the flush rule have to
//! know. Where one of these fails with a later version, a limit of the guarantees in the README is gone.

use std::{cell::Cell, thread, time::Duration};

use durable_spans::{DurableSpans, FlushPolicy, MemorySink};

use temporalio_client::{WorkflowGetResultOptions, WorkflowQueryOptions, WorkflowSignalOptions};
use temporalio_common::protos::temporal::api::{enums::v1::EventType, history::v1::HistoryEvent};
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{
    LocalActivityOptions, SyncWorkflowContext, Worker, WorkflowContext, WorkflowContextView,
    WorkflowResult,
    workflow_replayer::{
        WorkflowReplayError, WorkflowReplayFailure, WorkflowReplayer, WorkflowReplayerOptions,
    },
    workflows::join,
};
use tokio::sync::Notify;

use crate::{
    harness::{Fleet, while_running},
    workflows::Work,
};

/// Decides by the signals that it has seen when its second local activity is done.
#[workflow]
#[derive(Default)]
struct Decides {
    signals: u32,
}

#[workflow_methods]
impl Decides {
    #[run]
    async fn run(ctx: &mut WorkflowContext<Self>, _: ()) -> WorkflowResult<u32> {
        let options = LocalActivityOptions::default;
        ctx.execute_local_activity(Work::doze, 2_000u64, options()).await?;
        ctx.wait_condition(|state: &Self| state.signals > 0).await?;
        ctx.execute_local_activity(Work::look_up, 1u32, options()).await?;
        let signals = ctx.state(|state| state.signals);
        for _ in 0..signals {
            ctx.timer(Duration::from_millis(1)).await;
        }
        Ok(signals)
    }

    #[signal]
    fn poke(&mut self, _ctx: &mut SyncWorkflowContext<Self>, _: ()) {
        self.signals += 1;
    }

    /// Takes longer than the second local activity.
    #[query]
    fn ask(&self, _ctx: &WorkflowContextView) -> u32 {
        ASKED.notify_one();
        thread::sleep(Duration::from_millis(500));
        self.signals
    }
}

/// The query is being answered.
static ASKED: Notify = Notify::const_new();

/// A query is answered while the result of a local activity waits to be delivered. The SDK closes the
/// workflow task with the result in it, and shows it to the code in the next one, after a signal that came
/// meanwhile; in replay it shows it first.
#[tokio::test(flavor = "multi_thread")]
async fn a_query_beside_a_local_activity_lets_a_signal_in_that_replay_has_later() {
    let fleet = Fleet::new("sdk-query").await;
    let mut options = fleet.worker_options();
    options.register_activities(Work).register_workflow::<Decides>().unwrap();
    let workflow_id = while_running(fleet.untraced_worker(options), async {
        // Where the second signal comes too late for it, once more.
        loop {
            let (workflow_id, signals) = query_beside_a_local_activity(&fleet).await;
            if signals == 2 {
                return workflow_id;
            }
        }
    })
    .await;
    let code = WorkflowReplayerOptions::new().register_workflow::<Decides>().unwrap().build();
    assert_nondeterministic(&fleet, &workflow_id, code).await;
}

/// Returns the id of the run, and how many signals it saw before the result.
async fn query_beside_a_local_activity(fleet: &Fleet) -> (String, u32) {
    let start = fleet.client.start_workflow(Decides::run, (), fleet.start_options());
    let handle = start.await.unwrap();
    let id = handle.info().workflow_id.clone();
    let is_task = |event: &HistoryEvent| event.event_type() == EventType::WorkflowTaskStarted;
    while !fleet.events(&id).await.iter().any(is_task) {
        tokio::task::yield_now().await;
    }
    // While the first local activity takes its time: the next task brings both.
    handle.signal(Decides::poke, (), WorkflowSignalOptions::default()).await.unwrap();
    let ask = handle.query(Decides::ask, (), WorkflowQueryOptions::default());
    // In a task of its own, since the query holds the worker's up.
    let again = tokio::spawn({
        let again = fleet.client.get_workflow_handle::<decides::Run>(id.clone());
        async move {
            ASKED.notified().await;
            again.signal(Decides::poke, (), WorkflowSignalOptions::default()).await.unwrap();
        }
    });
    assert_eq!(ask.await.unwrap(), 1);
    again.await.unwrap();
    (id, handle.get_result(WorkflowGetResultOptions::default()).await.unwrap())
}

/// A local activity outlasts its workflow task, so that the worker asks for others. Its result comes
/// in the last of these, and in one before it a timer fires, whereupon nothing is commanded.
#[workflow]
#[derive(Default)]
struct Outlasts;

#[workflow_methods]
impl Outlasts {
    /// Returns whether it saw the timer before the result.
    #[run]
    async fn run(ctx: &mut WorkflowContext<Self>, own_timer: bool) -> WorkflowResult<bool> {
        ctx.timer(Duration::from_millis(10)).await;
        let fired = Cell::new(false);
        let long = async {
            let options = LocalActivityOptions::default();
            ctx.execute_local_activity(Work::doze, 5_400u64, options).await?;
            WorkflowResult::Ok(fired.get())
        };
        let timer = async {
            if own_timer {
                ctx.timer(Duration::from_secs(1)).await;
                fired.set(true);
            }
        };
        let (saw, ()) = join!(long, timer);
        let saw = saw?;
        if saw || !own_timer {
            ctx.timer(Duration::from_millis(1)).await;
        }
        Ok(saw)
    }
}

/// When 80 % of it are over, the worker asks for another task: four times, and by the third one the timer
/// has fired.
const TASK: Duration = Duration::from_millis(1_500);

/// In replay, tasks without commands are one with the task after them, and the result is there in the
/// same moment as the timer.
#[tokio::test(flavor = "multi_thread")]
async fn a_timer_beside_a_local_activity_that_outlasts_its_task_fires_with_its_result_in_replay() {
    let fleet = Fleet::new("sdk-outlasts").await;
    let mut options = fleet.worker_options();
    options.register_activities(Work).register_workflow::<Outlasts>().unwrap();
    let workflow_id = outlast(&fleet, fleet.untraced_worker(options), true).await;
    assert_nondeterministic(&fleet, &workflow_id, outlasts()).await;
}

/// That one is ours, and the rule must not mind.
#[tokio::test(flavor = "multi_thread")]
async fn the_timer_of_the_flush_rule_may_fire_beside_a_local_activity_that_outlasts_its_task() {
    let sink = MemorySink::new();
    // The second operation is the timer's result, the third and fourth are the local activity: the flush
    // that they ask for leaves nothing to the timer that the first one has armed.
    let policy = FlushPolicy::new().operations(3).linger(Duration::from_secs(3));
    let run = async |policy: FlushPolicy| {
        let spans = DurableSpans::new(sink.clone()).flush_policy(policy);
        let fleet = Fleet::with("outlasts", spans, sink.clone(), Default::default()).await;
        let mut options = fleet.worker_options();
        options.register_activities(Work).register_workflow::<Outlasts>().unwrap();
        let workflow_id = outlast(&fleet, fleet.worker(options), false).await;
        let mut code = outlasts();
        fleet.spans.install_replayer(&mut code);
        replay(&fleet, &workflow_id, code).await.unwrap();
    };
    tokio::join!(run(policy), run(policy.by_activity()));
}

fn outlasts() -> WorkflowReplayerOptions {
    WorkflowReplayerOptions::new().register_workflow::<Outlasts>().unwrap().build()
}

/// Returns the id of the run.
async fn outlast(fleet: &Fleet, worker: Worker, own_timer: bool) -> String {
    while_running(worker, async {
        let mut options = fleet.start_options();
        options.task_timeout = Some(TASK);
        let start = fleet.client.start_workflow(Outlasts::run, own_timer, options);
        let handle = start.await.unwrap();
        let saw = handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        assert_eq!(saw, own_timer);
        handle.info().workflow_id.clone()
    })
    .await
}

async fn replay(
    fleet: &Fleet,
    workflow_id: &str,
    code: WorkflowReplayerOptions,
) -> Result<(), WorkflowReplayError> {
    let history = fleet.history(workflow_id, None);
    WorkflowReplayer::new(code).unwrap().replay_workflow(history).await
}

async fn assert_nondeterministic(fleet: &Fleet, workflow_id: &str, code: WorkflowReplayerOptions) {
    let result = replay(fleet, workflow_id, code).await;
    assert!(
        matches!(
            result,
            Err(WorkflowReplayError::Replay(WorkflowReplayFailure::Nondeterminism { .. }))
        ),
        "{result:?}"
    );
}
