//! The filter `extra_metadata`.

use serde_json::{Map, Number, Value};

use crate::{refusal::Refusal, search::terms::tokens};

/// Deepest nesting of `$and` and `$or`.
const MAX_DEPTH: usize = 16;

/// What the metadata of a span must be like.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Condition {
    /// The value of this key is one of these.
    OneOf(String, Vec<Value>),
    All(Vec<Condition>),
    Any(Vec<Condition>),
}

impl Condition {
    /// Reads a filter: each key must equal its value, or one of an array of values. `$and` and
    /// `$or` hold arrays of such filters.
    pub(crate) fn parse(filter: &Map<String, Value>) -> Result<Self, Refusal> {
        Self::parse_at("extra_metadata", filter, MAX_DEPTH)
    }

    fn parse_at(place: &str, filter: &Map<String, Value>, depth: usize) -> Result<Self, Refusal> {
        if depth == 0 {
            return Err(Refusal::invalid("extra_metadata", "is nested too deep"));
        }
        let condition = |(key, value): (&String, &Value)| {
            let field = format!("{place}.{key}");
            match (key.as_str(), value) {
                ("$and", Value::Array(groups)) => {
                    Self::parse_groups(&field, groups, depth).map(Self::All)
                }
                ("$or", Value::Array(groups)) => {
                    Self::parse_groups(&field, groups, depth).map(Self::Any)
                }
                ("$and" | "$or", _) => Err(Refusal::invalid(field, "must be an array of objects")),
                (_, Value::Array(values)) => {
                    // An array of the metadata may also equal the whole.
                    let values = values.iter().chain([value]).cloned().collect();
                    Ok(Self::OneOf(key.clone(), values))
                }
                _ => Ok(Self::OneOf(key.clone(), vec![value.clone()])),
            }
        };
        filter.iter().map(condition).collect::<Result<_, _>>().map(Self::All)
    }

    fn parse_groups(place: &str, groups: &[Value], depth: usize) -> Result<Vec<Self>, Refusal> {
        let group = |(index, group): (usize, &Value)| {
            let place = format!("{place}[{index}]");
            let group = group.as_object();
            let group = group.ok_or_else(|| Refusal::invalid(&place, "must be an object"))?;
            Self::parse_at(&place, group, depth - 1)
        };
        groups.iter().enumerate().map(group).collect()
    }

    pub(crate) fn matches(&self, metadata: &Map<String, Value>) -> bool {
        match self {
            Self::OneOf(key, values) => metadata
                .get(key)
                .is_some_and(|found| values.iter().any(|value| equal(value, found))),
            Self::All(conditions) => conditions.iter().all(|one| one.matches(metadata)),
            Self::Any(conditions) => conditions.iter().any(|one| one.matches(metadata)),
        }
    }

    /// Words that every match holds, for the index of words. None if there is nothing to ask for.
    pub(crate) fn indexed(&self) -> Option<String> {
        let mut words = Vec::new();
        self.collect_words(&mut words);
        words.retain(|word| word.is_ascii());
        words.sort();
        words.dedup();
        let words: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
        (!words.is_empty()).then(|| words.join(" AND "))
    }

    fn collect_words(&self, words: &mut Vec<String>) {
        let mut add = |text: &str| words.extend(tokens(text).map(str::to_ascii_lowercase));
        match self {
            Self::OneOf(key, values) => {
                add(key);
                // Numbers that are equal may be written in many ways.
                if let [Value::String(text)] = &values[..] {
                    add(text);
                }
            }
            Self::All(conditions) => conditions.iter().for_each(|one| one.collect_words(words)),
            Self::Any(_) => {}
        }
    }
}

/// Equality by value: 1 and 1.0 are the same number, as are 0 and -0.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || same_number(a, b),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| equal(a, b)))
        }
        _ => a == b,
    }
}

/// Integers of both kinds differ where they are not the same, whatever a float would make of them.
fn same_number(a: &Number, b: &Number) -> bool {
    (a.is_f64() || b.is_f64()) && a.as_f64() == b.as_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(filter: Value) -> Result<Condition, String> {
        Condition::parse(filter.as_object().unwrap()).map_err(|refusal| refusal.detail())
    }

    fn matches(filter: Value, metadata: Value) -> bool {
        parse(filter).unwrap().matches(metadata.as_object().unwrap())
    }

    #[test]
    fn each_key_must_equal_its_value_or_one_of_an_array() {
        let metadata = json!({"run": "r1", "n": 3, "tags": ["a", "b"], "o": {"x": null}});
        for filter in [
            json!({}),
            json!({"run": "r1"}),
            json!({"run": ["r0", "r1"], "n": 3.0}),
            json!({"tags": ["a", "b"]}),
            json!({"tags": [["a", "b"], "c"]}),
            json!({"o": {"x": null}}),
        ] {
            assert!(matches(filter.clone(), metadata.clone()), "{filter}");
        }
        for filter in [
            json!({"run": "r"}),
            json!({"run": "r1", "n": 4}),
            json!({"run": []}),
            json!({"n": "3"}),
            json!({"tags": "a"}),
            json!({"tags": ["a"]}),
            json!({"missing": null}),
            json!({"o": {}}),
        ] {
            assert!(!matches(filter.clone(), metadata.clone()), "{filter}");
        }
    }

    #[test]
    fn numbers_are_compared_by_value() {
        assert!(matches(json!({"n": [[0]]}), json!({"n": [-0.0]})));
        assert!(matches(json!({"n": 1}), json!({"n": 1.0})));
        let big = 9_007_199_254_740_993_u64;
        assert!(!matches(json!({"n": big}), json!({"n": big - 1})));
    }

    #[test]
    fn groups_nest() {
        let filter = json!({"$or": [{"a": 1}, {"$and": [{"b": 2}, {"c": [3, 4]}]}], "d": 5});
        assert!(matches(filter.clone(), json!({"a": 1, "d": 5})));
        assert!(matches(filter.clone(), json!({"b": 2, "c": 4, "d": 5})));
        assert!(!matches(filter.clone(), json!({"b": 2, "d": 5})));
        assert!(!matches(filter, json!({"a": 1})));
        assert!(!matches(json!({"$or": []}), json!({})));
    }

    #[test]
    fn a_wrong_group_is_refused_by_name() {
        let error = |filter| parse(filter).unwrap_err();
        let and = json!({"$and": {"a": 1}});
        assert_eq!(error(and), "extra_metadata.$and must be an array of objects");
        let or = json!({"$or": [{}, 1]});
        assert_eq!(error(or), "extra_metadata.$or[1] must be an object");
        let mut deep = json!({"a": 1});
        for _ in 0..20 {
            deep = json!({"$and": [deep]});
        }
        assert_eq!(error(deep), "extra_metadata is nested too deep");
    }

    #[test]
    fn the_index_is_asked_for_keys_and_texts_that_must_be_there() {
        let indexed = |filter| parse(filter).unwrap().indexed();
        let filter = json!({"Run-id": "R1 x", "n": 3, "t": ["a", "b"], "$or": [{"z": "q"}]});
        let expected = r#""id" AND "n" AND "r1" AND "run" AND "t" AND "x""#;
        assert_eq!(indexed(filter).as_deref(), Some(expected));
        assert_eq!(indexed(json!({"é": 1})), None);
    }
}
