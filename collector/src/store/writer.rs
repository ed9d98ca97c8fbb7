use std::{
    collections::BTreeSet,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use rusqlite::Connection;

use crate::refusal::Refusal;

/// Most pieces of work that are committed together.
const MAX_GROUP: usize = 16;

/// How long work waits for others to join it before it commits by itself.
const PATIENCE: Duration = Duration::from_millis(20);

/// How long no work must have come for there to be time for other things, in milliseconds.
const LULL_MS: u64 = 50;

/// The connection for writing. Work that comes at the same time is committed together: a commit
/// writes each changed page once, however many batches have changed it.
#[derive(Debug)]
pub(super) struct Writer {
    state: Mutex<State>,
    committed: Condvar,
    /// Work that waits for its turn.
    waiting: AtomicUsize,
    patience: Duration,
    began: Instant,
    /// When work came last, in milliseconds since the beginning.
    last_ms: AtomicU64,
}

#[derive(Debug)]
struct State {
    connection: Connection,
    /// The group whose transaction is open, or was the last one.
    group: u64,
    /// How much work has joined it.
    joined: usize,
    /// The last group that was committed or given up.
    ended: u64,
    /// Groups that could not be committed.
    failed: BTreeSet<u64>,
}

impl Writer {
    pub(super) fn new(connection: Connection) -> Self {
        let state = State { connection, group: 0, joined: 0, ended: 0, failed: BTreeSet::new() };
        Self {
            state: state.into(),
            committed: Condvar::new(),
            waiting: AtomicUsize::new(0),
            patience: PATIENCE,
            began: Instant::now(),
            last_ms: AtomicU64::new(0),
        }
    }

    /// Whether work came a moment ago, so that more is likely to come.
    pub(super) fn is_busy(&self) -> bool {
        let last_ms = self.last_ms.load(Ordering::Relaxed);
        self.is_awaited() || self.now_ms().saturating_sub(last_ms) < LULL_MS
    }

    /// Whether somebody waits for a turn.
    fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Milliseconds since the beginning.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Does the work within a transaction, together with other work, and returns once that is
    /// committed.
    ///
    /// # Errors
    ///
    /// Those of the work, and when the commit fails.
    pub(super) fn join<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Failure>,
    ) -> Result<T, Refusal> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let mut state = self.lock();
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        self.last_ms.store(self.now_ms(), Ordering::Relaxed);
        state.begin()?;
        let group = state.group;
        let undo = Undo(&state.connection);
        let done = work(&state.connection);
        match &done {
            // What failed halfway takes along all that has joined before it.
            Err(Failure::Halfway(_)) => drop(undo),
            Ok(_) | Err(Failure::Refused(_)) => std::mem::forget(undo),
        }
        state.joined += 1;
        if !self.is_awaited() || state.joined >= MAX_GROUP || !state.is_open() {
            self.commit(&mut state);
        }
        let done = done?;
        while state.ended < group {
            let (back, waited) = self
                .committed
                .wait_timeout(state, self.patience)
                .unwrap_or_else(PoisonError::into_inner);
            state = back;
            if waited.timed_out() && state.ended < group {
                self.commit(&mut state);
            }
        }
        if state.failed.contains(&group) {
            let detail = "the span store could not commit: try again";
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, detail));
        }
        Ok(done)
    }

    /// The connection alone, outside of any transaction.
    pub(super) fn alone<T>(&self, work: impl FnOnce(&mut Connection) -> T) -> T {
        let mut state = self.lock();
        self.commit(&mut state);
        work(&mut state.connection)
    }

    /// Ends the open group, if there is one, and tells those who wait for it.
    fn commit(&self, state: &mut State) {
        if state.joined == 0 {
            return;
        }
        let committed = state.is_open() && state.connection.execute_batch("COMMIT").is_ok();
        if state.is_open() {
            // If that fails as well, the next BEGIN will.
            drop(state.connection.execute_batch("ROLLBACK"));
        }
        state.end(committed);
        self.committed.notify_all();
    }

    /// A panic elsewhere has rolled back what it left.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn end(&mut self, committed: bool) {
        self.joined = 0;
        self.ended = self.group;
        if !committed {
            self.failed.insert(self.group);
        }
    }

    fn is_open(&self) -> bool {
        !self.connection.is_autocommit()
    }

    /// Opens a group if none is open.
    fn begin(&mut self) -> Result<(), Refusal> {
        if self.is_open() {
            return Ok(());
        }
        if self.joined > 0 {
            // Somebody panicked, and what had joined before was rolled back.
            self.end(false);
        }
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        self.group += 1;
        // Nobody waits for groups of long ago.
        self.failed = self.failed.split_off(&self.group.saturating_sub(1_000));
        Ok(())
    }
}

/// Why work came to nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// Before it had written anything.
    Refused(Refusal),
    /// When it may have written something.
    Halfway(Refusal),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(refusal) | Failure::Halfway(refusal) => refusal,
        }
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Halfway(error.into())
    }
}

/// Rolls back when dropped.
struct Undo<'a>(&'a Connection);

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        drop(self.0.execute_batch("ROLLBACK"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::mpsc, thread};

    fn writer(patience: Duration) -> (tempfile::TempDir, Writer) {
        let dir = tempfile::tempdir().unwrap();
        let connection = Connection::open(dir.path().join("numbers.sqlite")).unwrap();
        connection.execute_batch("CREATE TABLE number (n INTEGER)").unwrap();
        (dir, Writer { patience, ..Writer::new(connection) })
    }

    fn insert(connection: &Connection, n: i64) -> Result<(), Failure> {
        connection.execute("INSERT INTO number VALUES (?)", [n])?;
        Ok(())
    }

    fn numbers(writer: &Writer) -> Vec<i64> {
        writer.alone(|connection| {
            let mut query = connection.prepare("SELECT n FROM number ORDER BY n").unwrap();
            query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        })
    }

    fn refusal() -> Refusal {
        Refusal::invalid("n", "is odd")
    }

    /// What becomes of work that has joined a group, when `next` comes after it.
    fn joined_before(next: impl FnOnce(&Writer)) -> (Result<(), Refusal>, Vec<i64>) {
        let (_dir, writer) = writer(Duration::from_secs(60));
        let (done, is_done) = mpsc::channel();
        // As if others were waiting, so that the group stays open.
        writer.waiting.fetch_add(1, Ordering::Relaxed);
        let outcome = thread::scope(|scope| {
            let first = scope.spawn(|| {
                writer.join(|connection| {
                    insert(connection, 1)?;
                    done.send(()).unwrap();
                    Ok(())
                })
            });
            is_done.recv().unwrap();
            // The lock is free once the work has seen that others wait.
            drop(writer.lock());
            writer.waiting.fetch_sub(1, Ordering::Relaxed);
            next(&writer);
            first.join().unwrap()
        });
        let numbers = numbers(&writer);
        (outcome, numbers)
    }

    #[test]
    fn work_that_comes_at_once_is_all_committed() {
        let (_dir, writer) = writer(PATIENCE);
        thread::scope(|scope| {
            for thread in 0..8 {
                let writer = &writer;
                scope.spawn(move || {
                    for n in 0..50 {
                        writer.join(|connection| insert(connection, thread * 50 + n)).unwrap();
                    }
                });
            }
        });
        assert_eq!(numbers(&writer), (0..400).collect::<Vec<_>>());
    }

    #[test]
    fn work_is_committed_with_the_work_that_comes_next() {
        let (outcome, numbers) = joined_before(|writer| {
            writer.join(|connection| insert(connection, 2)).unwrap();
        });
        assert!(outcome.is_ok());
        assert_eq!(numbers, [1, 2]);
    }

    #[test]
    fn what_is_refused_before_it_writes_harms_nobody() {
        let (outcome, numbers) = joined_before(|writer| {
            let refused = writer.join(|_| Err::<(), _>(Failure::Refused(refusal())));
            assert_eq!(refused.unwrap_err().status(), 422);
        });
        assert!(outcome.is_ok());
        assert_eq!(numbers, [1]);
    }

    #[test]
    fn what_fails_halfway_takes_its_group_along_and_all_are_told() {
        let (outcome, numbers) = joined_before(|writer| {
            let failed = writer.join(|connection| {
                insert(connection, 2)?;
                Err::<(), _>(Failure::Halfway(refusal()))
            });
            assert_eq!(failed.unwrap_err().status(), 422);
            writer.join(|connection| insert(connection, 3)).unwrap();
        });
        assert_eq!(outcome.unwrap_err().status(), 503);
        assert_eq!(numbers, [3]);
    }

    #[test]
    fn a_panic_takes_its_group_along_and_all_are_told() {
        let (outcome, numbers) = joined_before(|writer| {
            let panicked = thread::scope(|scope| {
                let work = || writer.join(|_| -> Result<(), Failure> { panic!("as asked") });
                scope.spawn(work).join()
            });
            assert!(panicked.is_err());
            writer.join(|connection| insert(connection, 2)).unwrap();
        });
        assert_eq!(outcome.unwrap_err().status(), 503);
        assert_eq!(numbers, [2]);
    }

    #[test]
    fn work_that_nobody_follows_is_committed_after_a_while() {
        let (_dir, writer) = writer(Duration::from_millis(1));
        writer.waiting.fetch_add(1, Ordering::Relaxed);
        writer.join(|connection| insert(connection, 1)).unwrap();
        assert_eq!(numbers(&writer), [1]);
    }
}
