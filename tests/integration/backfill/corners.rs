//! Resets, local activities under way, codecs, large traces.

use std::{collections::HashSet, time::Duration};

use durable_spans::{Backfill, DurableSpans, MemorySink, SgpOptions, SgpSink, Span, WorkflowSpans};
use durable_spans_collector::Collector;
use temporalio_client::{
    ClientOptions, WorkflowExecuteUpdateOptions, WorkflowGetResultOptions,
    WorkflowTerminateOptions, grpc::WorkflowService, tonic::IntoRequest,
};
use temporalio_common::protos::temporal::api::{
    common::v1::WorkflowExecution, enums::v1::EventType, history::v1::HistoryEvent,
    workflowservice::v1::ResetWorkflowExecutionRequest,
};
use temporalio_macros::{activities, workflow, workflow_methods};
use temporalio_sdk::{
    LocalActivityOptions, WorkflowContext, WorkflowResult,
    activities::{ActivityContext, ActivityError},
    workflow_replayer::WorkflowReplayerOptions,
};

use super::{assert_same, backfill, by_id, code, listed, release, worker};
use crate::{
    codec::Strict,
    harness::{Fleet, all_ended, assert_tree, client, named, of_workflow, tree, while_running},
    workflows::{Order, Paused, Quiet, Recorded, Ship, Work},
};

/// Makes a run, and resets it to the task that `choose` takes.
async fn reset(name: &str, choose: impl Fn(&[i64]) -> i64) {
    let fleet = Fleet::new(name).await;
    let query = while_running(worker(&fleet), async {
        let start = fleet.client.start_workflow(Paused::run, 2u32, fleet.start_options());
        let handle = start.await.unwrap();
        release(&handle).await;
        let update = WorkflowExecuteUpdateOptions::default();
        handle.execute_update(Paused::ask, 4u32, update).await.unwrap();
        release(&handle).await;
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        let id = handle.info().workflow_id.clone();
        let is_task = |event: &HistoryEvent| event.event_type() == EventType::WorkflowTaskCompleted;
        let events = fleet.events(&id).await;
        let tasks: Vec<i64> =
            events.iter().filter(|event| is_task(event)).map(|event| event.event_id).collect();
        let run_id = handle.run_id().unwrap().to_owned();
        let reset = ResetWorkflowExecutionRequest {
            namespace: "default".into(),
            workflow_execution: Some(WorkflowExecution { workflow_id: id.clone(), run_id }),
            reason: "again".into(),
            workflow_task_finish_event_id: choose(&tasks),
            request_id: id,
            ..Default::default()
        };
        let mut client = fleet.client.clone();
        WorkflowService::reset_workflow_execution(&mut client, reset.into_request()).await.unwrap();
        // The signals are applied again, so the new run comes to its end, too.
        listed(&fleet, 2).await
    })
    .await;
    let live = fleet.sink.spans();
    assert!(all_ended(&live), "{}", tree(&live));

    let rebuilt = MemorySink::new();
    let (report, _) = backfill(&rebuilt, Some(code()), &fleet.client, &query).await;
    assert_eq!((report.runs, report.failed.len()), (2, 0), "{:?}", report.failed);
    assert_same(&of_workflow(&rebuilt.spans()), &of_workflow(&live));
    assert_eq!(rebuilt.spans().len(), live.len());

    // The skeleton has the same roots.
    let skeleton = MemorySink::new();
    let (report, _) = backfill(&skeleton, None, &fleet.client, &query).await;
    assert_eq!((report.runs, report.failed.len()), (2, 0), "{:?}", report.failed);
    let roots = |spans: &[Span]| {
        let roots = spans.iter().filter(|span| span.name == "Paused");
        let mut roots: Vec<_> = roots
            .map(|root| (root.id.clone(), root.metadata["temporal.run_id"].to_string()))
            .collect();
        roots.sort();
        roots
    };
    assert_eq!(roots(&skeleton.spans()), roots(&live));
}

#[tokio::test(flavor = "multi_thread")]
async fn both_branches_of_a_reset_run_come_back_and_the_one_that_goes_on_has_the_root() {
    reset("reset-late", |tasks| tasks[tasks.len() - 1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_reset_to_its_start_comes_back_beside_the_new_one() {
    reset("reset-early", |tasks| tasks[0]).await;
}

/// Holds its workflow task with a local activity.
#[workflow]
#[derive(Default)]
struct Busy;

#[workflow_methods]
impl Busy {
    #[run(name = "Busy")]
    async fn run(ctx: &mut WorkflowContext<Self>, _: ()) -> WorkflowResult<()> {
        let work = ctx.span("work").input("hours", 9);
        let options = LocalActivityOptions::default();
        work.try_scope(async { ctx.execute_local_activity(Sleeper::sleep, (), options).await })
            .await?;
        Ok(())
    }
}

struct Sleeper;

#[activities]
impl Sleeper {
    #[activity(name = "sleep")]
    async fn sleep(_ctx: ActivityContext, _: ()) -> Result<(), ActivityError> {
        tokio::time::sleep(Duration::from_secs(5)).await;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_terminated_within_a_local_activity_comes_back() {
    let fleet = Fleet::new("busy").await;
    let mut options = fleet.worker_options();
    options.register_activities(Sleeper).register_workflow::<Busy>().unwrap();
    let query = while_running(fleet.worker(options), async {
        let mut options = fleet.start_options();
        options.task_timeout = Some(Duration::from_secs(1));
        let handle = fleet.client.start_workflow(Busy::run, (), options).await.unwrap();
        let id = handle.info().workflow_id.clone();
        let is_task = |event: &HistoryEvent| event.event_type() == EventType::WorkflowTaskCompleted;
        // It is kept alive by heartbeats.
        while !fleet.events(&id).await.iter().any(is_task) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let options = WorkflowTerminateOptions::builder().reason("too slow").build();
        handle.terminate(options).await.unwrap();
        listed(&fleet, 1).await
    })
    .await;
    let mut code = WorkflowReplayerOptions::new().build();
    code.register_workflow::<Busy>().unwrap();
    let rebuilt = MemorySink::new();
    let (report, _) = backfill(&rebuilt, Some(code), &fleet.client, &query).await;
    assert_eq!((report.runs, report.failed.len()), (1, 0), "{:?}", report.failed);
    assert_tree(
        &rebuilt.spans(),
        "
        Busy AGENT_WORKFLOW ERROR workflow
          work STANDALONE CANCELED
            sleep CUSTOM CANCELED activity
        ",
    );
    assert_eq!(named(&rebuilt.spans(), "work").input["hours"], 9);
    assert_eq!(named(&rebuilt.spans(), "Busy").metadata["error_message"], "too slow");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_codec_hides_nothing_from_the_replay() {
    let sink = MemorySink::new();
    let converter = Strict::default().data_converter();
    let spans = DurableSpans::new(sink.clone());
    let fleet = Fleet::with("coded", spans, sink, converter.clone()).await;
    let query = while_running(worker(&fleet), async {
        let start = fleet.client.start_workflow(Order::run, 0u32, fleet.start_options());
        start.await.unwrap().get_result(WorkflowGetResultOptions::default()).await.unwrap();
        listed(&fleet, 2).await
    })
    .await;
    let live = fleet.sink.spans();
    let mut code = code();
    code.data_converter = converter;
    let rebuilt = MemorySink::new();
    let (report, _) = backfill(&rebuilt, Some(code), &fleet.client, &query).await;
    assert_eq!((report.runs, report.failed.len()), (2, 0), "{:?}", report.failed);
    assert_same(&of_workflow(&rebuilt.spans()), &of_workflow(&live));
    let ids = |spans: &[Span]| by_id(spans).into_keys().collect::<Vec<_>>();
    assert_eq!(ids(&rebuilt.spans()), ids(&live));

    // A skeleton asks the client's codec which trace it is.
    let skeleton = MemorySink::new();
    let (report, _) = backfill(&skeleton, None, &fleet.client, &query).await;
    assert_eq!((report.runs, report.failed.len()), (2, 0), "{:?}", report.failed);
    let (bones, live_ids) = (skeleton.spans(), ids(&live));
    let is_certain = |span: &&Span| span.metadata.get("temporal.local") != Some(&true.into());
    for bone in bones.iter().filter(is_certain) {
        assert_eq!(bone.trace_id, live[0].trace_id);
        assert!(live_ids.contains(&bone.id) || named_timer(bone), "{bone:?}");
    }
    let (report, _) = backfill(&fleet.sink, None, &fleet.client, &query).await;
    assert_eq!((report.runs, report.sent), (2, 0), "nothing twice");
    let root = live.iter().find(|span| span.parent_id.is_none()).unwrap();
    let id = root.metadata["temporal.workflow_id"].as_str().unwrap();
    let from_file = MemorySink::new();
    let decoding =
        Backfill::new(from_file.clone()).data_converter(Strict::default().data_converter());
    let report = decoding.history(fleet.history(id, None), Some(id)).await.unwrap();
    assert_eq!((report.runs, report.failed.len()), (1, 0), "{:?}", report.failed);
    assert_eq!(from_file.spans()[0].id, root.id);

    // Without the codec nobody can tell which trace it is.
    let skeleton = MemorySink::new();
    let plain = client(ClientOptions::new("default").build()).await;
    let (report, _) = backfill(&skeleton, None, &plain, &query).await;
    assert_eq!((report.runs, report.failed.len()), (0, 2));
    assert!(report.failed[0].error.to_string().contains("codec"), "{}", report.failed[0].error);
    assert_eq!(skeleton.spans(), []);
}

/// Timers of user code have no span by default, but for skeletons.
fn named_timer(span: &Span) -> bool {
    span.metadata["temporal.kind"] == "timer"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_trace_is_asked_for_page_by_page() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::open(folder.path().join("spans.sqlite")).unwrap();
    let serving = collector.serve(([127, 0, 0, 1], 0)).await.unwrap();
    let sink = || SgpSink::new(SgpOptions::new(serving.url())).unwrap();
    let unused = MemorySink::new();
    let fleet = Fleet::with("large", DurableSpans::new(sink()), unused, Default::default()).await;
    let mut options = fleet.worker_options();
    options.register_workflow::<Quiet>().unwrap();
    let handle = while_running(fleet.worker(options), async {
        let start = fleet.client.start_workflow(Quiet::run, 2_300u32, fleet.start_options());
        let handle = start.await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        handle
    })
    .await;
    fleet.spans.flush(Duration::from_secs(10)).await;
    let mut code = WorkflowReplayerOptions::new().build();
    code.register_workflow::<Quiet>().unwrap();
    let backfill = Backfill::new(sink()).workflows(code);
    let report = backfill.run(&fleet.client, &handle.info().workflow_id, None).await.unwrap();
    assert_eq!(report.failed.len(), 0, "{:?}", report.failed);
    assert_eq!((report.runs, report.sent, report.known), (1, 0, 2_301));
    serving.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn timers_and_linked_generations_come_back_as_the_installation_says() {
    let sink = MemorySink::new();
    let spans = DurableSpans::new(sink.clone()).timer_spans(true).linked_generations(true);
    let fleet = Fleet::with("options", spans, sink, Default::default()).await;
    let mut options = fleet.worker_options();
    options.register_activities(Work).register_workflow::<Recorded>().unwrap();
    options.register_workflow::<Order>().unwrap().register_workflow::<Ship>().unwrap();
    let query = while_running(fleet.worker(options), async {
        let start = fleet.client.start_workflow(Order::run, 1u32, fleet.start_options());
        start.await.unwrap().get_result(WorkflowGetResultOptions::default()).await.unwrap();
        let start = fleet.client.start_workflow(Recorded::run, 3u32, fleet.start_options());
        start.await.unwrap().get_result(WorkflowGetResultOptions::default()).await.unwrap();
        // Two generations of Order with a child each.
        listed(&fleet, 5).await
    })
    .await;
    let live = fleet.sink.spans();
    let timers = live.iter().filter(|span| span.metadata.contains_key("temporal.timer_ms"));
    assert_eq!(timers.count(), 3, "{}", tree(&live));
    let is_linked = |span: &&Span| span.metadata.contains_key("temporal.previous_trace_id");
    let linked = live.iter().find(is_linked).unwrap();
    let traces: HashSet<_> = live.iter().map(|span| span.trace_id.clone()).collect();
    assert_eq!(traces.len(), 3);

    let mut code = WorkflowReplayerOptions::new().build();
    code.register_workflow::<Recorded>().unwrap();
    code.register_workflow::<Order>().unwrap().register_workflow::<Ship>().unwrap();
    let rebuilt = MemorySink::new();
    let backfill = |sink: &MemorySink| Backfill::new(sink.clone()).installation(&fleet.spans);
    let report = backfill(&rebuilt).workflows(code).query(&fleet.client, &query).await.unwrap();
    assert_eq!((report.runs, report.failed.len()), (5, 0), "{:?}", report.failed);
    assert_same(&of_workflow(&rebuilt.spans()), &of_workflow(&live));
    let ids = |spans: &[Span]| by_id(spans).into_keys().collect::<Vec<_>>();
    assert_eq!(ids(&rebuilt.spans()), ids(&live));

    // The skeleton is in the same traces, and knows the links.
    let skeleton = MemorySink::new();
    let report = backfill(&skeleton).query(&fleet.client, &query).await.unwrap();
    assert_eq!((report.runs, report.failed.len()), (5, 0), "{:?}", report.failed);
    let bones = skeleton.spans();
    assert_eq!(bones.iter().map(|span| span.trace_id.clone()).collect::<HashSet<_>>(), traces);
    let bone = bones.iter().find(|bone| bone.id == linked.id).unwrap();
    for link in ["temporal.previous_trace_id", "temporal.previous_span_id"] {
        assert_eq!(bone.metadata[link], linked.metadata[link]);
    }
    let report = backfill(&fleet.sink).query(&fleet.client, &query).await.unwrap();
    assert_eq!((report.runs, report.sent), (5, 0), "nothing twice");
}
