use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    future::Future,
    rc::Rc,
    sync::Arc,
    task::Context,
    time::SystemTime,
};

use durable_spans_model::{
    Draft, Fields, FlushPolicy, Outcome, Sampling, Seed, Span, SpanHooks, SpanId, SpanType,
    Starting, Timestamp, TraceContext, TraceId, TraceParent, next_trace_id,
};
use serde_json::{Map, Value};
use temporalio_workflow::{
    common::data_converters::RawValue, workflow_interceptors::WorkflowInterceptorContext,
};

use crate::{
    arrival::Arrivals,
    branch::Branch,
    courier::Freight,
    flush::{Acknowledgement, FlushGroup, FlushReply, FlushRequest, PackedFlush},
    hand_over::HandOver,
    header::{self, Payload},
    limits::Limits,
    recorder::{Kept, Marks, Parent, Recorder, SpanRef},
    rule::{Due, FlushRule, Linger},
    values::ValueTypes,
};

/// Name of the random stream whose first number makes the [`Seed`] of a run's ids. Changing it, or
/// those of [`place_stream`], changes ids of runs in flight.
pub const SEED_STREAM: &str = "durable-spans";

/// Name of the random stream whose first number is drawn for a place in the trace, see
/// [`Seed::span_id`].
pub fn place_stream(place: u64) -> String {
    format!("{SEED_STREAM}/{place:x}")
}

/// So small that several groups fit into a command of a flush by a normal activity.
const PACKED_GROUP_BYTES: usize = 256 * 1024;

type Observer = Arc<dyn Fn(&FlushGroup) + Send + Sync>;
type LastResort = Arc<dyn Fn(&str, &FlushGroup) + Send + Sync>;
type Leaving = Arc<dyn Fn(&[Span]) + Send + Sync>;

/// Who is told of a run's spans, besides the flush activity.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    pub(crate) observer: Option<Observer>,
    pub(crate) last_resort: Option<LastResort>,
    pub(crate) leaving: Option<Leaving>,
    pub(crate) hand_over: Option<HandOver>,
}

/// What a worker or replayer is told about all runs. None of it changes the commands of a run in
/// flight.
#[derive(Clone, Default)]
pub(crate) struct Options {
    pub(crate) limits: Limits,
    /// Task queue of the workers that reach the network, where ours do not.
    pub(crate) egress: Option<String>,
    pub(crate) timer_spans: bool,
    /// Whether each run of a continue-as-new chain has a trace of its own.
    pub(crate) linked_generations: bool,
    pub(crate) hooks: Hooks,
    pub(crate) without_commands: bool,
    /// Decides for runs whose trace begins with them.
    pub(crate) sampling: Sampling,
    pub(crate) disabled: bool,
    pub(crate) span_hooks: Arc<SpanHooks>,
    pub(crate) values: ValueTypes,
}

/// One traced run in memory: the pure recorder and rule, and what they need of the workflow.
///
/// Shared by the interceptor, the scopes and the users' span guards. All of them belong to the one
/// thread that runs the workflow.
pub(crate) struct Run {
    start: StartFacts,
    /// What the run was started with, until it is noted.
    arguments: Cell<Option<Vec<Payload>>>,
    hides_arguments: Cell<bool>,
    options: Arc<Options>,
    rule: RefCell<FlushRule>,
    /// Under a rule that counts what arrives.
    arrivals: Arrivals,
    branch: RefCell<Branch>,
    recorder: RefCell<Option<Recorder>>,
    root: RefCell<Option<SpanRef>>,
    /// The workflow's clock and random streams. Taken away when the run leaves memory, since it
    /// points back to what holds us.
    ctx: RefCell<Option<WorkflowInterceptorContext>>,
    last_time: Cell<Option<(SystemTime, Timestamp)>>,
    own_command: Cell<bool>,
    /// Flushes by local activities that have not resolved.
    flushes_in_flight: Cell<u32>,
    /// What flushes by normal activities carry at present.
    carried: RefCell<Vec<Acknowledgement>>,
    closing: Cell<bool>,
    failed: Cell<bool>,
}

/// What one normal activity is to deliver.
pub(crate) struct Packed {
    pub(crate) input: RawValue,
    carried: Vec<Acknowledgement>,
}

/// What is known of a run when it starts, the same at each replay.
pub(crate) struct StartFacts {
    /// Unknown in a replay of a history on its own.
    pub(crate) namespace: Option<String>,
    pub(crate) workflow_id: String,
    pub(crate) workflow_type: String,
    pub(crate) task_queue: String,
    pub(crate) run_id: String,
    pub(crate) start_time: Timestamp,
    /// Whether this run follows another one of the same chain.
    pub(crate) continued: bool,
    /// From 1; more if the workflow has a retry policy and failed before.
    pub(crate) attempt: u32,
    pub(crate) context: Option<TraceContext>,
    /// Another one where the run is what a reset made of it.
    pub(crate) original_run_id: String,
    pub(crate) schedule_id: Option<String>,
    pub(crate) randomness_seed: u64,
    /// Where the run's starter stood in an observability trace.
    pub(crate) observed: Option<TraceParent>,
    pub(crate) policy: FlushPolicy,
}

impl Run {
    pub(crate) fn new(
        start: StartFacts,
        arguments: Option<Vec<Payload>>,
        options: Arc<Options>,
    ) -> Self {
        Self {
            arguments: Cell::new(arguments),
            hides_arguments: Cell::new(false),
            rule: RefCell::new(FlushRule::new(start.policy)),
            arrivals: Arrivals::default(),
            branch: RefCell::new(Branch::new(start.randomness_seed)),
            start,
            options,
            recorder: RefCell::new(None),
            root: RefCell::new(None),
            ctx: RefCell::new(None),
            last_time: Cell::new(None),
            own_command: Cell::new(false),
            flushes_in_flight: Cell::new(0),
            carried: RefCell::new(Vec::new()),
            closing: Cell::new(false),
            failed: Cell::new(false),
        }
    }

    /// Opens the root span, at the first call. A signal may be handled before the main routine
    /// begins, so whoever comes first calls this.
    pub(crate) fn begin(&self, ctx: &WorkflowInterceptorContext) -> SpanRef {
        if let Some(root) = &*self.root.borrow() {
            return root.clone();
        }
        let keeps_root = self.start.policy.keeps_root() && !self.start.original_run_id.is_empty();
        let seed = if keeps_root {
            Seed::of_run(&self.start.original_run_id, &self.start.workflow_id)
        } else {
            Seed::new(ctx.random_stream(SEED_STREAM).random(), &self.start.workflow_id)
        };
        let (trace_id, parent, group_id) = match &self.start.context {
            Some(context) => {
                (context.trace_id.clone(), context.span_id.clone(), context.group_id.clone())
            }
            None => (seed.trace_id(), None, None),
        };
        let group_bytes = self.flushes_by_activity().then_some(PACKED_GROUP_BYTES);
        let kept = self.kept(&trace_id);
        let (limits, marks) = (self.options.limits, self.marks());
        let mut recorder = Recorder::new(trace_id, group_id, seed, limits, marks, group_bytes);
        recorder.keep(kept, self.options.span_hooks.clone());
        *self.recorder.borrow_mut() = Some(recorder);
        *self.ctx.borrow_mut() = Some(ctx.clone());
        let previous = self.start.context.as_ref().and_then(|context| context.previous.clone());
        let name = self.start.workflow_type.clone();
        let (parent, kind) = (parent.map(Parent::Elsewhere), SpanType::AgentWorkflow);
        let root = if keeps_root {
            self.open(parent.as_ref(), None, &mut of_type(name.into(), kind), |_| None)
        } else {
            self.start(parent.as_ref(), name.into(), kind)
        };
        let root = root.expect("the recorder was made just now");
        self.update(&root, |span| {
            span.start_timestamp = self.start.start_time;
            let metadata = &mut span.metadata;
            metadata.insert("temporal.kind".into(), "workflow".into());
            metadata.insert("temporal.workflow_id".into(), self.start.workflow_id.as_str().into());
            metadata.insert("temporal.run_id".into(), self.start.run_id.as_str().into());
            if let Some(namespace) = &self.start.namespace {
                metadata.insert("temporal.namespace".into(), namespace.as_str().into());
            }
            if self.start.continued {
                metadata.insert("temporal.continued".into(), true.into());
            }
            if let Some((trace_id, span_id)) = previous {
                metadata.insert("temporal.previous_trace_id".into(), trace_id.to_string().into());
                metadata.insert("temporal.previous_span_id".into(), span_id.to_string().into());
            }
            if self.is_reset() {
                let original = self.start.original_run_id.as_str();
                metadata.insert("temporal.reset_of_run_id".into(), original.into());
            }
            if let Some(schedule) = &self.start.schedule_id {
                metadata.insert("temporal.schedule_id".into(), schedule.as_str().into());
            }
            if self.start.attempt > 1 {
                metadata.insert("temporal.attempt".into(), self.start.attempt.into());
            }
        });
        self.described(&root);
        *self.root.borrow_mut() = Some(root.clone());
        root
    }

    /// The root span, once it was opened.
    pub(crate) fn root(&self) -> Option<SpanRef> {
        self.root.borrow().clone()
    }

    /// Which of the spans shall arrive.
    fn kept(&self, trace_id: &TraceId) -> Kept {
        let Options { without_commands, sampling, disabled, .. } = &*self.options;
        if *without_commands {
            return Kept::All;
        }
        if *disabled {
            return Kept::Nothing;
        }
        let (sampled, if_it_fails) = match &self.start.context {
            Some(context) => (context.sampled, self.start.policy.is_on_error()),
            None => {
                let starting = Starting {
                    name: &self.start.workflow_type,
                    workflow_id: Some(&self.start.workflow_id),
                    task_queue: Some(&self.start.task_queue),
                };
                (sampling.keeps(trace_id, &starting), sampling.is_keeping_errors())
            }
        };
        match (sampled, if_it_fails) {
            (true, _) => Kept::All,
            (false, true) => Kept::IfItFails,
            (false, false) => Kept::Nothing,
        }
    }

    /// The user's code fails the run: spans that waited for that are kept.
    pub(crate) fn fails(&self) {
        self.failed.set(true);
        if let Some(recorder) = self.recorder.borrow_mut().as_mut() {
            recorder.it_failed();
        }
    }

    /// Whether the rule asks for a flush at the close: by the pinned policy, and by the command with
    /// which the user's code closes the run.
    pub(crate) fn flushes_at_close(&self) -> bool {
        self.failed.get() || !self.start.policy.is_on_error()
    }

    /// The types of values that are captured, if inputs are.
    pub(crate) fn inputs(&self) -> Option<&ValueTypes> {
        self.options.span_hooks.captured().inputs().then_some(&self.options.values)
    }

    /// The types of values that are captured, if outputs are.
    pub(crate) fn outputs(&self) -> Option<&ValueTypes> {
        self.options.span_hooks.captured().outputs().then_some(&self.options.values)
    }

    /// Says that the type of what the run was started with is hidden.
    pub(crate) fn hide_arguments(&self) {
        self.hides_arguments.set(true);
    }

    /// Notes on the root what the run was started with.
    pub(crate) fn note_arguments(&self, root: &SpanRef) {
        let shown = self.inputs().is_some() && !self.hides_arguments.get();
        if let Some(arguments) = self.arguments.take().filter(|_| shown) {
            let most = self.options.limits.field_bytes;
            self.update(root, |span| span.input.extend(header::arguments(&arguments, most)));
        }
    }

    fn is_reset(&self) -> bool {
        let StartFacts { run_id, original_run_id, .. } = &self.start;
        !original_run_id.is_empty() && original_run_id != run_id
    }

    fn marks(&self) -> Marks {
        let run_id = self.is_reset().then(|| self.start.run_id.clone());
        Marks { observed: self.start.observed.clone(), run_id, shared: self.shared() }
    }

    /// Metadata of every span of the trace.
    fn shared(&self) -> Fields {
        self.start.context.as_ref().map_or_else(Fields::new, |context| context.shared.clone())
    }

    /// Where `span` stands in the observability trace that the run was started in, if any.
    pub(crate) fn observed_below(&self, span: &SpanId) -> Option<TraceParent> {
        Some(self.start.observed.as_ref()?.under(span))
    }

    /// Lets go of everything, so that whatever the users' guards do from here on has no effect.
    pub(crate) fn leave_memory(&self) {
        if let (Some(recorder), Some(leaving)) = (self.recorder.take(), &self.options.hooks.leaving)
        {
            let spans = recorder.into_spans();
            if !spans.is_empty() {
                leaving(&spans);
            }
        }
        self.ctx.take();
        // They point back to what holds us, too.
        self.arrivals.forget();
    }

    /// Opens a span, `None` if the run has left memory.
    pub(crate) fn start(
        &self,
        parent: Option<&Parent>,
        name: Cow<'static, str>,
        span_type: SpanType,
    ) -> Option<SpanRef> {
        self.open(parent, None, &mut of_type(name, span_type), |place| self.draw(place))
    }

    /// Opens a span that the user's code has described, `None` if the run has left memory.
    pub(crate) fn start_draft<R>(&self, parent: &Parent, draft: &mut Draft<R>) -> Option<SpanRef> {
        let (id, span) = (draft.id.take(), &mut draft.span);
        let span = self.open(Some(parent), id, span, |place| self.draw(place))?;
        self.described(&span);
        Some(span)
    }

    /// To be called when a span has begun and was described.
    pub(crate) fn described(&self, span: &SpanRef) {
        if let Some(recorder) = self.recorder.borrow_mut().as_mut() {
            recorder.described(span);
        }
    }

    /// What is drawn for a place in the trace: nothing as long as the run was not reset. The first
    /// draw of a stream follows from its name and the seed of the time alone, whatever else was drawn,
    /// and a reset gives the run another seed for what comes after it.
    fn draw(&self, place: u64) -> Option<u64> {
        let ctx = self.ctx.borrow();
        // Whoever opens a span has asked for the time.
        let now = self.last_time.get().map(|(now, _)| now);
        let ctx = ctx.as_ref().filter(|ctx| !self.branch.borrow_mut().is_first(ctx, now))?;
        Some(ctx.random_stream(place_stream(place)).random())
    }

    fn open(
        &self,
        parent: Option<&Parent>,
        id: Option<SpanId>,
        span: &mut Span,
        draw: impl Fn(u64) -> Option<u64>,
    ) -> Option<SpanRef> {
        let at = self.now();
        // Both are there until the run leaves memory.
        let mut recorder = self.recorder.borrow_mut();
        Some(recorder.as_mut()?.start(parent, id, span, at, draw))
    }

    pub(crate) fn update(&self, span: &SpanRef, change: impl FnOnce(&mut Span)) {
        if let Some(recorder) = self.recorder.borrow_mut().as_mut() {
            recorder.update(span, change);
        }
    }

    pub(crate) fn end(&self, span: &SpanRef, outcome: Outcome) {
        let at = self.now();
        if let Some(recorder) = self.recorder.borrow_mut().as_mut() {
            recorder.end(span, outcome, at);
        }
    }

    /// Notes on the root what became of the spans of its run, as far as that is known now:
    /// `recorded = delivered + deferred + dropped`.
    pub(crate) fn note_counts(&self, root: &SpanRef) {
        let Some(counts) = self.recorder.borrow().as_ref().map(Recorder::counts) else { return };
        let reasons = [("rejected", counts.refused), ("buffer_full", counts.over_limit)];
        let dropped: Map<String, Value> = reasons
            .into_iter()
            .filter(|(_, spans)| *spans > 0)
            .map(|(reason, spans)| (reason.to_owned(), spans.into()))
            .collect();
        self.update(root, |span| {
            let mut note = |name: &str, value: Value| {
                span.metadata.insert(format!("durable_spans.{name}").into(), value);
            };
            note("recorded", counts.recorded.into());
            note("delivered", counts.delivered.into());
            note("deferred", counts.deferred().into());
            if !dropped.is_empty() {
                note("dropped", dropped.into());
            }
        });
    }

    pub(crate) fn outlive(&self, span: &SpanRef) {
        if let Some(recorder) = self.recorder.borrow_mut().as_mut() {
            recorder.outlive(span);
        }
    }

    pub(crate) fn end_all(&self) {
        let at = self.now();
        if let Some(recorder) = self.recorder.borrow_mut().as_mut() {
            recorder.end_all(at);
        }
    }

    /// What a part of this trace below `span` needs to know. With the policy if it is a run.
    pub(crate) fn context_below(&self, span: &SpanId, starts_run: bool) -> TraceContext {
        let (trace_id, group_id) = match &self.start.context {
            Some(context) => (context.trace_id.clone(), context.group_id.clone()),
            None => (self.own_trace_id(), None),
        };
        let kept = self.recorder.borrow().as_ref().map_or(Kept::All, Recorder::kept);
        let policy = match kept {
            Kept::IfItFails => self.start.policy.on_error(),
            Kept::All | Kept::Nothing => self.start.policy,
        };
        TraceContext {
            trace_id,
            span_id: Some(span.clone()),
            sampled: kept == Kept::All,
            group_id,
            policy: starts_run.then_some(policy),
            previous: None,
            shared: self.shared(),
        }
    }

    /// What the next run of the same chain needs to know.
    pub(crate) fn context_of_next_run(&self) -> Option<TraceContext> {
        let root = self.root.borrow().as_ref()?.id().clone();
        if !self.options.linked_generations {
            return Some(self.context_below(&self.chain_root().unwrap_or(root), true));
        }
        let this = self.context_below(&root, true);
        let trace_id = next_trace_id(&this.trace_id, &root);
        Some(TraceContext {
            trace_id,
            span_id: None,
            previous: Some((this.trace_id, root)),
            ..this
        })
    }

    /// All runs of a chain hang, side by side, under the root span of its first one. `None` if that
    /// is this one.
    fn chain_root(&self) -> Option<SpanId> {
        let context = self.start.context.as_ref().filter(|_| self.start.continued)?;
        context.span_id.clone()
    }

    /// Counts an operation of the user's code, unless it is a command of ours.
    pub(crate) fn count_operation(&self) {
        self.rule.borrow_mut().count_operation();
    }

    /// See [`FlushRule::count_arrival`].
    pub(crate) fn count_arrival(&self) {
        self.rule.borrow_mut().count_arrival();
    }

    /// Whether results count when they arrive, or when the user's code sees them. Pinned when the
    /// run started.
    pub(crate) fn counts_arrivals(&self) -> bool {
        self.start.policy.counts_arrivals()
    }

    /// See [`Arrivals::expect`].
    pub(crate) fn expect<T: 'static, R, A>(
        &self,
        result: R,
        arrived: A,
    ) -> impl Future<Output = T> + use<T, R, A>
    where
        R: Future<Output = T> + 'static,
        A: FnOnce(T) -> T + 'static,
    {
        self.arrivals.expect(result, arrived)
    }

    /// See [`Arrivals::look`].
    pub(crate) fn look_for_arrivals(&self, cx: &mut Context<'_>) {
        self.arrivals.look(cx);
    }

    /// Marks the commands that are issued until the guard is dropped as ours.
    pub(crate) fn own_commands(&self) -> impl Drop + '_ {
        struct Guard<'a>(&'a Cell<bool>);
        impl Drop for Guard<'_> {
            fn drop(&mut self) {
                self.0.set(false);
            }
        }
        self.own_command.set(true);
        Guard(&self.own_command)
    }

    pub(crate) fn is_own_command(&self) -> bool {
        self.own_command.get()
    }

    /// Asks the rule what is due. Nothing is, once the close has begun: it flushes by itself.
    pub(crate) fn due(&self, linger: Linger) -> Due {
        if self.closing.get() || self.options.without_commands {
            return Due::Nothing;
        }
        let buffered = self.recorder.borrow().as_ref().map_or(0, Recorder::buffered);
        self.rule.borrow_mut().due(linger, buffered)
    }

    /// Whether this is the replay of a history that holds no flushes.
    pub(crate) fn is_without_commands(&self) -> bool {
        self.options.without_commands
    }

    pub(crate) fn begin_closing(&self) {
        self.closing.set(true);
    }

    pub(crate) fn flushes_in_flight(&self) -> u32 {
        self.flushes_in_flight.get()
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// Whether flushes are normal activities. Pinned when the run started.
    pub(crate) fn flushes_by_activity(&self) -> bool {
        self.start.policy.is_by_activity()
    }

    pub(crate) fn egress(&self) -> Option<String> {
        self.options.egress.clone()
    }

    /// Begins a flush by a local activity.
    pub(crate) fn begin_flush(&self) -> FlushRequest<Rc<FlushGroup>> {
        self.flushes_in_flight.set(self.flushes_in_flight.get() + 1);
        let (groups, dropped) = self.take_groups();
        FlushRequest { closing: self.closing.get(), dropped, groups, handed_over: None }
    }

    pub(crate) fn end_flush(&self) {
        self.flushes_in_flight.set(self.flushes_in_flight.get() - 1);
    }

    /// Begins a flush by a normal activity: what others carry is left to them, but for the last one.
    pub(crate) fn begin_packed_flush(&self) -> Packed {
        let (mut groups, dropped) = self.take_groups();
        let closing = self.closing.get();
        let mut in_flight = self.carried.borrow_mut();
        if !closing {
            groups.retain(|group| !in_flight.contains(&group.acknowledgement()));
        }
        let (freight, carried, left_bytes) = Freight::pack_first(&self.start.run_id, &groups);
        in_flight.extend(&carried);
        let note = PackedFlush { closing, dropped, left_bytes };
        Packed { input: Freight::with_note(&freight, &note), carried }
    }

    pub(crate) fn end_packed_flush(&self, packed: &Packed) {
        self.carried.borrow_mut().retain(|carried| !packed.carried.contains(carried));
    }

    /// All groups that nobody has acknowledged, with a new one of what was recorded since the last
    /// call; and how many spans were over the limits since then.
    fn take_groups(&self) -> (Vec<Rc<FlushGroup>>, u64) {
        self.rule.borrow_mut().flush_issued();
        let (flush, groups, dropped) = match self.recorder.borrow_mut().as_mut() {
            Some(recorder) => {
                let (flush, groups) = recorder.begin_flush();
                (flush, groups, recorder.take_newly_over_limit())
            }
            None => (0, Vec::new(), 0),
        };
        self.observe(flush, &groups);
        (groups, dropped)
    }

    /// Forgets what was acknowledged.
    pub(crate) fn acknowledge(&self, reply: &FlushReply) {
        if let Some(recorder) = self.recorder.borrow_mut().as_mut() {
            recorder.acknowledge(&reply.acknowledged, reply.refused);
        }
    }

    /// Packs what is unacknowledged for so many couriers. What would be too large for them goes to
    /// the last resort.
    pub(crate) fn freights(&self, couriers: u32) -> Vec<RawValue> {
        let groups = self.recorder.borrow_mut().as_mut().map(Recorder::take_unacknowledged);
        let (freights, too_large) =
            Freight::pack_for(couriers, &self.start.run_id, &groups.unwrap_or_default());
        if !too_large.is_empty() {
            self.rescue(&[Rc::new(FlushGroup::new(u32::MAX, too_large))]);
        }
        freights
    }

    /// Gives away what was recorded after the last flush was issued.
    pub(crate) fn rescue_late_spans(&self) {
        let late = self.recorder.borrow_mut().as_mut().map(Recorder::begin_flush);
        let Some((flush, groups)) = late else { return };
        self.observe(flush, &groups);
        let late: Vec<_> = groups.into_iter().filter(|group| group.flush == flush).collect();
        self.rescue(&late);
    }

    fn observe(&self, flush: u32, groups: &[Rc<FlushGroup>]) {
        if let Some(observe) = &self.options.hooks.observer {
            groups.iter().filter(|group| group.flush == flush).for_each(|group| observe(group));
        }
    }

    /// Gives away what a closing run could not flush. At replay, too: without a cache the SDK calls
    /// the very end of a run replay, and giving the same twice does no harm.
    pub(crate) fn rescue(&self, groups: &[Rc<FlushGroup>]) {
        if let Some(rescue) = &self.options.hooks.last_resort {
            groups.iter().for_each(|group| rescue(&self.start.run_id, group));
        }
    }

    pub(crate) fn hand_over(&self) -> Option<&HandOver> {
        self.options.hooks.hand_over.as_ref()
    }

    pub(crate) fn workflow_id(&self) -> &str {
        &self.start.workflow_id
    }

    fn own_trace_id(&self) -> TraceId {
        let recorder = self.recorder.borrow();
        recorder.as_ref().map_or(TraceId::from_bits(0), |recorder| recorder.trace_id().clone())
    }

    pub(crate) fn now(&self) -> Timestamp {
        let time: Option<SystemTime> =
            self.ctx.borrow().as_ref().and_then(WorkflowInterceptorContext::workflow_time);
        let Some(time) = time else { return self.start.start_time };
        // It stands still within an activation.
        if let Some((known, timestamp)) = self.last_time.get()
            && known == time
        {
            return timestamp;
        }
        let timestamp = Timestamp::from(time);
        self.last_time.set(Some((time, timestamp)));
        timestamp
    }
}

fn of_type(name: Cow<'static, str>, span_type: SpanType) -> Span {
    Span { span_type, ..Draft::<()>::new(name).span }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It is in the ids of runs in flight.
    #[test]
    fn the_stream_of_a_place_never_changes() {
        assert_eq!(place_stream(0), "durable-spans/0");
        assert_eq!(place_stream(0x0123_4567_89ab_cdef), "durable-spans/123456789abcdef");
    }
}
