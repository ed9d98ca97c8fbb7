use std::{collections::HashSet, fmt, sync::Arc};

use durable_spans_model::{Span, SpanId, TraceId};
use futures::{FutureExt, future, future::BoxFuture};

use crate::{
    Contract, SinkError,
    adapters::{Filter, Map},
    encoding::Encoded,
};

/// Most spans that go to a sink in one call, if its contract does not say. SGP takes up to 1000.
pub const MAX_BATCH_SPANS: usize = 500;

/// Most bytes of encoded spans that go to a sink in one call, before compression, if its contract
/// does not say. A single span that is larger goes alone.
pub const MAX_BATCH_BYTES: usize = 1_000_000;

/// Takes spans to where they are kept.
///
/// Implement it to send spans elsewhere than to the sinks that there are. Retrying, splitting a
/// refused batch and pausing while the sink is down are done by the caller; a sink makes one
/// attempt and says what came of it. One that says nothing about itself gets each span once, when
/// it has ended:
///
/// ```
/// use durable_spans_activity::{SinkError, SpanBatch, SpanSink};
/// use futures::future::BoxFuture;
///
/// /// Prints each span as a line of JSON.
/// struct Print;
///
/// impl SpanSink for Print {
///     fn upsert_batch<'a>(&'a self, batch: &'a SpanBatch) -> BoxFuture<'a, Result<(), SinkError>> {
///         Box::pin(async move {
///             for span in batch.encoded() {
///                 println!("{}", span.json());
///             }
///             Ok(())
///         })
///     }
/// }
/// ```
pub trait SpanSink: Send + Sync + 'static {
    /// Stores the spans of the batch, all or none.
    ///
    /// The same spans are sent again, perhaps in other batches, whenever an acknowledgement was
    /// lost. What comes of that is what [`contract`](Self::contract) says.
    ///
    /// Calls come one at a time from each place where the sink is installed, and overlap if it is
    /// shared by several. The future may be dropped before it ends; the batch may then have been
    /// stored or not. It is expected to end within seconds by itself: see
    /// [`SinkError::retryable`] for a sink that does not answer.
    ///
    /// # Errors
    ///
    /// What the [`SinkError`] is decides what happens to the spans: they are kept and sent again
    /// ([`is_retryable`](SinkError::is_retryable),
    /// [`is_credentials`](SinkError::is_credentials)), or the batch is halved until the spans at
    /// fault are found and dropped ([`is_rejection`](SinkError::is_rejection)).
    fn upsert_batch<'a>(&'a self, batch: &'a SpanBatch) -> BoxFuture<'a, Result<(), SinkError>>;

    /// The ids of the spans of a trace that are stored and have ended, `None` where the sink cannot
    /// tell, as it cannot by default.
    ///
    /// Backfill asks, so that it adds what is missing and replaces nothing.
    ///
    /// # Errors
    ///
    /// When the sink could not be asked now.
    fn ended_spans<'a>(
        &'a self,
        trace_id: &'a TraceId,
    ) -> BoxFuture<'a, Result<Option<HashSet<SpanId>>, SinkError>> {
        let _ = trace_id;
        future::ready(Ok(None)).boxed()
    }

    /// What the sink does with what it is given. Read once, when the sink is installed. Default:
    /// [`Contract::append_only`].
    fn contract(&self) -> Contract {
        Contract::default()
    }

    /// A short name for logs and metrics, to tell several sinks apart. Default: `sink`.
    fn name(&self) -> &str {
        "sink"
    }

    /// The same sink for those spans only for which `keep` says yes. The others count as delivered.
    ///
    /// Spans are judged when they have ended, so the sink gets no open ones: else a span could be
    /// announced and never end. A span whose parent is left out names a parent that is not there.
    ///
    /// ```
    /// use durable_spans_activity::{MemorySink, SpanSink};
    /// use durable_spans_model::SpanStatus;
    ///
    /// let failures = MemorySink::new().filter(|span| span.status == SpanStatus::Error);
    /// ```
    fn filter<F>(self, keep: F) -> Filter<Self, F>
    where
        Self: Sized,
        F: Fn(&Span) -> bool + Send + Sync + 'static,
    {
        Filter::new(self, keep)
    }

    /// The same sink for spans as `change` leaves them. Ids and times stay as they were: by these the
    /// sink tells spans apart and puts them into their place.
    ///
    /// ```
    /// use durable_spans_activity::{MemorySink, SpanSink};
    ///
    /// let without_inputs = MemorySink::new().map(|span| span.input.clear());
    /// ```
    fn map<F>(self, change: F) -> Map<Self, F>
    where
        Self: Sized,
        F: Fn(&mut Span) + Send + Sync + 'static,
    {
        Map::new(self, change)
    }
}

macro_rules! forward {
    ($pointer:ident) => {
        impl<S: SpanSink + ?Sized> SpanSink for $pointer<S> {
            fn upsert_batch<'a>(
                &'a self,
                batch: &'a SpanBatch,
            ) -> BoxFuture<'a, Result<(), SinkError>> {
                (**self).upsert_batch(batch)
            }

            fn ended_spans<'a>(
                &'a self,
                trace_id: &'a TraceId,
            ) -> BoxFuture<'a, Result<Option<HashSet<SpanId>>, SinkError>> {
                (**self).ended_spans(trace_id)
            }

            fn contract(&self) -> Contract {
                (**self).contract()
            }

            fn name(&self) -> &str {
                (**self).name()
            }
        }
    };
}

forward!(Arc);
forward!(Box);

/// A span together with its JSON, the SGP wire form, encoded once.
///
/// Batching needs the size of a span and sending needs its bytes, perhaps several times: both come
/// from the one encoding. The spans of a run's flush share their memory, so a clone costs nothing.
#[derive(Clone)]
pub struct EncodedSpan {
    all: Arc<Encoded>,
    index: usize,
}

impl EncodedSpan {
    /// Encodes `span`.
    pub fn new(span: Span) -> Self {
        Self { all: Arc::new(Encoded::new(Arc::new(vec![span]))), index: 0 }
    }

    /// Encodes all of these spans.
    pub(crate) fn all(spans: Arc<Vec<Span>>) -> impl ExactSizeIterator<Item = Self> {
        let count = spans.len();
        let all = Arc::new(Encoded::new(spans));
        (0..count).map(move |index| Self { all: all.clone(), index })
    }

    /// The span.
    pub fn span(&self) -> &Span {
        &self.all.spans[self.index]
    }

    /// The span as JSON on one line.
    pub fn json(&self) -> &str {
        self.all.json(self.index)
    }

    /// Length of [`json`](Self::json) in bytes.
    pub fn encoded_len(&self) -> usize {
        self.json().len()
    }

    /// The span without its encoding.
    pub fn into_span(self) -> Span {
        self.span().clone()
    }
}

impl PartialEq for EncodedSpan {
    fn eq(&self, other: &Self) -> bool {
        self.span() == other.span()
    }
}

impl From<Span> for EncodedSpan {
    fn from(span: Span) -> Self {
        Self::new(span)
    }
}

impl fmt::Debug for EncodedSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.span().fmt(f)
    }
}

/// The spans that go to a sink in one call.
///
/// The deliverer puts as much into a batch as the sink's [`Contract`] allows, parents before their
/// children. The type itself does not limit what it holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SpanBatch {
    spans: Vec<Arc<EncodedSpan>>,
}

impl SpanBatch {
    /// A batch of `spans` in this order.
    pub fn new(spans: Vec<Arc<EncodedSpan>>) -> Self {
        Self { spans }
    }

    /// The spans in the order in which they should be stored.
    pub fn spans(&self) -> impl ExactSizeIterator<Item = &Span> {
        self.spans.iter().map(|encoded| encoded.span())
    }

    /// The spans with their encodings, in the same order.
    pub fn encoded(&self) -> &[Arc<EncodedSpan>] {
        &self.spans
    }

    /// Number of spans.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are no spans.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Sum of the lengths of the spans' JSON in bytes, without what a sink puts around them.
    pub fn encoded_len(&self) -> usize {
        self.spans.iter().map(|encoded| encoded.encoded_len()).sum()
    }

    /// The two halves, to find a span at fault by bisection. Order is kept and the first half
    /// holds the odd span, so the second is empty for a batch of one.
    #[must_use]
    pub fn split(mut self) -> (Self, Self) {
        let second = self.spans.split_off(self.spans.len().div_ceil(2));
        (self, Self::new(second))
    }
}

impl From<Vec<Arc<EncodedSpan>>> for SpanBatch {
    fn from(spans: Vec<Arc<EncodedSpan>>) -> Self {
        Self::new(spans)
    }
}

impl FromIterator<Span> for SpanBatch {
    /// Encodes each span.
    fn from_iter<I: IntoIterator<Item = Span>>(spans: I) -> Self {
        Self::new(spans.into_iter().map(|span| Arc::new(EncodedSpan::new(span))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use durable_spans_model::{SpanId, Timestamp, TraceId};

    fn batch(count: u128) -> SpanBatch {
        let span = |id| {
            Span::new(TraceId::from_bits(1), SpanId::from_bits(id), "s", Timestamp::from_unix_ns(0))
        };
        (0..count).map(span).collect()
    }

    #[test]
    fn the_json_of_an_encoded_span_reads_back_as_the_span() {
        let batch = batch(1);
        let encoded = &batch.encoded()[0];
        assert_eq!(&serde_json::from_str::<Span>(encoded.json()).unwrap(), encoded.span());
        assert_eq!(encoded.encoded_len(), encoded.json().len());
    }

    #[test]
    fn the_size_of_a_batch_is_that_of_its_spans() {
        let batch = batch(3);
        assert_eq!(batch.encoded_len(), 3 * batch.encoded()[0].encoded_len());
        assert_eq!(SpanBatch::default().encoded_len(), 0);
    }

    #[test]
    fn halves_keep_order_and_lose_nothing() {
        for count in 0..6_usize {
            let whole = batch(count as u128);
            let (first, second) = whole.clone().split();
            assert_eq!(first.len(), count.div_ceil(2));
            let joined: Vec<_> = first.spans().chain(second.spans()).collect();
            assert_eq!(joined, whole.spans().collect::<Vec<_>>());
        }
    }

    #[test]
    fn halving_a_batch_again_and_again_ends_at_single_spans() {
        let mut left = vec![batch(11)];
        let mut singles = 0;
        while let Some(batch) = left.pop() {
            if batch.len() == 1 {
                singles += 1;
                continue;
            }
            let (first, second) = batch.split();
            left.extend([first, second]);
        }
        assert_eq!(singles, 11);
    }
}
