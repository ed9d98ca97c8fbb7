use std::{borrow::Cow, sync::Arc};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

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

/// The short form: an activity's header costs 91 bytes of history with it, names of Temporal's included.
#[derive(Serialize, Deserialize)]
struct Header {
    /// Both ids, or the trace id alone, where they are ours: foreign ones stay as they came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    i: Option<Ids>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    t: Option<TraceId>,
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

impl Header {
    fn new(context: &TraceContext) -> Self {
        let TraceContext { trace_id, span_id, sampled, group_id, policy, previous, shared } =
            context.clone();
        let i = Ids::new(&trace_id, span_id.as_ref());
        let (t, s) = if i.is_some() { (None, None) } else { (Some(trace_id), span_id) };
        Self { i, t, s, r: sampled, g: group_id, p: policy, l: previous, m: shared }
    }

    /// `None` without a trace id, and where there are two.
    fn context(self) -> Option<TraceContext> {
        let Self { i, t, s, r, g, p, l, m } = self;
        let (trace_id, span_id) = match (i, t, s) {
            (Some(Ids(trace_id, span_id)), None, None) => (trace_id, span_id),
            (None, Some(trace_id), span_id) => (trace_id, span_id),
            _ => return None,
        };
        Some(TraceContext {
            trace_id,
            span_id,
            sampled: r,
            group_id: g,
            policy: p,
            previous: l,
            shared: m,
        })
    }
}

/// Ids of ours. Their text is the base64url, without padding, of the 16 bytes of the trace id and,
/// if there is a span, the 16 bytes of its id, each as a UUID has them: 43 or 22 characters, where the
/// two UUIDs would have 72.
struct Ids(TraceId, Option<SpanId>);

impl Ids {
    /// `None` if one of them is foreign.
    fn new(trace_id: &TraceId, span_id: Option<&SpanId>) -> Option<Self> {
        let all_ours = trace_id.bits().is_some() && span_id.is_none_or(|id| id.bits().is_some());
        all_ours.then(|| Self(trace_id.clone(), span_id.cloned()))
    }

    fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let bits = |bytes: &[u8]| bytes.try_into().map(u128::from_be_bytes).ok();
        let (trace_id, span_id) = bytes.split_at_checked(16)?;
        let span_id = match span_id {
            [] => None,
            span_id => Some(SpanId::from_bits(bits(span_id)?)),
        };
        Some(Self(TraceId::from_bits(bits(trace_id)?), span_id))
    }
}

impl Serialize for Ids {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bits = [self.0.bits(), self.1.as_ref().and_then(SpanId::bits)];
        let bytes: Vec<u8> = bits.into_iter().flatten().flat_map(u128::to_be_bytes).collect();
        serializer.serialize_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl<'de> Deserialize<'de> for Ids {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| D::Error::custom("must be the base64url of one or two ids"))
    }
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

    /// The short JSON form for the Temporal header [`HEADER`]. Its `i` has the ids, the trace's and then the
    /// span's to hang under, as base64url of 16 bytes each; foreign ids are `t` and `s` as they came.
    pub fn to_header(&self) -> Vec<u8> {
        serde_json::to_vec(&Header::new(self)).expect("strings and numbers always make JSON")
    }

    /// Reads the short form, or the long one, which a program in another language may have set. In
    /// the short form any id may also stand in `t` and `s`.
    ///
    /// # Errors
    ///
    /// When it is neither. The message says where in the text, never what the text is.
    pub fn from_header(data: &[u8]) -> Result<Self, InvalidSpan> {
        let short = serde_json::from_slice::<Header>(data).ok().and_then(Header::context);
        let context = match short {
            Some(context) => context,
            None => serde_json::from_slice(data).map_err(|error| {
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
    use proptest::prelude::*;

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
            r#"{"i":"xYxeHrz_RtiBxU3Bpf2v6texILaq7kIZp86zJSoYw_o"}"#
        );
        let mut start = context().group_id("g").unwrap().policy(FlushPolicy::new());
        (start.span_id, start.sampled) = (None, false);
        assert_eq!(
            String::from_utf8(start.to_header()).unwrap(),
            r#"{"i":"xYxeHrz_RtiBxU3Bpf2v6g","r":false,"g":"g","p":[1,200,10000,0]}"#
        );
        assert_eq!(TraceContext::from_header(&activity.to_header()).unwrap(), activity);
        assert_eq!(TraceContext::from_header(&start.to_header()).unwrap(), start);
    }

    proptest! {
        #[test]
        fn ids_of_ours_survive_the_header(trace: u128, span: Option<u128>) {
            let mut context = TraceContext::new(TraceId::from_bits(trace));
            context.span_id = span.map(SpanId::from_bits);
            prop_assert_eq!(TraceContext::from_header(&context.to_header()).unwrap(), context);
        }
    }

    #[test]
    fn foreign_ids_travel_as_they_came() {
        let foreign = TraceContext::new("c58c5e1ebcff46d881c54dc1a5fdafea".parse().unwrap())
            .under(context().span_id.unwrap());
        let header = String::from_utf8(foreign.to_header()).unwrap();
        assert_eq!(
            header,
            r#"{"t":"c58c5e1ebcff46d881c54dc1a5fdafea","s":"d7b120b6-aaee-4219-a7ce-b3252a18c3fa"}"#
        );
        assert_eq!(TraceContext::from_header(header.as_bytes()).unwrap(), foreign);
        let under_foreign = context().under("abc".parse().unwrap());
        assert_eq!(TraceContext::from_header(&under_foreign.to_header()).unwrap(), under_foreign);
    }

    /// The form from before `i`, which histories hold.
    #[test]
    fn ids_of_ours_are_read_as_uuids_too() {
        let json = br#"{"t":"c58c5e1e-bcff-46d8-81c5-4dc1a5fdafea","s":"d7b120b6-aaee-4219-a7ce-b3252a18c3fa","p":[1,200,10000,0]}"#;
        assert_eq!(TraceContext::from_header(json).unwrap(), context().policy(FlushPolicy::new()));
    }

    #[test]
    fn ids_of_another_length_or_twice_are_no_trace_context() {
        let refused = |json: &str| TraceContext::from_header(json.as_bytes()).is_err();
        let id = "xYxeHrz_RtiBxU3Bpf2v6g";
        assert!(!refused(&format!(r#"{{"i":"{id}"}}"#)));
        assert!(refused(&format!(r#"{{"i":"{id}==","r":true}}"#)));
        assert!(refused(&format!(r#"{{"i":"{}"}}"#, &id[..20])));
        assert!(refused(&format!(r#"{{"i":"{id}{id}"}}"#)));
        assert!(refused(&format!(r#"{{"i":"{id}","t":"abc"}}"#)));
        assert!(refused(r#"{"r":true}"#));
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
