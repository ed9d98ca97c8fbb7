//! Logs and traces together: each event with the ids of its span, nothing twice at replay, and spans of
//! `tracing` in activities as spans of the trace.
//!
//! `cargo run --example logs`

mod support;

use std::time::Duration;

use anyhow::{Result, ensure};
use durable_spans::{DurableSpans, MemorySink, WorkflowSpans, logs};
use durable_spans_collector::tree;
use durable_spans_test_server::TemporalServer;
use temporalio_macros::{activities, workflow, workflow_methods};
use temporalio_sdk::{
    ActivityOptions, WorkflowContext, WorkflowResult,
    activities::{ActivityContext, ActivityError},
};
use tracing::{Level, info, instrument};
use tracing_subscriber::{
    EnvFilter,
    filter::{FilterExt, Targets},
    prelude::*,
};

struct Observatory;

/// A function that knows nothing of Temporal.
#[instrument]
async fn focus(millimetres: u32) {
    info!("the image is sharp");
}

#[activities]
impl Observatory {
    #[activity]
    async fn observe(_ctx: ActivityContext, star: String) -> Result<u32, ActivityError> {
        focus(1_200).await;
        info!(star, "observed");
        Ok(7)
    }
}

#[workflow]
#[derive(Default)]
struct Night;

#[workflow_methods]
impl Night {
    #[run]
    async fn run(ctx: &mut WorkflowContext<Self>, star: String) -> WorkflowResult<u32> {
        // Without a cache, this code runs again for each workflow task, and yet logs once.
        info!("the night begins");
        let options = ActivityOptions::start_to_close_timeout(Duration::from_secs(10));
        let photos = ctx
            .span("first watch")
            .try_scope(async {
                info!("the dome is open");
                ctx.execute_activity(Observatory::observe, star, options).await
            })
            .await?;
        info!(photos, "the night ends");
        Ok(photos)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    // Both filters name what is wanted: this program's own events and spans, and for the log also our
    // spans, which carry the ids.
    let wanted = EnvFilter::new("logs=info,durable_spans=error");
    let mine = Targets::new().with_target("logs", Level::INFO);
    let text = tracing_subscriber::fmt::layer().without_time().with_target(false);
    tracing_subscriber::registry()
        .with(text.with_filter(wanted.and(logs::not_replayed())))
        .with(logs::TracingSpans::new().with_filter(mine))
        .init();

    let sink = MemorySink::new();
    let spans = DurableSpans::new(sink.clone());
    let setup = support::Setup::start(TemporalServer::options(), &spans).await?;
    let mut worker = setup.worker_options();
    worker.max_cached_workflows = 0;
    worker.register_activities(Observatory).register_workflow::<Night>()?;
    let run = setup.while_working(worker, async {
        let options = setup.start_options("night");
        let handle = setup.client.start_workflow(Night::run, "Vega".to_owned(), options).await?;
        Ok(handle.get_result(Default::default()).await?)
    });
    run.await?;
    setup.server.stop().await;

    print!("{}", tree::render(&sink.spans()));
    ensure!(sink.spans().iter().any(|span| span.name == "focus"), "focus has no span");
    Ok(())
}
