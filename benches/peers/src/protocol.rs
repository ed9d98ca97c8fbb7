//! What a worker's process is told, and what it says about itself. The OpenTelemetry side speaks
//! the same, and so do the workers in Python.

use std::io::{BufRead, Write};

use nix::sys::{resource, time::TimeValLike};
use serde::{Deserialize, Serialize};

/// The one argument of a worker's process, as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The Temporal server's address, with its scheme.
    pub(crate) server: String,
    pub(crate) queue: String,
    /// Base URL of where the spans go, `None` for a worker without tracing.
    pub(crate) sink: Option<String>,
}

/// What the process has used so far.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// Time on processors, user's and system's.
    pub(crate) cpu_us: i64,
}

/// Answers each line of the standard input with a line about this process, and ends it at the end
/// of the input.
pub(crate) fn answer_on_another_thread() {
    std::thread::spawn(|| {
        for line in std::io::stdin().lock().lines() {
            if line.is_err() || say(&own_usage()).is_err() {
                break;
            }
        }
        std::process::exit(0);
    });
}

/// What this process has used so far.
pub(crate) fn own_usage() -> Usage {
    let usage = resource::getrusage(resource::UsageWho::RUSAGE_SELF);
    let time = usage
        .map(|usage| usage.user_time().num_microseconds() + usage.system_time().num_microseconds());
    Usage { cpu_us: time.unwrap_or_default() }
}

fn say(usage: &Usage) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, usage)?;
    out.write_all(b"\n")?;
    out.flush()
}
