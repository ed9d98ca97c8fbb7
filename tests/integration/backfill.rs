//! Traces that come back from histories.

mod corners;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use durable_spans::{
    Backfill, BackfillReport, BackfilledRun, DurableSpans, FlushPolicy, MemorySink, Progress, Span,
    SpanId, SpanSource, SpanStatus, TraceContext, in_trace, new_trace,
};
use temporalio_client::{
    Client, ClientOptions, WorkflowCancelOptions, WorkflowExecuteUpdateOptions,
    WorkflowGetResultOptions, WorkflowHandle, WorkflowListOptions, WorkflowSignalOptions,
    WorkflowTerminateOptions,
};
use temporalio_common::protos::temporal::api::{enums::v1::EventType, history::v1::HistoryEvent};
use temporalio_sdk::{Worker, workflow_replayer::WorkflowReplayerOptions};

use crate::{
    harness::{
        Fleet, all_ended, assert_tree, client, facts, named, of_workflow, tree, while_running,
    },
    workflows::{Doomed, Order, Paused, PausedRun, Ship, Work},
};

/// The code of the runs, for replay.
fn code() -> WorkflowReplayerOptions {
    let mut options = WorkflowReplayerOptions::new().build();
    options.register_workflow::<Order>().unwrap().register_workflow::<Ship>().unwrap();
    options.register_workflow::<Paused>().unwrap().register_workflow::<Doomed>().unwrap();
    options
}

fn worker(fleet: &Fleet) -> Worker {
    let mut options = fleet.worker_options();
    options.register_activities(Work);
    options.register_workflow::<Order>().unwrap().register_workflow::<Ship>().unwrap();
    options.register_workflow::<Paused>().unwrap().register_workflow::<Doomed>().unwrap();
    fleet.worker(options)
}

/// Waits until visibility, which lags behind, lists so many runs of the queue, and returns the query.
async fn listed(fleet: &Fleet, runs: usize) -> String {
    use futures::TryStreamExt;
    let query = format!("TaskQueue = '{}'", fleet.queue);
    loop {
        let found = fleet.client.list_workflows(query.as_str(), WorkflowListOptions::default());
        let found: Vec<_> = found.try_collect().await.unwrap();
        let closed = found.iter().filter(|run| run.close_time().is_some()).count();
        if closed == runs {
            return query;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Backfills into `sink`, and returns what it told of each run.
async fn backfill(
    sink: &MemorySink,
    code: Option<WorkflowReplayerOptions>,
    client: &Client,
    query: &str,
) -> (BackfillReport, Vec<BackfilledRun>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let keep = told.clone();
    let mut backfill = Backfill::new(sink.clone()).progress(move |progress| {
        if let Progress::Done(run) = progress {
            keep.lock().unwrap().push(run.clone());
        }
    });
    if let Some(code) = code {
        backfill = backfill.workflows(code);
    }
    let report = backfill.query(client, query).await.unwrap();
    let told = std::mem::take(&mut *told.lock().unwrap());
    (report, told)
}

async fn release(handle: &WorkflowHandle<Client, PausedRun>) {
    let options = WorkflowSignalOptions::default();
    handle.signal(Paused::release, "go".to_owned(), options).await.unwrap();
}

/// Every way in which a run can end by its code, with activities, retries, children, local
/// activities, signals, updates and continue-as-new. Returns how many runs it made.
async fn mixed_workload(fleet: &Fleet) -> usize {
    let order = fleet.client.start_workflow(Order::run, 1u32, fleet.start_options());
    let order = order.await.unwrap();
    let paused = fleet.client.start_workflow(Paused::run, 2u32, fleet.start_options());
    let paused = paused.await.unwrap();
    let mut doomed = Vec::new();
    for how in ["fail", "benign", "cancel"] {
        let start = fleet.client.start_workflow(Doomed::run, how.to_owned(), fleet.start_options());
        let handle = start.await.unwrap();
        if how == "cancel" {
            handle.cancel(WorkflowCancelOptions::default()).await.unwrap();
        }
        doomed.push(handle);
    }
    release(&paused).await;
    let update = paused.execute_update(Paused::ask, 4u32, WorkflowExecuteUpdateOptions::default());
    assert_eq!(update.await.unwrap(), 8);
    release(&paused).await;
    paused.get_result(WorkflowGetResultOptions::default()).await.unwrap();
    order.get_result(WorkflowGetResultOptions::default()).await.unwrap();
    for handle in doomed {
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap_err();
    }
    // Two runs of Order with a child each.
    4 + 1 + 3
}

async fn completed_activities(fleet: &Fleet, workflow_id: &str) -> usize {
    let events = fleet.events(workflow_id).await;
    let completed = |event: &&HistoryEvent| event.event_type() == EventType::ActivityTaskCompleted;
    events.iter().filter(completed).count()
}

/// Shows what differs only.
#[track_caller]
fn assert_same(actual: &[Span], expected: &[Span]) {
    let (actual, expected) = (facts(actual), facts(expected));
    let only = |here: &[String], there: &[String]| {
        here.iter().filter(|fact| !there.contains(fact)).cloned().collect::<Vec<_>>().join("\n")
    };
    let (extra, missing) = (only(&actual, &expected), only(&expected, &actual));
    assert!(extra.is_empty() && missing.is_empty(), "extra:\n{extra}\nmissing:\n{missing}");
}

fn by_id(spans: &[Span]) -> BTreeMap<SpanId, &Span> {
    spans.iter().map(|span| (span.id.clone(), span)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_database_comes_back_from_histories_to_the_same_rows() {
    let fleet = Fleet::new("lost-database").await;
    let (runs, query) = while_running(worker(&fleet), async {
        let runs = mixed_workload(&fleet).await;
        (runs, listed(&fleet, runs).await)
    })
    .await;
    let live = fleet.sink.spans();
    assert!(all_ended(&live));

    let rebuilt = MemorySink::new();
    let (report, told) = backfill(&rebuilt, Some(code()), &fleet.client, &query).await;
    assert_eq!(report.failed.len(), 0, "{:?}", report.failed);
    assert_eq!((report.runs, report.refused), (runs as u64, 0));
    assert!(told.iter().all(|run| run.source == SpanSource::Replay && !run.is_open), "{told:?}");
    let rebuilt_spans = rebuilt.spans();
    assert_same(&of_workflow(&rebuilt_spans), &of_workflow(&live));
    let (before, after) = (by_id(&live), by_id(&rebuilt_spans));
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    for (id, before) in before {
        // Also of attempts, of which history knows less.
        let after = after[&id];
        assert_eq!(
            (&before.name, &before.parent_id, before.span_type, before.status),
            (&after.name, &after.parent_id, after.span_type, after.status)
        );
        let apart = before.start_timestamp.since(after.start_timestamp)
            + after.start_timestamp.since(before.start_timestamp);
        assert!(apart < Duration::from_secs(1), "{before:?}\n{after:?}");
    }

    // Once more: nothing is missing, and nothing is touched.
    let (report, _) = backfill(&rebuilt, Some(code()), &fleet.client, &query).await;
    assert_eq!((report.sent, report.known), (0, live.len() as u64));
    // Nor does a skeleton add anything.
    let (report, _) = backfill(&fleet.sink, None, &fleet.client, &query).await;
    assert_eq!((report.sent, report.failed.len()), (0, 0));
    assert_eq!(facts(&fleet.sink.spans()), facts(&live));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_skeleton_has_the_ids_of_what_history_names() {
    let fleet = Fleet::new("skeleton").await;
    let query = while_running(worker(&fleet), async {
        let runs = mixed_workload(&fleet).await;
        listed(&fleet, runs).await
    })
    .await;
    let live = fleet.sink.spans();
    let skeleton = MemorySink::new();
    let (report, told) = backfill(&skeleton, None, &fleet.client, &query).await;
    assert_eq!(report.failed.len(), 0, "{:?}", report.failed);
    assert!(told.iter().all(|run| run.source == SpanSource::Skeleton));
    let bones = skeleton.spans();
    assert!(all_ended(&bones));
    assert!(bones.iter().all(|span| span.metadata["temporal.backfilled"] == true));
    // Every run, call, attempt, child, signal and update is there under its own id; local
    // activities are, where no span of user code is between them and the run.
    let by_id = by_id(&bones);
    for span in live.iter().filter(|span| span.metadata.contains_key("temporal.kind")) {
        let bone = by_id.get(&span.id).unwrap_or_else(|| panic!("no {span:?}\n{}", tree(&bones)));
        assert_eq!((&bone.name, bone.status), (&span.name, span.status));
    }
    assert_eq!(bones.len(), by_id.len());
    assert!(bones.len() < live.len());
    let is_call = |span: &&Span| span.metadata["temporal.kind"] == "activity";
    let charge = live.iter().filter(|span| span.name == "charge").find(is_call).unwrap();
    let call = by_id[&charge.id];
    assert_eq!(call.metadata["temporal.attempts"], 2);
    assert_eq!(call.metadata["temporal.backoff_ms"], 10);
    assert_eq!(call.metadata["temporal.parent_unknown"], true);
    let recorded = of_workflow(&live);
    let direct = recorded.iter().find(|span| span.metadata.contains_key("temporal.local")).unwrap();
    assert_eq!(by_id[&direct.id].parent_id, direct.parent_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_and_a_timed_out_run_come_back_whole() {
    let sink = MemorySink::new();
    let spans = DurableSpans::new(sink.clone()).flush_policy(FlushPolicy::new().operations(3));
    let fleet = Fleet::with("terminated", spans, sink, Default::default()).await;
    let query = while_running(worker(&fleet), async {
        for timeout in [None, Some(Duration::from_secs(3))] {
            let mut options = fleet.start_options();
            options.run_timeout = timeout;
            let handle = fleet.client.start_workflow(Paused::run, 3u32, options).await.unwrap();
            release(&handle).await;
            let update = WorkflowExecuteUpdateOptions::default();
            handle.execute_update(Paused::ask, 4u32, update).await.unwrap();
            // All three activities are done, yet the code need not have seen the last one.
            while completed_activities(&fleet, &handle.info().workflow_id).await < 3 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            if timeout.is_none() {
                let options = WorkflowTerminateOptions::builder().reason("enough").build();
                handle.terminate(options).await.unwrap();
            }
        }
        listed(&fleet, 2).await
    })
    .await;
    let live = fleet.sink.spans();
    let is_open = |span: &&Span| span.end_timestamp.is_none();
    assert!(live.iter().filter(is_open).count() > 0, "{}", tree(&live));

    let (report, _) = backfill(&fleet.sink, Some(code()), &fleet.client, &query).await;
    assert_eq!((report.runs, report.failed.len()), (2, 0), "{:?}", report.failed);
    let whole = fleet.sink.spans();
    assert!(all_ended(&whole), "{}", tree(&whole));
    let (before, after) = (by_id(&live), by_id(&whole));
    assert!(before.keys().all(|id| after.contains_key(id)));
    for (reason, error_type) in
        [("enough", "TerminatedError"), ("the run timed out", "TimeoutError")]
    {
        let is_root =
            |span: &&Span| span.parent_id.is_none() && span.metadata["error_type"] == error_type;
        let root = whole.iter().find(is_root).unwrap();
        assert_eq!(root.metadata["error_message"], reason);
        assert_eq!(root.status, SpanStatus::Error);
        let mut trace = fleet.sink.trace(&root.trace_id);
        // By name: which message comes first is the server's choice.
        trace.sort_by_key(|span| span.name.clone());
        let mut timeless = trace.clone();
        for span in &mut timeless {
            span.start_timestamp = durable_spans::Timestamp::from_unix_ns(0);
        }
        assert_tree(
            &timeless,
            "
            Paused AGENT_WORKFLOW ERROR workflow
              ask STANDALONE SUCCESS update
                asking STANDALONE SUCCESS
                  look_up CUSTOM SUCCESS activity
                    look_up CUSTOM SUCCESS activity_attempt
              release STANDALONE SUCCESS signal
                noted STANDALONE SUCCESS
              whole STANDALONE CANCELED
                step 0 STANDALONE SUCCESS
                  look_up CUSTOM SUCCESS activity
                    look_up CUSTOM SUCCESS activity_attempt
                step 1 STANDALONE CANCELED
                  look_up CUSTOM SUCCESS activity
                    look_up CUSTOM SUCCESS activity_attempt
            ",
        );
        let open = named(&trace, "step 1");
        assert_eq!(open.metadata["temporal.abandoned"], true);
        assert_eq!(open.end_timestamp, root.end_timestamp);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_were_not_traced_are_recorded_anew() {
    let fleet = Fleet::new("untraced").await;
    let untraced = client(ClientOptions::new("default").build()).await;
    // From before the install: neither client nor worker know of us.
    let mut options = fleet.worker_options();
    options.register_activities(Work);
    options.register_workflow::<Order>().unwrap().register_workflow::<Ship>().unwrap();
    options.register_workflow::<Paused>().unwrap();
    while_running(fleet.untraced_worker(options), async {
        let start = untraced.start_workflow(Order::run, 0u32, fleet.start_options());
        let handle = start.await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        // One that came to no end, so that its history does not tell whether it would have flushed.
        let start = untraced.start_workflow(Paused::run, 2u32, fleet.start_options());
        let handle = start.await.unwrap();
        let update = WorkflowExecuteUpdateOptions::default();
        handle.execute_update(Paused::ask, 4u32, update).await.unwrap();
        handle.terminate(WorkflowTerminateOptions::default()).await.unwrap();
    })
    .await;
    // Left out by sampling.
    let query = while_running(worker(&fleet), async {
        let mut context: TraceContext = new_trace();
        context.sampled = false;
        let start = fleet.client.start_workflow(Order::run, 0u32, fleet.start_options());
        let handle = in_trace(context, start).await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        listed(&fleet, 5).await
    })
    .await;
    assert_eq!(fleet.sink.spans(), []);

    let (report, told) = backfill(&fleet.sink, Some(code()), &fleet.client, &query).await;
    assert_eq!((report.runs, report.failed.len()), (5, 0), "{:?}", report.failed);
    assert!(told.iter().all(|run| run.source == SpanSource::NewRecording), "{told:?}");
    assert_eq!(named(&fleet.sink.spans(), "Paused").metadata["error_type"], "TerminatedError");
    assert_eq!(named(&fleet.sink.spans(), "asking").status, SpanStatus::Success);
    let spans = fleet.sink.spans();
    assert!(all_ended(&spans));
    let roots: Vec<&Span> = spans.iter().filter(|span| span.name == "Order").collect();
    assert_eq!(roots.len(), 2);
    for root in roots {
        let calls = ["pay", "check", "charge", "branch 0", "branch 1", "look_up", "Ship"];
        let names: Vec<_> = fleet.sink.trace(&root.trace_id).into_iter().map(|s| s.name).collect();
        assert!(calls.iter().all(|call| names.iter().any(|name| name == call)), "{names:?}");
    }
    let charge = spans
        .iter()
        .find(|span| span.name == "charge" && span.metadata["temporal.kind"] == "activity_attempt");
    assert!(charge.is_some(), "{}", tree(&spans));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_goes_on_keeps_its_open_spans_and_a_journal_leaves_out_what_is_done() {
    let fleet = Fleet::new("going-on").await;
    let folder = tempfile::tempdir().unwrap();
    let rebuilt = MemorySink::new();
    while_running(worker(&fleet), async {
        let start = fleet.client.start_workflow(Paused::run, 2u32, fleet.start_options());
        let handle = start.await.unwrap();
        release(&handle).await;
        let update = WorkflowExecuteUpdateOptions::default();
        handle.execute_update(Paused::ask, 4u32, update).await.unwrap();
        let id = handle.info().workflow_id.clone();
        let backfill =
            Backfill::new(rebuilt.clone()).workflows(code()).journal(folder.path().join("journal"));
        let report = backfill.run(&fleet.client, &id, None).await.unwrap();
        assert_eq!((report.runs, report.failed.len()), (1, 0), "{:?}", report.failed);
        let root = named(&rebuilt.spans(), "Paused").clone();
        assert_eq!((root.end_timestamp, root.status), (None, SpanStatus::Success));
        assert_eq!(named(&rebuilt.spans(), "asking").status, SpanStatus::Success);

        release(&handle).await;
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        let report = backfill.run(&fleet.client, &id, handle.run_id()).await.unwrap();
        assert_eq!((report.runs, report.skipped), (1, 0));
        assert!(all_ended(&rebuilt.spans()));
        assert_eq!(facts(&of_workflow(&rebuilt.spans())), facts(&of_workflow(&fleet.sink.spans())));
        let report = backfill.run(&fleet.client, &id, handle.run_id()).await.unwrap();
        assert_eq!((report.runs, report.skipped, report.sent), (0, 1, 0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_without_its_code_fails_alone() {
    let fleet = Fleet::new("no-code").await;
    let query = while_running(worker(&fleet), async {
        for how in ["fail", "benign"] {
            let how = how.to_owned();
            let start = fleet.client.start_workflow(Doomed::run, how, fleet.start_options());
            let handle = start.await.unwrap();
            handle.get_result(WorkflowGetResultOptions::default()).await.unwrap_err();
        }
        let start = fleet.client.start_workflow(Ship::run, 1u32, fleet.start_options());
        start.await.unwrap().get_result(WorkflowGetResultOptions::default()).await.unwrap();
        listed(&fleet, 3).await
    })
    .await;
    let mut code = WorkflowReplayerOptions::new().build();
    code.register_workflow::<Doomed>().unwrap();
    let rebuilt = MemorySink::new();
    let (report, _) = backfill(&rebuilt, Some(code), &fleet.client, &query).await;
    assert_eq!((report.runs, report.failed.len()), (2, 1));
    let failed = &report.failed[0];
    assert!(failed.error.is_replay(), "{}", failed.error);
    assert!(failed.error.to_string().contains("Ship"), "{}", failed.error);
}
