//! What the server's histories say of a run.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail};
use durable_spans::{Span, SpanId, WorkflowTracing};
use durable_spans_model::HEADER;
use durable_spans_workflow::{COURIER_WORKFLOW, from_payload};
use temporalio_client::{Client, WorkflowFetchHistoryOptions, WorkflowGetResultOptions};
use temporalio_common::{
    UntypedWorkflow,
    protos::temporal::api::{
        enums::v1::WorkflowTaskFailedCause,
        history::v1::{History, HistoryEvent, history_event::Attributes},
    },
};
use temporalio_sdk::workflow_replayer::{WorkflowReplayer, WorkflowReplayerOptions};

use crate::steps::{Plan, Steps};

/// The history of a run that has closed.
pub(crate) struct ClosedRun {
    events: Vec<HistoryEvent>,
}

/// A traced activity of a run.
pub(crate) struct Activity {
    /// Its span in the workflow, below which its attempts are.
    pub(crate) span: SpanId,
    /// How many there were.
    pub(crate) attempts: u32,
    /// Whether the last of them did it.
    pub(crate) completed: bool,
}

impl ClosedRun {
    /// Waits for the close, for at most `limit`, also while the server is away.
    pub(crate) async fn of(client: &Client, workflow_id: &str, limit: Duration) -> Result<Self> {
        let handle = client.get_workflow_handle::<UntypedWorkflow>(workflow_id);
        let closed = async {
            loop {
                // Whatever comes of it, the history says.
                drop(handle.get_result(WorkflowGetResultOptions::default()).await);
                let history = handle.fetch_history(WorkflowFetchHistoryOptions::default());
                if let Ok(events) = history.into_events().await {
                    let run = Self { events };
                    if run.status() != "running" {
                        return run;
                    }
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let waited = tokio::time::timeout(limit, closed).await;
        waited.with_context(|| format!("{workflow_id} has not closed within {limit:?}"))
    }

    pub(crate) fn status(&self) -> &'static str {
        use Attributes::*;
        match self.events.last().and_then(|event| event.attributes.as_ref()) {
            Some(WorkflowExecutionCompletedEventAttributes(_)) => "completed",
            Some(WorkflowExecutionFailedEventAttributes(_)) => "failed",
            Some(WorkflowExecutionTimedOutEventAttributes(_)) => "timed out",
            Some(WorkflowExecutionCanceledEventAttributes(_)) => "canceled",
            Some(WorkflowExecutionTerminatedEventAttributes(_)) => "terminated",
            Some(WorkflowExecutionContinuedAsNewEventAttributes(_)) => "continued as new",
            _ => "running",
        }
    }

    pub(crate) fn closed_at(&self) -> Option<SystemTime> {
        time(self.events.last())
    }

    /// From the start to the close, by the server's clock.
    pub(crate) fn lasted(&self) -> Result<Duration> {
        match time(self.events.first()).zip(self.closed_at()) {
            Some((started, closed)) => Ok(closed.duration_since(started)?),
            None => bail!("a history holds an event without its time"),
        }
    }

    /// How long the run's own commands and its close took in all, each from the event that let the
    /// code go on (its start, the end of an activity, a timer that fired) to the event of the
    /// command. What activities and timers take is not in it. A run of [`Steps`] waits for one thing
    /// at a time, so the two alternate.
    pub(crate) fn took_to_go_on(&self, plan: &Plan) -> Result<Duration> {
        use Attributes::*;
        let mut rest_timer = None;
        let (mut may_go_on, mut took) = (None, Duration::ZERO);
        for event in &self.events {
            let goes_on = match &event.attributes {
                Some(WorkflowExecutionStartedEventAttributes(_)) => false,
                Some(ActivityTaskCompletedEventAttributes(_)) => false,
                Some(TimerFiredEventAttributes(timer))
                    if Some(timer.started_event_id) == rest_timer =>
                {
                    false
                }
                Some(ActivityTaskScheduledEventAttributes(_)) => true,
                Some(TimerStartedEventAttributes(timer)) => {
                    let period = timer.start_to_fire_timeout;
                    // Others are the flush rule's.
                    if period.and_then(|period| period.try_into().ok()) != Some(plan.rest) {
                        continue;
                    }
                    rest_timer = Some(event.event_id);
                    true
                }
                _ => continue,
            };
            if !goes_on {
                may_go_on = time(Some(event));
            } else if let Some((since, at)) = may_go_on.take().zip(time(Some(event))) {
                took += at.duration_since(since)?;
            }
        }
        match may_go_on.zip(self.closed_at()) {
            Some((since, closed)) => Ok(took + closed.duration_since(since)?),
            None => bail!("the run did not close by itself"),
        }
    }

    /// Workflow tasks that failed, and those that timed out. One that the server gives out again since
    /// a timer fired while the close waited is neither.
    pub(crate) fn task_failures(&self) -> (usize, usize) {
        use Attributes::*;
        let count = |wanted: fn(&Attributes) -> bool| {
            self.events
                .iter()
                .filter_map(|event| event.attributes.as_ref())
                .filter(|a| wanted(a))
                .count()
        };
        let failed = count(|event| match event {
            WorkflowTaskFailedEventAttributes(task) => {
                task.cause() != WorkflowTaskFailedCause::UnhandledCommand
            }
            _ => false,
        });
        let timed_out = count(|event| matches!(event, WorkflowTaskTimedOutEventAttributes(_)));
        (failed, timed_out)
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

    /// Its activities, by the id that each had in the order of their schedule.
    pub(crate) fn activities(&self) -> Vec<Activity> {
        use Attributes::*;
        let mut activities = BTreeMap::new();
        for event in &self.events {
            match &event.attributes {
                Some(ActivityTaskScheduledEventAttributes(scheduled)) => {
                    let header = scheduled.header.as_ref();
                    let context = header.and_then(|header| header.fields.get(HEADER));
                    let span = context.and_then(|context| from_payload(context).ok()?.span_id);
                    let activity =
                        span.map(|span| Activity { span, attempts: 0, completed: false });
                    activities.extend(activity.map(|activity| (event.event_id, activity)));
                }
                Some(ActivityTaskStartedEventAttributes(started)) => {
                    let activity = activities.get_mut(&started.scheduled_event_id);
                    let attempts = started.attempt.unsigned_abs();
                    let _ = activity.map(|activity| activity.attempts = attempts);
                }
                Some(ActivityTaskCompletedEventAttributes(done)) => {
                    let activity = activities.get_mut(&done.scheduled_event_id);
                    let _ = activity.map(|activity| activity.completed = true);
                }
                _ => {}
            }
        }
        activities.into_values().collect()
    }

    /// The spans that the run's code recorded, by replaying it.
    pub(crate) async fn recorded(self) -> Result<BTreeMap<SpanId, Span>> {
        let recorded = Arc::new(Mutex::new(BTreeMap::new()));
        let kept = recorded.clone();
        let tracing = WorkflowTracing::new().observer(move |group| {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            // Later flushes carry the end of what earlier ones announced.
            kept.extend(group.spans.iter().map(|span| (span.id.clone(), span.clone())));
        });
        let mut options = WorkflowReplayerOptions::new().build();
        options.register_workflow::<Steps>()?;
        options.workflow_interceptor(tracing.interceptor());
        let history = History { events: self.events };
        WorkflowReplayer::new(options)?.replay_workflow(history.into()).await?;
        let mut recorded = recorded.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut recorded))
    }
}

fn time(event: Option<&HistoryEvent>) -> Option<SystemTime> {
    event?.event_time?.try_into().ok()
}
