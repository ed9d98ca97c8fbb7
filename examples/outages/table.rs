//! The fault table: every row played, and judged by what must hold.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use durable_spans::{DropReason, Statistics};
use durable_spans_test_server::TemporalServer;

use crate::{log::LossLog, play, row::Row, stage::Outcome};

/// How a row ended, and whether what must hold did.
pub(crate) struct Finding {
    pub(crate) row: Row,
    /// What happened, with its length.
    pub(crate) title: String,
    pub(crate) at_most: Option<Duration>,
    pub(crate) outcome: Outcome,
    /// What did not hold; empty if all is well.
    pub(crate) broken: Vec<String>,
}

/// Plays these rows, or all if none is named, at the same time.
pub(crate) async fn play(rows: &[Row], full: bool, log: &LossLog) -> Result<Vec<Finding>> {
    let rows = if rows.is_empty() { Row::value_variants() } else { rows };
    let server = TemporalServer::start().await?;
    let playing = rows.iter().map(|row| async {
        let finding = play_row(*row, server.address(), full, log).await;
        let name = row.name();
        eprintln!("  {name}: {}", if finding.is_ok() { "played" } else { "failed" });
        finding.context(name)
    });
    let findings = futures::future::join_all(playing).await;
    server.stop().await;
    findings.into_iter().collect()
}

/// Plays a row on this server, or on one of its own, and judges.
async fn play_row(row: Row, server: &str, full: bool, log: &LossLog) -> Result<Finding> {
    let outcome = match row {
        Row::WorkerSigkill => play::kill_worker(row, server, full, log).await?,
        Row::RestartInTurn => play::restart_all(row, log).await?,
        _ => play::outage(row, server, full, log).await?,
    };
    let at_most = row.at_most(full);
    let broken = broken(row, at_most, &outcome);
    Ok(Finding { row, title: row.title(full), at_most, outcome, broken })
}

fn broken(row: Row, at_most: Option<Duration>, outcome: &Outcome) -> Vec<String> {
    let Outcome { delayed, lost, duplicates, status, named_in_log, statistics, .. } = outcome;
    let mut broken = Vec::new();
    let mut must = |holds: bool, otherwise: String| broken.extend((!holds).then_some(otherwise));
    must(at_most.is_none_or(|most| *delayed <= most), format!("delayed by {delayed:?}"));
    let names: Vec<&str> = lost.iter().map(|(_, name)| name.as_str()).collect();
    must(names == Vec::from_iter(row.loses()), format!("lost: {names:?}"));
    must(named_in_log == lost, format!("lost are {lost:?}, the log names {named_in_log:?}"));
    must(*duplicates == 0, format!("{duplicates} duplicates"));
    must(*status == "completed", format!("the run {status}"));
    let (failed, timed_out) = outcome.spoilt_tasks;
    must(failed == 0, format!("{failed} workflow tasks failed"));
    let may_time_out = row.loses_workers();
    must(timed_out == 0 || may_time_out, format!("{timed_out} workflow tasks timed out"));
    for counted in statistics {
        let Statistics { recorded, delivered, deferred, .. } = counted;
        let (dropped, losses) = (counted.dropped_total(), names.len() as u64);
        let rejected = counted.dropped.get(&DropReason::Rejected).copied().unwrap_or(0);
        let holds = *deferred == 0 && *recorded == delivered + dropped;
        must(holds && [dropped, rejected] == [losses; 2], format!("statistics: {counted}"));
    }
    broken
}
