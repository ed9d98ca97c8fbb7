//! The plugin at the work of `bench-peers`: activities one after the other, with the plugin and,
//! for the difference, without it.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, anyhow};
use opentelemetry::trace::TracerProvider;
use temporalio_client::{Client, ClientOptions, Connection, ConnectionOptions, Url};
use temporalio_macros::{activities, workflow, workflow_methods};
use temporalio_sdk::{
    ActivityOptions, Runtime, Worker, WorkerOptions, WorkflowContext, WorkflowResult,
    activities::{ActivityContext, ActivityError},
    opentelemetry::OpenTelemetryPlugin,
    runtime::RuntimeOptions,
};

use crate::{
    export::{self, Processor},
    protocol::{self, Job},
};

#[workflow]
#[derive(Default)]
struct Steps;

#[workflow_methods]
impl Steps {
    #[run(name = "Steps")]
    async fn run(ctx: &mut WorkflowContext<Self>, steps: u32) -> WorkflowResult<()> {
        for step in 0..steps {
            let limit = Duration::from_secs(10);
            let options = ActivityOptions::with_start_to_close_timeout(limit).build();
            ctx.execute_activity(Work::work, step, options).await?;
        }
        Ok(())
    }
}

struct Work;

#[activities]
impl Work {
    #[activity(name = "work")]
    async fn work(self: Arc<Self>, _ctx: ActivityContext, step: u32) -> Result<u32, ActivityError> {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok(step)
    }
}

/// Is a worker until the standard input ends.
pub(crate) async fn work(job: Job) -> Result<()> {
    protocol::answer_on_another_thread();
    let options = ClientOptions::new("default");
    let options = match &job.sink {
        Some(sink) => {
            let provider = export::provider(&format!("{sink}/v1/traces"), Processor::Batch)?;
            let tracer = provider.tracer("otel-peer");
            options.plugin(OpenTelemetryPlugin::builder().tracer(tracer).build()).build()
        }
        None => options.build(),
    };
    let server = ConnectionOptions::new(Url::parse(&job.server)?).build();
    let client = Client::new(Connection::connect(server).await?, options)?;
    let mut options = WorkerOptions::new(&job.queue).build();
    options.register_workflow::<Steps>()?.register_activities(Work);
    let runtime = Runtime::from_current_tokio(RuntimeOptions::default())?;
    let mut worker = Worker::new(&runtime, client, options)
        .map_err(|error| anyhow!("the worker's options are refused: {error}"))?;
    Ok(worker.run().await?)
}
