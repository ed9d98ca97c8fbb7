use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The newest version of the flush rule that this release follows. It follows all older ones, too.
pub const RULE_VERSION: u16 = ON_ERROR_BY_ACTIVITY;

/// Flush by a local activity; results count when the code sees them.
const LOCALLY: u16 = 1;

/// The same rule, but flush by a normal activity.
const BY_ACTIVITY: u16 = 2;

/// Flush by a local activity; results count when they arrive.
const ARRIVALS_LOCALLY: u16 = 3;

/// The same rule, but flush by a normal activity.
const ARRIVALS_BY_ACTIVITY: u16 = 4;

/// Flush at the close of a run that fails, and else not at all; locally.
const ON_ERROR: u16 = 5;

/// The same by a normal activity.
const ON_ERROR_BY_ACTIVITY: u16 = 6;

/// When a run flushes its spans. Pinned per run when the run starts, so that changing the options
/// of a worker or a client never changes the commands of a run in flight.
///
/// The defaults are 200 operations and a linger of 10 seconds. The rule itself, and what each
/// flush costs in history, is described with the workflow half of durable-spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushPolicy {
    rule_version: u16,
    operations: u32,
    linger: Duration,
    when_buffered: Option<u32>,
}

impl FlushPolicy {
    /// Flush after 200 operations, 10 seconds after the first one, and at the close.
    pub const fn new() -> Self {
        Self {
            rule_version: LOCALLY,
            operations: 200,
            linger: Duration::from_secs(10),
            when_buffered: None,
        }
    }

    /// Flush once the user's code has made this many operations (commands, their resolutions,
    /// signals and updates) since the last flush. Default 200, at least 1. Each such flush costs
    /// one history event of about 300 bytes.
    #[must_use]
    pub const fn operations(mut self, operations: u32) -> Self {
        self.operations = if operations == 0 { 1 } else { operations };
        self
    }

    /// Flush this long after the first operation that no flush has covered. Default 10 seconds,
    /// doubling with each such flush of a run up to 10 minutes; at least 1 second, in whole
    /// milliseconds. Arming costs one timer event per run that makes an operation, firing another
    /// one, a workflow task (3 events) and the flush (1 event).
    #[must_use]
    pub const fn linger(mut self, linger: Duration) -> Self {
        let ms = linger.as_millis();
        self.linger =
            if ms < 1_000 { Duration::from_secs(1) } else { Duration::from_millis(ms as u64) };
        self
    }

    /// Flush also when the buffer holds this many spans. Off by default.
    ///
    /// With this trigger **a change of instrumentation is a versioning event**: a run in flight
    /// that replays with code recording more or fewer spans fails with a nondeterminism error.
    /// Use it where runs are short and memory is tight.
    #[must_use]
    pub const fn when_buffered(mut self, spans: u32) -> Self {
        self.when_buffered = if spans == 0 { None } else { Some(spans) };
        self
    }

    /// Flush by a normal activity instead of a local one: for workers that may not reach the
    /// network, while the workers of another task queue may.
    ///
    /// The spans are then in the history of the run: compressed, encoded by the payload codec, one
    /// command per flush, at most 1.4 MB each. A flush costs three events and, while the run goes on,
    /// a workflow task. Where the flush at the close is not done within 1.2 seconds, couriers take
    /// the spans.
    #[must_use]
    pub const fn by_activity(mut self) -> Self {
        self.rule_version = match self.rule_version {
            ON_ERROR | ON_ERROR_BY_ACTIVITY => ON_ERROR_BY_ACTIVITY,
            ARRIVALS_LOCALLY | ARRIVALS_BY_ACTIVITY => ARRIVALS_BY_ACTIVITY,
            _ => BY_ACTIVITY,
        };
        self
    }

    /// See [`FlushPolicy::by_activity`].
    pub const fn is_by_activity(&self) -> bool {
        matches!(self.rule_version, BY_ACTIVITY | ARRIVALS_BY_ACTIVITY | ON_ERROR_BY_ACTIVITY)
    }

    /// Flush once, at the close, and only if the run fails: the policy of runs that sampling has not
    /// chosen and keeps if they fail, see [`Sampling::keep_errors`](crate::Sampling::keep_errors).
    #[must_use]
    pub const fn on_error(mut self) -> Self {
        self.rule_version = if self.is_by_activity() { ON_ERROR_BY_ACTIVITY } else { ON_ERROR };
        self
    }

    /// See [`FlushPolicy::on_error`].
    pub const fn is_on_error(&self) -> bool {
        matches!(self.rule_version, ON_ERROR | ON_ERROR_BY_ACTIVITY)
    }

    /// Count the result of a command when it arrives, not when the workflow's code sees it, so that
    /// **awaiting in another order, or awaiting what was dropped before, shifts no flush**. A local
    /// activity then counts twice when it begins, and its result not. Also, a run that is reset to its
    /// very first workflow task then goes on under the same root span, as after any other reset.
    ///
    /// Clients pin this to every run that they start. For runs that come without a header it has to
    /// be said, by a dated entry of the timetable, since those of today count as they began.
    #[must_use]
    pub const fn counting_arrivals(mut self) -> Self {
        self.rule_version = match self.rule_version {
            LOCALLY => ARRIVALS_LOCALLY,
            BY_ACTIVITY => ARRIVALS_BY_ACTIVITY,
            other => other,
        };
        self
    }

    /// See [`FlushPolicy::counting_arrivals`].
    pub const fn counts_arrivals(&self) -> bool {
        matches!(self.rule_version, ARRIVALS_LOCALLY | ARRIVALS_BY_ACTIVITY)
    }

    /// Whether the run's root span has the same id in every branch that a reset makes of the run, be it
    /// a reset to its very first workflow task: from version 3 of the rule on.
    pub const fn keeps_root(&self) -> bool {
        self.rule_version >= ARRIVALS_LOCALLY
    }

    /// Whether this release follows that version of the flush rule.
    pub const fn is_known(&self) -> bool {
        self.rule_version >= LOCALLY && self.rule_version <= RULE_VERSION
    }

    /// The version of the flush rule that the run was started under.
    pub const fn rule_version(&self) -> u16 {
        self.rule_version
    }

    /// See [`FlushPolicy::operations`].
    pub const fn operations_limit(&self) -> u32 {
        self.operations
    }

    /// See [`FlushPolicy::linger`].
    pub const fn linger_period(&self) -> Duration {
        self.linger
    }

    /// See [`FlushPolicy::when_buffered`].
    pub const fn buffered_limit(&self) -> Option<u32> {
        self.when_buffered
    }
}

impl Default for FlushPolicy {
    fn default() -> Self {
        Self::new()
    }
}

/// `[rule version, operations, linger in ms, buffered limit or 0]`: short, since it is in the
/// header of each run.
type Wire = (u16, u32, u64, u32);

impl Serialize for FlushPolicy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let linger_ms = u64::try_from(self.linger.as_millis()).unwrap_or(u64::MAX);
        let wire: Wire =
            (self.rule_version, self.operations, linger_ms, self.when_buffered.unwrap_or(0));
        wire.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for FlushPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (rule_version, operations, linger_ms, when_buffered) = Wire::deserialize(deserializer)?;
        Ok(Self {
            rule_version,
            ..Self::new()
                .operations(operations)
                .linger(Duration::from_millis(linger_ms))
                .when_buffered(when_buffered)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs in flight carry this text in their history: it may never change its meaning.
    #[test]
    fn the_pinned_form_of_a_policy_never_changes() {
        let pinned = |policy: FlushPolicy| serde_json::to_string(&policy).unwrap();
        assert_eq!(pinned(FlushPolicy::new()), "[1,200,10000,0]");
        let other =
            FlushPolicy::new().operations(50).linger(Duration::from_secs(30)).when_buffered(200);
        assert_eq!(pinned(other), "[1,50,30000,200]");
        let parsed = |text: &str| serde_json::from_str::<FlushPolicy>(text).unwrap();
        assert_eq!(parsed("[1,50,30000,200]"), other);
        assert!(parsed("[1,200,10000,0]").is_known());
        let by_activity = FlushPolicy::new().by_activity();
        assert_eq!(pinned(by_activity), "[2,200,10000,0]");
        assert!(parsed("[2,200,10000,0]").is_by_activity());
        let arrivals = FlushPolicy::new().counting_arrivals();
        assert_eq!(pinned(arrivals), "[3,200,10000,0]");
        assert_eq!(pinned(arrivals.by_activity()), "[4,200,10000,0]");
        assert_eq!(pinned(by_activity.counting_arrivals()), "[4,200,10000,0]");
        assert_eq!(pinned(arrivals.on_error()), "[5,200,10000,0]");
        assert_eq!(pinned(by_activity.on_error()), "[6,200,10000,0]");
        assert_eq!(arrivals.on_error().counting_arrivals(), arrivals.on_error());
        assert_eq!(by_activity.on_error(), FlushPolicy::new().on_error().by_activity());
        for (text, by_activity, arrivals, on_error) in [
            ("[1,200,10000,0]", false, false, false),
            ("[2,200,10000,0]", true, false, false),
            ("[3,200,10000,0]", false, true, false),
            ("[4,200,10000,0]", true, true, false),
            ("[5,200,10000,0]", false, false, true),
            ("[6,200,10000,0]", true, false, true),
        ] {
            let policy = parsed(text);
            assert!(policy.is_known(), "{text}");
            assert_eq!(
                (policy.is_by_activity(), policy.counts_arrivals(), policy.is_on_error()),
                (by_activity, arrivals, on_error)
            );
        }
        assert_eq!(parsed("[7,200,10000,0]").rule_version(), 7);
        assert!(!parsed("[7,200,10000,0]").is_known() && !parsed("[0,200,10000,0]").is_known());
    }
}
