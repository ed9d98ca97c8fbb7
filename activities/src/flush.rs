//! The flush activities: where the spans of a run leave the workflow.

use std::{sync::Arc, time::Duration};

use durable_spans_workflow::{
    FLUSH_ACTIVITY, FLUSH_PACKED_ACTIVITY, FREIGHT_BYTES, FlushReply, FlushRequest, Freight,
    HandOver, PackedFlush,
};
use futures::{FutureExt, future::BoxFuture};
use temporalio_common::{ActivityDefinition, data_converters::RawValue, error::ApplicationFailure};
use temporalio_sdk::activities::{
    ActivityContext, ActivityDefinitions, ActivityError, ActivityImplementer, ExecutableActivity,
};

use crate::{DropReason, FanOut, deliverer::Taken};

/// Bytes of JSON that a run which goes on may keep while the sink is down. A courier takes more.
const KEPT_BYTES: usize = 4_000_000;

/// How long a normal activity that flushes for a run which goes on waits for the sink.
const PACKED_WAIT: Duration = Duration::from_secs(3);

/// How long the flush at a run's close waits for the sink.
const CLOSING_WAIT: Duration = Duration::from_millis(900);

/// Says that a run and this activity were not given the same place.
const NOTHING_LEFT: &str = "the run's spans are not here: give its tracing and the flush activity the \
                            same place to hand them over";

/// Registers the flush activity. The crate `durable-spans` installs it.
///
/// It runs as a local activity: mid-run it hands the spans over and answers at once, at the close
/// of a run it waits for the sink, for 0.9 seconds at most.
pub struct FlushActivity {
    deliverer: FanOut,
    hand_over: HandOver,
}

impl FlushActivity {
    /// The flush activity that delivers through `deliverer`.
    pub fn new(deliverer: impl Into<FanOut>) -> Self {
        Self { deliverer: deliverer.into(), hand_over: HandOver::new() }
    }

    /// Takes the spans from `place`, where the runs' tracing leaves them. Default: from the activity's
    /// input.
    #[must_use]
    pub fn hand_over(mut self, place: HandOver) -> Self {
        self.hand_over = place;
        self
    }

    async fn flush(
        &self,
        ctx: ActivityContext,
        mut request: FlushRequest,
    ) -> Result<FlushReply, ActivityError> {
        if let Some(number) = request.handed_over {
            // A run that has left memory meanwhile does all of this again. Should it be there, it
            // is to know that its spans were not taken.
            let left = self.hand_over.groups(number);
            request.groups = left.ok_or_else(|| ApplicationFailure::non_retryable(NOTHING_LEFT))?;
        }
        let wait = if request.closing { closing_wait(&ctx) } else { Duration::ZERO };
        Ok(flush(&self.deliverer, &ctx, request, 0, wait).await)
    }
}

/// `left_bytes` are those that the run keeps for want of room in its command.
async fn flush(
    deliverer: &FanOut,
    ctx: &ActivityContext,
    request: FlushRequest,
    left_bytes: usize,
    wait: Duration,
) -> FlushReply {
    let run_id = ctx.info().workflow_run_id.as_deref().unwrap_or_default();
    if request.dropped > 0 {
        let (spans, reason) = (request.dropped, DropReason::BufferFull);
        deliverer.count_dropped(reason, spans);
        let reason = reason.as_str();
        tracing::warn!(run_id, spans, reason, "spans dropped: the run's buffer is full");
    }
    let mut taken = deliverer.take_flush(run_id, request.groups, wait).await;
    taken.undelivered_bytes += left_bytes;
    let couriers = couriers(request.closing, &taken);
    if couriers > 0 {
        tracing::warn!(
            workflow_id = ctx.info().workflow_id,
            run_id,
            couriers,
            undelivered_bytes = taken.undelivered_bytes,
            sinks = taken.sinks(),
            "these sinks have not confirmed all spans of this run; couriers take them"
        );
    }
    let refused = u32::try_from(taken.refused).unwrap_or(u32::MAX);
    FlushReply { acknowledged: taken.delivered, couriers, refused }
}

/// Registers the normal activity that flushes for workers which may not reach the network. The
/// crate `durable-spans` installs it.
pub struct FlushPackedActivity {
    deliverer: FanOut,
}

impl FlushPackedActivity {
    /// The activity that delivers through `deliverer`.
    pub fn new(deliverer: impl Into<FanOut>) -> Self {
        Self { deliverer: deliverer.into() }
    }

    async fn flush(
        &self,
        ctx: ActivityContext,
        input: RawValue,
    ) -> Result<FlushReply, ActivityError> {
        let PackedFlush { closing, dropped, left_bytes } =
            Freight::note(&input).map_err(ApplicationFailure::non_retryable)?;
        let freight = Freight::unpack(&input).map_err(ApplicationFailure::non_retryable)?;
        let wait = if closing { closing_wait(&ctx) } else { PACKED_WAIT };
        let groups = freight.groups;
        let request = FlushRequest { closing, dropped, groups, handed_over: None };
        Ok(flush(&self.deliverer, &ctx, request, left_bytes, wait).await)
    }
}

/// What is left of the wait at a close: the time until the activity began counts.
fn closing_wait(ctx: &ActivityContext) -> Duration {
    let elapsed = ctx.info().scheduled_time.and_then(|scheduled| scheduled.elapsed().ok());
    CLOSING_WAIT.saturating_sub(elapsed.unwrap_or_default())
}

/// How many couriers shall take what was not delivered: a run that closes cannot keep it, and one
/// that goes on should not keep too much of it while the sink is down.
fn couriers(closing: bool, taken: &Taken) -> u32 {
    let bytes = taken.undelivered_bytes;
    let too_much = taken.sink_is_down && bytes > KEPT_BYTES;
    if bytes == 0 || !(closing || too_much) {
        return 0;
    }
    u32::try_from(bytes.div_ceil(FREIGHT_BYTES)).unwrap_or(u32::MAX)
}

impl ActivityImplementer for FlushActivity {
    fn register_all(self: Arc<Self>, definitions: &mut ActivityDefinitions) {
        definitions.register_activity::<FlushSpans>(self);
    }
}

struct FlushSpans;

impl ActivityDefinition for FlushSpans {
    type Input = FlushRequest;
    type Output = FlushReply;

    fn name(&self) -> &str {
        FLUSH_ACTIVITY
    }
}

impl ExecutableActivity for FlushSpans {
    type Implementer = FlushActivity;
    const REQUIRES_INSTANCE: bool = true;

    fn definition() -> Self {
        Self
    }

    fn execute(
        receiver: Option<Arc<FlushActivity>>,
        ctx: ActivityContext,
        input: FlushRequest,
    ) -> BoxFuture<'static, Result<FlushReply, ActivityError>> {
        async move {
            match receiver {
                Some(activity) => activity.flush(ctx, input).await,
                // Nothing is acknowledged, so nothing is lost.
                None => Ok(FlushReply::default()),
            }
        }
        .boxed()
    }
}

impl ActivityImplementer for FlushPackedActivity {
    fn register_all(self: Arc<Self>, definitions: &mut ActivityDefinitions) {
        definitions.register_activity::<FlushPacked>(self);
    }
}

struct FlushPacked;

impl ActivityDefinition for FlushPacked {
    type Input = RawValue;
    type Output = FlushReply;

    fn name(&self) -> &str {
        FLUSH_PACKED_ACTIVITY
    }
}

impl ExecutableActivity for FlushPacked {
    type Implementer = FlushPackedActivity;
    const REQUIRES_INSTANCE: bool = true;

    fn definition() -> Self {
        Self
    }

    fn execute(
        receiver: Option<Arc<FlushPackedActivity>>,
        ctx: ActivityContext,
        input: RawValue,
    ) -> BoxFuture<'static, Result<FlushReply, ActivityError>> {
        async move {
            match receiver {
                Some(activity) => activity.flush(ctx, input).await,
                None => Ok(FlushReply::default()),
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn couriers_go_at_the_close_and_where_a_run_would_keep_too_much_of_an_outage() {
        let asked = |closing, undelivered_bytes, sink_is_down| {
            let taken = Taken { undelivered_bytes, sink_is_down, ..Taken::default() };
            couriers(closing, &taken)
        };
        assert_eq!(asked(true, 0, true), 0);
        assert_eq!(asked(true, 1, false), 1);
        assert_eq!(asked(true, 2 * FREIGHT_BYTES + 1, true), 3);
        assert_eq!(asked(false, KEPT_BYTES, true), 0);
        assert_eq!(asked(false, 10 * KEPT_BYTES, false), 0, "on its way to a sink that works");
        assert_eq!(asked(false, 2 * KEPT_BYTES, true), 8);
    }
}
