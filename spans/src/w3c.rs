use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{InvalidSpan, SpanId, TraceId};

/// A position in an observability trace, as in the header `traceparent` of
/// [W3C Trace Context](https://www.w3.org/TR/trace-context/), version 00.
///
/// ```
/// use durable_spans_model::TraceParent;
///
/// let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let parent: TraceParent = text.parse()?;
/// assert_eq!(parent.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
/// assert_eq!(parent.to_string(), text);
/// # Ok::<(), durable_spans_model::InvalidSpan>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceParent {
    trace_id: String,
    span_id: String,
    flags: u8,
}

impl TraceParent {
    /// The trace: 32 lowercase hexadecimal digits.
    pub fn trace_id(&self) -> &str {
        &self.trace_id
    }

    /// The span: 16 lowercase hexadecimal digits.
    pub fn span_id(&self) -> &str {
        &self.span_id
    }

    /// A span of ours in a trace of its own, as other tracers are to see it. `None` where the ids came
    /// from elsewhere and are no numbers of that length.
    ///
    /// ```
    /// use durable_spans_model::{SpanId, TraceId, TraceParent};
    ///
    /// let parent = TraceParent::of(&TraceId::from_bits(1), &SpanId::from_bits(2)).unwrap();
    /// assert_eq!(parent.to_string(), "00-00000000000000000000000000000001-0000000000000002-01");
    /// ```
    pub fn of(trace: &TraceId, span: &SpanId) -> Option<Self> {
        let (trace, span) = (trace.bits()?, span.bits()? as u64);
        let sampled = 1;
        (trace != 0 && span != 0).then(|| Self {
            trace_id: format!("{trace:032x}"),
            span_id: format!("{span:016x}"),
            flags: sampled,
        })
    }

    /// The same trace, below a span of ours. Where that id is longer than 64 bits, the low half
    /// stands for it; one that is no number is passed over.
    #[must_use]
    pub fn under(&self, span: &SpanId) -> Self {
        let low = span.bits().map(|bits| bits as u64).filter(|low| *low != 0);
        let span_id = low.map_or_else(|| self.span_id.clone(), |low| format!("{low:016x}"));
        Self { span_id, ..self.clone() }
    }

    /// The ids as durable-spans carries them.
    ///
    /// # Errors
    ///
    /// None with the text of a `traceparent`.
    pub fn ids(&self) -> Result<(TraceId, SpanId), InvalidSpan> {
        Ok((self.trace_id.parse()?, self.span_id.parse()?))
    }
}

impl FromStr for TraceParent {
    type Err = InvalidSpan;

    /// # Errors
    ///
    /// When the text is no `traceparent`. One of a later version is read as far as version 00 goes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidSpan::new("traceparent", "is not a W3C traceparent");
        let mut parts = text.split('-');
        let mut part = |digits: usize| {
            let part = parts.next().filter(|part| part.len() == digits).ok_or_else(invalid)?;
            let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            if part.bytes().all(hex) { Ok(part) } else { Err(invalid()) }
        };
        let (version, trace_id, span_id, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        let zero = |id: &str| id.bytes().all(|byte| byte == b'0');
        if version == "ff" || zero(trace_id) || zero(span_id) {
            return Err(invalid());
        }
        let flags = u8::from_str_radix(flags, 16).map_err(|_| invalid())?;
        if version == "00" && parts.next().is_some() {
            return Err(invalid());
        }
        Ok(Self { trace_id: trace_id.to_owned(), span_id: span_id.to_owned(), flags })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trace_id, span_id, flags } = self;
        write!(f, "00-{trace_id}-{span_id}-{flags:02x}")
    }
}

/// Name of the Temporal header in which the OpenTelemetry interceptors of Temporal's SDKs carry a
/// W3C trace context, as a JSON object with the fields `traceparent` and `tracestate`.
pub const TRACER_HEADER: &str = "_tracer-data";

#[derive(Serialize, Deserialize)]
struct Carrier {
    traceparent: String,
}

impl TraceParent {
    /// Reads the content of the header [`TRACER_HEADER`].
    ///
    /// # Errors
    ///
    /// When it is no JSON object with a W3C `traceparent`, for example because the tracer uses
    /// another format.
    pub fn from_header(data: &[u8]) -> Result<Self, InvalidSpan> {
        let carrier: Carrier = serde_json::from_slice(data).map_err(|_| {
            InvalidSpan::new(format!("header {TRACER_HEADER}"), "holds no traceparent")
        })?;
        carrier.traceparent.parse()
    }

    /// The content of the header [`TRACER_HEADER`].
    pub fn to_header(&self) -> Vec<u8> {
        let carrier = Carrier { traceparent: self.to_string() };
        serde_json::to_vec(&carrier).expect("strings always make JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_is_no_traceparent_is_refused() {
        for text in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e47é6-00f067aa0ba902b7-01",
        ] {
            assert!(text.parse::<TraceParent>().is_err(), "{text}");
        }
        let later = format!("01-{}-more", &TEXT[3..]);
        assert_eq!(later.parse::<TraceParent>().unwrap().to_string(), TEXT);
    }

    #[test]
    fn the_header_is_that_of_the_other_sdks() {
        let data = format!(r#"{{"traceparent":"{TEXT}","tracestate":"a=b"}}"#);
        let parent = TraceParent::from_header(data.as_bytes()).unwrap();
        assert_eq!(parent.to_string(), TEXT);
        assert_eq!(parent.to_header(), format!(r#"{{"traceparent":"{TEXT}"}}"#).as_bytes());
        assert!(TraceParent::from_header(b"{}").is_err());
        assert!(TraceParent::from_header(&[0x16, 0xff]).is_err());
    }

    #[test]
    fn a_span_of_ours_stands_with_the_low_half_of_its_id() {
        let parent: TraceParent = TEXT.parse().unwrap();
        let below = parent.under(&SpanId::from_bits(0xffff_0000_0000_0000_0000_0000_0000_00ab));
        assert_eq!(below.to_string(), TEXT.replace("00f067aa0ba902b7", "00000000000000ab"));
        assert_eq!(parent.under(&"custom id".parse().unwrap()), parent);
    }
}
