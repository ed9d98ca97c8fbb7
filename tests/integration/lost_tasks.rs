//! Workflow tasks that are lost after a flush of theirs ran. They are done again with the same ids; if the
//! code takes another turn then, what was flushed of the first one remains, and the root tells.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use durable_spans::{DurableSpans, FlushPolicy, MemorySink, Span, WorkflowSpans};
use temporalio_client::{WorkflowGetResultOptions, WorkflowSignalOptions};
use temporalio_common::protos::temporal::api::{enums::v1::EventType, history::v1::HistoryEvent};
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{SyncWorkflowContext, WorkflowContext, WorkflowResult, workflows::join};
use tokio::sync::Notify;

use crate::harness::{Fleet, all_ended, facts, named, replayed_spans, tree, while_running};

/// Takes a turn by the signals that it has got when its first task comes so far.
#[workflow]
#[derive(Default)]
struct Turns {
    signals: u32,
}

#[workflow_methods]
impl Turns {
    #[run(name = "Turns")]
    async fn run(ctx: &mut WorkflowContext<Self>, hangs: bool) -> WorkflowResult<()> {
        ctx.span("before").start().end();
        let turn = if ctx.state(|state| state.signals) > 0 { "second" } else { "first" };
        ctx.span(turn).start().end();
        if hangs {
            let mut looks = 0;
            let second_look = ctx.wait_condition(move |_| {
                looks += 1;
                hang_once(looks > 1)
            });
            let (_, waited) = join!(ctx.timer(Duration::from_millis(20)), second_look);
            waited?;
        }
        Ok(())
    }

    #[signal(name = "poke")]
    fn poke(&mut self, ctx: &mut SyncWorkflowContext<Self>, _: ()) {
        ctx.span("poked").start().end();
        self.signals += 1;
    }
}

/// Holds the first task up until it is [`LATE`], once its flush has run.
fn hang_once(flushed: bool) -> bool {
    static HUNG: AtomicBool = AtomicBool::new(false);
    if flushed && !HUNG.swap(true, Ordering::Relaxed) {
        futures::executor::block_on(LATE.notified());
    }
    flushed
}

static LATE: Notify = Notify::const_new();

/// Compares what the sink holds with what history took: of the lost task, `"first"` remains.
async fn assert_one_is_left(fleet: &Fleet, workflow_id: &str) {
    fleet.spans.flush(Duration::from_secs(5)).await;
    let (spans, events) = (fleet.sink.spans(), fleet.events(workflow_id).await);
    assert!(all_ended(&spans));
    let replayed = replayed_spans(fleet.history(workflow_id, None), |options| {
        options.register_workflow::<Turns>().unwrap();
    })
    .await;
    let (left, taken): (Vec<Span>, Vec<Span>) =
        spans.iter().cloned().partition(|span| span.name == "first");
    assert_eq!(facts(&taken), facts(&replayed), "{}", tree(&spans));
    assert_eq!(left.len(), 1, "{}\n{events:?}", tree(&spans));
    assert_eq!(named(&spans, "Turns").metadata["durable_spans.recorded"], spans.len() - 1);
}

fn has(events: &[HistoryEvent], kind: EventType) -> bool {
    events.iter().any(|event| event.event_type() == kind)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_a_signal_overtakes_leaves_its_spans_and_the_root_counts_without_them() {
    let fleet = Fleet::new("overtaken").await;
    let mut options = fleet.worker_options();
    options.register_workflow::<Turns>().unwrap();
    let workflow_id = while_running(fleet.worker(options), async {
        // The signal comes during the last flush, which the sink takes its time with.
        let comes = Arc::new(Notify::new());
        let come = comes.clone();
        fleet.sink.fail_with(move |_| {
            come.notify_one();
            thread::sleep(Duration::from_millis(500));
            None
        });
        let start = fleet.client.start_workflow(Turns::run, false, fleet.start_options());
        let handle = start.await.unwrap();
        comes.notified().await;
        handle.signal(Turns::poke, (), WorkflowSignalOptions::default()).await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        handle.info().workflow_id.clone()
    })
    .await;
    let events = fleet.events(&workflow_id).await;
    assert!(has(&events, EventType::WorkflowTaskFailed), "{events:?}");
    assert_one_is_left(&fleet, &workflow_id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_times_out_after_its_flush_leaves_its_spans_and_the_root_counts_without_them() {
    let sink = MemorySink::new();
    let spans = DurableSpans::new(sink.clone()).flush_policy(FlushPolicy::new().operations(1));
    let fleet = Arc::new(Fleet::with("late", spans, sink, Default::default()).await);
    let mut options = fleet.worker_options();
    options.register_workflow::<Turns>().unwrap();
    // A task of its own: the run holds the worker's up.
    let scenario = tokio::spawn({
        let fleet = fleet.clone();
        async move {
            let mut options = fleet.start_options();
            options.task_timeout = Some(Duration::from_secs(1));
            let start = fleet.client.start_workflow(Turns::run, true, options);
            let handle = start.await.unwrap();
            let id = handle.info().workflow_id.clone();
            fleet.sink.wait_for(|spans| spans.iter().any(|span| span.name == "first")).await;
            handle.signal(Turns::poke, (), WorkflowSignalOptions::default()).await.unwrap();
            while !has(&fleet.events(&id).await, EventType::WorkflowTaskTimedOut) {
                tokio::task::yield_now().await;
            }
            LATE.notify_one();
            handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
            id
        }
    });
    let workflow_id = while_running(fleet.worker(options), scenario).await.unwrap();
    assert_one_is_left(&fleet, &workflow_id).await;
}
