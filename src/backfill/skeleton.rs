//! What a history alone tells of a run, without its code.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use durable_spans_model::{
    Seed, Span, SpanError, SpanId, SpanType, Timestamp, TraceContext, TraceId,
};
use durable_spans_workflow::{COURIER_WORKFLOW, schedule_id};
use serde_json::Value;
use temporalio_common::protos::temporal::api::{
    common::v1::{Header, WorkflowExecution},
    enums::v1::EventType,
    history::v1::{HistoryEvent, history_event::Attributes},
    update::v1::outcome::Value as UpdateOutcome,
};

use super::{
    BACKFILLED,
    activities::{ActivityFacts, activities, local_activities},
    draws::Draw,
    history::{RunHistory, context_in, duration, reset_to, time_of},
    ids::Ids,
    outcome::Close,
    truth::{end_with_run, is_own, note_reset},
};

/// Longest that the flush rule's timers grow to.
const LONGEST_LINGER: Duration = Duration::from_secs(600);

/// Of so many handlers, the latest ones, it is tried whether a call hangs under them.
const LATEST_PARENTS: usize = 16;

/// The run, its activities with their attempts, timers, signals, updates and children.
#[derive(Debug)]
pub(super) struct Skeleton {
    /// The root first.
    spans: Vec<Bone>,
}

#[derive(Debug)]
struct Bone {
    span: Span,
    /// Whether the id is in history, or follows from it: then it is the one of the recorded span.
    certain: bool,
    /// Whether this run tells of it, and not the one that goes on after a reset.
    is_own: bool,
}

impl Skeleton {
    /// Draws the skeleton. `drawn` and `draw` are the run's random numbers.
    pub(super) fn of(history: &RunHistory, drawn: u128, draw: &Draw<'_>) -> Self {
        let mut artist = Artist::new(history, drawn, draw);
        let [all, local] = [activities(&history.events), local_activities(&history.events)];
        let activities: HashMap<i64, &ActivityFacts> =
            all.iter().chain(&local).map(|facts| (facts.scheduled_event_id(), facts)).collect();
        for event in &history.events {
            artist.draw(event, &activities);
        }
        for bone in &mut artist.bones {
            if bone.span.metadata["temporal.kind"] != "activity_attempt" {
                note_reset(&mut bone.span, history);
            }
            end_with_run(&mut bone.span, history);
        }
        Self { spans: artist.bones }
    }

    pub(super) fn trace_id(&self) -> &TraceId {
        &self.spans[0].span.trace_id
    }

    /// What is to be sent to a sink which has these spans already, as ended ones. If the run is
    /// among them, its recorded trace exists, and what cannot be matched with that is left out.
    pub(super) fn missing(self, ended: &HashSet<SpanId>) -> Vec<Span> {
        let recorded = ended.contains(&self.spans[0].span.id);
        let wanted = |bone: &Bone| bone.is_own && (bone.certain || !recorded);
        let bones = self.spans.into_iter().filter(wanted);
        bones.map(|bone| bone.span).filter(|span| !ended.contains(&span.id)).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.spans.iter().filter(|bone| bone.is_own).count()
    }
}

struct Artist<'a> {
    history: &'a RunHistory,
    ids: Ids<'a>,
    trace_id: TraceId,
    group_id: Option<Arc<str>>,
    root: SpanId,
    /// The run and its handlers: what a span of it may hang under.
    parents: Vec<SpanId>,
    /// Durations that the timers of the flush rule have.
    lingers: Vec<Duration>,
    bones: Vec<Bone>,
    /// Whether a workflow task was done by now.
    has_run: bool,
    /// By the event that began them.
    positions: HashMap<i64, usize>,
}

impl<'a> Artist<'a> {
    fn new(history: &'a RunHistory, drawn: u128, draw: &'a Draw<'a>) -> Self {
        let context = history.context();
        let keeps_root = history.keeps_root();
        let seed = match keeps_root {
            true => {
                let original = &history.started.original_execution_run_id;
                Seed::of_run(original, &history.workflow_id)
            }
            false => Seed::new(drawn, &history.workflow_id),
        };
        let mut ids = Ids::new(seed, draw);
        let (trace_id, parent, group_id) = match &context {
            Some(context) => {
                (context.trace_id.clone(), context.span_id.clone(), context.group_id.clone())
            }
            None => (ids.trace_id(), None, None),
        };
        let root = match keeps_root {
            true => ids.lasting_root(parent.as_ref(), &history.workflow_type),
            false => ids.outside(parent.as_ref(), &history.workflow_type),
        };
        let mut artist = Self {
            history,
            ids,
            trace_id,
            group_id,
            root: root.clone(),
            parents: vec![root.clone()],
            lingers: lingers(history, context.as_ref()),
            bones: Vec::new(),
            has_run: false,
            positions: HashMap::new(),
        };
        let name = history.workflow_type.as_str();
        let mut span =
            artist.span(root, name, SpanType::AgentWorkflow, "workflow", history.start_time);
        span.parent_id = parent;
        let started = &history.started;
        note(&mut span, "workflow_id", history.workflow_id.as_str());
        note(&mut span, "run_id", history.run_id.as_str());
        if let Some(namespace) = &history.namespace {
            note(&mut span, "namespace", namespace.as_str());
        }
        if !started.continued_execution_run_id.is_empty() {
            note(&mut span, "continued", true);
        }
        if let Some((trace_id, span_id)) = context.and_then(|context| context.previous) {
            note(&mut span, "previous_trace_id", trace_id.to_string());
            note(&mut span, "previous_span_id", span_id.to_string());
        }
        if let Some(schedule) = schedule_id(started.search_attributes.as_ref()) {
            note(&mut span, "schedule_id", schedule);
        }
        if started.attempt > 1 {
            note(&mut span, "attempt", started.attempt);
        }
        artist.bones.push(Bone { is_own: is_own(&span, history), span, certain: true });
        artist
    }

    fn draw(&mut self, event: &HistoryEvent, activities: &HashMap<i64, &ActivityFacts>) {
        let at = time_of(event);
        self.has_run |= event.event_type() == EventType::WorkflowTaskCompleted;
        if let Some(run_id) = reset_to(event)
            && self.has_run
        {
            self.ids.reset(&self.history.workflow_id, &run_id);
        }
        let Some(attributes) = &event.attributes else { return };
        match attributes {
            Attributes::ActivityTaskScheduledEventAttributes(_)
            | Attributes::MarkerRecordedEventAttributes(_) => {
                if let Some(activity) = activities.get(&event.event_id) {
                    self.activity(activity);
                }
            }
            Attributes::TimerStartedEventAttributes(timer) => {
                let period = timer.start_to_fire_timeout.and_then(duration).unwrap_or_default();
                if !self.lingers.contains(&period) {
                    let id = self.ids.inside(&self.root, "timer");
                    let mut span = self.below_root(id, "timer", SpanType::Standalone, "timer", at);
                    note(&mut span, "timer_id", timer.timer_id.as_str());
                    note(&mut span, "timer_ms", millis(period));
                    self.begin(event.event_id, span, false);
                }
            }
            Attributes::TimerFiredEventAttributes(timer) => {
                self.end(timer.started_event_id, &Close::Success, at);
            }
            Attributes::TimerCanceledEventAttributes(timer) => {
                self.end(timer.started_event_id, &Close::Canceled, at);
            }
            Attributes::WorkflowExecutionSignaledEventAttributes(signal) => {
                let name = signal.signal_name.as_str();
                let mut span = self.handler(name, "signal", signal.header.as_ref(), at);
                note(&mut span, "sender", signal.identity.as_str());
                self.begin(event.event_id, span, false);
                self.end(event.event_id, &Close::Success, at);
            }
            Attributes::WorkflowExecutionUpdateAcceptedEventAttributes(accepted) => {
                let input = accepted.accepted_request.as_ref();
                let input = input.and_then(|request| request.input.as_ref());
                if let Some(input) = input {
                    let span = self.handler(&input.name, "update", input.header.as_ref(), at);
                    self.begin(event.event_id, span, false);
                }
            }
            Attributes::WorkflowExecutionUpdateCompletedEventAttributes(completed) => {
                let outcome = completed.outcome.as_ref().and_then(|outcome| outcome.value.as_ref());
                let close = match outcome {
                    Some(UpdateOutcome::Failure(failure)) => Close::of_failure(Some(failure)),
                    _ => Close::Success,
                };
                self.end(completed.accepted_event_id, &close, at);
            }
            other => self.child(event.event_id, other, at),
        }
    }

    fn activity(&mut self, activity: &ActivityFacts) {
        let name = activity.activity_type.as_str();
        let (id, certain, parent) = self.place(activity.span_id(), name);
        let mut span = self.span(id, name, SpanType::Custom, "activity", activity.scheduled);
        self.hang(&mut span, parent);
        activity.describe(&mut span);
        if let Some((at, close)) = &activity.closed {
            close.end(&mut span, *at);
        }
        let attempts = activity.attempt_spans(&span.trace_id, &span.id, self.group_id.as_ref());
        let is_own = is_own(&span, self.history);
        self.bones.push(Bone { span, certain, is_own });
        self.bones.extend(attempts.into_iter().map(|span| Bone { span, certain, is_own }));
    }

    fn child(&mut self, event_id: i64, attributes: &Attributes, at: Timestamp) {
        match attributes {
            Attributes::StartChildWorkflowExecutionInitiatedEventAttributes(child) => {
                let name = child.workflow_type.clone().unwrap_or_default().name;
                if name == COURIER_WORKFLOW {
                    return;
                }
                let context = context_in(child.header.as_ref()).filter(|context| context.sampled);
                let known = context.and_then(|context| context.span_id);
                let (id, certain, parent) = self.place(known.as_ref(), &name);
                let kind = SpanType::AgentWorkflow;
                let mut span = self.span(id, &name, kind, "child_workflow", at);
                self.hang(&mut span, parent);
                note(&mut span, "child_workflow_id", child.workflow_id.as_str());
                self.begin(event_id, span, certain);
            }
            Attributes::StartChildWorkflowExecutionFailedEventAttributes(failed) => {
                let error = SpanError::new("ChildWorkflowStartError", "the child did not start");
                self.end(failed.initiated_event_id, &Close::Error(error), at);
            }
            Attributes::ChildWorkflowExecutionStartedEventAttributes(started) => {
                let run = started.workflow_execution.as_ref();
                let run_id = run.map(|WorkflowExecution { run_id, .. }| run_id.as_str());
                if let Some(position) = self.positions.get(&started.initiated_event_id) {
                    let span = &mut self.bones[*position].span;
                    note(span, "child_run_id", run_id.unwrap_or_default());
                }
            }
            Attributes::ChildWorkflowExecutionCompletedEventAttributes(completed) => {
                self.end(completed.initiated_event_id, &Close::Success, at);
            }
            Attributes::ChildWorkflowExecutionFailedEventAttributes(failed) => {
                let close = Close::of_failure(failed.failure.as_ref());
                self.end(failed.initiated_event_id, &close, at);
            }
            Attributes::ChildWorkflowExecutionCanceledEventAttributes(canceled) => {
                self.end(canceled.initiated_event_id, &Close::Canceled, at);
            }
            Attributes::ChildWorkflowExecutionTimedOutEventAttributes(timed_out) => {
                let close = Close::platform_error("TimeoutError", "the child timed out");
                self.end(timed_out.initiated_event_id, &close, at);
            }
            Attributes::ChildWorkflowExecutionTerminatedEventAttributes(terminated) => {
                let close = Close::platform_error("TerminatedError", "the child was terminated");
                self.end(terminated.initiated_event_id, &close, at);
            }
            _ => {}
        }
    }

    /// The span of a message, under its sender if that is in the same trace, as the recorder does.
    fn handler(&mut self, name: &str, kind: &str, header: Option<&Header>, at: Timestamp) -> Span {
        let sender = context_in(header).filter(|sender| sender.trace_id == self.trace_id);
        let sender = sender.and_then(|sender| sender.span_id);
        let id = match &sender {
            Some(sender) => self.ids.outside(Some(sender), name),
            None => self.ids.inside(&self.root, name),
        };
        self.parents.push(id.clone());
        let mut span = self.below_root(id, name, SpanType::Standalone, kind, at);
        if sender.is_some() {
            span.parent_id = sender;
        }
        span
    }

    /// The id of something, whether it is certain, and what it hangs under, if that is known: an id
    /// that history holds follows from it.
    fn place(&mut self, known: Option<&SpanId>, name: &str) -> (SpanId, bool, Option<SpanId>) {
        let Some(id) = known else {
            return (self.ids.inside(&self.root, name), false, Some(self.root.clone()));
        };
        let Self { ids, parents, .. } = self;
        let candidates = parents.iter().rev().take(LATEST_PARENTS).chain(parents.first());
        let parent = candidates.into_iter().find(|parent| ids.is_next(id, parent, name));
        (id.clone(), true, parent.cloned())
    }

    /// Under the root if the parent, a span of the user's code, is not known.
    fn hang(&self, span: &mut Span, parent: Option<SpanId>) {
        if parent.is_none() {
            note(span, "parent_unknown", true);
        }
        span.parent_id = Some(parent.unwrap_or_else(|| self.root.clone()));
    }

    fn below_root(
        &self,
        id: SpanId,
        name: &str,
        span_type: SpanType,
        kind: &str,
        at: Timestamp,
    ) -> Span {
        let mut span = self.span(id, name, span_type, kind, at);
        span.parent_id = Some(self.root.clone());
        span
    }

    fn span(&self, id: SpanId, name: &str, span_type: SpanType, kind: &str, at: Timestamp) -> Span {
        let mut span = Span::new(self.trace_id.clone(), id, name.to_owned(), at);
        span.span_type = span_type;
        span.group_id.clone_from(&self.group_id);
        note(&mut span, "kind", kind);
        span.metadata.insert(BACKFILLED.into(), true.into());
        span
    }

    fn begin(&mut self, event_id: i64, span: Span, certain: bool) {
        self.positions.insert(event_id, self.bones.len());
        self.bones.push(Bone { is_own: is_own(&span, self.history), span, certain });
    }

    fn end(&mut self, event_id: i64, close: &Close, at: Timestamp) {
        if let Some(position) = self.positions.get(&event_id) {
            close.end(&mut self.bones[*position].span, at);
        }
    }
}

fn note(span: &mut Span, name: &str, value: impl Into<Value>) {
    span.metadata.insert(format!("temporal.{name}").into(), value.into());
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// History does not tell the flush rule's timers from the user's, but for how long they are.
fn lingers(history: &RunHistory, context: Option<&TraceContext>) -> Vec<Duration> {
    let traced = context.is_some_and(|context| context.sampled) || history.holds_flushes();
    if !traced {
        return Vec::new();
    }
    let first = history.policy.linger_period();
    let doubled = std::iter::successors(Some(first), |period| {
        (*period < LONGEST_LINGER).then(|| (*period * 2).min(LONGEST_LINGER))
    });
    doubled.take_while(|period| !period.is_zero()).take(32).collect()
}
