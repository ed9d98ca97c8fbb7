//! Ids for systems that take other ids than ours. Each derivation is pinned by a test: were it to
//! change, a span that is sent again after an upgrade would be another span.

use std::fmt::Display;

use durable_spans_model::{SpanId, TraceId};
use siphasher::sip128::SipHasher13;

/// The id of a trace in 128 bits: our own bits, or those of a foreign id that is hex, or else a hash
/// of its text. Never zero, which OpenTelemetry calls invalid.
pub(crate) fn trace_bits(id: &TraceId) -> u128 {
    bits(id.bits(), id)
}

/// The id of a span in 128 bits. See [`trace_bits`].
pub(crate) fn span_bits(id: &SpanId) -> u128 {
    bits(id.bits(), id)
}

/// The id of a span in 64 bits: the lower half.
pub(crate) fn span_low_bits(id: &SpanId) -> u64 {
    match span_bits(id) as u64 {
        0 => hash(id) as u64 | 1,
        bits => bits,
    }
}

fn bits(ours: Option<u128>, id: &impl Display) -> u128 {
    ours.or_else(|| hex(&id.to_string())).filter(|bits| *bits != 0).unwrap_or_else(|| hash(id) | 1)
}

/// The ids of W3C trace context, as other tracing systems write them.
fn hex(text: &str) -> Option<u128> {
    let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex && matches!(text.len(), 16 | 32) { u128::from_str_radix(text, 16).ok() } else { None }
}

fn hash(id: &impl Display) -> u128 {
    SipHasher13::new().hash(id.to_string().as_bytes()).as_u128()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(text: &str) -> u128 {
        trace_bits(&text.parse().unwrap())
    }

    fn span(text: &str) -> u64 {
        span_low_bits(&text.parse().unwrap())
    }

    /// Spans that were sent carry these ids, so they may never change.
    #[test]
    fn ids_never_change() {
        let uuid = "c58c5e1e-bcff-46d8-81c5-4dc1a5fdafea";
        assert_eq!(trace(uuid), 0xc58c_5e1e_bcff_46d8_81c5_4dc1_a5fd_afea);
        assert_eq!(span(uuid), 0x81c5_4dc1_a5fd_afea);
        assert_eq!(trace("c58c5e1ebcff46d881c54dc1a5fdafea"), trace(uuid));
        assert_eq!(span("00f067aa0ba902b7"), 0x00f0_67aa_0ba9_02b7);
        assert_eq!(trace("order-17"), 0xef28_5ac7_8672_fd23_bafd_b086_ee92_557b);
        assert_eq!(span("order-17"), 0xbafd_b086_ee92_557b);
    }

    #[test]
    fn no_id_is_zero() {
        assert_ne!(trace("00000000000000000000000000000000"), 0);
        assert_ne!(trace_bits(&TraceId::from_bits(0)), 0);
        assert_ne!(span_low_bits(&SpanId::from_bits(1 << 64)), 0);
    }
}
