//! The collector's database is lost, and comes back from the histories that Temporal keeps.
//!
//! `cargo run --example backfill` makes a dozen runs of every kind, reads what the collector has of
//! them, deletes its database, backfills it, and compares row by row. It ends with 1 if a row is
//! missing, differs, or is one too many.

mod compare;
#[path = "../support/mod.rs"]
mod support;
mod workload;

use std::{io, path::Path, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Parser;
use durable_spans::{Backfill, DurableSpans, SgpOptions, SgpSink};
use durable_spans_collector::{Collector, RunningCollector};
use durable_spans_test_server::TemporalServer;
use futures::TryStreamExt;
use temporalio_client::WorkflowListOptions;
use temporalio_sdk::workflow_replayer::WorkflowReplayerOptions;

use crate::{
    compare::{Comparison, Rows},
    support::Setup,
    workload::{Delivery, Desk, Order, RUNS, Shop},
};

/// More traces than the workload makes.
const MOST_TRACES: usize = 1_000;

/// How long visibility may lag behind.
const LONGEST_LAG: Duration = Duration::from_secs(30);

/// Deletes a collector's database and brings it back from Temporal's histories.
#[derive(Parser)]
#[command(name = "backfill")]
struct Options {
    /// Print one JSON object on stdout, everything else on stderr
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let comparison = match lose_and_rebuild().await {
        Ok(comparison) => comparison,
        Err(error) => {
            eprintln!("backfill failed: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let written = if options.json {
        println!("{}", serde_json::json!(comparison));
        comparison.write_text(&mut io::stderr())
    } else {
        comparison.write_text(&mut io::stdout())
    };
    match written.is_ok() && comparison.is_whole() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

async fn lose_and_rebuild() -> Result<Comparison> {
    let folder = tempfile::tempdir()?;
    let database = folder.path().join("spans.sqlite");
    eprintln!("starting a collector and a Temporal server");
    let (collector, serving) = serve(&database).await?;
    let spans = DurableSpans::new(SgpSink::new(SgpOptions::new(serving.url()))?);
    let setup = Setup::start(TemporalServer::options(), &spans).await?;

    eprintln!("making {RUNS} runs, one of which takes 4 seconds to time out");
    let mut worker = setup.worker_options();
    worker.register_activities(Shop);
    worker.register_workflow::<Order>()?.register_workflow::<Delivery>()?;
    worker.register_workflow::<Desk>()?;
    let query = setup.while_working(worker, workload::run(&setup)).await?;
    until_listed(&setup, &query).await?;
    let before = rows(collector).await?;

    eprintln!("deleting the collector's database with {} spans", before.len());
    serving.shutdown().await;
    for file in std::fs::read_dir(folder.path())? {
        std::fs::remove_file(file?.path())?;
    }
    let (collector, serving) = serve(&database).await?;

    eprintln!("backfilling");
    let code = WorkflowReplayerOptions::new()
        .register_workflow::<Order>()?
        .register_workflow::<Delivery>()?
        .register_workflow::<Desk>()?
        .build();
    let report = Backfill::new(SgpSink::new(SgpOptions::new(serving.url()))?)
        .workflows(code)
        .installation(&spans)
        .query(&setup.client, &query)
        .await?;
    eprintln!("{report}");
    if let Some(failed) = report.failed.first() {
        bail!("{} {}: {}", failed.workflow_id, failed.run_id, failed.error);
    }
    let after = rows(collector).await?;
    setup.server.stop().await;
    serving.shutdown().await;
    Ok(Comparison::of(report.runs, &before, &after))
}

async fn serve(database: &Path) -> Result<(Collector, RunningCollector)> {
    let collector = Collector::open(database)?;
    let serving = collector.serve(([127, 0, 0, 1], 0)).await?;
    Ok((collector, serving))
}

async fn rows(collector: Collector) -> Result<Rows> {
    let read = tokio::task::spawn_blocking(move || {
        let mut rows = Rows::new();
        for trace in collector.store().traces(MOST_TRACES)? {
            for span in collector.store().spans(&trace.trace_id)? {
                rows.insert((span.trace_id.clone(), span.id.clone()), span);
            }
        }
        Ok(rows)
    });
    read.await?
}

/// Waits until Temporal's visibility knows that every run has ended.
async fn until_listed(setup: &Setup, query: &str) -> Result<()> {
    let listed = async {
        loop {
            let runs = setup.client.list_workflows(query, WorkflowListOptions::default());
            let runs: Vec<_> = runs.try_collect().await?;
            let ended = runs.iter().filter(|run| run.close_time().is_some()).count();
            if ended == RUNS {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(LONGEST_LAG, listed).await.context("Temporal does not list the runs")?
}
