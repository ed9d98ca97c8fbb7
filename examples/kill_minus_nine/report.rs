//! What the user sees at the end.

use std::io::{self, Write};

use serde::Serialize;

use crate::{counts::Counts, ours::Attempts};

/// The counts of all sides, and of what they were counted.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) runs: usize,
    pub(crate) steps: u32,
    pub(crate) kills: usize,
    pub(crate) ours: Counts,
    /// The OpenTelemetry plugin with the simple processor, which loses less.
    pub(crate) otel: Counts,
    /// The same with the batch processor, which production setups use.
    pub(crate) otel_batch: Counts,
    #[serde(skip)]
    pub(crate) attempts: Attempts,
}

impl Report {
    /// The table, for people.
    pub(crate) fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { seed, runs, steps, kills, ours, otel, otel_batch, attempts } = self;
        let times = if *kills == 1 { "time" } else { "times" };
        writeln!(
            out,
            "{runs} runs of {steps} steps, the worker killed {kills} {times} (seed {seed}): spans \
             that workflows record\n"
        )?;
        writeln!(
            out,
            "{:30}  {:>8}  {:>8}  {:>4}  {:>10}  {:>7}  {:>5}",
            "", "expected", "received", "lost", "duplicated", "endless", "roots"
        )?;
        for (side, counts) in [
            ("durable-spans", ours),
            ("OpenTelemetry plugin, simple", otel),
            ("OpenTelemetry plugin, batch", otel_batch),
        ] {
            let Counts { expected, received, lost, duplicated, endless, roots } = counts;
            writeln!(
                out,
                "{side:30}  {expected:>8}  {received:>8}  {lost:>4}  {duplicated:>10}  \
                 {endless:>7}  {roots:>5}",
            )?;
        }
        let Attempts { made, received, named } = attempts;
        writeln!(
            out,
            "\nAttempts of activities, whose spans are the worker's: of {made}, durable-spans has \
             {received} and names {named} as lost with their worker."
        )?;
        out.flush()
    }

    /// The same as one JSON object on one line, for programs.
    pub(crate) fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        writeln!(out)?;
        out.flush()
    }
}
