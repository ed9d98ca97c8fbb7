use std::collections::HashMap;

use durable_spans_model::{Seed, SpanId, TraceId};

use super::draws::Draw;

/// `nth` of spans below a parent that is no open span of the run counts from here, as in the
/// recorder.
const OUTSIDE: u64 = 1 << 63;

/// Derives the ids that the recorder would give, as far as history tells the places.
pub(super) struct Ids<'a> {
    seed: Seed,
    draw: &'a Draw<'a>,
    /// A stream gives another number when it is asked again.
    drawn: HashMap<u64, Option<u64>>,
    counts: HashMap<(Option<SpanId>, String), u64>,
}

impl<'a> Ids<'a> {
    pub(super) fn new(seed: Seed, draw: &'a Draw<'a>) -> Self {
        Self { seed, draw, drawn: HashMap::new(), counts: HashMap::new() }
    }

    /// The id of a run's root that is the same after every reset.
    pub(super) fn lasting_root(&mut self, parent: Option<&SpanId>, name: &str) -> SpanId {
        let nth = self.count(parent, name);
        self.seed.span_id(parent, name, OUTSIDE + nth, |_| None)
    }

    pub(super) fn trace_id(&self) -> TraceId {
        self.seed.trace_id()
    }

    /// The next id of this name below a span of the run.
    pub(super) fn inside(&mut self, parent: &SpanId, name: &str) -> SpanId {
        let nth = self.count(Some(parent), name);
        self.derive(Some(parent), name, nth)
    }

    /// The next id of this name below a span from elsewhere, or below none.
    pub(super) fn outside(&mut self, parent: Option<&SpanId>, name: &str) -> SpanId {
        let nth = self.count(parent, name);
        self.derive(parent, name, OUTSIDE + nth)
    }

    /// Whether `id` is the next of this name below `parent`. If so, it is counted.
    pub(super) fn is_next(&mut self, id: &SpanId, parent: &SpanId, name: &str) -> bool {
        let key = (Some(parent.clone()), name.to_owned());
        let nth = self.counts.get(&key).copied().unwrap_or_default();
        let next = self.derive(Some(parent), name, nth) == *id;
        if next {
            self.counts.insert(key, nth + 1);
        }
        next
    }

    /// A reset gives the run other random numbers, which nobody can tell without its code. From
    /// here on ids are of our own making, so that none of the branch left behind comes again.
    pub(super) fn reset(&mut self, workflow_id: &str, run_id: &str) {
        self.seed = Seed::new(0, &format!("{workflow_id}/{run_id}"));
        self.drawn.clear();
    }

    fn count(&mut self, parent: Option<&SpanId>, name: &str) -> u64 {
        let count = self.counts.entry((parent.cloned(), name.to_owned())).or_default();
        *count += 1;
        *count - 1
    }

    fn derive(&mut self, parent: Option<&SpanId>, name: &str, nth: u64) -> SpanId {
        let Self { seed, draw, drawn, .. } = self;
        seed.span_id(parent, name, nth, |place| *drawn.entry(place).or_insert_with(|| draw(place)))
    }
}
