//! The fault table: every row played, and judged by what must hold.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use durable_spans::{DropReason, Statistics};
use durable_spans_test_server::TemporalServer;
use futures::{StreamExt, stream};

use crate::{class::Class, log::LossLog, play, row::Row, stage::Outcome};

/// How many rows are played at the same time, so that a machine of a few cores holds the bounds.
const AT_ONCE: usize = 12;

/// How a row ended, and whether what must hold did.
pub(crate) struct Finding {
    pub(crate) class: Class,
    pub(crate) row: Row,
    /// What happened, with its length.
    pub(crate) title: String,
    pub(crate) at_most: Option<Duration>,
    pub(crate) outcome: Outcome,
    /// What did not hold; empty if all is well.
    pub(crate) broken: Vec<String>,
}

impl Finding {
    fn is_only_late(&self) -> bool {
        let is_late = self.at_most.is_some_and(|most| self.outcome.delayed > most);
        is_late && self.broken.len() == 1
    }
}

/// Plays these rows, or all if none is named, for each of these classes, side by side.
pub(crate) async fn play(
    classes: &[Class],
    rows: &[Row],
    full: bool,
    log: &LossLog,
) -> Result<Vec<Finding>> {
    let rows = if rows.is_empty() { Row::value_variants() } else { rows };
    let server = TemporalServer::start().await?;
    let of_class = |class: &Class| rows.iter().map(|row| (*class, *row)).collect::<Vec<_>>();
    let all = classes.iter().flat_map(of_class).filter(|(class, row)| class.knows(*row));
    let playing = all.enumerate().map(async |(place, (class, row))| {
        let play = || play_row(class, row, server.address(), full, log);
        let finding = match play().await {
            // A machine that is busy holds runs up, too; what is ours is so each time.
            Ok(finding) if finding.is_only_late() => play().await,
            finding => finding,
        };
        let name = format!("{} {}", class.name(), row.name());
        eprintln!("  {name}: {}", if finding.is_ok() { "played" } else { "failed" });
        (place, finding.context(name))
    });
    let mut findings: Vec<_> = stream::iter(playing).buffer_unordered(AT_ONCE).collect().await;
    server.stop().await;
    findings.sort_by_key(|(place, _)| *place);
    findings.into_iter().map(|(_, finding)| finding).collect()
}

/// Plays a row on this server, or on one of its own, and judges.
async fn play_row(
    class: Class,
    row: Row,
    server: &str,
    full: bool,
    log: &LossLog,
) -> Result<Finding> {
    let outcome = match row {
        Row::WorkerSigkill => play::kill_worker(class, row, server, full, log).await?,
        Row::RestartInTurn => play::restart_all(class, row, log).await?,
        _ => play::outage(class, row, server, full, log).await?,
    };
    let at_most = row.at_most(full);
    let broken = broken(class, row, at_most, &outcome);
    Ok(Finding { class, row, title: row.title(class, full), at_most, outcome, broken })
}

fn broken(class: Class, row: Row, at_most: Option<Duration>, outcome: &Outcome) -> Vec<String> {
    let Outcome { delayed, lost, duplicates, status, named_in_log, statistics, .. } = outcome;
    let mut broken = Vec::new();
    let mut must = |holds: bool, otherwise: String| broken.extend((!holds).then_some(otherwise));
    must(at_most.is_none_or(|most| *delayed <= most), format!("delayed by {delayed:?}"));
    let names: Vec<&str> = lost.iter().map(|(_, name)| name.as_str()).collect();
    must(names == Vec::from_iter(row.loses()), format!("lost: {names:?}"));
    let named = if class.names_the_loss_of(row) { lost.as_slice() } else { &[] };
    must(named_in_log == named, format!("lost are {lost:?}, the log names {named_in_log:?}"));
    let may_double = outcome.may_double;
    must(*duplicates <= may_double, format!("{duplicates} duplicates, not at most {may_double}"));
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
