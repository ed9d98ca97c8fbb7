use std::borrow::Cow;

use axum::http::StatusCode;
use durable_spans_model::{InvalidSpan, SpanId, SpanStatus, SpanType, Timestamp, TraceId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, error::Category, value::RawValue};

use crate::refusal::Refusal;

/// Most spans that one batch may hold.
pub const MAX_BATCH_SPANS: usize = 1000;

/// One span of a batch that passed every check that needs no look at other spans.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    pub(crate) trace_id: Cow<'a, str>,
    pub(crate) id: Cow<'a, str>,
    pub(crate) parent_id: Option<Cow<'a, str>>,
    pub(crate) start_ns: i64,
    pub(crate) end_ns: Option<i64>,
    /// The JSON object to store and to answer with.
    pub(crate) body: String,
}

impl Record<'_> {
    pub(crate) fn is_completed(&self) -> bool {
        self.end_ns.is_some()
    }
}

/// Reads the body of `PUT /v5/spans/batch`.
pub(crate) fn parse<'a>(body: &'a [u8], account_id: &'a str) -> Result<Vec<Record<'a>>, Refusal> {
    #[derive(Deserialize)]
    struct Batch<'a> {
        // Not parsed further until their number is known to be allowed.
        #[serde(borrow)]
        items: Vec<&'a RawValue>,
    }

    if body.trim_ascii_start().first().is_some_and(|first| *first == b'[') {
        return Err(Refusal::invalid("body", "must be an object with the field items"));
    }
    let batch: Batch<'a> =
        serde_json::from_slice(body).map_err(|error| match error.classify() {
            Category::Data if is_missing(&error) => Refusal::invalid("items", "is missing"),
            Category::Data => {
                Refusal::invalid("items", "must be an array, the only one in an object")
            }
            _ => Refusal::of_field(
                StatusCode::BAD_REQUEST,
                "body",
                &format!("is not valid JSON: {error}"),
            ),
        })?;
    if batch.items.len() > MAX_BATCH_SPANS {
        let reason =
            format!("holds {} spans, at most {MAX_BATCH_SPANS} are allowed", batch.items.len());
        return Err(Refusal::invalid("items", &reason));
    }
    let parse = |(index, text)| parse_item(index, text, account_id);
    batch.items.into_iter().enumerate().map(parse).collect()
}

fn parse_item<'a>(
    index: usize,
    text: &'a RawValue,
    account_id: &'a str,
) -> Result<Record<'a>, Refusal> {
    // Serde would also read a struct from an array, by position.
    if !text.get().starts_with('{') {
        return Err(Refusal::invalid(format!("items[{index}]"), "must be an object"));
    }
    let mut item: Item<'a> =
        serde_json::from_str(text.get()).map_err(|_| explain(index, text.get()))?;
    item.account_id = account_id;
    item.object = "span";
    if item.id.is_none() {
        item.id = Some(Text(uuid::Uuid::new_v4().to_string().into()));
    }
    let (start_ns, end_ns) = item.check().map_err(|error| {
        Refusal::invalid(format!("items[{index}].{}", error.field()), error.reason())
    })?;
    let body = serde_json::to_string(&item).map_err(|error| {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("a span has no JSON: {error}"))
    })?;
    Ok(Record {
        trace_id: item.trace_id.0,
        id: item.id.map(|id| id.0).unwrap_or_default(),
        parent_id: item.parent_id.map(|id| id.0),
        start_ns,
        end_ns,
        body,
    })
}

/// Says which field of an item could not be read. Reads it a second time, because keeping track of
/// the path is not for free and most items are fine.
fn explain(index: usize, text: &str) -> Refusal {
    let item = format!("items[{index}]");
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let Err(error) = serde_path_to_error::deserialize::<_, Item<'_>>(&mut deserializer) else {
        return Refusal::invalid(item, "must be a span");
    };
    let path = error.path().to_string();
    let error = error.into_inner();
    if let Some(name) = named_in(&error, "missing field `") {
        return Refusal::invalid(format!("{item}.{name}"), "is missing");
    }
    if let Some(name) = named_in(&error, "duplicate field `") {
        return Refusal::invalid(format!("{item}.{name}"), "must not be given twice");
    }
    let field = if path == "." { item } else { format!("{item}.{path}") };
    match error.classify() {
        // Serde's own message would quote the value.
        Category::Data => Refusal::invalid(field, "must be a string"),
        _ => Refusal::invalid(field, &format!("is not valid JSON text: {error}")),
    }
}

fn is_missing(error: &serde_json::Error) -> bool {
    named_in(error, "missing field `").is_some()
}

fn named_in(error: &serde_json::Error, before: &str) -> Option<String> {
    let message = error.to_string();
    Some(message.strip_prefix(before)?.split('`').next()?.to_owned())
}

/// Text that is borrowed from the request where it holds no escapes.
#[derive(Debug, Deserialize, Serialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The fields that SGP knows, in the order of its Python client. Objects stay the text that the
/// client sent, so that no number loses a digit.
#[derive(Debug, Deserialize, Serialize)]
struct Item<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    trace_id: Text<'a>,
    #[serde(borrow)]
    start_timestamp: Text<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "raw")]
    input: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "raw")]
    output: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "raw")]
    metadata: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "raw")]
    expected: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    status: Option<Text<'a>>,
    #[serde(borrow, rename = "type", skip_serializing_if = "Option::is_none")]
    span_type: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    end_timestamp: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    parent_id: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    group_id: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    application_interaction_id: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    application_variant_id: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    obs_trace_id: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    obs_span_id: Option<Text<'a>>,
    #[serde(skip_deserializing)]
    account_id: &'a str,
    #[serde(skip_deserializing)]
    object: &'static str,
}

/// Unlike serde's own `Option`, keeps a `null`, which is no object and must be refused.
fn raw<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

impl Item<'_> {
    /// Start and end in Unix nanoseconds, if a store of SGP would take the item.
    ///
    /// Whatever passes can also be read as a [`durable_spans_model::Span`].
    fn check(&self) -> Result<(i64, Option<i64>), InvalidSpan> {
        let name = &self.name.0;
        if name.is_empty() {
            return Err(InvalidSpan::new("name", "must not be empty"));
        }
        if name.contains('\0') {
            return Err(InvalidSpan::new("name", "must not hold a NUL byte"));
        }
        self.trace_id.0.parse::<TraceId>()?;
        check_id("id", self.id.as_ref())?;
        check_id("parent_id", self.parent_id.as_ref())?;
        check_id("group_id", self.group_id.as_ref())?;

        let start = timestamp("start_timestamp", &self.start_timestamp)?;
        let end = self.end_timestamp.as_ref().map(|end| timestamp("end_timestamp", end));
        let end = end.transpose()?;
        if end.is_some_and(|end| end < start) {
            return Err(InvalidSpan::new("end_timestamp", "must not be before start_timestamp"));
        }

        if let Some(Text(status)) = &self.status
            && ![SpanStatus::Success, SpanStatus::Error, SpanStatus::Canceled]
                .iter()
                .any(|known| known.as_str() == status)
        {
            return Err(InvalidSpan::new("status", "must be SUCCESS, ERROR or CANCELED"));
        }
        if let Some(Text(span_type)) = &self.span_type {
            span_type.parse::<SpanType>()?;
        }
        check_object("input", self.input)?;
        check_object("output", self.output)?;
        check_object("metadata", self.metadata)?;
        check_object("expected", self.expected)?;
        Ok((start, end))
    }
}

fn check_id(field: &'static str, id: Option<&Text<'_>>) -> Result<(), InvalidSpan> {
    let Some(Text(id)) = id else { return Ok(()) };
    let checked = id.parse::<SpanId>();
    checked.map(drop).map_err(|error| InvalidSpan::new(field, error.reason().to_owned()))
}

fn timestamp(field: &'static str, text: &Text<'_>) -> Result<i64, InvalidSpan> {
    let parsed = text.0.parse::<Timestamp>();
    parsed
        .map(Timestamp::unix_ns)
        .map_err(|error| InvalidSpan::new(field, error.reason().to_owned()))
}

/// Reads the object to the bottom: raw text may still hold what no reader could take, such as half
/// a surrogate pair or a thousand nested arrays.
fn check_object(field: &'static str, text: Option<&RawValue>) -> Result<(), InvalidSpan> {
    let Some(text) = text else { return Ok(()) };
    if !text.get().starts_with('{') {
        return Err(InvalidSpan::new(field, "must be a JSON object"));
    }
    match serde_json::from_str::<Map<String, Value>>(text.get()) {
        Ok(_) => Ok(()),
        Err(error) => Err(InvalidSpan::new(field, format!("is not valid JSON: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use durable_spans_model::Span;
    use serde_json::json;

    fn item() -> Value {
        json!({
            "name": "rank",
            "id": "a",
            "trace_id": "t",
            "start_timestamp": "2026-11-21T08:03:54.911208+00:00",
        })
    }

    /// The refusal of a batch whose fourth item has `field` set to `value`.
    fn refusal(field: &str, value: Value) -> String {
        let mut bad = item();
        bad[field] = value;
        refused(&json!({ "items": [item(), item(), item(), bad] }).to_string(), 422)
    }

    fn refused(body: &str, status: u16) -> String {
        let refusal = parse(body.as_bytes(), "acc").unwrap_err();
        assert_eq!(refusal.status(), status, "{}", refusal.detail());
        refusal.detail().to_owned()
    }

    #[test]
    fn what_was_sent_is_stored_to_the_letter_with_account_and_object() {
        let sent = concat!(
            r#"{"name":"rank","id":"a","trace_id":"t","start_timestamp":"2026-11-21T09:03:54.911208123+01:00","#,
            r#""input":{"big":12345678901234567890123,"z":1.10,"a":[ 1 ]},"status":"ERROR","type":"CUSTOM","#,
            r#""parent_id":"p","obs_trace_id":"o""#
        );
        let body = format!(r#"{{"items":[{sent},"account_id":"forged","unknown":1}}]}}"#);
        let records = parse(body.as_bytes(), "acc").unwrap();
        assert_eq!(records[0].body, format!(r#"{sent},"account_id":"acc","object":"span"}}"#));
        assert_eq!(records[0].start_ns, 1_795_248_234_911_208_123);
        assert_eq!(records[0].end_ns, None);
        assert_eq!(records[0].parent_id.as_deref(), Some("p"));
    }

    #[test]
    fn an_item_without_an_id_gets_a_random_one() {
        let mut item = item();
        item.as_object_mut().unwrap().remove("id");
        let body = json!({ "items": [item, item] }).to_string();
        let records = parse(body.as_bytes(), "acc").unwrap();
        assert_ne!(records[0].id, records[1].id);
        let stored: Span = serde_json::from_str(&records[0].body).unwrap();
        assert_eq!(stored.id.to_string(), records[0].id);
        assert!(stored.id.bits().is_some(), "a dashed uuid");
    }

    #[test]
    fn null_means_absent_except_for_objects() {
        let mut item = item();
        for field in ["end_timestamp", "parent_id", "group_id", "status", "type", "obs_span_id"] {
            item[field] = Value::Null;
        }
        let body = json!({ "items": [item] }).to_string();
        let records = parse(body.as_bytes(), "acc").unwrap();
        assert!(!records[0].body.contains("null"), "{}", records[0].body);
        assert_eq!(refusal("input", Value::Null), "items[3].input must be a JSON object");
    }

    #[test]
    fn a_field_at_fault_is_named_with_the_index_of_its_item() {
        let long = "é".repeat(129);
        for (field, value, reason) in [
            ("name", json!(""), "must not be empty"),
            ("name", json!("a\0b"), "must not hold a NUL byte"),
            ("name", json!({"secret": 1}), "must be a string"),
            ("id", json!(long), "is 258 bytes long, at most 256 are allowed"),
            ("id", json!("a\0b"), "must not hold a NUL byte"),
            ("id", json!(7), "must be a string"),
            ("trace_id", json!(long), "is 258 bytes long, at most 256 are allowed"),
            ("trace_id", json!(""), "must not be empty"),
            ("parent_id", json!("a\0b"), "must not hold a NUL byte"),
            ("group_id", json!(long), "is 258 bytes long, at most 256 are allowed"),
            ("start_timestamp", json!("secret"), "must be an RFC 3339 time with an offset"),
            ("start_timestamp", json!(1), "must be a string"),
            (
                "end_timestamp",
                json!("2026-11-21T08:03:54"),
                "must be an RFC 3339 time with an offset",
            ),
            ("end_timestamp", json!("2026-11-21T08:03:54Z"), "must not be before start_timestamp"),
            ("status", json!("secret"), "must be SUCCESS, ERROR or CANCELED"),
            ("type", json!("secret"), "is not a span type of SGP"),
            ("input", json!("secret"), "must be a JSON object"),
            ("output", json!(["secret"]), "must be a JSON object"),
            ("metadata", json!(1), "must be a JSON object"),
            ("expected", json!(true), "must be a JSON object"),
            ("application_variant_id", json!(["secret"]), "must be a string"),
        ] {
            assert_eq!(refusal(field, value), format!("items[3].{field} {reason}"));
        }
    }

    #[test]
    fn a_missing_or_repeated_field_is_named() {
        for field in ["name", "trace_id", "start_timestamp"] {
            let mut item = item();
            item.as_object_mut().unwrap().remove(field);
            let body = json!({ "items": [item] }).to_string();
            assert_eq!(refused(&body, 422), format!("items[0].{field} is missing"));
        }
        let twice = r#"{"items":[{"name":"a","name":"b"}]}"#;
        assert_eq!(refused(twice, 422), "items[0].name must not be given twice");
    }

    #[test]
    fn a_body_of_another_shape_is_refused() {
        assert_eq!(refused("{}", 422), "items is missing");
        assert!(refused(r#"{"items":{}}"#, 422).starts_with("items must be an array"));
        assert!(refused("[[]]", 422).starts_with("body must be an object"));
        assert!(refused("7", 422).starts_with("items must be an array"));
        assert_eq!(refused(r#"{"items":[1]}"#, 422), "items[0] must be an object");
        assert_eq!(refused(r#"{"items":[["n","i","t","s"]]}"#, 422), "items[0] must be an object");
        for malformed in ["", "{", r#"{"items":[{"name":}]}"#, "{\"items\":[\"a\0\"]}"] {
            let detail = refused(malformed, 400);
            assert!(detail.starts_with("body is not valid JSON"), "{detail}");
        }
        assert_eq!(parse(b"{\"items\":[\"\xff\"]}", "acc").unwrap_err().status(), 400);
        assert!(parse(br#"{"items":[],"more":1}"#, "acc").unwrap().is_empty());
    }

    #[test]
    fn a_batch_over_a_thousand_spans_is_refused_before_they_are_read() {
        let items = |count| json!({ "items": vec![json!("no span"); count] }).to_string();
        assert_eq!(refused(&items(1001), 422), "items holds 1001 spans, at most 1000 are allowed");
        assert_eq!(refused(&items(1000), 422), "items[0] must be an object");
        let full = json!({ "items": vec![item(); 1000] }).to_string();
        assert_eq!(parse(full.as_bytes(), "acc").unwrap().len(), 1000);
    }

    /// Raw JSON text can be well-formed and still impossible to read back.
    #[test]
    fn text_that_no_reader_could_take_is_refused() {
        let with_input = |value: &str| {
            let item = item().to_string();
            format!(r#"{{"items":[{},"input":{value}}}]}}"#, item.trim_end_matches('}'))
        };
        let deep = format!(r#"{{"x":{}{}}}"#, "[".repeat(500), "]".repeat(500));
        for value in [r#"{"x":"\ud800"}"#, r#"{"x":1e999}"#, &deep] {
            let detail = refused(&with_input(value), 422);
            assert!(detail.starts_with("items[0].input is not valid JSON"), "{detail}");
        }
        let half = r#"{"items":[{"name":"\ud800"}]}"#;
        assert!(refused(half, 422).starts_with("items[0].name is not valid JSON text"));
    }
}
