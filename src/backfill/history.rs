use std::time::{Duration, SystemTime};

use durable_spans_model::{
    FlushPolicy, HEADER, SpanError, TRACER_HEADER, Timestamp, TraceContext, TraceParent,
};
use durable_spans_workflow::{
    EXPLICIT_CONTEXT, FLUSH_ACTIVITY, FLUSH_PACKED_ACTIVITY, context_of_start,
};
use temporalio_common::data_converters::{
    DataConverter, SerializationContextData, WorkflowSerializationContext,
};
use temporalio_common::protos::{
    coresdk::common::extract_local_activity_marker_data,
    temporal::api::{
        common::v1::{Header, Payload, Payloads},
        enums::v1::EventType,
        history::v1::{
            HistoryEvent, WorkflowExecutionStartedEventAttributes, history_event::Attributes,
        },
    },
};

use super::{error::RunError, outcome::Close};

/// The history of one run, and what it says of the run as a whole.
#[derive(Clone, Debug)]
pub(super) struct RunHistory {
    /// Where it came from a server.
    pub(super) namespace: Option<String>,
    pub(super) workflow_id: String,
    /// The run's own, also where it is the reset of another one.
    pub(super) run_id: String,
    pub(super) workflow_type: String,
    pub(super) started: Box<WorkflowExecutionStartedEventAttributes>,
    pub(super) start_time: Timestamp,
    /// The flush policy that was pinned when the run started, as far as that is known.
    pub(super) policy: FlushPolicy,
    pub(super) ending: Option<Ending>,
    /// Where the run was reset: the run that goes on in its place tells what began before.
    pub(super) told_from: Option<Timestamp>,
    /// At least one.
    pub(super) events: Vec<HistoryEvent>,
}

/// How and when a run closed.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    pub(super) at: Timestamp,
    pub(super) close: Close,
    /// Who terminated it.
    pub(super) terminated_by: Option<String>,
    /// Whether the workflow's code came to this end.
    pub(super) by_code: bool,
}

impl RunHistory {
    /// `workflow_id` and `run_id` are what is known besides the events; older servers do not write
    /// the workflow id into them.
    pub(super) fn new(
        mut events: Vec<HistoryEvent>,
        workflow_id: Option<&str>,
        run_id: Option<&str>,
    ) -> Result<Self, RunError> {
        // A workflow task that is under way has recorded nothing yet, and a replayer would take it
        // for one that it is to do.
        if events.last().is_some_and(|event| event.event_type() == EventType::WorkflowTaskStarted) {
            events.pop();
        }
        let ending = events.last().and_then(ending);
        let Some(first) = events.first_mut() else { return Err(RunError::history("it is empty")) };
        let start_time = time_of(first);
        let Some(Attributes::WorkflowExecutionStartedEventAttributes(started)) =
            &mut first.attributes
        else {
            return Err(RunError::history("it does not begin with the start of the run"));
        };
        match workflow_id {
            Some(known) if started.workflow_id.is_empty() => started.workflow_id = known.to_owned(),
            None if started.workflow_id.is_empty() => {
                return Err(RunError::history("it does not hold the workflow id: give it, too"));
            }
            _ => {}
        }
        let workflow_type = started.workflow_type.clone().unwrap_or_default().name;
        let started = Box::new(started.clone());
        let run_id = run_id.filter(|id| !id.is_empty()).map(str::to_owned);
        let run_id = run_id.or_else(|| events.iter().rev().find_map(reset_to));
        Ok(Self {
            namespace: None,
            workflow_id: started.workflow_id.clone(),
            run_id: run_id.unwrap_or_else(|| started.original_execution_run_id.clone()),
            workflow_type,
            started,
            start_time,
            policy: FlushPolicy::new(),
            ending,
            told_from: None,
            events,
        })
    }

    /// The run whose id the SDK seeds the first random numbers with: a reset before any task was
    /// done leaves nothing of the run before.
    pub(super) fn first_seed_run_id(&self) -> &str {
        let is_done = |event: &HistoryEvent| event.event_type() == EventType::WorkflowTaskCompleted;
        let undone = self.events.iter().take_while(|event| !is_done(event));
        let resets = undone.filter_map(|event| match &event.attributes {
            Some(Attributes::WorkflowTaskFailedEventAttributes(failed)) => Some(&failed.new_run_id),
            _ => None,
        });
        let last = resets.filter(|run_id| !run_id.is_empty()).last();
        last.unwrap_or(&self.started.original_execution_run_id)
    }

    /// The time from which this run, which is the reset of another one, has spans of its own. `None`
    /// where it has no span in common with that one: its first workflow task is done again, and
    /// gives other ids, the root's included.
    pub(super) fn parted_at(&self) -> Option<Timestamp> {
        let reset = self.events.iter().rposition(|event| reset_to(event).is_some())?;
        let shared = &self.events[..reset];
        let is_started =
            |event: &&HistoryEvent| event.event_type() == EventType::WorkflowTaskStarted;
        let is_done = |event: &HistoryEvent| event.event_type() == EventType::WorkflowTaskCompleted;
        let again = shared.iter().rfind(is_started)?;
        (self.keeps_root() || shared.iter().any(is_done)).then(|| time_of(again))
    }

    /// Whether the root has the same id in every branch that a reset makes of the run.
    pub(super) fn keeps_root(&self) -> bool {
        self.policy.keeps_root() && !self.started.original_execution_run_id.is_empty()
    }

    /// Whether a flush of ours is in it, so that replay must flush, too.
    pub(super) fn holds_flushes(&self) -> bool {
        self.events.iter().any(|event| match &event.attributes {
            Some(Attributes::MarkerRecordedEventAttributes(marker)) => {
                extract_local_activity_marker_data(&marker.details)
                    .is_some_and(|activity| activity.activity_type == FLUSH_ACTIVITY)
            }
            Some(Attributes::ActivityTaskScheduledEventAttributes(activity)) => activity
                .activity_type
                .as_ref()
                .is_some_and(|activity_type| activity_type.name == FLUSH_PACKED_ACTIVITY),
            _ => false,
        })
    }

    /// Whether the workflow's code ran at all.
    pub(super) fn has_run(&self) -> bool {
        self.events.iter().any(|event| event.event_type() == EventType::WorkflowTaskCompleted)
    }

    /// The same with the trace contexts decoded that a payload codec has encoded, as far as this one
    /// can. Everything else stays as it is, so a replayer must not get it.
    pub(super) async fn readable(&self, data_converter: &DataConverter) -> Self {
        let mut readable = self.clone();
        for event in &mut readable.events {
            for payload in contexts_of(event) {
                if durable_spans_workflow::from_payload(payload).is_err() {
                    decode(payload, data_converter).await;
                }
            }
        }
        if let Some(Attributes::WorkflowExecutionStartedEventAttributes(started)) =
            &readable.events[0].attributes
        {
            readable.started = Box::new(started.clone());
        }
        readable
    }

    /// Whether the trace is named, but cannot be read: a payload codec has encoded the headers.
    pub(super) fn hides_trace(&self) -> bool {
        let hidden = |header: Option<&Header>| {
            let payload = header.and_then(|header| header.fields.get(HEADER));
            payload.is_some_and(|payload| durable_spans_workflow::from_payload(payload).is_err())
        };
        self.events.iter().any(|event| match &event.attributes {
            Some(Attributes::WorkflowExecutionStartedEventAttributes(started)) => {
                hidden(started.header.as_ref())
            }
            Some(Attributes::ActivityTaskScheduledEventAttributes(activity)) => {
                hidden(activity.header.as_ref())
            }
            _ => false,
        })
    }

    /// The trace context that the run was started with, as far as it can be read.
    pub(super) fn context(&self) -> Option<TraceContext> {
        let memo = self.started.memo.as_ref().and_then(|memo| memo.fields.get(EXPLICIT_CONTEXT));
        let header = self.started.header.as_ref().and_then(|header| header.fields.get(HEADER));
        let input: &[_] = self.started.input.as_ref().map_or(&[], |Payloads { payloads }| payloads);
        context_of_start(&self.workflow_id, header, memo, input).or_else(|| self.observed())
    }

    /// The trace of an observability system whose tracer started the run.
    fn observed(&self) -> Option<TraceContext> {
        let payload = self.started.header.as_ref()?.fields.get(TRACER_HEADER)?;
        let (trace_id, span_id) = TraceParent::from_header(&payload.data).ok()?.ids().ok()?;
        Some(TraceContext::new(trace_id).under(span_id))
    }
}

/// Where an event may hold a trace context.
fn contexts_of(event: &mut HistoryEvent) -> Vec<&mut Payload> {
    let mut payloads = Vec::new();
    let header = match &mut event.attributes {
        Some(Attributes::WorkflowExecutionStartedEventAttributes(started)) => {
            let memo = started.memo.as_mut().and_then(|memo| memo.fields.get_mut(EXPLICIT_CONTEXT));
            payloads.extend(memo);
            payloads.extend(started.input.as_mut().and_then(|input| input.payloads.first_mut()));
            started.header.as_mut()
        }
        Some(Attributes::ActivityTaskScheduledEventAttributes(activity)) => {
            activity.header.as_mut()
        }
        Some(Attributes::StartChildWorkflowExecutionInitiatedEventAttributes(child)) => {
            child.header.as_mut()
        }
        Some(Attributes::WorkflowExecutionSignaledEventAttributes(signal)) => {
            signal.header.as_mut()
        }
        Some(Attributes::WorkflowExecutionUpdateAcceptedEventAttributes(accepted)) => {
            let input = accepted.accepted_request.as_mut().and_then(|it| it.input.as_mut());
            input.and_then(|input| input.header.as_mut())
        }
        _ => None,
    };
    let fields = header.into_iter().flat_map(|header| header.fields.iter_mut());
    let known = fields.filter(|(name, _)| [HEADER, TRACER_HEADER].contains(&name.as_str()));
    payloads.extend(known.map(|(_, payload)| payload));
    payloads
}

/// Leaves alone what the codec does not take: it is not encoded, or by another one.
async fn decode(payload: &mut Payload, data_converter: &DataConverter) {
    let kind = SerializationContextData::Workflow(WorkflowSerializationContext::new());
    let decoded = data_converter.codec().decode(&kind, vec![payload.clone()]).await;
    if let Ok(Some(decoded)) = decoded.map(|mut payloads| payloads.pop()) {
        *payload = decoded;
    }
}

/// The trace context that a command or message carries, if it can be read.
pub(super) fn context_in(header: Option<&Header>) -> Option<TraceContext> {
    durable_spans_workflow::from_payload(header?.fields.get(HEADER)?).ok()
}

pub(super) fn time_of(event: &HistoryEvent) -> Timestamp {
    event.event_time.and_then(timestamp).unwrap_or(Timestamp::from_unix_ns(0))
}

/// Of either protobuf type for times.
pub(super) fn timestamp(time: impl TryInto<SystemTime>) -> Option<Timestamp> {
    time.try_into().ok().map(Timestamp::from)
}

/// Of either protobuf type for durations. `None` for a negative one.
pub(super) fn duration(duration: impl TryInto<Duration>) -> Option<Duration> {
    duration.try_into().ok()
}

/// The run that the history belongs to from a reset on.
pub(super) fn reset_to(event: &HistoryEvent) -> Option<String> {
    match &event.attributes {
        Some(Attributes::WorkflowTaskFailedEventAttributes(failed)) => {
            Some(failed.new_run_id.clone()).filter(|id| !id.is_empty())
        }
        _ => None,
    }
}

fn ending(event: &HistoryEvent) -> Option<Ending> {
    let mut ending =
        Ending { at: time_of(event), close: Close::Success, terminated_by: None, by_code: true };
    match event.attributes.as_ref()? {
        Attributes::WorkflowExecutionCompletedEventAttributes(_) => {}
        Attributes::WorkflowExecutionContinuedAsNewEventAttributes(_) => {
            ending.close = Close::ContinuedAsNew;
        }
        Attributes::WorkflowExecutionCanceledEventAttributes(_) => ending.close = Close::Canceled,
        Attributes::WorkflowExecutionFailedEventAttributes(failed) => {
            ending.close = Close::of_failure(failed.failure.as_ref());
        }
        Attributes::WorkflowExecutionTerminatedEventAttributes(terminated) => {
            let reason = match terminated.reason.as_str() {
                "" => "terminated",
                reason => reason,
            };
            ending.close = Close::platform_error("TerminatedError", reason);
            ending.terminated_by = Some(terminated.identity.clone());
            ending.by_code = false;
        }
        Attributes::WorkflowExecutionTimedOutEventAttributes(_) => {
            ending.close = Close::platform_error("TimeoutError", "the run timed out");
            ending.by_code = false;
        }
        _ => return None,
    }
    Some(ending)
}

impl Close {
    pub(super) fn platform_error(error_type: &str, message: &str) -> Self {
        use durable_spans_model::ErrorCategory::Platform;
        Self::Error(SpanError::new(error_type, message).category(Platform))
    }
}
