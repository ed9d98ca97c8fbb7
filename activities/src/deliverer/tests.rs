use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use durable_spans_model::{SpanId, Timestamp, TraceId};
use durable_spans_workflow::digest;
use futures::{FutureExt, future::BoxFuture};
use proptest::prelude::*;
use tokio::{sync::Semaphore, time::Instant};

use super::*;
use crate::{MAX_BATCH_BYTES, MAX_BATCH_SPANS, MemorySink};

const WAIT: Duration = Duration::from_millis(900);

fn span(id: u128) -> Span {
    let mut span =
        Span::new(TraceId::from_bits(1), SpanId::from_bits(id), "s", Timestamp::from_unix_ns(0));
    span.end_timestamp = Some(span.start_timestamp);
    span
}

fn spans(ids: impl IntoIterator<Item = u128>) -> Vec<Span> {
    ids.into_iter().map(span).collect()
}

fn group(flush: u32, spans: Vec<Span>) -> FlushGroup {
    FlushGroup { flush, digest: digest(&spans), part_of: None, spans: spans.into() }
}

/// Lets a batch through per permit, and remembers when each came.
#[derive(Clone, Default)]
struct Gate {
    memory: MemorySink,
    permits: Arc<Option<Semaphore>>,
    calls: Arc<Mutex<Vec<Instant>>>,
}

impl Gate {
    fn closed() -> Self {
        Self { permits: Arc::new(Some(Semaphore::new(0))), ..Self::default() }
    }

    fn open(&self, calls: usize) {
        self.permits.as_ref().as_ref().unwrap().add_permits(calls);
    }

    fn calls(&self) -> Vec<Instant> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl SpanSink for Gate {
    fn upsert_batch<'a>(&'a self, batch: &'a SpanBatch) -> BoxFuture<'a, Result<(), SinkError>> {
        async move {
            self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
            if let Some(permits) = self.permits.as_ref() {
                permits.acquire().await.unwrap().forget();
            }
            self.memory.upsert_batch(batch).await
        }
        .boxed()
    }

    fn contract(&self) -> Contract {
        self.memory.contract()
    }
}

/// A normal activity that flushes may start after the one of a later flush.
#[tokio::test(start_paused = true)]
async fn an_open_record_that_was_overtaken_by_the_end_does_not_undo_it() {
    let gate = Gate::closed();
    let deliverer = Deliverer::new(gate.clone());
    let open = |id| Span { end_timestamp: None, ..span(id) };
    // Holds the sink, so that the others are gathered into one batch.
    deliverer.take_flush("run", vec![group(1, spans([9]))], Duration::ZERO).await;
    tokio::task::yield_now().await;
    deliverer.take_flush("run", vec![group(3, spans([1]))], Duration::ZERO).await;
    deliverer.take_flush("run", vec![group(2, vec![open(1), open(2)])], Duration::ZERO).await;
    gate.open(2);
    deliverer.flush(WAIT).await;
    let ended: Vec<_> =
        gate.memory.spans().iter().map(|span| span.end_timestamp.is_some()).collect();
    assert_eq!(ended, [true, true, false]);
}

#[tokio::test(start_paused = true)]
async fn what_arrives_while_a_request_is_in_flight_goes_together_in_batches_of_500() {
    let gate = Gate::closed();
    let deliverer = Deliverer::new(gate.clone());
    deliverer.take_flush("first", vec![group(1, spans([0]))], Duration::ZERO).await;
    while gate.calls().is_empty() {
        tokio::task::yield_now().await;
    }
    for run in 0..120u128 {
        let ids = (1..=10).map(|id| 1 + run * 10 + id);
        deliverer
            .take_flush(&format!("run {run}"), vec![group(1, spans(ids))], Duration::ZERO)
            .await;
    }
    gate.open(10);
    let statistics = deliverer.flush(Duration::from_secs(1)).await;
    assert_eq!(gate.memory.batches(), [1, 500, 500, 200]);
    assert_eq!((statistics.recorded, statistics.delivered), (1201, 1201));
    assert_eq!((statistics.deferred, statistics.dropped_total()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_batch_stays_under_a_megabyte_and_a_larger_span_goes_alone() {
    let sink = MemorySink::new();
    let deliverer = Deliverer::new(sink.clone());
    let large = |id, kilobytes: usize| {
        let mut span = span(id);
        span.input.insert("text".into(), "x".repeat(kilobytes * 1000).into());
        span
    };
    let mut all: Vec<Span> = (0..5).map(|id| large(id, 300)).collect();
    all.push(large(5, 1500));
    all.push(span(6));
    deliverer.take_flush("run", vec![group(1, all)], WAIT).await;
    assert_eq!(sink.batches(), [3, 2, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn an_outage_loses_nothing_and_retry_after_is_obeyed() {
    let gate = Gate::default();
    let mut outages = 2;
    gate.memory.fail_with(move |_| {
        outages -= 1;
        let error = SinkError::retryable("down");
        (outages >= 0).then(|| error.with_retry_after(Duration::from_secs(30)))
    });
    let deliverer = Deliverer::new(gate.clone());
    let reply = deliverer.take_flush("run", vec![group(1, spans(0..3))], WAIT).await;
    assert!(reply.delivered.is_empty());
    assert_eq!(deliverer.statistics().deferred, 3);
    let statistics = deliverer.flush(Duration::from_secs(600)).await;
    assert_eq!((statistics.delivered, statistics.deferred), (3, 0));
    let calls = gate.calls();
    assert!(calls[1] - calls[0] >= Duration::from_secs(30));
    assert_eq!(calls.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_flush_waits_for_the_span_that_is_on_its_way() {
    let gate = Gate::closed();
    let deliverer = Deliverer::new(gate.clone());
    deliverer.take_span(span(1), Duration::ZERO).await;
    while gate.calls().is_empty() {
        tokio::task::yield_now().await;
    }
    let (statistics, ()) = tokio::join!(deliverer.flush(Duration::from_secs(5)), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        gate.open(1);
    });
    assert_eq!((statistics.delivered, statistics.deferred), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_wrong_key_drops_nothing() {
    let sink = MemorySink::new();
    sink.fail_with(|_| Some(SinkError::credentials("wrong key")));
    let deliverer = Deliverer::new(sink.clone());
    deliverer.take_flush("run", vec![group(1, spans(0..3))], WAIT).await;
    let down = deliverer.flush(Duration::from_secs(300)).await;
    assert_eq!((down.deferred, down.dropped_total()), (3, 0));
    sink.fail_with(|_| None);
    assert_eq!(deliverer.flush(Duration::from_secs(300)).await.delivered, 3);
}

#[tokio::test(start_paused = true)]
async fn one_bad_span_among_450_is_dropped_alone() {
    let gate = Gate::default();
    let bad = SpanId::from_bits(333);
    gate.memory.fail_with(move |batch| {
        batch.spans().any(|span| span.id == bad).then(|| SinkError::rejected("name is odd"))
    });
    let deliverer = Deliverer::new(gate.clone());
    let reply = deliverer.take_flush("run", vec![group(1, spans(0..450))], WAIT).await;
    assert_eq!(reply.delivered.len(), 1, "a dropped span holds nothing back");
    let statistics = deliverer.statistics();
    assert_eq!((statistics.recorded, statistics.delivered, statistics.deferred), (450, 449, 0));
    assert_eq!(statistics.dropped[&DropReason::Rejected], 1);
    // 450 spans are halved 9 times, with two calls for each halving.
    assert!(gate.calls().len() <= 1 + 2 * 9, "{} calls", gate.calls().len());
}

#[tokio::test(start_paused = true)]
async fn a_hanging_sink_is_waited_for_once_and_the_answer_comes_within_a_second() {
    let gate = Gate::closed();
    let deliverer = Deliverer::new(gate.clone());
    let start = Instant::now();
    let reply = deliverer.take_flush("one", vec![group(1, spans([1]))], WAIT).await;
    assert!(reply.delivered.is_empty());
    assert_eq!(start.elapsed().as_millis(), 900);
    let start = Instant::now();
    for run in 2..100 {
        deliverer.take_flush(&run.to_string(), vec![group(1, spans([run]))], WAIT).await;
        deliverer.take_span(span(1000 + run), Duration::from_millis(250)).await;
    }
    assert_eq!(start.elapsed(), Duration::ZERO, "nobody waits for a sink that is known to hang");
    gate.open(10);
    assert_eq!(deliverer.flush(Duration::from_secs(1)).await.deferred, 0);
    let reply = deliverer.take_flush("last", vec![group(1, spans([5000]))], WAIT).await;
    assert_eq!(reply.delivered.len(), 1, "once it has answered, a close waits again");
}

#[tokio::test(start_paused = true)]
async fn a_flush_that_comes_again_is_sent_once_and_acknowledged_by_its_digest() {
    let sink = MemorySink::new();
    let deliverer = Deliverer::new(sink.clone());
    let first = group(1, spans(0..3));
    let handed_over = deliverer.take_flush("run", vec![first.clone()], Duration::ZERO).await;
    assert!(handed_over.delivered.is_empty(), "mid-run nobody waits");
    let second = group(2, spans(3..5));
    let reply = deliverer.take_flush("run", vec![first.clone(), second.clone()], WAIT).await;
    assert_eq!(reply.delivered, [first.acknowledgement(), second.acknowledgement()]);
    assert_eq!(deliverer.statistics().recorded, 5);
    // The same flush number with other spans, as another version of the code records them.
    let other = group(1, spans(10..12));
    let reply = deliverer.take_flush("run", vec![other.clone()], WAIT).await;
    assert_eq!(reply.delivered, [other.acknowledgement()]);
    assert_eq!(sink.spans().len(), 7);
}

#[tokio::test(start_paused = true)]
async fn parts_of_a_flush_that_is_here_already_are_not_sent_again() {
    let sink = MemorySink::new();
    let deliverer = Deliverer::new(sink.clone());
    let whole = group(1, spans(0..10));
    deliverer.take_flush("run", vec![whole.clone()], WAIT).await;
    let part = |ids| {
        let part_of = Some(whole.acknowledgement());
        vec![FlushGroup { part_of, ..group(1, spans(ids)) }]
    };
    for ids in [0..5, 5..10] {
        let taken = deliverer.take_flush("run", part(ids), WAIT).await;
        assert_eq!(taken.delivered.len(), 1);
    }
    assert_eq!((sink.batches(), deliverer.statistics().recorded), (vec![10], 10));
    // Another process has never seen the whole.
    let other = Deliverer::new(sink.clone());
    other.take_flush("run", part(0..5), WAIT).await;
    assert_eq!((sink.batches(), other.statistics().recorded), (vec![10, 5], 5));
}

#[tokio::test(start_paused = true)]
async fn a_flush_that_comes_again_with_other_data_is_sent_again_and_counted_once() {
    let sink = MemorySink::new();
    let deliverer = Deliverer::new(sink.clone());
    let mut flush = group(1, spans(0..2));
    deliverer.take_flush("run", vec![flush.clone()], WAIT).await;
    // Its workflow task was lost; in the next one, the first span had failed.
    Arc::make_mut(&mut flush.spans)[0].status = durable_spans_model::SpanStatus::Error;
    let reply = deliverer.take_flush("run", vec![flush.clone()], WAIT).await;
    assert_eq!(reply.delivered, [flush.acknowledgement()]);
    assert_eq!(sink.spans(), *flush.spans);
    let statistics = deliverer.statistics();
    assert_eq!((statistics.recorded, statistics.delivered, statistics.deferred), (2, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn of_an_open_and_an_ended_record_in_one_batch_the_ended_one_is_sent() {
    let gate = Gate::closed();
    let deliverer = Deliverer::new(gate.clone());
    let open = Span { end_timestamp: None, ..span(1) };
    let other = Span { end_timestamp: None, ..span(2) };
    deliverer.take_flush("run", vec![group(1, vec![span(0)])], Duration::ZERO).await;
    while gate.calls().is_empty() {
        tokio::task::yield_now().await;
    }
    deliverer.take_flush("run", vec![group(2, vec![open, other])], Duration::ZERO).await;
    deliverer.take_flush("run", vec![group(3, vec![span(1)])], Duration::ZERO).await;
    gate.open(5);
    let statistics = deliverer.flush(Duration::from_secs(1)).await;
    assert_eq!(gate.memory.batches(), [1, 2]);
    assert_eq!((statistics.recorded, statistics.delivered), (2, 2), "open records do not count");
}

#[test]
fn spans_on_their_way_when_a_runtime_ends_are_delivered_by_the_next_one() {
    let gate = Gate::closed();
    let deliverer = Deliverer::new(gate.clone());
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime().block_on(async {
        deliverer.take_flush("run", vec![group(1, spans(0..3))], Duration::ZERO).await;
        while gate.calls().is_empty() {
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(deliverer.statistics().deferred, 3);
    gate.open(5);
    runtime().block_on(async {
        assert_eq!(deliverer.flush(Duration::from_secs(10)).await.delivered, 3);
    });
    let ids: Vec<_> = gate.memory.spans().into_iter().map(|span| span.id.bits()).collect();
    assert_eq!(ids, [Some(0), Some(1), Some(2)]);
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_finds_a_batch_too_large_gets_smaller_ones_from_then_on() {
    let gate = Gate::default();
    gate.memory.fail_with(|batch| (batch.encoded_len() > 40_000).then(SinkError::too_large));
    let deliverer = Deliverer::new(gate.clone());
    for round in 0..3u32 {
        let first = u128::from(round) * 1000;
        deliverer.take_flush("run", vec![group(round, spans(first..first + 500))], WAIT).await;
    }
    let statistics = deliverer.statistics();
    assert_eq!((statistics.delivered, statistics.dropped_total()), (1_500, 0));
    // About 100,000 bytes a round: refused once in halves, then sent in fitting batches.
    let refused = gate.calls().len() - gate.memory.batches().len();
    assert!(refused <= 3, "{refused} calls were refused");
}

#[derive(Clone, Debug)]
enum Answer {
    Accept,
    Fail { retry_after_s: Option<u64> },
    Hang { seconds: u64 },
}

/// Answers as told, then accepts for ever; always refuses spans whose id is a multiple of 13.
#[derive(Clone)]
struct Moody {
    memory: MemorySink,
    answers: Arc<Mutex<VecDeque<Answer>>>,
    ended: Arc<Mutex<std::collections::HashSet<SpanId>>>,
}

impl Moody {
    fn check_order(&self, batch: &SpanBatch) {
        let mut ended = self.ended.lock().unwrap();
        for span in batch.spans() {
            let has_ended = span.end_timestamp.is_some();
            assert!(has_ended || !ended.contains(&span.id), "open after its end: {span:?}");
            if has_ended {
                ended.insert(span.id.clone());
            }
        }
    }
}

impl SpanSink for Moody {
    fn upsert_batch<'a>(&'a self, batch: &'a SpanBatch) -> BoxFuture<'a, Result<(), SinkError>> {
        async move {
            assert!(batch.len() <= MAX_BATCH_SPANS && !batch.is_empty());
            assert!(batch.encoded_len() <= MAX_BATCH_BYTES || batch.len() == 1);
            let answer = self.answers.lock().unwrap().pop_front().unwrap_or(Answer::Accept);
            match answer {
                Answer::Accept => {}
                Answer::Fail { retry_after_s } => {
                    let error = SinkError::retryable("down");
                    return Err(match retry_after_s {
                        Some(seconds) => error.with_retry_after(Duration::from_secs(seconds)),
                        None => error,
                    });
                }
                Answer::Hang { seconds } => tokio::time::sleep(Duration::from_secs(seconds)).await,
            }
            if batch.spans().any(|span| span.id.bits().unwrap() % 13 == 0) {
                return Err(SinkError::rejected("unlucky"));
            }
            self.check_order(batch);
            self.memory.upsert_batch(batch).await
        }
        .boxed()
    }

    fn contract(&self) -> Contract {
        self.memory.contract()
    }
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        2 => Just(Answer::Accept),
        2 => prop::option::of(1..60u64).prop_map(|retry_after_s| Answer::Fail { retry_after_s }),
        1 => (1..30u64).prop_map(|seconds| Answer::Hang { seconds }),
    ]
}

/// What a run does next: it hands over this many spans, closing or not; then time passes. Or the
/// process is killed, and the next one gets from the runs what was not acknowledged.
#[derive(Clone, Debug)]
enum Event {
    HandOver { spans: u128, closing: bool },
    Crash,
    Pass { ms: u64 },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1..300u128, any::<bool>())
            .prop_map(|(spans, closing)| Event::HandOver { spans, closing }),
        1 => Just(Event::Crash),
        3 => (0..3_000u64).prop_map(|ms| Event::Pass { ms }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Under a simulated clock: whatever the sink answers and whenever the process dies, the
    /// equation holds at each moment, every span that is not refused arrives with its end, in
    /// order, no close waits over its bound, and none waits while the breaker is open.
    #[test]
    fn nothing_is_lost_whatever_the_sink_answers(
        answers in prop::collection::vec(answer(), 0..20),
        events in prop::collection::vec(event(), 1..20),
    ) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let sink = Moody {
                memory: MemorySink::new(),
                answers: Arc::new(Mutex::new(answers.into())),
                ended: Arc::default(),
            };
            let holds = |deliverer: &Deliverer| {
                let statistics = deliverer.statistics();
                let Statistics { recorded, delivered, deferred, .. } = statistics;
                recorded == delivered + deferred + statistics.dropped_total()
            };
            let mut deliverer = Deliverer::new(sink.clone());
            let mut next = 1u128;
            let mut unacknowledged: Vec<FlushGroup> = Vec::new();
            for event in events {
                match event {
                    Event::HandOver { spans: count, closing } => {
                        let ids = next..next + count;
                        next += count;
                        let open = spans(ids.clone()).into_iter();
                        let open = open.map(|span| Span { end_timestamp: None, ..span }).collect();
                        let flush = unacknowledged.len() as u32;
                        unacknowledged.push(group(flush, open));
                        unacknowledged.push(group(flush + 1, spans(ids)));
                        let wait = if closing { WAIT } else { Duration::ZERO };
                        let most = if deliverer.breaker() == BreakerState::Closed {
                            wait
                        } else {
                            Duration::ZERO
                        };
                        let start = Instant::now();
                        let taken =
                            deliverer.take_flush("run", unacknowledged.clone(), wait).await;
                        assert!(start.elapsed() <= most);
                        unacknowledged
                            .retain(|group| !taken.delivered.contains(&group.acknowledgement()));
                    }
                    Event::Crash => {
                        deliverer.shared.lock().task.take().inspect(JoinHandle::abort);
                        sink.ended.lock().unwrap().clear();
                        deliverer = Deliverer::new(sink.clone());
                    }
                    Event::Pass { ms } => tokio::time::sleep(Duration::from_millis(ms)).await,
                }
                assert!(holds(&deliverer));
            }
            deliverer.take_flush("run", unacknowledged, Duration::ZERO).await;
            let statistics = deliverer.flush(Duration::from_secs(24 * 3600)).await;
            assert!(holds(&deliverer));
            assert_eq!((statistics.deferred, deliverer.breaker()), (0, BreakerState::Closed));
            let unlucky = (next - 1) / 13;
            let stored = sink.memory.spans();
            assert_eq!(stored.len() as u128, next - 1 - unlucky);
            assert!(stored.iter().all(|span| span.end_timestamp.is_some()));
        });
    }
}
