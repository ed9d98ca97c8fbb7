//! The testing kit on histories of real runs: traced, untraced, and exported by Temporal's CLI.

use std::time::Duration;

use durable_spans::{
    DurableSpans, MemorySink, read_history,
    testing::{Trace, assert_golden_trace, assert_trace},
};
use temporalio_client::WorkflowGetResultOptions;
use temporalio_sdk::workflow_replayer::WorkflowReplayerOptions;

use crate::{
    harness::{Fleet, while_running},
    workflows::{Order, Recorded, Ship, Silent, Work},
};

const FIXTURES: &str = "tests/fixtures/0.1.0";

fn code() -> WorkflowReplayerOptions {
    WorkflowReplayerOptions::new().register_workflow::<Order>().unwrap().build()
}

/// The same code and the same run, but for tracing.
#[tokio::test]
async fn a_history_gives_one_golden_trace_whether_its_run_was_traced_or_not() {
    for name in ["order-last", "order-unsampled", "order-headerless-untraced"] {
        let history = read_history(format!("{FIXTURES}/{name}.history.json")).unwrap();
        let trace = Trace::replayed(history, code()).await.unwrap();
        assert!(trace.all_ended(), "{name}");
        let trace = trace.show("input.amount").show("output.charged");
        assert_golden_trace("tests/integration/golden/order.txt", &trace);
    }
}

#[tokio::test]
async fn an_installation_says_what_is_recorded() {
    let spans = DurableSpans::new(MemorySink::new()).timer_spans(true);
    let history = || read_history(format!("{FIXTURES}/versioned-default.history.json")).unwrap();
    let code = || WorkflowReplayerOptions::new().register_workflow::<Recorded>().unwrap().build();
    let timers = |trace: Trace| trace.named("timer").count();
    let trace = Trace::replayed(history(), code()).await.unwrap();
    assert_eq!(timers(trace), 0);
    let trace = Trace::replayed_by(&spans, history(), code()).await.unwrap();
    assert!(timers(trace.clone()) > 0, "{trace}");
}

#[tokio::test]
async fn code_that_does_not_fit_the_history_is_an_error_and_other_instrumentation_is_not() {
    let history = |name: &str| read_history(format!("{FIXTURES}/{name}.history.json")).unwrap();
    let silent = || WorkflowReplayerOptions::new().register_workflow::<Silent>().unwrap().build();
    let trace = Trace::replayed(history("versioned-default"), silent()).await.unwrap();
    assert_trace!(trace, "Versioned AGENT_WORKFLOW SUCCESS workflow\n  …");
    let error = Trace::replayed(history("order-last"), silent()).await.unwrap_err();
    assert!(error.is_replay(), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_trace_is_waited_for_and_is_the_golden_one_of_its_replay() {
    let fleet = Fleet::new("kit").await;
    let mut options = fleet.worker_options();
    options.register_activities(Work);
    options.register_workflow::<Order>().unwrap().register_workflow::<Ship>().unwrap();
    let (live, history) = while_running(fleet.worker(options), async {
        let handle = fleet.client.start_workflow(Order::run, 0u32, fleet.start_options());
        let handle = handle.await.unwrap();
        let live = Trace::complete(&fleet.sink, Duration::from_secs(30)).await;
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        (live, handle.fetch_history(Default::default()))
    })
    .await;
    let replayed = Trace::replayed(history, code()).await.unwrap();
    // The run of the child has a history of its own.
    let of_run = live
        .without_attempts()
        .without(|span| span.name == "Ship" && span.metadata["temporal.kind"] == "workflow");
    for trace in [of_run, replayed] {
        let trace = trace.show("input.amount").show("output.charged");
        assert_golden_trace("tests/integration/golden/order.txt", &trace);
    }
}
