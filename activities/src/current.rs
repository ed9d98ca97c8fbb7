//! The current span of activity and client code.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
};

use durable_spans_model::{Span, TraceContext, to_json};
use serde::Serialize;

tokio::task_local! {
    /// Set around the body of an activity. Survives its awaits, ends at `tokio::spawn`.
    static CURRENT: Current;
}

#[derive(Clone)]
struct Current {
    context: TraceContext,
    span: ActivitySpan,
}

/// The span of the activity attempt that is running, to add what is worth seeing.
///
/// Has no effect where the activity is not traced, and after the attempt has ended.
#[derive(Clone, Default)]
pub struct ActivitySpan {
    live: Option<Live>,
}

#[derive(Clone)]
struct Live {
    span: Arc<Mutex<Option<Span>>>,
    context: TraceContext,
}

impl ActivitySpan {
    pub(crate) fn new(span: Span, context: TraceContext) -> Self {
        Self { live: Some(Live { span: Arc::new(Mutex::new(Some(span))), context }) }
    }

    /// Adds a named value to what goes in. A value that serde cannot turn into JSON is noted as
    /// such in its place.
    pub fn input(&self, name: impl Into<String>, value: impl Serialize) {
        self.update(|span| {
            span.input.insert(name.into(), to_json(value));
        });
    }

    /// Adds a named value to what came out.
    pub fn output(&self, name: impl Into<String>, value: impl Serialize) {
        self.update(|span| {
            span.output.insert(name.into(), to_json(value));
        });
    }

    /// Adds a named value to the metadata.
    pub fn metadata(&self, name: impl Into<String>, value: impl Serialize) {
        self.update(|span| {
            span.metadata.insert(name.into(), to_json(value));
        });
    }

    /// What a further part of the trace needs to know to hang under this span, `None` where the
    /// activity is not traced.
    pub fn trace_context(&self) -> Option<&TraceContext> {
        self.live.as_ref().map(|live| &live.context)
    }

    pub(crate) fn take(&self) -> Option<Span> {
        let live = self.live.as_ref()?;
        live.span.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn update(&self, change: impl FnOnce(&mut Span)) {
        if let Some(live) = &self.live
            && let Some(span) = live.span.lock().unwrap_or_else(PoisonError::into_inner).as_mut()
        {
            change(span);
        }
    }
}

/// The span of the activity attempt that this task is running. Not inherited by what the activity
/// spawns (`tokio::spawn`, `spawn_blocking`): take it before, and hand it over.
///
/// ```
/// # async fn activity() {
/// let span = durable_spans_activity::current_span();
/// let rows = tokio::task::spawn_blocking(move || {
///     span.metadata("thread", "blocking");
///     17
/// });
/// durable_spans_activity::current_span().output("rows", rows.await.unwrap());
/// # }
/// ```
pub fn current_span() -> ActivitySpan {
    CURRENT.try_with(|current| current.span.clone()).unwrap_or_default()
}

/// The trace context of this task: that of its activity, or the one set by [`in_trace`].
pub fn current_context() -> Option<TraceContext> {
    CURRENT.try_with(|current| current.context.clone()).ok()
}

/// Runs `future` with `context` as the trace context: workflows that it starts and signals that it
/// sends, through a client of ours, join that trace.
///
/// ```
/// use durable_spans_activity::{current_context, in_trace};
/// use durable_spans_model::{TraceContext, TraceId};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let context = TraceContext::new(TraceId::from_bits(7));
/// let seen = in_trace(context.clone(), async { current_context() }).await;
/// assert_eq!(seen, Some(context));
/// # }
/// ```
pub async fn in_trace<F: Future>(context: TraceContext, future: F) -> F::Output {
    CURRENT.scope(Current { context, span: ActivitySpan::default() }, future).await
}

pub(crate) async fn in_activity_span<F: Future>(
    span: ActivitySpan,
    context: TraceContext,
    future: F,
) -> F::Output {
    CURRENT.scope(Current { context, span }, future).await
}
