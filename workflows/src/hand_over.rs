#![expect(
    clippy::disallowed_types,
    reason = "the flush activity takes from here on threads of its own; the lock is never held across an await"
)]

use std::{
    collections::BTreeMap,
    fmt,
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::flush::FlushGroup;

/// Where a run leaves the groups of a flush for the flush activity, if both are in one process: a
/// local activity always runs in the process of its workflow.
///
/// Nothing is encoded, copied or parsed on this way, and the activity's input is a number. What was
/// left here counts as delivered only by the activity's answer, which is in history. It is gone with
/// that answer or with the run's leaving memory, so that nothing stays of a replay, whose answers come
/// from history while nobody asks here. Where the SDK drops a run, it drops the answers of its local
/// activities, too: the run is replayed, and leaves the same groups again.
///
/// Each flush that leaves groups has a number of its own, also where a workflow task is done again.
/// Cloning gives another handle to the same place.
#[derive(Clone, Default)]
pub struct HandOver {
    left: Arc<Mutex<Left>>,
}

#[derive(Default)]
struct Left {
    next: u64,
    groups: BTreeMap<u64, Vec<FlushGroup>>,
}

impl HandOver {
    /// An empty place.
    pub fn new() -> Self {
        Self::default()
    }

    /// The groups that were left under this number, `None` once the run has its answer or has left
    /// memory.
    pub fn groups(&self, number: u64) -> Option<Vec<FlushGroup>> {
        self.lock().groups.get(&number).cloned()
    }

    /// Whether nothing is left here: no flush is under way.
    pub fn is_empty(&self) -> bool {
        self.lock().groups.is_empty()
    }

    /// Leaves groups until the returned value is dropped.
    pub(crate) fn leave(&self, groups: &[Rc<FlushGroup>]) -> LeftGroups {
        let mut left = self.lock();
        let number = left.next;
        left.next += 1;
        let groups = groups.iter().map(|group| FlushGroup::clone(group)).collect();
        left.groups.insert(number, groups);
        LeftGroups { number, place: self.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for HandOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandOver").field("flushes", &self.lock().groups.len()).finish()
    }
}

/// Groups that were left at a [`HandOver`], until this is dropped: with the answer, or with the run.
pub(crate) struct LeftGroups {
    number: u64,
    place: HandOver,
}

impl LeftGroups {
    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for LeftGroups {
    fn drop(&mut self) {
        self.place.lock().groups.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use durable_spans_model::{Span, SpanId, Timestamp, TraceId};

    use super::*;

    #[test]
    fn what_is_left_can_be_had_until_the_run_has_its_answer() {
        let start = Timestamp::from_unix_ns(0);
        let span = Span::new(TraceId::from_bits(1), SpanId::from_bits(1), "s", start);
        let group = Rc::new(FlushGroup::new(1, vec![span]));
        let place = HandOver::new();
        let first = place.leave(std::slice::from_ref(&group));
        let second = place.clone().leave(&[]);
        assert_ne!(first.number(), second.number());
        let had = place.groups(first.number()).unwrap();
        assert!(Arc::ptr_eq(&had[0].spans, &group.spans), "not a copy");
        let number = first.number();
        drop(first);
        assert_eq!(place.groups(number), None);
        assert_eq!(place.groups(second.number()), Some(Vec::new()));
        drop(second);
        assert!(place.is_empty());
    }
}
