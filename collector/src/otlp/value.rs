//! Values of OpenTelemetry as JSON.

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use serde_json::{Map, Value};

pub(super) fn map(attributes: Vec<KeyValue>) -> Map<String, Value> {
    attributes.into_iter().map(|KeyValue { key, value, .. }| (key, json(value))).collect()
}

fn json(value: Option<AnyValue>) -> Value {
    match value.and_then(|value| value.value) {
        None | Some(any_value::Value::StringValueStrindex(_)) => Value::Null,
        Some(any_value::Value::StringValue(text)) => text.into(),
        Some(any_value::Value::BoolValue(flag)) => flag.into(),
        Some(any_value::Value::IntValue(number)) => number.into(),
        // JSON has no infinity.
        Some(any_value::Value::DoubleValue(number)) if !number.is_finite() => {
            number.to_string().into()
        }
        Some(any_value::Value::DoubleValue(number)) => number.into(),
        Some(any_value::Value::ArrayValue(array)) => {
            array.values.into_iter().map(|value| json(Some(value))).collect()
        }
        Some(any_value::Value::KvlistValue(list)) => map(list.values).into(),
        Some(any_value::Value::BytesValue(bytes)) => hex(&bytes).into(),
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
