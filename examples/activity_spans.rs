//! Activities as spans: one for the workflow's call, one below it for each attempt.
//!
//! `cargo run --example activity_spans`

mod support;

use std::time::Duration;

use anyhow::{Result, ensure};
use durable_spans::{DurableSpans, MemorySink, SpanStatus, WorkflowSpans, current_span};
use durable_spans_collector::tree;
use durable_spans_test_server::TemporalServer;
use temporalio_common::error::ApplicationFailure;
use temporalio_macros::{activities, workflow, workflow_methods};
use temporalio_sdk::{
    ActivityOptions, WorkflowContext, WorkflowResult,
    activities::{ActivityContext, ActivityError},
};

struct Kitchen;

#[activities]
impl Kitchen {
    /// Finds the oven cold at the first attempt.
    #[activity]
    async fn bake(ctx: ActivityContext, cakes: u32) -> Result<u32, ActivityError> {
        // The span of this attempt. Without effect where the caller is not traced.
        let span = current_span();
        span.input("cakes", cakes);
        span.metadata("oven", "left");
        if ctx.info().attempt == 1 {
            let cold = ApplicationFailure::builder("the oven is at 90 of 180 degrees");
            return Err(cold.type_name("OvenCold".to_owned()).build().into());
        }
        Ok(cakes)
    }
}

#[workflow]
#[derive(Default)]
struct Bakery;

#[workflow_methods]
impl Bakery {
    #[run]
    async fn run(ctx: &mut WorkflowContext<Self>, cakes: u32) -> WorkflowResult<u32> {
        let options = ActivityOptions::start_to_close_timeout(Duration::from_secs(10));
        // The activity hangs under the span that is current where it is called.
        let baked = ctx
            .span("morning shift")
            .try_scope(async { ctx.execute_activity(Kitchen::bake, cakes, options).await });
        Ok(baked.await?)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let sink = MemorySink::new();
    let spans = DurableSpans::new(sink.clone());
    let setup = support::Setup::start(TemporalServer::options(), &spans).await?;
    let mut worker = setup.worker_options();
    worker.register_activities(Kitchen).register_workflow::<Bakery>()?;

    let run = setup.while_working(worker, async {
        let options = setup.start_options("bakery");
        let handle = setup.client.start_workflow(Bakery::run, 12, options).await?;
        Ok(handle.get_result(Default::default()).await?)
    });
    let baked = run.await?;
    setup.server.stop().await;

    // The failed attempt is an ERROR; the call, which had its cakes in the end, is not.
    print!("{}", tree::render(&sink.spans()));
    let failed = sink.spans().iter().filter(|span| span.status == SpanStatus::Error).count();
    println!("{baked} cakes, {failed} failed attempt");
    ensure!(sink.spans().len() == 5 && failed == 1, "these are not the spans of two attempts");
    Ok(())
}
