//! Instrumenting is test-driven: traces as trees, of activity code and of workflow code that is
//! replayed from a history. Needs no server.
//!
//! `cargo run --example testing`, `cargo test --example testing`
//!
//! `-- --record` makes the history anew, on a real server, and `UPDATE_GOLDEN=1` the golden trace.

#[path = "../support/mod.rs"]
mod support;

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use durable_spans::{
    DurableSpans, MemorySink, SpanType, WorkflowSpans, read_history, span,
    testing::{Trace, assert_golden_trace, assert_trace},
};
use durable_spans_test_server::TemporalServer;
use serde_json::Value;
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{WorkflowContext, WorkflowResult, workflow_replayer::WorkflowReplayerOptions};

const HISTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/testing/history.json");
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/testing/golden.txt");

#[workflow]
#[derive(Default)]
struct Invoice;

#[workflow_methods]
impl Invoice {
    /// Adds up prices in cents, and waits for the customer to have read them.
    #[run]
    async fn run(ctx: &mut WorkflowContext<Self>, prices: Vec<u64>) -> WorkflowResult<u64> {
        let sum = ctx.span("add up").span_type(SpanType::DataManipulation).in_scope(|span| {
            span.output("lines", prices.len());
            for (line, price) in prices.iter().enumerate() {
                ctx.span(format!("line {line}")).input("cents", price).start().end();
            }
            prices.iter().sum::<u64>()
        });
        ctx.span("remind").scope(async { ctx.timer(Duration::from_millis(100)).await }).await;
        Ok(ctx.span("discount").in_scope(|_| if sum > 10_000 { sum - sum / 10 } else { sum }))
    }
}

/// What an activity does.
async fn rate(customer: &str) -> Result<f64, String> {
    let found = span("look up").input("customer", customer).scope(async { customer.len() }).await;
    let judge = span("judge").span_type(SpanType::Evaluation).metric("letters", found as f64);
    judge.try_scope(async { if found > 0 { Ok(0.9) } else { Err("nobody".to_owned()) } }).await
}

/// Client and activity code: run it in a trace of the test's own.
async fn activity_code_makes_the_trace() -> Result<()> {
    let sink = MemorySink::new();
    let rated = DurableSpans::new(sink.clone()).trace("test").scope(rate("")).await;
    let trace = Trace::complete(&sink, Duration::from_secs(5)).await;
    // A line says as much of a span as the test cares for.
    assert_trace!(
        trace,
        r#"
        test
          look up input.customer=""
          judge EVALUATION ERROR metadata.metrics={"letters": 0.0}
        "#
    );
    assert_eq!(trace.span("judge").metadata["error_message"], "nobody");
    assert!(rated.is_err());
    print!("{trace}");
    Ok(())
}

/// Workflow code: replay it on the history of a real run, which is kept beside the test.
async fn workflow_code_makes_the_golden_trace() -> Result<()> {
    let workflows = WorkflowReplayerOptions::new().register_workflow::<Invoice>()?.build();
    let trace = Trace::replayed(read_history(HISTORY)?, workflows).await?;
    assert_trace!(
        trace,
        "
        Invoice AGENT_WORKFLOW SUCCESS
          add up
            line 0 input.cents=4000
            …
          remind
          discount
        "
    );
    // All of it, in a file that is reviewed like code.
    let trace = trace.show("input.cents").show("output.lines");
    assert_golden_trace(GOLDEN, &trace);
    print!("{trace}");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    if std::env::args().any(|argument| argument == "--record") {
        record().await?;
    }
    activity_code_makes_the_trace().await?;
    workflow_code_makes_the_golden_trace().await
}

/// Runs the workflow on a real server and keeps its history. `temporal workflow show --output json`
/// would give one as well.
async fn record() -> Result<()> {
    let spans = DurableSpans::new(MemorySink::new());
    let setup = support::Setup::start(TemporalServer::options(), &spans).await?;
    let mut worker = setup.worker_options();
    worker.register_workflow::<Invoice>()?;
    let run = setup.while_working(worker, async {
        let options = setup.start_options("invoice");
        let prices = vec![4_000, 3_500, 4_500];
        let handle = setup.client.start_workflow(Invoice::run, prices, options).await?;
        handle.get_result(Default::default()).await?;
        Ok(handle.fetch_history(Default::default()).to_json().await?)
    });
    let history: Value = serde_json::from_slice(&run.await?)?;
    setup.server.stop().await;
    let mut text = serde_json::to_string_pretty(&history)?;
    // Workers call themselves by the machine.
    for name in identities(&history) {
        text = text.replace(name, "worker");
    }
    fs::write(HISTORY, text + "\n").context("the history cannot be written")
}

fn identities(value: &Value) -> Vec<&str> {
    match value {
        Value::Object(fields) => {
            let own = fields.get("identity").and_then(Value::as_str);
            let own = own.filter(|name| !name.is_empty());
            own.into_iter().chain(fields.values().flat_map(identities)).collect()
        }
        Value::Array(items) => items.iter().flat_map(identities).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn activity_code_makes_the_trace() -> anyhow::Result<()> {
        super::activity_code_makes_the_trace().await
    }

    #[tokio::test]
    async fn workflow_code_makes_the_golden_trace() -> anyhow::Result<()> {
        super::workflow_code_makes_the_golden_trace().await
    }
}
