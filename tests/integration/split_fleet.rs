//! Workflow-only and activity-only workers on one task queue.

use temporalio_client::WorkflowGetResultOptions;
use temporalio_common::protos::temporal::api::history::v1::history_event::Attributes;

use crate::{
    harness::{Fleet, all_ended, while_running},
    workflows::{Ten, Work},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_activities_does_not_take_those_of_the_queue() {
    let fleet = Fleet::new("split").await;
    let mut workflows_only = fleet.worker_options();
    workflows_only.register_workflow::<Ten>().unwrap();
    // As in another process: the SDK lets one connection have one worker of a kind per queue.
    let elsewhere = Fleet::new("split").await;
    let mut activities_only = fleet.worker_options();
    activities_only.register_activities(Work);
    let activities_worker = elsewhere.worker(activities_only);
    let scenario = async {
        let start = fleet.client.start_workflow(Ten::run, (), fleet.start_options());
        let handle = start.await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        handle
    };
    let workflow_worker = fleet.worker(workflows_only);
    let handle = while_running(workflow_worker, while_running(activities_worker, scenario)).await;

    let (of_workflow, of_activities) = (fleet.sink.spans(), elsewhere.sink.spans());
    assert_eq!(of_workflow.len(), 1 + 10, "the run and its activities");
    assert_eq!(of_activities.len(), 10, "one attempt each");
    assert!(all_ended(&of_workflow));
    assert!(of_activities.iter().all(|attempt| {
        of_workflow.iter().any(|activity| Some(&activity.id) == attempt.parent_id.as_ref())
    }));
    let history = fleet.history(handle.info().workflow_id.as_str(), None);
    let first_attempts = history
        .into_events()
        .await
        .unwrap()
        .into_iter()
        .filter_map(|event| match event.attributes {
            Some(Attributes::ActivityTaskStartedEventAttributes(started)) => Some(started.attempt),
            _ => None,
        })
        .collect::<Vec<_>>();
    assert_eq!(first_attempts, [1; 10], "no activity was refused by a worker that has none");
}
