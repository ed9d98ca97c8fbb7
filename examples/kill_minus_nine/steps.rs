//! The workflow, traced by durable-spans.

use durable_spans::WorkflowSpans;
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{WorkflowContext, WorkflowResult};

use crate::job::{Work, activity_options};

#[workflow]
#[derive(Default)]
pub(crate) struct Steps;

#[workflow_methods]
impl Steps {
    #[run(name = "Steps")]
    pub(crate) async fn run(ctx: &mut WorkflowContext<Self>, steps: u32) -> WorkflowResult<()> {
        for step in 0..steps {
            let work = async {
                ctx.span("before").start().end();
                ctx.execute_activity(Work::work, step, activity_options()).await
            };
            ctx.span(format!("step {step}")).try_scope(work).await?;
        }
        Ok(())
    }
}
