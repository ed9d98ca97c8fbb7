//! Signals, updates and queries.

use std::{sync::Arc, time::Duration};

use durable_spans::{DurableSpans, MemorySink, SpanStatus, TraceContext, in_trace};
use temporalio_client::{
    WorkflowExecuteUpdateOptions, WorkflowGetResultOptions, WorkflowQueryOptions,
    WorkflowSignalOptions, WorkflowStartUpdateOptions,
};
use tokio::sync::Notify;

use crate::{
    harness::{
        Fleet, all_ended, assert_tree, facts, named, of_workflow, replayed_spans, while_running,
    },
    workflows::{Leaves, Paused, PausedRun, Tells, Work},
};

#[tokio::test(flavor = "multi_thread")]
async fn handlers_have_spans_with_their_own_nesting_and_queries_have_none() {
    let fleet = Fleet::new("messages").await;
    let mut options = fleet.worker_options();
    options.register_activities(Work).register_workflow::<Paused>().unwrap();
    let handle = while_running(fleet.worker(options), async {
        let start = fleet.client.start_workflow(Paused::run, 1u32, fleet.start_options());
        let handle = start.await.unwrap();
        let update = WorkflowExecuteUpdateOptions::default();
        assert_eq!(handle.execute_update(Paused::ask, 21, update.clone()).await.unwrap(), 42);
        handle.execute_update(Paused::ask, 101, update).await.unwrap_err();
        let notes = handle.query(Paused::notes, (), WorkflowQueryOptions::default());
        assert!(notes.await.unwrap().is_empty());
        let sender =
            TraceContext::new("other-trace".parse().unwrap()).under("sender".parse().unwrap());
        let signal =
            handle.signal(Paused::release, "go".to_owned(), WorkflowSignalOptions::default());
        in_trace(sender, signal).await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        handle
    })
    .await;

    let spans = fleet.sink.spans();
    assert!(all_ended(&spans));
    let expected = "
        Paused AGENT_WORKFLOW SUCCESS workflow
          ask STANDALONE SUCCESS update
            asking STANDALONE SUCCESS
              look_up CUSTOM SUCCESS activity
                look_up CUSTOM SUCCESS activity_attempt
          release STANDALONE SUCCESS signal
            noted STANDALONE SUCCESS
          whole STANDALONE SUCCESS
            step 0 STANDALONE SUCCESS
              look_up CUSTOM SUCCESS activity
                look_up CUSTOM SUCCESS activity_attempt
        ";
    // By name instead of by time: which message comes first is the server's choice.
    let mut by_name = spans.clone();
    for span in &mut by_name {
        span.start_timestamp = durable_spans::Timestamp::from_unix_ns(0);
    }
    by_name.sort_by(|a, b| a.name.cmp(&b.name));
    assert_tree(&by_name, expected);
    let signal = named(&spans, "release");
    assert_eq!(signal.metadata["temporal.sender_trace_id"], "other-trace");
    assert_eq!(signal.metadata["temporal.sender_span_id"], "sender");

    let history = fleet.history(handle.info().workflow_id.as_str(), None);
    let replayed = replayed_spans(history, |options| {
        options.register_workflow::<Paused>().unwrap();
    })
    .await;
    assert_eq!(facts(&replayed), facts(&of_workflow(&spans)));
}

#[tokio::test(flavor = "multi_thread")]
async fn signal_with_start_and_update_with_start_carry_the_trace() {
    use temporalio_client::{WorkflowIdConflictPolicy, WorkflowUpdateWithStartOptions};

    let fleet = Fleet::new("with-start").await;
    let mut options = fleet.worker_options();
    options.register_activities(Work).register_workflow::<Paused>().unwrap();
    let caller =
        TraceContext::new("caller-trace".parse().unwrap()).under("caller".parse().unwrap());
    while_running(fleet.worker(options), async {
        let start = fleet.client.signal_with_start_workflow(
            Paused::run,
            1u32,
            Paused::release,
            "go".to_owned(),
            fleet.start_options(),
        );
        let handle = in_trace(caller.clone(), start).await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();

        let workflow_id = crate::harness::unique("update-with-start");
        let options = WorkflowUpdateWithStartOptions::new(
            fleet.queue.clone(),
            workflow_id.clone(),
            WorkflowIdConflictPolicy::Fail,
        );
        let start = fleet.client.execute_update_with_start_workflow(
            Paused::run,
            1u32,
            Paused::ask,
            1u32,
            options.build(),
        );
        in_trace(caller.clone(), start).await.unwrap();
        let handle = fleet.client.get_workflow_handle::<PausedRun>(workflow_id);
        let signal =
            handle.signal(Paused::release, "go".to_owned(), WorkflowSignalOptions::default());
        in_trace(caller.clone(), signal).await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
    })
    .await;

    let spans = fleet.sink.trace(&caller.trace_id);
    assert_eq!(spans.len(), fleet.sink.spans().len(), "all in the caller's trace");
    let under_caller: Vec<_> = spans
        .iter()
        .filter(|span| span.parent_id == caller.span_id)
        .map(|span| &*span.name)
        .collect();
    for name in ["Paused", "release", "ask"] {
        assert!(under_caller.contains(&name), "{name} hangs under its sender: {under_caller:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_still_runs_at_the_close_and_a_late_signal_lose_no_span() {
    let fleet = Fleet::new("leaves").await;
    let mut options = fleet.worker_options();
    options.register_activities(Work).register_workflow::<Leaves>().unwrap();
    // The sink takes its time with the last flush, in which another signal comes.
    let closing = Arc::new(Notify::new());
    let closes = closing.clone();
    fleet.sink.fail_with(move |_| {
        closes.notify_one();
        std::thread::sleep(Duration::from_millis(600));
        None
    });
    let handle = while_running(fleet.worker(options), async {
        let start = fleet.client.start_workflow(Leaves::run, (), fleet.start_options());
        let handle = start.await.unwrap();
        let update = WorkflowStartUpdateOptions::default();
        handle.start_update(Leaves::linger, (), update).await.unwrap();
        let signal = WorkflowSignalOptions::default;
        handle.signal(Leaves::leave, (), signal()).await.unwrap();
        closing.notified().await;
        handle.signal(Leaves::leave, (), signal()).await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        handle
    })
    .await;
    fleet.spans.flush(Duration::from_secs(5)).await;
    let spans = fleet.sink.spans();
    assert!(all_ended(&spans));
    assert_eq!(named(&spans, "linger").status, SpanStatus::Canceled);
    assert_eq!(named(&spans, "waiting").status, SpanStatus::Canceled);
    assert_eq!(named(&spans, "Leaves").status, SpanStatus::Success);
    // The server had the run's last task done again, for the sake of the second signal.
    assert_eq!(spans.iter().filter(|span| span.name == "leave").count(), 2);
    assert_eq!(spans.iter().filter(|span| span.name == "told").count(), 2);
    let history = fleet.history(handle.info().workflow_id.as_str(), None);
    let replayed = replayed_spans(history, |options| {
        options.register_workflow::<Leaves>().unwrap();
    })
    .await;
    assert_eq!(facts(&replayed), facts(&spans));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_of_another_workflow_hangs_under_its_sender_and_timers_have_spans_by_choice() {
    let sink = MemorySink::new();
    let spans = DurableSpans::new(sink.clone()).timer_spans(true);
    let fleet = Fleet::with("tells", spans, sink, Default::default()).await;
    let mut options = fleet.worker_options();
    options.register_workflow::<Leaves>().unwrap().register_workflow::<Tells>().unwrap();
    let trace = TraceContext::new("tells".parse().unwrap());
    while_running(fleet.worker(options), async {
        let start = fleet.client.start_workflow(Leaves::run, (), fleet.start_options());
        let told = in_trace(trace.clone(), start).await.unwrap();
        let whom = told.info().workflow_id.clone();
        let start = fleet.client.start_workflow(Tells::run, whom, fleet.start_options());
        in_trace(trace.clone(), start).await.unwrap();
        told.get_result(WorkflowGetResultOptions::default()).await.unwrap();
    })
    .await;
    fleet.spans.flush(Duration::from_secs(5)).await;
    let spans = fleet.sink.spans();
    assert_eq!(named(&spans, "leave").parent_id.as_ref(), Some(&named(&spans, "telling").id));
    let timer = named(&spans, "timer");
    assert_eq!(timer.parent_id.as_ref(), Some(&named(&spans, "Tells").id));
    assert_eq!(timer.metadata["temporal.timer_ms"], 50);
    assert_eq!(timer.status, SpanStatus::Success);
}
