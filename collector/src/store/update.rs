use std::borrow::Cow;

use rusqlite::{Connection, OptionalExtension};
use serde::Deserialize;

use crate::{
    item::{Item, Object, Record, Text, raw},
    refusal::Refusal,
    store::{Mode, SPAN_OF_ID, write, writer::Failure},
};

/// The body of `PATCH /v5/spans/{id}`: what it names is replaced, the rest stays.
#[derive(Debug, Deserialize)]
pub(crate) struct Change<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    end_timestamp: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "raw")]
    output: Object<'a>,
    #[serde(borrow, default, deserialize_with = "raw")]
    metadata: Object<'a>,
    #[serde(borrow)]
    status: Option<Text<'a>>,
}

/// Changes the span of this id, the one that arrived last if there are several. Answers with it.
pub(super) fn span(
    connection: &Connection,
    id: &str,
    change: Change<'_>,
) -> Result<String, Failure> {
    let not_found = || Failure::Refused(Refusal::not_found("span"));
    let mut stored = connection.prepare_cached(SPAN_OF_ID)?;
    let stored: Option<String> = stored.query_row([id], |row| row.get(0)).optional()?;
    let stored = stored.ok_or_else(not_found)?;
    let changed = change.of(&stored).map_err(Failure::Refused)?;
    // It has ended if the stored one has, so that it wins.
    let bodies = write::batch(connection, vec![changed], Mode::Upsert)?;
    bodies.into_iter().next().ok_or_else(not_found)
}

impl<'a> Change<'a> {
    fn of(self, stored: &'a str) -> Result<Record<'a>, Refusal> {
        #[derive(Deserialize)]
        struct Account<'a> {
            #[serde(borrow)]
            account_id: Cow<'a, str>,
        }

        let Account { account_id } = serde_json::from_str(stored).map_err(Refusal::corrupt)?;
        let mut changed: Item<'a> = serde_json::from_str(stored).map_err(Refusal::corrupt)?;
        changed.name = self.name.unwrap_or(changed.name);
        changed.end_timestamp = self.end_timestamp.or(changed.end_timestamp);
        changed.output = self.output.or(changed.output);
        changed.metadata = self.metadata.or(changed.metadata);
        changed.status = self.status.or(changed.status);
        changed.into_record(&account_id)
    }
}
