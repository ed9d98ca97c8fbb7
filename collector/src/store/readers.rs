use std::{
    path::Path,
    sync::{
        Mutex, MutexGuard, TryLockError,
        atomic::{AtomicUsize, Ordering},
    },
};

use rusqlite::Connection;

use crate::{CollectorError, schema, store::lock};

/// Most reads at a time. Each connection has a cache of its own.
const CONNECTIONS: usize = 4;

/// Connections for reading, so that a long search does not hold up all others.
#[derive(Debug)]
pub(super) struct Readers {
    connections: [Mutex<Connection>; CONNECTIONS],
    next: AtomicUsize,
}

impl Readers {
    /// For a file that was opened for writing before.
    pub(super) fn open(path: &Path) -> Result<Self, CollectorError> {
        let open = || schema::open_reader(path).map(Mutex::new);
        Ok(Self { connections: [open()?, open()?, open()?, open()?], next: AtomicUsize::new(0) })
    }

    /// A connection that nobody else uses. Waits for one if all are in use.
    pub(super) fn take(&self) -> MutexGuard<'_, Connection> {
        for connection in &self.connections {
            match connection.try_lock() {
                Ok(free) => return free,
                Err(TryLockError::Poisoned(free)) => return free.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.connections[next % CONNECTIONS])
    }
}
