//! What tracing has added to the histories of a pipeline, read from those histories.

use anyhow::{Context, Result};
use durable_spans_model::HEADER;
use durable_spans_workflow::FLUSH_ACTIVITY;
use prost::Message;
use temporalio_client::{
    Client, WorkflowExecutionInfo, WorkflowFetchHistoryOptions, WorkflowHandle,
};
use temporalio_common::{
    UntypedWorkflow,
    protos::{
        constants::LOCAL_ACTIVITY_MARKER_NAME,
        coresdk::common::extract_local_activity_marker_data,
        temporal::api::{
            common::v1::{Header, WorkflowExecution},
            history::v1::{HistoryEvent, MarkerRecordedEventAttributes, history_event::Attributes},
        },
    },
};

/// Events and bytes, in all and those that are there because of tracing.
///
/// Ours are the marker of each flush, the linger timer of each run, the workflow task that such a
/// timer causes when it fires, and our entry in headers. **All timers count as ours**: the
/// pipeline's own code has none. A workflow task that other events caused as well counts as theirs.
#[derive(Default)]
pub(crate) struct Cost {
    pub(crate) runs: usize,
    pub(crate) events: usize,
    pub(crate) bytes: usize,
    pub(crate) events_added: usize,
    pub(crate) bytes_added: usize,
}

impl Cost {
    /// Adds up a run, the runs that follow it in its chain, and their child workflows.
    pub(crate) async fn of_chain(client: &Client, first: WorkflowExecutionInfo) -> Result<Self> {
        let mut cost = Self::default();
        let mut runs = vec![first];
        while let Some(run) = runs.pop() {
            let handle = WorkflowHandle::<_, UntypedWorkflow>::new(client.clone(), run.clone());
            let history = handle.fetch_history(WorkflowFetchHistoryOptions::default());
            let events = history.into_events().await.context("cannot fetch a history")?;
            cost.add_run(&events);
            runs.extend(events.iter().filter_map(|event| started_by(event, &run)));
        }
        Ok(cost)
    }

    fn add_run(&mut self, events: &[HistoryEvent]) {
        self.runs += 1;
        self.events += events.len();
        for event in events {
            let bytes = event.encoded_len();
            self.bytes += bytes;
            if is_ours(event) {
                self.events_added += 1;
                self.bytes_added += bytes;
            } else {
                self.bytes_added += header_bytes(event);
            }
        }
        for window in events.windows(4).filter(|window| is_task_of_our_timer(window)) {
            self.events_added += window.len() - 1;
            self.bytes_added += window[1..].iter().map(Message::encoded_len).sum::<usize>();
        }
    }
}

fn is_ours(event: &HistoryEvent) -> bool {
    match &event.attributes {
        Some(Attributes::MarkerRecordedEventAttributes(marker)) => is_flush(marker),
        Some(
            Attributes::TimerStartedEventAttributes(_) | Attributes::TimerFiredEventAttributes(_),
        ) => true,
        _ => false,
    }
}

fn is_flush(marker: &MarkerRecordedEventAttributes) -> bool {
    marker.marker_name == LOCAL_ACTIVITY_MARKER_NAME
        && extract_local_activity_marker_data(&marker.details)
            .is_some_and(|data| data.activity_type == FLUSH_ACTIVITY)
}

/// Whether a timer fired and nothing else happened until the workflow task that it caused was done.
fn is_task_of_our_timer(events: &[HistoryEvent]) -> bool {
    let mut attributes = events.iter().map(|event| event.attributes.as_ref());
    matches!(attributes.next(), Some(Some(Attributes::TimerFiredEventAttributes(_))))
        && matches!(
            attributes.next(),
            Some(Some(Attributes::WorkflowTaskScheduledEventAttributes(_)))
        )
        && matches!(
            attributes.next(),
            Some(Some(Attributes::WorkflowTaskStartedEventAttributes(_)))
        )
        && matches!(
            attributes.next(),
            Some(Some(Attributes::WorkflowTaskCompletedEventAttributes(_)))
        )
}

/// How much smaller an event would be without our entry in its header. The header itself is always
/// there, empty or not.
fn header_bytes(event: &HistoryEvent) -> usize {
    let mut without = event.clone();
    if let Some(header) = header_of(&mut without) {
        header.fields.remove(HEADER);
    }
    event.encoded_len() - without.encoded_len()
}

fn header_of(event: &mut HistoryEvent) -> Option<&mut Header> {
    match event.attributes.as_mut()? {
        Attributes::WorkflowExecutionStartedEventAttributes(start) => start.header.as_mut(),
        Attributes::WorkflowExecutionContinuedAsNewEventAttributes(next) => next.header.as_mut(),
        Attributes::ActivityTaskScheduledEventAttributes(activity) => activity.header.as_mut(),
        Attributes::StartChildWorkflowExecutionInitiatedEventAttributes(child) => {
            child.header.as_mut()
        }
        Attributes::ChildWorkflowExecutionStartedEventAttributes(child) => child.header.as_mut(),
        _ => None,
    }
}

/// The child workflow or next run that an event of `run` is about.
fn started_by(event: &HistoryEvent, run: &WorkflowExecutionInfo) -> Option<WorkflowExecutionInfo> {
    let (workflow_id, run_id) = match event.attributes.as_ref()? {
        Attributes::WorkflowExecutionContinuedAsNewEventAttributes(next) => {
            (run.workflow_id.clone(), next.new_execution_run_id.clone())
        }
        Attributes::ChildWorkflowExecutionStartedEventAttributes(child) => {
            let WorkflowExecution { workflow_id, run_id } = child.workflow_execution.clone()?;
            (workflow_id, run_id)
        }
        _ => return None,
    };
    let info = WorkflowExecutionInfo::builder().namespace(&run.namespace).workflow_id(workflow_id);
    Some(info.run_id(run_id).build())
}
