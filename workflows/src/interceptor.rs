use std::{
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
};

use durable_spans_model::{
    FlushPolicy, HEADER, Outcome, RULE_VERSION, Sampling, Span, SpanHooks, SpanId, SpanType,
    TRACER_HEADER, Timestamp, TraceContext, TraceParent,
};
use temporalio_workflow::{
    ParentClosePolicy, TimerResult, WorkflowContextView,
    workflow_interceptors::{
        CancelExternalWorkflowInput, CancelExternalWorkflowResult,
        CancellableWorkflowOutboundFuture, ChildWorkflowOutboundResult, ContinueAsNewInput,
        ContinueAsNewResult, ExecuteWorkflowInput, ExecuteWorkflowResult, HandleQueryInput,
        HandleQueryResult, HandleSignalInput, HandleSignalResult, HandleUpdateInput,
        HandleUpdateResult, InitializeWorkflowInput, InitializeWorkflowOutput,
        ScheduleActivityInput, ScheduleActivityResult, ScheduleLocalActivityInput,
        SignalWorkflowInput, SignalWorkflowResult, StartChildWorkflowInput,
        StartChildWorkflowResult, StartTimerInput, SyncWorkflowInterceptorContext,
        ValidateUpdateInput, ValidateUpdateResult, WorkflowInterceptor,
        WorkflowInterceptorConstructor, WorkflowInterceptorContext, WorkflowInterceptorFuture,
        WorkflowNext, WorkflowOutboundFuture,
    },
};

#[cfg(feature = "nexus")]
use temporalio_workflow::workflow_interceptors::{
    StartNexusOperationInput, StartNexusOperationResult,
};

#[cfg(feature = "nexus")]
use crate::nexus;
use crate::{
    courier::COURIER_WORKFLOW,
    flush::FlushGroup,
    flusher,
    hand_over::HandOver,
    header,
    limits::Limits,
    logs,
    operation::Operation,
    outcome,
    recorder::{Parent, SpanRef},
    run::{Options, Run, StartFacts},
    scope::{Scope, ScopeKey},
    timetable::Timetable,
    values::{ValueTypes, as_fields},
};

/// What the SDK's replayer tells code that runs outside of any namespace.
const REPLAY_NAMESPACE: &str = "ReplayNamespace";

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
    options: Options,
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

    /// The policy of a run that started then without a header that pins one, `None` if it is left
    /// alone.
    pub fn policy_at(&self, start: Timestamp) -> Option<FlushPolicy> {
        self.timetable.policy_at(start)
    }

    /// Says how much a run may record.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.options.limits = limits;
        self
    }

    /// Whether timers of the user's code have spans, from their start until they fire or are
    /// cancelled. Default false. Changing it is no versioning event, but where the policy counts
    /// buffered spans ([`when_buffered`](durable_spans_model::FlushPolicy::when_buffered)).
    #[must_use]
    pub fn timer_spans(mut self, wanted: bool) -> Self {
        self.options.timer_spans = wanted;
        self
    }

    /// Whether a run that follows a continue-as-new has a trace of its own, linked to the one before by
    /// `temporal.previous_trace_id` and `temporal.previous_span_id` on its root span. Default false:
    /// all runs of a chain are in one trace, side by side under the first one's root. For chains
    /// without an end, whose one trace would grow for ever. Changing it is no versioning event.
    #[must_use]
    pub fn linked_generations(mut self, wanted: bool) -> Self {
        self.options.linked_generations = wanted;
        self
    }

    /// Names the task queue of workers that reach the network, for a worker that does not: couriers
    /// run there, and flushes of runs whose policy is
    /// [`by_activity`](durable_spans_model::FlushPolicy::by_activity). Default: the run's own task
    /// queue. Changing it is no versioning event.
    #[must_use]
    pub fn egress(mut self, task_queue: impl Into<String>) -> Self {
        self.options.egress = Some(task_queue.into());
        self
    }

    /// Calls `observer` with the spans of each flush when it is issued, at replay too. So spans can
    /// be had from a replayed history, where no flush activity runs.
    ///
    /// It is called within the workflow task and must not block or panic.
    #[must_use]
    pub fn observer(mut self, observer: impl Fn(&FlushGroup) + Send + Sync + 'static) -> Self {
        self.options.hooks.observer = Some(Arc::new(observer));
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
        self.options.hooks.last_resort = Some(Arc::new(rescue));
        self
    }

    /// Leaves the groups of each flush at `place`, where the flush activity finds them, instead of in its
    /// input. The activity must have the same place. Default: in the input, which needs nothing in
    /// common.
    #[must_use]
    pub fn hand_over(mut self, place: HandOver) -> Self {
        self.options.hooks.hand_over = Some(place);
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
        self.options.hooks.leaving = Some(Arc::new(leaving));
        self
    }

    /// Records every run and issues no command, for the replay of histories that were made without
    /// tracing: a run from before the install, or one that sampling left out. The
    /// [`observer`](Self::observer) gets its spans at the close.
    ///
    /// Not for workers, where nothing would be delivered.
    #[must_use]
    pub fn without_commands(mut self) -> Self {
        self.options.without_commands = true;
        self
    }

    /// Which traces are recorded, of those that begin with a run: one that was started by a schedule,
    /// say, without a trace context. Default: all. Such a run issues its flushes in any case, so
    /// changing it is no versioning event.
    #[must_use]
    pub fn sampling(mut self, sampling: Sampling) -> Self {
        self.options.sampling = sampling;
        self
    }

    /// Records nothing, whatever trace a run is in. Runs in flight go on to issue the commands that
    /// they began with, so changing it is no versioning event. Default false.
    #[must_use]
    pub fn disabled(mut self, disabled: bool) -> Self {
        self.options.disabled = disabled;
        self
    }

    /// What happens to spans before they are kept: hooks, redaction, and which inputs and outputs are
    /// captured. Default: [`SpanHooks::new`]. Changing it is no versioning event.
    #[must_use]
    pub fn span_hooks(mut self, hooks: SpanHooks) -> Self {
        self.options.span_hooks = Arc::new(hooks);
        self
    }

    /// The types of values that are captured. Default: [`ValueTypes::new`]. Changing it is no
    /// versioning event.
    #[must_use]
    pub fn values(mut self, values: ValueTypes) -> Self {
        self.options.values = values;
        self
    }

    /// The interceptor, to be registered on a worker's or a replayer's options.
    pub fn interceptor(self) -> WorkflowInterceptorConstructor {
        let Self { timetable, options } = self;
        let options = Arc::new(options);
        WorkflowInterceptorConstructor::new(move |view: &WorkflowContextView| Interceptor {
            mode: Mode::of_run(view, &timetable, &options),
            timer_spans: options.timer_spans,
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
    Unsampled(Box<TraceContext>),
    /// The run started before tracing was installed, or is a courier of ours.
    LeftAlone,
    /// A newer release started the run, by a flush rule that this one does not know.
    UnknownRule(u16),
}

impl Mode {
    fn of_run(view: &WorkflowContextView, timetable: &Timetable, options: &Arc<Options>) -> Self {
        let start_time =
            view.start_time().map_or(Timestamp::from_unix_ns(i64::MAX), Timestamp::from);
        // A traced courier would start couriers without end.
        if view.workflow_type() == COURIER_WORKFLOW {
            return Self::LeftAlone;
        }
        let policy = match timetable.policy_at(start_time) {
            Some(policy) => policy,
            None if options.without_commands => FlushPolicy::new(),
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
            Some(context)
                if !context.sampled
                    && !context.policy.is_some_and(|policy| policy.is_on_error())
                    && !options.without_commands =>
            {
                Self::Unsampled(Box::new(context))
            }
            context => {
                let context = context.or_else(|| join(observed.as_ref()?));
                let pinned = context.as_ref().and_then(|context| context.policy);
                let policy = pinned.unwrap_or(policy);
                if !policy.is_known() && !options.without_commands {
                    return Self::UnknownRule(policy.rule_version());
                }
                let start = StartFacts {
                    namespace: Some(view.namespace())
                        .filter(|namespace| *namespace != REPLAY_NAMESPACE)
                        .map(str::to_owned),
                    workflow_id: view.workflow_id().to_owned(),
                    workflow_type: view.workflow_type().to_owned(),
                    task_queue: view.task_queue().to_owned(),
                    run_id: view.run_id().to_owned(),
                    start_time,
                    continued: view.continued_from_run_id().is_some(),
                    randomness_seed: raw.randomness_seed,
                    original_run_id: raw.original_execution_run_id.clone(),
                    schedule_id: header::schedule_id(raw.search_attributes.as_ref()),
                    attempt: view.attempt(),
                    context,
                    observed,
                    policy,
                };
                let arguments =
                    options.span_hooks.captured().inputs().then(|| raw.arguments.clone());
                Self::Traced(Rc::new(Run::new(start, arguments, options.clone())))
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

    /// Runs code of a run that records nothing: what it logs carries its trace, if it has one.
    fn untraced<'a, T: 'a>(
        &self,
        ctx: WorkflowInterceptorContext,
        start: impl FnOnce() -> WorkflowInterceptorFuture<'a, T> + 'a,
    ) -> WorkflowInterceptorFuture<'a, T> {
        WorkflowInterceptorFuture::new(logs::logged(ctx, self.log_span(), start))
    }

    /// The `tracing` span of code that is in no scope: of the run, as far as it has begun.
    fn log_span(&self) -> tracing::Span {
        match &self.mode {
            Mode::Traced(run) => run
                .root()
                .map_or_else(tracing::Span::none, |root| logs::log_span_of(run, root.id())),
            Mode::Unsampled(context) => logs::log_span(context),
            Mode::LeftAlone | Mode::UnknownRule(_) => tracing::Span::none(),
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
        run.count_arrival();
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

/// Runs a message handler in its scope. A sync one runs at once, an async one when it is polled.
fn in_scope<F: Future>(
    ctx: WorkflowInterceptorContext,
    scope: Scope,
    start: impl FnOnce() -> F,
) -> impl Future<Output = F::Output> {
    let log_span = logs::log_span_of(&scope.run, scope.current.id());
    logs::logged(ctx.clone(), log_span, move || {
        let handler = ctx.with_context_value_sync::<ScopeKey, _>(scope.clone(), start);
        ctx.with_context_value::<ScopeKey, _>(scope, handler)
    })
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

/// Counts the resolution of a user's command, and looks at it when the user's code sees it.
fn resolution<T: 'static>(
    run: &Rc<Run>,
    future: CancellableWorkflowOutboundFuture<T>,
    see: impl FnOnce(&T) + 'static,
) -> CancellableWorkflowOutboundFuture<T> {
    counted(run, future, |value| value).map(seen(see))
}

/// Counts the resolution of a user's command: when it arrives, or under the first versions of the
/// rule when the user's code sees it.
fn counted<T: 'static>(
    run: &Rc<Run>,
    future: CancellableWorkflowOutboundFuture<T>,
    arrived: impl FnOnce(T) -> T + 'static,
) -> CancellableWorkflowOutboundFuture<T> {
    let arrived = counting(run, arrived);
    if !run.counts_arrivals() {
        return future.map(arrived);
    }
    let cancellation = future.cancellation_handle();
    CancellableWorkflowOutboundFuture::new(run.expect(future, arrived), cancellation)
}

/// A local activity issues more commands when it is polled, if it has to be tried again later: so
/// its future is left to the user's code. Where others count as they arrive, it has counted twice
/// when it began.
fn local_resolution<T: 'static>(
    run: &Rc<Run>,
    future: CancellableWorkflowOutboundFuture<T>,
    see: impl FnOnce(&T) + 'static,
) -> CancellableWorkflowOutboundFuture<T> {
    if run.counts_arrivals() {
        run.count_operation();
        return future.map(seen(see));
    }
    let run = run.clone();
    future.map(move |value| {
        run.count_operation();
        seen(see)(value)
    })
}

fn counting<T, F: FnOnce(T) -> T>(run: &Rc<Run>, arrived: F) -> impl FnOnce(T) -> T + use<T, F> {
    let run = run.clone();
    move |value| {
        run.count_arrival();
        arrived(value)
    }
}

fn seen<T>(see: impl FnOnce(&T)) -> impl FnOnce(T) -> T {
    move |value| {
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

/// Ends the activity's span with its result, and captures what it returned.
fn end_activity(
    run: &Rc<Run>,
    activity: Operation,
) -> impl FnOnce(&ScheduleActivityResult) + 'static {
    let run = run.clone();
    move |result| {
        let value = result.as_ref().ok().map(|value| value.as_any());
        let types = run.outputs();
        activity.output(types.zip(value).and_then(|(types, value)| types.shown(value)));
        activity.finish(result.as_ref().err().map_or(Outcome::Success, outcome::activity));
    }
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
    fn initialize_workflow(
        &self,
        _ctx: WorkflowContextView,
        input: InitializeWorkflowInput,
        next: WorkflowNext<'_, InitializeWorkflowInput, InitializeWorkflowOutput>,
    ) -> InitializeWorkflowOutput {
        if let Mode::Traced(run) = &self.mode
            && run.inputs().is_some_and(|types| types.hides_init(&input))
        {
            run.hide_arguments();
        }
        next.run(input)
    }

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
            Mode::Unsampled(_) | Mode::LeftAlone => return self.untraced(ctx, || next.run(input)),
            // A panic fails the workflow task, which is retried until an upgraded worker takes it.
            Mode::UnknownRule(version) => panic!(
                "this run was started under version {version} of the flush rule, and this worker \
                 knows versions up to {RULE_VERSION} only: upgrade durable-spans on the worker"
            ),
        };
        WorkflowInterceptorFuture::new(async move {
            let root = run.begin(&ctx);
            if run.inputs().is_some_and(|types| types.hides_start(&input)) {
                run.hide_arguments();
            }
            run.note_arguments(&root);
            let scope = Scope { run: run.clone(), current: root.clone() };
            let user = || ctx.with_context_value::<ScopeKey, _>(scope, next.run(input));
            let mut user =
                pin!(logs::logged(ctx.clone(), logs::log_span_of(&run, root.id()), user));
            let mut flusher = pin!(flusher::flush_by_rule(&run, &ctx));
            let _presence = Presence(&run);
            let result = poll_fn(|cx| {
                if let Poll::Ready(result) = user.as_mut().poll(cx) {
                    return Poll::Ready(result);
                }
                let _mark = logs::mark(&ctx);
                match flusher.as_mut().poll(cx) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(never) => match never {},
                }
            })
            .await;
            if let (Ok(value), Some(types)) = (&result, run.outputs())
                && let Some(value) = types.output(&**value)
            {
                run.update(&root, |span| span.output.extend(as_fields(value, "output")));
            }
            let cancelled = ctx.cancellation_token().is_cancelled();
            if outcome::fails(&result, cancelled) {
                run.fails();
            }
            let end = outcome::run_end(&result, cancelled);
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
        let Mode::Traced(run) = &self.mode else {
            return self.untraced(ctx, || next.run(input));
        };
        let (operation, scope) =
            Self::handler(run, &ctx, input.name(), "signal", input.headers().iter());
        operation.input(run.inputs().and_then(|types| types.signal(&input)));
        let handler = in_scope(ctx, scope, || next.run(input));
        WorkflowInterceptorFuture::new(async move {
            let result = handler.await;
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
        let Mode::Traced(run) = &self.mode else {
            return self.untraced(ctx, || next.run(input));
        };
        let (operation, scope) =
            Self::handler(run, &ctx, input.name(), "update", input.headers().iter());
        operation.input(run.inputs().and_then(|types| types.update(&input)));
        let handler = in_scope(ctx, scope, || next.run(input));
        WorkflowInterceptorFuture::new(async move {
            let result = handler.await;
            if let (Ok(value), Some(types)) = (&result, run.outputs()) {
                operation.output(types.output(&**value));
            }
            operation.finish(match &result {
                Ok(_) => Outcome::Success,
                Err(error) => outcome::handler_error(error),
            });
            result
        })
    }

    fn handle_query(
        &self,
        _ctx: SyncWorkflowInterceptorContext,
        input: HandleQueryInput,
        next: WorkflowNext<'_, HandleQueryInput, HandleQueryResult>,
    ) -> HandleQueryResult {
        self.log_span().in_scope(|| next.run(input))
    }

    fn validate_update(
        &self,
        _ctx: SyncWorkflowInterceptorContext,
        input: ValidateUpdateInput,
        next: WorkflowNext<'_, ValidateUpdateInput, ValidateUpdateResult>,
    ) -> ValidateUpdateResult {
        self.log_span().in_scope(|| next.run(input))
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
            return resolution(run, next.run(input), |_| {});
        }
        let parent = Parent::Here(current(run, &ctx));
        let timer = Operation::start(run, &parent, "timer", SpanType::Standalone, "timer");
        let ms = u64::try_from(input.options().duration.as_millis()).unwrap_or(u64::MAX);
        timer.note("temporal.timer_ms", ms);
        resolution(run, next.run(input), |result| {
            timer.finish(match result {
                TimerResult::Fired => Outcome::Success,
                TimerResult::Cancelled => Outcome::Canceled,
            });
        })
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
        activity.input(run.inputs().and_then(|types| types.activity(&input)));
        input.headers_mut().extend(headers_below(run, &activity, false));
        resolution(run, next.run(input), end_activity(run, activity))
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
        activity.input(run.inputs().and_then(|types| types.local_activity(&input)));
        input.headers_mut().extend(headers_below(run, &activity, false));
        local_resolution(run, next.run(input), end_activity(run, activity))
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
        let of_child = run.clone();
        counted(&run, next.run(input), move |started: StartChildWorkflowResult| match started {
            Err(error) => {
                child.finish(outcome::child_start(&error));
                Err(error)
            }
            Ok(started) => Ok(started.map_result(|completion| {
                resolution(&of_child, completion, |result: &ChildWorkflowOutboundResult| {
                    child.finish(result.as_ref().err().map_or(Outcome::Success, outcome::child));
                })
            })),
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
        resolution(run, next.run(input), |_| {})
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
        let arrived = counting(run, |result| result);
        match run.counts_arrivals() {
            true => WorkflowOutboundFuture::new(run.expect(next.run(input), arrived)),
            false => next.run(input).map(arrived),
        }
    }

    #[cfg(feature = "nexus")]
    fn start_nexus_operation(
        &self,
        ctx: WorkflowInterceptorContext,
        mut input: StartNexusOperationInput,
        next: CancellableNext<StartNexusOperationInput, StartNexusOperationResult>,
    ) -> CancellableWorkflowOutboundFuture<StartNexusOperationResult> {
        let Some(run) = self.of_user() else { return next.run(input) };
        let span = nexus::schedule(run, current(run, &ctx), input.options_mut());
        nexus::started(span, next.run(input))
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
