//! The fault table holds for each class of sinks: each row of the example `outages` on a real server,
//! with its bounds.
//!
//! This target is its own harness, since one row runs this executable again as the workers' process.

#[path = "../examples/outages/backend.rs"]
mod backend;
#[path = "../examples/outages/class.rs"]
mod class;
#[path = "../examples/outages/crew.rs"]
mod crew;
#[path = "../examples/outages/history.rs"]
mod history;
#[path = "../examples/outages/log.rs"]
mod log;
#[path = "../examples/outages/play.rs"]
mod play;
#[path = "../examples/outages/report.rs"]
mod report;
#[path = "../examples/outages/row.rs"]
mod row;
#[path = "../examples/outages/stage.rs"]
mod stage;
#[path = "../examples/outages/steps.rs"]
mod steps;
#[path = "../examples/outages/table.rs"]
mod table;

use std::{io, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde_json::Value;

use crate::{class::Class, crew::Place, log::LossLog};

const LIMIT: Duration = Duration::from_secs(300);

const FIELDS: [&str; 7] =
    ["delayed_s", "duplicates", "fault", "lost", "recorded", "run_status", "sink"];

fn main() -> Result<()> {
    // What cargo passes on to every test target means nothing here, but for the listing.
    if std::env::args().any(|argument| argument == "--list") {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        if let Some(place) = Place::of_this_process()? {
            place.be_workers().await?;
        }
        tokio::time::timeout(LIMIT, test()).await.context("the rows take too long")?
    });
    // After a failure, workers may be at work still.
    runtime.shutdown_background();
    result
}

async fn test() -> Result<()> {
    let log = LossLog::install();
    let findings = table::play(Class::value_variants(), &[], false, &log).await?;
    report::write_text(&findings, &mut io::stdout())?;
    let mut json = Vec::new();
    report::write_json(&findings, &mut json)?;
    let rows: Vec<serde_json::Map<String, Value>> = serde_json::from_slice(&json)?;
    ensure!(rows.len() == findings.len());
    for row in rows {
        ensure!(row.keys().eq(FIELDS), "{row:?}");
    }
    let broken = findings.iter().filter(|finding| !finding.broken.is_empty()).count();
    ensure!(broken == 0, "{broken} rows do not hold");
    Ok(())
}
