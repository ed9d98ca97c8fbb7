//! Spans of activity and client code.

use std::{
    any::Any,
    borrow::Cow,
    fmt,
    future::Future,
    iter,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use durable_spans_model::{
    AsyncPlace, Children, Draft, Outcome, Place, Recording, Seed, Span, SpanBuilder, SpanGuard,
    SpanHandle, SpanId, Timestamp, TraceContext,
};
use durable_spans_workflow::log_span;
use tokio::task::futures::TaskLocalFuture;
use tracing::{Instrument, instrument::Instrumented};
use uuid::Uuid;

use crate::{FanOut, logs, outcome};

tokio::task_local! {
    /// Set around the body of an activity. Survives its awaits, ends at `tokio::spawn`.
    static CURRENT: Current;
}

/// Where in the trace the code that is running now stands.
#[derive(Clone)]
pub struct Current {
    context: TraceContext,
    /// `None` where the trace is known and no span of it is recorded here.
    pub(crate) span: Option<LocalRecording>,
}

impl Current {
    /// What `tracing` shows of code that stands here. Made inside, so that its layers see that.
    fn log_span(&self) -> tracing::Span {
        CURRENT.sync_scope(self.clone(), || log_span(&self.context))
    }

    fn within<F: Future>(self, future: F) -> Within<F> {
        let log_span = self.log_span();
        CURRENT.scope(self, future.instrument(log_span))
    }

    fn enter<R>(self, work: impl FnOnce() -> R) -> R {
        let log_span = self.log_span();
        CURRENT.sync_scope(self, || log_span.in_scope(work))
    }
}

/// Where the code that is running now stands: in the innermost of our own spans and of the `tracing`
/// spans that are recorded.
fn current() -> Option<Current> {
    innermost(|| logs::recorded(&tracing::Span::current()))
}

/// Where code inside of the recorded `tracing` span `traced` stands. That may be the outer one of the
/// two. And one from another trace than the one that was set by hand does not count.
pub(crate) fn innermost(traced: impl FnOnce() -> Option<LocalRecording>) -> Option<Current> {
    match CURRENT.try_with(Current::clone) {
        Ok(Current { span: Some(ours), .. }) => {
            let traced = traced().filter(|traced| traced.is_below(&ours));
            Some(traced.unwrap_or(ours).inside())
        }
        Ok(without_span) => Some(without_span),
        // Code that was spawned inside of a `tracing` span.
        Err(_) => Some(traced()?.inside()),
    }
}

/// A span in activity or client code that ends with this guard.
pub type LocalSpan = SpanGuard<LocalRecording>;

/// A span of activity or client code. It is sent when it has ended.
#[derive(Clone)]
pub struct LocalRecording {
    shared: Arc<Shared>,
}

struct Shared {
    /// What is below it needs to know.
    context: TraceContext,
    id: SpanId,
    /// The span that it hangs under, if that is recorded here.
    above: Option<LocalRecording>,
    /// `None` when it has ended.
    span: Mutex<Option<Span>>,
    children: Mutex<Children>,
    deliverer: FanOut,
}

impl LocalRecording {
    /// A span that has begun, in the trace that `context` tells. Nothing is recorded where that is
    /// not sampled, but what is started from here learns it.
    pub(crate) fn new(span: Span, context: &TraceContext, deliverer: FanOut) -> Self {
        Self::under(None, span, context, deliverer)
    }

    fn under(
        above: Option<Self>,
        mut span: Span,
        context: &TraceContext,
        deliverer: FanOut,
    ) -> Self {
        if context.sampled {
            deliverer.begin(&mut span);
        }
        let id = span.id.clone();
        let context = TraceContext { span_id: Some(id.clone()), ..context.clone() };
        let span = Mutex::new(context.sampled.then_some(span));
        let children = Mutex::default();
        Self { shared: Arc::new(Shared { context, id, above, span, children, deliverer }) }
    }

    /// Begins a span below this one.
    fn child(&self, draft: &mut Draft<Self>) -> Self {
        let Shared { context, id, children, deliverer, .. } = &*self.shared;
        let derived = |name: &str| {
            // The parent's id is unique already.
            let seed = Seed::new(0, "local");
            lock(children).next_id(seed, Some(id), name, 0, |_| None)
        };
        let child = draft.id.take().unwrap_or_else(|| derived(&draft.span.name));
        let mut span = draft.take_span();
        span.id = child;
        span.trace_id.clone_from(&context.trace_id);
        span.start_timestamp = self.now();
        span.parent_id = Some(id.clone());
        span.group_id.clone_from(&context.group_id);
        span.share(&context.shared);
        Self::under(Some(self.clone()), span, context, deliverer.clone())
    }

    /// Whether it hangs under `other`, at any depth.
    fn is_below(&self, other: &Self) -> bool {
        iter::successors(self.shared.above.as_ref(), |span| span.shared.above.as_ref())
            .any(|above| Arc::ptr_eq(&above.shared, &other.shared))
    }

    /// Takes the span, which has ended then.
    pub(crate) fn take(&self) -> Option<Span> {
        lock(&self.shared.span).take()
    }

    /// The code inside of this span.
    pub(crate) fn inside(&self) -> Current {
        Current { context: self.shared.context.clone(), span: Some(self.clone()) }
    }
}

impl Recording for LocalRecording {
    fn update(&self, change: impl FnOnce(&mut Span)) {
        if let Some(span) = lock(&self.shared.span).as_mut() {
            change(span);
        }
    }

    fn end(&self, outcome: Outcome) {
        let Some(mut span) = self.take() else { return };
        span.finish(outcome, self.now());
        self.shared.deliverer.queue_span(span);
    }

    fn id(&self) -> &SpanId {
        &self.shared.id
    }

    fn trace_context(&self) -> Option<TraceContext> {
        Some(self.shared.context.clone())
    }

    fn now(&self) -> Timestamp {
        Timestamp::from(SystemTime::now())
    }

    fn outcome_of<E: fmt::Display + Any>(error: &E) -> Outcome {
        outcome::of_user(error)
    }
}

impl fmt::Debug for LocalRecording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalRecording").field("id", &self.shared.id).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Activity and client code, as a place where spans begin: under the current span.
#[derive(Clone, Copy, Debug)]
pub struct Here;

impl Place for Here {
    type Recording = LocalRecording;

    fn begin(&self, draft: &mut Draft<LocalRecording>) -> Option<LocalRecording> {
        let parent = draft.parent.take();
        let parent = parent.or_else(|| current()?.span)?;
        Some(parent.child(draft))
    }

    fn enter<R>(&self, span: &LocalRecording, work: impl FnOnce() -> R) -> R {
        span.inside().enter(work)
    }
}

impl AsyncPlace for Here {
    type Within<F: Future> = Within<F>;

    fn within<F: Future>(&self, span: &LocalRecording, future: F) -> Within<F> {
        span.inside().within(future)
    }
}

/// Client code outside of any span, as a place where the spans begin that hang under `context`: the
/// first one of a trace, or of this process's part of it.
#[derive(Clone)]
pub struct InTrace {
    context: TraceContext,
    deliverer: FanOut,
}

impl InTrace {
    /// Spans of the trace that `context` tells, delivered by `deliverer`.
    pub fn new(context: TraceContext, deliverer: FanOut) -> Self {
        Self { context, deliverer }
    }
}

impl Place for InTrace {
    type Recording = LocalRecording;

    fn begin(&self, draft: &mut Draft<LocalRecording>) -> Option<LocalRecording> {
        if let Some(parent) = draft.parent.take() {
            return Some(parent.child(draft));
        }
        let TraceContext { trace_id, span_id, group_id, shared, .. } = &self.context;
        let random = || SpanId::from_bits(Uuid::new_v4().as_u128());
        let id = draft.id.take().unwrap_or_else(random);
        let mut span = draft.take_span();
        span.id = id;
        span.trace_id.clone_from(trace_id);
        span.start_timestamp = Timestamp::from(SystemTime::now());
        span.parent_id.clone_from(span_id);
        span.group_id.clone_from(group_id);
        span.share(shared);
        Some(LocalRecording::new(span, &self.context, self.deliverer.clone()))
    }

    fn enter<R>(&self, span: &LocalRecording, work: impl FnOnce() -> R) -> R {
        Here.enter(span, work)
    }
}

impl AsyncPlace for InTrace {
    type Within<F: Future> = Within<F>;

    fn within<F: Future>(&self, span: &LocalRecording, future: F) -> Within<F> {
        Here.within(span, future)
    }
}

impl fmt::Debug for InTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InTrace").field("trace_id", &self.context.trace_id).finish_non_exhaustive()
    }
}

/// A future with its current span.
pub type Within<F> = TaskLocalFuture<Current, Instrumented<F>>;

/// Begins to describe a span in activity or client code, under the current span. Where there is none,
/// nothing is recorded. Workflow code has `ctx.span(…)` instead.
///
/// It is sent when it has ended, and like every span of activity code it is not part of the
/// workflow's history: what is not sent when the process dies is lost.
///
/// ```
/// use durable_spans_activity::span;
///
/// # async fn activity() -> Result<usize, std::io::Error> {
/// let words = span("count words")
///     .input("file", "README.md")
///     .try_scope(async {
///         let text = tokio::fs::read_to_string("README.md").await?;
///         Ok::<_, std::io::Error>(text.split_whitespace().count())
///     })
///     .await?;
/// # Ok(words)
/// # }
/// ```
pub fn span(name: impl Into<Cow<'static, str>>) -> SpanBuilder<Here> {
    SpanBuilder::new(Here, name)
}

/// The span that this activity or client code is in: the innermost scope, or that of the activity
/// attempt. Not inherited by what the code spawns (`tokio::spawn`, `spawn_blocking`): take it before,
/// and hand it over, or let the spawned code run [`within`] it. A synchronous activity, which the SDK
/// runs on a thread of its own, has none.
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
pub fn current_span() -> SpanHandle<LocalRecording> {
    SpanHandle::new(current().and_then(|current| current.span))
}

/// The trace context of this task: that of its activity, or the one set by [`in_trace`].
pub fn current_context() -> Option<TraceContext> {
    Some(current()?.context)
}

/// Runs `future` with `span` as the current one. The span does not end with it.
///
/// ```
/// # async fn activity() {
/// use durable_spans_activity::{current_span, span, within};
///
/// let here = current_span();
/// let spawned = tokio::spawn(async move {
///     within(&here, async { span("in another task").start().end() }).await;
/// });
/// # spawned.await.unwrap();
/// # }
/// ```
pub async fn within<F: Future>(span: &SpanHandle<LocalRecording>, future: F) -> F::Output {
    match span.recording() {
        Some(recording) => Here.within(recording, future).await,
        None => future.await,
    }
}

/// Runs the body of an activity in its span.
pub(crate) async fn in_span<F: Future>(span: &LocalRecording, future: F) -> F::Output {
    Here.within(span, future).await
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
    Current { context, span: None }.within(future).await
}
