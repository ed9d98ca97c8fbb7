//! The activities: all I/O and all heavy work.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use durable_spans::current_span;
use serde::{Deserialize, Serialize};
use temporalio_common::error::ApplicationFailure;
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};

use crate::{
    files::Group,
    pipeline::Findings,
    text::{self, Document, Term},
};

/// Larger files are left out.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Sentences of a group's summary.
const SUMMARY_SENTENCES: usize = 2;

/// Work on the files of one folder.
pub(crate) struct TextWork {
    pub(crate) root: PathBuf,
    /// A file that cannot be had at the first attempt, so that there is a retry to see.
    pub(crate) locked: Option<String>,
    pub(crate) progress: Arc<Progress>,
}

/// What has been done so far.
#[derive(Default)]
pub(crate) struct Progress {
    pub(crate) files: AtomicUsize,
    pub(crate) groups: AtomicUsize,
}

/// What came of a file.
#[derive(Serialize, Deserialize)]
pub(crate) enum Reading {
    Read(Document),
    /// With a note for the user.
    Skipped(String),
}

#[activities]
impl TextWork {
    /// Reads a file and counts its terms.
    #[activity(name = "read_terms")]
    pub(crate) async fn read_terms(
        self: Arc<Self>,
        ctx: ActivityContext,
        file: String,
    ) -> Result<Reading, ActivityError> {
        let span = current_span();
        span.input("file", &file);
        if ctx.info().attempt == 1 && self.locked.as_ref() == Some(&file) {
            return Err(failure("FileLocked", format!("{file} is being written, try again")));
        }
        let path = self.root.join(&file);
        let reading = off_thread(move || read(&path).map(|text| text::tokenize(&text))).await?;
        self.progress.files.fetch_add(1, Ordering::Relaxed);
        match &reading {
            Ok(document) => span.output("words", document.words),
            Err(reason) => span.output("skipped", reason),
        }
        Ok(match reading {
            Ok(document) => Reading::Read(document),
            Err(reason) => Reading::Skipped(format!("{file}: {reason}")),
        })
    }

    /// Finds the terms that tell most about the documents of a group.
    #[activity(name = "rank_terms")]
    pub(crate) async fn rank_terms(
        _ctx: ActivityContext,
        documents: Vec<Document>,
    ) -> Result<Vec<Term>, ActivityError> {
        let terms = off_thread(move || text::rank(&documents)).await?;
        current_span().output("terms", terms.iter().map(|term| &term.word).collect::<Vec<_>>());
        Ok(terms)
    }

    /// Picks the sentences of a group's files that say most about its terms, the best one first.
    #[activity(name = "summarise")]
    pub(crate) async fn summarise(
        self: Arc<Self>,
        _ctx: ActivityContext,
        group: Group,
        terms: Vec<Term>,
    ) -> Result<Vec<String>, ActivityError> {
        let root = self.root.clone();
        let summary = off_thread(move || {
            let texts = group.files.iter().filter_map(|file| read(&root.join(file)).ok());
            let mut best: Vec<_> =
                texts.filter_map(|text| text::best_sentence(&text, &terms)).collect();
            best.sort_by(|a, b| b.0.total_cmp(&a.0));
            best.truncate(SUMMARY_SENTENCES);
            best.into_iter().map(|(_, sentence)| sentence).collect::<Vec<_>>()
        });
        let summary = summary.await?;
        self.progress.groups.fetch_add(1, Ordering::Relaxed);
        current_span().output("sentences", &summary);
        Ok(summary)
    }

    /// Writes up what was found.
    #[activity(name = "write_report")]
    pub(crate) async fn write_report(
        _ctx: ActivityContext,
        findings: Findings,
    ) -> Result<String, ActivityError> {
        Ok(findings.report())
    }
}

/// Reads a text file. An error is a note for the user: a file that is no text, or that is gone, is
/// no reason to stop.
fn read(path: &Path) -> Result<String, String> {
    let size = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > MAX_FILE_BYTES {
        return Err(format!("is larger than {} KiB", MAX_FILE_BYTES / 1024));
    }
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    if bytes.contains(&0) {
        return Err("is not text".to_owned());
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_owned())
}

/// Keeps the worker's own threads free.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ActivityError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| failure("Panic", error.to_string()))
}

fn failure(kind: &str, message: String) -> ActivityError {
    ApplicationFailure::builder(message).type_name(kind.to_owned()).build().into()
}
