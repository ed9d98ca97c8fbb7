use std::{ops::Range, sync::Arc};

use durable_spans_model::{Span, SpanId, Timestamp, TraceId};
use serde::Serialize;

/// Spans that came together, and their JSON in one piece.
pub(crate) struct Encoded {
    pub(crate) spans: Arc<Vec<Span>>,
    json: String,
    /// Where the JSON of each span ends.
    ends: Vec<usize>,
}

impl Encoded {
    pub(crate) fn new(spans: Arc<Vec<Span>>) -> Self {
        let mut writer = Writer::new(spans.len());
        let ends = spans.iter().map(|span| writer.span(span)).collect();
        let json = String::from_utf8(writer.json).expect("JSON is UTF-8");
        Self { spans, json, ends }
    }

    /// The JSON of the span at `index`.
    pub(crate) fn json(&self, index: usize) -> &str {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.json[start..self.ends[index]]
    }
}

/// Writes span after span, the very bytes that [`Span`]'s own `Serialize` makes, in less than half the
/// time: its names and our ids need no look at each byte, and what a span has in common with the one
/// before it (the trace, the parent, times of one activation) is copied from there.
struct Writer {
    json: Vec<u8>,
    trace_id: Written<TraceId>,
    parent_id: Written<SpanId>,
    time: Written<Timestamp>,
}

/// What was written last of a kind, and where.
type Written<T> = Option<(T, Range<usize>)>;

impl Writer {
    fn new(spans: usize) -> Self {
        // A guess that rarely needs more room.
        let json = Vec::with_capacity(spans * 512);
        Self { json, trace_id: None, parent_id: None, time: None }
    }

    /// Returns where the span's JSON ends.
    fn span(&mut self, span: &Span) -> usize {
        // By name, so that a field which is added there is not forgotten here.
        let Span {
            name,
            id,
            trace_id,
            start_timestamp,
            input,
            output,
            metadata,
            status,
            span_type,
            end_timestamp,
            parent_id,
            group_id,
            obs_trace_id,
            obs_span_id,
        } = span;
        self.text("{\"name\":").value(name);
        self.text(",\"id\":").id(id.bits().is_some(), id.text(&mut [0; 36]));
        self.text(",\"trace_id\":");
        self.common(
            |writer| &mut writer.trace_id,
            trace_id,
            |writer, id| writer.id(id.bits().is_some(), id.text(&mut [0; 36])),
        );
        self.text(",\"start_timestamp\":").time(*start_timestamp);
        for (name, values) in
            [(",\"input\":", input), (",\"output\":", output), (",\"metadata\":", metadata)]
        {
            self.text(name).value(values);
        }
        self.text(",\"status\":\"").text(status.as_str());
        self.text("\",\"type\":\"").text(span_type.as_str()).text("\"");
        if let Some(end) = end_timestamp {
            self.text(",\"end_timestamp\":").time(*end);
        }
        if let Some(parent) = parent_id {
            self.text(",\"parent_id\":");
            self.common(
                |writer| &mut writer.parent_id,
                parent,
                |writer, id| writer.id(id.bits().is_some(), id.text(&mut [0; 36])),
            );
        }
        for (name, text) in [
            (",\"group_id\":", group_id),
            (",\"obs_trace_id\":", obs_trace_id),
            (",\"obs_span_id\":", obs_span_id),
        ] {
            if let Some(text) = text {
                self.text(name).value(text);
            }
        }
        self.text("}");
        self.json.len()
    }

    /// Writes what needs no escapes.
    fn text(&mut self, text: &str) -> &mut Self {
        self.json.extend_from_slice(text.as_bytes());
        self
    }

    fn value(&mut self, value: &(impl Serialize + ?Sized)) {
        serde_json::to_writer(&mut self.json, value)
            .expect("a span is text, numbers and maps with text keys, which JSON can always hold");
    }

    /// Writes an id. One of ours needs no escapes.
    fn id(&mut self, is_ours: bool, text: &str) {
        match is_ours {
            true => _ = self.text("\"").text(text).text("\""),
            false => self.value(text),
        }
    }

    fn time(&mut self, time: Timestamp) {
        self.common(|writer| &mut writer.time, &time, |writer, time| writer.value(time));
    }

    /// Writes what is likely to be the same as last time.
    fn common<T: Clone + PartialEq>(
        &mut self,
        last: impl Fn(&mut Self) -> &mut Written<T>,
        this: &T,
        write: impl FnOnce(&mut Self, &T),
    ) {
        if let Some((same, range)) = last(self)
            && same == this
        {
            let range = range.clone();
            self.json.extend_from_within(range);
            return;
        }
        let start = self.json.len();
        write(self, this);
        let range = start..self.json.len();
        *last(self) = Some((this.clone(), range));
    }
}

#[cfg(test)]
mod tests {
    use durable_spans_model::{SpanError, SpanStatus, SpanType};
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        /// Few times, traces and parents, so that some are the same as before.
        fn spans()(
            name in ".{0,8}", id: u128, foreign in "[^\0]{1,8}", trace in 0..3_u8, parent in 0..4_u8,
            start in 0..3_i64, end in prop::option::of(0..3_i64), text in prop::option::of(".{0,8}"),
            failed: bool, kind in prop::sample::select(SpanType::ALL),
        ) -> Span {
            let time = |ms: i64| Timestamp::from_unix_ns(1_795_248_000_000_000_000 + ms * 1_000_000);
            let trace_id = match trace {
                0 => foreign.parse().unwrap(),
                ours => TraceId::from_bits(ours.into()),
            };
            let mut span = Span::new(trace_id, SpanId::from_bits(id), name, time(start));
            span.span_type = kind;
            span.parent_id = match parent {
                0 => None,
                1 => Some(foreign.parse().unwrap()),
                ours => Some(SpanId::from_bits(ours.into())),
            };
            span.end_timestamp = end.map(time);
            span.status = SpanStatus::Canceled;
            if failed {
                span.set_error(SpanError::new("Error", foreign));
            }
            if let Some(text) = &text {
                span.input.insert(text.clone().into(), serde_json::json!([text, 1.5, null]));
            }
            let text: Option<Arc<str>> = text.map(Arc::from);
            span.group_id = text.clone();
            (span.obs_trace_id, span.obs_span_id) = (text.clone(), text);
            span
        }
    }

    proptest! {
        #[test]
        fn spans_are_encoded_as_serde_encodes_them(spans in prop::collection::vec(spans(), 0..6)) {
            let encoded = Encoded::new(Arc::new(spans.clone()));
            for (index, span) in spans.iter().enumerate() {
                prop_assert_eq!(encoded.json(index), serde_json::to_string(span).unwrap());
            }
        }
    }
}
