//! What servers say.

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use serde_json::Value;

/// What the server says about a refusal. Of JSON only the fields that hold messages: others repeat
/// what was sent, and the content of spans does not belong into logs.
pub(super) fn reason(headers: &HeaderMap, answer: &[u8]) -> Option<String> {
    let content_type = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    if content_type.starts_with("text/plain") {
        return Some(String::from_utf8_lossy(answer).into_owned());
    }
    let answer: Value = serde_json::from_slice(answer).ok()?;
    ["detail", "message", "error"].iter().find_map(|field| message(answer.get(field)?))
}

fn message(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Object(_) => {
            ["message", "detail"].iter().find_map(|field| match value.get(field)? {
                Value::String(text) => Some(text.clone()),
                _ => None,
            })
        }
        Value::Array(errors) => {
            let errors: Vec<_> = errors.iter().filter_map(validation_error).collect();
            (!errors.is_empty()).then(|| errors.join("; "))
        }
        _ => None,
    }
}

/// One entry of the list that FastAPI answers with 422: `items.3.name: must not be empty`.
fn validation_error(error: &Value) -> Option<String> {
    let message = error.get("msg")?.as_str()?;
    let place = error.get("loc").and_then(Value::as_array).into_iter().flatten();
    let place: Vec<_> = place
        .filter(|step| *step != "body")
        .map(|step| step.as_str().map_or_else(|| step.to_string(), str::to_owned))
        .collect();
    Some(if place.is_empty() {
        message.to_owned()
    } else {
        format!("{}: {message}", place.join("."))
    })
}

/// `text` with each URL in it cut to scheme, host and path.
pub(super) fn shorten_urls(text: &str) -> String {
    let mut parts = text.split("://");
    let mut short = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c.is_whitespace() || "'\"`<>()".contains(c));
        let (url, rest) = part.split_at(end.unwrap_or(part.len()));
        let path = url.split(['?', '#']).next().unwrap_or_default();
        let host = path.split('/').next().unwrap_or_default();
        let user_info = host.rfind('@').map_or(0, |at| at + 1);
        short.push_str("://");
        short.push_str(&path[user_info..]);
        short.push_str(rest);
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(answer: &Value) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, "application/json".parse().unwrap());
        reason(&headers, answer.to_string().as_bytes())
    }

    #[test]
    fn the_message_of_a_server_is_found_in_its_usual_places() {
        let text = || Some("no".to_owned());
        assert_eq!(said(&json!({"detail": "no"})), text());
        assert_eq!(said(&json!({"message": "no", "status": 400})), text());
        assert_eq!(said(&json!({"error": "no"})), text());
        assert_eq!(said(&json!({"error": {"message": "no", "code": 1}})), text());
        assert_eq!(said(&json!({"detail": {"code": 1}, "message": "no"})), text());
        assert_eq!(said(&json!(["no"])), None);
    }

    #[test]
    fn a_validation_error_is_told_with_its_place_and_without_what_was_sent() {
        let answer = json!({"detail": [
            {"loc": ["body", "items", 3, "name"], "msg": "too short", "input": "private"},
            {"loc": [], "msg": "second", "ctx": {"given": "private"}},
            {"input": "private"},
        ]});
        assert_eq!(said(&answer).unwrap(), "items.3.name: too short; second");
        assert_eq!(said(&json!({"input": "private", "items": ["private"]})), None);
    }

    #[test]
    fn only_plain_text_is_repeated_as_it_is() {
        let of_type = |content_type: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
            reason(&headers, b"<p>no")
        };
        assert_eq!(of_type("text/plain; charset=utf-8").as_deref(), Some("<p>no"));
        assert_eq!(of_type("text/html"), None);
        assert_eq!(of_type("application/json"), None);
        assert_eq!(reason(&HeaderMap::new(), b"no"), None);
    }

    #[test]
    fn urls_lose_user_password_and_query() {
        let text = "see 'https://u:p@h:81/a@b?key=1#f' (http://k@h) or ftp://h/x?y, a://b";
        let short = "see 'https://h:81/a@b' (http://h) or ftp://h/x a://b";
        assert_eq!(shorten_urls(text), short);
        assert_eq!(shorten_urls("50 % at 10:00"), "50 % at 10:00");
    }
}
