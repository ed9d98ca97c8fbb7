use std::{
    collections::HashSet,
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::Path,
    sync::{Mutex, PoisonError},
};

use super::error::BackfillError;

/// The ids of the closed runs that are done, one to a line, so that a backfill which was interrupted
/// goes on where it was.
pub(super) struct Journal {
    path: String,
    done: HashSet<String>,
    file: Mutex<File>,
}

impl Journal {
    pub(super) fn open(path: &Path) -> Result<Self, BackfillError> {
        let shown = path.display().to_string();
        let failed = |error| BackfillError::Journal { path: shown.clone(), error };
        let file = OpenOptions::new().create(true).read(true).append(true).open(path);
        let file = file.map_err(failed)?;
        let lines: Result<HashSet<_>, _> = BufReader::new(&file).lines().collect();
        let done = lines.map_err(failed)?;
        Ok(Self { path: shown, done, file: Mutex::new(file) })
    }

    /// Whether the run was done before this backfill began.
    pub(super) fn holds(&self, run_id: &str) -> bool {
        self.done.contains(run_id)
    }

    pub(super) fn add(&self, run_id: &str) -> Result<(), BackfillError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // One write, so that a line is there as a whole or not at all.
        let written = file.write_all(format!("{run_id}\n").as_bytes());
        written.map_err(|error| BackfillError::Journal { path: self.path.clone(), error })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_is_known_the_next_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let journal = Journal::open(&path).unwrap();
        journal.add("run-1").unwrap();
        assert!(!journal.holds("run-1"));
        let journal = Journal::open(&path).unwrap();
        assert!(journal.holds("run-1") && !journal.holds("run-2"));
        journal.add("run-2").unwrap();
        let journal = Journal::open(&path).unwrap();
        assert!(journal.holds("run-1") && journal.holds("run-2"));
        let error = Journal::open(folder.path()).err().unwrap().to_string();
        assert!(error.starts_with("the journal "), "{error}");
    }
}
