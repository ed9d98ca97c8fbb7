use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use backon::{ExponentialBuilder, Retryable};
use durable_spans_model::{Span, Timestamp};
use durable_spans_workflow::{Acknowledgement, FlushGroup};
use foldhash::fast::RandomState;
use tokio::{runtime::Handle, sync::Notify, task::JoinHandle, time::Instant};

use crate::{
    breaker::{Breaker, BreakerState},
    contract::Contract,
    parcel::{Parcel, ParcelKey},
    sent::Sent,
    sink::{EncodedSpan, SpanBatch, SpanSink},
    sink_error::SinkError,
    statistics::{Counts, DropReason, Statistics},
};

/// Bytes of JSON that may wait for the sink in one process.
const MAX_QUEUE_BYTES: usize = 64 * 1024 * 1024;

/// Batches shrink to this at the least, where the sink finds larger ones too large.
const SMALLEST_BATCH_BYTES: usize = 16 * 1024;

/// How many delivered parcels are remembered. Forgetting one only means sending it again.
const REMEMBERED_PARCELS: usize = 10_000;

/// Delivers spans to one sink: the queue and the one task of a process that empties it.
///
/// Batches are formed by group commit: sent at once when the sink is idle, gathered while a
/// request is in flight. One request is in flight at a time, so the records of a span reach the
/// sink in order. Cloning gives another handle to the same queue.
#[derive(Clone)]
pub struct Deliverer {
    shared: Arc<Shared>,
}

struct Shared {
    /// For logs and metrics.
    name: String,
    /// `None` where all is left to couriers and to other processes.
    sink: Option<Box<dyn SpanSink>>,
    contract: Contract,
    state: Mutex<State>,
    /// Tells the delivering task that there is work.
    arrived: Notify,
    /// Interrupts a request that is tried again and again: some of its spans were given up.
    given_up: Notify,
    /// Tells those who wait for an empty queue that a batch was settled.
    settled: Notify,
    breaker: Breaker,
    /// Shrinks when the sink finds a batch too large.
    batch_bytes: AtomicUsize,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Item>,
    queue_bytes: usize,
    /// Records in the queue and on their way.
    unsettled: usize,
    counts: Counts,
    parcels: HashMap<ParcelKey, Arc<Parcel>>,
    parcel_order: VecDeque<ParcelKey>,
    sent: Sent,
    task: Option<JoinHandle<()>>,
}

struct Item {
    span: Arc<EncodedSpan>,
    parcel: Arc<Parcel>,
    /// Whether it is in the statistics: ended, and not sent before.
    counted: bool,
}

/// What became of a flush by the end of the wait.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) delivered: Vec<Acknowledgement>,
    /// Ended spans of these groups that the sink refused.
    pub(crate) refused: usize,
    /// Bytes of JSON of the groups that were not delivered.
    pub(crate) undelivered_bytes: usize,
    /// The same for each of these groups.
    pub(crate) undelivered: Vec<(Acknowledgement, usize)>,
    /// The sinks that lack something, by name, and which groups each of them lacks.
    pub(crate) lacking: Vec<(String, Vec<Acknowledgement>)>,
    /// Whether the sink is known to be down.
    pub(crate) sink_is_down: bool,
}

impl Taken {
    /// The sinks that lack something, for the log.
    pub(crate) fn sinks(&self) -> String {
        let names: Vec<&str> = self.lacking.iter().map(|(name, _)| &**name).collect();
        names.join(", ")
    }
}

/// The queue is full, or there is none.
struct NoRoom {
    bytes: usize,
}

impl Deliverer {
    /// A deliverer to `sink`. Its task starts with the first span, on the runtime that hands it
    /// over.
    pub fn new(sink: impl SpanSink) -> Self {
        let name = sink.name().to_owned();
        Self::named(name, sink)
    }

    /// The same under another name, to tell two sinks of one kind apart.
    pub(crate) fn named(name: String, sink: impl SpanSink) -> Self {
        let contract = sink.contract();
        Self::of(name, contract, Some(Box::new(sink)))
    }

    /// For a process that may not reach the network: takes nothing, so that runs flush elsewhere.
    /// What has no other way, the spans of this process's activities, is counted as dropped.
    pub fn without_sink() -> Self {
        Self::of("none".to_owned(), Contract::upsert(), None)
    }

    fn of(name: String, contract: Contract, sink: Option<Box<dyn SpanSink>>) -> Self {
        let state = State { counts: Counts::new(&name), ..State::default() };
        Self {
            shared: Arc::new(Shared {
                sink,
                contract,
                state: Mutex::new(state),
                arrived: Notify::new(),
                given_up: Notify::new(),
                settled: Notify::new(),
                breaker: Breaker::new(&name),
                batch_bytes: AtomicUsize::new(contract.max_batch_bytes()),
                name,
            }),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.shared.name
    }

    pub(crate) fn has_sink(&self) -> bool {
        self.shared.sink.is_some()
    }

    /// What became of the spans so far.
    pub fn statistics(&self) -> Statistics {
        self.shared.lock().counts.snapshot()
    }

    /// Whether the sink is waited for.
    pub fn breaker(&self) -> BreakerState {
        self.shared.breaker.state()
    }

    /// Waits until nothing is queued or on its way, for at most `limit`, and says what became of the
    /// spans. Call it before the process ends: activity spans that are still deferred then are lost
    /// with it.
    pub async fn flush(&self, limit: Duration) -> Statistics {
        let empty = async {
            loop {
                // Registered before the look, so that a notification in between is not missed.
                let settled = self.shared.settled.notified();
                {
                    let mut state = self.shared.lock();
                    if state.unsettled == 0 {
                        return;
                    }
                    self.ensure_running(&mut state);
                }
                settled.await;
            }
        };
        let _ = tokio::time::timeout(limit, empty).await;
        self.statistics()
    }

    /// Takes the groups of a run's flush, waits for them for at most `wait`, and answers which of
    /// them have been delivered. A sink that is known to be down is not waited for. The spans are
    /// delivered in any case, now or later, unless there is no room for them here.
    pub(crate) async fn take_flush(
        &self,
        run_id: &str,
        groups: Vec<FlushGroup>,
        wait: Duration,
    ) -> Taken {
        let start = Instant::now();
        let mut taken = Taken::default();
        let mut parcels: Vec<(Acknowledgement, Arc<Parcel>)> = Vec::new();
        for group in groups {
            let acknowledgement = group.acknowledgement();
            if let Some(whole) = self.whole(run_id, &group) {
                parcels.push((acknowledgement, whole));
                continue;
            }
            let key = ParcelKey::new(run_id, acknowledgement);
            match self.enqueue(Some(key), group.spans, false) {
                Ok(parcel) => parcels.push((acknowledgement, parcel)),
                Err(NoRoom { bytes }) => taken.undelivered.push((acknowledgement, bytes)),
            }
        }
        if !wait.is_zero() {
            let awaited: Vec<_> = parcels.iter().map(|(_, parcel)| parcel.clone()).collect();
            self.wait_for(awaited, start, wait).await;
        }
        for (acknowledgement, parcel) in parcels {
            if parcel.is_settled() {
                taken.delivered.push(acknowledgement);
                taken.refused += parcel.refused();
            } else {
                taken.undelivered.push((acknowledgement, parcel.bytes()));
            }
        }
        taken.undelivered_bytes = taken.undelivered.iter().map(|(_, bytes)| bytes).sum();
        if !taken.undelivered.is_empty() {
            let groups = taken.undelivered.iter().map(|(group, _)| *group).collect();
            taken.lacking = vec![(self.shared.name.clone(), groups)];
        }
        taken.sink_is_down = self.shared.sink.is_none() || !self.shared.breaker.is_closed();
        taken
    }

    /// The parcel that this group is a part of, if this very process has it.
    fn whole(&self, run_id: &str, group: &FlushGroup) -> Option<Arc<Parcel>> {
        let key = ParcelKey::new(run_id, group.part_of?);
        self.shared.lock().parcels.get(&key).cloned()
    }

    /// Counts spans that were dropped before they came here.
    pub(crate) fn count_dropped(&self, reason: DropReason, spans: u64) {
        self.shared.lock().counts.refused(reason, spans);
    }

    /// Takes what a closing run could not hand over through the flush activity. Does not wait.
    /// Spans that the activity has handed over after all are not taken twice.
    pub fn take_last(&self, run_id: &str, group: &FlushGroup) {
        let key = ParcelKey::new(run_id, group.acknowledgement());
        // No room is counted and logged.
        let _ = self.enqueue(Some(key), group.spans.clone(), true);
    }

    /// Drops what of a run's groups has not been delivered: its courier has given up.
    pub(crate) fn give_up(&self, run_id: &str, groups: &[FlushGroup]) {
        let mut state = self.shared.lock();
        for group in groups {
            let key = group.part_of.unwrap_or_else(|| group.acknowledgement());
            match state.parcels.get(&ParcelKey::new(run_id, key)) {
                Some(parcel) => parcel.give_up(),
                // There was no room for it.
                None => {
                    let (spans, reason) = (ended(&group.spans), DropReason::Expired);
                    state.counts.refused(reason, spans);
                    self.shared.warn_of_expired(spans);
                }
            }
        }
        drop(state);
        self.shared.given_up.notify_one();
    }

    /// Takes one span of an activity, and waits up to `wait` for its delivery.
    pub(crate) async fn take_span(&self, span: Span, wait: Duration) {
        let start = Instant::now();
        if let Ok(parcel) = self.enqueue(None, Arc::new(vec![span]), true) {
            self.wait_for(vec![parcel], start, wait).await;
        }
    }

    /// Takes one span of activity or client code.
    pub(crate) fn queue_span(&self, span: Span) {
        // No room is counted and logged.
        let _ = self.enqueue(None, Arc::new(vec![span]), true);
    }

    /// Puts spans into the queue, unless the very same are there already or have been delivered.
    /// Where there is no room, and this is their `last_chance`, they are counted as dropped.
    fn enqueue(
        &self,
        key: Option<ParcelKey>,
        spans: Arc<Vec<Span>>,
        last_chance: bool,
    ) -> Result<Arc<Parcel>, NoRoom> {
        let ended = ended(&spans);
        // Encoding outside of the lock: it is the expensive part.
        let spans: Vec<_> = EncodedSpan::all(spans).collect();
        // As a courier would carry them: whole.
        let bytes: usize = spans.iter().map(EncodedSpan::encoded_len).sum();
        let spans = self.shared.contract.admit(spans);
        let queued_bytes: usize = spans.iter().map(|span| span.encoded_len()).sum();
        let parcel = Arc::new(Parcel::new(&spans, bytes));

        let mut state = self.shared.lock();
        // The same flush with other content: its workflow task was lost, and the next one saw more
        // of history. The spans are sent again, and not counted again.
        let known = key.as_ref().and_then(|key| state.parcels.get(key));
        let fresh = match known {
            Some(known) if known.has_content_of(&parcel) => return Ok(known.clone()),
            Some(_) => false,
            None => true,
        };
        let counted = if fresh { ended } else { 0 };
        // What is larger than the whole queue must fit in once, too.
        let full = state.queue_bytes > 0 && state.queue_bytes + queued_bytes > MAX_QUEUE_BYTES;
        let refusal = match self.shared.sink {
            None => Some(DropReason::NoSink),
            Some(_) => full.then_some(DropReason::QueueFull),
        };
        if let Some(reason) = refusal {
            if last_chance {
                state.counts.refused(reason, counted);
                drop(state);
                let reason = reason.as_str();
                let sink = &*self.shared.name;
                tracing::warn!(sink, spans = ended, reason, "spans dropped: no room for them here");
            }
            return Err(NoRoom { bytes });
        }
        state.counts.queued(counted);
        state.queue_bytes += queued_bytes;
        state.unsettled += spans.len();
        state.queue.extend(spans.into_iter().map(|span| Item {
            counted: fresh && span.span().end_timestamp.is_some(),
            span,
            parcel: parcel.clone(),
        }));
        if let Some(key) = key {
            state.remember(key, parcel.clone());
        }
        self.ensure_running(&mut state);
        drop(state);
        self.shared.arrived.notify_one();
        Ok(parcel)
    }

    /// The task ends with its runtime, so a later runtime starts another one. Without a runtime, as in
    /// a synchronous part of a program, spans wait for the next call from within one.
    fn ensure_running(&self, state: &mut State) {
        if state.task.as_ref().is_none_or(JoinHandle::is_finished)
            && let Ok(runtime) = Handle::try_current()
        {
            state.task = Some(runtime.spawn(deliver(self.shared.clone())));
        }
    }

    /// Waits until `start + wait`; what was spent before counts.
    async fn wait_for(&self, parcels: Vec<Arc<Parcel>>, start: Instant, wait: Duration) {
        if start.elapsed() >= wait {
            // Not the sink's fault.
            return;
        }
        let all = async {
            for parcel in &parcels {
                parcel.settled().await;
            }
        };
        let outcome = tokio::time::timeout_at(start + wait, async {
            tokio::select! {
                () = all => {}
                // Known to be down: those who wait already stop waiting, too.
                () = self.shared.breaker.not_closed() => {}
            }
        });
        if outcome.await.is_err() {
            self.shared.breaker.overrun(wait);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next batch, in the order of arrival; up to the limits of a batch.
    fn next_batch(&self) -> Vec<Item> {
        let mut state = self.lock();
        let most = self.batch_bytes.load(Ordering::Relaxed);
        let mut bytes = 0;
        let fitting = state.queue.iter().take(self.contract.max_batch_spans()).take_while(|item| {
            bytes += item.span.encoded_len() + 1;
            bytes <= most
        });
        // A span that is too large alone goes alone: the sink may take it or refuse it.
        let count = fitting.count().max(1).min(state.queue.len());
        let batch: Vec<Item> = state.queue.drain(..count).collect();
        state.queue_bytes -= batch.iter().map(|item| item.span.encoded_len()).sum::<usize>();
        batch
    }

    /// What of a batch shall be sent: not what the sink is known not to keep, and not what it has
    /// and must not get twice.
    fn to_be_sent(&self, items: Vec<Item>) -> Vec<Item> {
        let now = Timestamp::from(SystemTime::now());
        let refusal = |item: &Item| self.contract.refusal(item.span.span(), now);
        let (refused, mut items): (Vec<_>, Vec<_>) =
            items.into_iter().partition(|item| refusal(item).is_some());
        for item in refused {
            if let Some((reason, error)) = refusal(&item) {
                self.drop_item(item, reason, &error);
            }
        }
        if self.contract.remembers_sent() {
            let state = self.lock();
            let (again, new): (Vec<_>, Vec<_>) =
                items.into_iter().partition(|item| state.sent.contains(item.span.span()));
            drop(state);
            self.settle(&again, None);
            items = new;
        }
        items
    }

    /// Which they are, the courier names.
    fn warn_of_expired(&self, spans: u64) {
        let (sink, reason) = (&*self.name, DropReason::Expired.as_str());
        tracing::warn!(sink, spans, reason, "spans dropped: their courier gave up");
    }

    fn drop_item(&self, item: Item, reason: DropReason, error: &dyn std::error::Error) {
        let span = item.span.span();
        tracing::warn!(
            sink = self.name,
            span_id = %span.id,
            trace_id = %span.trace_id,
            name = &*span.name,
            reason = reason.as_str(),
            %error,
            "span dropped: the sink refuses it"
        );
        self.settle(&[item], Some(reason));
    }

    /// Some of the spans were rejected, nobody knows which: the counts are true, and that is all that
    /// can be.
    fn settle_partly(&self, mut items: Vec<Item>, error: &SinkError) {
        let reason = DropReason::Rejected;
        let rejected =
            error.rejected_spans().map_or(0, |spans| usize::try_from(spans).unwrap_or(usize::MAX));
        let taken = items.len().saturating_sub(rejected);
        let rejected = items.split_off(taken);
        tracing::warn!(
            sink = self.name,
            spans = rejected.len(),
            reason = reason.as_str(),
            %error,
            "spans dropped: the sink rejected some of a batch and does not say which"
        );
        self.settle(&items, None);
        // These may be the ones that were stored.
        rejected.iter().for_each(|item| self.lock().sent.insert(item.span.span()));
        self.settle(&rejected, Some(reason));
    }

    fn settle(&self, items: &[Item], dropped: Option<DropReason>) {
        let counted = items.iter().filter(|item| item.counted).count() as u64;
        let mut state = self.lock();
        state.counts.settled(dropped, counted);
        state.unsettled -= items.len();
        if dropped.is_none() && self.contract.remembers_sent() {
            items.iter().for_each(|item| state.sent.insert(item.span.span()));
        }
        drop(state);
        for item in items {
            if dropped.is_some() && item.span.span().end_timestamp.is_some() {
                item.parcel.refuse_one();
            }
            item.parcel.settle_one();
        }
        self.settled.notify_waiters();
    }
}

impl State {
    fn remember(&mut self, key: ParcelKey, parcel: Arc<Parcel>) {
        if self.parcels.insert(key.clone(), parcel).is_none() {
            self.parcel_order.push_back(key);
        }
        while self.parcel_order.len() > REMEMBERED_PARCELS
            && self.parcel_order.front().is_some_and(|oldest| self.parcels[oldest].is_settled())
        {
            if let Some(oldest) = self.parcel_order.pop_front() {
                self.parcels.remove(&oldest);
            }
        }
    }
}

fn ended(spans: &[Span]) -> u64 {
    spans.iter().filter(|span| span.end_timestamp.is_some()).count() as u64
}

/// The delivering task: takes batch after batch until the process ends.
async fn deliver(shared: Arc<Shared>) {
    loop {
        let batch = shared.next_batch();
        if batch.is_empty() {
            shared.arrived.notified().await;
        } else {
            deliver_batch(&shared, batch).await;
        }
    }
}

/// A batch on its way, in parts if the sink refused it as a whole. Goes back to the front of the
/// queue if the delivering task ends with its runtime.
struct InFlight<'a> {
    shared: &'a Shared,
    parts: VecDeque<Vec<Item>>,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        for item in self.parts.drain(..).flatten().rev() {
            state.queue_bytes += item.span.encoded_len();
            state.queue.push_front(item);
        }
    }
}

/// Delivers a batch. If the sink refuses it for the sake of some span, halves it until that span
/// stands alone, and drops that one only.
async fn deliver_batch(shared: &Shared, items: Vec<Item>) {
    let mut way = InFlight { shared, parts: [shared.to_be_sent(items)].into() };
    while let Some(items) = way.parts.front_mut() {
        let expired: Vec<Item> = items.extract_if(.., |item| item.parcel.is_given_up()).collect();
        if !expired.is_empty() {
            shared.warn_of_expired(expired.iter().filter(|item| item.counted).count() as u64);
            shared.settle(&expired, Some(DropReason::Expired));
        }
        let batch = SpanBatch::new(newest_records(items));
        let result = tokio::select! {
            result = send(shared, &batch), if !batch.is_empty() => result,
            () = shared.given_up.notified(), if !batch.is_empty() => continue,
            else => Ok(()),
        };
        let Some(mut items) = way.parts.pop_front() else { return };
        match result {
            Ok(()) => shared.settle(&items, None),
            Err(error) if error.rejected_spans().is_some() => shared.settle_partly(items, &error),
            Err(error) if items.len() > 1 => {
                if error.is_too_large() {
                    let half = (batch.encoded_len() / 2).max(SMALLEST_BATCH_BYTES);
                    shared.batch_bytes.fetch_min(half, Ordering::Relaxed);
                }
                let second = items.split_off(items.len() / 2);
                way.parts.push_front(second);
                way.parts.push_front(items);
            }
            Err(error) => {
                for item in items {
                    shared.drop_item(item, DropReason::Rejected, &error);
                }
            }
        }
    }
}

/// Sends a batch until the sink takes it or refuses it for the spans' sake. That may take for
/// ever: what the spans are not to blame for is retried.
async fn send(shared: &Shared, batch: &SpanBatch) -> Result<(), SinkError> {
    let backoff = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(30))
        .with_jitter()
        .without_max_times();
    // Without a sink, nothing is ever queued.
    let Some(sink) = &shared.sink else { return Ok(()) };
    let attempt = || async {
        shared.breaker.attempt();
        let mut doubt = Doubt { shared, spans: batch.len() as u64 };
        let result = sink.upsert_batch(batch).await;
        if result.as_ref().map_or_else(|error| !error.may_be_stored(), |()| true) {
            doubt.spans = 0;
        }
        result
    };
    let result = attempt
        .retry(backoff)
        .sleep(tokio::time::sleep)
        .when(|error: &SinkError| !error.is_rejection())
        .adjust(|error: &SinkError, delay| {
            delay.map(|delay| error.retry_after().map_or(delay, |asked| asked.max(delay)))
        })
        .notify(|error: &SinkError, pause| shared.breaker.failed(error, pause))
        .await;
    shared.breaker.answered();
    result
}

/// A request on its way to a sink that may have stored its spans when no answer comes, as when it is
/// given up: they are counted then, where they will be there twice.
struct Doubt<'a> {
    shared: &'a Shared,
    spans: u64,
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if self.spans > 0 && self.shared.contract.keeps_copies() {
            self.shared.lock().counts.doubted(self.spans);
        }
    }
}

/// Of several records of one span in a batch only the last one counts, but an end over an open one:
/// flushes by activities may be overtaken by later ones.
fn newest_records(items: &[Item]) -> Vec<Arc<EncodedSpan>> {
    let is_ended = |index: usize| items[index].span.span().end_timestamp.is_some();
    let mut last = HashMap::with_capacity_and_hasher(items.len(), RandomState::default());
    for (index, item) in items.iter().enumerate() {
        let span = item.span.span();
        let newest = last.entry((&span.trace_id, &span.id)).or_insert(index);
        if is_ended(index) || !is_ended(*newest) {
            *newest = index;
        }
    }
    let newest = items.iter().enumerate().filter(|(index, item)| {
        let span = item.span.span();
        last[&(&span.trace_id, &span.id)] == *index
    });
    newest.map(|(_, item)| item.span.clone()).collect()
}

#[cfg(test)]
mod contract_tests;
#[cfg(test)]
mod tests;
