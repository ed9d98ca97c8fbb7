//! The activity by which couriers deliver.

use std::{sync::Arc, time::Duration};

use durable_spans_workflow::{Acknowledgement, DELIVER_ACTIVITY, Delivery, Freight, Lack, Try};
use futures::{FutureExt, future::BoxFuture};
use temporalio_common::{ActivityDefinition, data_converters::RawValue, error::ApplicationFailure};
use temporalio_sdk::activities::{
    ActivityContext, ActivityDefinitions, ActivityError, ActivityImplementer, ExecutableActivity,
};
use tokio::sync::Semaphore;

use crate::{FanOut, deliverer::Taken};

/// How many couriers a worker serves at once, so that users' slots for local activities stay free.
const AT_WORK: usize = 5;

/// How long one try waits for the sink, where that is not known to be down.
const TRY_WAIT: Duration = Duration::from_secs(3);

/// The activity by which couriers deliver what they carry. The crate `durable-spans` installs it.
///
/// It runs as a local activity of the courier. While the sink is down, or 5 of its kind are at
/// work, it answers at once that the courier shall try again later. A courier that has waited for
/// longer than its patience is told to give up; what it carries is then dropped and counted.
pub struct DeliverActivity {
    deliverer: FanOut,
    patience: Duration,
    at_work: Semaphore,
}

impl DeliverActivity {
    /// The activity that delivers through `deliverer`, and lets couriers try for `patience`.
    pub fn new(deliverer: impl Into<FanOut>, patience: Duration) -> Self {
        Self { deliverer: deliverer.into(), patience, at_work: Semaphore::new(AT_WORK) }
    }

    async fn deliver(&self, input: RawValue) -> Result<Delivery, ActivityError> {
        let Ok(_permit) = self.at_work.try_acquire() else { return Ok(Delivery::Later) };
        let Try { waited_s } = Freight::note(&input).map_err(ApplicationFailure::non_retryable)?;
        let freight = Freight::unpack(&input).map_err(ApplicationFailure::non_retryable)?;
        let groups = freight.groups.clone();
        let taken = self.deliverer.take_flush(&freight.run_id, groups, TRY_WAIT).await;
        if taken.delivered.len() == freight.groups.len() {
            return Ok(Delivery::Done);
        }
        if waited_s < self.patience.as_secs() {
            let (run_id, sinks) = (&*freight.run_id, taken.sinks());
            tracing::debug!(run_id, waited_s, sinks, "a courier tries again later");
            return Ok(Delivery::Later);
        }
        self.deliverer.give_up(&freight.run_id, &freight.groups);
        Ok(Delivery::GiveUpFor(lacks(&freight, &taken)))
    }
}

/// What each sink that lacks something lacks of a freight.
fn lacks(freight: &Freight, taken: &Taken) -> Vec<Lack> {
    let lack = |(sink, lacking): &(String, Vec<Acknowledgement>)| {
        let groups = freight.groups.iter().enumerate();
        let groups = groups.filter(|(_, group)| lacking.contains(&group.acknowledgement()));
        Lack { sink: sink.clone(), groups: groups.map(|(place, _)| place).collect() }
    };
    taken.lacking.iter().map(lack).collect()
}

impl ActivityImplementer for DeliverActivity {
    fn register_all(self: Arc<Self>, definitions: &mut ActivityDefinitions) {
        definitions.register_activity::<Deliver>(self);
    }
}

struct Deliver;

impl ActivityDefinition for Deliver {
    type Input = RawValue;
    type Output = Delivery;

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
    ) -> BoxFuture<'static, Result<Delivery, ActivityError>> {
        async move {
            match receiver {
                Some(activity) => activity.deliver(input).await,
                None => Ok(Delivery::Later),
            }
        }
        .boxed()
    }
}
