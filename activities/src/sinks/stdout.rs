use std::io::{self, Write};

use futures::{FutureExt, future::BoxFuture};

use crate::{Contract, SinkError, SpanBatch, SpanSink};

/// Writes each span, when it has ended, as a line of JSON to the standard output.
///
/// ```no_run
/// use durable_spans_activity::{Deliverer, StdoutSink};
///
/// let deliverer = Deliverer::new(StdoutSink::new());
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct StdoutSink;

impl StdoutSink {
    /// The standard output of the process.
    pub const fn new() -> Self {
        Self
    }
}

impl SpanSink for StdoutSink {
    fn upsert_batch<'a>(&'a self, batch: &'a SpanBatch) -> BoxFuture<'a, Result<(), SinkError>> {
        let lines = lines(batch);
        async move {
            // The reader of a pipe can be slow.
            let written = tokio::task::spawn_blocking(move || {
                let mut stdout = io::stdout().lock();
                stdout.write_all(&lines)?;
                stdout.flush()
            });
            written.await.map_err(SinkError::retryable)?.map_err(SinkError::retryable)
        }
        .boxed()
    }

    fn contract(&self) -> Contract {
        Contract::append_only()
    }

    fn name(&self) -> &str {
        "stdout"
    }
}

/// The spans as JSON, each on a line of its own.
pub(crate) fn lines(batch: &SpanBatch) -> Vec<u8> {
    let mut lines = Vec::with_capacity(batch.encoded_len() + batch.len());
    for span in batch.encoded() {
        lines.extend_from_slice(span.json().as_bytes());
        lines.push(b'\n');
    }
    lines
}
