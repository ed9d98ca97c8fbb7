use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// Lets so many requests pass per second, after a pause up to as many at once.
#[derive(Debug)]
pub(crate) struct RateLimit {
    per_second: f64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    left: f64,
    at: Instant,
}

impl RateLimit {
    pub(crate) fn new(per_second: u32, now: Instant) -> Self {
        let per_second = f64::from(per_second);
        Self { per_second, state: Mutex::new(State { left: per_second, at: now }) }
    }

    /// Whether one more request may pass.
    pub(crate) fn allows(&self, now: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_duration_since(state.at).as_secs_f64();
        state.at = state.at.max(now);
        state.left = (state.left + passed * self.per_second).min(self.per_second);
        let allowed = state.left >= 1.0;
        if allowed {
            state.left -= 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn as_many_requests_pass_as_were_allowed_and_more_after_a_while() {
        let start = Instant::now();
        let limit = RateLimit::new(3, start);
        let passed = |ms| {
            let now = start + Duration::from_millis(ms);
            (0..10).filter(|_| limit.allows(now)).count()
        };
        assert_eq!(passed(0), 3);
        assert_eq!(passed(100), 0);
        assert_eq!(passed(700), 2);
        assert_eq!(passed(60_000), 3);
    }
}
