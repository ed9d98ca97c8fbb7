//! Where the ids come from. Every function here is pinned by literals: an id that changes with a
//! release of ours is a span delivered twice, so none of these may ever change its result.

use std::{collections::BTreeMap, hash::Hasher};

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::{SpanId, TraceId};

/// Secret-less 128-bit key from which a run derives all its ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(u128);

impl Seed {
    /// Mixes what the run's random stream drew with the workflow id.
    ///
    /// Temporal seeds a run's streams with 64 bits only, so two runs in 2^32 would share all their
    /// ids without the workflow id. The run id stays out: a replay of a reset run reports another.
    pub fn new(drawn: u128, workflow_id: &str) -> Self {
        let mut hasher = hasher(drawn);
        text(&mut hasher, "seed");
        text(&mut hasher, workflow_id);
        Self(hasher.finish128().as_u128())
    }

    /// From the run id that a run has kept through all its resets, and the workflow id. Unlike what the
    /// run's random stream draws, it is the same where the very first workflow task is done again.
    pub fn of_run(original_run_id: &str, workflow_id: &str) -> Self {
        let mut hasher = hasher(0);
        text(&mut hasher, "run");
        text(&mut hasher, original_run_id);
        text(&mut hasher, workflow_id);
        Self(hasher.finish128().as_u128())
    }

    /// The trace id of a run that was started without a trace context.
    pub fn trace_id(self) -> TraceId {
        let mut hasher = hasher(self.0);
        text(&mut hasher, "trace");
        TraceId::from_bits(hasher.finish128().as_u128())
    }

    /// The id of the `nth` span (from 0) of this name under `parent`.
    ///
    /// `draw` is given a key that stands for this place in the trace, and returns a number for it, the same
    /// one for the same key; `None` until the run is reset. So the spans of a branch that a reset left
    /// behind are not overwritten by those of the new one.
    pub fn span_id(
        self,
        parent: Option<&SpanId>,
        name: &str,
        nth: u64,
        draw: impl FnOnce(u64) -> Option<u64>,
    ) -> SpanId {
        Siblings::new(self, parent, name, nth).next_id(draw)
    }
}

/// The spans that began under one parent, and what tells them apart: their names, and how many of each
/// name there are.
#[derive(Clone, Debug, Default)]
pub struct Children {
    by_name: BTreeMap<Box<str>, Box<Siblings>>,
}

impl Children {
    /// The id of the next span of this name under `parent`: that of [`Seed::span_id`], where `first` is the
    /// number of the first one.
    pub fn next_id(
        &mut self,
        seed: Seed,
        parent: Option<&SpanId>,
        name: &str,
        first: u64,
        draw: impl FnOnce(u64) -> Option<u64>,
    ) -> SpanId {
        if let Some(siblings) = self.by_name.get_mut(name) {
            return siblings.next_id(draw);
        }
        let mut siblings = Box::new(Siblings::new(seed, parent, name, first));
        let id = siblings.next_id(draw);
        self.by_name.insert(name.into(), siblings);
        id
    }
}

/// The spans of one name under one parent. What their ids have in common is hashed once.
#[derive(Clone, Debug)]
struct Siblings {
    hasher: SipHasher13,
    next: u64,
}

impl Siblings {
    fn new(seed: Seed, parent: Option<&SpanId>, name: &str, next: u64) -> Self {
        let mut hasher = hasher(seed.0);
        text(&mut hasher, "span");
        match parent.map(|id| (id.bits(), id)) {
            None => hasher.write_u8(0),
            Some((Some(bits), _)) => {
                hasher.write_u8(1);
                hasher.write(&bits.to_le_bytes());
            }
            Some((None, foreign)) => {
                hasher.write_u8(2);
                text(&mut hasher, foreign.text(&mut [0; 36]));
            }
        }
        text(&mut hasher, name);
        Self { hasher, next }
    }

    /// See [`Seed::span_id`].
    fn next_id(&mut self, draw: impl FnOnce(u64) -> Option<u64>) -> SpanId {
        let mut hasher = self.hasher;
        hasher.write(&self.next.to_le_bytes());
        self.next = self.next.wrapping_add(1);
        let place = hasher.finish128();
        let Some(drawn) = draw(place.h1) else { return SpanId::from_bits(place.as_u128()) };
        hasher.write(&drawn.to_le_bytes());
        SpanId::from_bits(hasher.finish128().as_u128())
    }
}

/// The id of one attempt of an activity, from the id of the activity's span in its workflow and
/// the attempt's number (from 1). A retried report of the same attempt has the same id.
pub fn attempt_span_id(activity: &SpanId, attempt: u32) -> SpanId {
    let mut hasher = hasher(0);
    text(&mut hasher, "attempt");
    text(&mut hasher, &activity.to_string());
    hasher.write(&attempt.to_le_bytes());
    SpanId::from_bits(hasher.finish128().as_u128())
}

/// The trace of the run that follows a continue-as-new, where each run has a trace of its own.
pub fn next_trace_id(trace_id: &TraceId, root: &SpanId) -> TraceId {
    let mut hasher = hasher(0);
    text(&mut hasher, "next trace");
    text(&mut hasher, &trace_id.to_string());
    text(&mut hasher, &root.to_string());
    TraceId::from_bits(hasher.finish128().as_u128())
}

/// A number from 0 up to 1 that stands for this trace, evenly spread. What is sampled follows from it.
pub(crate) fn share_of_trace(trace_id: &TraceId) -> f64 {
    let mut hasher = hasher(0);
    text(&mut hasher, "share");
    text(&mut hasher, &trace_id.to_string());
    // As many bits as a double holds exactly.
    (hasher.finish128().h1 >> 11) as f64 / (1_u64 << 53) as f64
}

fn hasher(key: u128) -> SipHasher13 {
    SipHasher13::new_with_key(&key.to_le_bytes())
}

/// Length first, so that no two sequences of texts feed the same bytes.
fn text(hasher: &mut SipHasher13, text: &str) {
    hasher.write(&(text.len() as u64).to_le_bytes());
    hasher.write(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// These literals were computed once. If this test fails, the code is wrong, never the test:
    /// runs in flight would get other ids for spans that they have already delivered.
    #[test]
    fn derived_ids_never_change() {
        let seed = Seed::new(42, "order-17");
        assert_eq!(seed.trace_id().to_string(), "8c753764-7009-8012-d10d-4723ad30cacf");
        let mut keys = Vec::new();
        let mut draw = |key| {
            keys.push(key);
            Some(7)
        };
        let root = seed.span_id(None, "Order", 0, &mut draw);
        assert_eq!(root.to_string(), "098e14d8-7ccb-69fe-aec4-38f118dda4e5");
        assert_eq!(
            seed.span_id(Some(&root), "step", 1, &mut draw).to_string(),
            "a8010587-f588-f373-d9ba-a59bc87240c3"
        );
        let foreign: SpanId = "abc".parse().unwrap();
        assert_eq!(
            seed.span_id(Some(&foreign), "step", 0, &mut draw).to_string(),
            "39bb0d76-5660-df30-d883-7287ee4816ac"
        );
        assert_eq!(attempt_span_id(&root, 2).to_string(), "840a76e9-317f-b5f8-da70-0778411ee818");
        let trace = next_trace_id(&seed.trace_id(), &root);
        assert_eq!(trace.to_string(), "e09a4c2f-5346-217f-4ee6-0747f125923c");
        let expected =
            [10_741_479_733_441_183_478, 18_246_865_076_867_479_367, 17_561_276_970_715_693_564];
        assert_eq!(keys, expected);
        let seed = Seed::of_run("0f1c2d3e-0000-4000-8000-000000000001", "order-17");
        assert_eq!(seed.trace_id().to_string(), "c1f80dea-796d-43b5-0937-4c7a67050b42");
    }

    #[test]
    fn children_have_the_ids_of_their_number_among_those_of_their_name() {
        let seed = Seed::new(42, "order-17");
        let parent = SpanId::from_bits(7);
        let mut children = Children::default();
        for (name, nth) in [("a", 5), ("b", 5), ("a", 6), ("a", 7), ("b", 6)] {
            let id = children.next_id(seed, Some(&parent), name, 5, |_| None);
            assert_eq!(id, seed.span_id(Some(&parent), name, nth, |_| None));
        }
    }

    proptest! {
        #[test]
        fn each_part_of_the_derivation_matters(
            drawn: u128, parent: u128, name in ".{0,20}", nth: u64, draw: Option<u64>,
        ) {
            let seed = Seed::new(drawn, "w");
            let parent = SpanId::from_bits(parent);
            let id = seed.span_id(Some(&parent), &name, nth, |_| draw);
            prop_assert_ne!(&seed.span_id(None, &name, nth, |_| draw), &id);
            let longer = format!("{name}.");
            prop_assert_ne!(&seed.span_id(Some(&parent), &longer, nth, |_| draw), &id);
            let next = nth.wrapping_add(1);
            prop_assert_ne!(&seed.span_id(Some(&parent), &name, next, |_| draw), &id);
            let other = draw.map_or(Some(0), |draw| draw.checked_add(1));
            prop_assert_ne!(&seed.span_id(Some(&parent), &name, nth, |_| other), &id);
            let other = Seed::new(drawn, "v");
            prop_assert_ne!(&other.span_id(Some(&parent), &name, nth, |_| draw), &id);
        }
    }
}
