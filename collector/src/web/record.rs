use std::borrow::Cow;

use durable_spans_model::data;
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

/// A stored span as the page reads it: inputs and outputs stay text, which is most of the bytes.
#[derive(Debug, Deserialize)]
pub(crate) struct Record<'a> {
    #[serde(borrow)]
    pub(crate) name: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) id: Cow<'a, str>,
    pub(crate) parent_id: Option<String>,
    pub(crate) group_id: Option<String>,
    pub(crate) status: Option<String>,
    #[serde(rename = "type")]
    pub(crate) span_type: Option<String>,
    #[serde(borrow)]
    pub(crate) input: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(crate) output: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(crate) expected: Option<&'a RawValue>,
    #[serde(default)]
    pub(crate) metadata: Map<String, Value>,
}

/// Tokens and money, as far as a span tells them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    pub(crate) tokens: u64,
    /// In US dollars. A cost in another currency is in the metadata alone: it cannot be added.
    pub(crate) cost: f64,
}

impl Usage {
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl<'a> Record<'a> {
    /// # Errors
    ///
    /// When the file was changed from outside: what is stored was checked before.
    pub(crate) fn parse(body: &'a str) -> serde_json::Result<Self> {
        serde_json::from_str(body)
    }

    /// The status on the wire; a span that names none has the default.
    pub(crate) fn status(&self) -> &str {
        self.status.as_deref().unwrap_or("SUCCESS")
    }

    pub(crate) fn span_type(&self) -> &str {
        self.span_type.as_deref().unwrap_or("STANDALONE")
    }

    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.metadata.get(key)?.as_str()
    }

    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        self.metadata.get(key)?.as_u64()
    }

    /// Spans that the run did not deliver, whatever the reason: they are counted by reason.
    pub(crate) fn dropped(&self) -> u64 {
        let by_reason = self.metadata.get("durable_spans.dropped").and_then(Value::as_object);
        by_reason.map_or(0, |reasons| reasons.values().filter_map(Value::as_u64).sum())
    }

    pub(crate) fn is(&self, key: &str) -> bool {
        self.metadata.get(key) == Some(&Value::Bool(true))
    }

    pub(crate) fn kind(&self) -> Option<&str> {
        self.text("temporal.kind")
    }

    /// A value of the metadata: by its very key, else by a path of keys with dots between.
    pub(crate) fn find(&self, key: &str) -> Option<&Value> {
        if let Some(value) = self.metadata.get(key) {
            return Some(value);
        }
        let (first, rest) = key.split_once('.')?;
        rest.split('.').try_fold(self.metadata.get(first)?, |value, name| value.get(name))
    }

    /// The texts of `tags`.
    pub(crate) fn tags(&self) -> impl Iterator<Item = &str> {
        let tags = self.metadata.get("tags").and_then(Value::as_array);
        tags.into_iter().flatten().filter_map(Value::as_str)
    }

    /// The language model that was asked.
    pub(crate) fn model(&self) -> Option<&str> {
        let of_openai = self.metadata.get("openai_metadata").and_then(|data| data.get("model"));
        let names = ["model", "gen_ai.request.model", "llm.model_name"];
        of_openai.and_then(Value::as_str).or_else(|| names.iter().find_map(|name| self.text(name)))
    }

    /// What the span reports, see [`data::Usage::reported`]. Outputs are read only if they might.
    pub(crate) fn usage(&self) -> Usage {
        let output = self.output.map(RawValue::get).filter(|text| text.contains("\"usage\""));
        let output = output.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let usage = data::Usage::reported(&output, &self.metadata);
        Usage {
            tokens: usage.total_tokens().unwrap_or(0),
            cost: usage.cost_in_usd().unwrap_or(0.0),
        }
    }

    /// Whether a text occurs in what the sender wrote: ids, name, input, output, metadata.
    pub(crate) fn contains(&self, needle: &Needle) -> bool {
        let raw = [self.input, self.output, self.expected];
        needle.is_in(&self.name)
            || needle.is_in(&self.id)
            || raw.into_iter().flatten().any(|text| needle.is_in_json(text.get()))
            || self
                .metadata
                .iter()
                .any(|(key, value)| needle.is_in(key) || needle.is_in_json(&value.to_string()))
    }
}

/// A text to look for, whatever its case, in plain text and in JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Needle {
    plain: String,
    /// As JSON writes it, with as few escapes as possible and with ASCII only.
    json: [String; 2],
}

impl Needle {
    pub(crate) fn new(text: &str) -> Self {
        let plain = text.to_lowercase();
        let quoted = Value::from(plain.as_str()).to_string();
        let escaped = quoted[1..quoted.len() - 1].to_owned();
        let mut ascii = String::new();
        for c in escaped.chars() {
            if c.is_ascii() {
                ascii.push(c);
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    ascii.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
        Self { plain, json: [escaped, ascii] }
    }

    pub(crate) fn is_in(&self, text: &str) -> bool {
        text.to_lowercase().contains(&self.plain)
    }

    /// Looks into the text of JSON, so that most of what does not hold it need not be parsed.
    pub(crate) fn is_in_json(&self, json: &str) -> bool {
        // Much faster, and most texts that are looked for are ASCII.
        if self.plain.is_ascii() {
            return json.to_ascii_lowercase().contains(&self.json[0]);
        }
        let json = json.to_lowercase();
        self.json.iter().any(|needle| json.contains(needle))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use durable_spans_model::{Span, SpanId, Timestamp, TraceId};
    use serde_json::json;

    fn usage(fields: Value) -> (u64, f64) {
        let mut span = json!({"name": "n", "id": "i"});
        span.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let body = span.to_string();
        let usage = Record::parse(&body).unwrap().usage();
        (usage.tokens, usage.cost)
    }

    #[test]
    fn usage_is_found_where_the_common_senders_put_it() {
        let of = |metadata: Value| usage(json!({ "metadata": metadata }));
        assert_eq!(of(json!({"usage": {"prompt_tokens": 3, "completion_tokens": 4}})), (7, 0.0));
        assert_eq!(of(json!({"usage": {"total_tokens": 9, "cost": 0.5}})), (9, 0.5));
        let openai = json!({"openai_metadata": {"usage": {"input_tokens": 3, "output_tokens": 4}}});
        assert_eq!(of(openai), (7, 0.0));
        let otel = json!({"gen_ai.usage.input_tokens": 1, "gen_ai.usage.output_tokens": 2});
        assert_eq!(of(otel), (3, 0.0));
        assert_eq!(of(json!({"cost_usd": 0.25})), (0, 0.25));
        let euros = json!({"usage": {"total_tokens": 9, "cost": 0.5, "currency": "EUR"}});
        assert_eq!(of(euros), (9, 0.0));
        let output = json!({"usage": {"input_tokens": 5, "output_tokens": 1}});
        assert_eq!(usage(json!({ "output": output })), (6, 0.0));
        for nothing in [json!({"usage": "much"}), json!({"usage": {"tokens": -3}}), json!({})] {
            assert_eq!(of(nothing), (0, 0.0));
        }
    }

    #[test]
    fn typed_spans_have_the_usage_that_was_set() {
        let used = || data::Usage::new(12, 34).cost_usd(0.0012);
        let of = |set: fn(&mut Span, data::Usage)| {
            let start = Timestamp::from_unix_ns(0);
            let mut span = Span::new(TraceId::from_bits(1), SpanId::from_bits(2), "n", start);
            set(&mut span, used());
            let body = serde_json::to_string(&span).unwrap();
            let usage = Record::parse(&body).unwrap().usage();
            (usage.tokens, usage.cost)
        };
        assert_eq!(of(|span, usage| span.set_usage(usage)), (46, 0.0012));
        assert_eq!(of(|span, usage| span.set(data::Task::new("t").usage(usage))), (46, 0.0012));
        let generation = |span: &mut Span, usage| span.set(data::Generation::new("m").usage(usage));
        assert_eq!(of(generation), (46, 0.0012));
    }

    #[test]
    fn a_text_is_found_whatever_its_case_and_however_json_writes_it() {
        let body = r#"{"name":"Rank","id":"i","input":{"city":"Z\u00fcrich","say":"\"Hi\""},
            "output":{"straße":"Ünder 🦀"},"metadata":{"tenant":"ACME \ud83e\udd80"}}"#;
        let record = Record::parse(body).unwrap();
        for text in
            ["rank", "zürich", "ZÜRICH", "\"hi\"", "ünder", "acme", "tenant", "🦀", "straße"]
        {
            assert!(record.contains(&Needle::new(text)), "{text}");
        }
        assert!(!record.contains(&Needle::new("parent_id")));
    }

    #[test]
    fn a_key_with_dots_is_a_key_first_and_a_path_next() {
        let body = r#"{"name":"n","id":"i","metadata":{"a.b":1,"a":{"b":2,"c":{"d":3}}}}"#;
        let record = Record::parse(body).unwrap();
        assert_eq!(record.find("a.b"), Some(&1.into()));
        assert_eq!(record.find("a.c.d"), Some(&3.into()));
        assert_eq!((record.find("a.x"), record.find("x")), (None, None));
    }
}
