//! The fault table, live: what happens to a run and its spans while the sink, the worker or the
//! server is in trouble.
//!
//! `cargo run --example outages` plays each fault on a real Temporal server, with a sink in front
//! of a real collector that fails on demand, and compares what the server's histories say was
//! recorded with what the collector holds. Exit code 1 says that something did not hold.
//!
//! Read `row.rs` and `play.rs` for what goes wrong, `class.rs` for the kinds of sinks, `table.rs` for
//! what must hold, and `stage.rs` and `history.rs` for how it is accounted for. The server is the crate `durable-spans-test-sink`.

mod backend;
mod class;
mod crew;
mod history;
mod log;
mod play;
mod report;
mod row;
mod stage;
mod steps;
mod table;

use std::{io, process::ExitCode};

use anyhow::Result;
use clap::Parser;

use crate::{class::Class, crew::Place, log::LossLog, row::Row};

/// Shows what outages cost: how long a run is held up, and which spans are lost.
///
/// A Temporal server is found or started as the README says, and one more for the row that restarts
/// it. RUST_LOG shows the workers' log.
#[derive(Parser)]
#[command(name = "outages")]
struct Options {
    /// Print one JSON list on stdout, everything else on stderr
    #[arg(long)]
    json: bool,
    /// Let the faults last as long as in the table instead of seconds; takes 25 minutes
    #[arg(long)]
    full: bool,
    /// Send to sinks of these classes
    #[arg(long, value_name = "SINK", value_enum, default_values = ["sgp"])]
    sink: Vec<Class>,
    /// Play these rows only
    #[arg(long, value_name = "ROW", value_enum)]
    only: Vec<Row>,
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = runtime.map_err(Into::into).and_then(|runtime| {
        let result = runtime.block_on(outages());
        // After a failure, workers may be at work still.
        runtime.shutdown_background();
        result
    });
    result.unwrap_or_else(|error| {
        eprintln!("outages failed: {error:#}");
        ExitCode::FAILURE
    })
}

async fn outages() -> Result<ExitCode> {
    if let Some(place) = Place::of_this_process()? {
        place.be_workers().await?;
    }
    let options = Options::parse();
    let log = LossLog::install();
    let findings = table::play(&options.sink, &options.only, options.full, &log).await?;
    if options.json {
        report::write_text(&findings, &mut io::stderr())?;
        report::write_json(&findings, &mut io::stdout())?;
    } else {
        report::write_text(&findings, &mut io::stdout())?;
    }
    let holds = findings.iter().all(|finding| finding.broken.is_empty());
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
