use std::{error::Error, fmt};

/// Why one run could not be backfilled.
#[derive(Debug)]
pub struct RunError {
    stage: Stage,
    source: Box<dyn Error + Send + Sync>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Fetch,
    History,
    Replay,
    Deliver,
}

impl RunError {
    fn new(stage: Stage, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { stage, source: source.into() }
    }

    pub(super) fn fetch(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Stage::Fetch, source)
    }

    pub(super) fn history(reason: &'static str) -> Self {
        Self::new(Stage::History, reason)
    }

    pub(super) fn replay(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Stage::Replay, source)
    }

    pub(super) fn deliver(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Stage::Deliver, source)
    }

    /// Whether the workflow code does not fit the history, or its type is not registered.
    pub fn is_replay(&self) -> bool {
        self.stage == Stage::Replay
    }

    /// Whether the sink did not take the spans: trying again later may well succeed.
    pub fn is_delivery(&self) -> bool {
        self.stage == Stage::Deliver
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.stage {
            Stage::Fetch => "its history could not be fetched",
            Stage::History => "its history cannot be read",
            Stage::Replay => "its history could not be replayed",
            Stage::Deliver => "its spans could not be delivered",
        };
        write!(f, "{what}: {}", self.source)
    }
}

impl Error for RunError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.source()
    }
}

/// Why a backfill could not go on at all. What was delivered by then stays.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackfillError {
    /// The server did not list the runs of a query, for example because the query is no query.
    #[error("the runs could not be listed: {0}")]
    List(Box<dyn Error + Send + Sync>),
    /// The journal could not be read or written.
    #[error("the journal {path} cannot be used: {error}")]
    Journal {
        /// The file.
        path: String,
        /// What went wrong with it.
        error: std::io::Error,
    },
}
