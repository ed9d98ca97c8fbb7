use std::fmt;

use super::error::RunError;

/// What a backfill has done.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct BackfillReport {
    /// Runs whose spans are at the sink now.
    pub runs: u64,
    /// Runs that the journal holds as done.
    pub skipped: u64,
    /// Spans that were sent.
    pub sent: u64,
    /// Spans that the sink had already.
    pub known: u64,
    /// Spans that the sink refused.
    pub refused: u64,
    /// The runs that could not be backfilled, and why. They do not keep others from it.
    pub failed: Vec<FailedRun>,
}

impl fmt::Display for BackfillReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { runs, skipped, sent, known, refused, failed } = self;
        write!(f, "{runs} runs, {sent} spans sent, {known} there already")?;
        if *skipped > 0 {
            write!(f, ", {skipped} runs done before")?;
        }
        if *refused > 0 {
            write!(f, ", {refused} spans refused")?;
        }
        match failed.len() {
            0 => Ok(()),
            failed => write!(f, ", {failed} runs failed"),
        }
    }
}

/// A run that could not be backfilled.
#[derive(Debug)]
#[non_exhaustive]
pub struct FailedRun {
    /// Its workflow id.
    pub workflow_id: String,
    /// Its run id, empty if that is not known.
    pub run_id: String,
    /// What went wrong.
    pub error: RunError,
}

/// A run whose spans are at the sink now.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BackfilledRun {
    /// Its workflow id.
    pub workflow_id: String,
    /// Its run id.
    pub run_id: String,
    /// Its workflow type.
    pub workflow_type: String,
    /// Where its spans came from.
    pub source: SpanSource,
    /// Whether the run goes on: then spans that are open are sent as such.
    pub is_open: bool,
    /// How many spans were sent.
    pub sent: u64,
    /// How many the sink had already.
    pub known: u64,
    /// Spans that the sink refused, each with the reason.
    pub refused: Vec<String>,
}

/// Where the spans of a backfilled run came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpanSource {
    /// From the user's code, with the ids that were given live.
    Replay,
    /// From the user's code, for a run that was not traced.
    NewRecording,
    /// From the history alone.
    Skeleton,
}

/// How far a backfill is.
#[derive(Debug)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// The spans of a run are at the sink.
    Done(&'a BackfilledRun),
    /// A run could not be backfilled; others go on.
    Failed(&'a FailedRun),
    /// The journal holds the run as done: its run id.
    Skipped(&'a str),
}
