//! The current span of activity and client code.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
};

use durable_spans_model::{Span, TraceContext};
use serde::Serialize;
use serde_json::Value;

tokio::task_local! {
    /// Set around the body of an activity. Survives its awaits, ends at `tokio::spawn`.
    static CURRENT: Current;
}

#[derive(Clone)]
struct Current {
    context: TraceContext,
    span: Option<ActivitySpan>,
}

/// The span of the activity attempt that is running, to add what is worth seeing.
///
/// Changes after the attempt has ended have no effect.
#[derive(Clone)]
pub struct ActivitySpan {
    span: Arc<Mutex<Option<Span>>>,
    context: TraceContext,
}

impl ActivitySpan {
    pub(crate) fn new(span: Span, context: TraceContext) -> Self {
        Self { span: Arc::new(Mutex::new(Some(span))), context }
    }

    /// Adds a named value to what goes in. A value that serde cannot turn into JSON is noted as
    /// such in its place.
    pub fn input(&self, name: impl Into<String>, value: impl Serialize) {
        self.update(|span| {
            span.input.insert(name.into(), json(value));
        });
    }

    /// Adds a named value to what came out.
    pub fn output(&self, name: impl Into<String>, value: impl Serialize) {
        self.update(|span| {
            span.output.insert(name.into(), json(value));
        });
    }

    /// Adds a named value to the metadata.
    pub fn metadata(&self, name: impl Into<String>, value: impl Serialize) {
        self.update(|span| {
            span.metadata.insert(name.into(), json(value));
        });
    }

    /// What a further part of the trace needs to know to hang under this span.
    pub fn trace_context(&self) -> &TraceContext {
        &self.context
    }

    pub(crate) fn take(&self) -> Option<Span> {
        self.span.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn update(&self, change: impl FnOnce(&mut Span)) {
        if let Some(span) = self.span.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            change(span);
        }
    }
}

/// The span of the activity attempt that this task is running, `None` outside of one or where it
/// is not traced. Not inherited by tasks that the activity spawns: hand it to them.
///
/// ```
/// # async fn activity() {
/// if let Some(span) = durable_spans_activity::current_span() {
///     span.output("rows", 17);
/// }
/// # }
/// ```
pub fn current_span() -> Option<ActivitySpan> {
    CURRENT.try_with(|current| current.span.clone()).ok().flatten()
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
    CURRENT.scope(Current { context, span: None }, future).await
}

pub(crate) async fn in_activity_span<F: Future>(span: ActivitySpan, future: F) -> F::Output {
    let context = span.context.clone();
    CURRENT.scope(Current { context, span: Some(span) }, future).await
}

fn json(value: impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_else(|_| Value::String("(not JSON)".into()))
}
