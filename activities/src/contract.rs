use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use durable_spans_model::{InvalidSpan, Span, Timestamp};
use durable_spans_workflow::Limits;

use crate::{DropReason, EncodedSpan, MAX_BATCH_BYTES, MAX_BATCH_SPANS};

/// What a sink does with the spans it is given. The deliverer sends accordingly.
///
/// | made by | a span sent twice | what is sent of a span |
/// |---|---|---|
/// | [`upsert`](Self::upsert) | the later record replaces the earlier one | while it is open, and when it ends |
/// | [`create_then_finish`](Self::create_then_finish) | one creates it, one finishes it | while it is open, and when it ends, each once |
/// | [`first_write_wins`](Self::first_write_wins) | what comes later is ignored | when it ends |
/// | [`append_only`](Self::append_only) | is there twice | when it ends, once |
///
/// "Once" is a promise of the process: it remembers the last 100,000 spans that each such sink took.
/// It has two limits, and only a sink that knows spans by their ids can tell then, so use one that
/// upserts where doubles matter:
///
/// - A request whose answer was lost is sent again. The batch may be there once more for each such
///   answer; [`Statistics::doubtful`](crate::Statistics::doubtful) counts its spans.
/// - A run that goes on with another worker (the first was killed, or deployed anew), and a courier
///   that another worker serves, send what the run has not noted as acknowledged: it notes that
///   with the flush after. No process knows of the other's copies, but they have the same ids.
///
/// A contract that contradicts itself does not compile as a constant, and panics at the start
/// otherwise:
///
/// ```compile_fail
/// # use durable_spans_activity::Contract;
/// const NOTHING: Contract = Contract::append_only().batch_spans(0);
/// # println!("{NOTHING:?}");
/// ```
///
/// ```
/// use std::time::Duration;
/// use durable_spans_activity::Contract;
///
/// const CONTRACT: Contract =
///     Contract::append_only().batch_spans(100).oldest(Duration::from_secs(24 * 3600));
/// assert!(!CONTRACT.takes_open_spans());
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Contract {
    repeats: Repeats,
    open_spans: bool,
    batch_spans: usize,
    batch_bytes: usize,
    value_bytes: Option<usize>,
    oldest: Option<Duration>,
    id_bits: Option<u32>,
    check: Option<Check>,
}

type Check = fn(&Span) -> Result<(), InvalidSpan>;

/// What a sink does with a span that it is sent twice. See [`Contract`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Repeats {
    /// The later record replaces the earlier one, save that a completed one stays.
    Upsert,
    /// One record creates the span, one finishes it.
    CreateThenFinish,
    /// What comes later is ignored.
    FirstWriteWins,
    /// Each record stays.
    AppendOnly,
}

impl Contract {
    /// Spans are keyed by `(trace_id, id)`, and a later record replaces an earlier one. Open spans are
    /// sent, too, so that a run can be watched while it goes on.
    pub const fn upsert() -> Self {
        Self::new(Repeats::Upsert, true)
    }

    /// A span is created once and finished once.
    pub const fn create_then_finish() -> Self {
        Self::new(Repeats::CreateThenFinish, true)
    }

    /// The first record of a span stays, so only that of its end is sent.
    pub const fn first_write_wins() -> Self {
        Self::new(Repeats::FirstWriteWins, false)
    }

    /// Each record stays, so only that of the end is sent.
    pub const fn append_only() -> Self {
        Self::new(Repeats::AppendOnly, false)
    }

    const fn new(repeats: Repeats, open_spans: bool) -> Self {
        Self {
            repeats,
            open_spans,
            batch_spans: MAX_BATCH_SPANS,
            batch_bytes: MAX_BATCH_BYTES,
            value_bytes: None,
            oldest: None,
            id_bits: None,
            check: None,
        }
    }

    /// Sends spans when they have ended only, whatever the sink could do with open ones.
    pub const fn ended_only(mut self) -> Self {
        self.open_spans = false;
        self
    }

    /// Most spans in one call. Default: [`MAX_BATCH_SPANS`].
    ///
    /// # Panics
    ///
    /// If `spans` is zero.
    pub const fn batch_spans(mut self, spans: usize) -> Self {
        assert!(spans > 0, "a contract of zero spans in a call lets nothing through: give more");
        self.batch_spans = spans;
        self
    }

    /// Most bytes of the spans' JSON in one call. Default: [`MAX_BATCH_BYTES`]. A single span that
    /// is larger goes alone.
    ///
    /// # Panics
    ///
    /// If `bytes` is zero.
    pub const fn batch_bytes(mut self, bytes: usize) -> Self {
        assert!(bytes > 0, "a contract of zero bytes in a call lets nothing through: give more");
        self.batch_bytes = bytes;
        self
    }

    /// Most bytes of JSON of one named value of an input, an output or the metadata. A larger one is
    /// replaced by its beginning and its size, and named in the metadata `truncated`. Default: no
    /// limit beyond that of the run.
    ///
    /// # Panics
    ///
    /// Below 2,000 bytes, since the mark needs room.
    pub const fn value_bytes(mut self, bytes: usize) -> Self {
        assert!(bytes >= 2_000, "a contract that cuts values below 2,000 bytes: give more");
        self.value_bytes = Some(bytes);
        self
    }

    /// The sink does not keep spans that ended longer ago than this: they are dropped and counted
    /// instead of vanishing there. Default: no limit.
    pub const fn oldest(mut self, age: Duration) -> Self {
        self.oldest = Some(age);
        self
    }

    /// The sink keeps that many bits of a span's id, the lower ones. Default: ids are kept as they
    /// are, text included.
    ///
    /// # Panics
    ///
    /// Below 64 bits, since spans of one trace would then share an id.
    pub const fn id_bits(mut self, bits: u32) -> Self {
        assert!(bits >= 64, "span ids of under 64 bits are not told apart: give more");
        self.id_bits = Some(bits);
        self
    }

    /// What the sink rejects is known beforehand: a span that `check` finds invalid is dropped,
    /// counted and logged without a request. Default: nothing.
    pub const fn check(mut self, check: fn(&Span) -> Result<(), InvalidSpan>) -> Self {
        self.check = Some(check);
        self
    }

    /// What the sink does with a span that is sent twice.
    pub const fn repeats(&self) -> Repeats {
        self.repeats
    }

    /// Whether spans are sent while they are open.
    pub const fn takes_open_spans(&self) -> bool {
        self.open_spans
    }

    /// How many bits of a span's id are kept, `None` for all of any id.
    pub const fn kept_id_bits(&self) -> Option<u32> {
        self.id_bits
    }

    /// Most spans of a batch.
    pub const fn max_batch_spans(&self) -> usize {
        self.batch_spans
    }

    /// Most bytes of encoded spans of a batch. A single span that is larger goes alone.
    pub const fn max_batch_bytes(&self) -> usize {
        self.batch_bytes
    }

    /// Whether a span that is sent again is there twice.
    pub(crate) const fn keeps_copies(&self) -> bool {
        matches!(self.repeats, Repeats::AppendOnly)
    }

    /// Whether sending a span again leaves traces.
    pub(crate) const fn remembers_sent(&self) -> bool {
        !matches!(self.repeats, Repeats::Upsert)
    }

    /// What the sink shall get of `spans`, cut to size.
    pub(crate) fn admit(&self, mut spans: Vec<EncodedSpan>) -> Vec<Arc<EncodedSpan>> {
        if !self.open_spans {
            spans.retain(|span| span.span().end_timestamp.is_some());
        }
        spans.into_iter().map(|span| Arc::new(self.cut(span))).collect()
    }

    /// The span with its values cut to the size that the sink keeps, see
    /// [`value_bytes`](Self::value_bytes).
    #[must_use]
    pub fn cut(&self, encoded: EncodedSpan) -> EncodedSpan {
        match self.value_bytes {
            Some(bytes) if encoded.encoded_len() > bytes => {
                let mut span = encoded.into_span();
                Limits::new().field_bytes(bytes).span_bytes(usize::MAX).cut(&mut span);
                EncodedSpan::new(span)
            }
            _ => encoded,
        }
    }

    /// Why the sink would not keep `span` at this time, if it would not: what [`check`](Self::check)
    /// says, or that it ended too long ago for [`oldest`](Self::oldest).
    pub fn refuses(&self, span: &Span) -> Option<InvalidSpan> {
        self.refusal(span, SystemTime::now().into()).map(|(_, error)| error)
    }

    /// The same with the reason to count.
    pub(crate) fn refusal(&self, span: &Span, now: Timestamp) -> Option<(DropReason, InvalidSpan)> {
        if let Some(check) = self.check
            && let Err(error) = check(span)
        {
            return Some((DropReason::Rejected, error));
        }
        let (oldest, end) = (self.oldest?, span.end_timestamp?);
        (now.since(end) > oldest).then(|| {
            let reason = format!("is longer ago than the {oldest:?} that the sink keeps");
            (DropReason::TooOld, InvalidSpan::new("end_timestamp", reason))
        })
    }
}

/// The careful choice: only ended spans are sent, each once.
impl Default for Contract {
    fn default() -> Self {
        Self::append_only()
    }
}

#[cfg(test)]
mod tests {
    use durable_spans_model::{SpanId, TraceId};

    use super::*;

    fn span(end_ns: Option<i64>) -> Span {
        let start = Timestamp::from_unix_ns(0);
        let mut span = Span::new(TraceId::from_bits(1), SpanId::from_bits(2), "s", start);
        span.end_timestamp = end_ns.map(Timestamp::from_unix_ns);
        span
    }

    #[test]
    fn open_spans_go_to_sinks_that_can_finish_them() {
        let both = || vec![span(None).into(), span(Some(1)).into()];
        let sent = |contract: Contract| contract.admit(both()).len();
        assert_eq!(sent(Contract::upsert()), 2);
        assert_eq!(sent(Contract::create_then_finish()), 2);
        assert_eq!(sent(Contract::upsert().ended_only()), 1);
        assert_eq!(sent(Contract::first_write_wins()), 1);
        assert_eq!(sent(Contract::append_only()), 1);
    }

    #[test]
    fn values_are_cut_with_a_mark() {
        let mut large = span(Some(1));
        large.input.insert("text".into(), "x".repeat(30_000).into());
        let admitted = |contract: Contract| contract.admit(vec![large.clone().into()]).remove(0);
        let cut = admitted(Contract::upsert().value_bytes(20_000));
        let text = cut.span().input["text"].as_str().unwrap();
        assert!(text.ends_with("… (truncated, 30002 bytes)"));
        assert_eq!(cut.span().metadata["truncated"], serde_json::json!(["input.text"]));
        assert!(cut.encoded_len() < 2_000);
        assert_eq!(admitted(Contract::upsert()).span(), &large);
    }

    #[test]
    fn what_the_sink_would_not_keep_is_told_with_its_reason() {
        let contract =
            Contract::append_only().oldest(Duration::from_secs(10)).check(Span::validate);
        let now = Timestamp::from_unix_ns(20_000_000_000);
        let refusal = |span: &Span| contract.refusal(span, now);
        assert!(refusal(&span(Some(10_000_000_000))).is_none());
        let (reason, error) = refusal(&span(Some(9_999_999_999))).unwrap();
        assert_eq!(reason, DropReason::TooOld);
        assert!(error.to_string().starts_with("end_timestamp is longer ago than the 10s"));
        let (reason, error) = refusal(&span(Some(-1))).unwrap();
        assert_eq!(reason, DropReason::Rejected);
        assert_eq!(error.to_string(), "end_timestamp must not be before start_timestamp");
    }

    #[test]
    #[should_panic(expected = "lets nothing through: give more")]
    fn a_contract_that_lets_nothing_through_fails_at_the_start() {
        let _ = Contract::upsert().batch_bytes(0);
    }
}
