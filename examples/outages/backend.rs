//! What is behind a sink: a server that fails on demand, or a disk that does.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Context, Result};
use durable_spans::{Span, TraceId};
use durable_spans_test_sink::{Fault, FaultySink};

use crate::class::Class;

/// How long a server takes when it works, as if it were somewhere else.
const LATENCY: Duration = Duration::from_millis(20);

/// A device that is always full.
const FULL_DISK: &str = "/dev/full";

pub(crate) struct Backend {
    class: Class,
    kind: Kind,
}

enum Kind {
    Server(FaultySink),
    Disk(Disk),
}

/// What a backend holds of one span, once for each copy.
pub(crate) struct Stored {
    pub(crate) id: String,
    pub(crate) has_ended: bool,
}

impl Backend {
    /// One that works, with everything that it keeps in `folder`.
    pub(crate) async fn start(class: Class, folder: &Path) -> Result<Self> {
        let kind = if class == Class::File {
            Kind::Disk(Disk::new(folder)?)
        } else {
            let server = FaultySink::start(folder.join("spans.sqlite")).await?;
            server.answer_after(LATENCY);
            Kind::Server(server)
        };
        Ok(Self { class, kind })
    }

    /// The URL of the server, or the path of the file.
    pub(crate) fn target(&self) -> String {
        match &self.kind {
            Kind::Server(server) => server.url(),
            Kind::Disk(disk) => disk.link.display().to_string(),
        }
    }

    pub(crate) fn set(&self, fault: Fault) -> Result<()> {
        match &self.kind {
            Kind::Server(server) => server.set(fault),
            Kind::Disk(disk) => disk.set_full(matches!(fault, Fault::Errors))?,
        }
        Ok(())
    }

    /// Waits until a flush of a workflow is there that has not been acknowledged. A file
    /// acknowledges at once, but the run notes that with its next flush.
    pub(crate) async fn until_unacknowledged(&self) {
        match &self.kind {
            Kind::Server(server) => server.until_met(1).await,
            Kind::Disk(disk) => {
                while !disk.has_workflow_spans() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }

    /// Whether the fault was noticed.
    pub(crate) fn has_met_fault(&self) -> bool {
        match &self.kind {
            Kind::Server(server) => server.faults_met() > 0,
            Kind::Disk(disk) => disk.outages.load(Ordering::Relaxed) > 0,
        }
    }

    /// Requests that the server got; a file has none.
    pub(crate) fn calls(&self) -> u64 {
        match &self.kind {
            Kind::Server(server) => server.calls(),
            Kind::Disk(_) => 0,
        }
    }

    /// Ends every connection and refuses new ones, for that long.
    pub(crate) async fn be_away(&mut self, away: Duration) -> Result<()> {
        if let Kind::Server(server) = &mut self.kind {
            server.stop().await;
            tokio::time::sleep(away).await;
            server.start_again().await?;
        }
        Ok(())
    }

    /// All that there is of a trace.
    pub(crate) async fn stored(&self, trace: &TraceId) -> Result<Vec<Stored>> {
        let trace = self.class.trace_id(trace)?;
        let spans = match &self.kind {
            Kind::Server(server) => server.stored(&trace).await?,
            Kind::Disk(disk) => disk.read()?,
        };
        let mut stored = Vec::new();
        for span in &spans {
            // OpenAI's ingest makes a span of the trace itself.
            if span.id.to_string() == trace.to_string() {
                continue;
            }
            let copies = match &self.kind {
                Kind::Server(server) if self.class.keeps_copies() => {
                    server.copies(&trace, &span.id)
                }
                _ => 1,
            };
            stored.extend((0..copies).map(|_| self.row(span)));
        }
        Ok(stored)
    }

    fn row(&self, span: &Span) -> Stored {
        let ours = span.metadata.get("meta").and_then(|meta| meta["durable_spans_id"].as_str());
        let id = ours.map_or_else(|| span.id.to_string(), str::to_owned);
        Stored { id, has_ended: span.end_timestamp.is_some() }
    }
}

/// A file whose disk can be full: the path is a link, to the file or to a device that is full.
struct Disk {
    link: PathBuf,
    file: PathBuf,
    /// How often nothing could be written.
    outages: AtomicU64,
}

impl Disk {
    fn new(folder: &Path) -> Result<Self> {
        let outages = AtomicU64::new(0);
        let disk = Self { link: folder.join("link"), file: folder.join("spans.jsonl"), outages };
        fs::write(&disk.file, "")?;
        disk.set_full(false)?;
        Ok(disk)
    }

    fn set_full(&self, full: bool) -> Result<()> {
        let now = fs::read_link(&self.link).unwrap_or_default();
        if !full && now == Path::new(FULL_DISK) && self.read()?.is_empty() {
            self.outages.fetch_add(1, Ordering::Relaxed);
        }
        // A new link takes the place of the old one at once.
        let next = self.link.with_extension("next");
        symlink(if full { Path::new(FULL_DISK) } else { &self.file }, &next)?;
        fs::rename(next, &self.link).context("the link to the file cannot be set")
    }

    fn has_workflow_spans(&self) -> bool {
        let is_workflows = |span: &Span| {
            span.metadata.get("temporal.kind").is_none_or(|kind| kind != "activity_attempt")
        };
        self.read().is_ok_and(|spans| spans.iter().any(is_workflows))
    }

    /// The whole lines. A process that was killed may have left half of one.
    fn read(&self) -> io::Result<Vec<Span>> {
        let text = fs::read_to_string(&self.file)?;
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }
}
