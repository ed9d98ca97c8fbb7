use std::{future::Future, sync::Arc, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use durable_spans_activity::{Contract, EncodedSpan, SinkError, SpanBatch, SpanSink};
use durable_spans_model::Span;

/// Sends spans to a sink, in their order.
pub(super) struct Delivery {
    pub(super) sink: Arc<dyn SpanSink>,
    pub(super) patience: Duration,
}

impl Delivery {
    /// Sends all that the sink keeps, in batches as the deliverer's. Returns the reason for each span
    /// that the sink refused.
    ///
    /// # Errors
    ///
    /// When the sink does not take spans for longer than the patience, or does not know us.
    pub(super) async fn deliver(&self, spans: Vec<Span>) -> Result<Vec<String>, SinkError> {
        let contract = self.sink.contract();
        let mut refused = Vec::new();
        let mut kept = Vec::with_capacity(spans.len());
        for span in spans {
            match contract.refuses(&span) {
                Some(error) => refused.push(format!("span {}: {error}", span.id)),
                None => kept.push(span),
            }
        }
        let mut waiting: Vec<SpanBatch> = batches(kept, &contract);
        // A stack: what is to be sent next is last.
        waiting.reverse();
        while let Some(batch) = waiting.pop() {
            match self.retried(|| self.sink.upsert_batch(&batch)).await {
                Ok(()) => {}
                // The others are stored, and nobody knows which these are.
                Err(error) if error.rejected_spans().is_some() => {
                    refused.push(format!("in a batch of {} spans, {error}", batch.len()));
                }
                Err(error) if error.is_rejection() && batch.len() > 1 => {
                    let (first, second) = batch.split();
                    waiting.extend([second, first]);
                }
                Err(error) if error.is_rejection() => {
                    let ids = batch.spans().map(|span| span.id.to_string());
                    refused.extend(ids.map(|id| format!("span {id}: {error}")));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(refused)
    }

    pub(super) async fn retried<T, F: Future<Output = Result<T, SinkError>>>(
        &self,
        attempt: impl FnMut() -> F,
    ) -> Result<T, SinkError> {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(10))
            .with_total_delay(Some(self.patience))
            .without_max_times()
            .with_jitter();
        attempt
            .retry(pauses)
            .when(SinkError::is_retryable)
            .adjust(|error: &SinkError, pause| error.retry_after().max(Some(pause?)))
            .await
    }
}

/// As the sink's contract asks for them: one that cannot finish a span gets no open ones.
fn batches(spans: Vec<Span>, contract: &Contract) -> Vec<SpanBatch> {
    let takes = |span: &Span| contract.takes_open_spans() || span.end_timestamp.is_some();
    let spans = spans.into_iter().filter(takes);
    let (most_spans, most_bytes) = (contract.max_batch_spans(), contract.max_batch_bytes());
    let mut batches: Vec<Vec<Arc<EncodedSpan>>> = Vec::new();
    let mut bytes = 0;
    for span in spans {
        let span = Arc::new(contract.cut(EncodedSpan::new(span)));
        let size = span.encoded_len();
        match batches.last_mut() {
            Some(batch) if batch.len() < most_spans && bytes + size <= most_bytes => {
                bytes += size;
                batch.push(span);
            }
            _ => {
                bytes = size;
                batches.push(vec![span]);
            }
        }
    }
    batches.into_iter().map(SpanBatch::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use durable_spans_activity::MemorySink;
    use durable_spans_model::{SpanId, Timestamp, TraceId};
    use futures::{FutureExt, future::BoxFuture};

    fn spans(count: u128) -> Vec<Span> {
        let span = |id| {
            Span::new(TraceId::from_bits(1), SpanId::from_bits(id), "s", Timestamp::from_unix_ns(0))
        };
        (1..=count).map(span).collect()
    }

    fn delivery(sink: &MemorySink, patience: Duration) -> Delivery {
        Delivery { sink: Arc::new(sink.clone()), patience }
    }

    #[tokio::test(start_paused = true)]
    async fn batches_hold_at_most_500_spans_and_an_outage_is_waited_out() {
        let sink = MemorySink::new();
        let mut outages = 5;
        sink.fail_with(move |_| {
            outages -= 1;
            (outages >= 0).then(|| SinkError::retryable("down"))
        });
        let delivery = delivery(&sink, Duration::from_secs(60));
        assert_eq!(delivery.deliver(spans(1_201)).await.unwrap(), [""; 0]);
        assert_eq!(sink.batches(), [500, 500, 201]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_span_at_fault_is_named_and_the_others_arrive_in_order() {
        let sink = MemorySink::new();
        sink.fail_with(|batch| {
            let faulty = |span: &Span| span.id == SpanId::from_bits(7);
            batch.spans().any(faulty).then(|| SinkError::rejected("no"))
        });
        let refused = delivery(&sink, Duration::from_secs(60)).deliver(spans(20)).await.unwrap();
        assert_eq!(refused.len(), 1);
        assert!(refused[0].ends_with("no"), "{refused:?}");
        let arrived: Vec<_> = sink.spans().into_iter().filter_map(|span| span.id.bits()).collect();
        assert_eq!(arrived, (1..=6).chain(8..=20).collect::<Vec<_>>());
    }

    /// Takes each batch except for two spans of it.
    struct Partly(MemorySink);

    impl SpanSink for Partly {
        fn upsert_batch<'a>(
            &'a self,
            batch: &'a SpanBatch,
        ) -> BoxFuture<'a, Result<(), SinkError>> {
            async move {
                self.0.upsert_batch(batch).await?;
                Err(SinkError::partly_rejected(2, "no"))
            }
            .boxed()
        }

        fn contract(&self) -> Contract {
            Contract::append_only().oldest(Duration::from_secs(60)).value_bytes(2_000)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_contract_says_holds_and_what_was_taken_in_part_is_not_sent_again() {
        let memory = MemorySink::new();
        let sink = Arc::new(Partly(memory.clone()));
        let mut spans = spans(4);
        let now = Timestamp::from(std::time::SystemTime::now());
        spans[0].end_timestamp = Some(spans[0].start_timestamp);
        spans[1..].iter_mut().for_each(|span| span.end_timestamp = Some(now));
        spans[3].input.insert("text".into(), "x".repeat(5_000).into());
        let delivery = Delivery { sink, patience: Duration::from_secs(60) };
        let refused = delivery.deliver(spans).await.unwrap();
        assert!(refused[0].contains("longer ago than the 60s that the sink keeps"), "{refused:?}");
        assert_eq!(refused[1..], ["in a batch of 3 spans, the sink rejected 2 spans: no"]);
        assert_eq!(memory.batches(), [3]);
        assert!(memory.spans().iter().any(|span| span.metadata.contains_key("truncated")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_sink_that_stays_down_is_given_up_after_the_patience() {
        let sink = MemorySink::new();
        sink.fail_with(|_| Some(SinkError::retryable("down")));
        let error = delivery(&sink, Duration::from_secs(5)).deliver(spans(1)).await.unwrap_err();
        assert!(error.is_retryable());
        sink.fail_with(|_| Some(SinkError::credentials("key")));
        let error = delivery(&sink, Duration::from_secs(5)).deliver(spans(1)).await.unwrap_err();
        assert!(error.is_credentials());
    }
}
