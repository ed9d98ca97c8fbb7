//! Spans of many runs share their calls.

use std::time::Duration;

use durable_spans::{FlushPolicy, WorkflowSpans};
use durable_spans_test_sink::Fault;
use futures::{StreamExt, stream};
use temporalio_client::{WorkflowGetResultOptions, WorkflowSignalOptions};
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{SyncWorkflowContext, WorkflowContext, WorkflowResult};

use crate::{
    harness::while_running,
    scene::{AT_ONCE, Scene, unharmed},
};

/// Records spans, hands them over, and closes once it is told so.
#[workflow]
#[derive(Default)]
struct Queues {
    released: bool,
}

#[workflow_methods]
impl Queues {
    #[run(name = "Queues")]
    async fn run(ctx: &mut WorkflowContext<Self>, spans: u32) -> WorkflowResult<()> {
        record(ctx, spans);
        // An operation, so that there is a flush.
        ctx.timer(Duration::from_millis(1)).await;
        ctx.wait_condition(|state| state.released).await?;
        Ok(())
    }

    #[signal(name = "release")]
    fn release(&mut self, _ctx: &mut SyncWorkflowContext<Self>, _: ()) {
        self.released = true;
    }
}

/// Records spans and closes.
#[workflow]
#[derive(Default)]
struct Short;

#[workflow_methods]
impl Short {
    #[run(name = "Short")]
    async fn run(ctx: &mut WorkflowContext<Self>, spans: u32) -> WorkflowResult<()> {
        record(ctx, spans);
        Ok(())
    }
}

fn record<W>(ctx: &WorkflowContext<W>, spans: u32) {
    for _ in 0..spans {
        ctx.span("step").start().end();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_spans_in_the_queue_take_at_most_250_calls() {
    const RUNS: usize = 50;
    const SPANS: u32 = 2_000;
    let scene = Scene::new("queue", FlushPolicy::new().operations(1)).await;
    let fleet = &scene.fleet;
    scene.sink.set(Fault::Hangs);
    let mut options = fleet.worker_options();
    options.register_workflow::<Queues>().unwrap();
    let ids = while_running(fleet.worker(options), async {
        let starts = (0..RUNS).map(|_| async {
            fleet.client.start_workflow(Queues::run, SPANS, fleet.start_options()).await.unwrap()
        });
        let handles: Vec<_> = stream::iter(starts).buffered(AT_ONCE).collect().await;
        while fleet.spans.statistics().recorded < (RUNS as u64) * u64::from(SPANS) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let before = scene.sink.calls();
        scene.sink.set(Fault::None);
        let statistics = fleet.spans.flush(Duration::from_secs(50)).await;
        let calls = scene.sink.calls() - before;
        println!("100,000 spans in the queue: {calls} calls, {statistics}");
        assert_eq!(statistics.deferred, 0);
        assert!(calls <= 250, "{calls} calls");
        for handle in &handles {
            handle.signal(Queues::release, (), WorkflowSignalOptions::default()).await.unwrap();
        }
        let mut ids = Vec::new();
        for handle in handles {
            handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
            ids.push(handle.info().workflow_id.clone());
        }
        ids
    })
    .await;
    unharmed(fleet, &ids).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_short_runs_make_at_most_a_third_of_a_thousand_calls() {
    const AT_MOST: u64 = 333;
    let mut calls = u64::MAX;
    // One call is in flight at a time, so a machine that is busy with something else, and completes
    // fewer runs while it is, makes more calls.
    for _ in 0..3 {
        calls = calls.min(calls_of_a_thousand_short_runs().await);
        if calls <= AT_MOST {
            break;
        }
    }
    assert!(calls <= AT_MOST, "{calls} calls");
}

async fn calls_of_a_thousand_short_runs() -> u64 {
    const RUNS: usize = 1_000;
    let scene = Scene::new("short", FlushPolicy::new()).await;
    let fleet = &scene.fleet;
    scene.sink.answer_after(Duration::from_millis(50));
    let mut options = fleet.worker_options();
    options.register_workflow::<Short>().unwrap();
    let ids = while_running(fleet.worker(options), async {
        // With the run's own span, five.
        let runs = (0..RUNS).map(|_| async {
            let start = fleet.client.start_workflow(Short::run, 4u32, fleet.start_options());
            let handle = start.await.unwrap();
            handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
            handle.info().workflow_id.clone()
        });
        stream::iter(runs).buffer_unordered(100).collect::<Vec<_>>().await
    })
    .await;
    let statistics = fleet.spans.flush(Duration::from_secs(50)).await;
    let calls = scene.sink.calls();
    println!("1,000 runs of 5 spans, 100 at a time: {calls} calls, {statistics}");
    assert_eq!((statistics.recorded, statistics.delivered), (5_000, 5_000));
    unharmed(fleet, &ids).await;
    calls
}
