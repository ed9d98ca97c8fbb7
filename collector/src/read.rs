//! Reads objects from JSON, with refusals that name the field at fault and never its content.

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, error::Category, value::RawValue};

use crate::refusal::Refusal;

/// Reads the body of a request that is one object.
pub(crate) fn body<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Refusal> {
    let text: &RawValue = serde_json::from_slice(body).map_err(|error| malformed(&error))?;
    object(text)
}

/// Reads the body of a request that is one object of whatever fields, none if it is empty.
pub(crate) fn fields(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    if body.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(Refusal::invalid("body", "must be an object")),
        Err(error) => Err(malformed(&error)),
    }
}

/// Reads an object. The refusal names fields only, not the place of the object.
pub(crate) fn object<'a, T: Deserialize<'a>>(text: &'a RawValue) -> Result<T, Refusal> {
    // Serde would also read a struct from an array, by position.
    if !text.get().starts_with('{') {
        return Err(Refusal::invalid("", "must be an object"));
    }
    serde_json::from_str(text.get()).map_err(|_| explain::<T>(text.get()))
}

pub(crate) fn malformed(error: &serde_json::Error) -> Refusal {
    Refusal::of_field(StatusCode::BAD_REQUEST, "body", &format!("is not valid JSON: {error}"))
}

pub(crate) fn is_missing(error: &serde_json::Error) -> bool {
    named_in(error, "missing field `").is_some()
}

/// Says which field could not be read. Reads a second time, because keeping track of the path is
/// not for free and most objects are fine.
fn explain<'a, T: Deserialize<'a>>(text: &'a str) -> Refusal {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let Err(error) = serde_path_to_error::deserialize::<_, T>(&mut deserializer) else {
        return Refusal::invalid("", "cannot be read");
    };
    let path = error.path().to_string();
    let error = error.into_inner();
    if let Some(name) = named_in(&error, "missing field `") {
        return Refusal::invalid(name, "is missing");
    }
    if let Some(name) = named_in(&error, "duplicate field `") {
        return Refusal::invalid(name, "must not be given twice");
    }
    let field = if path == "." { "" } else { &path };
    match error.classify() {
        // Serde's own message would quote the value.
        Category::Data if error.to_string().contains("expected a string") => {
            Refusal::invalid(field, "must be a string")
        }
        Category::Data => Refusal::invalid(field, "is of the wrong type"),
        _ => Refusal::invalid(field, &format!("is not valid JSON text: {error}")),
    }
}

fn named_in(error: &serde_json::Error, before: &str) -> Option<String> {
    let message = error.to_string();
    Some(message.strip_prefix(before)?.split('`').next()?.to_owned())
}
