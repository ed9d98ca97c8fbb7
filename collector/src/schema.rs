use std::{path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::{CollectorError, error::Kind};

pub(crate) mod functions;

/// What brings a file from each version to the next one, the first from an empty file. A step that
/// was released never changes again.
const STEPS: [&str; 4] = [
    include_str!("schema/1.sql"),
    include_str!("schema/2.sql"),
    include_str!("schema/3.sql"),
    include_str!("schema/4.sql"),
];

/// Version of the tables that this collector works with, kept in the file as `PRAGMA user_version`.
const VERSION: usize = STEPS.len();

/// How long to wait for another process that writes to the same file.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// SQLite's log grows up to this, in pages, if nobody moves it into the file before. The longer it
/// is, the more often a page of an index is changed in it before it is written to the file: ids are
/// random, so that each batch changes hundreds.
const MAX_LOG_PAGES: i64 = 64_000;

/// The log file is cut to this when it begins anew, in bytes.
const KEPT_LOG_BYTES: i64 = 128 * 1024 * 1024;

/// How much of the file readers map into their memory, in bytes, which is the most that SQLite takes. A
/// search may look at a hundred thousand rows, and to copy the page of each takes longer.
const MAPPED_BYTES: i64 = 0x7fff_0000;

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
        connection.pragma_update(None, "synchronous", "normal")?;
        connection.pragma_update(None, "wal_autocheckpoint", MAX_LOG_PAGES)?;
        connection.pragma_update(None, "journal_size_limit", KEPT_LOG_BYTES)
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
    connection.pragma_update(None, "mmap_size", MAPPED_BYTES).map_err(failed)?;
    Ok(connection)
}

/// Each connection sits behind a lock of ours. Unlike rusqlite's default, a path that looks like a
/// `file:` URI is a path.
fn no_mutex() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_NO_MUTEX
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // In KiB where negative. Span ids are random, so the indexes are touched all over.
    connection.pragma_update(None, "cache_size", -65_536)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.set_prepared_statement_cache_capacity(64);
    functions::add_to(connection)
}

/// Takes the file through the steps that it has not seen, all or none.
fn migrate(connection: &mut Connection, path: &Path) -> Result<(), CollectorError> {
    let failed = |source| Kind::Open { path: path.to_owned(), source };
    // Takes effect in an empty file only: lets retention give disk space back.
    connection.pragma_update(None, "auto_vacuum", "incremental").map_err(failed)?;
    // Immediate, so that of two processes that make the same file one waits for the other.
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let found: i64 =
        transaction.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    let tables: i64 = transaction
        .query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))
        .map_err(failed)?;
    if found == 0 && tables > 0 {
        return Err(Kind::ForeignFile { path: path.to_owned() }.into());
    }
    let Some(steps) = usize::try_from(found).ok().and_then(|found| STEPS.get(found..)) else {
        let path = path.to_owned();
        return Err(Kind::NewerSchema { path, found, known: VERSION }.into());
    };
    if !steps.is_empty() {
        if found > 0 {
            let file = path.display();
            tracing::info!(%file, "brings the file up to date: half a minute for a million spans");
        }
        steps.iter().try_for_each(|step| transaction.execute_batch(step)).map_err(failed)?;
        transaction.pragma_update(None, "user_version", VERSION as i64).map_err(failed)?;
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
            assert_eq!(pragma("user_version").unwrap(), (VERSION as i64).into());
            assert_eq!(pragma("journal_mode").unwrap(), "wal".to_owned().into());
            assert_eq!(pragma("synchronous").unwrap(), 1.into());
        }
    }

    #[test]
    fn a_newer_schema_is_refused_with_the_remedy() {
        let (_dir, path) = file("PRAGMA user_version = 99");
        let error = open_writer(&path).unwrap_err();
        assert!(error.is_newer_schema());
        let message = error.to_string();
        assert!(message.contains("schema 99") && message.contains("upgrade"), "{message}");
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

    /// The very tables of version 1, as files out there have them.
    #[test]
    fn a_file_of_the_first_version_keeps_its_spans_in_their_order() {
        let (_dir, path) = file(&format!(
            r#"{}
            INSERT INTO span VALUES
                ('t', 'b', NULL, 5, 7, '{{"name":"second","type":"CUSTOM","group_id":"g"}}'),
                ('t', 'a', 'b', 5, NULL, '{{"name":"first","status":"ERROR"}}');
            INSERT INTO trace VALUES ('t', 5);
            PRAGMA user_version = 1"#,
            STEPS[0]
        ));
        let connection = open_writer(&path).unwrap();
        let mut query = connection
            .prepare("SELECT id, name, status, type, group_id, body FROM span ORDER BY rowid")
            .unwrap();
        let spans: Vec<Vec<Option<String>>> = query
            .query_map([], |row| (0..6).map(|column| row.get(column)).collect())
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(
            spans[0][..5],
            [text("b"), text("second"), text("SUCCESS"), text("CUSTOM"), text("g")]
        );
        assert_eq!(
            spans[1],
            [
                text("a"),
                text("first"),
                text("ERROR"),
                text("STANDALONE"),
                None,
                text(r#"{"name":"first","status":"ERROR"}"#)
            ]
        );
        let written: i64 =
            connection.query_row("SELECT written_s FROM trace", [], |row| row.get(0)).unwrap();
        assert!(written > 1_700_000_000, "kept as if it had just arrived");
    }

    #[test]
    fn spans_of_version_2_are_found_by_id_and_by_length() {
        let (_dir, path) = file(&format!(
            r#"{}{}
            INSERT INTO span (rowid, trace_id, id, start_ns, end_ns, name, status, type, input_tokens, body)
            VALUES
                (3, 't', 'a', 5, 7, 'first', 'ERROR', 'CUSTOM', 9, '{{"n":1}}'),
                (20000, 'u', 'a', 5, NULL, 'second', 'SUCCESS', 'CUSTOM', NULL, '{{"n":2}}'),
                (20001, 'u', 'b', 5, 1000005, 'third', 'SUCCESS', 'CUSTOM', NULL, '{{"n":3}}');
            UPDATE text_progress SET up_to = 20000;
            INSERT INTO span_text (rowid, words) VALUES (3, 'n');
            PRAGMA user_version = 2"#,
            STEPS[0], STEPS[1]
        ));
        let connection = open_writer(&path).unwrap();
        let rows = |sql: &str| -> Vec<i64> {
            let mut query = connection.prepare(sql).unwrap();
            query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        };
        let of_id = "SELECT rowid FROM span INDEXED BY span_by_id WHERE id = 'a'
            AND id_key IN (SELECT id_key(part << 14, 'a') FROM part) ORDER BY rowid";
        assert_eq!(rows(of_id), [3, 20_000]);
        let by_length = "SELECT rowid FROM span INDEXED BY span_by_duration
            WHERE duration_class >= -1 ORDER BY duration_class";
        assert_eq!(rows(by_length), [20_000, 3, 20_001]);
        let tokens = "SELECT input_tokens FROM span INDEXED BY span_by_input_tokens
            WHERE input_tokens > 0";
        assert_eq!(rows(tokens), [9]);
        let words = "SELECT body ->> '$.n' FROM span JOIN span_text ON span_text.rowid = span.rowid
            WHERE span_text MATCH 'n'";
        assert_eq!(rows(words), [1]);
        assert_eq!(rows("SELECT up_to FROM text_progress"), [20_000]);
    }

    #[test]
    fn spans_of_version_3_are_found_by_their_trace_and_parent() {
        let (_dir, path) = file("");
        let before = Connection::open(&path).unwrap();
        functions::add_to(&before).unwrap();
        STEPS[..3].iter().for_each(|step| before.execute_batch(step).unwrap());
        before
            .execute_batch(
                r#"INSERT INTO part VALUES (0), (1);
                INSERT INTO trace VALUES ('u', 5, 11), ('t', 4, 10);
                INSERT INTO span VALUES
                    (3, 't', 'a', NULL, 5, 7, 'first', 'ERROR', 'CUSTOM', 9, 8, 'g', 'v', 'ot', 'os',
                        id_key(3, 'a'), 2, '{"n":1}'),
                    (4, 't', 'b', 'a', 4, NULL, 'second', 'SUCCESS', 'CUSTOM', NULL, NULL, NULL, NULL,
                        NULL, NULL, id_key(4, 'b'), -1, '{}'),
                    (20000, 'u', 'a', 'a', 5, NULL, 'third', 'SUCCESS', 'CUSTOM', NULL, NULL, NULL,
                        NULL, NULL, NULL, id_key(20000, 'a'), -1, '{}');
                PRAGMA user_version = 3"#,
            )
            .unwrap();
        drop(before);
        let connection = open_writer(&path).unwrap();
        let rows = |sql: &str| -> Vec<i64> {
            let mut query = connection.prepare(sql).unwrap();
            query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        };
        let of_trace = "SELECT arrival FROM span INDEXED BY span_of_trace
            WHERE trace_key = (SELECT key FROM trace WHERE trace_id = 't') ORDER BY start_ns";
        assert_eq!(rows(of_trace), [4, 3]);
        let of_ids = "SELECT arrival FROM span INDEXED BY span_by_ids
            WHERE trace_key = (SELECT key FROM trace WHERE trace_id = 'u')
                AND id_key & 281474976710655 = id_key(0, 'a')";
        assert_eq!(rows(of_ids), [20_000]);
        let of_parent = "SELECT arrival FROM span INDEXED BY span_by_parent
            WHERE parent_key IN (SELECT id_key(part << 14, 'a') FROM part) ORDER BY arrival";
        assert_eq!(rows(of_parent), [4, 20_000]);
        assert_eq!(rows("SELECT key FROM trace ORDER BY written_s"), [1, 2], "as they came");
        let mut first = connection.prepare("SELECT * FROM span WHERE arrival = 3").unwrap();
        let names: Vec<String> = first.column_names().map(str::to_owned).collect();
        let row: Vec<(String, rusqlite::types::Value)> = first
            .query_row([], |row| {
                names.iter().enumerate().map(|(n, name)| Ok((name.clone(), row.get(n)?))).collect()
            })
            .unwrap();
        let value = |name: &str| row.iter().find(|(of, _)| of == name).unwrap().1.clone();
        for (name, text) in [
            ("trace_id", "t"),
            ("id", "a"),
            ("name", "first"),
            ("status", "ERROR"),
            ("type", "CUSTOM"),
            ("group_id", "g"),
            ("application_variant_id", "v"),
            ("obs_trace_id", "ot"),
            ("obs_span_id", "os"),
            ("body", r#"{"n":1}"#),
        ] {
            assert_eq!(value(name), text.to_owned().into(), "{name}");
        }
        for (name, number) in [
            ("start_ns", 5_i64),
            ("end_ns", 7),
            ("id_key", 0xaf63_dc4c_8601),
            ("duration_class", 2),
            ("input_tokens", 9),
            ("output_tokens", 8),
        ] {
            assert_eq!(value(name), number.into(), "{name}");
        }
        assert_eq!(value("parent_key"), rusqlite::types::Value::Null);
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
