use std::{
    borrow::Cow,
    fmt,
    ops::{Index, IndexMut},
};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
    ser::SerializeMap,
};
use serde_json::{Map, Value};

/// Named values of a span, in the order in which they came. Each name is there once.
///
/// Used like [`serde_json::Map`], and smaller: a span has few values, and a run keeps many spans.
///
/// ```
/// use durable_spans_model::Fields;
///
/// let mut fields = Fields::new();
/// fields.insert("answer".into(), 42.into());
/// assert_eq!(fields["answer"], 42);
/// assert_eq!(serde_json::to_string(&fields).unwrap(), r#"{"answer":42}"#);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Fields {
    entries: Vec<(Cow<'static, str>, Value)>,
}

impl Fields {
    /// No values.
    pub const fn new() -> Self {
        Self { entries: Vec::new() }
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Sets the value of that name, and returns the one that it had.
    pub fn insert(&mut self, name: Cow<'static, str>, value: Value) -> Option<Value> {
        match self.get_mut(&name) {
            Some(known) => Some(std::mem::replace(known, value)),
            None => {
                self.push(name, value);
                None
            }
        }
    }

    /// The value of that name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.entries.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// The value of that name, to be changed.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Value> {
        self.entries.iter_mut().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// The value of that name, which is null if there was none, to be changed.
    pub(crate) fn get_or_null(&mut self, name: &str) -> &mut Value {
        let place = self.entries.iter().position(|(known, _)| known == name);
        let place = place.unwrap_or_else(|| {
            self.push(name.to_owned().into(), Value::Null);
            self.entries.len() - 1
        });
        &mut self.entries[place].1
    }

    /// Whether there is a value of that name.
    pub fn contains_key(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Takes the value of that name out.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let place = self.entries.iter().position(|(known, _)| known == name)?;
        Some(self.entries.remove(place).1)
    }

    /// Takes out all values of which `keep` does not say that they stay.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &mut Value) -> bool) {
        self.entries.retain_mut(|(name, value)| keep(name, value));
    }

    /// Takes all values out.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// All names and values.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> + Clone {
        self.entries.iter().map(|(name, value)| (&**name, value))
    }

    /// All names, with values to be changed.
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = (&str, &mut Value)> {
        self.entries.iter_mut().map(|(name, value)| (&**name, value))
    }

    /// All names.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &str> + Clone {
        self.iter().map(|(name, _)| name)
    }

    /// The same as a JSON object.
    pub fn into_map(self) -> Map<String, Value> {
        self.into_iter().map(|(name, value)| (name.into_owned(), value)).collect()
    }

    /// Adds a value of a name that is new.
    fn push(&mut self, name: Cow<'static, str>, value: Value) {
        // Most spans have one, and a vector would begin with room for four.
        if self.entries.capacity() == 0 {
            self.entries = Vec::with_capacity(1);
        }
        self.entries.push((name, value));
    }
}

impl Eq for Fields {}

/// The order does not count, as in JSON.
impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
            || self.len() == other.len()
                && self.iter().all(|(name, value)| other.get(name) == Some(value))
    }
}

impl PartialEq<Value> for Fields {
    fn eq(&self, other: &Value) -> bool {
        other.as_object().is_some_and(|other| {
            self.len() == other.len()
                && self.iter().all(|(name, value)| other.get(name) == Some(value))
        })
    }
}

impl Index<&str> for Fields {
    type Output = Value;

    /// Null if there is no value of that name, as in a [`Value`].
    fn index(&self, name: &str) -> &Value {
        self.get(name).unwrap_or(&Value::Null)
    }
}

impl IndexMut<&str> for Fields {
    /// Null to begin with if there is no value of that name, as in a [`Value`].
    fn index_mut(&mut self, name: &str) -> &mut Value {
        self.get_or_null(name)
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.len()))?;
        for (name, value) in &self.entries {
            map.serialize_entry(&**name, value)?;
        }
        map.end()
    }
}

/// Keeps the order, so that what was sent is the same text when it is sent again. Of a name that is there
/// twice, the last value counts.
impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut entries = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    entries.push((Cow::Owned(name), value));
                }
                let mut names: Vec<&str> = entries.iter().map(|(name, _)| &**name).collect();
                names.sort_unstable();
                if names.windows(2).any(|pair| pair[0] == pair[1]) {
                    return Ok(entries.into_iter().collect());
                }
                Ok(Fields { entries })
            }
        }

        deserializer.deserialize_map(Object)
    }
}

impl From<Map<String, Value>> for Fields {
    fn from(map: Map<String, Value>) -> Self {
        // Its names are different ones.
        let entries = map.into_iter().map(|(name, value)| (name.into(), value)).collect();
        Self { entries }
    }
}

impl From<Fields> for Value {
    fn from(fields: Fields) -> Self {
        Self::Object(fields.into_map())
    }
}

impl<N: Into<Cow<'static, str>>> Extend<(N, Value)> for Fields {
    fn extend<I: IntoIterator<Item = (N, Value)>>(&mut self, values: I) {
        for (name, value) in values {
            self.insert(name.into(), value);
        }
    }
}

impl<N: Into<Cow<'static, str>>> FromIterator<(N, Value)> for Fields {
    fn from_iter<I: IntoIterator<Item = (N, Value)>>(values: I) -> Self {
        let mut fields = Self::new();
        fields.extend(values);
        fields
    }
}

impl IntoIterator for Fields {
    type Item = (Cow<'static, str>, Value);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_name_is_there_once_and_in_its_place() {
        let mut fields: Fields = [("b", 1.into()), ("a", 2.into())].into_iter().collect();
        assert_eq!(fields.insert("b".into(), 3.into()), Some(1.into()));
        assert_eq!(fields.insert("c".into(), Value::Null), None);
        assert_eq!(serde_json::to_string(&fields).unwrap(), r#"{"b":3,"a":2,"c":null}"#);
        assert_eq!(fields.remove("b"), Some(3.into()));
        assert_eq!(fields.keys().collect::<Vec<_>>(), ["a", "c"]);
        *fields.get_or_null("d") = 4.into();
        *fields.get_or_null("a") = 5.into();
        assert_eq!(fields, json!({"a": 5, "c": null, "d": 4}));
        assert_eq!(fields["nowhere"], Value::Null);
    }

    #[test]
    fn the_order_does_not_count() {
        let fields = |names: [&'static str; 2]| -> Fields {
            names.into_iter().map(|name| (name, name.into())).collect()
        };
        assert_eq!(fields(["a", "b"]), fields(["b", "a"]));
        assert_ne!(fields(["a", "b"]), fields(["a", "c"]));
    }

    #[test]
    fn of_a_name_that_json_has_twice_the_last_value_counts() {
        let fields: Fields = serde_json::from_str(r#"{"a":1,"b":2,"a":3}"#).unwrap();
        assert_eq!(Value::from(fields), json!({"a": 3, "b": 2}));
    }

    #[test]
    fn what_is_read_is_written_as_it_came() {
        let json = r#"{"b":{"x":[1,null]},"a":"ü"}"#;
        let fields: Fields = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&fields).unwrap(), json);
        assert!(serde_json::from_str::<Fields>("[1]").is_err());
    }
}
