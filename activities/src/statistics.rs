use std::{collections::BTreeMap, fmt, sync::Arc};

use metrics::SharedString;

/// Counts of ended spans in one process, since its sink was installed.
///
/// At any moment `recorded = delivered + deferred + dropped`. With several sinks, each span counts
/// once for each of them. The same counts go to the `metrics` facade, where an application has
/// installed a recorder for it, with the label `sink`: the counters `durable_spans_recorded`,
/// `durable_spans_delivered`, `durable_spans_dropped` (with the label `reason`, too) and
/// `durable_spans_doubtful`, and the gauge `durable_spans_deferred`. The breaker adds the gauge `durable_spans_sink_up` (0 or 1) and
/// the counter `durable_spans_breaker_changes` (with the label `to`, too: open, half_open, closed).
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
    /// Spans that were sent again to a sink which keeps every copy
    /// ([`Contract::append_only`](crate::Contract::append_only)) although it may have stored them,
    /// since an answer was lost: it holds at most that many copies too many on account of this
    /// process. Each is delivered in the end, so this is no part of the sum.
    pub doubtful: u64,
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
    /// The span ended longer ago than the sink keeps spans.
    TooOld,
    /// The run had recorded more than its buffer may hold.
    BufferFull,
    /// The queue was full when an activity, or a closing run that had no other way, handed it over.
    QueueFull,
    /// Its courier gave up.
    Expired,
    /// An activity ended in a process that has no sink.
    NoSink,
}

impl DropReason {
    /// A short name for logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::TooOld => "too_old",
            Self::BufferFull => "buffer_full",
            Self::QueueFull => "queue_full",
            Self::Expired => "expired",
            Self::NoSink => "no_sink",
        }
    }
}

/// Keeps the statistics, and tells the `metrics` facade of each change.
#[derive(Default)]
pub(crate) struct Counts {
    /// Name of the sink.
    sink: SharedString,
    statistics: Statistics,
}

impl Counts {
    pub(crate) fn new(sink: &str) -> Self {
        Self { sink: SharedString::from(Arc::<str>::from(sink)), statistics: Statistics::default() }
    }

    pub(crate) fn snapshot(&self) -> Statistics {
        self.statistics.clone()
    }

    /// Spans came into the queue.
    pub(crate) fn queued(&mut self, spans: u64) {
        self.recorded(spans);
        self.defer(self.statistics.deferred + spans);
    }

    /// Spans were dropped without coming into the queue.
    pub(crate) fn refused(&mut self, reason: DropReason, spans: u64) {
        self.recorded(spans);
        self.dropped(reason, spans);
    }

    /// Spans left the queue: delivered, or dropped for a reason.
    pub(crate) fn settled(&mut self, dropped: Option<DropReason>, spans: u64) {
        match dropped {
            Some(reason) => self.dropped(reason, spans),
            None => {
                self.statistics.delivered += spans;
                self.counter("durable_spans_delivered").increment(spans);
            }
        }
        self.defer(self.statistics.deferred.saturating_sub(spans));
    }

    /// Spans that may be stored are to be sent again.
    pub(crate) fn doubted(&mut self, spans: u64) {
        self.statistics.doubtful += spans;
        self.counter("durable_spans_doubtful").increment(spans);
    }

    fn counter(&self, name: &'static str) -> metrics::Counter {
        metrics::counter!(name, "sink" => self.sink.clone())
    }

    fn recorded(&mut self, spans: u64) {
        self.statistics.recorded += spans;
        self.counter("durable_spans_recorded").increment(spans);
    }

    fn dropped(&mut self, reason: DropReason, spans: u64) {
        *self.statistics.dropped.entry(reason).or_default() += spans;
        let sink = self.sink.clone();
        metrics::counter!("durable_spans_dropped", "sink" => sink, "reason" => reason.as_str())
            .increment(spans);
    }

    fn defer(&mut self, spans: u64) {
        self.statistics.deferred = spans;
        metrics::gauge!("durable_spans_deferred", "sink" => self.sink.clone()).set(spans as f64);
    }
}

#[cfg(test)]
mod tests {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    use super::*;

    #[test]
    fn the_metrics_facade_sees_what_the_statistics_say() {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        metrics::with_local_recorder(&recorder, || {
            let mut counts = Counts::new("otlp");
            counts.queued(5);
            counts.settled(None, 3);
            counts.settled(Some(DropReason::Rejected), 1);
            counts.refused(DropReason::QueueFull, 2);
            counts.doubted(5);
            let expected = "recorded = delivered + deferred + dropped: 7 = 3 + 1 + 3";
            assert_eq!(counts.snapshot().to_string(), expected);
        });
        let mut seen: Vec<String> = snapshotter
            .snapshot()
            .into_vec()
            .into_iter()
            .map(|(key, _, _, value)| {
                let key = key.key();
                let labels: Vec<_> = key.labels().map(|label| label.value().to_owned()).collect();
                let value = match value {
                    DebugValue::Counter(count) => count.to_string(),
                    DebugValue::Gauge(value) => value.to_string(),
                    DebugValue::Histogram(_) => "histogram".to_owned(),
                };
                format!("{} {} {value}", key.name(), labels.join(","))
            })
            .collect();
        seen.sort();
        assert_eq!(
            seen,
            [
                "durable_spans_deferred otlp 1",
                "durable_spans_delivered otlp 3",
                "durable_spans_doubtful otlp 5",
                "durable_spans_dropped otlp,queue_full 2",
                "durable_spans_dropped otlp,rejected 1",
                "durable_spans_recorded otlp 7",
            ]
        );
    }

    #[test]
    fn statistics_print_as_the_equation_that_holds() {
        let statistics = Statistics {
            recorded: 7,
            delivered: 4,
            deferred: 1,
            dropped: [(DropReason::Rejected, 1), (DropReason::QueueFull, 1)].into(),
            doubtful: 3,
        };
        assert_eq!(
            statistics.to_string(),
            "recorded = delivered + deferred + dropped: 7 = 4 + 1 + 2"
        );
    }
}
