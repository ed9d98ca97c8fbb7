//! The flush activity: where the spans of a run leave the workflow.

use std::{sync::Arc, time::Duration};

use durable_spans_workflow::{FLUSH_ACTIVITY, FREIGHT_BYTES, FlushReply, FlushRequest};
use futures::{FutureExt, future::BoxFuture};
use temporalio_common::ActivityDefinition;
use temporalio_sdk::activities::{
    ActivityContext, ActivityDefinitions, ActivityError, ActivityImplementer, ExecutableActivity,
};

use crate::{Deliverer, DropReason, deliverer::Taken};

/// Bytes of JSON that a run which goes on may keep while the sink is down. A courier takes more.
const KEPT_BYTES: usize = 4_000_000;

/// How long the flush at a run's close waits for the sink.
const CLOSING_WAIT: Duration = Duration::from_millis(900);

/// Registers the flush activity. Made by [`Deliverer`]; the crate `durable-spans` installs it.
///
/// It runs as a local activity: mid-run it hands the spans over and answers at once, at the close
/// of a run it waits for the sink, for 0.9 seconds at most.
pub struct FlushActivity {
    deliverer: Deliverer,
}

impl FlushActivity {
    /// The flush activity that delivers through `deliverer`.
    pub fn new(deliverer: Deliverer) -> Self {
        Self { deliverer }
    }

    async fn flush(&self, ctx: ActivityContext, request: FlushRequest) -> FlushReply {
        let run_id = ctx.info().workflow_run_id.as_deref().unwrap_or_default();
        if request.dropped > 0 {
            let (spans, reason) = (request.dropped, DropReason::BufferFull);
            self.deliverer.count_dropped(reason, spans);
            let reason = reason.as_str();
            tracing::warn!(run_id, spans, reason, "spans dropped: the run's buffer is full");
        }
        let wait = if request.closing { CLOSING_WAIT } else { Duration::ZERO };
        let Taken { delivered, undelivered_bytes } =
            self.deliverer.take_flush(run_id, request.groups, wait).await;
        let couriers = match undelivered_bytes {
            0 => 0,
            bytes if request.closing || bytes > KEPT_BYTES => bytes.div_ceil(FREIGHT_BYTES),
            _ => 0,
        };
        if couriers > 0 {
            tracing::warn!(
                workflow_id = ctx.info().workflow_id,
                run_id,
                couriers,
                undelivered_bytes,
                "the sink has not confirmed all spans of this run; couriers take them"
            );
        }
        let couriers = u32::try_from(couriers).unwrap_or(u32::MAX);
        FlushReply { acknowledged: delivered, couriers }
    }
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
                Some(activity) => Ok(activity.flush(ctx, input).await),
                // Nothing is acknowledged, so nothing is lost.
                None => Ok(FlushReply::default()),
            }
        }
        .boxed()
    }
}
