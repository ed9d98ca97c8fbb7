//! Workers killed with SIGKILL at random moments: of the spans that workflows record, none is lost,
//! none comes twice, none stays open. Attempts of activities that died with them are named as gaps.
//!
//! This target is its own harness: the test runs its own executable again as the processes that it
//! kills. `KILL_SEED` sets the moments (default 1), and `KILL_SEEDS` how many seeds from that one on
//! are played (default 1); a failure prints its seed.

#[path = "../examples/kill_minus_nine/counts.rs"]
mod counts;
#[path = "../examples/kill_minus_nine/history.rs"]
mod history;
#[path = "../examples/kill_minus_nine/hunt.rs"]
mod hunt;
#[path = "../examples/kill_minus_nine/job.rs"]
mod job;
#[path = "../examples/kill_minus_nine/ours.rs"]
mod ours;
#[path = "../examples/kill_minus_nine/steps.rs"]
mod steps;

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use durable_spans_collector::Collector;
use durable_spans_test_server::TemporalServer;
use tokio::process::Command;

use crate::{
    hunt::Prey,
    job::Job,
    ours::{Attempts, Found},
};

const RUNS: usize = 12;
const STEPS: u32 = 20;
const KILLS: usize = 3;
/// For all that one seed plays at the same time.
const LIMIT: Duration = Duration::from_secs(150);

/// Tells the executable to be the collector with its database in this file, at this address.
const DATABASE: &str = "KILL_MINUS_NINE_DATABASE";
const ADDRESS: &str = "KILL_MINUS_NINE_ADDRESS";

fn main() -> Result<()> {
    // What cargo passes on to every test target means nothing here, but for the listing.
    if std::env::args().any(|argument| argument == "--list") {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        if let Some(job) = ours::job_of_this_process()? {
            return ours::be_worker(&job).await;
        }
        if let Ok(database) = std::env::var(DATABASE) {
            return be_collector(database.into()).await;
        }
        let first = number("KILL_SEED")?;
        for seed in first..first + number("KILL_SEEDS")? {
            tokio::time::timeout(LIMIT, test(seed))
                .await
                .context("the runs take too long")
                .flatten()
                .with_context(|| format!("KILL_SEED={seed}"))?;
        }
        Ok(())
    })
}

fn number(variable: &str) -> Result<u64> {
    let Ok(text) = std::env::var(variable) else { return Ok(1) };
    text.parse().with_context(|| format!("{variable} must be a number"))
}

/// Plays everything at the same time, each with its own moments.
async fn test(seed: u64) -> Result<()> {
    let server = TemporalServer::start().await?;
    let workers_killed = async |cache: usize, kind: u64| {
        let found = workers_killed(server.address(), cache, seed * 4 + kind).await;
        found.with_context(|| format!("cache of {cache}"))
    };
    let everything_killed = async {
        everything_killed(seed * 4 + 3).await.context("worker, collector and server killed")
    };
    let found = tokio::try_join!(
        workers_killed(1_000, 0),
        workers_killed(1, 1),
        workers_killed(0, 2),
        everything_killed
    )?;
    server.stop().await;
    let titles = ["cache 1000", "cache 1", "cache 0", "worker, server and collector"];
    for (title, Found { counts, attempts }) in titles.iter().zip(<[Found; 4]>::from(found)) {
        let Attempts { made, received, named } = attempts;
        println!(
            "seed {seed}, {KILLS} x SIGKILL, {title}: {counts:?}; {received} of {made} attempts, \
             {named} named as lost"
        );
        ensure!(counts.are_right(), "{title}: {counts:?}");
        ensure!(counts.expected == RUNS * (1 + 3 * STEPS as usize), "{title}: {counts:?}");
        ensure!(counts.roots == RUNS, "{title}: {counts:?}");
        // Whenever a worker is killed, some of its runs wait for an activity.
        ensure!(named > 0, "{title}: no attempt was killed");
    }
    Ok(())
}

/// The worker is killed again and again, the rest stays up.
async fn workers_killed(server: &str, cache: usize, seed: u64) -> Result<Found> {
    let folder = tempfile::tempdir()?;
    let collector = Collector::open(folder.path().join("spans.sqlite"))?;
    let serving = collector.serve(([127, 0, 0, 1], 0)).await?;
    let job = job(server, serving.url(), cache);
    let client = ours::start_runs(&job).await?;
    let moments = hunt::moments(seed, KILLS, STEPS);
    let _last = hunt::hunt(|| ours::command(&job), &moments).await?;
    let runs = ours::complete(&job, &client, LIMIT).await?;
    let found = ours::account(&job, runs, collector.store()).await;
    serving.shutdown().await;
    found
}

/// The worker, the collector and the Temporal server are killed at once, again and again.
async fn everything_killed(seed: u64) -> Result<Found> {
    let folder = tempfile::tempdir()?;
    let options = TemporalServer::options().db_filename(folder.path().join("server.sqlite"));
    let mut server = options.clone().start().await?;
    let options = options.port(server.port());
    let address = a_free_address()?;
    let database = folder.path().join("spans.sqlite");
    let mut collector = Prey::start(collector(&database, address)?)?.at_work().await?;
    let job = job(server.address(), format!("http://{address}"), 1_000);
    let client = ours::start_runs(&job).await?;
    for moment in hunt::moments(seed, KILLS, STEPS) {
        let worker = Prey::start(ours::command(&job)?)?.at_work().await?;
        tokio::time::sleep(moment).await;
        let (worker, killed, ()) = tokio::join!(worker.kill(), collector.kill(), server.kill());
        worker.and(killed)?;
        server = options.clone().start().await?;
        collector = Prey::start(self::collector(&database, address)?)?.at_work().await?;
    }
    let _last = Prey::start(ours::command(&job)?)?;
    let runs = ours::complete(&job, &client, LIMIT).await?;
    collector.kill().await?;
    let found = ours::account(&job, runs, Collector::open(database)?.store()).await;
    server.stop().await;
    found
}

fn job(server: &str, receiver: String, cache: usize) -> Job {
    let queue = format!("kill-{}", uuid::Uuid::new_v4());
    Job { server: server.to_owned(), receiver, queue, runs: RUNS, steps: STEPS, cache }
}

/// Is the collector until the process is killed.
async fn be_collector(database: PathBuf) -> Result<()> {
    let address: SocketAddr = std::env::var(ADDRESS)?.parse()?;
    let collector = Collector::open(database)?;
    let _serving = collector.serve(address).await?;
    job::say_ready()?;
    std::future::pending().await
}

fn collector(database: &Path, address: SocketAddr) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(DATABASE, database).env(ADDRESS, address.to_string());
    Ok(command)
}

/// An address at which nothing listens.
fn a_free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}
