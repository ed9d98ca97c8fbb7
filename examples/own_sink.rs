//! A sink of your own, beside others: each gets the spans in its own time and form.
//!
//! `cargo run --example own_sink`

mod support;

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use durable_spans::{
    DurableSpans, FileSink, MemorySink, SinkError, SpanBatch, SpanError, SpanSink, SpanStatus,
    WorkflowSpans,
};
use durable_spans_test_server::TemporalServer;
use futures::{FutureExt, future::BoxFuture};
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{WorkflowContext, WorkflowResult};

/// Prints one line per span. A sink says no more than this: retries, batches and outages are not its
/// business, and what it does not say of itself is the careful choice: each span once, at its end.
struct Print;

impl SpanSink for Print {
    fn upsert_batch<'a>(&'a self, batch: &'a SpanBatch) -> BoxFuture<'a, Result<(), SinkError>> {
        async move {
            for span in batch.spans() {
                println!("{:>8} {}", span.status.as_str(), span.name);
            }
            Ok(())
        }
        .boxed()
    }
}

#[workflow]
#[derive(Default)]
struct Backup;

#[workflow_methods]
impl Backup {
    #[run]
    async fn run(ctx: &mut WorkflowContext<Self>, tables: Vec<String>) -> WorkflowResult<usize> {
        let mut saved = 0;
        for table in tables {
            let span = ctx.span(format!("save {table}")).input("table", &table).start();
            if table.starts_with("tmp") {
                span.fail(SpanError::new("Skipped", "temporary tables are not saved"));
            } else {
                saved += 1;
                span.end();
            }
        }
        Ok(saved)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("spans.jsonl");
    let failures = MemorySink::new();
    let spans = DurableSpans::new(Print)
        .also(FileSink::open(&path)?.map(|span| span.input.clear()))
        .also(failures.clone().filter(|span| span.status == SpanStatus::Error));

    let setup = support::Setup::start(TemporalServer::options(), &spans).await?;
    let mut worker = setup.worker_options();
    worker.register_workflow::<Backup>()?;
    let saved = setup.while_working(worker, async {
        let options = setup.start_options("backup");
        let tables = ["users", "tmp_users", "orders"].map(str::to_owned).into();
        let handle = setup.client.start_workflow(Backup::run, tables, options).await?;
        Ok(handle.get_result(Default::default()).await?)
    });
    let saved = saved.await?;
    setup.server.stop().await;

    let lines = std::fs::read_to_string(&path)?;
    println!("saved {saved}, {} lines in the file, {failures:?}", lines.lines().count());
    let delivered: BTreeMap<_, _> = spans.statistics_by_sink().into_iter().collect();
    for (sink, statistics) in &delivered {
        println!("{sink}: {statistics}");
    }
    ensure!(lines.lines().count() == 4 && !lines.contains("\"table\""), "the file is not right");
    ensure!(failures.spans().len() == 1, "not one failure");
    Ok(())
}
