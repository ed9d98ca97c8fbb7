//! What the server's history says of a run.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use durable_spans::SpanId;
use durable_spans_model::HEADER;
use durable_spans_workflow::{COURIER_WORKFLOW, from_payload};
use temporalio_client::{Client, WorkflowFetchHistoryOptions, WorkflowGetResultOptions};
use temporalio_common::{
    UntypedWorkflow,
    protos::temporal::api::history::v1::{HistoryEvent, history_event::Attributes},
};

/// The history of a run that has completed.
pub(crate) struct CompletedRun {
    pub(crate) events: Vec<HistoryEvent>,
}

/// An activity of a run.
#[derive(Default)]
pub(crate) struct Activity {
    /// Its span in the workflow, below which its attempts are, if durable-spans made it.
    pub(crate) span: Option<SpanId>,
    /// How many attempts there were.
    pub(crate) attempts: u32,
}

impl CompletedRun {
    /// Waits for the end, for at most `limit`, also while the server is away.
    pub(crate) async fn of(client: &Client, workflow_id: &str, limit: Duration) -> Result<Self> {
        let handle = client.get_workflow_handle::<UntypedWorkflow>(workflow_id);
        let closed = async {
            loop {
                // Whatever comes of it, the history says.
                drop(handle.get_result(WorkflowGetResultOptions::default()).await);
                let history = handle.fetch_history(WorkflowFetchHistoryOptions::default());
                match history.into_events().await {
                    Ok(events) if is_closed(&events) => return events,
                    _ => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        };
        let events = tokio::time::timeout(limit, closed).await;
        let events = events.with_context(|| format!("{workflow_id} goes on after {limit:?}"))?;
        let last = events.last().and_then(|event| event.attributes.as_ref());
        let completed =
            matches!(last, Some(Attributes::WorkflowExecutionCompletedEventAttributes(_)));
        ensure!(completed, "{workflow_id} has not completed: {last:?}");
        Ok(Self { events })
    }

    /// Its activities, in the order of their schedule.
    pub(crate) fn activities(&self) -> Vec<Activity> {
        use Attributes::*;
        let mut activities: BTreeMap<i64, Activity> = BTreeMap::new();
        for event in &self.events {
            match &event.attributes {
                Some(ActivityTaskScheduledEventAttributes(scheduled)) => {
                    let header = scheduled.header.as_ref();
                    let context = header.and_then(|header| header.fields.get(HEADER));
                    let span = context.and_then(|context| from_payload(context).ok()?.span_id);
                    activities.insert(event.event_id, Activity { span, attempts: 0 });
                }
                // It is written when the last attempt has ended.
                Some(ActivityTaskStartedEventAttributes(started)) => {
                    let activity = activities.entry(started.scheduled_event_id).or_default();
                    activity.attempts = started.attempt.unsigned_abs();
                }
                _ => {}
            }
        }
        activities.into_values().collect()
    }

    /// Workflow ids of its couriers.
    pub(crate) fn couriers(&self) -> Vec<String> {
        let started = self.events.iter().filter_map(|event| match &event.attributes {
            Some(Attributes::StartChildWorkflowExecutionInitiatedEventAttributes(child)) => {
                let kind = child.workflow_type.as_ref().map(|kind| kind.name.as_str());
                (kind == Some(COURIER_WORKFLOW)).then(|| child.workflow_id.clone())
            }
            _ => None,
        });
        started.collect()
    }
}

fn is_closed(events: &[HistoryEvent]) -> bool {
    use Attributes::*;
    matches!(
        events.last().and_then(|event| event.attributes.as_ref()),
        Some(
            WorkflowExecutionCompletedEventAttributes(_)
                | WorkflowExecutionFailedEventAttributes(_)
                | WorkflowExecutionTimedOutEventAttributes(_)
                | WorkflowExecutionCanceledEventAttributes(_)
                | WorkflowExecutionTerminatedEventAttributes(_)
        )
    )
}
