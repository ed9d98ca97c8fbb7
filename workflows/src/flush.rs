use std::{hash::Hasher, rc::Rc, sync::Arc};

use durable_spans_model::Span;
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;
use temporalio_workflow::common::{ActivityDefinition, data_converters::RawValue};

/// Activity type of the flush activity. It is in the history of every traced run, so it may never
/// change.
pub const FLUSH_ACTIVITY: &str = "durable_spans.flush_spans";

/// What a run hands to the flush activity: every flush that nobody has acknowledged yet, oldest
/// first.
///
/// It is the input of a local activity, which is never stored in history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlushRequest<G = FlushGroup> {
    /// Whether the run is about to close. Then the activity waits for the sink, within its budget;
    /// otherwise it hands over and answers at once.
    pub closing: bool,
    /// Spans that were over the limits of the run's buffer since the flush before.
    #[serde(default)]
    pub dropped: u64,
    /// The spans, by the flush that first carried them.
    pub groups: Vec<G>,
    /// What to ask the [`HandOver`](crate::HandOver) for instead, where the run and the activity share one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handed_over: Option<u64>,
}

/// The spans of one flush: those that ended since the flush before it, and those that are still
/// open and were not announced yet. Parents come before their children.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlushGroup {
    /// Number of the flush within its run, from 1.
    pub flush: u32,
    /// [`digest`] of the spans.
    pub digest: u64,
    /// The group that this is a part of, where couriers share one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_of: Option<Acknowledgement>,
    /// Not empty. Shared, so that a group is cloned at no cost and nothing is copied on its way.
    pub spans: Arc<Vec<Span>>,
}

impl FlushGroup {
    pub(crate) fn new(flush: u32, spans: Vec<Span>) -> Self {
        Self { flush, digest: digest(&spans), part_of: None, spans: Arc::new(spans) }
    }

    /// Some of the spans, as a group of their own.
    pub(crate) fn part(&self, spans: Vec<Span>) -> Self {
        let part_of = self.part_of.unwrap_or_else(|| self.acknowledgement());
        let whole = spans.len() == self.spans.len();
        Self { part_of: (!whole).then_some(part_of), ..Self::new(self.flush, spans) }
    }

    /// What an acknowledgement of this group says.
    pub fn acknowledgement(&self) -> Acknowledgement {
        (self.flush, u32::try_from(self.spans.len()).unwrap_or(u32::MAX), self.digest)
    }
}

/// The flush number, the number of spans and their digest: names a group without naming each id.
///
/// A tuple, since it is in the history of the run and each byte counts.
pub type Acknowledgement = (u32, u32, u64);

/// What is told to the flush by a normal activity, besides the packed spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackedFlush {
    /// Whether the run is about to close.
    pub closing: bool,
    /// Spans that were over the limits of the run's buffer since the flush before.
    #[serde(default)]
    pub dropped: u64,
    /// Bytes of JSON that one command could not carry.
    #[serde(default)]
    pub left_bytes: usize,
}

/// The flush activity's answer. It is in the run's history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlushReply {
    /// The groups of the request that have arrived at the sink, or were refused by it and counted
    /// as dropped.
    #[serde(rename = "a", default, skip_serializing_if = "Vec::is_empty")]
    pub acknowledged: Vec<Acknowledgement>,
    /// How many couriers shall take the other groups: none while the run can keep them. It is one
    /// command each, so replay takes the number from here.
    #[serde(rename = "c", default, skip_serializing_if = "is_zero")]
    pub couriers: u32,
    /// How many ended spans of the acknowledged groups the sink refused.
    #[serde(rename = "r", default, skip_serializing_if = "is_zero")]
    pub refused: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Digest of which spans a group holds: their ids, and whether they had ended.
///
/// Data and times are left out: replay may see other times within the same flush, and code that
/// records other data has still recorded these spans.
pub fn digest(spans: &[Span]) -> u64 {
    let mut hasher = SipHasher13::new();
    let mut trace_id = None;
    for span in spans {
        // All of them are of one trace.
        if trace_id.replace(&span.trace_id) != Some(&span.trace_id) {
            hasher.write(span.trace_id.text(&mut [0; 36]).as_bytes());
        }
        let ended = u8::from(span.end_timestamp.is_some());
        match span.id.bits() {
            Some(bits) => hasher.write(&bits.to_le_bytes()),
            None => hasher.write(span.id.text(&mut [0; 36]).as_bytes()),
        }
        hasher.write_u8(ended);
    }
    hasher.finish()
}

/// Type of the normal activity that flushes for workers that may not reach the network. It is in
/// the history of their runs, so it may never change.
pub const FLUSH_PACKED_ACTIVITY: &str = "durable_spans.flush_packed";

/// How the workflow half names that activity. The activity half registers it.
pub(crate) struct FlushPacked;

impl ActivityDefinition for FlushPacked {
    type Input = RawValue;
    type Output = FlushReply;

    fn name(&self) -> &str {
        FLUSH_PACKED_ACTIVITY
    }
}

/// How the workflow half names the flush activity. The activity half registers it.
pub(crate) struct FlushSpans;

impl ActivityDefinition for FlushSpans {
    type Input = FlushRequest<Rc<FlushGroup>>;
    type Output = FlushReply;

    fn name(&self) -> &str {
        FLUSH_ACTIVITY
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use durable_spans_model::{SpanId, Timestamp, TraceId};

    fn span(id: u128) -> Span {
        Span::new(TraceId::from_bits(1), SpanId::from_bits(id), "a", Timestamp::from_unix_ns(0))
    }

    /// Both are in the histories of runs in flight.
    #[test]
    fn digest_and_reply_never_change() {
        let mut spans = vec![span(1), span(2)];
        let open = digest(&spans);
        spans[1].end_timestamp = Some(Timestamp::from_unix_ns(5));
        let ended = digest(&spans);
        assert_eq!((open, ended), (9_745_553_826_157_305_724, 12_019_100_692_882_756_721));
        let mut reply = FlushReply { acknowledged: vec![(1, 2, 3)], ..FlushReply::default() };
        assert_eq!(serde_json::to_string(&reply).unwrap(), r#"{"a":[[1,2,3]]}"#);
        reply.couriers = 2;
        assert_eq!(serde_json::to_string(&reply).unwrap(), r#"{"a":[[1,2,3]],"c":2}"#);
        reply.refused = 1;
        assert_eq!(serde_json::to_string(&reply).unwrap(), r#"{"a":[[1,2,3]],"c":2,"r":1}"#);
        assert_eq!(serde_json::to_string(&FlushReply::default()).unwrap(), "{}");
        assert_eq!(serde_json::from_str::<FlushReply>(r#"{"later":1}"#).unwrap().acknowledged, []);
    }

    #[test]
    fn digest_ignores_data_and_times() {
        let mut changed = span(1);
        changed.start_timestamp = Timestamp::from_unix_ns(9);
        changed.metadata.insert("k".into(), 1.into());
        assert_eq!(digest(&[span(1)]), digest(&[changed]));
        assert_ne!(digest(&[span(1), span(2)]), digest(&[span(2), span(1)]));
    }
}
