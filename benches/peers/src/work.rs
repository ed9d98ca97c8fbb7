//! Our side: the workflows, and the processes that run them with and without tracing.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, anyhow};
use durable_spans::{DurableSpans, SgpOptions, SgpSink, SpanType, WorkflowSpans};
use temporalio_client::{Client, ClientOptions, Connection, ConnectionOptions, Url};
use temporalio_macros::{activities, workflow, workflow_methods};
use temporalio_sdk::{
    ActivityOptions, ContinueAsNewOptions, Runtime, Worker, WorkerOptions, WorkflowContext,
    WorkflowResult,
    activities::{ActivityContext, ActivityError},
    runtime::RuntimeOptions,
};

use crate::{
    protocol::{self, Job},
    sample,
};

/// How long each activity takes.
const PAUSE: Duration = Duration::from_millis(100);

/// How long an activity may take.
const LIMIT: Duration = Duration::from_secs(10);

/// How many spans a long run records between two operations.
const SPANS_PER_ROUND: u32 = 1_000;

/// Records so many spans, and does nothing else.
#[workflow]
#[derive(Default)]
pub(crate) struct Spans;

#[workflow_methods]
impl Spans {
    #[run(name = "Spans")]
    pub(crate) async fn run(ctx: &mut WorkflowContext<Self>, spans: u32) -> WorkflowResult<()> {
        record(ctx, spans);
        Ok(())
    }
}

fn record<W>(ctx: &WorkflowContext<W>, spans: u32) {
    for number in 0..spans {
        let span = ctx.span(sample::NAME).span_type(SpanType::Custom);
        span.input(sample::FIELD, sample::text(number)).start().end();
    }
}

/// Records so many spans, with an activity after each thousand: the server's timers would take a second.
#[workflow]
#[derive(Default)]
pub(crate) struct Rounds;

#[workflow_methods]
impl Rounds {
    #[run(name = "Rounds")]
    pub(crate) async fn run(ctx: &mut WorkflowContext<Self>, spans: u32) -> WorkflowResult<()> {
        for _ in 0..spans / SPANS_PER_ROUND {
            record(ctx, SPANS_PER_ROUND);
            let options = ActivityOptions::with_start_to_close_timeout(LIMIT).build();
            ctx.execute_activity(Work::tick, (), options).await?;
        }
        Ok(())
    }
}

/// Executes so many activities, one after the other.
#[workflow]
#[derive(Default)]
pub(crate) struct Steps;

#[workflow_methods]
impl Steps {
    #[run(name = "Steps")]
    pub(crate) async fn run(ctx: &mut WorkflowContext<Self>, steps: u32) -> WorkflowResult<()> {
        for step in 0..steps {
            let options = ActivityOptions::with_start_to_close_timeout(LIMIT).build();
            ctx.execute_activity(Work::work, step, options).await?;
        }
        Ok(())
    }
}

/// A chain of so many runs, with some spans in each.
#[workflow]
#[derive(Default)]
pub(crate) struct Generations;

#[workflow_methods]
impl Generations {
    #[run(name = "Generations")]
    pub(crate) async fn run(
        ctx: &mut WorkflowContext<Self>,
        generations: u32,
    ) -> WorkflowResult<()> {
        record(ctx, 10);
        match generations {
            0 | 1 => Ok(()),
            _ => match ctx.continue_as_new(generations - 1, ContinueAsNewOptions::default())? {},
        }
    }
}

struct Work;

#[activities]
impl Work {
    #[activity(name = "work")]
    async fn work(self: Arc<Self>, _ctx: ActivityContext, step: u32) -> Result<u32, ActivityError> {
        tokio::time::sleep(PAUSE).await;
        Ok(step)
    }

    #[activity(name = "tick")]
    async fn tick(self: Arc<Self>, _ctx: ActivityContext, _: ()) -> Result<(), ActivityError> {
        Ok(())
    }
}

/// Is a worker until the standard input ends.
pub(crate) async fn work(job: Job) -> Result<()> {
    protocol::answer_on_another_thread();
    let mut options = WorkerOptions::new(&job.queue).build();
    options.register_workflow::<Spans>()?.register_workflow::<Steps>()?;
    options.register_workflow::<Generations>()?.register_workflow::<Rounds>()?;
    options.register_activities(Work);
    let mut client_options = ClientOptions::new("default").build();
    if let Some(sink) = &job.sink {
        let spans = DurableSpans::new(SgpSink::new(SgpOptions::new(sink))?);
        spans.install_client(&mut client_options);
        spans.install(&mut options)?;
    }
    let server = ConnectionOptions::new(Url::parse(&job.server)?).build();
    let client = Client::new(Connection::connect(server).await?, client_options)?;
    let runtime = Runtime::from_current_tokio(RuntimeOptions::default())?;
    let mut worker = Worker::new(&runtime, client, options)
        .map_err(|error| anyhow!("the worker's options are refused: {error}"))?;
    Ok(worker.run().await?)
}
