//! The activity by which couriers deliver.

use std::{sync::Arc, time::Duration};

use durable_spans_workflow::{DELIVER_ACTIVITY, Freight};
use futures::{FutureExt, future::BoxFuture};
use temporalio_common::{ActivityDefinition, data_converters::RawValue, error::ApplicationFailure};
use temporalio_sdk::activities::{
    ActivityContext, ActivityDefinitions, ActivityError, ActivityImplementer, ExecutableActivity,
};
use tokio::sync::Semaphore;

use crate::FanOut;

/// How many couriers a worker serves at once, so that users' slots for local activities stay free.
const AT_WORK: usize = 5;

/// How long one try waits for the sink, where that is not known to be down.
const TRY_WAIT: Duration = Duration::from_secs(3);

/// The activity by which couriers deliver what they carry. The crate `durable-spans` installs it.
///
/// It runs as a local activity of the courier. While the sink is down, or 5 of its kind are at
/// work, it answers at once that the courier shall try again later.
pub struct DeliverActivity {
    deliverer: FanOut,
    at_work: Semaphore,
}

impl DeliverActivity {
    /// The activity that delivers through `deliverer`.
    pub fn new(deliverer: impl Into<FanOut>) -> Self {
        Self { deliverer: deliverer.into(), at_work: Semaphore::new(AT_WORK) }
    }

    /// Whether the sink has confirmed everything.
    async fn deliver(&self, input: RawValue) -> Result<bool, ActivityError> {
        let Ok(_permit) = self.at_work.try_acquire() else { return Ok(false) };
        let freight = Freight::unpack(&input).map_err(ApplicationFailure::non_retryable)?;
        let groups = freight.groups.len();
        let taken = self.deliverer.take_flush(&freight.run_id, freight.groups, TRY_WAIT).await;
        Ok(taken.delivered.len() == groups)
    }
}

impl ActivityImplementer for DeliverActivity {
    fn register_all(self: Arc<Self>, definitions: &mut ActivityDefinitions) {
        definitions.register_activity::<Deliver>(self);
    }
}

struct Deliver;

impl ActivityDefinition for Deliver {
    type Input = RawValue;
    type Output = bool;

    fn name(&self) -> &str {
        DELIVER_ACTIVITY
    }
}

impl ExecutableActivity for Deliver {
    type Implementer = DeliverActivity;
    const REQUIRES_INSTANCE: bool = true;

    fn definition() -> Self {
        Self
    }

    fn execute(
        receiver: Option<Arc<DeliverActivity>>,
        _ctx: ActivityContext,
        input: RawValue,
    ) -> BoxFuture<'static, Result<bool, ActivityError>> {
        async move {
            match receiver {
                Some(activity) => activity.deliver(input).await,
                None => Ok(false),
            }
        }
        .boxed()
    }
}
