use std::{sync::Arc, time::Duration};

use durable_spans_model::{Span, SpanHooks};
use durable_spans_workflow::{Acknowledgement, FlushGroup};
use futures::future::join_all;

use crate::{BreakerState, Deliverer, DropReason, SpanSink, Statistics, deliverer::Taken};

/// Delivers spans to several sinks, each by a [`Deliverer`] of its own: a queue, a task, a contract
/// and a state of health for each, so that none holds another back.
///
/// What a run hands over is acknowledged when every sink has it. Where one sink is down, the run
/// keeps the spans, or a courier takes them, until that one has them, too; the others may then get
/// them again from another worker, which shows where a sink keeps every copy only.
///
/// ```
/// use durable_spans_activity::{FanOut, MemorySink};
///
/// let fan_out = FanOut::new(MemorySink::new()).and(MemorySink::new());
/// let names: Vec<_> = fan_out.by_sink().into_iter().map(|(name, _)| name).collect();
/// assert_eq!(names, ["memory", "memory-2"]);
/// ```
#[derive(Clone)]
pub struct FanOut {
    /// Not empty.
    deliverers: Vec<Deliverer>,
    /// For spans of this process's own code. Those of workflows have been through theirs.
    hooks: Arc<SpanHooks>,
}

impl FanOut {
    /// A single sink so far.
    pub fn new(sink: impl SpanSink) -> Self {
        Deliverer::new(sink).into()
    }

    /// The same with one sink more.
    #[must_use]
    pub fn and(mut self, sink: impl SpanSink) -> Self {
        let name = sink.name();
        let taken = |name: &str| self.deliverers.iter().any(|known| known.name() == name);
        let mut free = name.to_owned();
        for number in 2.. {
            if !taken(&free) {
                break;
            }
            free = format!("{name}-{number}");
        }
        self.deliverers.push(Deliverer::named(free, sink));
        self
    }

    /// What happens to the spans of activity and client code before they are kept. Default:
    /// [`SpanHooks::new`].
    #[must_use]
    pub fn hooks(mut self, hooks: Arc<SpanHooks>) -> Self {
        self.hooks = hooks;
        self
    }

    /// A span of activity or client code has begun.
    pub(crate) fn begin(&self, span: &mut Span) {
        self.hooks.begin(span);
    }

    /// Whether outputs are captured.
    pub(crate) fn takes_outputs(&self) -> bool {
        self.hooks.captured().outputs()
    }

    /// What became of the spans so far, each counted once for each sink.
    pub fn statistics(&self) -> Statistics {
        sum(self.deliverers.iter().map(Deliverer::statistics))
    }

    /// The same for each sink, by its name.
    pub fn by_sink(&self) -> Vec<(String, Statistics)> {
        let named = |sink: &Deliverer| (sink.name().to_owned(), sink.statistics());
        self.deliverers.iter().map(named).collect()
    }

    /// Whether every sink is waited for: the state of the worst one.
    pub fn breaker(&self) -> BreakerState {
        let badness = |state: &BreakerState| match state {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
        };
        self.deliverers.iter().map(Deliverer::breaker).max_by_key(badness).unwrap_or_default()
    }

    /// Whether it delivers to sinks and, at the same time, leaves all to other processes.
    pub fn is_contradictory(&self) -> bool {
        self.deliverers.len() > 1 && !self.deliverers.iter().all(Deliverer::has_sink)
    }

    /// Waits until every sink has every span, for at most `limit`, and says what became of them. See
    /// [`Deliverer::flush`].
    pub async fn flush(&self, limit: Duration) -> Statistics {
        sum(join_all(self.deliverers.iter().map(|sink| sink.flush(limit))).await)
    }

    /// Takes what a closing run could not hand over. See [`Deliverer::take_last`].
    pub fn take_last(&self, run_id: &str, group: &FlushGroup) {
        self.deliverers.iter().for_each(|sink| sink.take_last(run_id, group));
    }

    /// Drops what of a run's groups has not been delivered: its courier has given up.
    pub(crate) fn give_up(&self, run_id: &str, groups: &[FlushGroup]) {
        self.deliverers.iter().for_each(|sink| sink.give_up(run_id, groups));
    }

    /// Takes the groups of a flush for all sinks at once, and waits for them together.
    pub(crate) async fn take_flush(
        &self,
        run_id: &str,
        groups: Vec<FlushGroup>,
        wait: Duration,
    ) -> Taken {
        if let [only] = &self.deliverers[..] {
            return only.take_flush(run_id, groups, wait).await;
        }
        let all: Vec<Acknowledgement> = groups.iter().map(FlushGroup::acknowledgement).collect();
        let by_sink = self.deliverers.iter();
        let by_sink = by_sink.map(|sink| sink.take_flush(run_id, groups.clone(), wait));
        everywhere(&all, &join_all(by_sink).await)
    }

    /// Takes one span of an activity for all sinks at once.
    pub(crate) async fn take_span(&self, mut span: Span, wait: Duration) {
        self.hooks.end(&mut span);
        join_all(self.deliverers.iter().map(|sink| sink.take_span(span.clone(), wait))).await;
    }

    /// Takes one span for all sinks at once, and waits for none.
    pub(crate) fn queue_span(&self, mut span: Span) {
        self.hooks.end(&mut span);
        self.deliverers.iter().for_each(|sink| sink.queue_span(span.clone()));
    }

    pub(crate) fn count_dropped(&self, reason: DropReason, spans: u64) {
        self.deliverers.iter().for_each(|sink| sink.count_dropped(reason, spans));
    }
}

impl From<Deliverer> for FanOut {
    fn from(deliverer: Deliverer) -> Self {
        Self { deliverers: vec![deliverer], hooks: Arc::default() }
    }
}

/// Delivered is what every sink has; what one of them lacks is undelivered.
fn everywhere(all: &[Acknowledgement], by_sink: &[Taken]) -> Taken {
    let mut taken = Taken::default();
    for group in all {
        let lacking = by_sink.iter().flat_map(|sink| &sink.undelivered);
        match lacking.filter(|(lacking, _)| lacking == group).map(|(_, bytes)| *bytes).max() {
            None => taken.delivered.push(*group),
            Some(bytes) => taken.undelivered.push((*group, bytes)),
        }
    }
    taken.undelivered_bytes = taken.undelivered.iter().map(|(_, bytes)| bytes).sum();
    taken.lacking = by_sink.iter().flat_map(|sink| sink.lacking.clone()).collect();
    taken.refused = by_sink.iter().map(|sink| sink.refused).max().unwrap_or(0);
    taken.sink_is_down = by_sink.iter().any(|sink| sink.sink_is_down);
    taken
}

fn sum(statistics: impl IntoIterator<Item = Statistics>) -> Statistics {
    statistics.into_iter().fold(Statistics::default(), |mut sum, one| {
        sum.recorded += one.recorded;
        sum.delivered += one.delivered;
        sum.deferred += one.deferred;
        sum.doubtful += one.doubtful;
        for (reason, spans) in one.dropped {
            *sum.dropped.entry(reason).or_default() += spans;
        }
        sum
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use durable_spans_model::{SpanId, Timestamp, TraceId};
    use durable_spans_workflow::digest;
    use futures::{
        FutureExt,
        future::{BoxFuture, pending},
    };
    use tokio::time::Instant;

    use super::*;
    use crate::{Contract, MemorySink, SinkError, SpanBatch};

    const WAIT: Duration = Duration::from_millis(900);

    fn group(flush: u32, ids: impl IntoIterator<Item = u128>) -> FlushGroup {
        let start = Timestamp::from_unix_ns(0);
        let ended = |id| Span {
            end_timestamp: Some(start),
            ..Span::new(TraceId::from_bits(1), SpanId::from_bits(id), "s", start)
        };
        let spans: Vec<Span> = ids.into_iter().map(ended).collect();
        FlushGroup { flush, digest: digest(&spans), part_of: None, spans: spans.into() }
    }

    /// A sink that never answers.
    struct Hanging;

    impl SpanSink for Hanging {
        fn upsert_batch<'a>(&'a self, _: &'a SpanBatch) -> BoxFuture<'a, Result<(), SinkError>> {
            pending().boxed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_sink_gets_every_span_under_its_own_contract() {
        let (first, second) = (MemorySink::new(), MemorySink::new());
        let ended_only = second.clone().filter(|_| true);
        let fan_out = FanOut::new(first.clone()).and(ended_only);
        let mut announced = group(1, 0..5);
        Arc::make_mut(&mut announced.spans).iter_mut().for_each(|span| span.end_timestamp = None);
        let announced = FlushGroup { digest: digest(&announced.spans), ..announced };
        let taken = fan_out.take_flush("run", vec![announced, group(2, 0..5)], WAIT).await;
        assert_eq!(taken.delivered.len(), 2);
        assert_eq!((taken.undelivered_bytes, taken.sink_is_down), (0, false));
        assert_eq!(first.spans(), second.spans());
        assert_eq!(second.batches(), [5]);
        assert_eq!(fan_out.statistics().delivered, 10, "once for each sink");
    }

    #[tokio::test(start_paused = true)]
    async fn a_sink_that_hangs_holds_no_other_back_and_nothing_is_acknowledged_without_it() {
        let memory = MemorySink::new();
        let fan_out = FanOut::new(Hanging).and(memory.clone());
        let start = Instant::now();
        for flush in 0..100 {
            let ids = u128::from(flush) * 10..u128::from(flush) * 10 + 10;
            let taken = fan_out.take_flush("run", vec![group(flush, ids)], WAIT).await;
            assert!(taken.delivered.is_empty());
            assert!(taken.undelivered_bytes > 0 && taken.sink_is_down);
        }
        assert_eq!(start.elapsed(), WAIT, "waited for once");
        fan_out.flush(Duration::from_secs(1)).await;
        assert_eq!(memory.spans().len(), 1000);
        let [(_, hanging), (_, fast)] = &fan_out.by_sink()[..] else { panic!("two sinks") };
        assert_eq!((hanging.delivered, hanging.deferred), (0, 1000));
        assert_eq!((fast.delivered, fast.deferred), (1000, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_again_for_a_sink_that_was_down_is_not_sent_twice_to_one_that_was_up() {
        /// Keeps every copy, as its contract says.
        struct Copies(MemorySink);
        impl SpanSink for Copies {
            fn upsert_batch<'a>(
                &'a self,
                batch: &'a SpanBatch,
            ) -> BoxFuture<'a, Result<(), SinkError>> {
                self.0.upsert_batch(batch)
            }
            fn contract(&self) -> Contract {
                Contract::append_only()
            }
        }
        let (up, down) = (MemorySink::new(), MemorySink::new());
        down.fail_with(|_| Some(SinkError::retryable("down")));
        let fan_out = FanOut::new(Copies(up.clone())).and(down.clone());
        let taken = fan_out.take_flush("run", vec![group(1, 0..10)], WAIT).await;
        assert!(taken.delivered.is_empty());
        down.fail_with(|_| None);
        // A courier carries the same spans in other groups.
        let freight = vec![group(1, 0..6), group(1, 6..10)];
        let taken = fan_out.take_flush("run", freight, Duration::from_secs(60)).await;
        fan_out.flush(Duration::from_secs(60)).await;
        assert_eq!(taken.delivered.len() + taken.undelivered.len(), 2);
        assert_eq!((up.batches(), down.spans().len()), (vec![10], 10));
    }

    #[tokio::test(start_paused = true)]
    async fn the_sinks_that_lack_something_are_named_with_what_they_lack() {
        let (up, down) = (MemorySink::new(), MemorySink::new());
        let bad = SpanId::from_bits(1);
        down.fail_with(move |batch| {
            let has_it = batch.spans().any(|span| span.id == bad);
            has_it.then(|| SinkError::retryable("down"))
        });
        let fan_out = FanOut::new(up).and(down).and(Hanging);
        let groups = vec![group(1, 0..1)];
        let taken = fan_out.take_flush("run", groups, WAIT).await;
        assert_eq!((taken.sinks(), taken.delivered.len()), ("sink".to_owned(), 0));
        let groups = vec![group(1, 0..1), group(2, 1..2)];
        let (first, second) = (groups[0].acknowledgement(), groups[1].acknowledgement());
        let taken = fan_out.take_flush("run", groups, WAIT).await;
        let expected =
            [("memory-2".to_owned(), vec![second]), ("sink".to_owned(), vec![first, second])];
        assert_eq!(taken.lacking, expected);
        assert_eq!(taken.sinks(), "memory-2, sink");
    }

    #[test]
    fn a_group_that_two_sinks_lack_is_carried_once() {
        let (first, second) = ((1, 1, 1), (2, 2, 2));
        let lacking = |undelivered: &[(Acknowledgement, usize)]| Taken {
            undelivered: undelivered.to_vec(),
            ..Taken::default()
        };
        let by_sink = [lacking(&[(first, 100)]), lacking(&[(first, 100), (second, 30)])];
        let taken = everywhere(&[first, second, (3, 3, 3)], &by_sink);
        assert_eq!(taken.delivered, [(3, 3, 3)]);
        assert_eq!(taken.undelivered_bytes, 130);
    }
}
