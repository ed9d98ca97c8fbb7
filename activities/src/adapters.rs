//! Sinks around sinks.

use std::{collections::HashSet, fmt, sync::Arc};

use durable_spans_model::{Span, SpanId, TraceId};
use futures::{FutureExt, future::BoxFuture};

use crate::{Contract, EncodedSpan, SinkError, SpanBatch, SpanSink};

/// A sink that gets some spans only. Made by [`SpanSink::filter`].
pub struct Filter<S, F> {
    sink: S,
    keep: F,
}

impl<S, F> Filter<S, F> {
    pub(crate) fn new(sink: S, keep: F) -> Self {
        Self { sink, keep }
    }
}

impl<S, F> SpanSink for Filter<S, F>
where
    S: SpanSink,
    F: Fn(&Span) -> bool + Send + Sync + 'static,
{
    fn upsert_batch<'a>(&'a self, batch: &'a SpanBatch) -> BoxFuture<'a, Result<(), SinkError>> {
        async move {
            let kept = batch.encoded().iter().filter(|encoded| (self.keep)(encoded.span()));
            let kept = SpanBatch::new(kept.cloned().collect());
            if kept.is_empty() { Ok(()) } else { self.sink.upsert_batch(&kept).await }
        }
        .boxed()
    }

    fn ended_spans<'a>(
        &'a self,
        trace_id: &'a TraceId,
    ) -> BoxFuture<'a, Result<Option<HashSet<SpanId>>, SinkError>> {
        self.sink.ended_spans(trace_id)
    }

    fn contract(&self) -> Contract {
        self.sink.contract().ended_only()
    }

    fn name(&self) -> &str {
        self.sink.name()
    }
}

impl<S: fmt::Debug, F> fmt::Debug for Filter<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filter").field("sink", &self.sink).finish_non_exhaustive()
    }
}

/// A sink that gets spans changed. Made by [`SpanSink::map`].
pub struct Map<S, F> {
    sink: S,
    change: F,
}

impl<S, F: Fn(&mut Span)> Map<S, F> {
    pub(crate) fn new(sink: S, change: F) -> Self {
        Self { sink, change }
    }

    fn changed(&self, span: &Span) -> Span {
        let mut changed = span.clone();
        (self.change)(&mut changed);
        Span {
            id: span.id.clone(),
            trace_id: span.trace_id.clone(),
            parent_id: span.parent_id.clone(),
            start_timestamp: span.start_timestamp,
            end_timestamp: span.end_timestamp,
            ..changed
        }
    }
}

impl<S, F> SpanSink for Map<S, F>
where
    S: SpanSink,
    F: Fn(&mut Span) + Send + Sync + 'static,
{
    fn upsert_batch<'a>(&'a self, batch: &'a SpanBatch) -> BoxFuture<'a, Result<(), SinkError>> {
        async move {
            let changed = batch.spans().map(|span| Arc::new(EncodedSpan::new(self.changed(span))));
            self.sink.upsert_batch(&SpanBatch::new(changed.collect())).await
        }
        .boxed()
    }

    fn ended_spans<'a>(
        &'a self,
        trace_id: &'a TraceId,
    ) -> BoxFuture<'a, Result<Option<HashSet<SpanId>>, SinkError>> {
        self.sink.ended_spans(trace_id)
    }

    fn contract(&self) -> Contract {
        self.sink.contract()
    }

    fn name(&self) -> &str {
        self.sink.name()
    }
}

impl<S: fmt::Debug, F> fmt::Debug for Map<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map").field("sink", &self.sink).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use durable_spans_model::{Fields, Timestamp};

    use super::*;
    use crate::MemorySink;

    fn batch() -> SpanBatch {
        let start = Timestamp::from_unix_ns(0);
        let span = |id: u128| {
            let mut span = Span::new(TraceId::from_bits(1), SpanId::from_bits(id), "s", start);
            span.input.insert("secret".into(), id.to_string().into());
            span
        };
        (1..=4).map(span).collect()
    }

    #[tokio::test]
    async fn a_filter_lets_some_spans_through_and_makes_no_empty_call() {
        let memory = MemorySink::new();
        let even = memory.clone().filter(|span| span.id.bits().is_some_and(|bits| bits % 2 == 0));
        even.upsert_batch(&batch()).await.unwrap();
        let none = memory.clone().filter(|_| false);
        none.upsert_batch(&batch()).await.unwrap();
        assert_eq!(memory.batches(), [2]);
        assert_eq!(even.name(), "memory");
        assert!(memory.contract().takes_open_spans());
        assert!(!even.contract().takes_open_spans());
    }

    #[tokio::test]
    async fn both_know_what_has_ended_in_their_sink() {
        let memory = MemorySink::new();
        let mut spans: Vec<Span> = batch().spans().cloned().collect();
        spans[0].end_timestamp = Some(spans[0].start_timestamp);
        memory.upsert_batch(&SpanBatch::from_iter(spans.clone())).await.unwrap();
        let trace = &spans[0].trace_id;
        let of_memory = memory.ended_spans(trace).await.unwrap();
        assert_eq!(of_memory, Some(HashSet::from([spans[0].id.clone()])));
        let (filtered, mapped) = (memory.clone().filter(|_| true), memory.clone().map(|_| ()));
        assert_eq!(filtered.ended_spans(trace).await.unwrap(), of_memory);
        assert_eq!(mapped.ended_spans(trace).await.unwrap(), of_memory);
    }

    #[tokio::test]
    async fn a_map_changes_data_and_neither_ids_nor_times() {
        let memory = MemorySink::new();
        let sink = memory.clone().map(|span| {
            *span = Span::new(
                TraceId::from_bits(9),
                SpanId::from_bits(9),
                span.name.to_uppercase(),
                Timestamp::from_unix_ns(9),
            );
        });
        let batch = batch();
        sink.upsert_batch(&batch).await.unwrap();
        let expected: Vec<_> = batch
            .spans()
            .cloned()
            .map(|span| Span { name: "S".into(), input: Fields::new(), ..span })
            .collect();
        assert_eq!(memory.spans(), expected);
    }
}
