use std::{borrow::Cow, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{Fields, FlushPolicy, InvalidSpan, SpanId, TraceId, to_json};

/// What every span of a trace gets must fit into each header.
const MAX_SHARED_BYTES: usize = 1_024;

/// Name of the Temporal header that carries a [`TraceContext`] between client, workflow, activity
/// and child workflow.
pub const HEADER: &str = "_spans";

/// What one part of a trace tells the next: which trace it belongs to and which span it hangs
/// under.
///
/// Its JSON has plain names, so that it can travel in a workflow's input or memo and be read by
/// any language:
///
/// ```
/// use durable_spans_model::{TraceContext, TraceId};
///
/// let context = TraceContext::new(TraceId::from_bits(7)).group_id("session-4")?;
/// assert_eq!(
///     serde_json::to_string(&context).unwrap(),
///     r#"{"trace_id":"00000000-0000-0000-0000-000000000007","group_id":"session-4"}"#,
/// );
/// # Ok::<(), durable_spans_model::InvalidSpan>(())
/// ```
///
/// Between durable-spans' own halves it travels in the Temporal header [`HEADER`], in the short
/// form of [`TraceContext::to_header`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    /// The trace to join.
    pub trace_id: TraceId,
    /// The span to hang under, `None` to become the root. Read from `parent_span_id`, too.
    #[serde(default, alias = "parent_span_id", skip_serializing_if = "Option::is_none")]
    pub span_id: Option<SpanId>,
    /// Whether spans are recorded at all. Default true.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub sampled: bool,
    /// The group of traces that the trace belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_id: Option<Arc<str>>,
    /// When a run that starts with this context flushes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<FlushPolicy>,
    /// Trace and root span of the run before, where each run of a continue-as-new chain has a trace of
    /// its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<(TraceId, SpanId)>,
    /// Metadata of every span of the trace from here on. See [`TraceContext::shared`].
    #[serde(default, skip_serializing_if = "Fields::is_empty")]
    pub shared: Fields,
}

fn yes() -> bool {
    true
}

fn is_true(value: &bool) -> bool {
    *value
}

/// The short form: an activity's header costs about 125 bytes of history with it.
#[derive(Serialize, Deserialize)]
struct Header {
    t: TraceId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    s: Option<SpanId>,
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    r: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    g: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    p: Option<FlushPolicy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    l: Option<(TraceId, SpanId)>,
    #[serde(default, skip_serializing_if = "Fields::is_empty")]
    m: Fields,
}

impl TraceContext {
    /// A sampled context without a parent span, a group or a policy.
    pub fn new(trace_id: TraceId) -> Self {
        Self {
            trace_id,
            span_id: None,
            sampled: true,
            group_id: None,
            policy: None,
            previous: None,
            shared: Fields::new(),
        }
    }

    /// The same context, hanging under `span_id`.
    #[must_use]
    pub fn under(mut self, span_id: SpanId) -> Self {
        self.span_id = Some(span_id);
        self
    }

    /// The same context in the group `group_id`.
    ///
    /// # Errors
    ///
    /// When the group id is empty, over 256 bytes long or holds a NUL byte.
    pub fn group_id(mut self, group_id: impl Into<Arc<str>>) -> Result<Self, InvalidSpan> {
        let group_id = group_id.into();
        crate::id::check_id("group_id", &group_id)?;
        self.group_id = Some(group_id);
        Ok(self)
    }

    /// The same context with a named value that every span of the trace gets as metadata, from here on
    /// and wherever the trace goes: the tenant, say, or the version of an experiment. A value that
    /// serde cannot turn into JSON is noted as such in its place.
    ///
    /// It travels in the header of each activity and child workflow, in clear text unless there is a
    /// payload codec, and so costs its bytes of history each time. At most 1,024 bytes in all.
    ///
    /// # Errors
    ///
    /// When the shared values would have more than 1,024 bytes of JSON together.
    pub fn shared(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Serialize,
    ) -> Result<Self, InvalidSpan> {
        self.shared.insert(name.into(), to_json(value));
        self.check_shared()?;
        Ok(self)
    }

    /// The same context with a tag that every span of the trace gets, see [`shared`](Self::shared).
    ///
    /// # Errors
    ///
    /// As [`shared`](Self::shared).
    pub fn shared_tag(mut self, tag: impl Into<String>) -> Result<Self, InvalidSpan> {
        crate::notes::add_tag(&mut self.shared, tag.into());
        self.check_shared()?;
        Ok(self)
    }

    fn check_shared(&self) -> Result<(), InvalidSpan> {
        let bytes = serde_json::to_vec(&self.shared).map_or(0, |json| json.len());
        if bytes > MAX_SHARED_BYTES {
            let reason =
                format!("has {bytes} bytes of JSON, at most {MAX_SHARED_BYTES} are allowed");
            return Err(InvalidSpan::new("shared", reason));
        }
        Ok(())
    }

    /// The same context with the flush policy of the runs that it starts.
    #[must_use]
    pub fn policy(mut self, policy: FlushPolicy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// The short JSON form for the Temporal header [`HEADER`].
    pub fn to_header(&self) -> Vec<u8> {
        let Self { trace_id, span_id, sampled, group_id, policy, previous, shared } = self.clone();
        let header = Header {
            t: trace_id,
            s: span_id,
            r: sampled,
            g: group_id,
            p: policy,
            l: previous,
            m: shared,
        };
        serde_json::to_vec(&header).expect("strings and numbers always make JSON")
    }

    /// Reads the short form, or the long one, which a program in another language may have set.
    ///
    /// # Errors
    ///
    /// When it is neither. The message says where in the text, never what the text is.
    pub fn from_header(data: &[u8]) -> Result<Self, InvalidSpan> {
        let context = match serde_json::from_slice::<Header>(data) {
            Ok(Header { t, s, r, g, p, l, m }) => Self {
                trace_id: t,
                span_id: s,
                sampled: r,
                group_id: g,
                policy: p,
                previous: l,
                shared: m,
            },
            Err(_) => serde_json::from_slice(data).map_err(|error| {
                InvalidSpan::new(
                    format!("header {HEADER}"),
                    format!("is not a trace context (column {})", error.column()),
                )
            })?,
        };
        if let Some(group_id) = &context.group_id {
            crate::id::check_id("group_id", group_id)?;
        }
        Ok(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> TraceContext {
        TraceContext::new("c58c5e1e-bcff-46d8-81c5-4dc1a5fdafea".parse().unwrap())
            .under("d7b120b6-aaee-4219-a7ce-b3252a18c3fa".parse().unwrap())
    }

    /// Histories hold this text: it may gain names, never lose or change one.
    #[test]
    fn the_header_form_never_changes() {
        let activity = context();
        assert_eq!(
            String::from_utf8(activity.to_header()).unwrap(),
            r#"{"t":"c58c5e1e-bcff-46d8-81c5-4dc1a5fdafea","s":"d7b120b6-aaee-4219-a7ce-b3252a18c3fa"}"#
        );
        let mut start = context().group_id("g").unwrap().policy(FlushPolicy::new());
        start.sampled = false;
        assert_eq!(
            String::from_utf8(start.to_header()).unwrap(),
            r#"{"t":"c58c5e1e-bcff-46d8-81c5-4dc1a5fdafea","s":"d7b120b6-aaee-4219-a7ce-b3252a18c3fa","r":false,"g":"g","p":[1,200,10000,0]}"#
        );
        assert_eq!(TraceContext::from_header(&activity.to_header()).unwrap(), activity);
        assert_eq!(TraceContext::from_header(&start.to_header()).unwrap(), start);
    }

    #[test]
    fn the_plain_form_is_read_from_a_header_too_and_keeps_foreign_ids() {
        let json = br#"{"trace_id":"c58c5e1ebcff46d881c54dc1a5fdafea","span_id":"abc","x":1}"#;
        let context = TraceContext::from_header(json).unwrap();
        assert_eq!(context.trace_id.to_string(), "c58c5e1ebcff46d881c54dc1a5fdafea");
        assert_eq!(context.span_id.unwrap().to_string(), "abc");
        assert!(context.sampled);
    }

    #[test]
    fn what_is_shared_travels_in_the_header_and_is_bounded() {
        let context = context().shared("tenant", "acme").unwrap().shared_tag("beta").unwrap();
        let header = String::from_utf8(context.to_header()).unwrap();
        assert!(header.ends_with(r#""m":{"tenant":"acme","tags":["beta"]}}"#), "{header}");
        assert_eq!(TraceContext::from_header(header.as_bytes()).unwrap(), context);
        let error = context.shared("essay", "x".repeat(1_024)).unwrap_err();
        assert!(error.to_string().contains("at most 1024"), "{error}");
    }

    #[test]
    fn a_broken_header_is_an_error_without_its_content() {
        let error = TraceContext::from_header(b"{\"t\":\"sec\0ret\"").unwrap_err();
        assert_eq!(error.field(), "header _spans");
        assert!(!error.to_string().contains("sec"), "{error}");
        assert!(TraceContext::from_header(b"").is_err());
    }
}
