//! One trace across client, parent and child workflows, without passing anything by hand.
//!
//! `cargo run --example child_propagation`

mod support;

use anyhow::{Result, ensure};
use durable_spans::{DurableSpans, MemorySink, TraceContext, TraceId, WorkflowSpans, in_trace};
use durable_spans_collector::tree;
use durable_spans_test_server::TemporalServer;
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{
    ChildWorkflowOptions, ContinueAsNewOptions, WorkflowContext, WorkflowResult,
    workflows::join_all,
};

#[workflow]
#[derive(Default)]
struct Parcel;

#[workflow_methods]
impl Parcel {
    #[run]
    async fn run(ctx: &mut WorkflowContext<Self>, city: String) -> WorkflowResult<()> {
        ctx.span("label").input("city", city).start().end();
        Ok(())
    }
}

#[workflow]
#[derive(Default)]
struct Shipment;

#[workflow_methods]
impl Shipment {
    /// Sends a parcel to each city of the first round, then goes on with the next in a new run.
    #[run]
    async fn run(
        ctx: &mut WorkflowContext<Self>,
        mut rounds: Vec<Vec<String>>,
    ) -> WorkflowResult<()> {
        let cities = if rounds.is_empty() { Vec::new() } else { rounds.remove(0) };
        let ctx = &*ctx;
        let parcels = cities.into_iter().map(async |city| {
            // Branches that run side by side keep apart what is current in each.
            ctx.span(format!("to {city}"))
                .try_scope(async {
                    let options = ChildWorkflowOptions::default();
                    let parcel = ctx.start_child_workflow(Parcel::run, city, options).await?;
                    WorkflowResult::Ok(parcel.result().await?)
                })
                .await
        });
        join_all(parcels).await.into_iter().collect::<WorkflowResult<()>>()?;
        if !rounds.is_empty() {
            // The next run hangs under the first run of the chain.
            ctx.continue_as_new(rounds, ContinueAsNewOptions::default())?;
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let sink = MemorySink::new();
    let spans = DurableSpans::new(sink.clone());
    let setup = support::Setup::start(TemporalServer::options(), &spans).await?;
    let mut worker = setup.worker_options();
    worker.register_workflow::<Shipment>()?.register_workflow::<Parcel>()?;

    // The caller names the trace. Without this, each start makes a trace of its own.
    let trace: TraceId = "order-17".parse()?;
    let run = setup.while_working(worker, async {
        let rounds = [vec!["Bern", "Oslo"], vec!["Lima"]];
        let rounds = rounds.map(|round| round.into_iter().map(str::to_owned).collect()).to_vec();
        let options = setup.start_options("shipment");
        let start = setup.client.start_workflow(Shipment::run, rounds, options);
        let handle = in_trace(TraceContext::new(trace.clone()), start).await?;
        Ok(handle.get_result(Default::default()).await?)
    });
    run.await?;
    setup.server.stop().await;

    print!("{}", tree::render(&sink.trace(&trace)));
    ensure!(sink.trace(&trace).len() == sink.spans().len(), "a span is in a trace of its own");
    Ok(())
}
