use std::{
    collections::{HashSet, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
};

use durable_spans_model::Span;

/// How many ended spans are remembered.
const REMEMBERED: usize = 100_000;

/// Which ended spans a sink has taken that must not get them twice. A few megabytes when full.
#[derive(Default)]
pub(crate) struct Sent {
    order: VecDeque<u64>,
    keys: HashSet<u64>,
}

impl Sent {
    pub(crate) fn contains(&self, span: &Span) -> bool {
        self.keys.contains(&key(span))
    }

    /// Open records are not remembered: the one of the end must follow.
    pub(crate) fn insert(&mut self, span: &Span) {
        if span.end_timestamp.is_none() {
            return;
        }
        let key = key(span);
        if self.keys.insert(key) {
            self.order.push_back(key);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.keys.remove(&oldest);
        }
    }
}

/// Two of 100,000 spans share a key once in 10^9 fillings.
fn key(span: &Span) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&span.trace_id, &span.id).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use durable_spans_model::{SpanId, Timestamp, TraceId};

    use super::*;

    fn ended(id: u128) -> Span {
        let start = Timestamp::from_unix_ns(0);
        let mut span = Span::new(TraceId::from_bits(1), SpanId::from_bits(id), "s", start);
        span.end_timestamp = Some(start);
        span
    }

    #[test]
    fn the_last_hundred_thousand_ended_spans_are_remembered() {
        let mut sent = Sent::default();
        sent.insert(&Span { end_timestamp: None, ..ended(0) });
        assert!(!sent.contains(&ended(0)));
        for id in 0..=REMEMBERED as u128 {
            sent.insert(&ended(id));
        }
        assert!(!sent.contains(&ended(0)));
        assert!(sent.contains(&ended(1)) && sent.contains(&ended(REMEMBERED as u128)));
        assert_eq!(sent.keys.len(), REMEMBERED);
    }
}
