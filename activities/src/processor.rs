use std::{
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
};

use durable_spans_model::{Span, SpanId, TraceId};
use futures::future::{self, BoxFuture, FutureExt};

use crate::{Contract, SinkError, SpanBatch, SpanSink};

/// How many spans that have begun are remembered until they end.
const REMEMBERED: usize = 100_000;

/// Is told of spans outside of workflow code, where it may do whatever it likes: count them, tell
/// another system, keep the slow ones.
///
/// It is told of each span once in a process, in the order of their delivery: that it began, as soon
/// as that is known here (of a workflow's spans, with a flush), and that it ended. It must not block
/// for long, for that holds back what comes after, of this processor only. Several are independent of
/// each other. What changes spans, or must be called at the very time when they begin and end, is a
/// [`SpanHook`](durable_spans_model::SpanHook).
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use durable_spans_activity::SpanProcessor;
/// use durable_spans_model::{Span, SpanStatus};
///
/// #[derive(Default)]
/// struct Failures(AtomicU64);
///
/// impl SpanProcessor for Failures {
///     fn on_end(&self, span: &Span) {
///         if span.status == SpanStatus::Error {
///             self.0.fetch_add(1, Ordering::Relaxed);
///         }
///     }
/// }
/// ```
pub trait SpanProcessor: Send + Sync + 'static {
    /// A span has begun. It is as it was then, or, where it ended before anybody was told, as it
    /// ended.
    fn on_start(&self, span: &Span) {
        let _ = span;
    }

    /// A span has ended.
    fn on_end(&self, span: &Span) {
        let _ = span;
    }

    /// Hands on what the processor keeps back. Called at the end of a flush of the process.
    fn force_flush(&self) -> BoxFuture<'_, ()> {
        future::ready(()).boxed()
    }

    /// The process ends: nothing comes after this.
    fn shutdown(&self) -> BoxFuture<'_, ()> {
        future::ready(()).boxed()
    }
}

/// A processor as a sink: so it has a queue of its own, and is told of no span twice.
pub struct ProcessorSink {
    processor: Arc<dyn SpanProcessor>,
    started: Mutex<HashSet<(TraceId, SpanId)>>,
}

impl ProcessorSink {
    /// The sink that tells `processor`.
    pub fn new(processor: Arc<dyn SpanProcessor>) -> Self {
        Self { processor, started: Mutex::default() }
    }

    fn tell(&self, span: &Span) {
        let key = (span.trace_id.clone(), span.id.clone());
        let ended = span.end_timestamp.is_some();
        let begins = {
            let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
            if started.len() >= REMEMBERED {
                started.clear();
            }
            if ended { !started.remove(&key) } else { started.insert(key) }
        };
        if begins {
            self.processor.on_start(span);
        }
        if ended {
            self.processor.on_end(span);
        }
    }
}

impl SpanSink for ProcessorSink {
    fn upsert_batch<'a>(&'a self, batch: &'a SpanBatch) -> BoxFuture<'a, Result<(), SinkError>> {
        for span in batch.spans() {
            // A processor that panics loses this span, and holds nothing up.
            if catch_unwind(AssertUnwindSafe(|| self.tell(span))).is_err() {
                tracing::warn!(span_id = %span.id, name = &*span.name, "a span processor panicked");
            }
        }
        future::ready(Ok(())).boxed()
    }

    fn contract(&self) -> Contract {
        Contract::create_then_finish()
    }

    fn name(&self) -> &str {
        "processor"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use durable_spans_model::Timestamp;

    #[derive(Default)]
    struct Log(Mutex<Vec<String>>);

    impl Log {
        fn note(&self, what: &str, span: &Span) {
            self.0.lock().unwrap().push(format!("{what} {}", span.name));
        }
    }

    impl SpanProcessor for Log {
        fn on_start(&self, span: &Span) {
            assert_ne!(span.name, "bad");
            self.note("start", span);
        }

        fn on_end(&self, span: &Span) {
            self.note("end", span);
        }
    }

    fn span(id: u128, name: &'static str, ended: bool) -> Span {
        let at = Timestamp::from_unix_ns(0);
        let mut span = Span::new(TraceId::from_bits(1), SpanId::from_bits(id), name, at);
        span.end_timestamp = ended.then_some(at);
        span
    }

    #[test]
    fn each_span_starts_before_it_ends_and_a_panic_harms_no_other() {
        let log = Arc::new(Log::default());
        let sink = ProcessorSink::new(log.clone());
        let batch = [
            span(1, "long", false),
            span(2, "bad", true),
            span(3, "short", true),
            span(1, "long", true),
        ];
        let told = sink.upsert_batch(&batch.into_iter().collect()).now_or_never();
        assert!(told.is_some_and(|told| told.is_ok()));
        assert_eq!(*log.0.lock().unwrap(), ["start long", "start short", "end short", "end long"]);
    }
}
