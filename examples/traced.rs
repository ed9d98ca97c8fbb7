//! Functions as spans: `#[traced]` in client, workflow and activity code.
//!
//! `cargo run --example traced`

mod support;

use std::time::Duration;

use anyhow::{Result, ensure};
use durable_spans::{DurableSpans, MemorySink, traced};
use durable_spans_collector::tree;
use durable_spans_test_server::TemporalServer;
use temporalio_macros::{activities, workflow, workflow_methods};
use temporalio_sdk::{
    ActivityOptions, WorkflowContext, WorkflowResult,
    activities::{ActivityContext, ActivityError},
};

struct Post;

#[activities]
impl Post {
    /// An activity is a span already, to which `#[traced]` adds the arguments.
    #[traced(redact(pin))]
    #[activity]
    async fn send(_ctx: ActivityContext, letter: String, pin: u32) -> Result<u32, ActivityError> {
        let _ = pin;
        Ok(stamps(&letter))
    }
}

/// Called by an activity: a span below its attempt, with its input and output.
#[traced(output)]
fn stamps(letter: &str) -> u32 {
    1 + u32::from(letter.len() > 20)
}

#[workflow]
#[derive(Default)]
struct Reply;

#[workflow_methods]
impl Reply {
    #[run]
    async fn run(ctx: &mut WorkflowContext<Self>, to: String) -> WorkflowResult<u32> {
        let letter = write(ctx, &to);
        mail(ctx, letter).await
    }
}

/// Workflow code: the context records the span, and is not among its inputs.
#[traced(span_type = TextOutput)]
fn write<W>(ctx: &WorkflowContext<W>, to: &str) -> String {
    let _ = ctx;
    format!("Dear {to}, thank you")
}

/// An `Err` would end the span with ERROR.
#[traced(name = "mail it", skip(letter))]
async fn mail<W>(ctx: &mut WorkflowContext<W>, letter: String) -> WorkflowResult<u32> {
    let options = ActivityOptions::start_to_close_timeout(Duration::from_secs(10));
    Ok(ctx.execute_activity(Post::send, (letter, 1234), options).await?)
}

/// Client code.
#[traced(skip(setup))]
async fn answer(setup: &support::Setup, to: &str) -> Result<u32> {
    let options = setup.start_options("reply");
    let handle = setup.client.start_workflow(Reply::run, to.to_owned(), options).await?;
    Ok(handle.get_result(Default::default()).await?)
}

#[tokio::main]
async fn main() -> Result<()> {
    let sink = MemorySink::new();
    let spans = DurableSpans::new(sink.clone());
    let setup = support::Setup::start(TemporalServer::options(), &spans).await?;
    let mut worker = setup.worker_options();
    worker.register_activities(Post).register_workflow::<Reply>()?;

    let job = spans.trace("morning").scope(answer(&setup, "Ada"));
    let stamps = setup.while_working(worker, job).await?;
    setup.server.stop().await;

    print!("{}", tree::render(&sink.spans()));
    for span in sink.spans().iter().filter(|span| !span.input.is_empty()) {
        println!("{}: {}", span.name, serde_json::to_string(&span.input)?);
    }
    ensure!(stamps == 1 && sink.spans().len() == 8, "these are not the spans of one letter");
    Ok(())
}
