//! An agent, traced with typed spans: its tools, its calls of a model with tokens and cost, its
//! guardrail, and how good the answer was. The same words in client, workflow and activity code.
//!
//! `cargo run --example agent`

mod support;

use std::time::Duration;

use anyhow::{Result, ensure};
use durable_spans::{
    DurableSpans, MemorySink, TraceContext, WorkflowSpans, current_span,
    data::{Agent, Function, Generation, Guardrail, Usage},
    span,
};
use durable_spans_collector::tree;
use durable_spans_test_server::TemporalServer;
use serde_json::json;
use temporalio_macros::{activities, workflow, workflow_methods};
use temporalio_sdk::{
    ActivityOptions, WorkflowContext, WorkflowResult,
    activities::{ActivityContext, ActivityError},
};

struct Model;

#[activities]
impl Model {
    /// Would call a model.
    #[activity]
    async fn complete(_ctx: ActivityContext, question: String) -> Result<String, ActivityError> {
        let messages = json!([{"role": "user", "content": question}]);
        let call = Generation::new("gpt-4o").messages(messages).config("temperature", 0.2);
        let answer = span("complete").data(call).scope(async {
            current_span().event("first token", json!({"after_ms": 180}));
            let answer = "It ships on Monday.";
            // What is known at the end only.
            let told = json!([{"role": "assistant", "content": answer}]);
            current_span().data(Generation::default().output(told));
            current_span().usage(Usage::new(120, 9).cost_usd(0.0004));
            answer.to_owned()
        });
        Ok(answer.await)
    }

    #[activity]
    async fn look_up(_ctx: ActivityContext, order: u32) -> Result<String, ActivityError> {
        let call = Function::new("orders.find").input(json!({"order": order}));
        let found = span("orders.find").data(call).in_scope(|span| {
            span.data(Function::default().output(json!({"state": "packed"})));
            "packed".to_owned()
        });
        Ok(found)
    }
}

#[workflow]
#[derive(Default)]
struct Desk;

#[workflow_methods]
impl Desk {
    #[run]
    async fn run(ctx: &mut WorkflowContext<Self>, question: String) -> WorkflowResult<String> {
        let options = || ActivityOptions::start_to_close_timeout(Duration::from_secs(10));
        let agent = Agent::new("support").tools(["orders.find"]);
        let answer = ctx.span("support").data(agent).tag("shipping").try_scope(async {
            let state = ctx.execute_activity(Model::look_up, 17u32, options()).await?;
            let prompt = format!("{question} The order is {state}.");
            let answer = ctx.execute_activity(Model::complete, prompt, options()).await?;
            let polite = ctx.span("polite?").data(Guardrail::new("polite").triggered(false));
            polite.in_scope(|span| span.metric("politeness", 0.9));
            ctx.current_span().metric("quality", 4.5);
            WorkflowResult::Ok(answer)
        });
        answer.await
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let sink = MemorySink::new();
    let spans = DurableSpans::new(sink.clone());
    let setup = support::Setup::start(TemporalServer::options(), &spans).await?;
    let mut worker = setup.worker_options();
    worker.register_activities(Model).register_workflow::<Desk>()?;

    let run = setup.while_working(worker, async {
        // A trace with an id and a group of its own; every span of it knows the tenant.
        let context = TraceContext::new("ticket-4711".parse()?)
            .group_id("customer-17")?
            .shared("tenant", "acme")?;
        let ticket = spans.trace_in(context, "ticket").try_scope(async {
            let options = setup.start_options("support");
            let question = "Where is my order?".to_owned();
            let handle = setup.client.start_workflow(Desk::run, question, options).await?;
            anyhow::Ok(handle.get_result(Default::default()).await?)
        });
        ticket.await
    });
    let answer = run.await?;
    spans.flush(Duration::from_secs(5)).await;
    setup.server.stop().await;

    let recorded = sink.spans();
    print!("{}", tree::render(&recorded));
    let tokens: u64 = recorded.iter().filter_map(|span| Usage::of(span).total_tokens()).sum();
    println!("{answer} ({tokens} tokens)");
    ensure!(recorded.len() == 10, "{} spans instead of 10", recorded.len());
    ensure!(recorded.iter().all(|span| span.metadata["tenant"] == "acme"), "a span without tenant");
    ensure!(tokens == 129, "{tokens} tokens instead of 129");
    Ok(())
}
