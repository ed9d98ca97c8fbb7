use serde::Serialize;
use serde_json::{Map, Value};

use crate::{Span, data::Usage, to_json};

/// Where SGP's processor puts what OpenAI's SDK says.
pub(super) const OPENAI: &str = "openai_metadata";

/// What SGP's processor writes for the types that OpenAI's SDK sends as custom ones.
pub(super) const SDK_TYPE: &str = "sdk_span_type";

/// The part of a span that a type writes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fields {
    input: Map<String, Value>,
    output: Map<String, Value>,
    metadata: Map<String, Value>,
    usage: Option<Usage>,
    /// Within the metadata, where the fields of the type are.
    place: &'static [&'static str],
}

impl Fields {
    /// A type that OpenAI's SDK sends as such.
    pub(super) fn openai(kind: &'static str) -> Self {
        Self::at(&[OPENAI]).field("type", kind)
    }

    /// A type that OpenAI's SDK sends as a custom one with its own name.
    pub(super) fn openai_custom(kind: &'static str) -> Self {
        let outer = Self::at(&[OPENAI]).field("type", "custom").field("name", kind);
        Self { place: &[OPENAI, "data"], ..outer }.field(SDK_TYPE, kind)
    }

    /// A type of SGP alone, with its fields in the metadata itself.
    pub(super) fn sgp() -> Self {
        Self::at(&[])
    }

    fn at(place: &'static [&'static str]) -> Self {
        let empty = Map::new;
        Self { input: empty(), output: empty(), metadata: empty(), usage: None, place }
    }

    pub(super) fn field(mut self, name: &str, value: impl Serialize) -> Self {
        let place = self.place.iter().fold(&mut self.metadata, |at, name| object(at, name));
        place.insert(name.to_owned(), to_json(value));
        self
    }

    /// An entry of an object.
    pub(super) fn entry(mut self, of: &str, name: &str, value: impl Serialize) -> Self {
        let place = self.place.iter().fold(&mut self.metadata, |at, name| object(at, name));
        object(place, of).insert(name.to_owned(), to_json(value));
        self
    }

    pub(super) fn usage(mut self, usage: Usage) -> Self {
        self.usage = Some(usage);
        self
    }

    /// Nothing, as `None` or `()`, is not written.
    pub(super) fn input(mut self, name: &str, value: impl Serialize) -> Self {
        put(&mut self.input, name, to_json(value));
        self
    }

    /// See [`Self::input`].
    pub(super) fn output(mut self, name: &str, value: impl Serialize) -> Self {
        put(&mut self.output, name, to_json(value));
        self
    }

    /// An object is the input itself, as arguments by name are; anything else is as in
    /// [`Self::input`].
    pub(super) fn arguments(mut self, value: impl Serialize) -> Self {
        put_parsed(&mut self.input, "input", to_json(value));
        self
    }

    /// The same for the output.
    pub(super) fn result(mut self, value: impl Serialize) -> Self {
        put_parsed(&mut self.output, "output", to_json(value));
        self
    }

    pub(super) fn write_to(self, span: &mut Span) {
        span.input.extend(self.input);
        span.output.extend(self.output);
        // Noted before it was known where the type has it.
        let is_first = self.metadata.contains_key(OPENAI) && !is_openai(span);
        let noted = if is_first { span.metadata.remove("usage") } else { None };
        for (name, value) in self.metadata {
            put_merged(span.metadata.get_or_null(&name), value);
        }
        if let Some(Value::Object(noted)) = noted {
            merge(usage_place(span), noted);
        }
        if let Some(usage) = self.usage {
            usage.write_to(span);
        }
    }
}

fn is_openai(span: &Span) -> bool {
    span.metadata.get(OPENAI).is_some_and(Value::is_object)
}

/// The object with the usage of a span, wherever the type of the span has it.
pub(super) fn usage_place(span: &mut Span) -> &mut Map<String, Value> {
    let is_custom = |data: Option<&Value>| data.is_some_and(|data| data.get(SDK_TYPE).is_some());
    let outer = if is_openai(span) {
        let openai = as_object(span.metadata.get_or_null(OPENAI));
        if is_custom(openai.get("data")) { object(openai, "data") } else { openai }
    } else if is_custom(span.metadata.get("data")) {
        as_object(span.metadata.get_or_null("data"))
    } else {
        return as_object(span.metadata.get_or_null("usage"));
    };
    object(outer, "usage")
}

/// Objects by name, at any depth; anything else is replaced.
pub(super) fn merge(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (name, value) in from {
        put_merged(into.entry(name).or_insert(Value::Null), value);
    }
}

fn put_merged(into: &mut Value, value: Value) {
    match (into, value) {
        (Value::Object(into), Value::Object(from)) => merge(into, from),
        (into, value) => *into = value,
    }
}

/// The object of that name, which takes the place of whatever else has it.
pub(super) fn object<'a>(of: &'a mut Map<String, Value>, name: &str) -> &'a mut Map<String, Value> {
    as_object(of.entry(name).or_insert(Value::Null))
}

/// The object that the value is, in the place of whatever else it was.
pub(crate) fn as_object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(object) => object,
        _ => unreachable!("made one above"),
    }
}

fn put(into: &mut Map<String, Value>, name: &str, value: Value) {
    if !value.is_null() {
        into.insert(name.to_owned(), value);
    }
}

fn put_parsed(into: &mut Map<String, Value>, name: &str, value: Value) {
    let value = match value {
        Value::String(text) => serde_json::from_str(&text).unwrap_or(Value::String(text)),
        value => value,
    };
    match value {
        Value::Object(values) => into.extend(values),
        value => put(into, name, value),
    }
}
