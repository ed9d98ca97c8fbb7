use std::{borrow::Cow, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    Fields, InvalidSpan, Outcome, SpanId, SpanType, Timestamp, TraceId, TraceParent, id::check_id,
};

/// How a span ended. A span that is still open has [`SpanStatus::Success`] and no end, which is
/// what SGP's own clients send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum SpanStatus {
    /// The work ended well, or goes on.
    #[default]
    Success,
    /// The work failed.
    Error,
    /// The work was cancelled before it ended.
    Canceled,
}

impl SpanStatus {
    /// The name on the wire: `SUCCESS`, `ERROR` or `CANCELED`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "SUCCESS",
            Self::Error => "ERROR",
            Self::Canceled => "CANCELED",
        }
    }
}

/// Whose fault an error is, by SGP's word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ErrorCategory {
    /// The user's code.
    Application,
    /// The platform under it: Temporal, a worker, a timeout.
    Platform,
    /// Nobody said.
    #[default]
    Unknown,
}

/// What went wrong in a span.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpanError {
    /// A short name of the kind of error, such as `ValueError`.
    pub error_type: String,
    /// What a human should read.
    pub message: String,
    /// Whose fault it is.
    pub category: ErrorCategory,
    /// What else is known of it, by name. Empty if nothing is.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub data: Map<String, Value>,
}

impl SpanError {
    /// An error of category [`ErrorCategory::Unknown`].
    pub fn new(error_type: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            error_type: error_type.into(),
            message: message.into(),
            category: ErrorCategory::Unknown,
            data: Map::new(),
        }
    }

    /// The same error with another category.
    #[must_use]
    pub fn category(mut self, category: ErrorCategory) -> Self {
        self.category = category;
        self
    }

    /// The same error with something else that is known of it, such as a code.
    #[must_use]
    pub fn data(mut self, name: impl Into<String>, value: impl Serialize) -> Self {
        self.data.insert(name.into(), to_json(value));
        self
    }
}

/// A span: a named piece of work within a trace.
///
/// Its JSON is the wire form of SGP's spans API (`PUT /v5/spans/batch`): field names, field order
/// and timestamp format are those that Scale's Python client 0.7 sends. A span is keyed by
/// `(trace_id, id)`; sending it again replaces it.
///
/// ```
/// use durable_spans_model::{Span, SpanId, SpanType, Timestamp, TraceId};
///
/// let start: Timestamp = "2026-11-21T08:03:54.911208+00:00".parse()?;
/// let mut span = Span::new(TraceId::from_bits(1), SpanId::from_bits(2), "rank", start);
/// span.span_type = SpanType::Custom;
/// span.end_timestamp = Some(start);
/// span.validate()?;
/// # Ok::<(), durable_spans_model::InvalidSpan>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// What the work is called. Not empty, no NUL byte.
    pub name: Cow<'static, str>,
    /// Unique within the trace.
    pub id: SpanId,
    /// The trace that the span belongs to.
    pub trace_id: TraceId,
    /// When the work began.
    pub start_timestamp: Timestamp,
    /// What went in: a JSON object, empty if unknown.
    #[serde(default)]
    pub input: Fields,
    /// What came out: a JSON object, empty if unknown.
    #[serde(default)]
    pub output: Fields,
    /// Everything else that is known, by name.
    #[serde(default)]
    pub metadata: Fields,
    /// How it ended.
    #[serde(default)]
    pub status: SpanStatus,
    /// What kind of work it is.
    #[serde(default, rename = "type")]
    pub span_type: SpanType,
    /// When the work ended, `None` while it goes on. Never before the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_timestamp: Option<Timestamp>,
    /// The span of the same trace that this one is part of, `None` for a root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<SpanId>,
    /// A name that groups traces, such as a session id. At most 256 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_id: Option<Arc<str>>,
    /// The trace of an observability system that the work was done in: 32 hexadecimal digits. See
    /// [`TraceParent`](crate::TraceParent).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obs_trace_id: Option<Arc<str>>,
    /// The span of that trace: 16 hexadecimal digits. Only together with `obs_trace_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obs_span_id: Option<Arc<str>>,
}

impl Span {
    /// An open root span without data.
    pub fn new(
        trace_id: TraceId,
        id: SpanId,
        name: impl Into<Cow<'static, str>>,
        start_timestamp: Timestamp,
    ) -> Self {
        Self {
            name: name.into(),
            id,
            trace_id,
            start_timestamp,
            input: Fields::new(),
            output: Fields::new(),
            metadata: Fields::new(),
            status: SpanStatus::Success,
            span_type: SpanType::default(),
            end_timestamp: None,
            parent_id: None,
            group_id: None,
            obs_trace_id: None,
            obs_span_id: None,
        }
    }

    /// Notes that the work was done in this span of an observability system.
    pub fn set_observed(&mut self, observed: &TraceParent) {
        self.obs_trace_id = Some(observed.trace_id().into());
        self.obs_span_id = Some(observed.span_id().into());
    }

    /// Sets status [`SpanStatus::Error`] and the metadata that SGP shows for an error: `error`,
    /// `error_type`, `error_message` and `error_category`. What else is known of it is `error_data`.
    pub fn set_error(&mut self, error: SpanError) {
        self.status = SpanStatus::Error;
        let SpanError { error_type, message, category, data } = error;
        let category = match category {
            ErrorCategory::Application => "application",
            ErrorCategory::Platform => "platform",
            ErrorCategory::Unknown => "unknown",
        };
        self.metadata.insert("error".into(), true.into());
        self.metadata.insert("error_type".into(), error_type.into());
        self.metadata.insert("error_message".into(), message.into());
        self.metadata.insert("error_category".into(), category.into());
        // An error that was set before may have had data.
        self.metadata.remove("error_data");
        if !data.is_empty() {
            self.metadata.insert("error_data".into(), data.into());
        }
    }

    /// Ends the span, never before it started. A span on which an error was noted stays an error,
    /// unless it was cancelled.
    pub fn finish(&mut self, outcome: Outcome, at: Timestamp) {
        self.end_timestamp = Some(at.max(self.start_timestamp));
        match outcome {
            Outcome::Success => {}
            Outcome::Error(error) => self.set_error(error),
            Outcome::Canceled | Outcome::Abandoned => self.status = SpanStatus::Canceled,
        }
    }

    /// Checks what a store would refuse.
    ///
    /// # Errors
    ///
    /// Names the field: an empty name or one with a NUL byte, a group id over 256 bytes or with a
    /// NUL byte, an end before the start, a span that is its own parent. Ids are checked when they
    /// are made.
    pub fn validate(&self) -> Result<(), InvalidSpan> {
        if self.name.is_empty() {
            return Err(InvalidSpan::new("name", "must not be empty"));
        }
        if self.name.contains('\0') {
            return Err(InvalidSpan::new("name", "must not hold a NUL byte"));
        }
        if let Some(group_id) = &self.group_id {
            check_id("group_id", group_id)?;
        }
        if self.end_timestamp.is_some_and(|end| end < self.start_timestamp) {
            return Err(InvalidSpan::new("end_timestamp", "must not be before start_timestamp"));
        }
        if self.parent_id.as_ref() == Some(&self.id) {
            return Err(InvalidSpan::new("parent_id", "must not be the span's own id"));
        }
        Ok(())
    }
}

/// A value as JSON, for the input, output or metadata of a span. What serde cannot turn into JSON is
/// noted as such instead: recording never fails.
pub fn to_json(value: impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_else(|_| Value::String("(not JSON)".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn span() -> Span {
        Span::new(
            "c58c5e1e-bcff-46d8-81c5-4dc1a5fdafea".parse().unwrap(),
            "d7b120b6-aaee-4219-a7ce-b3252a18c3fa".parse().unwrap(),
            "inner",
            "2026-11-21T08:03:55.245743+00:00".parse().unwrap(),
        )
    }

    /// The very text that scale-gp-beta 0.7.0 sends for an open and for a failed span.
    #[test]
    fn json_is_the_wire_form_of_the_official_python_client() {
        let mut span = span();
        span.span_type = SpanType::Completion;
        span.parent_id = Some("8f0b39cc-1972-4605-a116-8050044808ad".parse().unwrap());
        span.group_id = Some("grp-1".into());
        assert_eq!(
            serde_json::to_string(&span).unwrap(),
            r#"{"name":"inner","id":"d7b120b6-aaee-4219-a7ce-b3252a18c3fa","trace_id":"c58c5e1e-bcff-46d8-81c5-4dc1a5fdafea","start_timestamp":"2026-11-21T08:03:55.245743+00:00","input":{},"output":{},"metadata":{},"status":"SUCCESS","type":"COMPLETION","parent_id":"8f0b39cc-1972-4605-a116-8050044808ad","group_id":"grp-1"}"#
        );

        span.metadata.insert("k".into(), json!([1, 2.5, null, true]));
        span.output.insert("a".into(), "b".into());
        span.end_timestamp = Some("2026-11-21T08:03:55.277882+00:00".parse().unwrap());
        span.set_error(SpanError::new("ValueError", "bad thing"));
        let captured = json!({
            "name": "inner",
            "id": "d7b120b6-aaee-4219-a7ce-b3252a18c3fa",
            "trace_id": "c58c5e1e-bcff-46d8-81c5-4dc1a5fdafea",
            "start_timestamp": "2026-11-21T08:03:55.245743+00:00",
            "input": {},
            "output": {"a": "b"},
            "metadata": {
                "k": [1, 2.5, null, true],
                "error": true,
                "error_type": "ValueError",
                "error_message": "bad thing",
                "error_category": "unknown"
            },
            "status": "ERROR",
            "type": "COMPLETION",
            "end_timestamp": "2026-11-21T08:03:55.277882+00:00",
            "parent_id": "8f0b39cc-1972-4605-a116-8050044808ad",
            "group_id": "grp-1"
        });
        assert_eq!(serde_json::to_value(&span).unwrap(), captured);
        assert_eq!(serde_json::from_value::<Span>(captured).unwrap(), span);
    }

    #[test]
    fn what_a_store_refuses_is_named() {
        let refused = |change: fn(&mut Span)| {
            let mut span = span();
            change(&mut span);
            span.validate().unwrap_err().field().to_owned()
        };
        assert_eq!(refused(|s| s.name = "".into()), "name");
        assert_eq!(refused(|s| s.name.to_mut().push('\0')), "name");
        assert_eq!(refused(|s| s.group_id = Some("g".repeat(257).into())), "group_id");
        assert_eq!(
            refused(|s| s.end_timestamp = Some(Timestamp::from_unix_ns(0))),
            "end_timestamp"
        );
        assert_eq!(refused(|s| s.parent_id = Some(s.id.clone())), "parent_id");
    }

    #[test]
    fn what_is_not_json_is_noted_as_such() {
        assert_eq!(to_json([1, 2]), json!([1, 2]));
        let no_json = std::collections::BTreeMap::from([((1, 2), 3)]);
        assert_eq!(to_json(no_json), "(not JSON)");
    }

    #[test]
    fn a_nul_byte_in_a_value_is_data() {
        let mut span = span();
        span.input.insert("text".into(), "a\0b".into());
        span.validate().unwrap();
        let json = serde_json::to_string(&span).unwrap();
        assert_eq!(serde_json::from_str::<Span>(&json).unwrap(), span);
    }
}
