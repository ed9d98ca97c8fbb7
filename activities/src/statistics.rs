use std::{collections::BTreeMap, fmt};

/// Counts of ended spans in one process, since its sink was installed.
///
/// At any moment `recorded = delivered + deferred + dropped`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Spans that ended and were handed over for delivery.
    pub recorded: u64,
    /// Spans that the sink has confirmed.
    pub delivered: u64,
    /// Spans that wait for delivery: queued, on their way, or kept while the sink is down.
    pub deferred: u64,
    /// Spans that were given up, by reason. A warning in the log names each.
    pub dropped: BTreeMap<DropReason, u64>,
}

impl Statistics {
    /// All dropped spans, whatever the reason.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.values().sum()
    }
}

/// `recorded = delivered + deferred + dropped: 5 = 4 + 0 + 1`
impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { recorded, delivered, deferred, .. } = self;
        let dropped = self.dropped_total();
        write!(f, "recorded = delivered + deferred + dropped: ")?;
        write!(f, "{recorded} = {delivered} + {deferred} + {dropped}")
    }
}

/// Why a span was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DropReason {
    /// The sink refused this very span: malformed, of a foreign trace, too large.
    Rejected,
    /// The run had recorded more than its buffer may hold.
    BufferFull,
    /// The queue was full when a closing run or an activity handed it over.
    QueueFull,
}

impl DropReason {
    /// A short name for logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::BufferFull => "buffer_full",
            Self::QueueFull => "queue_full",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_print_as_the_equation_that_holds() {
        let statistics = Statistics {
            recorded: 7,
            delivered: 4,
            deferred: 1,
            dropped: [(DropReason::Rejected, 1), (DropReason::QueueFull, 1)].into(),
        };
        assert_eq!(
            statistics.to_string(),
            "recorded = delivered + deferred + dropped: 7 = 4 + 1 + 2"
        );
    }
}
