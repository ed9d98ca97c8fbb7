//! What the deliverer makes of a sink's contract.

use std::time::Duration;

use durable_spans_model::{SpanId, SpanStatus, TraceId};
use durable_spans_workflow::digest;
use futures::future::BoxFuture;

use super::*;
use crate::MemorySink;

const WAIT: Duration = Duration::from_millis(900);

/// A sink in memory with another contract.
#[derive(Clone)]
struct Under(Contract, MemorySink);

impl Under {
    fn new(contract: Contract) -> Self {
        Self(contract, MemorySink::new())
    }
}

impl SpanSink for Under {
    fn upsert_batch<'a>(&'a self, batch: &'a SpanBatch) -> BoxFuture<'a, Result<(), SinkError>> {
        self.1.upsert_batch(batch)
    }

    fn contract(&self) -> Contract {
        self.0
    }
}

fn span(id: u128) -> Span {
    let start = Timestamp::from(SystemTime::now());
    let mut span = Span::new(TraceId::from_bits(1), SpanId::from_bits(id), "s", start);
    span.end_timestamp = Some(span.start_timestamp);
    span
}

fn open(id: u128) -> Span {
    Span { end_timestamp: None, ..span(id) }
}

fn group(flush: u32, spans: Vec<Span>) -> FlushGroup {
    FlushGroup { flush, digest: digest(&spans), part_of: None, spans: spans.into() }
}

#[tokio::test(start_paused = true)]
async fn open_spans_are_acknowledged_and_not_sent_to_a_sink_that_could_not_finish_them() {
    let sink = Under::new(Contract::append_only());
    let deliverer = Deliverer::new(sink.clone());
    let announced = group(1, vec![open(1), open(2)]);
    let taken = deliverer.take_flush("run", vec![announced.clone()], WAIT).await;
    assert_eq!(taken.delivered, [announced.acknowledgement()]);
    assert!(sink.1.batches().is_empty());
    let ended = group(2, vec![span(1), span(2)]);
    let taken = deliverer.take_flush("run", vec![announced, ended], WAIT).await;
    assert_eq!(taken.delivered.len(), 2);
    assert_eq!(sink.1.batches(), [2]);
    assert_eq!(deliverer.statistics().delivered, 2);
}

#[tokio::test(start_paused = true)]
async fn a_span_goes_once_to_a_sink_that_keeps_every_copy() {
    for contract in [Contract::append_only(), Contract::first_write_wins()] {
        let sink = Under::new(contract);
        let deliverer = Deliverer::new(sink.clone());
        let mut flush = group(1, vec![span(1), span(2)]);
        deliverer.take_flush("run", vec![flush.clone()], WAIT).await;
        // Its workflow task was lost, and done again with another outcome and one span more.
        Arc::make_mut(&mut flush.spans)[0].status = SpanStatus::Error;
        Arc::make_mut(&mut flush.spans).push(span(3));
        let flush = group(1, flush.spans.to_vec());
        let taken = deliverer.take_flush("run", vec![flush.clone()], WAIT).await;
        assert_eq!(taken.delivered, [flush.acknowledgement()]);
        // The same spans by another way, as a courier takes them.
        deliverer.take_flush("courier", vec![flush], WAIT).await;
        assert_eq!(sink.1.batches(), [2, 1]);
        assert_eq!(deliverer.statistics().deferred, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_span_is_created_once_and_finished_once() {
    let sink = Under::new(Contract::create_then_finish());
    let deliverer = Deliverer::new(sink.clone());
    for (flush, spans) in
        [vec![open(1)], vec![span(1)], vec![open(1)], vec![span(1)]].into_iter().enumerate()
    {
        deliverer.take_flush("run", vec![group(flush as u32, spans)], WAIT).await;
    }
    assert_eq!(sink.1.batches(), [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn batches_are_as_large_as_the_contract_says() {
    let sink = Under::new(Contract::upsert().batch_spans(7));
    let deliverer = Deliverer::new(sink.clone());
    deliverer.take_flush("run", vec![group(1, (0..20).map(span).collect())], WAIT).await;
    assert_eq!(sink.1.batches(), [7, 7, 6]);

    let bytes = 3 * EncodedSpan::new(span(1)).encoded_len() + 10;
    let sink = Under::new(Contract::upsert().batch_bytes(bytes));
    let deliverer = Deliverer::new(sink.clone());
    deliverer.take_flush("run", vec![group(1, (10..16).map(span).collect())], WAIT).await;
    assert_eq!(sink.1.batches(), [3, 3]);
}

#[tokio::test(start_paused = true)]
async fn what_the_sink_would_not_keep_is_counted_and_costs_no_call() {
    let contract = Contract::append_only().oldest(Duration::from_secs(3600)).check(Span::validate);
    let sink = Under::new(contract);
    let deliverer = Deliverer::new(sink.clone());
    let mut old = span(1);
    old.start_timestamp = Timestamp::from_unix_ns(0);
    old.end_timestamp = Some(Timestamp::from_unix_ns(1));
    let mut backwards = span(2);
    backwards.end_timestamp = Some(Timestamp::from_unix_ns(0));
    let flush = group(1, vec![old, backwards, span(3)]);
    let taken = deliverer.take_flush("run", vec![flush], WAIT).await;
    assert_eq!(taken.delivered.len(), 1, "a dropped span holds nothing back");
    let statistics = deliverer.statistics();
    assert_eq!((statistics.recorded, statistics.delivered, statistics.deferred), (3, 1, 0));
    assert_eq!(statistics.dropped[&DropReason::TooOld], 1);
    assert_eq!(statistics.dropped[&DropReason::Rejected], 1);
    assert_eq!(sink.1.batches(), [1]);
}

#[tokio::test(start_paused = true)]
async fn spans_that_a_sink_rejected_without_naming_them_are_counted_and_not_sent_again() {
    let sink = Under::new(Contract::append_only());
    let mut answers = 0;
    sink.1.fail_with(move |_| {
        answers += 1;
        (answers == 1).then(|| SinkError::partly_rejected(2, "no"))
    });
    let deliverer = Deliverer::new(sink.clone());
    let flush = group(1, (0..10).map(span).collect());
    let taken = deliverer.take_flush("run", vec![flush.clone()], WAIT).await;
    assert_eq!(taken.delivered.len(), 1);
    deliverer.take_flush("courier", vec![flush], WAIT).await;
    let statistics = deliverer.statistics();
    assert_eq!((statistics.recorded, statistics.delivered, statistics.deferred), (20, 18, 0));
    assert_eq!(statistics.dropped[&DropReason::Rejected], 2);
    assert!(sink.1.batches().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_may_be_there_twice_is_counted_where_copies_are_kept() {
    let lost = || SinkError::retryable("the answer was lost");
    for (contract, error, doubtful) in [
        (Contract::append_only(), lost(), 6),
        (Contract::append_only(), lost().not_stored(), 0),
        (Contract::append_only(), SinkError::credentials("wrong key"), 0),
        (Contract::first_write_wins(), lost(), 0),
        (Contract::upsert(), lost(), 0),
    ] {
        let sink = Under::new(contract);
        let mut failures = 2;
        sink.1.fail_with(move |_| {
            failures -= 1;
            (failures >= 0).then(|| error.clone())
        });
        let deliverer = Deliverer::new(sink.clone());
        deliverer.take_last("run", &group(1, vec![span(1), span(2), span(3)]));
        let statistics = deliverer.flush(Duration::from_secs(60)).await;
        assert_eq!((statistics.delivered, statistics.doubtful), (3, doubtful), "{contract:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_given_up_may_be_there_too() {
    let deliverer = Deliverer::new(Hanging);
    let (expired, kept) = (group(1, vec![span(1)]), group(2, vec![span(2)]));
    let taken = deliverer.take_flush("run", vec![expired.clone(), kept], WAIT).await;
    assert_eq!(taken.delivered, []);
    deliverer.give_up("run", &[expired]);
    let statistics = deliverer.flush(Duration::from_secs(1)).await;
    assert_eq!((statistics.dropped_total(), statistics.deferred, statistics.doubtful), (1, 1, 2));
}

/// Never answers.
struct Hanging;

impl SpanSink for Hanging {
    fn upsert_batch<'a>(&'a self, _: &'a SpanBatch) -> BoxFuture<'a, Result<(), SinkError>> {
        Box::pin(std::future::pending())
    }
}
