use durable_spans_model::{FlushPolicy, Timestamp};

/// Which runs are traced, and by which flush policy, according to when they started.
///
/// The policy of a run is pinned when it starts. A run that was started through a client of ours
/// carries it in a header; for any other run (a schedule, Temporal's CLI, another SDK) it follows
/// from the run's start time and this table, which gives the same answer at each replay. So
/// **never change an entry that lies in the past**: add one with a date that lies after the
/// rollout has reached every worker.
///
/// ```
/// use durable_spans_workflow::Timetable;
/// use durable_spans_model::FlushPolicy;
///
/// // A new fleet: everything is traced.
/// let fresh = Timetable::new();
/// // A fleet with runs in flight: those started before this time are left alone.
/// let rollout = Timetable::since("2026-12-01T06:00:00Z".parse()?)
///     .policy_from("2027-01-15T06:00:00Z".parse()?, FlushPolicy::new().operations(500));
/// # Ok::<(), durable_spans_model::InvalidSpan>(())
/// ```
#[derive(Clone, Debug)]
pub struct Timetable {
    first: Option<Timestamp>,
    end: Option<Timestamp>,
    /// By time, ascending.
    entries: Vec<(Timestamp, FlushPolicy)>,
}

impl Timetable {
    /// Every run is traced, by the default policy unless its header says otherwise.
    pub fn new() -> Self {
        Self { first: None, end: None, entries: Vec::new() }
    }

    /// Runs that started before `time` get no spans and no commands, whatever their header says.
    ///
    /// A fleet with runs in flight needs this: their histories hold no flushes, and replay must
    /// not issue any. Choose a time by which the new version runs on every worker.
    pub fn since(time: Timestamp) -> Self {
        Self { first: Some(time), end: None, entries: Vec::new() }
    }

    /// Runs that start at `time` or later get no spans and no commands, whatever their header says:
    /// tracing is turned off, while the runs before it go on as they began. When the last of them has
    /// ended, durable-spans can be removed.
    #[must_use]
    pub fn until(mut self, time: Timestamp) -> Self {
        self.end = Some(time);
        self
    }

    /// Runs without a header that start at `time` or later follow `policy`.
    #[must_use]
    pub fn policy_from(mut self, time: Timestamp, policy: FlushPolicy) -> Self {
        let position = self.entries.partition_point(|(from, _)| *from <= time);
        self.entries.insert(position, (time, policy));
        self
    }

    /// The policy of a run without a header, `None` if the run is left alone.
    pub(crate) fn policy_at(&self, start: Timestamp) -> Option<FlushPolicy> {
        let too_early = self.first.is_some_and(|first| start < first);
        if too_early || self.end.is_some_and(|end| start >= end) {
            return None;
        }
        let covering = self.entries.iter().rev().find(|(from, _)| *from <= start);
        Some(covering.map_or_else(FlushPolicy::new, |(_, policy)| *policy))
    }
}

impl Default for Timetable {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_alone_decides() {
        let at = Timestamp::from_unix_ns;
        let small = FlushPolicy::new().operations(5);
        let large = FlushPolicy::new().operations(500);
        let table =
            Timetable::since(at(100)).policy_from(at(300), large).policy_from(at(200), small);
        assert_eq!(table.policy_at(at(99)), None);
        assert_eq!(table.policy_at(at(100)), Some(FlushPolicy::new()));
        assert_eq!(table.policy_at(at(200)), Some(small));
        assert_eq!(table.policy_at(at(299)), Some(small));
        assert_eq!(table.policy_at(at(300)), Some(large));
        assert_eq!(Timetable::new().policy_at(at(0)), Some(FlushPolicy::new()));
        let ending = table.until(at(400));
        assert_eq!(ending.policy_at(at(399)), Some(large));
        assert_eq!(ending.policy_at(at(400)), None);
    }
}
