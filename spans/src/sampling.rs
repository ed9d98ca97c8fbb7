use std::{fmt, sync::Arc};

use crate::{TraceId, derive::share_of_trace};

/// Which traces are recorded: all of them by default.
///
/// It is decided once for a trace, where it begins, from its id and from what begins it: by the first
/// [`rule`](Self::rule) that has an answer, else by the ratio. What the trace reaches learns it from
/// the trace context, so a trace is recorded as a whole or not at all, through replays, too.
///
/// ```
/// use durable_spans_model::{Sampling, Starting, TraceId};
///
/// let sampling = Sampling::ratio(0.1).rule(|starting: &Starting<'_>| match starting.name {
///     "HealthCheck" => Some(0.0),
///     "Checkout" => Some(1.0),
///     _ => None,
/// });
/// let checkout = Starting { name: "Checkout", workflow_id: None, task_queue: None };
/// assert!(sampling.keeps(&TraceId::from_bits(7), &checkout));
/// ```
#[derive(Clone)]
pub struct Sampling {
    rules: Vec<Rule>,
    ratio: f64,
    keep_errors: bool,
}

type Rule = Arc<dyn Fn(&Starting<'_>) -> Option<f64> + Send + Sync>;

/// What begins a trace: a span of client code, or a run.
#[derive(Clone, Copy, Debug)]
pub struct Starting<'a> {
    /// The name of the span, or the type of the workflow.
    pub name: &'a str,
    /// The id of the workflow, if it is a run.
    pub workflow_id: Option<&'a str>,
    /// The task queue that it runs on, if it is a run.
    pub task_queue: Option<&'a str>,
}

impl Sampling {
    /// Records every trace.
    pub const fn all() -> Self {
        Self { rules: Vec::new(), ratio: 1.0, keep_errors: false }
    }

    /// Records this share of the traces, from 0 for none to 1 for all. Which ones follows from their
    /// ids, so that programs with the same ratio choose the same ones.
    pub const fn ratio(ratio: f64) -> Self {
        Self { rules: Vec::new(), ratio, keep_errors: false }
    }

    /// Asks `rule` for the ratio before any rule that is added later. `None` leaves it to these.
    ///
    /// It must follow from what it is given alone, for it may be asked again when a run is replayed.
    #[must_use]
    pub fn rule(
        mut self,
        rule: impl Fn(&Starting<'_>) -> Option<f64> + Send + Sync + 'static,
    ) -> Self {
        self.rules.push(Arc::new(rule));
        self
    }

    /// Keeps runs that fail, although their trace was not chosen: their spans wait in workflow state
    /// and are sent at the close, if that is a failure. Activities do not record in the meantime; a
    /// backfill adds what is missing.
    ///
    /// Such a run is started with version 5 of the flush rule, or 6 where flushes are normal activities;
    /// a failure that Temporal counts as benign is one here. It issues one flush if it fails, and no other command.
    #[must_use]
    pub const fn keep_errors(mut self) -> Self {
        self.keep_errors = true;
        self
    }

    /// Whether this trace is recorded.
    pub fn keeps(&self, trace_id: &TraceId, starting: &Starting<'_>) -> bool {
        let ratio = self.rules.iter().find_map(|rule| rule(starting)).unwrap_or(self.ratio);
        share_of_trace(trace_id) < ratio
    }

    /// See [`Sampling::keep_errors`].
    pub const fn is_keeping_errors(&self) -> bool {
        self.keep_errors
    }
}

impl Default for Sampling {
    fn default() -> Self {
        Self::all()
    }
}

impl fmt::Debug for Sampling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sampling")
            .field("rules", &self.rules.len())
            .field("ratio", &self.ratio)
            .field("keep_errors", &self.keep_errors)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: Starting<'static> = Starting { name: "Run", workflow_id: None, task_queue: None };

    fn kept(sampling: &Sampling) -> usize {
        (0..10_000).filter(|id| sampling.keeps(&TraceId::from_bits(*id), &RUN)).count()
    }

    #[test]
    fn the_ratio_is_the_share_of_traces_that_are_kept() {
        assert_eq!(kept(&Sampling::all()), 10_000);
        assert_eq!(kept(&Sampling::ratio(0.0)), 0);
        let tenth = kept(&Sampling::ratio(0.1));
        assert!((900..1_100).contains(&tenth), "{tenth}");
    }

    #[test]
    fn what_a_smaller_ratio_keeps_a_larger_one_keeps_too() {
        let (small, large) = (Sampling::ratio(0.2), Sampling::ratio(0.5));
        for id in (0..1_000).map(TraceId::from_bits) {
            assert!(!small.keeps(&id, &RUN) || large.keeps(&id, &RUN));
        }
    }

    #[test]
    fn the_first_rule_with_an_answer_decides() {
        let sampling = Sampling::all()
            .rule(|starting| (starting.name == "Other").then_some(1.0))
            .rule(|_| Some(0.0))
            .rule(|_| Some(1.0));
        assert_eq!(kept(&sampling), 0);
    }
}
