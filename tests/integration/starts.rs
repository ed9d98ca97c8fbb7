//! Runs that were started without our client: by a schedule, by the command line, by an OpenTelemetry-instrumented
//! client.

use std::sync::Arc;

use durable_spans::SpanId;
use durable_spans_test_server::{TemporalServer, shared};
use temporalio_client::{
    ClientOptions, WorkflowGetResultOptions,
    schedules::{CreateScheduleOptions, DeleteScheduleOptions, ScheduleAction, ScheduleSpec},
};
use temporalio_common::protos::temporal::api::{
    common::v1::{Header, Payload},
    history::v1::history_event::Attributes,
};
use tokio::{process::Command, sync::Notify};

use crate::{
    harness::{Fleet, all_ended, client, named, unique, while_running},
    workflows::{Named, Quiet, QuietRun, Work},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_run_has_its_own_root_with_the_id_of_the_schedule() {
    let fleet = Fleet::new("scheduled").await;
    let mut options = fleet.worker_options();
    options.register_workflow::<Quiet>().unwrap();
    let schedule_id = unique("schedule");
    let arrived = Arc::new(Notify::new());
    let arrives = arrived.clone();
    fleet.sink.fail_with(move |_| {
        arrives.notify_one();
        None
    });
    while_running(fleet.worker(options), async {
        let action = ScheduleAction::start_workflow(
            Quiet::run,
            1,
            fleet.queue.clone(),
            unique("by-schedule"),
        );
        let options = CreateScheduleOptions::builder()
            .action(action)
            .spec(ScheduleSpec::builder().build())
            .trigger_immediately(true)
            .build();
        let schedule = fleet.client.create_schedule(schedule_id.clone(), options).await.unwrap();
        arrived.notified().await;
        schedule.delete(DeleteScheduleOptions::default()).await.unwrap();
    })
    .await;
    let spans = fleet.sink.spans();
    let root = named(&spans, "Quiet");
    assert_eq!(root.parent_id, None);
    assert_eq!(root.metadata["temporal.schedule_id"], schedule_id);
    assert!(all_ended(&spans));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_temporals_command_line_started_has_its_own_root() {
    let fleet = Fleet::new("command-line").await;
    let mut options = fleet.worker_options();
    options.register_workflow::<Quiet>().unwrap();
    let id = unique("by-hand");
    while_running(fleet.worker(options), async {
        let command = TemporalServer::command().await.unwrap();
        let address = shared().await.address().trim_start_matches("http://");
        let start = ["workflow", "start", "--address", address, "--namespace", "default"];
        let run = ["--type", "Quiet", "--task-queue", &fleet.queue, "--workflow-id", &id];
        let mut command = Command::new(command);
        let output = command.args(start).args(run).args(["--input", "2"]).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let handle = fleet.client.get_workflow_handle::<QuietRun>(id.as_str());
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
    })
    .await;
    let spans = fleet.sink.spans();
    let root = named(&spans, "Quiet");
    assert_eq!((root.parent_id.as_ref(), spans.len()), (None, 3));
    assert_eq!(root.metadata["temporal.workflow_id"], id);
    assert_eq!(root.input, serde_json::json!({"input": 2}));
    assert!(all_ended(&spans));
}

const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The header that the OpenTelemetry interceptors of Temporal's SDKs set.
fn tracer_data(traceparent: &str) -> Header {
    let payload = Payload {
        metadata: [("encoding".to_owned(), b"json/plain".to_vec())].into(),
        data: format!(r#"{{"traceparent":"{traceparent}"}}"#).into_bytes(),
        ..Payload::default()
    };
    Header { fields: [("_tracer-data".to_owned(), payload)].into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_an_instrumented_client_joins_its_trace_and_passes_it_on() {
    let fleet = Fleet::new("w3c").await;
    let plain = client(ClientOptions::new("default").build()).await;
    let mut options = fleet.worker_options();
    options.register_activities(Work).register_workflow::<Named>().unwrap();
    let handle = while_running(fleet.worker(options), async {
        let mut start = fleet.start_options();
        start.header = Some(tracer_data(CALLER));
        let handle = plain.start_workflow(Named::run, vec!["a".to_owned()], start).await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        handle
    })
    .await;
    let spans = fleet.sink.spans();
    let trace_id = "4bf92f3577b34da6a3ce929d0e0e4736";
    assert!(spans.iter().all(|span| span.trace_id.to_string() == trace_id));
    let root = named(&spans, "Named");
    assert_eq!(root.parent_id, Some("00f067aa0ba902b7".parse::<SpanId>().unwrap()));
    assert_eq!(root.obs_trace_id.as_deref(), Some(trace_id));
    assert_eq!(root.obs_span_id.as_deref(), Some("00f067aa0ba902b7"));

    let kind = |span: &&durable_spans::Span, kind: &str| {
        span.metadata.get("temporal.kind") == Some(&kind.into())
    };
    let activity = spans.iter().find(|span| kind(span, "activity")).unwrap();
    let below = format!("{:016x}", activity.id.bits().unwrap() as u64);
    let attempt = spans.iter().find(|span| kind(span, "activity_attempt")).unwrap();
    assert_eq!(attempt.obs_span_id, Some(below.as_str().into()));
    let events = fleet.events(&handle.info().workflow_id).await;
    let header = events.iter().find_map(|event| match &event.attributes {
        Some(Attributes::ActivityTaskScheduledEventAttributes(activity)) => activity.header.clone(),
        _ => None,
    });
    let expected = tracer_data(&CALLER.replace("00f067aa0ba902b7", &below));
    assert_eq!(header.unwrap().fields["_tracer-data"], expected.fields["_tracer-data"]);
}
