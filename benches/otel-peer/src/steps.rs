//! The workflow, traced by the plugin and, for the spans within, by OpenTelemetry's own API.

use opentelemetry::{
    Context, global,
    trace::{FutureExt, Span, TraceContextExt, Tracer},
};
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
        let tracer = global::tracer("steps");
        for number in 0..steps {
            let step = Context::current_with_span(tracer.start(format!("step {number}")));
            let work = async {
                tracer.start("before").end();
                ctx.execute_activity(Work::work, number, activity_options()).await
            };
            let done = work.with_context(step.clone()).await;
            step.span().end();
            done?;
        }
        Ok(())
    }
}
