//! The worker processes: ours, and those of the peers.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::{
    protocol::{Job, Usage},
    setup::{OtelPeer, Python},
};

/// Whose code runs the workflows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Side {
    Ours,
    Untraced,
    /// The guide's pattern in Python.
    Seed,
    PythonUntraced,
    /// The OpenTelemetry plugin of the Rust SDK.
    Otel,
    OtelUntraced,
    /// The OpenTelemetry plugin of the Python SDK.
    PythonOtel,
}

impl Side {
    pub(crate) const ALL: [Self; 7] = [
        Self::Ours,
        Self::Untraced,
        Self::Seed,
        Self::PythonUntraced,
        Self::Otel,
        Self::OtelUntraced,
        Self::PythonOtel,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "durable-spans",
            Self::Untraced => "untraced",
            Self::Seed => "seed pattern (scale-gp-beta)",
            Self::PythonUntraced => "untraced, Python",
            Self::Otel => "OpenTelemetry plugin, Rust",
            Self::OtelUntraced => "untraced, without the plugin",
            Self::PythonOtel => "OpenTelemetry plugin, Python",
        }
    }

    /// Whether the program is the one with the Rust SDK's plugin, which plays [`Steps`] only.
    ///
    /// [`Steps`]: crate::work::Steps
    pub(crate) fn is_otel_peer(self) -> bool {
        matches!(self, Self::Otel | Self::OtelUntraced)
    }

    fn is_traced(self) -> bool {
        matches!(self, Self::Ours | Self::Seed | Self::Otel | Self::PythonOtel)
    }

    fn command(self, job: &Job, python: &Python, otel: Option<&OtelPeer>) -> Result<Command> {
        let (mut command, mode) = match self {
            Self::Ours | Self::Untraced => (Command::new(std::env::current_exe()?), "work"),
            Self::Otel | Self::OtelUntraced => {
                let otel = otel.context("the SDK's OpenTelemetry plugin has not been built")?;
                (Command::new(otel.program()), "bench")
            }
            Self::Seed => (python.command("worker.py"), "seed"),
            Self::PythonUntraced => (python.command("worker.py"), "untraced"),
            Self::PythonOtel => (python.command("worker.py"), "opentelemetry"),
        };
        command.arg(mode).arg(serde_json::to_string(job)?);
        Ok(command)
    }
}

/// A worker process of one side. It ends with this value.
pub(crate) struct Crew {
    pub(crate) side: Side,
    pub(crate) queue: String,
    process: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Crew {
    pub(crate) fn start(
        side: Side,
        server: &str,
        sink: &str,
        log: &Path,
        (python, otel): (&Python, Option<&OtelPeer>),
    ) -> Result<Self> {
        let queue = format!("bench-{side:?}-{}", rand::random::<u32>());
        let sink = side.is_traced().then(|| sink.to_owned());
        let job = Job { server: server.to_owned(), queue: queue.clone(), sink };
        let mut command = side.command(&job, python, otel)?;
        let log = std::fs::File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        let mut process = command
            .spawn()
            .with_context(|| format!("the worker of {} does not start", side.name()))?;
        let input = process.stdin.take().context("the worker has no input")?;
        let output = process.stdout.take().context("the worker has no output")?;
        Ok(Self { side, queue, process, input, output: BufReader::new(output).lines() })
    }

    /// What the process has used so far.
    pub(crate) async fn usage(&mut self) -> Result<Usage> {
        self.input.write_all(b"usage\n").await?;
        let answer = tokio::time::timeout(Duration::from_secs(10), self.output.next_line()).await;
        let line = answer.context("the worker does not answer")??;
        let line = line.with_context(|| {
            let ended = self.process.try_wait();
            format!("the worker of {} has ended: {ended:?}", self.side.name())
        })?;
        Ok(serde_json::from_str(&line)?)
    }
}
