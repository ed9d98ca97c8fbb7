//! Looks into spans: for what SQL and the index of words cannot judge.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

use crate::search::{filters::Filters, terms::Terms};

/// The parts of a stored span that a search may look into.
#[derive(Deserialize)]
pub(crate) struct Content<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    trace_id: Cow<'a, str>,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
    #[serde(borrow, default)]
    output: Option<&'a RawValue>,
    #[serde(borrow, default)]
    metadata: Option<&'a RawValue>,
}

impl<'a> Content<'a> {
    pub(crate) fn read(body: &'a str) -> serde_json::Result<Self> {
        serde_json::from_str(body)
    }

    /// Whether the texts and metadata are what the filters ask for.
    pub(crate) fn matches(&self, filters: &Filters) -> bool {
        self.matches_metadata(filters) && self.matches_terms(&filters.terms)
    }

    /// The input, the output and the metadata as text.
    pub(crate) fn texts(&self) -> [String; 3] {
        [self.input, self.output, self.metadata].map(|value| value.map_or_else(String::new, text))
    }

    fn matches_metadata(&self, filters: &Filters) -> bool {
        if filters.metadata.is_empty() {
            return true;
        }
        let metadata = self.metadata.and_then(|metadata| serde_json::from_str(metadata.get()).ok());
        let metadata: Map<String, Value> = metadata.unwrap_or_default();
        filters.metadata.iter().all(|condition| condition.matches(&metadata))
    }

    /// All texts, each in any part, or else one of the traces.
    fn matches_terms(&self, Terms { texts, trace_ids }: &Terms) -> bool {
        if trace_ids.iter().any(|id| *id == self.trace_id) {
            return true;
        }
        if texts.is_empty() {
            return trace_ids.is_empty();
        }
        let mut values = None;
        texts.iter().all(|term| {
            term.matches_name(&self.name)
                || values
                    .get_or_insert_with(|| self.texts().map(|value| value.to_lowercase()))
                    .iter()
                    .any(|value| term.matches_value(value))
        })
    }
}

impl Filters {
    /// Whether SQL alone can tell which spans match.
    pub(crate) fn looks_inside(&self) -> bool {
        !self.terms.texts.is_empty() || !self.metadata.is_empty()
    }
}

/// The keys and values of a JSON value, one to a line, without JSON's escapes: what a person reads.
fn text(value: &RawValue) -> String {
    let mut text = String::with_capacity(value.get().len());
    if let Ok(value) = serde_json::from_str(value.get()) {
        write_text(&value, &mut text);
    }
    text
}

/// No deeper than JSON that was read.
fn write_text(value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                text.push_str(name);
                text.push('\n');
                write_text(value, text);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| write_text(item, text)),
        Value::String(string) => {
            text.push_str(string);
            text.push('\n');
        }
        scalar => {
            text.push_str(&scalar.to_string());
            text.push('\n');
        }
    }
}
