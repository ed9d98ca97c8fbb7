//! The run that has to get through each outage: one step after the other, each with spans of its
//! own and an activity.

use std::time::Duration;

use durable_spans::WorkflowSpans;
use serde::{Deserialize, Serialize};
use temporalio_common::RetryPolicy;
use temporalio_macros::{activities, workflow, workflow_methods};
use temporalio_sdk::{
    ActivityOptions, WorkflowContext, WorkflowResult,
    activities::{ActivityContext, ActivityError},
};
use tokio::sync::watch;

/// Name of the one span that a sink can be told to refuse.
pub(crate) const BAD: &str = "bad";

/// Type of the workflow, and so the name of the run's own span.
pub(crate) const STEPS_WORKFLOW: &str = "Steps";

/// What a run does.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) steps: u32,
    /// Spans that each step records, beside its own and that of its activity.
    pub(crate) notes: u32,
    /// How long the activity of each step takes.
    pub(crate) pause: Duration,
    /// The step that records a span named [`BAD`] as well.
    pub(crate) bad: Option<u32>,
    /// A timer after the last step.
    pub(crate) rest: Duration,
}

impl Plan {
    /// This many steps that take `lasting` in all.
    pub(crate) fn new(steps: u32, lasting: Duration) -> Self {
        Self { steps, notes: 3, pause: lasting / steps, bad: None, rest: Duration::ZERO }
    }

    pub(crate) fn lasting(&self) -> Duration {
        self.pause * self.steps + self.rest
    }
}

#[workflow]
#[derive(Default)]
pub(crate) struct Steps;

#[workflow_methods]
impl Steps {
    #[run(name = STEPS_WORKFLOW)]
    pub(crate) async fn run(ctx: &mut WorkflowContext<Self>, plan: Plan) -> WorkflowResult<()> {
        let mut retry = RetryPolicy::default();
        retry.set_initial_interval(Duration::from_millis(100));
        let timeout = plan.pause + Duration::from_secs(1);
        let options = ActivityOptions::with_start_to_close_timeout(timeout).retry_policy(retry);
        let options = options.build();
        for step in 0..plan.steps {
            let work = async {
                for note in 0..plan.notes {
                    ctx.span("note").input("number", note).start().end();
                }
                if plan.bad == Some(step) {
                    ctx.span(BAD).start().end();
                }
                ctx.execute_activity(Work::wait, plan.pause, options.clone()).await
            };
            ctx.span(format!("step {step}")).try_scope(work).await?;
        }
        if !plan.rest.is_zero() {
            ctx.timer(plan.rest).await;
        }
        Ok(())
    }
}

/// The activity, and how many have been done.
#[derive(Clone, Default)]
pub(crate) struct Work {
    done: watch::Sender<u32>,
}

#[activities]
impl Work {
    #[activity(name = "wait")]
    pub(crate) async fn wait(
        self: std::sync::Arc<Self>,
        _ctx: ActivityContext,
        pause: Duration,
    ) -> Result<(), ActivityError> {
        tokio::time::sleep(pause).await;
        self.done.send_modify(|done| *done += 1);
        Ok(())
    }
}

impl Work {
    /// Waits until that many activities have been done.
    pub(crate) async fn until_done(&self, activities: u32) {
        // The sender is alive, in `self`.
        drop(self.done.subscribe().wait_for(|done| *done >= activities).await);
    }
}
