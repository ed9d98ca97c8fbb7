//! `kill -9`, side by side: the spans of the same runs, traced by durable-spans and by the
//! OpenTelemetry plugin of Temporal's own Rust SDK, while their workers are killed.
//!
//! `cargo run --example kill_minus_nine` starts the same runs on a real Temporal server for each
//! side, kills each side's worker process with SIGKILL at the same random moments, starts it again,
//! and compares what the server's histories say with what each side's receiver got. Exit code 1
//! says that durable-spans has lost or doubled a span, or left one open.
//!
//! Read `job.rs` for what both sides share, `steps.rs` and `benches/otel-peer/src/steps.rs` for the
//! workflow as each traces it, and `counts.rs` for how the spans are counted.

mod counts;
mod history;
mod hunt;
mod job;
mod otel;
mod ours;
mod receiver;
mod report;
mod steps;

use std::{io, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::Parser;
use durable_spans_collector::Collector;
use durable_spans_test_server::TemporalServer;
use uuid::Uuid;

use crate::{
    counts::Counts,
    job::{Job, PAUSE},
    otel::{Peer, Processor},
    ours::Found,
    receiver::Receiver,
    report::Report,
};

/// Kills workers and counts spans: durable-spans beside the Temporal SDK's OpenTelemetry plugin.
///
/// A Temporal server is found or started as the README says. The first time, cargo builds the
/// OpenTelemetry side as well, which takes minutes.
#[derive(Parser)]
#[command(name = "kill_minus_nine")]
struct Options {
    /// Decides the moments of the kills
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Runs of the workflow on each side, all at the same time
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    runs: u64,
    /// Steps of each run, one after the other
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    steps: u32,
    /// How often each side's worker is killed
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=100))]
    kills: u64,
    /// Print one JSON object on stdout, everything else on stderr
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run()));
    result.unwrap_or_else(|error| {
        eprintln!("kill_minus_nine failed: {error:#}");
        ExitCode::FAILURE
    })
}

async fn run() -> Result<ExitCode> {
    if let Some(job) = ours::job_of_this_process()? {
        ours::be_worker(&job).await?;
    }
    let options = Options::parse();
    eprintln!("Building the OpenTelemetry side, which takes minutes the first time ...");
    let peer = Peer::build().await?;
    let server = TemporalServer::start().await?;
    eprintln!("Running, and killing ...");
    let (ours, otel, otel_batch) = tokio::try_join!(
        async { play_ours(&options, server.address()).await.context("durable-spans") },
        async { play_otel(&options, server.address(), &peer, Processor::Simple).await },
        async { play_otel(&options, server.address(), &peer, Processor::Batch).await },
    )?;
    server.stop().await;

    let Options { seed, runs, steps, kills, json } = options;
    let Found { counts: ours, attempts } = ours;
    let (runs, kills) = (runs as usize, kills as usize);
    let report = Report { seed, runs, steps, kills, ours, otel, otel_batch, attempts };
    if json {
        report.write_text(&mut io::stderr())?;
        report.write_json(&mut io::stdout())?;
    } else {
        report.write_text(&mut io::stdout())?;
    }
    Ok(if ours.are_right() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn play_ours(options: &Options, server: &str) -> Result<Found> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let collector = Collector::open(folder.path().join("spans.sqlite"))?;
    let serving = collector.serve(([127, 0, 0, 1], 0)).await?;
    let job = options.job(server, serving.url());
    let client = ours::start_runs(&job).await?;
    let _last = hunt::hunt(|| ours::command(&job), &options.moments()).await?;
    let runs = ours::complete(&job, &client, options.limit()).await?;
    let found = ours::account(&job, runs, collector.store()).await;
    serving.shutdown().await;
    found
}

async fn play_otel(
    options: &Options,
    server: &str,
    peer: &Peer,
    processor: Processor,
) -> Result<Counts> {
    let receiver = Receiver::start().await?;
    let job = options.job(server, receiver.url());
    let counts = peer.play(&job, processor, &receiver, &options.moments(), options.limit()).await;
    counts.context("the OpenTelemetry side")
}

impl Options {
    fn job(&self, server: &str, receiver: String) -> Job {
        let queue = format!("kill-{}", Uuid::new_v4());
        let runs = self.runs as usize;
        // The SDK's default.
        let cache = 1_000;
        Job { server: server.to_owned(), receiver, queue, runs, steps: self.steps, cache }
    }

    fn moments(&self) -> Vec<Duration> {
        hunt::moments(self.seed, self.kills as usize, self.steps)
    }

    /// How long the runs may take: as long as one after the other would.
    fn limit(&self) -> Duration {
        Duration::from_secs(60) + PAUSE * self.steps * self.runs as u32
    }
}
