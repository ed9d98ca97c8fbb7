use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use futures::{FutureExt, future::BoxFuture};

use crate::{Contract, SinkError, SpanBatch, SpanSink, sinks::stdout::lines};

/// Writes each span, when it has ended, as a line of JSON into a file.
///
/// When the file would grow beyond [`max_bytes`](Self::max_bytes), it is renamed to `{path}.1`,
/// what was `{path}.1` to `{path}.2` and so on; of these, [`keep`](Self::keep) stay. A batch goes
/// into the file as a whole or not at all: what a disk that is full took of it is cut off again,
/// and the batch is kept and sent again. Lines are handed to the operating system and not synced
/// to the disk, so they survive the end of the process, and not that of the machine.
///
/// One process per file: two that rotate the same file lose lines.
///
/// ```no_run
/// use durable_spans_activity::FileSink;
///
/// let sink = FileSink::open("spans.jsonl")?.max_bytes(50_000_000).keep(3);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct FileSink {
    path: PathBuf,
    max_bytes: u64,
    keep: usize,
    open: Arc<Mutex<Option<Open>>>,
}

/// The file that is written to.
struct Open {
    file: File,
    bytes: u64,
}

impl FileSink {
    /// Appends to the file at `path`, and makes it if it is not there.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened for writing.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let open = Open::at(&path)?;
        let open = Arc::new(Mutex::new(Some(open)));
        Ok(Self { path, max_bytes: 100_000_000, keep: 5, open })
    }

    /// Most bytes of the file, unless a single batch is larger. Default: 100 MB.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// How many full files stay beside the one that is written to. Older ones are deleted. Default:
    /// 5.
    #[must_use]
    pub fn keep(mut self, files: usize) -> Self {
        self.keep = files;
        self
    }

    fn write(&self, lines: &[u8]) -> io::Result<()> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let current = match open.take() {
            Some(current) => current,
            None => Open::at(&self.path)?,
        };
        let full = current.bytes > 0 && current.bytes + lines.len() as u64 > self.max_bytes;
        let current = if full {
            drop(current);
            self.rotate()?;
            Open::at(&self.path)?
        } else {
            current
        };
        // Where writing fails, the next call opens the file anew.
        *open = Some(current.append(lines)?);
        Ok(())
    }

    fn rotate(&self) -> io::Result<()> {
        if self.keep == 0 {
            return fs::remove_file(&self.path);
        }
        for number in (1..self.keep).rev() {
            match fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, self.numbered(1))
    }

    fn numbered(&self, number: usize) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

impl Open {
    fn at(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        let mut bytes = file.metadata()?.len();
        // A process that was killed while it wrote leaves half a line, which must not spoil the next.
        if bytes > 0 && !ends_with_a_line(&mut file)? {
            file.write_all(b"\n")?;
            bytes += 1;
        }
        Ok(Self { file, bytes })
    }

    fn append(mut self, lines: &[u8]) -> io::Result<Self> {
        if let Err(error) = self.file.write_all(lines) {
            // Half a line would spoil the file for readers, and the batch comes again.
            let _ = self.file.set_len(self.bytes);
            return Err(error);
        }
        self.bytes += lines.len() as u64;
        Ok(self)
    }
}

fn ends_with_a_line(file: &mut File) -> io::Result<bool> {
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

impl SpanSink for FileSink {
    fn upsert_batch<'a>(&'a self, batch: &'a SpanBatch) -> BoxFuture<'a, Result<(), SinkError>> {
        let (sink, lines) = (self.clone(), lines(batch));
        async move {
            // A disk can be slow, and the worker's threads have other work.
            let written = tokio::task::spawn_blocking(move || sink.write(&lines)).await;
            written.map_err(SinkError::retryable)?.map_err(|error| {
                let path = self.path.display();
                // What was written of the batch was cut off again.
                SinkError::retryable(format!("cannot write spans to {path}: {error}")).not_stored()
            })
        }
        .boxed()
    }

    fn contract(&self) -> Contract {
        Contract::append_only()
    }

    fn name(&self) -> &str {
        "file"
    }
}

impl fmt::Debug for FileSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSink")
            .field("path", &self.path)
            .field("max_bytes", &self.max_bytes)
            .field("keep", &self.keep)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use durable_spans_model::{Span, SpanId, Timestamp, TraceId};

    use super::*;

    fn batch(ids: impl IntoIterator<Item = u128>) -> SpanBatch {
        let start = Timestamp::from_unix_ns(0);
        ids.into_iter()
            .map(|id| Span::new(TraceId::from_bits(1), SpanId::from_bits(id), "a\nb", start))
            .collect()
    }

    fn ids(path: impl AsRef<Path>) -> Vec<u128> {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.ends_with('\n'));
        text.lines()
            .map(|line| serde_json::from_str::<Span>(line).unwrap().id.bits().unwrap())
            .collect()
    }

    #[tokio::test]
    async fn each_span_is_a_line_that_reads_back_and_a_restart_appends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spans.jsonl");
        FileSink::open(&path).unwrap().upsert_batch(&batch(1..=3)).await.unwrap();
        FileSink::open(&path).unwrap().upsert_batch(&batch([4])).await.unwrap();
        assert_eq!(ids(&path), [1, 2, 3, 4]);
        let error = FileSink::open(dir.path()).unwrap_err();
        assert!(error.kind() != io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn full_files_are_renamed_and_the_oldest_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spans.jsonl");
        let bytes = lines(&batch(0..10)).len() as u64;
        let sink = FileSink::open(&path).unwrap().max_bytes(bytes).keep(2);
        for first in (0..50).step_by(5) {
            sink.upsert_batch(&batch(first..first + 5)).await.unwrap();
        }
        let numbered = |number| dir.path().join(format!("spans.jsonl.{number}"));
        assert_eq!(ids(&path), (40..50).collect::<Vec<_>>());
        assert_eq!(ids(numbered(1)), (30..40).collect::<Vec<_>>());
        assert_eq!(ids(numbered(2)), (20..30).collect::<Vec<_>>());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    #[tokio::test]
    async fn half_a_line_of_a_killed_process_does_not_spoil_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spans.jsonl");
        fs::write(&path, r#"{"name":"hal"#).unwrap();
        FileSink::open(&path).unwrap().upsert_batch(&batch([1])).await.unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let whole = text.lines().filter(|line| serde_json::from_str::<Span>(line).is_ok());
        assert_eq!((text.lines().count(), whole.count()), (2, 1));
    }

    /// A real disk that is full: the device of that name takes nothing.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_full_disk_is_an_outage_that_names_the_file() {
        let sink = FileSink::open("/dev/full").unwrap();
        let error = sink.upsert_batch(&batch([1])).await.unwrap_err();
        assert!(error.is_retryable());
        assert!(error.to_string().starts_with("cannot write spans to /dev/full: "), "{error}");
    }

    #[tokio::test]
    async fn a_file_that_is_taken_away_is_written_anew_after_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spans.jsonl");
        let sink = FileSink::open(&path).unwrap().max_bytes(1).keep(0);
        sink.upsert_batch(&batch([1])).await.unwrap();
        sink.upsert_batch(&batch([2])).await.unwrap();
        assert_eq!(ids(&path), [2]);
    }
}
