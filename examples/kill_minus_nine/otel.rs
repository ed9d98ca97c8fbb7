//! The side of the SDK's OpenTelemetry plugin, which is a program of its own: the plugin needs
//! experimental features of the SDK, and durable-spans does without.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use temporalio_client::ClientOptions;
use tokio::process::Command;

use crate::{
    counts::{Counts, Names},
    history::CompletedRun,
    hunt,
    job::Job,
    receiver::Receiver,
};

const NAMES: Names = Names { root: "RunWorkflow:Steps", call: "StartActivity:work" };

/// What is not the workflow's: attempts of activities, and the call that starts a run.
const OF_OTHERS: [&str; 2] = ["RunActivity:work", "StartWorkflow:Steps"];

/// Twice the batch processor's delay: what the last worker has had time to send must count.
const SENT_WITHIN: Duration = Duration::from_secs(10);

/// How the plugin's spans leave the process, of OpenTelemetry's two ways.
#[derive(Clone, Copy)]
pub(crate) enum Processor {
    /// Each when it ends, while the workflow waits.
    Simple,
    /// In batches, from a queue in memory.
    Batch,
}

/// The built program.
pub(crate) struct Peer(PathBuf);

impl Peer {
    /// Builds the program beside this one.
    pub(crate) async fn build() -> Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/otel-peer/Cargo.toml");
        let own = std::env::current_exe()?;
        let outputs = own.parent().and_then(Path::parent).context("this program is nowhere")?;
        let target = outputs.parent().context("this program is not in cargo's target folder")?;
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(["build", "--quiet", "--locked", "--manifest-path"]).arg(&manifest);
        command.arg("--target-dir").arg(target);
        if !cfg!(debug_assertions) {
            command.arg("--release");
        }
        // What `cargo run` says of this package would make build scripts run again.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
                command.env_remove(&*name);
            }
        }
        let built = command.stdin(Stdio::null()).stdout(Stdio::null()).status().await;
        let built = built.context("cargo does not start")?;
        ensure!(
            built.success(),
            "the OpenTelemetry side cannot be built: see cargo's message above"
        );
        Ok(Self(outputs.join(format!("otel-peer{}", std::env::consts::EXE_SUFFIX))))
    }

    /// Plays the runs while the worker is killed at these moments.
    pub(crate) async fn play(
        &self,
        job: &Job,
        processor: Processor,
        receiver: &Receiver,
        moments: &[Duration],
        limit: Duration,
    ) -> Result<Counts> {
        let command = |role: &str| {
            let mut command = Command::new(&self.0);
            command.arg(role).arg(serde_json::to_string(job)?);
            if matches!(processor, Processor::Batch) {
                command.env("OTEL_PEER_BATCH", "1");
            }
            anyhow::Ok(command)
        };
        let started = command("start")?.status().await?;
        ensure!(started.success(), "the runs of the OpenTelemetry side do not start");
        let last = hunt::hunt(|| command("work"), moments).await?;
        let client = job.client(ClientOptions::new("default").build()).await?;
        let mut runs = Vec::new();
        for run in 0..job.runs {
            let id = job.workflow_id(run);
            runs.push((CompletedRun::of(&client, &id, limit).await?, id));
        }
        // Nothing tells when its queue is empty.
        tokio::time::sleep(SENT_WITHIN).await;
        last.kill().await?;

        let mut received = receiver.by_workflow();
        let mut counts = Counts::default();
        for (run, id) in runs {
            let mut spans = received.remove(&id).unwrap_or_default();
            spans.retain(|span| !OF_OTHERS.contains(&span.name.as_str()));
            counts += Counts::of(&run, &NAMES, &spans);
        }
        Ok(counts)
    }
}
