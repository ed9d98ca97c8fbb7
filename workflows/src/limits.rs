use durable_spans_model::{Fields, Span};
use serde_json::Value;

/// How much of a text stays when it is cut, in bytes.
const KEPT_TEXT_BYTES: usize = 1_000;

/// Longest name of a span, in bytes.
const NAME_BYTES: usize = 1_000;

/// How much a run may record. What is over a limit is cut with a visible mark, or dropped and
/// counted; it never fails or wedges the run. Changing the limits is no versioning event.
///
/// Sizes are those of the values' JSON, to within a few percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub(crate) field_bytes: usize,
    pub(crate) span_bytes: usize,
    pub(crate) buffer_bytes: usize,
    pub(crate) buffer_spans: usize,
}

impl Limits {
    /// The defaults, as each setter says.
    pub const fn new() -> Self {
        Self {
            field_bytes: 64 * 1024,
            span_bytes: 256 * 1024,
            buffer_bytes: 128 * 1024 * 1024,
            buffer_spans: 200_000,
        }
    }

    /// Bytes of one named value of an input, an output or the metadata. Default 64 KiB. A larger
    /// one is replaced by its beginning and its size, and named in the metadata `truncated`.
    #[must_use]
    pub const fn field_bytes(mut self, bytes: usize) -> Self {
        self.field_bytes = bytes;
        self
    }

    /// Bytes of all values of one span. Default 256 KiB. The largest values are cut until they
    /// fit.
    #[must_use]
    pub const fn span_bytes(mut self, bytes: usize) -> Self {
        self.span_bytes = bytes;
        self
    }

    /// Bytes of the ended spans that a run keeps between two flushes. Default 128 MiB. Further
    /// spans are dropped, counted as such, and told on the root span.
    #[must_use]
    pub const fn buffer_bytes(mut self, bytes: usize) -> Self {
        self.buffer_bytes = bytes;
        self
    }

    /// Ended spans that a run keeps between two flushes. Default 200,000. See
    /// [`Limits::buffer_bytes`].
    #[must_use]
    pub const fn buffer_spans(mut self, spans: usize) -> Self {
        self.buffer_spans = spans;
        self
    }

    /// Cuts what is too large, and returns the bytes of what is left.
    pub fn cut(&self, span: &mut Span) -> usize {
        if span.name.len() > NAME_BYTES {
            let end = span.name.floor_char_boundary(NAME_BYTES);
            span.name = format!("{}…", &span.name[..end]).into();
        }
        if let Some(bytes) = self.fits(span) {
            return bytes;
        }
        let mut cut = Vec::new();
        let parts: [(&str, &mut Fields); 3] = [
            ("input", &mut span.input),
            ("output", &mut span.output),
            ("metadata", &mut span.metadata),
        ];
        let mut sizes: Vec<(usize, &str, &str, &mut Value)> = Vec::new();
        for (part, values) in parts {
            for (name, value) in values.iter_mut() {
                let mut bytes = json_bytes(value);
                if bytes > self.field_bytes {
                    bytes = shorten(value, bytes);
                    cut.push(format!("{part}.{name}"));
                }
                sizes.push((bytes + name.len(), part, name, value));
            }
        }
        let mut total: usize = sizes.iter().map(|(bytes, ..)| bytes).sum();
        if total > self.span_bytes {
            sizes.sort_by_key(|(bytes, ..)| std::cmp::Reverse(*bytes));
            for (bytes, part, name, value) in sizes {
                if total <= self.span_bytes || bytes <= 2 * KEPT_TEXT_BYTES {
                    break;
                }
                total -= bytes;
                total += shorten(value, bytes) + name.len();
                let field = format!("{part}.{name}");
                if !cut.contains(&field) {
                    cut.push(field);
                }
            }
        }
        if !cut.is_empty() {
            span.metadata.insert("truncated".into(), cut.into());
        }
        total + span.name.len()
    }

    /// The bytes of a span of which nothing is to be cut, as nearly always.
    fn fits(&self, span: &Span) -> Option<usize> {
        let mut total = 0;
        for (name, value) in span.input.iter().chain(span.output.iter()).chain(span.metadata.iter())
        {
            let bytes = json_bytes(value);
            if bytes > self.field_bytes {
                return None;
            }
            total += bytes + name.len();
        }
        (total <= self.span_bytes).then_some(total + span.name.len())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new()
    }
}

/// Puts the beginning of the value's text and its size in its place. Returns the new size.
fn shorten(value: &mut Value, bytes: usize) -> usize {
    let text = match &mut *value {
        Value::String(text) => std::mem::take(text),
        other => other.to_string(),
    };
    let kept = &text[..text.floor_char_boundary(KEPT_TEXT_BYTES)];
    *value = format!("{kept}… (truncated, {bytes} bytes)").into();
    json_bytes(value)
}

/// The size of the value as JSON, without making the JSON. Escapes count as one byte.
fn json_bytes(value: &Value) -> usize {
    match value {
        Value::Null => 4,
        Value::Bool(_) => 5,
        Value::Number(_) => 8,
        Value::String(text) => text.len() + 2,
        Value::Array(values) => values.iter().map(|value| json_bytes(value) + 1).sum::<usize>() + 2,
        Value::Object(values) => {
            let entry = |(name, value): (&String, &Value)| name.len() + 4 + json_bytes(value);
            values.iter().map(entry).sum::<usize>() + 2
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use durable_spans_model::{SpanId, Timestamp, TraceId};
    use serde_json::json;

    fn span() -> Span {
        Span::new(TraceId::from_bits(1), SpanId::from_bits(2), "s", Timestamp::from_unix_ns(0))
    }

    #[test]
    fn what_fits_is_left_alone() {
        let mut span = span();
        span.input = json!({"a": [1, 2.5, null, true], "b": "ü".repeat(1000)})
            .as_object()
            .unwrap()
            .clone()
            .into();
        let before = span.clone();
        let size = Limits::new().cut(&mut span);
        assert_eq!(span, before);
        let exact = serde_json::to_string(&span.input).unwrap().len();
        assert!(size.abs_diff(exact) < 60, "{size} against {exact}");
    }

    #[test]
    fn a_field_of_five_megabytes_is_cut_with_a_mark() {
        let mut span = span();
        span.input.insert("text".into(), "é".repeat(2_500_000).into());
        span.output.insert("list".into(), vec![7; 1_000_000].into());
        span.output.insert("small".into(), 1.into());
        let size = Limits::new().cut(&mut span);
        assert!(size < 5_000, "{size}");
        let text = span.input["text"].as_str().unwrap();
        assert!(text.starts_with("éé") && text.ends_with("… (truncated, 5000002 bytes)"), "{text}");
        assert!(span.output["list"].as_str().unwrap().starts_with("[7,7,7"));
        assert_eq!(span.output["small"], 1);
        assert_eq!(span.metadata["truncated"], json!(["input.text", "output.list"]));
    }

    #[test]
    fn of_a_span_that_is_too_large_the_largest_fields_are_cut_first() {
        let mut span = span();
        for (index, kilobytes) in [30, 60, 50, 40, 60, 55].into_iter().enumerate() {
            let text = "x".repeat(kilobytes * 1024);
            span.input.insert(format!("field {index}").into(), text.into());
        }
        let size = Limits::new().cut(&mut span);
        assert!(size <= 256 * 1024);
        assert_eq!(span.metadata["truncated"], json!(["input.field 1"]));
        assert_eq!(span.input["field 4"].as_str().unwrap().len(), 60 * 1024);
    }

    #[test]
    fn a_name_is_cut_at_a_character() {
        let mut span = span();
        span.name = "ä".repeat(600).into();
        Limits::new().cut(&mut span);
        assert_eq!(span.name, format!("{}…", "ä".repeat(500)));
    }
}
