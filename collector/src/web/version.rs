use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    path::Path,
    sync::{Mutex, PoisonError},
};

use rusqlite::Connection;

use crate::{schema, store::Store};

/// Tells whether anything was written, by this process or another one.
#[derive(Debug)]
pub(super) struct Versions {
    /// Its own, since SQLite counts the commits of others for each connection anew. Opened when it
    /// is first asked.
    connection: Mutex<Option<Connection>>,
    /// Tells one process from the next, whose numbers mean something else.
    process: u64,
}

impl Default for Versions {
    fn default() -> Self {
        let process = RandomState::new().build_hasher().finish();
        Self { connection: Mutex::default(), process }
    }
}

impl Versions {
    /// A text that differs when something was written since.
    pub(super) fn current(&self, store: &Store) -> rusqlite::Result<String> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if connection.is_none() {
            let path = store.read(|reader| reader.path().map(str::to_owned));
            *connection = path.and_then(|path| schema::open_reader(Path::new(&path)).ok());
        }
        let number = match &*connection {
            Some(connection) => data_version(connection)?,
            // A path that is no text. Where the store reads by several connections, this says more
            // often than needed that there is something new.
            None => store.read(data_version)?,
        };
        Ok(format!("{:x}-{number}", self.process))
    }
}

fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "data_version", |row| row.get(0))
}
