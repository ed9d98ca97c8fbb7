use std::path::Path;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::{CollectorError, error::Kind};

/// Version of the tables below, kept in the file as `PRAGMA user_version`.
const VERSION: i64 = 1;

/// How long to wait for another process that writes to the same file, in milliseconds.
const BUSY_TIMEOUT_MS: u32 = 2_000;

/// `body` is the span's JSON as it will be answered; the other columns are what queries need.
///
/// `trace` spares the list of traces a walk over all spans, and knows traces whose root has not
/// arrived.
const TABLES: &str = "
    CREATE TABLE span (
        trace_id TEXT NOT NULL,
        id TEXT NOT NULL,
        parent_id TEXT,
        start_ns INTEGER NOT NULL,
        end_ns INTEGER,
        body TEXT NOT NULL,
        PRIMARY KEY (trace_id, id)
    ) STRICT;
    CREATE INDEX span_by_id ON span (id);
    CREATE INDEX root_by_start ON span (start_ns) WHERE parent_id IS NULL;
    CREATE INDEX root_of_trace ON span (trace_id, start_ns) WHERE parent_id IS NULL;
    CREATE TABLE trace (
        trace_id TEXT PRIMARY KEY,
        start_ns INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX trace_by_start ON trace (start_ns, trace_id);
";

/// Opens the file for writing, making it or its tables where they are missing.
pub(crate) fn open_writer(path: &Path) -> Result<Connection, CollectorError> {
    let failed = |source| Kind::Open { path: path.to_owned(), source };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let mut connection = Connection::open_with_flags(path, flags | no_mutex()).map_err(failed)?;
    prepare(&connection).map_err(failed)?;
    // In WAL mode a commit waits for no disk, and readers and the writer do not wait for each
    // other. Changing the mode before the file is known to be ours would change a stranger's file.
    migrate(&mut connection, path)?;
    let set_mode = || {
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "normal")
    };
    set_mode().map_err(failed)?;
    Ok(connection)
}

/// Opens a file that [`open_writer`] has opened before, for reading only.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, CollectorError> {
    let failed = |source| Kind::Open { path: path.to_owned(), source };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | no_mutex();
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    prepare(&connection).map_err(failed)?;
    connection.pragma_update(None, "query_only", true).map_err(failed)?;
    Ok(connection)
}

/// Each connection sits behind a lock of ours. Unlike rusqlite's default, a path that looks like a
/// `file:` URI is a path.
fn no_mutex() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_NO_MUTEX
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "busy_timeout", BUSY_TIMEOUT_MS)?;
    // In KiB where negative. Span ids are random, so the indexes are touched all over.
    connection.pragma_update(None, "cache_size", -65_536)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(())
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), CollectorError> {
    let failed = |source| Kind::Open { path: path.to_owned(), source };
    // Immediate, so that of two processes that make the same file one waits for the other.
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let found: i64 =
        transaction.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    let tables: i64 = transaction
        .query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))
        .map_err(failed)?;
    match found {
        0 if tables == 0 => {
            transaction.execute_batch(TABLES).map_err(failed)?;
            transaction.pragma_update(None, "user_version", VERSION).map_err(failed)?;
        }
        VERSION => {}
        0 => return Err(Kind::ForeignFile { path: path.to_owned() }.into()),
        _ => {
            let path = path.to_owned();
            return Err(Kind::NewerSchema { path, found, known: VERSION }.into());
        }
    }
    transaction.commit().map_err(failed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(sql: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spans.sqlite");
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        (dir, path)
    }

    #[test]
    fn a_file_is_made_once_and_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spans.sqlite");
        for _ in 0..2 {
            let connection = open_writer(&path).unwrap();
            let pragma = |name| {
                connection
                    .pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
            };
            assert_eq!(pragma("user_version").unwrap(), VERSION.into());
            assert_eq!(pragma("journal_mode").unwrap(), "wal".to_owned().into());
            assert_eq!(pragma("synchronous").unwrap(), 1.into());
        }
    }

    #[test]
    fn a_newer_schema_is_refused_with_the_remedy() {
        let (_dir, path) = file("PRAGMA user_version = 2");
        let error = open_writer(&path).unwrap_err();
        assert!(error.is_newer_schema());
        let message = error.to_string();
        assert!(message.contains("schema 2") && message.contains("upgrade"), "{message}");
    }

    #[test]
    fn a_file_of_something_else_is_left_alone() {
        let (_dir, path) = file("CREATE TABLE cookies (id INTEGER)");
        let before = std::fs::read(&path).unwrap();
        let error = open_writer(&path).unwrap_err();
        assert!(!error.is_newer_schema());
        assert!(error.to_string().contains("something else"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), before);

        std::fs::write(&path, "not a database at all, but long enough to have a header").unwrap();
        assert!(open_writer(&path).unwrap_err().to_string().contains("cannot open"));
    }

    #[test]
    fn a_reader_cannot_write() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spans.sqlite");
        let _writer = open_writer(&path).unwrap();
        let reader = open_reader(&path).unwrap();
        assert!(reader.execute("DELETE FROM span", []).is_err());
    }
}
