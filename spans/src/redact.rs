//! Takes credentials out of spans: what looks like one, and what has the name of one.
//!
//! ```
//! use durable_spans_model::redact;
//! use serde_json::json;
//!
//! let mut value = json!({"user": "ada", "password": "hunter2"});
//! assert!(redact::value(&mut value));
//! assert_eq!(value, json!({"user": "ada", "password": "[REDACTED:credential]"}));
//! ```

use std::{borrow::Cow, fmt, sync::LazyLock};

use aho_corasick::packed::Searcher;
use regex::{Captures, Regex};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Map, Value, value::RawValue};

use crate::Span;

/// What stands where a credential stood.
pub const MARK: &str = "[REDACTED:credential]";

/// Text that is a credential, wherever it stands. What belongs to the groups stays.
static SHAPES: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r#"(?x)
        (?<scheme> \b(?i:bearer)\s+ ) [A-Za-z0-9._~+/=-]{16,}          # an Authorization header
        | \beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}                         # a JSON web token
        | \bsk-[A-Za-z0-9_-]{20,}                                      # OpenAI, Anthropic
        | \b[rs]k_(?:live|test)_[A-Za-z0-9]{16,}                       # Stripe
        | \b(?:AKIA|ASIA)[A-Z0-9]{16}\b                                # AWS
        | \bAIza[\w-]{35}                                              # Google
        | \bgh[opsur]_[A-Za-z0-9]{36,} | \bgithub_pat_\w{22,}          # GitHub
        | \bglpat-[\w-]{20,}                                           # GitLab
        | \bxox[abeoprs]-[A-Za-z0-9-]{10,}                             # Slack
        | \bhf_[A-Za-z0-9]{30,}                                        # Hugging Face
        | \bnpm_[A-Za-z0-9]{36}                                        # npm
        | -----BEGIN\ [A-Z\ ]*PRIVATE\ KEY-----[\s\S]*?(?:-----END\ [A-Z\ ]*PRIVATE\ KEY-----|\z)
        | (?<url> \b[a-z][a-z0-9+.-]*://[^\s:/?\#@"']*: ) [^\s/?\#@"']+ (?<host> @ )
        | (?<setting> \b(?i:password|passwd|pwd)= ) [^\s;&,"'\[]+      # in a connection string
        "#,
    )
});

/// Names of fields that hold credentials, in lower case without dashes and underscores.
static NAMES: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?x)
        (?: password | passwd | passphrase | apikey | apitoken | secret | secretkey | accesskey
          | accesskeyid | privatekey | signingkey | encryptionkey | accesstoken | refreshtoken
          | authtoken | bearertoken | sessiontoken | securitytoken | credentials? | authorization
          | connectionstring ) $
        | ^ (?: idtoken | pwd | cookie | setcookie | jwt ) $",
    )
});

/// How the [`NAMES`] end.
const ENDINGS: [[u8; 2]; 13] = [
    *b"rd", *b"wd", *b"se", *b"ey", *b"id", *b"en", *b"et", *b"al", *b"ls", *b"on", *b"ng", *b"ie",
    *b"wt",
];

/// Whether a text, or JSON as text, may hold anything to redact. It errs on the safe side and is fast: nearly all
/// spans hold no credential, and need not be taken apart to find out. An escape may hide anything.
#[expect(clippy::expect_used, reason = "a constant, and every test uses it")]
static SUSPICIOUS: LazyLock<regex::bytes::Regex> = LazyLock::new(|| {
    regex::bytes::Regex::new(
        r"(?xi-u)
        passw | passphrase | pwd | api[-_.\ ]?key | secret | access[-_.\ ]?key | private[-_.\ ]?key
        | encryption[-_.\ ]?key | signing[-_.\ ]?key | encryption[-_.\ ]?key | private\ key | credential | authorization
        | connection[-_.\ ]?string | cookie | jwt | bearer | eyj | sk- | [rs]k_ | akia | asia | aiza
        | (?:access|api|auth|id|refresh|session|security)[-_.\ ]?token
        | gh[opsur]_ | github_pat | glpat | xox | hf_ | npm_ | ://[^\s/?\#@]*: | \\u",
    )
    .expect("a pattern of ours")
});

#[expect(clippy::expect_used, reason = "the patterns are constants, and every test uses them")]
fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a pattern of ours")
}

/// A part of each of the [`SHAPES`]: what holds none of these holds no credential.
const PARTS: [&str; 25] = [
    "earer",
    "EARER",
    "eyJ",
    "sk-",
    "k_live",
    "k_test",
    "AKIA",
    "ASIA",
    "AIza",
    "gho_",
    "ghp_",
    "ghs_",
    "ghu_",
    "ghr_",
    "github_pat",
    "glpat-",
    "xox",
    "hf_",
    "npm_",
    "PRIVATE KEY",
    "://",
    "wd=",
    "WD=",
    "ord=",
    "ORD=",
];

/// Finds [`PARTS`] at gigabytes a second, since every text that is recorded is searched. There is none
/// for some processors.
static PARTS_SEARCHER: LazyLock<Option<Searcher>> = LazyLock::new(|| Searcher::new(PARTS));

fn may_hold_a_credential(text: &str) -> bool {
    match &*PARTS_SEARCHER {
        Some(searcher) => searcher.find(text).is_some(),
        None => SUSPICIOUS.is_match(text.as_bytes()),
    }
}

/// The text without its credentials, if it holds any.
pub fn text(text: &str) -> Option<String> {
    if !may_hold_a_credential(text) {
        return None;
    }
    let redacted = SHAPES.replace_all(text, |found: &Captures<'_>| {
        let group = |name| found.name(name).map_or("", |group| group.as_str());
        let before = ["scheme", "url", "setting"].map(group).concat();
        format!("{before}{MARK}{}", group("host"))
    });
    match redacted {
        Cow::Borrowed(_) => None,
        Cow::Owned(redacted) => Some(redacted),
    }
}

/// The value without its credentials, if it holds any. The rest stays to the letter.
pub fn raw(value: &RawValue) -> Option<Box<RawValue>> {
    if !SUSPICIOUS.is_match(value.get().as_bytes()) {
        return None;
    }
    let mut redacted = String::with_capacity(value.get().len());
    let found = write_redacted(value, &mut redacted).ok()?;
    if found { RawValue::from_string(redacted).ok() } else { None }
}

/// Takes the credentials out of a value, and says whether it held any.
pub fn value(value: &mut Value) -> bool {
    match value {
        Value::String(text) => match self::text(text) {
            Some(redacted) => {
                *text = redacted;
                true
            }
            None => false,
        },
        Value::Array(values) => {
            values.iter_mut().fold(false, |found, value| self::value(value) | found)
        }
        Value::Object(values) => object(values),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Takes the credentials out of an object, and says whether it held any.
pub fn object(values: &mut Map<String, Value>) -> bool {
    values.iter_mut().fold(false, |found, (name, value)| field(name, value) | found)
}

/// Takes the credentials out of a named value, and says whether it held any.
fn field(name: &str, value: &mut Value) -> bool {
    if names_a_credential(name) && holds_content(value) {
        *value = MARK.into();
        return true;
    }
    self::value(value)
}

/// Takes the credentials out of a span's name, input, output and metadata. A name that stands in the
/// program as it is holds none.
pub fn span(span: &mut Span) {
    if let Cow::Owned(name) = &span.name
        && let Some(redacted) = text(name)
    {
        span.name = redacted.into();
    }
    for values in [&mut span.input, &mut span.output, &mut span.metadata] {
        for (name, value) in values.iter_mut() {
            field(name, value);
        }
    }
}

/// Appends the value without its credentials, and says whether it held any. The value was read to
/// the bottom before, so that it is not too deep.
fn write_redacted(value: &RawValue, to: &mut String) -> serde_json::Result<bool> {
    let text = value.get();
    let mut found = false;
    match text.as_bytes().first() {
        Some(b'{') => {
            let Entries(entries) = serde_json::from_str(text)?;
            to.push('{');
            for (n, (name, value)) in entries.into_iter().enumerate() {
                to.push_str(if n == 0 { "" } else { "," });
                to.push_str(&serde_json::to_string(&name)?);
                to.push(':');
                if names_a_credential(&name) && is_content(value) {
                    found = true;
                    to.push_str(&serde_json::to_string(MARK)?);
                } else {
                    found |= write_redacted(value, to)?;
                }
            }
            to.push('}');
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text)?;
            to.push('[');
            for (n, item) in items.into_iter().enumerate() {
                to.push_str(if n == 0 { "" } else { "," });
                found |= write_redacted(item, to)?;
            }
            to.push(']');
        }
        Some(b'"') => match self::text(&serde_json::from_str::<Cow<'_, str>>(text)?) {
            Some(redacted) => {
                found = true;
                to.push_str(&serde_json::to_string(&redacted)?);
            }
            None => to.push_str(text),
        },
        _ => to.push_str(text),
    }
    Ok(found)
}

fn names_a_credential(name: &str) -> bool {
    if !ends_like_a_credential(name) {
        return false;
    }
    if !SUSPICIOUS.is_match(name.as_bytes()) {
        return false;
    }
    let plain = name.chars().filter(|c| !matches!(c, '-' | '_' | ' ' | '.'));
    NAMES.is_match(&plain.collect::<String>().to_lowercase())
}

/// Whether the last two letters are those of one of the [`NAMES`]: nearly all other names end with others.
fn ends_like_a_credential(name: &str) -> bool {
    let mut letters =
        name.bytes().rev().filter(u8::is_ascii_alphabetic).map(|letter| letter | 0x20);
    let (Some(last), Some(before)) = (letters.next(), letters.next()) else { return false };
    ENDINGS.contains(&[before, last])
}

fn holds_content(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) => false,
        Value::Number(_) => true,
        // What was redacted already says so in its own way.
        Value::String(text) => !text.is_empty() && !text.starts_with("[REDACTED"),
        Value::Array(values) => !values.is_empty(),
        Value::Object(values) => !values.is_empty(),
    }
}

/// Whether there is anything to hide: that a password is required or missing is no secret.
fn is_content(value: &RawValue) -> bool {
    !matches!(value.get(), "null" | "true" | "false" | "\"\"" | "{}" | "[]")
}

/// The entries of an object in their order, the values as they stand.
struct Entries<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;

        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(EntriesVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// Put together here, so that no scanner takes this file for a leak.
    fn credential(parts: &[&str]) -> String {
        parts.concat()
    }

    /// By both ways, which agree.
    fn redacted(mut value: Value) -> Value {
        let text = RawValue::from_string(value.to_string()).unwrap();
        let of_text = raw(&text).map(|raw| serde_json::from_str(raw.get()).unwrap());
        assert_eq!(super::value(&mut value), of_text.is_some(), "{value}");
        assert_eq!(of_text.unwrap_or_else(|| value.clone()), value);
        value
    }

    #[test]
    fn what_looks_like_a_credential_is_replaced_and_the_text_around_it_stays() {
        let letters = "abcdefghij0123456789abcdefghij0123456789";
        for (before, secret, after) in [
            ("Authorization: Bearer ", credential(&["abc.", letters]), ", Accept: */*"),
            ("jwt ", credential(&["ey", "JhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.", letters]), " ok"),
            ("key ", credential(&["sk", "-proj-", letters]), "."),
            ("key ", credential(&["sk", "-ant-", letters]), "."),
            ("", credential(&["sk", "_live_", letters]), ""),
            ("id=", credential(&["AK", "IAIOSFODNN7EXAMPLE"]), " "),
            ("", credential(&["AI", "za", &letters[..35]]), ""),
            ("", credential(&["gh", "p_", letters]), ""),
            ("", credential(&["github", "_pat_", letters]), ""),
            ("", credential(&["gl", "pat-", letters]), ""),
            ("", credential(&["xo", "xb-12345-", letters]), ""),
            ("", credential(&["hf", "_", letters]), ""),
            ("postgres://app:", "p:w%20d".to_owned(), "@db/orders"),
            ("redis://:", "hunter2".to_owned(), "@cache:6379"),
            ("Server=db;Password=", "hunter2".to_owned(), ";Timeout=3"),
        ] {
            let input = format!("{before}{secret}{after}");
            let expected = format!("{before}{MARK}{after}");
            assert_eq!(text(&input), Some(expected.clone()), "{input}");
            assert_eq!(redacted(json!({"a": [{"b": input}]})), json!({"a": [{"b": expected}]}));
            // What was redacted stays as it is.
            assert_eq!(text(&expected).unwrap_or(expected.clone()), expected);
        }
        let key = credential(&[
            "-----BEGIN RSA PRIVATE",
            " KEY-----\nMII\n-----END RSA PRIVATE KEY-----",
        ]);
        assert_eq!(redacted(json!({"pem": key})), json!({"pem": MARK}));
    }

    #[test]
    fn what_is_named_like_a_credential_is_replaced() {
        for name in [
            "password",
            "dbPassword",
            "PASSWD",
            "api_key",
            "x-api-key",
            "OPENAI_API_KEY",
            "secret",
            "client_secret",
            "aws_secret_access_key",
            "accessToken",
            "refresh_token",
            "id_token",
            "Authorization",
            "private_key",
            "encryption.key",
            "Api Key",
            "credentials",
            "Set-Cookie",
            "connection_string",
        ] {
            for value in [json!("hunter2"), json!(12345), json!({"user": "u"}), json!(["a"])] {
                assert_eq!(redacted(json!({name: value, "n": 1})), json!({name: MARK, "n": 1}));
            }
            for nothing in [json!(null), json!(true), json!(""), json!({}), json!([])] {
                assert_eq!(redacted(json!({name: nothing})), json!({name: nothing}));
            }
        }
    }

    #[test]
    fn the_rest_of_an_object_stays_to_the_letter() {
        let value =
            r#"{ "z":1.10, "password":"x","a":[12345678901234567890123 , 1e2],"s":"\u00e9"}"#;
        let value = RawValue::from_string(value.to_owned()).unwrap();
        assert_eq!(
            raw(&value).unwrap().get(),
            format!(
                r#"{{"z":1.10,"password":"{MARK}","a":[12345678901234567890123,1e2],"s":"\u00e9"}}"#
            )
        );
    }

    #[test]
    fn what_language_models_and_people_write_is_left_alone() {
        for value in [
            json!({"input_tokens": 7, "max_tokens": 100, "token": "Hello", "tokens": [1, 2]}),
            json!({"text": "the bearer of bad news forgot the password: it is secret"}),
            json!({"url": "https://example.com:8080/a@b?x=1:2@3", "time": "08:03@noon"}),
            json!({"id": "task-sk-1", "key": "value", "author": "x", "invalid_token": "x"}),
            json!({"path": "desk-abcdefghijklmnopqrstuvwxyz", "keyboard": "AKIA"}),
        ] {
            assert_eq!(redacted(value.clone()), value);
        }
    }

    #[test]
    fn escapes_hide_nothing() {
        let text = r#"{"p\u0061ssword":"hunter2"}"#;
        let text = RawValue::from_string(text.to_owned()).unwrap();
        assert!(!raw(&text).unwrap().get().contains("hunter2"));
    }
}
