//! The trace context in Temporal payloads: header, memo, workflow input.

use std::collections::BTreeMap;

use durable_spans_model::{HEADER, InvalidSpan, TraceContext, TraceParent};
use serde_json::{Map, Value, json};
pub(crate) use temporalio_workflow::common::protos::temporal::api::common::v1::Payload;
use temporalio_workflow::common::protos::temporal::api::common::v1::SearchAttributes;

use crate::values::as_fields;

/// Name of the memo entry, or of the field of a workflow's first argument, that may carry a
/// [`TraceContext`] as plain JSON where no header can be set.
pub const EXPLICIT_CONTEXT: &str = "trace_context";

/// Name of the field of a workflow's first argument that, beside `trace_id`, says the same in plain
/// fields.
const EXPLICIT_PARENT: &str = "parent_span_id";

/// The header's payload: JSON, encoded so that every SDK can read it.
pub fn to_payload(context: &TraceContext) -> Payload {
    json_payload(context.to_header())
}

/// Reads the payload of the header.
///
/// # Errors
///
/// When it holds no trace context, for example because it is still encrypted.
pub fn from_payload(payload: &Payload) -> Result<TraceContext, InvalidSpan> {
    TraceContext::from_header(&payload.data)
}

/// Where the run's starter stood in an observability trace, as the OpenTelemetry interceptors of
/// Temporal's SDKs tell it. Another tracer's format is passed over.
pub(crate) fn observed_of_start(header: Option<&Payload>) -> Option<TraceParent> {
    TraceParent::from_header(&header?.data).ok()
}

/// The payload of the header for [`observed_of_start`].
pub(crate) fn observed_to_payload(observed: &TraceParent) -> Payload {
    json_payload(observed.to_header())
}

/// The id of the schedule that started a run, by the search attributes of its start.
pub fn schedule_id(search_attributes: Option<&SearchAttributes>) -> Option<String> {
    let payload = search_attributes?.indexed_fields.get("TemporalScheduledById")?;
    serde_json::from_slice(&payload.data).ok()
}

/// What a run was started with, as the fields of an input. A payload that is not JSON, or has more
/// bytes than this, is told by its size.
pub(crate) fn arguments(payloads: &[Payload], most_bytes: usize) -> Map<String, Value> {
    let value = |payload: &Payload| {
        let encoding = payload.metadata.get("encoding").map(Vec::as_slice);
        if encoding == Some(b"binary/null") {
            return Value::Null;
        }
        let bytes = payload.data.len();
        let is_json = encoding == Some(b"json/plain") && bytes <= most_bytes;
        let parsed = is_json.then(|| serde_json::from_slice(&payload.data).ok()).flatten();
        parsed.unwrap_or_else(|| format!("({bytes} bytes)").into())
    };
    match payloads {
        [] => Map::new(),
        [only] => as_fields(value(only), "input"),
        several => as_fields(several.iter().map(value).collect(), "input"),
    }
}

fn json_payload(data: Vec<u8>) -> Payload {
    Payload {
        metadata: [("encoding".to_owned(), b"json/plain".to_vec())].into(),
        data,
        external_payloads: Vec::new(),
    }
}

/// The context that a run was started with: in the header, else in the memo, else in its first
/// argument. A broken one is reported in the log and passed over, since tracing never fails a run.
pub fn of_start<'a>(
    workflow_id: &str,
    header: Option<&Payload>,
    memo: Option<&Payload>,
    arguments: impl IntoIterator<Item = &'a Payload>,
) -> Option<TraceContext> {
    let report = |what: &str, error: InvalidSpan| {
        tracing::warn!(workflow_id, %error, "trace context in the {what} is ignored");
    };
    if let Some(payload) = header {
        match from_payload(payload) {
            Ok(context) => return Some(context),
            Err(error) => report("header", error),
        }
    }
    if let Some(payload) = memo {
        match from_payload(payload) {
            Ok(context) => return Some(context),
            Err(error) => report("memo", error),
        }
    }
    let context = explicit(arguments.into_iter().next()?)?;
    // Checks what is given to ids and groups, as it does for the header.
    let read = serde_json::to_vec(&context).ok().map(|json| TraceContext::from_header(&json));
    if let Some(Ok(context)) = read {
        return Some(context);
    }
    report("input", InvalidSpan::new(EXPLICIT_CONTEXT, "is not a trace context, see TraceContext"));
    None
}

/// What a workflow's first argument says of its trace: in one field, or in the plain fields
/// `trace_id`, [`EXPLICIT_PARENT`] and `group_id`, of which the second must be there, be it null, to
/// tell them from a `trace_id` of the user's own.
fn explicit(argument: &Payload) -> Option<Value> {
    // Cheap test before parsing what may be megabytes.
    let mentions = |name: &str| {
        let marker = format!("\"{name}\"");
        argument.data.windows(marker.len()).any(|bytes| bytes == marker.as_bytes())
    };
    if !mentions(EXPLICIT_CONTEXT) && !mentions(EXPLICIT_PARENT) {
        return None;
    }
    let mut fields: BTreeMap<String, Value> = serde_json::from_slice(&argument.data).ok()?;
    let context = match fields.remove(EXPLICIT_CONTEXT) {
        Some(context) => context,
        None => {
            let parent = fields.remove(EXPLICIT_PARENT)?;
            let trace_id = fields.remove("trace_id").filter(|trace_id| !trace_id.is_null())?;
            json!({"trace_id": trace_id, "span_id": parent, "group_id": fields.remove("group_id")})
        }
    };
    // A caller that is not traced itself.
    if context.is_null() { None } else { Some(context) }
}

/// The context that came with a signal or an update, if any.
pub(crate) fn of_message<'a>(
    mut headers: impl Iterator<Item = (&'a String, &'a Payload)>,
) -> Option<TraceContext> {
    let (_, payload) = headers.find(|(name, _)| name.as_str() == HEADER)?;
    from_payload(payload).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use durable_spans_model::TraceId;

    fn json(text: &str) -> Payload {
        Payload { data: text.into(), ..Default::default() }
    }

    #[test]
    fn header_goes_before_memo_before_input_and_broken_ones_are_passed_over() {
        let id = |n: u128| TraceId::from_bits(n);
        let header = to_payload(&TraceContext::new(id(1)));
        let memo = json(r#"{"trace_id":"00000000-0000-0000-0000-000000000002"}"#);
        let input = json(r#"{"x":1,"trace_context":{"trace_id":"abc","span_id":"def"}}"#);
        fn found(
            header: Option<&Payload>,
            memo: Option<&Payload>,
            input: &Payload,
        ) -> Option<String> {
            of_start("w", header, memo, [input]).map(|context| context.trace_id.to_string())
        }
        assert_eq!(found(Some(&header), Some(&memo), &input), Some(id(1).to_string()));
        let (encrypted, empty) = (json("\u{1}"), json("{}"));
        assert_eq!(found(Some(&encrypted), Some(&memo), &input), Some(id(2).to_string()));
        assert_eq!(found(None, Some(&empty), &input), Some("abc".into()));
        assert_eq!(found(None, None, &json(r#"{"trace_context":7}"#)), None);
        assert_eq!(found(None, None, &json(r#""trace_context""#)), None);
        assert_eq!(found(None, None, &json("17")), None);
    }

    #[test]
    fn plain_fields_are_read_where_a_parent_is_named_and_left_alone_elsewhere() {
        let found = |input: &str| of_start("w", None, None, [&json(input)]);
        let plain = found(r#"{"q":1,"trace_id":"abc","parent_span_id":"def","group_id":"g"}"#);
        let expected = TraceContext::new("abc".parse().unwrap()).under("def".parse().unwrap());
        assert_eq!(plain, Some(expected.group_id("g").unwrap()));
        let same = found(r#"{"trace_context":{"trace_id":"abc","parent_span_id":"def"}}"#);
        assert_eq!(same.unwrap().span_id.unwrap().to_string(), "def");
        let root = found(r#"{"trace_id":"abc","parent_span_id":null}"#);
        assert_eq!(root, Some(TraceContext::new("abc".parse().unwrap())));
        for not_one in [
            r#"{"trace_id":"abc"}"#,
            r#"{"trace_id":null,"parent_span_id":null}"#,
            r#"{"trace_id":7,"parent_span_id":"def"}"#,
            r#"{"trace_id":"abc","parent_span_id":""}"#,
            r#"{"trace_id":"abc","parent_span_id":null,"group_id":""}"#,
            r#"{"trace_context":null}"#,
        ] {
            assert_eq!(found(not_one), None, "{not_one}");
        }
    }
}
