//! Which traces are recorded, and that the choice is no versioning event.

use std::time::Duration;

use durable_spans::{
    DurableSpans, MemorySink, Sampling, SpanStatus, WorkflowTracing, current_span, span,
};
use temporalio_client::{ClientOptions, WorkflowGetResultOptions};
use temporalio_common::error::{ApplicationErrorCategory, ApplicationFailure};
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{
    ChildWorkflowOptions, WorkflowContext, WorkflowResult,
    workflow_replayer::{WorkflowReplayer, WorkflowReplayerOptions},
};

use crate::{
    harness::{Fleet, assert_tree, client, named, while_running},
    workflows::{Work, quickly},
};
use durable_spans::WorkflowSpans;

/// Looks up, and fails if it was told to; its child does the same without failing. In versions of its
/// code with so many spans, whose failure Temporal counts as one or not.
macro_rules! versions {
    ($($name:ident = $spans:literal, $category:ident;)*) => {$(
        #[workflow]
        #[derive(Default)]
        pub(crate) struct $name;

        #[workflow_methods]
        impl $name {
            #[run(name = "Risky")]
            pub(crate) async fn run(
                ctx: &mut WorkflowContext<Self>,
                (fails, deep): (bool, bool),
            ) -> WorkflowResult<()> {
                let spans: u32 = $spans;
                for _ in 0..spans {
                    ctx.span("try").start().end();
                }
                ctx.execute_activity(Work::look_up, 1u32, quickly()).await?;
                if deep {
                    let options = ChildWorkflowOptions::default();
                    let start = ctx.start_child_workflow(Risky::run, (false, false), options);
                    start.await?.result().await?;
                }
                if fails {
                    let failure = ApplicationFailure::builder("bad luck").non_retryable(true);
                    let category = ApplicationErrorCategory::$category;
                    return Err(failure.category(category).build().into());
                }
                Ok(())
            }
        }
    )*};
}

versions! {
    Risky = 2, Unspecified;
    RiskyMore = 20, Unspecified;
    RiskyFewer = 1, Unspecified;
    RiskySilent = 0, Unspecified;
    RiskyBenign = 2, Benign;
}

async fn fleet(name: &str, spans: impl FnOnce(DurableSpans) -> DurableSpans) -> Fleet {
    let sink = MemorySink::new();
    let spans = spans(DurableSpans::new(sink.clone()));
    Fleet::with(name, spans, sink, Default::default()).await
}

/// Runs it on a worker of the fleet, by a client of the fleet or one without tracing.
async fn run(fleet: &Fleet, traced_client: bool, input: (bool, bool)) -> (String, bool) {
    let mut options = fleet.worker_options();
    options.register_activities(Work).register_workflow::<Risky>().unwrap();
    let result = while_running(fleet.worker(options), async {
        let plain = client(ClientOptions::new("default").build()).await;
        let client = if traced_client { &fleet.client } else { &plain };
        let start = client.start_workflow(Risky::run, input, fleet.start_options());
        let handle = start.await.unwrap();
        let result = handle.get_result(WorkflowGetResultOptions::default()).await;
        (handle.info().workflow_id.clone(), result.is_ok())
    });
    let result = result.await;
    fleet.spans.flush(Duration::from_secs(5)).await;
    result
}

async fn own_events(fleet: &Fleet, workflow_id: &str) -> usize {
    let is_marker = |kind: i32| kind == 25;
    fleet.events(workflow_id).await.iter().filter(|event| is_marker(event.event_type)).count()
}

async fn replay(fleet: &Fleet, workflow_id: &str, tracing: WorkflowTracing) {
    let mut options = WorkflowReplayerOptions::new().build();
    options.register_workflow::<Risky>().unwrap();
    replay_with(options, fleet, workflow_id, tracing).await;
}

async fn replay_with(
    mut options: WorkflowReplayerOptions,
    fleet: &Fleet,
    workflow_id: &str,
    tracing: WorkflowTracing,
) {
    options.workflow_interceptor(tracing.interceptor());
    let replayer = WorkflowReplayer::new(options).unwrap();
    replayer.replay_workflow(fleet.history(workflow_id, None)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_that_is_not_chosen_costs_nothing_and_its_children_are_not_chosen_either() {
    let fleet = fleet("unsampled", |spans| spans.sampling(Sampling::ratio(0.0))).await;
    let (workflow_id, ok) = run(&fleet, true, (false, true)).await;
    assert!(ok);
    assert_eq!(own_events(&fleet, &workflow_id).await, 0);
    assert_eq!(fleet.spans.statistics().recorded, 0);
    fleet.spans.trace("client").in_scope(|_| span("below").start().end());
    assert_eq!(fleet.spans.statistics().recorded, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_chooses_by_the_type_of_the_workflow() {
    let chooses = |spans: DurableSpans| {
        let rule = |starting: &durable_spans::Starting<'_>| {
            (starting.name == "Risky" && starting.task_queue.is_some()).then_some(1.0)
        };
        spans.sampling(Sampling::ratio(0.0).rule(rule))
    };
    let fleet = fleet("rule", chooses).await;
    run(&fleet, true, (false, false)).await;
    assert_eq!(fleet.sink.spans().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_not_chosen_and_fails_is_kept_with_one_flush() {
    let keeps = |spans: DurableSpans| spans.sampling(Sampling::ratio(0.0).keep_errors());
    let fleet = fleet("keep-errors", keeps).await;
    let (good, ok) = run(&fleet, true, (false, true)).await;
    assert!(ok && fleet.sink.spans().is_empty());
    assert_eq!(own_events(&fleet, &good).await, 0);
    let (bad, ok) = run(&fleet, true, (true, true)).await;
    assert!(!ok);
    assert_eq!(own_events(&fleet, &bad).await, 1);
    let spans = fleet.sink.spans();
    assert_tree(
        &spans,
        "
        Risky AGENT_WORKFLOW ERROR workflow
          try STANDALONE SUCCESS
          try STANDALONE SUCCESS
          look_up CUSTOM SUCCESS activity
          Risky AGENT_WORKFLOW SUCCESS child_workflow
        ",
    );
    // Whatever a worker is told later, both replay.
    for workflow_id in [&good, &bad] {
        replay(&fleet, workflow_id, WorkflowTracing::new()).await;
        replay(&fleet, workflow_id, WorkflowTracing::new().sampling(Sampling::ratio(0.0))).await;
        replay(&fleet, workflow_id, WorkflowTracing::new().disabled(true)).await;
    }
    // What the failure says may change while the run is in flight: the command is the same.
    let mut benign = WorkflowReplayerOptions::new().build();
    benign.register_workflow::<RiskyBenign>().unwrap();
    replay_with(benign, &fleet, &bad, WorkflowTracing::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_without_a_trace_context_flushes_the_same_whether_it_is_chosen_or_not() {
    for (ratio, keep, fails, expected) in
        [(1.0, false, false, 5), (0.0, false, true, 0), (0.0, true, false, 0), (0.0, true, true, 4)]
    {
        let sampling = Sampling::ratio(ratio);
        let sampling = if keep { sampling.keep_errors() } else { sampling };
        let fleet = fleet("headerless", |spans| spans.sampling(sampling)).await;
        let (workflow_id, ok) = run(&fleet, false, (fails, false)).await;
        assert_eq!(ok, !fails);
        assert_eq!(own_events(&fleet, &workflow_id).await, 1);
        assert_eq!(fleet.sink.spans().len(), expected, "{ratio} {keep} {fails}");
        if expected > 0 {
            let failed = named(&fleet.sink.spans(), "Risky").status == SpanStatus::Error;
            assert_eq!(failed, fails);
        }
        for other in [Sampling::all(), Sampling::ratio(0.0), Sampling::ratio(0.0).keep_errors()] {
            replay(&fleet, &workflow_id, WorkflowTracing::new().sampling(other)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_where_tracing_is_disabled_records_nothing_and_runs_what_was_begun() {
    let fleet = fleet("disabled", |spans| spans.disabled(true)).await;
    let (unpinned, _) = run(&fleet, false, (true, true)).await;
    assert_eq!(own_events(&fleet, &unpinned).await, 1);
    let (pinned, _) = run(&fleet, true, (true, true)).await;
    assert_eq!(own_events(&fleet, &pinned).await, 0);
    fleet.spans.trace("client").in_scope(|_| assert!(current_span().trace_context().is_some()));
    assert_eq!(fleet.spans.statistics().recorded, 0);
    replay(&fleet, &unpinned, WorkflowTracing::new()).await;
}
