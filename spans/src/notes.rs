//! What is noted on a span of any type: events, metrics and tags.

use serde_json::{Map, Value};

use crate::{Fields, Span, Timestamp, data::as_object};

impl Span {
    /// Notes that something happened within the work: in the metadata `events`, a list of objects with
    /// `name`, `timestamp` and the attributes. An attribute by one of these two names is left out.
    pub fn add_event(
        &mut self,
        name: impl Into<String>,
        at: Timestamp,
        attributes: Map<String, Value>,
    ) {
        let mut event = attributes;
        event.insert("name".to_owned(), name.into().into());
        event.insert("timestamp".to_owned(), at.to_string().into());
        list(&mut self.metadata, "events").push(event.into());
    }

    /// Notes a figure: in the metadata `metrics`, a number by name, the last one of a name. What is
    /// no number (NaN or infinite) is null there.
    pub fn set_metric(&mut self, name: impl Into<String>, value: f64) {
        as_object(self.metadata.get_or_null("metrics")).insert(name.into(), value.into());
    }

    /// Notes what every span of the trace has as metadata. What the span says itself goes first; tags are
    /// those of both.
    pub fn share(&mut self, shared: &Fields) {
        if shared.is_empty() {
            return;
        }
        let mut own = std::mem::replace(&mut self.metadata, shared.clone());
        if let Some(Value::Array(tags)) = own.remove("tags") {
            for tag in tags {
                if let Value::String(tag) = tag {
                    self.add_tag(tag);
                }
            }
        }
        self.metadata.extend(own);
    }

    /// Notes a word to find the span by: in the metadata `tags`, a list of texts, each of them once.
    pub fn add_tag(&mut self, tag: impl Into<String>) {
        add_tag(&mut self.metadata, tag.into());
    }
}

/// Adds a tag to metadata, once.
pub(crate) fn add_tag(metadata: &mut Fields, tag: String) {
    let tags = list(metadata, "tags");
    if !tags.iter().any(|known| known == &tag) {
        tags.push(tag.into());
    }
}

/// The list of that name in the metadata. Anything else that has the name is kept as its first
/// element.
fn list<'a>(metadata: &'a mut Fields, name: &str) -> &'a mut Vec<Value> {
    let value = metadata.get_or_null(name);
    if !value.is_array() {
        let known = value.take();
        *value = Value::Array(if known.is_null() { Vec::new() } else { vec![known] });
    }
    match value {
        Value::Array(list) => list,
        _ => unreachable!("made one above"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::{Span, SpanError, SpanId, Timestamp, TraceId};

    fn span() -> Span {
        Span::new(TraceId::from_bits(1), SpanId::from_bits(2), "s", Timestamp::from_unix_ns(0))
    }

    #[test]
    fn events_metrics_and_tags_stand_in_the_metadata() {
        let mut span = span();
        let attributes = json!({"queue": "q", "name": "not this"}).as_object().unwrap().clone();
        span.add_event("queued", Timestamp::from_unix_ns(1_000), attributes);
        span.set_metric("quality", 4.5);
        span.set_metric("quality", 5.0);
        span.set_metric("ratio", f64::NAN);
        span.add_tag("beta");
        span.add_tag("beta");
        span.add_tag("eu");
        assert_eq!(
            serde_json::Value::from(span.metadata),
            json!({
                "events": [
                    {"name": "queued", "timestamp": "1970-01-01T00:00:00.000001+00:00", "queue": "q"},
                ],
                "metrics": {"quality": 5.0, "ratio": null},
                "tags": ["beta", "eu"],
            })
        );
    }

    #[test]
    fn what_the_trace_shares_gives_way_to_what_the_span_says_and_tags_are_joined() {
        let mut span = span();
        span.metadata.insert("tenant".into(), "ours".into());
        span.add_tag("eu");
        let shared = json!({"tenant": "acme", "region": "north", "tags": ["beta", "eu"]});
        span.share(&shared.as_object().unwrap().clone().into());
        let expected = json!({"tenant": "ours", "region": "north", "tags": ["beta", "eu"]});
        assert_eq!(span.metadata, expected);
    }

    #[test]
    fn what_has_the_name_of_a_list_is_its_first_element() {
        let mut span = span();
        span.metadata.insert("tags".into(), "mine".into());
        span.add_tag("beta");
        assert_eq!(span.metadata["tags"], json!(["mine", "beta"]));
    }

    #[test]
    fn an_error_has_the_data_that_was_set_with_it() {
        let mut span = span();
        span.set_error(SpanError::new("Refused", "no").data("code", 5));
        assert_eq!(span.metadata["error_data"], json!({"code": 5}));
        span.set_error(SpanError::new("Refused", "no"));
        assert_eq!(span.metadata.get("error_data"), None);
    }
}
