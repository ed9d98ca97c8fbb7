use std::{
    panic::{AssertUnwindSafe, resume_unwind},
    time::{Duration, SystemTime},
};

use durable_spans_model::{
    ErrorCategory, HEADER, Outcome, Span, SpanError, SpanType, TRACER_HEADER, Timestamp,
    TraceContext, TraceParent, attempt_span_id, to_json,
};
use durable_spans_workflow::{
    DELIVER_ACTIVITY, FLUSH_ACTIVITY, FLUSH_PACKED_ACTIVITY, ValueTypes, as_fields, from_payload,
};
use futures::FutureExt;
use serde_json::Value;
use temporalio_sdk::{
    activities::ActivityInfo,
    interceptors::{
        ActivityExecutionValue, ActivityInboundInterceptor, ExecuteActivityInput,
        ExecuteActivityOutput, ExecuteActivityResult, Next,
    },
};

use crate::{
    FanOut,
    current::{LocalRecording, in_span, in_trace},
    outcome,
};

/// How long the result of an activity may be held back until its span has arrived.
const CONFIRMATION_WAIT: Duration = Duration::from_millis(250);

/// Makes a span of each attempt of each activity whose caller is traced.
///
/// The span hangs under the activity's span in its workflow. Its id follows from that span and the
/// number of the attempt, so reporting it twice makes one row. It is sent when the attempt ends
/// and, if the sink answers, confirmed before the activity's result is reported, within 250 ms. An
/// attempt that is killed with its worker has no span: it is a gap in the numbers.
pub struct ActivityInterceptor {
    deliverer: FanOut,
    disabled: bool,
    values: ValueTypes,
}

impl ActivityInterceptor {
    /// An interceptor that delivers through `deliverer`.
    pub fn new(deliverer: impl Into<FanOut>) -> Self {
        Self { deliverer: deliverer.into(), disabled: false, values: ValueTypes::new() }
    }

    /// Records nothing, and tells what the activities start. Default false.
    #[must_use]
    pub fn disabled(mut self, disabled: bool) -> Self {
        self.disabled = disabled;
        self
    }

    /// The types of values that are captured. Default: [`ValueTypes::new`]. What an activity returns is
    /// captured here only if its workflow does not, which knows those of the types that are shown.
    #[must_use]
    pub fn values(mut self, values: ValueTypes) -> Self {
        self.values = values;
        self
    }

    fn output(&self, value: &dyn ActivityExecutionValue) -> Option<Value> {
        let value_type = value.as_any().type_id();
        let captured = self.deliverer.takes_outputs()
            && !self.values.hides(value_type)
            && !self.values.shows(value_type);
        if captured { value.as_serde().ok().map(to_json) } else { None }
    }

    async fn traced(
        &self,
        context: TraceContext,
        input: ExecuteActivityInput,
        next: Next<'_, ExecuteActivityInput, ExecuteActivityOutput<'_>>,
    ) -> ExecuteActivityResult {
        let started = Timestamp::from(SystemTime::now());
        let mut span = attempt_span(&context, input.activity_info(), started);
        let observed = input.headers().get(TRACER_HEADER);
        if let Some(Ok(observed)) = observed.map(|header| TraceParent::from_header(&header.data)) {
            span.set_observed(&observed);
        }
        let current = LocalRecording::new(span, &context, self.deliverer.clone());
        let body = in_span(&current, next.run(input));
        let outcome = AssertUnwindSafe(body).catch_unwind().await;
        if let Some(mut span) = current.take() {
            let end = match &outcome {
                Ok(Ok(value)) => {
                    if let Some(value) = self.output(&**value) {
                        span.output.extend(as_fields(value, "output"));
                    }
                    Outcome::Success
                }
                Ok(Err(error)) => outcome::of_attempt(&mut span, error),
                Err(_) => Outcome::Error(
                    SpanError::new("Panic", "activity code panicked")
                        .category(ErrorCategory::Application),
                ),
            };
            span.finish(end, Timestamp::from(SystemTime::now()));
            self.deliverer.take_span(span, CONFIRMATION_WAIT).await;
        }
        outcome.unwrap_or_else(|panic| resume_unwind(panic))
    }
}

impl ActivityInboundInterceptor for ActivityInterceptor {
    fn execute_activity<'a>(
        &'a self,
        input: ExecuteActivityInput,
        next: Next<'a, ExecuteActivityInput, ExecuteActivityOutput<'a>>,
    ) -> ExecuteActivityOutput<'a> {
        let header = input.headers().get(HEADER);
        let ours = [FLUSH_ACTIVITY, FLUSH_PACKED_ACTIVITY, DELIVER_ACTIVITY];
        if ours.contains(&&*input.activity_info().activity_type) {
            return next.run(input);
        }
        match header.map(from_payload) {
            None => next.run(input),
            Some(Ok(context)) if self.disabled || !context.sampled => {
                let context = TraceContext { sampled: false, ..context };
                in_trace(context, next.run(input)).boxed()
            }
            Some(Ok(context)) => self.traced(context, input, next).boxed(),
            Some(Err(error)) => {
                tracing::warn!(
                    activity_type = input.activity_info().activity_type,
                    %error,
                    "activity is not traced"
                );
                next.run(input)
            }
        }
    }
}

fn attempt_span(context: &TraceContext, info: &ActivityInfo, started: Timestamp) -> Span {
    let parent = context.span_id.clone();
    let id = match &parent {
        Some(parent) => attempt_span_id(parent, info.attempt),
        // A caller in another language gave a trace only; the activity id keeps attempts apart.
        None => {
            let scope = format!(
                "{}/{}/{}",
                info.workflow_id.as_deref().unwrap_or_default(),
                info.workflow_run_id.as_deref().unwrap_or_default(),
                info.activity_id
            );
            durable_spans_model::Seed::new(0, &scope).span_id(
                None,
                &info.activity_type,
                info.attempt.into(),
                |_| None,
            )
        }
    };
    let mut span = Span::new(context.trace_id.clone(), id, info.activity_type.clone(), started);
    span.span_type = SpanType::Custom;
    span.parent_id = parent;
    span.group_id.clone_from(&context.group_id);
    span.metadata.clone_from(&context.shared);
    let mut note = |name: &'static str, value: Value| {
        span.metadata.insert(name.into(), value);
    };
    note("temporal.kind", "activity_attempt".into());
    note("temporal.attempt", info.attempt.into());
    note("temporal.activity_id", info.activity_id.as_str().into());
    if let Some(scheduled) = info.current_attempt_scheduled_time {
        let queued = started.since(scheduled.into());
        note("temporal.queue_ms", u64::try_from(queued.as_millis()).unwrap_or(u64::MAX).into());
    }
    span
}
