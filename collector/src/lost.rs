//! Finds the attempts of activities that have left no span of their own, by the spans below them.
//! An attempt's span is sent when it ends, what happens within it at once; and the id of an
//! attempt follows from that of its activity.

use std::collections::{HashMap, HashSet};

use durable_spans_model::{SpanId, attempt_span_id};

/// How many attempts beyond the last one that is known are thought of.
const ATTEMPTS_BEYOND: u32 = 8;

/// Most attempts of one activity that are thought of: the numbers come from outside.
const MAX_ATTEMPTS: u32 = 1_000;

/// An attempt that has left no span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Missing<'a> {
    pub(crate) activity: &'a SpanId,
    pub(crate) number: u32,
    /// Whether no span of it can come any more, or else it may still be under way.
    pub(crate) is_lost: bool,
}

/// What the trace knows of an activity.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Activity<'a> {
    pub(crate) id: &'a SpanId,
    pub(crate) has_ended: bool,
    /// The number of its last attempt that has left a span, or 0.
    pub(crate) last: u64,
}

/// Which of the parents that have not arrived are attempts of these activities.
pub(crate) fn find<'a>(
    mut parents: HashSet<&'a SpanId>,
    activities: impl Iterator<Item = Activity<'a>>,
) -> HashMap<&'a SpanId, Missing<'a>> {
    let mut found = HashMap::new();
    for Activity { id, has_ended, last } in activities {
        let most = u32::try_from(last).unwrap_or(u32::MAX).saturating_add(ATTEMPTS_BEYOND);
        for number in 1..=most.min(MAX_ATTEMPTS) {
            if parents.is_empty() {
                return found;
            }
            if let Some(parent) = parents.take(&attempt_span_id(id, number)) {
                let is_lost = has_ended || u64::from(number) < last;
                found.insert(parent, Missing { activity: id, number, is_lost });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_known_by_their_ids() {
        let [activity, other] = [1, 2].map(SpanId::from_bits);
        let attempt = |number| attempt_span_id(&activity, number);
        let parents = [attempt(1), attempt(3), attempt(4), attempt(99), other.clone()];
        let of = |has_ended, last| {
            let activity = Activity { id: &activity, has_ended, last };
            let found = find(parents.iter().collect(), [activity].into_iter());
            parents.each_ref().map(|parent| found.get(parent).map(|of| (of.number, of.is_lost)))
        };
        let (lost, open) = (|number| Some((number, true)), |number| Some((number, false)));
        assert_eq!(of(true, 0), [lost(1), lost(3), lost(4), None, None]);
        assert_eq!(of(false, 4), [lost(1), lost(3), open(4), None, None]);
        assert_eq!(of(false, 91)[3], open(99));
        assert_eq!(of(false, u64::MAX)[3], lost(99));
    }
}
