//! A run that is reset goes on in the same trace.

use durable_spans::{FlushPolicy, Span, new_trace};
use durable_spans_model::{HEADER, Seed};
use durable_spans_workflow::to_payload;
use temporalio_client::{
    WorkflowGetResultOptions, WorkflowHandle, WorkflowSignalOptions, grpc::WorkflowService,
    tonic::IntoRequest,
};
use temporalio_common::protos::temporal::api::{
    common::v1::{Header, WorkflowExecution},
    enums::v1::{EventType, ResetReapplyExcludeType},
    workflowservice::v1::ResetWorkflowExecutionRequest,
};

use crate::{
    harness::{Fleet, all_ended, named, of_workflow, unique, while_running},
    workflows::{Paused, PausedRun, Work},
};

/// Resets to the workflow task with this number, from 1, and returns the new run's id.
async fn reset(fleet: &Fleet, workflow_id: &str, run_id: &str, task: usize) -> String {
    let events = fleet.events(workflow_id).await;
    let mut tasks =
        events.iter().filter(|event| event.event_type() == EventType::WorkflowTaskCompleted);
    let request = ResetWorkflowExecutionRequest {
        namespace: "default".into(),
        workflow_execution: Some(WorkflowExecution {
            workflow_id: workflow_id.into(),
            run_id: run_id.into(),
        }),
        reason: "test".into(),
        workflow_task_finish_event_id: tasks.nth(task - 1).unwrap().event_id,
        request_id: unique("reset"),
        reset_reapply_exclude_types: vec![ResetReapplyExcludeType::Signal.into()],
        ..Default::default()
    };
    let mut connection = fleet.client.connection().clone();
    let answer = connection.reset_workflow_execution(request.into_request()).await.unwrap();
    answer.into_inner().run_id
}

async fn release(handle: &WorkflowHandle<temporalio_client::Client, PausedRun>) {
    let options = WorkflowSignalOptions::default();
    handle.signal(Paused::release, "go".to_owned(), options).await.unwrap();
}

/// What workflows recorded of a run that is reset to the workflow task with this number, with the id
/// of the run and that of the new one. The header is that of the start.
async fn spans_of_reset(task: usize, header: Option<Header>) -> (Vec<Span>, String, String) {
    let fleet = Fleet::new("reset").await;
    let mut options = fleet.worker_options();
    options.register_activities(Work).register_workflow::<Paused>().unwrap();
    let (original, reset_run) = while_running(fleet.worker(options), async {
        let mut options = fleet.start_options();
        options.header = header;
        let handle = fleet.client.start_workflow(Paused::run, 2u32, options).await.unwrap();
        release(&handle).await;
        release(&handle).await;
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        let (workflow_id, run_id) =
            (handle.info().workflow_id.clone(), handle.run_id().unwrap().to_owned());
        let reset_run = reset(&fleet, &workflow_id, &run_id, task).await;
        let again = fleet.client.get_workflow_handle::<PausedRun>(workflow_id);
        release(&again).await;
        release(&again).await;
        again.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        (run_id, reset_run)
    })
    .await;
    let spans = of_workflow(&fleet.sink.spans());
    assert!(all_ended(&spans));
    (spans, original, reset_run)
}

/// Were it not for this, the SDK would make a random stream for each span.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_drawn_for_the_ids_of_a_run_until_it_is_reset() {
    let (spans, original, _) = spans_of_reset(2, None).await;
    let root = named(&spans, "Paused");
    let workflow_id = root.metadata["temporal.workflow_id"].as_str().unwrap();
    let seed = Seed::of_run(&original, workflow_id);
    let whole = seed.span_id(Some(&root.id), "whole", 0, |_| None);
    assert_eq!(named(&spans, "whole").id, whole);
    let step = seed.span_id(Some(&whole), "step 1", 0, |_| None);
    let steps: Vec<bool> = spans
        .iter()
        .filter(|span| span.name == "step 1")
        .map(|span| span.id == step && !span.metadata.contains_key("temporal.run_id"))
        .collect();
    assert!(steps == [true, false] || steps == [false, true], "{steps:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_reset_to_its_very_first_task_goes_on_under_the_same_root() {
    let (spans, original, reset_run) = spans_of_reset(1, None).await;
    let root = named(&spans, "Paused");
    assert_eq!(root.metadata["temporal.run_id"], reset_run);
    assert_eq!(root.metadata["temporal.reset_of_run_id"], original);
    // Everything else began anew, beside that of the branch left behind.
    for name in ["whole", "step 0", "step 1"] {
        let both: Vec<&Span> = spans.iter().filter(|span| span.name == name).collect();
        assert_eq!(both.len(), 2, "{name}");
        assert!(both.iter().all(|span| span.trace_id == root.trace_id));
    }
    let is_whole = |span: &&Span| span.name == "whole";
    assert!(spans.iter().filter(is_whole).all(|span| span.parent_id.as_ref() == Some(&root.id)));
}

#[tokio::test(flavor = "multi_thread")]
async fn under_the_first_versions_of_the_rule_a_reset_to_the_very_first_task_begins_another_root() {
    let context = to_payload(&new_trace().policy(FlushPolicy::new()));
    let header = Header { fields: [(HEADER.to_owned(), context)].into() };
    let (spans, ..) = spans_of_reset(1, Some(header)).await;
    let roots: Vec<&Span> = spans.iter().filter(|span| span.name == "Paused").collect();
    assert_eq!(roots.len(), 2);
    assert_eq!(roots[0].trace_id, roots[1].trace_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_run_goes_on_with_the_same_root_and_its_new_spans_are_told_apart() {
    // The first task began the first step; the second one sees its activity's result.
    let (spans, original, reset_run) = spans_of_reset(2, None).await;
    let root = named(&spans, "Paused");
    assert_eq!(root.metadata["temporal.run_id"], reset_run);
    assert_eq!(root.metadata["temporal.reset_of_run_id"], original);
    // Begun before the reset: the same spans go on.
    for name in ["whole", "step 0"] {
        assert_eq!(named(&spans, name).metadata["temporal.run_id"], reset_run);
    }
    // Begun after it: each branch has its own.
    let steps: Vec<&Span> = spans.iter().filter(|span| span.name == "step 1").collect();
    assert_eq!(steps.len(), 2);
    assert_ne!(steps[0].id, steps[1].id);
    let runs: Vec<_> = steps.iter().map(|span| span.metadata.get("temporal.run_id")).collect();
    assert_eq!(runs, [None, Some(&reset_run.as_str().into())]);
}
