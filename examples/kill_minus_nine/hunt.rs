//! Processes that are killed, and when.

use std::{
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdout, Command},
};

use crate::job::{PAUSE, READY};

/// A debug build on a busy machine takes its time, and so does finding out that a worker is gone.
const AT_WORK_WITHIN: Duration = Duration::from_secs(60);

/// A process. It is killed when this is dropped, at the latest.
pub(crate) struct Prey {
    child: Child,
    // Open, so that the process may write.
    stdout: BufReader<ChildStdout>,
}

impl Prey {
    pub(crate) fn start(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("the process does not start")?;
        let stdout = child.stdout.take().context("the process has no stdout")?;
        Ok(Self { child, stdout: BufReader::new(stdout) })
    }

    /// Waits until the process says that it is at work.
    pub(crate) async fn at_work(mut self) -> Result<Self> {
        let mut line = String::new();
        tokio::time::timeout(AT_WORK_WITHIN, self.stdout.read_line(&mut line))
            .await
            .context("the process does not get to work")??;
        ensure!(line.trim_end() == READY, "the process has ended: {:?}", self.child.wait().await?);
        Ok(self)
    }

    /// SIGKILL, unless the process has ended by itself, which is an error.
    pub(crate) async fn kill(mut self) -> Result<()> {
        let ended: Option<ExitStatus> = self.child.try_wait()?;
        ensure!(ended.is_none(), "the process has ended by itself: {ended:?}");
        Ok(self.child.kill().await?)
    }
}

/// After how long at work each process is killed: in all less than a run takes without trouble, so
/// that each finds work to do.
pub(crate) fn moments(seed: u64, kills: usize, steps: u32) -> Vec<Duration> {
    let mut random = SmallRng::seed_from_u64(seed);
    let longest = (PAUSE * steps).as_millis() as u64 / kills.max(1) as u64;
    let moment = |_| Duration::from_millis(random.random_range(longest / 10..=longest));
    (0..kills).map(moment).collect()
}

/// Starts a worker, kills it at its moment, and so on; the last one is left alive.
pub(crate) async fn hunt(command: impl Fn() -> Result<Command>, when: &[Duration]) -> Result<Prey> {
    for moment in when {
        let prey = Prey::start(command()?)?.at_work().await?;
        tokio::time::sleep(*moment).await;
        prey.kill().await?;
    }
    Prey::start(command()?)
}
