//! What tracing adds to a run's history, by the server's own bytes.

use temporalio_client::WorkflowGetResultOptions;
use temporalio_common::{
    HasWorkflowDefinition,
    protos::temporal::api::history::v1::{HistoryEvent, history_event::Attributes},
};

use crate::{
    harness::{Fleet, event_bytes, while_running},
    workflows::{Quiet, Ten, Work},
};

/// Runs a workflow traced and untraced; returns both histories.
async fn both(name: &str, start: impl AsyncFn(&Fleet) -> String) -> [Vec<HistoryEvent>; 2] {
    let mut histories = Vec::new();
    for traced in [true, false] {
        let fleet = Fleet::new(name).await;
        let mut options = fleet.worker_options();
        options.register_activities(Work);
        options.register_workflow::<Quiet>().unwrap().register_workflow::<Ten>().unwrap();
        let worker = if traced { fleet.worker(options) } else { fleet.untraced_worker(options) };
        let workflow_id = while_running(worker, start(&fleet)).await;
        let history = fleet.history(&workflow_id, None);
        histories.push(history.into_events().await.unwrap());
    }
    histories.try_into().unwrap()
}

async fn run_to_the_end<W>(fleet: &Fleet, workflow: W, input: W::Input) -> String
where
    W: HasWorkflowDefinition,
    W::Input: Send,
{
    // Without our interceptor, as a schedule or another SDK starts it.
    let client =
        crate::harness::client(temporalio_client::ClientOptions::new("default").build()).await;
    let start = client.start_workflow(workflow, input, fleet.start_options());
    let handle = start.await.unwrap();
    let _ = handle.get_result(WorkflowGetResultOptions::default()).await.map_err(drop).unwrap();
    handle.info().workflow_id.clone()
}

fn bytes(events: &[HistoryEvent]) -> usize {
    events.iter().map(event_bytes).sum()
}

fn header_bytes(event: &HistoryEvent) -> usize {
    match &event.attributes {
        Some(Attributes::ActivityTaskScheduledEventAttributes(scheduled)) => {
            // Tag and length of the field, and the header itself.
            scheduled.header.as_ref().map_or(0, |header| {
                let len = prost::Message::encoded_len(header);
                1 + prost::length_delimiter_len(len) + len
            })
        }
        _ => 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_without_operations_gets_one_event_of_at_most_450_bytes() {
    let [traced, untraced] =
        both("cost-quiet", async |fleet| run_to_the_end(fleet, Quiet::run, 10).await).await;
    let added = bytes(&traced).saturating_sub(bytes(&untraced));
    println!("10 spans, no operations: {} events, {added} bytes", traced.len() - untraced.len());
    assert_eq!(traced.len() - untraced.len(), 1);
    assert!(added <= 450, "{added} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_a_thousand_spans_gets_at_most_4_bytes_per_span() {
    let [traced, untraced] =
        both("cost-thousand", async |fleet| run_to_the_end(fleet, Quiet::run, 1000).await).await;
    let added = bytes(&traced).saturating_sub(bytes(&untraced));
    println!("1000 spans: {} events, {added} bytes", traced.len() - untraced.len());
    assert!(added <= 4_000, "{added} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_activities_get_two_events_900_bytes_and_91_bytes_of_header_each() {
    let [traced, untraced] =
        both("cost-ten", async |fleet| run_to_the_end(fleet, Ten::run, ()).await).await;
    let headers: Vec<usize> = traced.iter().map(header_bytes).filter(|bytes| *bytes > 0).collect();
    let added = bytes(&traced).saturating_sub(bytes(&untraced));
    let beyond = added.saturating_sub(headers.iter().sum());
    println!(
        "10 activities: {} events, {beyond} bytes beyond the headers, {headers:?} bytes of header",
        traced.len() - untraced.len()
    );
    assert_eq!(headers.len(), 10);
    assert!(headers.iter().all(|bytes| *bytes <= 91), "{headers:?}");
    assert!(traced.len() - untraced.len() <= 2);
    assert!(beyond <= 900, "{beyond} bytes");
}
