use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use durable_spans_model::{Span, SpanId, TraceId};
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::{Contract, EncodedSpan, SinkError, SpanBatch, SpanSink};

/// A sink that keeps spans in memory, for tests of your own workflows.
///
/// It stores as SGP does: keyed by `(trace_id, id)`, a span that comes again replaces the earlier
/// one, but an open span never replaces a completed one. Clones share what is stored; nothing is
/// shared between sinks that were made apart, so tests may run side by side.
///
/// ```
/// use durable_spans_activity::{MemorySink, SpanBatch, SpanSink};
/// use durable_spans_model::{Span, SpanId, Timestamp, TraceId};
///
/// # futures::executor::block_on(async {
/// let sink = MemorySink::new();
/// let start = Timestamp::from_unix_ns(0);
/// let mut span = Span::new(TraceId::from_bits(1), SpanId::from_bits(2), "rank", start);
/// sink.upsert_batch(&SpanBatch::from_iter([span.clone()])).await?;
///
/// span.end_timestamp = Some(start);
/// sink.upsert_batch(&SpanBatch::from_iter([span.clone()])).await?;
/// assert_eq!(sink.spans(), [span]);
/// # Ok::<(), durable_spans_activity::SinkError>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Default)]
pub struct MemorySink {
    stored: Arc<Mutex<Stored>>,
    failure: Arc<Mutex<Option<Failure>>>,
    /// Tells that something was stored.
    stored_more: watch::Sender<()>,
}

type Failure = Box<dyn FnMut(&SpanBatch) -> Option<SinkError> + Send>;

impl MemorySink {
    /// An empty sink.
    pub fn new() -> Self {
        Self::default()
    }

    /// Every stored span as it was last stored, in the order in which each first arrived.
    pub fn spans(&self) -> Vec<Span> {
        lock(&self.stored).spans.iter().map(|encoded| encoded.span().clone()).collect()
    }

    /// The stored spans of one trace, in the order in which each first arrived.
    pub fn trace(&self, trace_id: &TraceId) -> Vec<Span> {
        let stored = lock(&self.stored);
        let spans = stored.spans.iter().map(|encoded| encoded.span());
        spans.filter(|span| &span.trace_id == trace_id).cloned().collect()
    }

    /// Waits until `is_enough` says so of [`spans`](Self::spans), and returns those. It is asked at
    /// once, and after each batch that was stored. Waits for ever if need be: put a limit around it.
    ///
    /// ```
    /// use durable_spans_activity::{MemorySink, SpanBatch, SpanSink};
    /// # use durable_spans_model::{Span, SpanId, Timestamp, TraceId};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let span = Span::new(TraceId::from_bits(1), SpanId::from_bits(2), "s", Timestamp::from_unix_ns(0));
    /// let sink = MemorySink::new();
    /// let filled = sink.clone();
    /// tokio::spawn(async move { filled.upsert_batch(&SpanBatch::from_iter([span])).await });
    /// let limit = std::time::Duration::from_secs(5);
    /// let spans = tokio::time::timeout(limit, sink.wait_for(|spans| !spans.is_empty())).await?;
    /// assert_eq!(spans.len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn wait_for(&self, mut is_enough: impl FnMut(&[Span]) -> bool) -> Vec<Span> {
        let mut stored_more = self.stored_more.subscribe();
        loop {
            let spans = self.spans();
            if is_enough(&spans) {
                return spans;
            }
            // The sender is ours, so it does not go away.
            let _ = stored_more.changed().await;
        }
    }

    /// Number of spans in each batch that was stored, in order. Batches that failed are not in it.
    pub fn batches(&self) -> Vec<usize> {
        lock(&self.stored).batches.clone()
    }

    /// From now on asks `failure` before it stores a batch: on `Some` error the call fails with
    /// it and nothing of the batch is stored. Replaces what was set before; `fail_with(|_| None)`
    /// heals the sink.
    ///
    /// `failure` may look at the sink, but must not call `fail_with` itself.
    ///
    /// ```
    /// use durable_spans_activity::{MemorySink, SinkError};
    ///
    /// let sink = MemorySink::new();
    /// let mut outages = 3;
    /// sink.fail_with(move |_batch| {
    ///     outages -= 1;
    ///     (outages >= 0).then(|| SinkError::retryable("down for three calls"))
    /// });
    /// ```
    pub fn fail_with(&self, failure: impl FnMut(&SpanBatch) -> Option<SinkError> + Send + 'static) {
        *lock(&self.failure) = Some(Box::new(failure));
    }

    fn upsert(&self, batch: &SpanBatch) -> Result<(), SinkError> {
        let error = lock(&self.failure).as_mut().and_then(|failure| failure(batch));
        match error {
            Some(error) => Err(error),
            None => {
                lock(&self.stored).upsert(batch);
                self.stored_more.send_replace(());
                Ok(())
            }
        }
    }
}

impl SpanSink for MemorySink {
    fn upsert_batch<'a>(&'a self, batch: &'a SpanBatch) -> BoxFuture<'a, Result<(), SinkError>> {
        Box::pin(async move { self.upsert(batch) })
    }

    fn ended_spans<'a>(
        &'a self,
        trace_id: &'a TraceId,
    ) -> BoxFuture<'a, Result<Option<HashSet<SpanId>>, SinkError>> {
        Box::pin(async move {
            let spans = self.trace(trace_id).into_iter();
            Ok(Some(spans.filter(|span| span.end_timestamp.is_some()).map(|s| s.id).collect()))
        })
    }

    fn contract(&self) -> Contract {
        Contract::upsert()
    }

    fn name(&self) -> &str {
        "memory"
    }
}

impl fmt::Debug for MemorySink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stored = lock(&self.stored);
        f.debug_struct("MemorySink")
            .field("spans", &stored.spans.len())
            .field("batches", &stored.batches.len())
            .finish()
    }
}

#[derive(Default)]
struct Stored {
    /// In the order in which each span first arrived.
    spans: Vec<Arc<EncodedSpan>>,
    positions: HashMap<(TraceId, SpanId), usize>,
    batches: Vec<usize>,
}

impl Stored {
    fn upsert(&mut self, batch: &SpanBatch) {
        self.batches.push(batch.len());
        for encoded in batch.encoded() {
            let span = encoded.span();
            match self.positions.entry((span.trace_id.clone(), span.id.clone())) {
                Entry::Vacant(vacant) => {
                    vacant.insert(self.spans.len());
                    self.spans.push(Arc::clone(encoded));
                }
                Entry::Occupied(occupied) => {
                    let stored = &mut self.spans[*occupied.get()];
                    let reopens =
                        span.end_timestamp.is_none() && stored.span().end_timestamp.is_some();
                    if !reopens {
                        *stored = Arc::clone(encoded);
                    }
                }
            }
        }
    }
}

/// A test that panicked while it held the lock has failed already; what it stored stays readable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use durable_spans_model::Timestamp;

    fn span(trace: u128, id: u128, name: &'static str) -> Span {
        let start = Timestamp::from_unix_ns(0);
        Span::new(TraceId::from_bits(trace), SpanId::from_bits(id), name, start)
    }

    fn ended(mut span: Span) -> Span {
        span.end_timestamp = Some(Timestamp::from_unix_ns(1));
        span
    }

    #[test]
    fn a_completed_span_outlives_an_open_one_that_comes_later() {
        let sink = MemorySink::new();
        let open = span(1, 1, "a");
        sink.upsert(&[open.clone()].into_iter().collect()).unwrap();
        sink.upsert(&[ended(open.clone())].into_iter().collect()).unwrap();
        sink.upsert(&[open.clone()].into_iter().collect()).unwrap();
        assert_eq!(sink.spans(), [ended(open.clone())]);

        let renamed = ended(span(1, 1, "b"));
        sink.upsert(&[renamed.clone()].into_iter().collect()).unwrap();
        assert_eq!(sink.spans(), [renamed]);
    }

    #[test]
    fn spans_stay_in_the_order_of_their_first_arrival() {
        let sink = MemorySink::new();
        sink.upsert(&[span(1, 1, "a"), span(1, 2, "b")].into_iter().collect()).unwrap();
        sink.upsert(&[span(1, 3, "c"), span(1, 1, "a2")].into_iter().collect()).unwrap();
        let names: Vec<_> = sink.spans().into_iter().map(|span| span.name).collect();
        assert_eq!(names, ["a2", "b", "c"]);
        assert_eq!(sink.batches(), [2, 2]);
    }

    #[test]
    fn one_span_id_in_two_traces_names_two_spans() {
        let sink = MemorySink::new();
        sink.upsert(&[span(1, 7, "a"), span(2, 7, "b")].into_iter().collect()).unwrap();
        assert_eq!(sink.spans().len(), 2);
        assert_eq!(sink.trace(&TraceId::from_bits(2)), [span(2, 7, "b")]);
        assert_eq!(sink.trace(&TraceId::from_bits(3)), []);
    }

    #[test]
    fn a_failing_sink_stores_nothing_until_it_is_healed() {
        let sink = MemorySink::new();
        let batch: SpanBatch = [span(1, 1, "a")].into_iter().collect();
        let seen = sink.clone();
        sink.fail_with(move |batch| {
            assert_eq!((batch.len(), seen.spans().len()), (1, 0));
            Some(SinkError::rejected("no"))
        });
        assert!(sink.upsert(&batch).unwrap_err().is_rejection());
        assert_eq!((sink.spans(), sink.batches()), (vec![], vec![]));

        sink.fail_with(|_| None);
        sink.clone().upsert(&batch).unwrap();
        assert_eq!(sink.batches(), [1]);
    }

    #[tokio::test]
    async fn who_waits_is_asked_at_once_and_after_each_batch() {
        let sink = MemorySink::new();
        let filled = sink.clone();
        let mut seen = Vec::new();
        let waiting = sink.wait_for(|spans| {
            seen.push(spans.len());
            // A batch that is stored while the first one is looked at is not overseen.
            filled.upsert(&[span(1, spans.len() as u128, "a")].into_iter().collect()).unwrap();
            spans.len() == 2
        });
        assert_eq!(waiting.await.len(), 2);
        assert_eq!(seen, [0, 1, 2]);
    }
}
