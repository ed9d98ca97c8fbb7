use std::{
    any::Any,
    borrow::Cow,
    env,
    sync::Arc,
    time::{Duration, Instant},
};

use durable_spans_activity::{
    ActivityInterceptor, BreakerState, DeliverActivity, Deliverer, FanOut, FlushActivity,
    FlushPackedActivity, InTrace, ProcessorSink, SpanProcessor, SpanSink, Statistics,
};
use durable_spans_model::{
    Capture, FlushPolicy, Sampling, SpanBuilder, SpanHook, SpanHooks, Starting, TraceContext,
};
use durable_spans_workflow::{Courier, HandOver, Limits, Timetable, ValueTypes, WorkflowTracing};
use futures::future::join_all;
use serde::Serialize;
use temporalio_client::ClientOptions;
use temporalio_sdk::{
    WorkerOptions,
    runtime::worker_tuner::{
        FixedSizeSlotSupplier, ResourceBasedSlotOptions, SlotSupplier, WorkerTuner,
    },
    workflow_replayer::WorkflowReplayerOptions,
};

use crate::client::{PropagatingClient, new_trace};

/// How many runs may wait for their last flush before others wait for a slot for workflow tasks.
const SLOTS_FOR_WAITING_RUNS: usize = 1_000;

/// See [`DurableSpans::courier_patience`].
const COURIER_PATIENCE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Tracing for a process: its sinks, installed on its clients and workers.
///
/// ```
/// use durable_spans::{DurableSpans, MemorySink};
/// use temporalio_client::ClientOptions;
///
/// let spans = DurableSpans::new(MemorySink::new());
/// let mut options = ClientOptions::new("default").build();
/// spans.install_client(&mut options);
/// ```
///
/// Cloning gives another handle to the same sinks, queues and counts.
#[derive(Clone)]
pub struct DurableSpans {
    deliverer: FanOut,
    egress: Option<String>,
    timetable: Timetable,
    policy: FlushPolicy,
    limits: Limits,
    timer_spans: bool,
    linked_generations: bool,
    courier_patience: Duration,
    sampling: Sampling,
    disabled: bool,
    hooks: SpanHooks,
    values: ValueTypes,
    processors: Vec<Arc<dyn SpanProcessor>>,
    traces_page: Option<String>,
}

impl DurableSpans {
    /// Traces every run, with the default flush policy, into `sink`.
    ///
    /// Where the environment variable `DISABLE_SCALE_TRACING` is set, to anything but nothing, `0` or
    /// `false`, it is [`disabled`](Self::disabled): Scale's own SDK has the same switch.
    pub fn new(sink: impl SpanSink) -> Self {
        Self::of(Deliverer::new(sink))
    }

    /// For a process that may not reach the network, while workers of the task queue `egress` may:
    /// make these from [`egress_worker`](Self::egress_worker) in another process.
    ///
    /// Runs that are started from here flush by normal activities on that task queue
    /// ([`FlushPolicy::by_activity`]), and couriers run there. All spans that workflows record
    /// arrive; those of activity attempts cannot leave this process and are counted as dropped, so
    /// serve activities in processes with a sink.
    ///
    /// ```
    /// use durable_spans::{DurableSpans, MemorySink};
    ///
    /// // Where the workflows run:
    /// let inside = DurableSpans::through("spans-egress");
    /// // In a process that reaches the network, as the options of a worker of its own:
    /// let worker_options = DurableSpans::new(MemorySink::new()).egress_worker("spans-egress")?;
    /// # let _ = (inside, worker_options);
    /// # Ok::<(), durable_spans::InstallError>(())
    /// ```
    pub fn through(egress: impl Into<String>) -> Self {
        Self {
            egress: Some(egress.into()),
            policy: FlushPolicy::new().by_activity(),
            ..Self::of(Deliverer::without_sink())
        }
    }

    fn of(deliverer: Deliverer) -> Self {
        Self {
            deliverer: deliverer.into(),
            egress: None,
            timetable: Timetable::new(),
            policy: FlushPolicy::new(),
            limits: Limits::new(),
            timer_spans: false,
            linked_generations: false,
            courier_patience: COURIER_PATIENCE,
            sampling: Sampling::all(),
            hooks: SpanHooks::new(),
            values: ValueTypes::new(),
            processors: Vec::new(),
            disabled: env::var("DISABLE_SCALE_TRACING").is_ok_and(|value| is_yes(&value)),
            traces_page: None,
        }
    }

    /// Delivers to another sink, too. Each has a queue of its own, so that a slow one holds none back;
    /// a run is done with its spans when every sink has them. See
    /// [`FanOut`](durable_spans_activity::FanOut).
    ///
    /// ```
    /// use durable_spans::{DurableSpans, MemorySink, SpanSink, StdoutSink, SpanStatus};
    ///
    /// let failures = StdoutSink::new().filter(|span| span.status == SpanStatus::Error);
    /// let spans = DurableSpans::new(MemorySink::new()).also(failures);
    /// ```
    #[must_use]
    pub fn also(mut self, sink: impl SpanSink) -> Self {
        self.deliverer = self.deliverer.and(sink);
        self
    }

    /// Says which runs are traced, by their start time. **A fleet with runs in flight needs**
    /// [`Timetable::since`].
    #[must_use]
    pub fn timetable(mut self, timetable: Timetable) -> Self {
        self.timetable = timetable;
        self
    }

    /// The flush policy that clients pin to the runs they start. Runs in flight keep theirs.
    #[must_use]
    pub fn flush_policy(mut self, policy: FlushPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// How much a run may record. What is over a limit is cut with a mark, or counted as dropped.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The base URL of a traces page, such as `http://127.0.0.1:8790` of the local collector. The
    /// runs that clients of this installation start have the URL of their trace in their memo, as
    /// `trace_url`, so that Temporal's own page leads there. A memo that the caller has set under
    /// this name stays. Default: none, and no memo.
    #[must_use]
    pub fn traces_page(mut self, url: impl Into<String>) -> Self {
        self.traces_page = Some(url.into().trim_end_matches('/').to_owned());
        self
    }

    /// Whether timers in workflow code have spans. Default false.
    #[must_use]
    pub fn timer_spans(mut self, wanted: bool) -> Self {
        self.timer_spans = wanted;
        self
    }

    /// Whether a run that follows a continue-as-new has a trace of its own, linked to the one before.
    /// Default false: one trace for the whole chain. See
    /// [`WorkflowTracing::linked_generations`].
    #[must_use]
    pub fn linked_generations(mut self, wanted: bool) -> Self {
        self.linked_generations = wanted;
        self
    }

    /// Which traces are recorded. Default: all.
    ///
    /// It is decided where a trace begins: by the client that starts a run outside of any trace, by
    /// [`trace`](Self::trace), or by the worker for a run that was started without a trace context.
    /// What is not recorded costs nothing, but for the flushes of such runs without a trace context,
    /// whose history must not depend on options. See [`Sampling::keep_errors`] for runs that fail.
    ///
    /// ```
    /// use durable_spans::{DurableSpans, MemorySink, Sampling};
    ///
    /// let spans = DurableSpans::new(MemorySink::new())
    ///     .sampling(Sampling::ratio(0.05).rule(|starting| {
    ///         (starting.name == "Checkout").then_some(1.0)
    ///     }).keep_errors());
    /// ```
    #[must_use]
    pub fn sampling(mut self, sampling: Sampling) -> Self {
        self.sampling = sampling;
        self
    }

    /// Records nothing: the switch for the whole process. Runs in flight go on to issue the few
    /// commands that they began with, and what couriers carry is delivered. Default false, see
    /// [`DurableSpans::new`].
    #[must_use]
    pub fn disabled(mut self, disabled: bool) -> Self {
        self.disabled = disabled;
        self
    }

    /// Which inputs and outputs are kept, of those that are captured and those that code sets: all by
    /// default, without what looks like a credential, and cut to the [`Limits`].
    ///
    /// Captured are what runs are started with and return, what activities return, and what goes into
    /// activities, signals and updates as far as its type is known: see
    /// [`show_values_of`](Self::show_values_of) and [`hide_values_of`](Self::hide_values_of).
    #[must_use]
    pub fn capture(self, capture: Capture) -> Self {
        self.change_hooks(|hooks| hooks.capture(capture))
    }

    /// Captures what goes into activities, signals and updates as one value of this type. Texts,
    /// numbers, booleans, JSON values, and lists of texts and of JSON values are captured already.
    ///
    /// ```
    /// use durable_spans::{DurableSpans, MemorySink};
    ///
    /// #[derive(serde::Serialize)]
    /// struct Order { item: String }
    /// struct Card;
    ///
    /// let spans = DurableSpans::new(MemorySink::new())
    ///     .show_values_of::<Order>()
    ///     .hide_values_of::<Card>();
    /// ```
    #[must_use]
    pub fn show_values_of<T: Serialize + Any>(mut self) -> Self {
        self.values = self.values.show::<T>();
        self
    }

    /// Captures no value of this type, wherever it goes in or comes out as a whole.
    #[must_use]
    pub fn hide_values_of<T: Any>(mut self) -> Self {
        self.values = self.values.hide::<T>();
        self
    }

    /// Calls `hook` with each span before it is kept, so that it can take out what nobody else shall
    /// see. See [`SpanHooks`] for the order, and why it is a function without state.
    ///
    /// ```
    /// use durable_spans::{DurableSpans, MemorySink};
    ///
    /// let spans = DurableSpans::new(MemorySink::new()).redactor(|span| {
    ///     span.metadata.remove("customer");
    /// });
    /// ```
    #[must_use]
    pub fn redactor(self, hook: SpanHook) -> Self {
        self.change_hooks(|hooks| hooks.redactor(hook))
    }

    /// Calls `hook` with each span that begins, in workflow code at each replay, too.
    #[must_use]
    pub fn on_start(self, hook: SpanHook) -> Self {
        self.change_hooks(|hooks| hooks.on_start(hook))
    }

    /// Calls `hook` with each span that has ended, in workflow code at each replay, too.
    #[must_use]
    pub fn on_end(self, hook: SpanHook) -> Self {
        self.change_hooks(|hooks| hooks.on_end(hook))
    }

    /// Tells `processor` of each span, outside of workflow code. It has a queue of its own, like another
    /// sink, and counts as one in the [`statistics`](Self::statistics).
    #[must_use]
    pub fn processor(self, processor: impl SpanProcessor) -> Self {
        let processor: Arc<dyn SpanProcessor> = Arc::new(processor);
        let mut told = self.also(ProcessorSink::new(processor.clone()));
        told.processors.push(processor);
        told
    }

    /// Whether values that look like credentials, or have the name of one, are kept. Default false.
    #[must_use]
    pub fn keep_credentials(self, keep: bool) -> Self {
        self.change_hooks(|hooks| hooks.keep_credentials(keep))
    }

    fn change_hooks(mut self, change: impl FnOnce(SpanHooks) -> SpanHooks) -> Self {
        self.hooks = change(self.hooks);
        self.deliverer = self.deliverer.hooks(Arc::new(self.hooks.clone()));
        self
    }

    /// Begins a trace in client code: describes its first span. What is started inside of its scope
    /// hangs under it: workflows, by a client with [`install_client`](Self::install_client), and
    /// further spans, by [`span`](crate::span).
    ///
    /// ```
    /// use durable_spans::{DurableSpans, MemorySink, span};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let sink = MemorySink::new();
    /// let spans = DurableSpans::new(sink.clone());
    /// spans
    ///     .trace("answer a letter")
    ///     .scope(async {
    ///         span("look up the customer").in_scope(|span| span.output("name", "Ada"));
    ///         // client.start_workflow(…)
    ///     })
    ///     .await;
    /// spans.flush(std::time::Duration::from_secs(5)).await;
    /// assert_eq!(sink.spans().len(), 2);
    /// # }
    /// ```
    pub fn trace(&self, name: impl Into<Cow<'static, str>>) -> SpanBuilder<InTrace> {
        let name = name.into();
        let starting = Starting { name: &name, workflow_id: None, task_queue: None };
        let mut context = new_trace();
        context.sampled = self.sampling.keeps(&context.trace_id, &starting);
        self.trace_in(context, name)
    }

    /// Begins a span in client code in the trace that `context` tells: one with an id or a group of
    /// your own, or one that began elsewhere.
    ///
    /// ```
    /// use durable_spans::{DurableSpans, MemorySink, TraceContext};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let spans = DurableSpans::new(MemorySink::new());
    /// let context = TraceContext::new("order-17".parse()?).group_id("customer-4")?;
    /// let span = spans.trace_in(context, "take the order").start();
    /// # Ok(())
    /// # }
    /// ```
    pub fn trace_in(
        &self,
        context: TraceContext,
        name: impl Into<Cow<'static, str>>,
    ) -> SpanBuilder<InTrace> {
        let sampled = context.sampled && !self.disabled;
        let context = TraceContext { sampled, ..context };
        SpanBuilder::new(InTrace::new(context, self.deliverer.clone()), name)
    }

    /// How long couriers try to deliver what the sink has not confirmed when a run closed. Default
    /// 7 days, in whole seconds. Then they fail and name what is lost: in Temporal, in the log, and
    /// in the statistics as [`Expired`](crate::DropReason::Expired). Applies to couriers that are
    /// under way, too.
    #[must_use]
    pub fn courier_patience(mut self, patience: Duration) -> Self {
        self.courier_patience = patience;
        self
    }

    /// Traces the workflows and activities of a worker.
    ///
    /// **Call it last**, when the worker's workflows and activities are registered: a worker with
    /// workflows only gets our flush activity as a local activity, and no slot for others, since
    /// registering an activity makes the SDK poll the activity task queue too, where such a worker
    /// would take activities that it does not have. A process that has a workflow-only and an
    /// activity-only worker on one task queue must give each its own connection, since the SDK
    /// refuses two workers with activities on one.
    ///
    /// # Errors
    ///
    /// When neither a workflow nor an activity is registered, or when a process that was said to
    /// deliver [`through`](Self::through) others has a sink as well.
    pub fn install(&self, options: &mut WorkerOptions) -> Result<(), InstallError> {
        if self.deliverer.is_contradictory() {
            let reason = "a process that delivers through others has no sinks: give them to the \
                          process of the egress worker";
            return Err(InstallError { reason: reason.to_owned() });
        }
        let tasks = options
            .to_core_options(String::new(), String::new())
            .map_err(|reason| InstallError {
                reason: format!("{reason} (call install last, after registering both)"),
            })?
            .task_types;
        let activities = ActivityInterceptor::new(self.deliverer.clone())
            .disabled(self.disabled)
            .values(self.values.clone());
        options.activity_inbound_interceptor(activities);
        if tasks.enable_workflows {
            if !tasks.enable_remote_activities {
                without_activity_slots(&mut options.tuner);
            }
            // For runs that were started to flush elsewhere, if this worker takes their place.
            options.register_activities(FlushPackedActivity::new(self.deliverer.clone()));
            let place = HandOver::new();
            let flush = FlushActivity::new(self.deliverer.clone()).hand_over(place.clone());
            options.register_activities(flush);
            let deliver = DeliverActivity::new(self.deliverer.clone(), self.courier_patience);
            options.register_activities(deliver);
            options
                .register_workflow::<Courier>()
                .map_err(|error| InstallError { reason: error.to_string() })?;
            let deliverer = self.deliverer.clone();
            let tracing = self
                .workflow_tracing()
                .hand_over(place)
                .last_resort(move |run_id, group| deliverer.take_last(run_id, group));
            options.workflow_interceptor(tracing.interceptor());
            with_slots_for_waiting_runs(&mut options.tuner);
        }
        Ok(())
    }

    /// Options of a worker that delivers for workers which may not reach the network, see
    /// [`DurableSpans::through`]. Needs the same payload codec on its client as they have.
    ///
    /// # Errors
    ///
    /// When the options cannot be made, as in [`DurableSpans::install`].
    pub fn egress_worker(
        &self,
        task_queue: impl Into<String>,
    ) -> Result<WorkerOptions, InstallError> {
        let mut options = WorkerOptions::new(task_queue).build();
        options.register_activities(FlushPackedActivity::new(self.deliverer.clone()));
        options.register_activities(DeliverActivity::new(
            self.deliverer.clone(),
            self.courier_patience,
        ));
        options
            .register_workflow::<Courier>()
            .map_err(|error| InstallError { reason: error.to_string() })?;
        Ok(options)
    }

    /// Lets a client tell the workflows that it starts, signals and updates which trace they belong
    /// to. Call it when the client's data converter is set.
    pub fn install_client(&self, options: &mut ClientOptions) {
        options.client_interceptors.push(PropagatingClient::new(
            options.data_converter.clone(),
            self.policy.counting_arrivals(),
            (!self.disabled).then(|| self.sampling.clone()),
            self.traces_page.clone(),
        ));
    }

    /// Replays as a worker with this installation would. Needed wherever a traced run is replayed.
    pub fn install_replayer(&self, options: &mut WorkflowReplayerOptions) {
        options.workflow_interceptor(self.workflow_tracing().interceptor());
    }

    /// What became of the spans of this process so far for each sink, by the sink's name.
    pub fn statistics_by_sink(&self) -> Vec<(String, Statistics)> {
        self.deliverer.by_sink()
    }

    /// What became of the spans of this process so far. With several sinks, each span counts once for
    /// each of them.
    pub fn statistics(&self) -> Statistics {
        self.deliverer.statistics()
    }

    /// Whether the sink is waited for, or known to be down; of several, the worst one.
    pub fn breaker(&self) -> BreakerState {
        self.deliverer.breaker()
    }

    /// Waits until every span has reached the sink, for at most `limit`, and says what became of
    /// them. Call it after the workers have stopped: what is deferred when the process ends is
    /// lost with it.
    pub async fn flush(&self, limit: Duration) -> Statistics {
        let start = Instant::now();
        let statistics = self.deliverer.flush(limit).await;
        let rest = limit.saturating_sub(start.elapsed());
        let flushes = self.processors.iter().map(|processor| processor.force_flush());
        let _ = tokio::time::timeout(rest, join_all(flushes)).await;
        statistics
    }

    /// [Flushes](Self::flush), then tells the processors that the process ends; for at most `limit` in
    /// all.
    pub async fn shutdown(&self, limit: Duration) -> Statistics {
        let start = Instant::now();
        let statistics = self.flush(limit).await;
        let rest = limit.saturating_sub(start.elapsed());
        let ends = self.processors.iter().map(|processor| processor.shutdown());
        let _ = tokio::time::timeout(rest, join_all(ends)).await;
        statistics
    }

    pub(crate) fn workflow_tracing(&self) -> WorkflowTracing {
        let tracing = WorkflowTracing::new()
            .timetable(self.timetable.clone())
            .limits(self.limits)
            .timer_spans(self.timer_spans)
            .linked_generations(self.linked_generations)
            .sampling(self.sampling.clone())
            .disabled(self.disabled)
            .span_hooks(self.hooks.clone())
            .values(self.values.clone())
            // A replay need not write into commands what nobody reads; a worker has a place of its own.
            .hand_over(HandOver::new());
        match &self.egress {
            Some(task_queue) => tracing.egress(task_queue),
            None => tracing,
        }
    }
}

fn is_yes(value: &str) -> bool {
    !["", "0", "false"].contains(&value.trim().to_ascii_lowercase().as_str())
}

/// The worker's options are not ready for [`DurableSpans::install`].
#[derive(Debug, thiserror::Error)]
#[error("cannot trace this worker: {reason}")]
pub struct InstallError {
    reason: String,
}

/// A run that waits for its last flush holds a slot for workflow tasks without using it. So that
/// other runs do not wait for one, there are more: all run on one thread in any case.
fn with_slots_for_waiting_runs(tuner: &mut WorkerTuner) {
    let extended = |options: Option<ResourceBasedSlotOptions>| {
        let mut options = options.unwrap_or_else(|| ResourceBasedSlotOptions::builder().build());
        // What is not set is the SDK's default, 1,000 already.
        options.maximum_slots = options.maximum_slots.map(|slots| slots + SLOTS_FOR_WAITING_RUNS);
        Some(options)
    };
    match tuner {
        WorkerTuner::ResourceBased(tuner) => {
            tuner.workflow_task_slot_options = extended(tuner.workflow_task_slot_options.take());
        }
        WorkerTuner::ResourceBasedWithController(tuner) => {
            tuner.workflow_task_slot_options = extended(tuner.workflow_task_slot_options.take());
        }
        WorkerTuner::TunerHolder(tuner) => match &mut tuner.workflow_task_slot_supplier {
            SlotSupplier::FixedSize(supplier) => supplier.num_slots += SLOTS_FOR_WAITING_RUNS,
            SlotSupplier::ResourceBased(slots) => {
                slots.slot_options.maximum_slots =
                    slots.slot_options.maximum_slots.map(|slots| slots + SLOTS_FOR_WAITING_RUNS);
            }
            _ => {}
        },
        _ => {}
    }
}

/// A poller needs a slot before it polls, so without slots it never takes an activity.
fn without_activity_slots(tuner: &mut WorkerTuner) {
    let none = || ResourceBasedSlotOptions::builder().minimum_slots(0).maximum_slots(0).build();
    match tuner {
        WorkerTuner::ResourceBased(tuner) => tuner.activity_task_slot_options = Some(none()),
        WorkerTuner::ResourceBasedWithController(tuner) => {
            tuner.activity_task_slot_options = Some(none());
        }
        WorkerTuner::TunerHolder(tuner) => {
            tuner.activity_task_slot_supplier = FixedSizeSlotSupplier::new(0).into();
        }
        other => tracing::warn!(
            tuner = ?other,
            "unknown tuner: this worker may take activities that it does not have"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use durable_spans_activity::MemorySink;

    #[test]
    fn sinks_in_a_process_that_delivers_through_others_are_refused_with_the_remedy() {
        let spans = DurableSpans::through("egress").also(MemorySink::new());
        let mut options = WorkerOptions::new("queue").build();
        let error = spans.install(&mut options).unwrap_err().to_string();
        assert!(error.ends_with("give them to the process of the egress worker"), "{error}");
    }

    #[test]
    fn the_switch_in_the_environment_is_on_unless_it_says_no() {
        assert!(["1", "true", "TRUE", "yes"].into_iter().all(is_yes));
        assert!(["", " ", "0", "false", "False"].into_iter().all(|value| !is_yes(value)));
    }

    #[test]
    fn a_worker_without_anything_registered_is_refused_with_the_remedy() {
        let spans = DurableSpans::new(MemorySink::new());
        let error = spans.install(&mut WorkerOptions::new("queue").build()).unwrap_err();
        assert!(error.to_string().contains("call install last"), "{error}");
    }
}
