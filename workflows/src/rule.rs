//! The flush rule: the one place that decides when a run issues a command of ours.
//!
//! A flush is a command in the run's history, so replay must issue it at the same point although
//! the user's code may record other spans by then, the options may be others and the sink may be
//! down. What replay reproduces anyway is the user's own sequence of operations: that, and nothing
//! else, is what the rule counts.
//!
//! - **R1**: `operations` operations since the last flush.
//! - **R2**: the first operation that no flush covers arms a timer, unless one is armed; when it
//!   fires and operations were made since the last flush, flush. The timer is never cancelled. The
//!   period doubles with each such flush, from `linger` up to [`LONGEST_LINGER`].
//!   Where the code issues commands in the very moment in which it fires, and nothing that counts has
//!   arrived then, these are of later: beside a local activity that outlasts its workflow task, replay
//!   may have its result, and what comes of that, at once with a timer that fired before.
//! - **R3**: the close of the run. The interceptor sees to it.
//!
//! An operation is a command of the user's code, a message that a handler of it takes, or the result
//! of a command: in versions 1 and 2 when the code sees it, in versions 3 and 4 when it arrives,
//! whether or not the code awaits it by then; there a local activity counts twice when it begins, and
//! its result not. Versions 2 and 4 flush by normal activities.
//!
//! Versions 5 and 6 are for runs that are kept if they fail: nothing but R3, and that only if the run
//! fails; by a local and by a normal activity.
//!
//! The decision reads no buffer length (but for the opt-in trigger), no option of today, no clock,
//! no history length, no sink state and no replay flag, and it does not depend on when a flush
//! before it ended.

use std::time::Duration;

use durable_spans_model::FlushPolicy;

/// Where the doubling of the linger period ends.
pub(crate) const LONGEST_LINGER: Duration = Duration::from_secs(600);

/// State of the one linger timer of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Linger {
    Unarmed,
    Armed,
    /// It fired just now; a run of the rule with this value consumes it.
    Fired,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    /// Start a timer of this length.
    ArmLinger(Duration),
    /// Flush now, and tell the rule by [`FlushRule::flush_issued`].
    Flush,
}

#[derive(Debug)]
pub(crate) struct FlushRule {
    policy: FlushPolicy,
    operations: u64,
    operations_at_flush: u64,
    /// When it was asked last.
    operations_before: u64,
    /// Since it was asked last, a message or a result has been counted.
    arrived: bool,
    linger: Duration,
}

impl FlushRule {
    pub(crate) fn new(policy: FlushPolicy) -> Self {
        Self {
            linger: policy.linger_period().min(LONGEST_LINGER),
            policy,
            operations: 0,
            operations_at_flush: 0,
            operations_before: 0,
            arrived: false,
        }
    }

    /// The user's code issued a command or entered a signal or update handler, or a command's result
    /// counts.
    pub(crate) fn count_operation(&mut self) {
        self.operations += 1;
    }

    /// An operation that is a message, or the result of a command but a local activity's.
    pub(crate) fn count_arrival(&mut self) {
        self.count_operation();
        self.arrived = true;
    }

    pub(crate) fn flush_issued(&mut self) {
        self.operations_at_flush = self.operations;
    }

    /// Decides what to do now. `buffered` is read only where the policy has opted in.
    pub(crate) fn due(&mut self, linger: Linger, buffered: usize) -> Due {
        if self.policy.is_on_error() {
            return Due::Nothing;
        }
        let since_flush = self.operations - self.operations_at_flush;
        let before = std::mem::replace(&mut self.operations_before, self.operations);
        let arrived = std::mem::take(&mut self.arrived);
        let for_timer = if arrived { self.operations } else { before };
        if linger == Linger::Fired && for_timer > self.operations_at_flush {
            self.linger = (self.linger * 2).min(LONGEST_LINGER);
            return Due::Flush;
        }
        if since_flush >= u64::from(self.policy.operations_limit()) {
            return Due::Flush;
        }
        if self.policy.buffered_limit().is_some_and(|limit| buffered >= limit as usize) {
            return Due::Flush;
        }
        if linger != Linger::Armed && since_flush > 0 {
            return Due::ArmLinger(self.linger);
        }
        Due::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(operations: u32) -> FlushRule {
        FlushRule::new(FlushPolicy::new().operations(operations))
    }

    #[test]
    fn nothing_is_due_without_operations_whatever_is_buffered() {
        let mut rule = rule(1);
        for linger in [Linger::Unarmed, Linger::Armed, Linger::Fired] {
            assert_eq!(rule.due(linger, 1_000_000), Due::Nothing);
        }
    }

    #[test]
    fn the_nth_operation_flushes_even_with_an_empty_buffer() {
        let mut rule = rule(3);
        for _ in 0..2 {
            rule.count_operation();
            assert_eq!(rule.due(Linger::Armed, 0), Due::Nothing);
        }
        rule.count_operation();
        assert_eq!(rule.due(Linger::Armed, 0), Due::Flush);
        rule.flush_issued();
        assert_eq!(rule.due(Linger::Armed, 0), Due::Nothing);
    }

    #[test]
    fn the_linger_timer_is_armed_once_and_doubles_up_to_ten_minutes() {
        let mut rule = rule(200);
        let mut periods = Vec::new();
        for _ in 0..8 {
            rule.count_operation();
            let Due::ArmLinger(period) = rule.due(Linger::Unarmed, 0) else { panic!("not armed") };
            periods.push(period.as_secs());
            assert_eq!(rule.due(Linger::Armed, 0), Due::Nothing);
            assert_eq!(rule.due(Linger::Fired, 0), Due::Flush);
            rule.flush_issued();
        }
        assert_eq!(periods, [10, 20, 40, 80, 160, 320, 600, 600]);
    }

    #[test]
    fn a_timer_that_fires_after_another_flush_covered_all_does_nothing() {
        let mut rule = rule(1);
        rule.count_operation();
        assert_eq!(rule.due(Linger::Armed, 0), Due::Flush);
        rule.flush_issued();
        assert_eq!(rule.due(Linger::Fired, 0), Due::Nothing);
        rule.count_operation();
        rule.flush_issued();
        rule.count_arrival();
        assert_eq!(rule.due(Linger::Fired, 0), Due::Flush);
    }

    #[test]
    fn commands_that_come_of_nothing_counted_are_of_later_than_the_timer_that_fires_with_them() {
        let covered = || {
            let mut rule = rule(2);
            rule.count_operation();
            assert!(matches!(rule.due(Linger::Unarmed, 0), Due::ArmLinger(_)));
            rule.count_operation();
            assert_eq!(rule.due(Linger::Armed, 0), Due::Flush);
            rule.flush_issued();
            assert_eq!(rule.due(Linger::Armed, 0), Due::Nothing);
            rule
        };
        let mut live = covered();
        assert_eq!(live.due(Linger::Fired, 0), Due::Nothing);
        live.count_operation();
        let armed = live.due(Linger::Unarmed, 0);
        assert!(matches!(armed, Due::ArmLinger(_)));
        let mut replayed = covered();
        replayed.count_operation();
        assert_eq!(replayed.due(Linger::Fired, 0), armed);
        let mut with_message = covered();
        with_message.count_arrival();
        assert_eq!(with_message.due(Linger::Fired, 0), Due::Flush);
    }

    #[test]
    fn the_buffer_counts_only_by_choice() {
        let mut plain = rule(200);
        assert_eq!(plain.due(Linger::Unarmed, 500), Due::Nothing);
        let mut opted_in = FlushRule::new(FlushPolicy::new().when_buffered(200));
        assert_eq!(opted_in.due(Linger::Unarmed, 199), Due::Nothing);
        assert_eq!(opted_in.due(Linger::Unarmed, 200), Due::Flush);
    }
}
