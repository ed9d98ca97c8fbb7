use serde::Deserialize;
use serde_json::{error::Category, value::RawValue};

use crate::{
    item::{Item, Record},
    read,
    refusal::Refusal,
};

/// Most spans that one batch may hold.
pub const MAX_BATCH_SPANS: usize = 1000;

/// Reads the body of a batch: `{"items": [...]}`.
pub(crate) fn parse<'a>(body: &'a [u8], account_id: &str) -> Result<Vec<Record<'a>>, Refusal> {
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
            Category::Data if read::is_missing(&error) => Refusal::invalid("items", "is missing"),
            Category::Data => {
                Refusal::invalid("items", "must be an array, the only one in an object")
            }
            _ => read::malformed(&error),
        })?;
    if batch.items.len() > MAX_BATCH_SPANS {
        let reason =
            format!("holds {} spans, at most {MAX_BATCH_SPANS} are allowed", batch.items.len());
        return Err(Refusal::invalid("items", &reason));
    }
    let parse = |(index, text)| parse_item(index, text, account_id);
    batch.items.into_iter().enumerate().map(parse).collect()
}

/// Reads the body of a single span.
pub(crate) fn parse_one<'a>(body: &'a [u8], account_id: &str) -> Result<Record<'a>, Refusal> {
    read::body::<Item<'a>>(body)?.into_record(account_id)
}

fn parse_item<'a>(
    index: usize,
    text: &'a RawValue,
    account_id: &str,
) -> Result<Record<'a>, Refusal> {
    let record = read::object::<Item<'a>>(text).and_then(|item| item.into_record(account_id));
    record.map_err(|refusal| refusal.within(&format!("items[{index}]")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use durable_spans_model::Span;
    use serde_json::{Value, json};

    fn item() -> Value {
        json!({
            "name": "rank",
            "id": "a",
            "trace_id": "t",
            "start_timestamp": "2026-11-21T08:03:54.911208+00:00",
        })
    }

    /// The refusal of a batch whose fourth item has `field` set to `value`.
    fn refusal(field: &str, value: Value, status: u16) -> String {
        let mut bad = item();
        bad[field] = value;
        refused(&json!({ "items": [item(), item(), item(), bad] }).to_string(), status)
    }

    fn refused(body: &str, status: u16) -> String {
        let refusal = parse(body.as_bytes(), "acc").unwrap_err();
        assert_eq!(refusal.status(), status, "{}", refusal.detail());
        refusal.detail()
    }

    #[test]
    fn what_was_sent_is_stored_to_the_letter_with_account_and_object() {
        let sent = concat!(
            r#"{"name":"rank","id":"a","trace_id":"t","start_timestamp":"2026-11-21T09:03:54.911208123+01:00","#,
            r#""input":{"big":12345678901234567890123,"z":1.10,"a":[ 1 ]},"status":"ERROR","type":"CUSTOM","#,
            r#""parent_id":"p","obs_trace_id":"0af7651916cd43dd8448eb211c80319c""#
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
        assert_eq!(refusal("input", Value::Null, 422), "items[3].input must be a JSON object");
    }

    #[test]
    fn a_field_at_fault_is_named_with_the_index_of_its_item() {
        let long_in_bytes = "é".repeat(129);
        let long = "é".repeat(257);
        let no_time = "must be an RFC 3339 time with an offset";
        for (field, value, reason, status) in [
            ("name", json!(""), "must not be empty", 422),
            ("name", json!({"secret": 1}), "must be a string", 422),
            ("id", json!(long), "is over 256 characters long", 422),
            ("id", json!(long_in_bytes), "is over 256 bytes long", 400),
            ("id", json!("a\0b"), "must not hold a NUL byte", 400),
            ("id", json!(7), "must be a string", 422),
            ("trace_id", json!(long_in_bytes), "is over 256 bytes long", 400),
            ("trace_id", json!(""), "must not be empty", 422),
            ("parent_id", json!("a\0b"), "must not hold a NUL byte", 400),
            ("group_id", json!(long), "is over 256 characters long", 422),
            ("start_timestamp", json!("secret"), no_time, 422),
            ("start_timestamp", json!(1), "must be a string", 422),
            ("end_timestamp", json!("2026-11-21T08:03:54"), no_time, 422),
            (
                "end_timestamp",
                json!("2026-11-21T08:03:54Z"),
                "must not be before start_timestamp",
                422,
            ),
            ("status", json!("secret"), "must be SUCCESS, ERROR or CANCELED", 422),
            ("type", json!("secret"), "is not a span type of SGP", 422),
            ("input", json!("secret"), "must be a JSON object", 422),
            ("output", json!(["secret"]), "must be a JSON object", 422),
            ("metadata", json!(1), "must be a JSON object", 422),
            ("expected", json!(true), "must be a JSON object", 422),
            ("application_variant_id", json!(["secret"]), "must be a string", 422),
            ("obs_trace_id", json!("secret"), "must be 32 lowercase hex characters", 422),
            ("obs_span_id", json!("00F067AA0BA902B7"), "must be 16 lowercase hex characters", 422),
            ("obs_span_id", json!("00f067aa0ba902b7"), "must come with obs_trace_id", 422),
        ] {
            assert_eq!(refusal(field, value, status), format!("items[3].{field} {reason}"));
        }
    }

    #[test]
    fn a_nul_byte_in_a_name_is_replaced_and_credentials_are_not_stored() {
        let mut item = item();
        item["name"] = "a\0b".into();
        item["metadata"] = json!({"password": "hunter2", "usage": {"input_tokens": 5}});
        let body = json!({ "items": [item] }).to_string();
        let records = parse(body.as_bytes(), "acc").unwrap();
        assert_eq!(records[0].name, "a\u{fffd}b");
        let stored: Value = serde_json::from_str(&records[0].body).unwrap();
        assert_eq!(stored["name"], "a\u{fffd}b");
        assert_eq!(stored["metadata"]["password"], "[REDACTED:credential]");
        assert_eq!(stored["input_tokens"], 5);
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
