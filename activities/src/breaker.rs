use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use metrics::SharedString;
use tokio::sync::watch;

use crate::sink_error::SinkError;

/// So many failures in a row open the breaker. One bad answer of a load balancer does not.
const FAILURES: u32 = 3;

/// A failure after which nothing is tried for this long opens it at once: no run waits so long.
const LONG_PAUSE: Duration = Duration::from_millis(900);

/// Whether the sink is waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BreakerState {
    /// The sink answers: the close of a run and the end of an activity wait for it, each within its
    /// budget.
    #[default]
    Closed,
    /// The sink is down: nobody waits, everything is deferred. One request is tried again and
    /// again, with a growing pause of up to 30 seconds, or as long as the sink asks for.
    Open,
    /// That one request is on its way. If it succeeds, the breaker closes.
    HalfOpen,
}

impl BreakerState {
    /// A short name for logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

impl fmt::Display for BreakerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Knows whether the sink is worth waiting for, and tells those who wait when it is not any more.
///
/// It opens after three failures in a row (no answer, 408, 429, 5xx), and at once after a refused
/// key, after a failure that asks for a pause of 0.9 seconds or more, and when somebody's waiting
/// budget ran out, so that a sink that hangs opens it before any HTTP timeout.
pub(crate) struct Breaker {
    /// Name of the sink.
    sink: SharedString,
    state: watch::Sender<BreakerState>,
    failures: AtomicU32,
}

impl Breaker {
    pub(crate) fn new(sink: &str) -> Self {
        Self {
            sink: SharedString::from(Arc::<str>::from(sink)),
            state: watch::Sender::new(BreakerState::Closed),
            failures: AtomicU32::new(0),
        }
    }

    pub(crate) fn state(&self) -> BreakerState {
        *self.state.borrow()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state() == BreakerState::Closed
    }

    /// Waits until the sink is not worth waiting for, which may be so already.
    pub(crate) async fn not_closed(&self) {
        let mut state = self.state.subscribe();
        // The sender lives as long as we do.
        let _ = state.wait_for(|state| *state != BreakerState::Closed).await;
    }

    /// A request goes out.
    pub(crate) fn attempt(&self) {
        if self.state() == BreakerState::Open {
            self.change(BreakerState::HalfOpen);
        }
    }

    /// The sink has answered, be it with a refusal of spans.
    pub(crate) fn answered(&self) {
        let sink = &*self.sink;
        self.failures.store(0, Ordering::Relaxed);
        if self.change(BreakerState::Closed) != BreakerState::Closed {
            tracing::info!(sink, breaker = %BreakerState::Closed, "the sink answers again");
        }
    }

    /// A request failed for no fault of the spans; the next one goes out after `pause`.
    pub(crate) fn failed(&self, error: &SinkError, pause: Duration) {
        let sink = &*self.sink;
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        let hopeless = error.is_credentials() || pause >= LONG_PAUSE;
        let state = self.state();
        if state == BreakerState::Closed && failures < FAILURES && !hopeless {
            tracing::debug!(sink, %error, ?pause, failures, "the sink did not take a batch");
            return;
        }
        self.change(BreakerState::Open);
        if state == BreakerState::Closed {
            tracing::warn!(
                sink, %error, ?pause, failures, breaker = %BreakerState::Open,
                "the sink is down; spans are kept and sent again, nobody waits for it"
            );
        } else {
            tracing::debug!(sink, %error, ?pause, failures, "the sink is still down");
        }
    }

    /// Somebody waited for `budget` in vain.
    pub(crate) fn overrun(&self, budget: Duration) {
        let sink = &*self.sink;
        if self.is_closed() {
            self.change(BreakerState::Open);
            tracing::warn!(
                sink, ?budget, breaker = %BreakerState::Open,
                "the sink did not confirm spans in time; nobody waits for it until it answers"
            );
        }
    }

    /// Returns the state before.
    fn change(&self, to: BreakerState) -> BreakerState {
        let before = self.state.send_replace(to);
        if before != to {
            let up = if to == BreakerState::Closed { 1.0 } else { 0.0 };
            let sink = || self.sink.clone();
            metrics::gauge!("durable_spans_sink_up", "sink" => sink()).set(up);
            metrics::counter!("durable_spans_breaker_changes", "sink" => sink(), "to" => to.as_str())
                .increment(1);
        }
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(100);

    fn down() -> SinkError {
        SinkError::retryable("down")
    }

    #[test]
    fn three_failures_in_a_row_open_it_and_an_answer_in_between_counts_anew() {
        let breaker = Breaker::new("sgp");
        for _ in 0..2 {
            breaker.failed(&down(), SHORT);
        }
        breaker.answered();
        for _ in 0..2 {
            breaker.failed(&down(), SHORT);
            assert!(breaker.is_closed());
        }
        breaker.failed(&down(), SHORT);
        assert_eq!(breaker.state(), BreakerState::Open);
    }

    #[test]
    fn a_refused_key_a_long_pause_and_an_overrun_open_it_at_once() {
        let openings: [&dyn Fn(&Breaker); 3] = [
            &|breaker| breaker.failed(&SinkError::credentials("key"), SHORT),
            &|breaker| breaker.failed(&down(), Duration::from_secs(1)),
            &|breaker| breaker.overrun(SHORT),
        ];
        for open in openings {
            let breaker = Breaker::new("sgp");
            open(&breaker);
            assert_eq!(breaker.state(), BreakerState::Open);
        }
    }

    #[test]
    fn a_probe_closes_it_or_opens_it_again() {
        let breaker = Breaker::new("sgp");
        breaker.overrun(SHORT);
        for _ in 0..2 {
            breaker.attempt();
            assert_eq!(breaker.state(), BreakerState::HalfOpen);
            breaker.overrun(SHORT);
            assert_eq!(breaker.state(), BreakerState::HalfOpen);
            breaker.failed(&down(), SHORT);
            assert_eq!(breaker.state(), BreakerState::Open);
        }
        breaker.attempt();
        breaker.answered();
        assert!(breaker.is_closed());
        breaker.attempt();
        assert!(breaker.is_closed(), "with a sink that works, requests are no probes");
    }
}
