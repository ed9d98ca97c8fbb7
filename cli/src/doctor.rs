use anyhow::bail;
use clap::Args;
use durable_spans::{Doctor, Finding, Timestamp, Verdict};
use durable_spans_collector::tree::printable;
use serde_json::json;

use crate::backfill::{Temporal, client};

/// Check a fleet for what the rollout guide asks
///
/// It reads the histories of recent runs, and sends a few empty couriers to each task queue to see
/// whether its workers know them. It changes nothing else. A fleet with a payload codec is examined by
/// `Doctor` in the library, with the fleet's own client.
///
/// Ends with 1 if there is a problem.
#[derive(Args)]
pub(crate) struct DoctorArgs {
    /// Task queue of workflows; may be given several times
    #[arg(long = "task-queue", value_name = "NAME")]
    pub(crate) task_queues: Vec<String>,
    /// The date that the workers give to Timetable::since, such as 2026-12-01T06:00:00Z
    #[arg(long)]
    pub(crate) since: Option<Timestamp>,
    /// Print a JSON list of objects with verdict, subject and text
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) temporal: Temporal,
}

/// Prints what was found.
pub(crate) async fn doctor(args: DoctorArgs) -> anyhow::Result<()> {
    let doctor = Doctor::new(client(&args.temporal).await?).since(args.since);
    let doctor = args.task_queues.into_iter().fold(doctor, Doctor::task_queue);
    let findings = doctor.examine().await?;
    if args.json {
        println!("{}", as_json(&findings));
    } else {
        findings.iter().for_each(|finding| println!("{}", printable(&finding.to_string())));
    }
    match findings.iter().filter(|finding| finding.verdict == Verdict::Problem).count() {
        0 => Ok(()),
        1 => bail!("1 problem was found"),
        problems => bail!("{problems} problems were found"),
    }
}

fn as_json(findings: &[Finding]) -> serde_json::Value {
    let finding = |finding: &Finding| {
        json!({
            "verdict": finding.verdict.to_string(),
            "subject": finding.subject,
            "text": finding.text,
        })
    };
    findings.iter().map(finding).collect()
}
