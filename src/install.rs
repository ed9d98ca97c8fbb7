use std::time::Duration;

use durable_spans_activity::{
    ActivityInterceptor, DeliverActivity, FanOut, FlushActivity, SpanSink, Statistics,
};
use durable_spans_model::FlushPolicy;
use durable_spans_workflow::{Courier, Limits, Timetable, WorkflowTracing};
use temporalio_client::ClientOptions;
use temporalio_sdk::{
    WorkerOptions,
    runtime::worker_tuner::{FixedSizeSlotSupplier, ResourceBasedSlotOptions, WorkerTuner},
    workflow_replayer::WorkflowReplayerOptions,
};

use crate::client::PropagatingClient;

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
    timetable: Timetable,
    policy: FlushPolicy,
    limits: Limits,
}

impl DurableSpans {
    /// Traces every run, with the default flush policy, into `sink`.
    pub fn new(sink: impl SpanSink) -> Self {
        Self {
            deliverer: FanOut::new(sink),
            timetable: Timetable::new(),
            policy: FlushPolicy::new(),
            limits: Limits::new(),
        }
    }

    /// Delivers to another sink, too. Each has a queue of its own, so that a slow one holds none back; a
    /// run is done with its spans when every sink has them. See
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
    /// When neither a workflow nor an activity is registered.
    pub fn install(&self, options: &mut WorkerOptions) -> Result<(), InstallError> {
        let tasks = options
            .to_core_options(String::new(), String::new())
            .map_err(|reason| InstallError { reason })?
            .task_types;
        options.activity_inbound_interceptor(ActivityInterceptor::new(self.deliverer.clone()));
        if tasks.enable_workflows {
            if !tasks.enable_remote_activities {
                without_activity_slots(&mut options.tuner);
            }
            options.register_activities(FlushActivity::new(self.deliverer.clone()));
            options.register_activities(DeliverActivity::new(self.deliverer.clone()));
            options
                .register_workflow::<Courier>()
                .map_err(|error| InstallError { reason: error.to_string() })?;
            let deliverer = self.deliverer.clone();
            let tracing = self
                .workflow_tracing()
                .last_resort(move |run_id, group| deliverer.take_last(run_id, group));
            options.workflow_interceptor(tracing.interceptor());
        }
        Ok(())
    }

    /// Lets a client tell the workflows that it starts, signals and updates which trace they belong
    /// to. Call it when the client's data converter is set.
    pub fn install_client(&self, options: &mut ClientOptions) {
        options
            .client_interceptors
            .push(PropagatingClient::new(options.data_converter.clone(), self.policy));
    }

    /// Replays as a worker with this installation would. Needed wherever a traced run is replayed.
    pub fn install_replayer(&self, options: &mut WorkflowReplayerOptions) {
        options.workflow_interceptor(self.workflow_tracing().interceptor());
    }

    /// What became of the spans of this process so far for each sink, by the sink's name.
    pub fn statistics_by_sink(&self) -> Vec<(String, Statistics)> {
        self.deliverer.by_sink()
    }

    /// What became of the spans of this process so far.
    pub fn statistics(&self) -> Statistics {
        self.deliverer.statistics()
    }

    /// Waits until every span has reached the sink, for at most `limit`, and says what became of
    /// them. Call it after the workers have stopped: what is deferred when the process ends is
    /// lost with it.
    pub async fn flush(&self, limit: Duration) -> Statistics {
        self.deliverer.flush(limit).await
    }

    fn workflow_tracing(&self) -> WorkflowTracing {
        WorkflowTracing::new().timetable(self.timetable.clone()).limits(self.limits)
    }
}

/// The worker's options are not ready for [`DurableSpans::install`].
#[derive(Debug, thiserror::Error)]
#[error("cannot trace this worker: {reason} (call install last, after registering both)")]
pub struct InstallError {
    reason: String,
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
    fn a_worker_without_anything_registered_is_refused_with_the_remedy() {
        let spans = DurableSpans::new(MemorySink::new());
        let error = spans.install(&mut WorkerOptions::new("queue").build()).unwrap_err();
        assert!(error.to_string().contains("call install last"), "{error}");
    }
}
