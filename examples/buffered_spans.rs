//! Spans in workflow code: kept in workflow state, delivered when the run closes.
//!
//! `cargo run --example buffered_spans`

mod support;

use anyhow::{Result, ensure};
use durable_spans::{DurableSpans, MemorySink, SpanType, WorkflowSpans};
use durable_spans_collector::tree;
use durable_spans_test_server::TemporalServer;
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{WorkflowContext, WorkflowResult};

#[workflow]
#[derive(Default)]
struct Invoice;

#[workflow_methods]
impl Invoice {
    /// Adds up prices in cents. It waits for nothing, so replay repeats it in no time, with the
    /// same spans under the same ids.
    #[run]
    async fn run(ctx: &mut WorkflowContext<Self>, prices: Vec<u64>) -> WorkflowResult<u64> {
        // `in_scope` runs a closure inside a span, `scope` and `try_scope` a future.
        let sum = ctx.span("add up").span_type(SpanType::DataManipulation).in_scope(|span| {
            span.output("lines", prices.len());
            for (line, price) in prices.iter().enumerate() {
                // Under "add up", which is the current span here.
                ctx.span(format!("line {line}")).input("cents", price).start().end();
            }
            prices.iter().sum::<u64>()
        });
        // A guard, for what does not fit into a block. It ends when it is dropped.
        let discount = ctx.span("discount").input("sum", sum).start();
        let total = if sum > 10_000 { sum - sum / 10 } else { sum };
        discount.output("total", total);
        drop(discount);
        Ok(total)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let sink = MemorySink::new();
    let spans = DurableSpans::new(sink.clone());
    let setup = support::Setup::start(TemporalServer::options(), &spans).await?;
    let mut worker = setup.worker_options();
    worker.register_workflow::<Invoice>()?;

    let total = setup.while_working(worker, async {
        // Nothing has reached the sink while the workflow runs: its spans are in its state.
        let options = setup.start_options("invoice");
        let prices = vec![4_000, 3_500, 4_500];
        let handle = setup.client.start_workflow(Invoice::run, prices, options).await?;
        Ok(handle.get_result(Default::default()).await?)
    });
    let total = total.await?;
    setup.server.stop().await;

    // One flush, one batch: all that tracing added to the run's history is one event.
    print!("{}", tree::render(&sink.spans()));
    println!("total {total}, spans per batch {:?}", sink.batches());
    ensure!(sink.spans().len() == 6, "a span is missing");
    Ok(())
}
