//! Which build couriers run on where workers are versioned.

use durable_spans::{DurableSpans, MemorySink, SinkError};
use temporalio_client::{WorkflowGetResultOptions, grpc::WorkflowService, tonic::IntoRequest};
use temporalio_common::{
    protos::temporal::api::{
        history::v1::history_event::Attributes,
        workflowservice::v1::SetWorkerDeploymentCurrentVersionRequest,
    },
    worker::{VersioningBehavior, WorkerDeploymentOptions, WorkerDeploymentVersion},
};
use temporalio_sdk::Worker;

use crate::{
    couriers::{couriers, until_ended},
    harness::{Fleet, all_ended, unique, while_running},
    workflows::Quiet,
};

struct Deployment<'a> {
    fleet: &'a Fleet,
    name: String,
    behavior: VersioningBehavior,
}

impl Deployment<'_> {
    /// A worker of this build, on a connection of its own.
    async fn worker(&self, build: &str, spans: &DurableSpans) -> Worker {
        let mut options = self.fleet.worker_options();
        let version = WorkerDeploymentVersion::builder()
            .deployment_name(self.name.clone())
            .build_id(build.to_owned())
            .build();
        options.deployment_options = WorkerDeploymentOptions::new(version)
            .use_worker_versioning(true)
            .default_versioning_behavior(self.behavior)
            .build();
        options.register_workflow::<Quiet>().unwrap();
        spans.install(&mut options).unwrap();
        self.fleet.untraced_worker(options)
    }

    async fn make_current(&self, build: &str) {
        let request = SetWorkerDeploymentCurrentVersionRequest {
            namespace: "default".into(),
            deployment_name: self.name.clone(),
            build_id: build.into(),
            allow_no_pollers: true,
            ignore_missing_task_queues: true,
            ..Default::default()
        };
        let mut connection = self.fleet.client.connection().clone();
        connection.set_worker_deployment_current_version(request.into_request()).await.unwrap();
    }

    /// The builds that did the workflow tasks of a run, each once.
    async fn builds(&self, workflow_id: &str) -> Vec<String> {
        let mut builds: Vec<String> = Vec::new();
        for event in self.fleet.events(workflow_id).await {
            if let Some(Attributes::WorkflowTaskCompletedEventAttributes(done)) = event.attributes {
                builds.extend(done.deployment_version.map(|version| version.build_id));
            }
        }
        builds.dedup();
        builds
    }
}

/// A run of build 1 sends a courier; then build 2 becomes current, and the sink works again there.
async fn builds_of_courier(behavior: VersioningBehavior) -> Vec<String> {
    let fleet = Fleet::new("versioned").await;
    fleet.sink.fail_with(|_| Some(SinkError::retryable("down")));
    let deployment = Deployment { fleet: &fleet, name: unique("deployment"), behavior };
    deployment.make_current("1").await;
    let first = deployment.worker("1", &fleet.spans).await;
    let id = while_running(first, async {
        let start = fleet.client.start_workflow(Quiet::run, 2, fleet.start_options());
        let handle = start.await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        handle.info().workflow_id.clone()
    })
    .await;
    let started = couriers(&fleet.events(&id).await);
    deployment.make_current("2").await;

    let sink = MemorySink::new();
    let spans = DurableSpans::new(sink.clone());
    let (first, second) =
        (deployment.worker("1", &spans).await, deployment.worker("2", &spans).await);
    while_running(first, while_running(second, until_ended(&fleet.client, &started[0]))).await;
    assert_eq!(sink.spans().len(), 3);
    assert!(all_ended(&sink.spans()));
    deployment.builds(&started[0]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_courier_of_a_pinned_run_stays_on_its_build() {
    assert_eq!(builds_of_courier(VersioningBehavior::Pinned).await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_courier_of_an_auto_upgraded_run_moves_to_the_current_build() {
    let builds = builds_of_courier(VersioningBehavior::AutoUpgrade).await;
    assert_eq!(builds.last().map(String::as_str), Some("2"), "{builds:?}");
}
