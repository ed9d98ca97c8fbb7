use std::{
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
};

use durable_spans_model::{
    FlushPolicy, HEADER, RULE_VERSION, Span, SpanId, SpanType, TRACER_HEADER, Timestamp,
    TraceContext, TraceParent,
};
use temporalio_workflow::{
    ParentClosePolicy, TimerResult, WorkflowContextView,
    workflow_interceptors::{
        CancelExternalWorkflowInput, CancelExternalWorkflowResult,
        CancellableWorkflowOutboundFuture, ChildWorkflowOutboundResult, ContinueAsNewInput,
        ContinueAsNewResult, ExecuteWorkflowInput, ExecuteWorkflowResult, HandleSignalInput,
        HandleSignalResult, HandleUpdateInput, HandleUpdateResult, ScheduleActivityInput,
        ScheduleActivityResult, ScheduleLocalActivityInput, SignalWorkflowInput,
        SignalWorkflowResult, StartChildWorkflowInput, StartChildWorkflowResult, StartTimerInput,
        SyncWorkflowInterceptorContext, WorkflowInterceptor, WorkflowInterceptorConstructor,
        WorkflowInterceptorContext, WorkflowInterceptorFuture, WorkflowNext,
        WorkflowOutboundFuture,
    },
};

use crate::{
    courier::COURIER_WORKFLOW,
    flush::FlushGroup,
    flusher,
    hand_over::HandOver,
    header,
    limits::Limits,
    operation::Operation,
    outcome,
    recorder::{Outcome, Parent, SpanRef},
    run::{Hooks, Run, StartFacts},
    scope::{Scope, ScopeKey},
    timetable::Timetable,
};

type Headers = Vec<(String, header::Payload)>;

type CancellableNext<I, T> = WorkflowNext<'static, I, CancellableWorkflowOutboundFuture<T>>;

/// How runs are recorded: makes the workflow interceptor, for a worker or for replay.
///
/// The worker must also register the flush activity, which the crate `durable-spans` does.
///
/// ```
/// use durable_spans_workflow::{Timetable, WorkflowTracing};
///
/// let constructor = WorkflowTracing::new().timetable(Timetable::new()).interceptor();
/// # let _ = constructor;
/// ```
#[derive(Clone, Default)]
pub struct WorkflowTracing {
    timetable: Timetable,
    limits: Limits,
    egress: Option<String>,
    timer_spans: bool,
    linked_generations: bool,
    hooks: Hooks,
    without_commands: bool,
}

impl WorkflowTracing {
    /// Traces every run, see [`Timetable::new`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Says which runs are traced, and by which flush policy.
    #[must_use]
    pub fn timetable(mut self, timetable: Timetable) -> Self {
        self.timetable = timetable;
        self
    }

    /// Says how much a run may record.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Whether timers of the user's code have spans, from their start until they fire or are
    /// cancelled. Default false. Changing it is no versioning event, but where the policy counts
    /// buffered spans ([`when_buffered`](durable_spans_model::FlushPolicy::when_buffered)).
    #[must_use]
    pub fn timer_spans(mut self, wanted: bool) -> Self {
        self.timer_spans = wanted;
        self
    }

    /// Whether a run that follows a continue-as-new has a trace of its own, linked to the one before by
    /// `temporal.previous_trace_id` and `temporal.previous_span_id` on its root span. Default false:
    /// all runs of a chain are in one trace, side by side under the first one's root. For chains
    /// without an end, whose one trace would grow for ever. Changing it is no versioning event.
    #[must_use]
    pub fn linked_generations(mut self, wanted: bool) -> Self {
        self.linked_generations = wanted;
        self
    }

    /// Names the task queue of workers that reach the network, for a worker that does not: couriers
    /// run there, and flushes of runs whose policy is
    /// [`by_activity`](durable_spans_model::FlushPolicy::by_activity). Default: the run's own task
    /// queue. Changing it is no versioning event.
    #[must_use]
    pub fn egress(mut self, task_queue: impl Into<String>) -> Self {
        self.egress = Some(task_queue.into());
        self
    }

    /// Calls `observer` with the spans of each flush when it is issued, at replay too. So spans can
    /// be had from a replayed history, where no flush activity runs.
    ///
    /// It is called within the workflow task and must not block or panic.
    #[must_use]
    pub fn observer(mut self, observer: impl Fn(&FlushGroup) + Send + Sync + 'static) -> Self {
        self.hooks.observer = Some(Arc::new(observer));
        self
    }

    /// Calls `rescue` with the run id and spans that a closing run cannot flush: the flush activity
    /// failed, or they were recorded while the last flush was under way. Replay may call it again
    /// with the same.
    ///
    /// It is called within the workflow task and must not block or panic.
    #[must_use]
    pub fn last_resort(
        mut self,
        rescue: impl Fn(&str, &FlushGroup) + Send + Sync + 'static,
    ) -> Self {
        self.hooks.last_resort = Some(Arc::new(rescue));
        self
    }

    /// Leaves the groups of each flush at `place`, where the flush activity finds them, instead of in its
    /// input. The activity must have the same place. Default: in the input, which needs nothing in
    /// common.
    #[must_use]
    pub fn hand_over(mut self, place: HandOver) -> Self {
        self.hooks.hand_over = Some(place);
        self
    }

    /// Calls `leaving` with the spans that a run still holds when it leaves memory: those that ended
    /// after its last flush, and those that are open, as they are by then. Parents come first. Not
    /// called if there are none, as after a close.
    ///
    /// With [`observer`](Self::observer), everything that a replayed run has recorded.
    ///
    /// It is called within the workflow task and must not block or panic.
    #[must_use]
    pub fn leaving(mut self, leaving: impl Fn(&[Span]) + Send + Sync + 'static) -> Self {
        self.hooks.leaving = Some(Arc::new(leaving));
        self
    }

    /// Records every run and issues no command, for the replay of histories that were made without
    /// tracing: a run from before the install, or one that sampling left out. The
    /// [`observer`](Self::observer) gets its spans at the close.
    ///
    /// Not for workers, where nothing would be delivered.
    #[must_use]
    pub fn without_commands(mut self) -> Self {
        self.without_commands = true;
        self
    }

    /// The interceptor, to be registered on a worker's or a replayer's options.
    pub fn interceptor(self) -> WorkflowInterceptorConstructor {
        WorkflowInterceptorConstructor::new(move |view: &WorkflowContextView| Interceptor {
            mode: Mode::of_run(view, &self),
            timer_spans: self.timer_spans,
        })
    }
}

struct Interceptor {
    mode: Mode,
    timer_spans: bool,
}

/// Decided once per run, from what is the same at each replay.
enum Mode {
    Traced(Rc<Run>),
    /// The trace is not sampled: nothing is recorded here, and what this run starts learns it.
    Unsampled(TraceContext),
    /// The run started before tracing was installed, or is a courier of ours.
    LeftAlone,
    /// A newer release started the run, by a flush rule that this one does not know.
    UnknownRule(u16),
}

impl Mode {
    fn of_run(view: &WorkflowContextView, tracing: &WorkflowTracing) -> Self {
        let start_time =
            view.start_time().map_or(Timestamp::from_unix_ns(i64::MAX), Timestamp::from);
        // A traced courier would start couriers without end.
        if view.workflow_type() == COURIER_WORKFLOW {
            return Self::LeftAlone;
        }
        let policy = match tracing.timetable.policy_at(start_time) {
            Some(policy) => policy,
            None if tracing.without_commands => FlushPolicy::new(),
            None => return Self::LeftAlone,
        };
        let raw = view.raw();
        let observed = header::observed_of_start(raw.headers.get(TRACER_HEADER));
        let context = header::of_start(
            view.workflow_id(),
            raw.headers.get(HEADER),
            raw.memo.as_ref().and_then(|memo| memo.fields.get(header::EXPLICIT_CONTEXT)),
            &raw.arguments,
        );
        match context {
            Some(context) if !context.sampled && !tracing.without_commands => {
                Self::Unsampled(context)
            }
            context => {
                let context = context.or_else(|| join(observed.as_ref()?));
                let pinned = context.as_ref().and_then(|context| context.policy);
                let policy = pinned.unwrap_or(policy);
                if !policy.is_known() && !tracing.without_commands {
                    return Self::UnknownRule(policy.rule_version());
                }
                let start = StartFacts {
                    workflow_id: view.workflow_id().to_owned(),
                    workflow_type: view.workflow_type().to_owned(),
                    run_id: view.run_id().to_owned(),
                    start_time,
                    continued: view.continued_from_run_id().is_some(),
                    original_run_id: raw.original_execution_run_id.clone(),
                    schedule_id: header::schedule_id(raw.search_attributes.as_ref()),
                    attempt: view.attempt(),
                    context,
                    observed,
                    policy,
                };
                Self::Traced(Rc::new(Run::new(
                    start,
                    tracing.limits,
                    tracing.egress.clone(),
                    tracing.linked_generations,
                    tracing.hooks.clone(),
                    tracing.without_commands,
                )))
            }
        }
    }
}

impl Interceptor {
    /// The run, if it is traced and the command at hand is the user's, not one of ours.
    fn of_user(&self) -> Option<&Rc<Run>> {
        match &self.mode {
            Mode::Traced(run) if !run.is_own_command() => Some(run),
            _ => None,
        }
    }

    /// The header of what an unsampled run starts.
    fn unsampled_header(&self) -> Option<(String, header::Payload)> {
        match &self.mode {
            Mode::Unsampled(context) => Some((HEADER.to_owned(), header::to_payload(context))),
            _ => None,
        }
    }

    /// Opens the span of a message handler under its sender, if that is in the same trace, else
    /// under the root.
    fn handler<'a>(
        run: &Rc<Run>,
        ctx: &WorkflowInterceptorContext,
        name: &str,
        kind: &'static str,
        headers: impl Iterator<Item = (&'a String, &'a header::Payload)>,
    ) -> (Operation, Scope) {
        let root = run.begin(ctx);
        run.count_operation();
        let sender = header::of_message(headers);
        let same_trace = sender
            .as_ref()
            .filter(|sender| sender.trace_id == run.context_below(root.id(), false).trace_id)
            .and_then(|sender| sender.span_id.as_ref());
        let parent = match same_trace {
            Some(sender) => Parent::Elsewhere(sender.clone()),
            None => Parent::Here(root.clone()),
        };
        let operation = Operation::start(run, &parent, name, SpanType::Standalone, kind);
        if let Some(sender) = &sender
            && same_trace.is_none()
        {
            operation.note("temporal.sender_trace_id", sender.trace_id.to_string());
            if let Some(span_id) = &sender.span_id {
                operation.note("temporal.sender_span_id", span_id.to_string());
            }
        }
        let current = operation.span().unwrap_or(&root).clone();
        (operation, Scope { run: run.clone(), current })
    }
}

/// The trace of a run that an observability system's tracer has started.
fn join(observed: &TraceParent) -> Option<TraceContext> {
    let (trace_id, span_id) = observed.ids().ok()?;
    Some(TraceContext::new(trace_id).under(span_id))
}

/// The span that the user's code is in, the root where the SDK kept no scope.
fn current(run: &Rc<Run>, ctx: &WorkflowInterceptorContext) -> SpanRef {
    ctx.context_value::<ScopeKey>().map_or_else(|| run.begin(ctx), |scope| scope.current.clone())
}

/// The headers for what `operation` starts.
fn headers_below(run: &Run, operation: &Operation, starts_run: bool) -> Headers {
    operation.span().map_or_else(Vec::new, |span| headers_of(run, span.id(), starts_run))
}

/// The headers for what hangs under this span.
fn headers_of(run: &Run, span: &SpanId, starts_run: bool) -> Headers {
    headers_with(run, &run.context_below(span, starts_run))
}

fn headers_with(run: &Run, context: &TraceContext) -> Headers {
    let mut headers = vec![(HEADER.to_owned(), header::to_payload(context))];
    if let Some(observed) = context.span_id.as_ref().and_then(|span| run.observed_below(span)) {
        headers.push((TRACER_HEADER.to_owned(), header::observed_to_payload(&observed)));
    }
    headers
}

/// Counts the resolution of a user's command when the user's code sees it, and looks at it.
fn resolution<T: 'static>(
    run: &Rc<Run>,
    see: impl FnOnce(&T) + 'static,
) -> impl FnOnce(T) -> T + 'static {
    let run = run.clone();
    move |value| {
        run.count_operation();
        see(&value);
        value
    }
}

/// Counts the command and opens the activity's span, from the schedule to the resolution.
fn activity_span(
    run: &Rc<Run>,
    ctx: &WorkflowInterceptorContext,
    activity_type: &str,
) -> Operation {
    run.count_operation();
    let parent = Parent::Here(current(run, ctx));
    Operation::start(run, &parent, activity_type, SpanType::Custom, "activity")
}

fn activity_outcome(result: &ScheduleActivityResult) -> Outcome {
    result.as_ref().err().map_or(Outcome::Success, outcome::activity)
}

/// Clears the run's memory when the main routine is dropped, before the user's future is: eviction
/// must end nothing.
struct Presence<'a>(&'a Run);

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        self.0.leave_memory();
    }
}

impl WorkflowInterceptor for Interceptor {
    fn execute<'a>(
        &'a self,
        ctx: WorkflowInterceptorContext,
        input: ExecuteWorkflowInput,
        next: WorkflowNext<
            'a,
            ExecuteWorkflowInput,
            WorkflowInterceptorFuture<'a, ExecuteWorkflowResult>,
        >,
    ) -> WorkflowInterceptorFuture<'a, ExecuteWorkflowResult> {
        let run = match &self.mode {
            Mode::Traced(run) => run.clone(),
            Mode::Unsampled(_) | Mode::LeftAlone => return next.run(input),
            // A panic fails the workflow task, which is retried until an upgraded worker takes it.
            Mode::UnknownRule(version) => panic!(
                "this run was started under version {version} of the flush rule, and this worker \
                 knows versions up to {RULE_VERSION} only: upgrade durable-spans on the worker"
            ),
        };
        WorkflowInterceptorFuture::new(async move {
            let root = run.begin(&ctx);
            let scope = Scope { run: run.clone(), current: root.clone() };
            let mut user = pin!(ctx.with_context_value::<ScopeKey, _>(scope, next.run(input)));
            let mut flusher = pin!(flusher::flush_by_rule(&run, &ctx));
            let _presence = Presence(&run);
            let result = poll_fn(|cx| {
                if let Poll::Ready(result) = user.as_mut().poll(cx) {
                    return Poll::Ready(result);
                }
                match flusher.as_mut().poll(cx) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(never) => match never {},
                }
            })
            .await;
            let end = outcome::run_end(&result, ctx.cancellation_token().is_cancelled());
            flusher::close(&run, &ctx, &root, end, flusher).await;
            result
        })
    }

    fn handle_signal<'a>(
        &'a self,
        ctx: WorkflowInterceptorContext,
        input: HandleSignalInput,
        next: WorkflowNext<
            'a,
            HandleSignalInput,
            WorkflowInterceptorFuture<'a, HandleSignalResult>,
        >,
    ) -> WorkflowInterceptorFuture<'a, HandleSignalResult> {
        let Mode::Traced(run) = &self.mode else { return next.run(input) };
        let (operation, scope) =
            Self::handler(run, &ctx, input.name(), "signal", input.headers().iter());
        // A sync handler runs inside `next.run` already.
        let handler = ctx.with_context_value_sync::<ScopeKey, _>(scope.clone(), || next.run(input));
        WorkflowInterceptorFuture::new(async move {
            let result = ctx.with_context_value::<ScopeKey, _>(scope, handler).await;
            // A failed signal handler fails the workflow task, which is no end.
            if result.is_ok() {
                operation.finish(Outcome::Success);
            }
            result
        })
    }

    fn handle_update<'a>(
        &'a self,
        ctx: WorkflowInterceptorContext,
        input: HandleUpdateInput,
        next: WorkflowNext<
            'a,
            HandleUpdateInput,
            WorkflowInterceptorFuture<'a, HandleUpdateResult>,
        >,
    ) -> WorkflowInterceptorFuture<'a, HandleUpdateResult> {
        let Mode::Traced(run) = &self.mode else { return next.run(input) };
        let (operation, scope) =
            Self::handler(run, &ctx, input.name(), "update", input.headers().iter());
        let handler = ctx.with_context_value_sync::<ScopeKey, _>(scope.clone(), || next.run(input));
        WorkflowInterceptorFuture::new(async move {
            let result = ctx.with_context_value::<ScopeKey, _>(scope, handler).await;
            operation.finish(match &result {
                Ok(_) => Outcome::Success,
                Err(error) => outcome::handler_error(error),
            });
            result
        })
    }

    fn start_timer(
        &self,
        ctx: WorkflowInterceptorContext,
        input: StartTimerInput,
        next: CancellableNext<StartTimerInput, TimerResult>,
    ) -> CancellableWorkflowOutboundFuture<TimerResult> {
        let Some(run) = self.of_user() else { return next.run(input) };
        run.count_operation();
        if !self.timer_spans {
            return next.run(input).map(resolution(run, |_| {}));
        }
        let parent = Parent::Here(current(run, &ctx));
        let timer = Operation::start(run, &parent, "timer", SpanType::Standalone, "timer");
        let ms = u64::try_from(input.options().duration.as_millis()).unwrap_or(u64::MAX);
        timer.note("temporal.timer_ms", ms);
        next.run(input).map(resolution(run, |result: &TimerResult| {
            timer.finish(match result {
                TimerResult::Fired => Outcome::Success,
                TimerResult::Cancelled => Outcome::Canceled,
            });
        }))
    }

    fn schedule_activity(
        &self,
        ctx: WorkflowInterceptorContext,
        mut input: ScheduleActivityInput,
        next: CancellableNext<ScheduleActivityInput, ScheduleActivityResult>,
    ) -> CancellableWorkflowOutboundFuture<ScheduleActivityResult> {
        let Some(run) = self.of_user() else {
            input.headers_mut().extend(self.unsampled_header());
            return next.run(input);
        };
        let activity = activity_span(run, &ctx, input.activity_type());
        input.headers_mut().extend(headers_below(run, &activity, false));
        next.run(input).map(resolution(run, |result| activity.finish(activity_outcome(result))))
    }

    fn schedule_local_activity(
        &self,
        ctx: WorkflowInterceptorContext,
        mut input: ScheduleLocalActivityInput,
        next: CancellableNext<ScheduleLocalActivityInput, ScheduleActivityResult>,
    ) -> CancellableWorkflowOutboundFuture<ScheduleActivityResult> {
        let Some(run) = self.of_user() else {
            input.headers_mut().extend(self.unsampled_header());
            return next.run(input);
        };
        let activity = activity_span(run, &ctx, input.activity_type());
        activity.note("temporal.local", true);
        input.headers_mut().extend(headers_below(run, &activity, false));
        next.run(input).map(resolution(run, |result| activity.finish(activity_outcome(result))))
    }

    fn start_child_workflow(
        &self,
        ctx: WorkflowInterceptorContext,
        mut input: StartChildWorkflowInput,
        next: CancellableNext<StartChildWorkflowInput, StartChildWorkflowResult>,
    ) -> CancellableWorkflowOutboundFuture<StartChildWorkflowResult> {
        let Some(run) = self.of_user().cloned() else {
            input.headers_mut().extend(self.unsampled_header());
            return next.run(input);
        };
        run.count_operation();
        let parent = Parent::Here(current(&run, &ctx));
        let kind = SpanType::AgentWorkflow;
        let child = Operation::start(&run, &parent, input.workflow_type(), kind, "child_workflow");
        if input.options().parent_close_policy == ParentClosePolicy::Abandon {
            child.outlives_its_run();
        }
        input.headers_mut().extend(headers_below(&run, &child, true));
        next.run(input).map(move |started| {
            run.count_operation();
            match started {
                Err(error) => {
                    child.finish(outcome::child_start(&error));
                    Err(error)
                }
                Ok(started) => Ok(started.map_result(|completion| {
                    let end = |result: &ChildWorkflowOutboundResult| {
                        child.finish(result.as_ref().err().map_or(Outcome::Success, outcome::child))
                    };
                    completion.map(resolution(&run, end))
                })),
            }
        })
    }

    fn signal_workflow(
        &self,
        ctx: WorkflowInterceptorContext,
        mut input: SignalWorkflowInput,
        next: CancellableNext<SignalWorkflowInput, SignalWorkflowResult>,
    ) -> CancellableWorkflowOutboundFuture<SignalWorkflowResult> {
        let Some(run) = self.of_user() else {
            input.headers_mut().extend(self.unsampled_header());
            return next.run(input);
        };
        run.count_operation();
        input.headers_mut().extend(headers_of(run, current(run, &ctx).id(), false));
        next.run(input).map(resolution(run, |_| {}))
    }

    fn cancel_external_workflow(
        &self,
        _ctx: WorkflowInterceptorContext,
        input: CancelExternalWorkflowInput,
        next: WorkflowNext<
            'static,
            CancelExternalWorkflowInput,
            WorkflowOutboundFuture<CancelExternalWorkflowResult>,
        >,
    ) -> WorkflowOutboundFuture<CancelExternalWorkflowResult> {
        let Some(run) = self.of_user() else { return next.run(input) };
        run.count_operation();
        next.run(input).map(resolution(run, |_| {}))
    }

    fn continue_as_new(
        &self,
        _ctx: SyncWorkflowInterceptorContext,
        mut input: ContinueAsNewInput,
        next: WorkflowNext<'static, ContinueAsNewInput, ContinueAsNewResult>,
    ) -> ContinueAsNewResult {
        let next_run = self.of_user().and_then(|run| Some((run, run.context_of_next_run()?)));
        match next_run {
            Some((run, context)) => input.headers_mut().extend(headers_with(run, &context)),
            None => input.headers_mut().extend(self.unsampled_header()),
        }
        next.run(input)
    }
}
