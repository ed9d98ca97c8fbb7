use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use durable_spans_model::{
    Children, Fields, Outcome, Seed, Span, SpanHooks, SpanId, Timestamp, TraceId, TraceParent,
};

use crate::{
    buffer::{Buffer, Key, Notes},
    courier::json_len,
    flush::{Acknowledgement, FlushGroup},
    limits::Limits,
};

/// What a span hangs under.
#[derive(Clone, Debug)]
pub(crate) enum Parent {
    /// A span of the same run.
    Here(SpanRef),
    /// A span that was recorded elsewhere.
    Elsewhere(SpanId),
}

impl Parent {
    pub(crate) fn id(&self) -> &SpanId {
        match self {
            Self::Here(span) => span.id(),
            Self::Elsewhere(id) => id,
        }
    }
}

/// Names a span of a recorder. Stays valid, without effect, after the span has ended.
#[derive(Clone, Debug)]
pub(crate) struct SpanRef {
    key: Key,
    id: SpanId,
}

impl SpanRef {
    pub(crate) fn id(&self) -> &SpanId {
        &self.id
    }
}

/// The buffer of a run: what was recorded and not yet acknowledged.
///
/// Pure and sans-I/O. Times, the seed of the ids and the epoch come in as arguments; batches and
/// acknowledgements go out and in as values. Replay rebuilds it by making the same calls.
#[derive(Debug)]
pub(crate) struct Recorder {
    trace_id: TraceId,
    group_id: Option<Arc<str>>,
    seed: Seed,
    limits: Limits,
    marks: Marks,
    kept: Kept,
    hooks: Arc<SpanHooks>,
    /// Bytes of JSON per group, where groups must be small enough for a command each.
    group_bytes: Option<usize>,
    buffer: Buffer,
    /// Spans in the buffer that have ended, and their bytes.
    ended: usize,
    ended_bytes: usize,
    /// All that ended since the last flush, be they over the limits.
    ended_since_flush: usize,
    /// Ended spans in the groups that were acknowledged.
    acknowledged: u64,
    /// Of these, how many the sink refused.
    refused: u64,
    /// Spans that were over the limits of the buffer: in all, and since the last flush.
    over_limit: u64,
    newly_over_limit: u64,
    unacknowledged: Vec<Rc<FlushGroup>>,
    flushes: u32,
    /// Message handlers begin their spans before or after the root's end, as the SDK happens to order
    /// them.
    under_root: Children,
    /// Those that began under a parent that is no span of this run, or has ended.
    outside: BTreeMap<Option<SpanId>, Children>,
}

/// Which spans of a run shall arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kept {
    #[default]
    All,
    /// They wait in the buffer for the end of the run, and are sent if that is a failure.
    IfItFails,
    Nothing,
}

/// What each span of a run is marked with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Marks {
    /// Where the run's starter stood in an observability trace.
    pub(crate) observed: Option<TraceParent>,
    /// The run, where it goes on with what another one began (a reset): tells their spans apart.
    pub(crate) run_id: Option<String>,
    /// What every span of the trace has as metadata.
    pub(crate) shared: Fields,
}

/// What became of the spans of a run, as far as the run knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SpanCounts {
    /// All that began.
    pub(crate) recorded: u64,
    /// Ended, and confirmed by the sink.
    pub(crate) delivered: u64,
    /// Refused by the sink.
    pub(crate) refused: u64,
    /// Over the limits of the buffer.
    pub(crate) over_limit: u64,
}

impl SpanCounts {
    /// Still in the run, or on their way.
    pub(crate) fn deferred(&self) -> u64 {
        let Self { recorded, delivered, refused, over_limit } = self;
        recorded.saturating_sub(delivered + refused + over_limit)
    }
}

impl Recorder {
    pub(crate) fn new(
        trace_id: TraceId,
        group_id: Option<Arc<str>>,
        seed: Seed,
        limits: Limits,
        marks: Marks,
        group_bytes: Option<usize>,
    ) -> Self {
        Self {
            trace_id,
            group_id,
            seed,
            limits,
            marks,
            kept: Kept::All,
            hooks: Arc::default(),
            group_bytes,
            buffer: Buffer::default(),
            ended: 0,
            ended_bytes: 0,
            ended_since_flush: 0,
            acknowledged: 0,
            refused: 0,
            over_limit: 0,
            newly_over_limit: 0,
            unacknowledged: Vec::new(),
            flushes: 0,
            under_root: Children::default(),
            outside: BTreeMap::new(),
        }
    }

    /// Says which spans shall arrive, by default all, and what happens to them before they are kept.
    pub(crate) fn keep(&mut self, kept: Kept, hooks: Arc<SpanHooks>) {
        self.kept = kept;
        self.hooks = hooks;
    }

    /// To be called when a span has begun and was described.
    pub(crate) fn described(&mut self, span: &SpanRef) {
        if let Some(span) = self.buffer.span(span.key) {
            self.hooks.begin(span);
        }
    }

    pub(crate) fn kept(&self) -> Kept {
        self.kept
    }

    /// The run failed: what waited for that is sent.
    pub(crate) fn it_failed(&mut self) {
        if self.kept == Kept::IfItFails {
            self.kept = Kept::All;
        }
    }

    pub(crate) fn trace_id(&self) -> &TraceId {
        &self.trace_id
    }

    /// Opens a span under `parent`: takes one that says its name and what else is known of it, and gives it
    /// its place in the trace. `chosen` is an id of the user's own; `draw` is as in [`Seed::span_id`].
    pub(crate) fn start(
        &mut self,
        parent: Option<&Parent>,
        chosen: Option<SpanId>,
        span: &mut Span,
        at: Timestamp,
        draw: impl FnOnce(u64) -> Option<u64>,
    ) -> SpanRef {
        let id = chosen.unwrap_or_else(|| self.next_id(parent, &span.name, draw));
        let (key, span) = self.buffer.begin(span);
        span.id = id.clone();
        span.trace_id.clone_from(&self.trace_id);
        span.start_timestamp = at;
        span.parent_id = parent.map(|parent| parent.id().clone());
        span.group_id.clone_from(&self.group_id);
        if let Some(observed) = &self.marks.observed {
            span.set_observed(observed);
        }
        span.share(&self.marks.shared);
        if let Some(run_id) = &self.marks.run_id {
            span.metadata.insert("temporal.run_id".into(), run_id.as_str().into());
        }
        SpanRef { key, id }
    }

    /// Changes a span that is still open; does nothing to one that has ended.
    pub(crate) fn update(&mut self, span: &SpanRef, change: impl FnOnce(&mut Span)) {
        if let Some(span) = self.buffer.span(span.key) {
            change(span);
        }
    }

    /// Says that the span's work goes on when nobody waits for it: that is no cancellation.
    pub(crate) fn outlive(&mut self, span: &SpanRef) {
        if let Some(notes) = self.buffer.notes(span.key) {
            notes.outlives = true;
        }
    }

    /// Ends a span, never before it started. Ending it again does nothing.
    pub(crate) fn end(&mut self, span: &SpanRef, outcome: Outcome, at: Timestamp) {
        self.end_of(span.key, outcome, at);
    }

    /// Ends every span that is still open as abandoned.
    pub(crate) fn end_all(&mut self, at: Timestamp) {
        for key in self.buffer.all_open() {
            self.end_of(key, Outcome::Abandoned, at);
        }
    }

    /// What became of the spans so far.
    pub(crate) fn counts(&self) -> SpanCounts {
        SpanCounts {
            recorded: self.buffer.began(),
            delivered: self.acknowledged.saturating_sub(self.refused),
            refused: self.refused,
            over_limit: self.over_limit,
        }
    }

    /// Spans that were over the limits of the buffer since the last call.
    pub(crate) fn take_newly_over_limit(&mut self) -> u64 {
        std::mem::take(&mut self.newly_over_limit)
    }

    fn end_of(&mut self, key: Key, outcome: Outcome, at: Timestamp) {
        let Self { buffer, kept, hooks, limits, .. } = self;
        buffer.end(key, |span, notes| {
            self.ended_since_flush += 1;
            if *kept == Kept::Nothing {
                return false;
            }
            finish(span, notes, outcome, at);
            hooks.end(span);
            let bytes = limits.cut(span);
            let full =
                self.ended >= limits.buffer_spans || self.ended_bytes + bytes > limits.buffer_bytes;
            // The root always fits: it tells what did not.
            if full && key.sequence != ROOT {
                self.over_limit += 1;
                self.newly_over_limit += 1;
                return false;
            }
            self.ended += 1;
            self.ended_bytes += bytes;
            true
        });
    }

    /// Spans that ended since the last flush. Whatever the limits of today, for a flush may depend on it.
    pub(crate) fn buffered(&self) -> usize {
        self.ended_since_flush
    }

    /// Spans in flushes that nobody has acknowledged.
    #[cfg(test)]
    pub(crate) fn unacknowledged(&self) -> usize {
        self.unacknowledged.iter().map(|group| group.spans.len()).sum()
    }

    /// Begins a flush: a group (or several, where they must be small) of what no flush has carried yet, after all groups that are still
    /// unacknowledged. Returns the number of the flush, too.
    pub(crate) fn begin_flush(&mut self) -> (u32, Vec<Rc<FlushGroup>>) {
        self.flushes += 1;
        if self.kept != Kept::All {
            self.ended_since_flush = 0;
            return (self.flushes, Vec::new());
        }
        (self.ended, self.ended_bytes, self.ended_since_flush) = (0, 0, 0);
        let Self { hooks, limits, .. } = self;
        let spans = self.buffer.take(|span| {
            hooks.keep(span);
            limits.cut(span);
        });
        let groups = match self.group_bytes {
            Some(most_bytes) => in_groups(spans, most_bytes),
            None if spans.is_empty() => Vec::new(),
            None => vec![spans],
        };
        self.unacknowledged
            .extend(groups.into_iter().map(|spans| Rc::new(FlushGroup::new(self.flushes, spans))));
        (self.flushes, self.unacknowledged.clone())
    }

    /// Forgets the groups that were acknowledged, `refused` of whose spans the sink refused. An acknowledgement that does not fit the group
    /// rebuilt here (another version of the user's code recorded other spans) is ignored, so that
    /// the group is sent again.
    pub(crate) fn acknowledge(&mut self, acknowledged: &[Acknowledgement], refused: u32) {
        self.refused += u64::from(refused);
        self.unacknowledged.retain(|group| {
            let known = acknowledged.contains(&group.acknowledgement());
            if known {
                let ended = group.spans.iter().filter(|span| span.end_timestamp.is_some());
                self.acknowledged += ended.count() as u64;
            }
            !known
        });
    }

    /// Takes every group that is still unacknowledged: somebody else answers for it from here on.
    pub(crate) fn take_unacknowledged(&mut self) -> Vec<Rc<FlushGroup>> {
        std::mem::take(&mut self.unacknowledged)
    }

    /// The spans that no flush has carried, and those that are open, as they are now. In order of
    /// starting.
    pub(crate) fn into_spans(self) -> Vec<Span> {
        let (limits, hooks) = (self.limits, self.hooks);
        self.buffer.into_spans(|span| {
            hooks.keep(span);
            limits.cut(span);
        })
    }

    /// The id of the next span of this name under `parent`. Which there were is forgotten with the end
    /// of the parent; children that begin later have numbers of their own.
    fn next_id(
        &mut self,
        parent: Option<&Parent>,
        name: &str,
        draw: impl FnOnce(u64) -> Option<u64>,
    ) -> SpanId {
        let siblings = match parent {
            Some(Parent::Here(span)) if span.key.sequence == ROOT => Some(&mut self.under_root),
            Some(Parent::Here(span)) => {
                self.buffer.notes(span.key).map(|notes| &mut notes.children)
            }
            _ => None,
        };
        let parent = parent.map(Parent::id);
        let (siblings, first) = match siblings {
            Some(siblings) => (siblings, 0),
            None => (self.outside.entry(parent.cloned()).or_default(), OUTSIDE),
        };
        siblings.next_id(self.seed, parent, name, first, draw)
    }
}

/// Groups of so many bytes of JSON, but of a span at least.
fn in_groups(spans: Vec<Span>, most_bytes: usize) -> Vec<Vec<Span>> {
    let mut groups: Vec<Vec<Span>> = Vec::new();
    let mut bytes = 0;
    for span in spans {
        let size = json_len(&span);
        match groups.last_mut() {
            Some(group) if bytes + size <= most_bytes => {
                bytes += size;
                group.push(span);
            }
            _ => {
                bytes = size;
                groups.push(vec![span]);
            }
        }
    }
    groups
}

/// The sequence of the root: it is the first span of a run.
const ROOT: u64 = 0;

/// `nth` counts in a range of its own where the parent is not open, so that no number comes twice.
const OUTSIDE: u64 = 1 << 63;

fn finish(span: &mut Span, notes: &Notes, outcome: Outcome, at: Timestamp) {
    if outcome == Outcome::Abandoned {
        span.metadata.insert("temporal.abandoned".into(), true.into());
        span.finish(if notes.outlives { Outcome::Success } else { Outcome::Canceled }, at);
    } else {
        span.finish(outcome, at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use durable_spans_model::{Draft, SpanStatus};
    use proptest::prelude::*;

    fn recorder() -> Recorder {
        Recorder::new(
            TraceId::from_bits(1),
            None,
            Seed::new(1, "w"),
            Limits::new(),
            Marks::default(),
            None,
        )
    }

    fn at(ns: i64) -> Timestamp {
        Timestamp::from_unix_ns(ns)
    }

    fn start(recorder: &mut Recorder, parent: Option<&SpanRef>, name: &'static str) -> SpanRef {
        let parent = parent.cloned().map(Parent::Here);
        recorder.start(parent.as_ref(), None, &mut named(name), at(1), |_| None)
    }

    fn named(name: &'static str) -> Span {
        Draft::<()>::new(name).span
    }

    fn flushed(groups: &[Rc<FlushGroup>]) -> Vec<(u32, Vec<(String, bool)>)> {
        let ended = |span: &Span| (span.name.to_string(), span.end_timestamp.is_some());
        groups.iter().map(|group| (group.flush, group.spans.iter().map(ended).collect())).collect()
    }

    fn group(flush: u32, spans: &[(&str, bool)]) -> (u32, Vec<(String, bool)>) {
        (flush, spans.iter().map(|(name, ended)| (name.to_string(), *ended)).collect())
    }

    #[test]
    fn equal_spans_get_different_ids_and_another_one_elsewhere_changes_none() {
        let mut one = recorder();
        let root = start(&mut one, None, "root");
        let steps = [start(&mut one, Some(&root), "step"), start(&mut one, Some(&root), "step")];
        assert_ne!(steps[0].id, steps[1].id);

        let mut other = recorder();
        let root = start(&mut other, None, "root");
        let first = start(&mut other, Some(&root), "step");
        start(&mut other, Some(&root), "new");
        start(&mut other, Some(&first), "step");
        let second = start(&mut other, Some(&root), "step");
        assert_eq!([first.id, second.id], [steps[0].id.clone(), steps[1].id.clone()]);
    }

    #[test]
    fn a_child_of_the_root_has_the_same_id_before_and_after_the_end_of_the_root() {
        let mut early = recorder();
        let root = start(&mut early, None, "root");
        let before = [start(&mut early, Some(&root), "s"), start(&mut early, Some(&root), "s")];
        let mut late = recorder();
        let root = start(&mut late, None, "root");
        let first = start(&mut late, Some(&root), "s");
        late.end(&root, Outcome::Success, at(2));
        let second = start(&mut late, Some(&root), "s");
        assert_eq!([first.id, second.id], before.map(|span| span.id));
    }

    #[test]
    fn children_that_begin_after_their_parent_has_ended_get_ids_of_their_own() {
        let mut recorder = recorder();
        let root = start(&mut recorder, None, "root");
        let parent = start(&mut recorder, Some(&root), "parent");
        let mut ids = vec![start(&mut recorder, Some(&parent), "step").id];
        recorder.end(&parent, Outcome::Success, at(2));
        ids.extend((0..2).map(|_| start(&mut recorder, Some(&parent), "step").id));
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 3);
    }

    #[test]
    fn what_no_flush_has_carried_and_what_is_open_is_left_at_the_end() {
        let mut recorder = recorder();
        let root = start(&mut recorder, None, "root");
        let flushed = start(&mut recorder, Some(&root), "flushed");
        recorder.end(&flushed, Outcome::Success, at(2));
        recorder.begin_flush();
        let ended = start(&mut recorder, Some(&root), "ended");
        start(&mut recorder, Some(&root), "open");
        recorder.end(&ended, Outcome::Success, at(3));
        recorder.update(&root, |span| span.name = "root changed".into());
        let left = recorder.into_spans();
        let left: Vec<_> =
            left.iter().map(|span| (&*span.name, span.end_timestamp.is_some())).collect();
        assert_eq!(left, [("root changed", false), ("ended", true), ("open", false)]);
    }

    #[test]
    fn an_end_before_the_start_is_moved_to_the_start_and_a_second_end_is_ignored() {
        let mut recorder = recorder();
        let span = recorder.start(None, None, &mut named("late"), at(100), |_| None);
        recorder.end(&span, Outcome::Success, at(50));
        recorder.end(&span, Outcome::Canceled, at(500));
        recorder.update(&span, |span| span.name = "".into());
        let (_, groups) = recorder.begin_flush();
        assert_eq!(groups[0].spans[0].end_timestamp, Some(at(100)));
        assert_eq!(groups[0].spans[0].status, SpanStatus::Success);
        assert_eq!(groups[0].spans[0].name, "late");
    }

    #[test]
    fn a_flush_carries_parents_first_and_announces_open_spans_once() {
        let mut recorder = recorder();
        let root = start(&mut recorder, None, "root");
        let child = start(&mut recorder, Some(&root), "child");
        recorder.end(&child, Outcome::Success, at(2));
        assert_eq!(
            flushed(&recorder.begin_flush().1),
            [group(1, &[("root", false), ("child", true)])]
        );
        let late = start(&mut recorder, Some(&root), "late");
        recorder.end(&late, Outcome::Success, at(3));
        let (_, groups) = recorder.begin_flush();
        assert_eq!(
            flushed(&groups),
            [group(1, &[("root", false), ("child", true)]), group(2, &[("late", true)])]
        );
        recorder.acknowledge(&[groups[0].acknowledgement()], 1);
        recorder.end(&root, Outcome::Success, at(4));
        assert_eq!(
            flushed(&recorder.begin_flush().1),
            [group(2, &[("late", true)]), group(3, &[("root", true)])]
        );
        let counts = SpanCounts { recorded: 3, delivered: 0, refused: 1, over_limit: 0 };
        assert_eq!(recorder.counts(), counts);
        assert_eq!(counts.deferred(), 2);
    }

    #[test]
    fn an_acknowledgement_of_other_spans_is_ignored() {
        let mut recorder = recorder();
        let span = start(&mut recorder, None, "a");
        recorder.end(&span, Outcome::Success, at(2));
        let (_, groups) = recorder.begin_flush();
        let (flush, count, digest) = groups[0].acknowledgement();
        let others =
            [(flush + 1, count, digest), (flush, count + 1, digest), (flush, count, digest ^ 1)];
        recorder.acknowledge(&others, 0);
        assert_eq!(recorder.unacknowledged(), 1);
        recorder.acknowledge(&[(flush, count, digest)], 0);
        assert_eq!(recorder.unacknowledged(), 0);
        assert!(recorder.begin_flush().1.is_empty());
    }

    #[test]
    fn closing_ends_open_spans_as_abandoned() {
        let mut recorder = recorder();
        start(&mut recorder, None, "root");
        recorder.begin_flush();
        recorder.end_all(at(9));
        let (_, groups) = recorder.begin_flush();
        let span = &groups[1].spans[0];
        assert_eq!(span.status, SpanStatus::Canceled);
        assert_eq!(span.metadata["temporal.abandoned"], true);
        assert_eq!(span.end_timestamp, Some(at(9)));
    }

    #[test]
    fn what_is_over_the_limits_of_the_buffer_is_dropped_and_counted_but_never_the_root() {
        let limits = Limits::new().buffer_spans(3);
        let mut recorder = Recorder::new(
            TraceId::from_bits(1),
            None,
            Seed::new(1, "w"),
            limits,
            Marks::default(),
            None,
        );
        let root = start(&mut recorder, None, "root");
        for _ in 0..5 {
            let step = start(&mut recorder, Some(&root), "step");
            recorder.end(&step, Outcome::Success, at(2));
        }
        recorder.end(&root, Outcome::Success, at(3));
        assert_eq!(recorder.counts().over_limit, 2);
        assert_eq!((recorder.take_newly_over_limit(), recorder.take_newly_over_limit()), (2, 0));
        let names: Vec<_> =
            recorder.begin_flush().1[0].spans.iter().map(|span| span.name.clone()).collect();
        assert_eq!(names, ["root", "step", "step", "step"]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Start,
        End(prop::sample::Index),
        Flush { acknowledge: Vec<bool> },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Start),
            3 => any::<prop::sample::Index>().prop_map(Step::End),
            1 => prop::collection::vec(any::<bool>(), 0..4)
                .prop_map(|acknowledge| Step::Flush { acknowledge }),
        ]
    }

    proptest! {
        /// Whatever happens, each span is in the buffer until a group with its end was
        /// acknowledged, and after the last flush all of them have been sent with their end.
        #[test]
        fn no_span_is_ever_lost(steps in prop::collection::vec(step(), 0..80)) {
            let mut recorder = recorder();
            let mut open = Vec::new();
            let mut started = 0;
            let mut delivered: BTreeMap<SpanId, bool> = BTreeMap::new();
            let mut deliver = |group: &FlushGroup| {
                for span in group.spans.iter() {
                    let ended = span.end_timestamp.is_some();
                    let known = delivered.entry(span.id.clone()).or_insert(ended);
                    // Groups of one run arrive in order: an end is never followed by an open one.
                    assert!(ended || !*known);
                    *known |= ended;
                }
            };
            for (now, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Start => {
                        open.push(start(&mut recorder, open.last().cloned().as_ref(), "s"));
                        started += 1;
                    }
                    Step::End(index) if !open.is_empty() => {
                        let span = open.remove(index.index(open.len()));
                        recorder.end(&span, Outcome::Success, at(now as i64));
                    }
                    Step::End(_) => {}
                    Step::Flush { acknowledge } => {
                        let (_, groups) = recorder.begin_flush();
                        // The sink takes groups in order; what follows a gap waits.
                        let taken = acknowledge.iter().take_while(|yes| **yes).count();
                        for group in groups.iter().take(taken) {
                            deliver(group);
                            recorder.acknowledge(&[group.acknowledgement()], 0);
                        }
                    }
                }
            }
            recorder.end_all(at(1_000));
            for group in recorder.begin_flush().1 {
                deliver(&group);
                recorder.acknowledge(&[group.acknowledgement()], 0);
            }
            prop_assert_eq!(recorder.unacknowledged() + recorder.buffered(), 0);
            prop_assert_eq!(delivered.len(), started);
            prop_assert!(delivered.values().all(|ended| *ended));
        }
    }
}
