use std::borrow::Cow;

use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::{
    item::{Item, Object, Record, Text},
    refusal::Refusal,
    store::{Mode, SPAN_OF_ID, write, writer::Failure},
};

/// The body of `PATCH /v5/spans/{id}`: what it names is replaced, the rest stays.
#[derive(Debug, Deserialize)]
pub(crate) struct Change {
    name: Option<String>,
    end_timestamp: Option<String>,
    #[serde(default, deserialize_with = "owned")]
    output: Object<'static>,
    #[serde(default, deserialize_with = "owned")]
    metadata: Object<'static>,
    status: Option<String>,
}

/// Keeps a `null`, which is no object and must be refused.
fn owned<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Object<'static>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(|raw| Some(Cow::Owned(raw)))
}

/// Changes the span of this id, the one that arrived last if there are several. Answers with it.
/// `change` gets the JSON of the span; a span that has ended must stay so.
pub(super) fn span(
    connection: &Connection,
    id: &str,
    change: impl for<'a> FnOnce(&'a str) -> Result<Record<'a>, Refusal>,
) -> Result<String, Failure> {
    let not_found = || Failure::Refused(Refusal::not_found("span"));
    let mut stored = connection.prepare_cached(SPAN_OF_ID)?;
    let stored: Option<String> = stored.query_row([id], |row| row.get(0)).optional()?;
    let stored = stored.ok_or_else(not_found)?;
    let changed = change(&stored).map_err(Failure::Refused)?;
    let bodies = write::batch(connection, vec![changed], Mode::Upsert)?;
    bodies.into_iter().next().ok_or_else(not_found)
}

impl Change {
    /// The stored span with the change.
    pub(crate) fn of(self, stored: &str) -> Result<Record<'_>, Refusal> {
        let text = |text| Text(Cow::Owned(text));
        let (mut changed, account_id) = Item::stored(stored)?;
        changed.name = self.name.map_or(changed.name, text);
        changed.end_timestamp = self.end_timestamp.map(text).or(changed.end_timestamp);
        changed.output = self.output.or(changed.output);
        changed.metadata = self.metadata.or(changed.metadata);
        changed.status = self.status.map(text).or(changed.status);
        changed.into_record(&account_id)
    }
}
