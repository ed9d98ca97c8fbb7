use std::{any::Any, borrow::Cow, fmt::Display, future::Future, ops::Deref, rc::Rc};

use durable_spans_model::{Span, SpanError, SpanType, TraceContext, to_json};
use serde::Serialize;
use serde_json::{Map, Value};
use temporalio_workflow::{SyncWorkflowContext, WorkflowContext};

use crate::{
    outcome,
    recorder::{Outcome, Parent, SpanRef},
    run::Run,
    scope::{Scope, ScopeKey, Scoped},
};

/// Spans in workflow code: `ctx.span("name")`.
///
/// Implemented for [`WorkflowContext`] (workflows and async handlers) and [`SyncWorkflowContext`]
/// (sync handlers). Where the run is not traced (no interceptor, started before the install, not
/// sampled), every method works and records nothing.
///
/// The context of queries and update validators does not have these methods: replay repeats them
/// in no particular order, so they must not touch the buffer.
pub trait WorkflowSpans: Scoped + Sized {
    /// Begins to describe a span under the current one.
    ///
    /// ```
    /// use durable_spans_workflow::WorkflowSpans;
    /// use temporalio_workflow::{WorkflowContext, WorkflowResult};
    ///
    /// async fn step<W>(ctx: &mut WorkflowContext<W>) -> WorkflowResult<u32> {
    ///     let answer = ctx
    ///         .span("think")
    ///         .input("question", "6 x 7")
    ///         .try_scope(async { WorkflowResult::Ok(42) })
    ///         .await?;
    ///     Ok(answer)
    /// }
    /// ```
    fn span(&self, name: impl Into<Cow<'static, str>>) -> SpanBuilder<'_, Self> {
        SpanBuilder {
            ctx: self,
            name: name.into(),
            span_type: SpanType::default(),
            parent: None,
            input: Map::new(),
            metadata: Map::new(),
        }
    }

    /// The span that this code is in: the innermost scope, or the run's own span. To add what is
    /// known only inside of it.
    fn current_span(&self) -> SpanHandle {
        let live =
            self.scope().map(|scope| Live { run: scope.run.clone(), span: scope.current.clone() });
        SpanHandle { live }
    }

    /// The trace context of the current span, to be passed on by hand: in the input of an activity
    /// in another language, or in a message. `None` where the run is not traced.
    fn trace_context(&self) -> Option<TraceContext> {
        let scope = self.scope()?;
        Some(scope.run.context_below(scope.current.id(), false))
    }
}

impl<W> WorkflowSpans for WorkflowContext<W> {}
impl<W> WorkflowSpans for SyncWorkflowContext<W> {}

/// Describes a span before it begins. Made by [`WorkflowSpans::span`].
#[must_use = "a span begins with start(), in_scope(), scope() or try_scope()"]
pub struct SpanBuilder<'a, C> {
    ctx: &'a C,
    name: Cow<'static, str>,
    span_type: SpanType,
    parent: Option<SpanRef>,
    input: Map<String, Value>,
    metadata: Map<String, Value>,
}

impl<C: Scoped> SpanBuilder<'_, C> {
    /// What kind of work the span covers. Default [`SpanType::Standalone`].
    pub fn span_type(mut self, span_type: SpanType) -> Self {
        self.span_type = span_type;
        self
    }

    /// Adds a named value to what goes in. A value that serde cannot turn into JSON is noted as
    /// such in its place.
    pub fn input(mut self, name: impl Into<String>, value: impl Serialize) -> Self {
        self.input.insert(name.into(), to_json(value));
        self
    }

    /// Adds a named value to the metadata.
    pub fn metadata(mut self, name: impl Into<String>, value: impl Serialize) -> Self {
        self.metadata.insert(name.into(), to_json(value));
        self
    }

    /// Hangs the span under `parent` instead of the current span.
    pub fn child_of(mut self, parent: &WorkflowSpan) -> Self {
        self.parent = parent.handle.live.as_ref().map(|live| live.span.clone());
        self
    }

    /// Begins the span and returns a guard. The span ends when the guard is ended or dropped; it
    /// does not become the current span.
    pub fn start(self) -> WorkflowSpan {
        let Some(scope) = self.ctx.scope() else {
            return WorkflowSpan { handle: SpanHandle { live: None } };
        };
        let parent = Parent::Here(self.parent.unwrap_or_else(|| scope.current.clone()));
        let span = scope.run.start(Some(&parent), self.name, self.span_type);
        if let Some(span) = &span {
            scope.run.update(span, |span| {
                span.input = self.input;
                span.metadata.extend(self.metadata);
            });
        }
        let live = span.map(|span| Live { run: scope.run.clone(), span });
        WorkflowSpan { handle: SpanHandle { live } }
    }

    /// Runs `work` inside the span, which ends with it.
    pub fn in_scope<R>(self, work: impl FnOnce(&WorkflowSpan) -> R) -> R {
        let ctx = self.ctx;
        let span = self.start();
        match span.scope() {
            Some(scope) => ctx.within(scope, || work(&span)),
            None => work(&span),
        }
    }
}

impl<W> SpanBuilder<'_, WorkflowContext<W>> {
    /// Runs `future` inside the span, which is the current one across its awaits and ends with it.
    /// Dropped before its end (the losing branch of a `select`), the span is CANCELED.
    pub async fn scope<F: Future>(self, future: F) -> F::Output {
        let ctx = self.ctx;
        let mut span = CanceledOnDrop(self.start());
        let output = within(ctx, &span.0, future).await;
        span.0.finish(Outcome::Success);
        output
    }

    /// Like [`SpanBuilder::scope`], and an `Err` ends the span with ERROR and the error's type,
    /// message and category, or with CANCELED if it stands for a cancellation.
    pub async fn try_scope<T, E, F>(self, future: F) -> Result<T, E>
    where
        E: Display + Any,
        F: Future<Output = Result<T, E>>,
    {
        let ctx = self.ctx;
        let mut span = CanceledOnDrop(self.start());
        let result = within(ctx, &span.0, future).await;
        span.0.finish(match &result {
            Ok(_) => Outcome::Success,
            Err(error) => outcome::user_error(error),
        });
        result
    }
}

async fn within<W, F: Future>(
    ctx: &WorkflowContext<W>,
    span: &WorkflowSpan,
    future: F,
) -> F::Output {
    match span.scope() {
        Some(scope) => ctx.with_context_value::<ScopeKey, F>(scope, future).await,
        None => future.await,
    }
}

/// A span of this run, to add to while it is open. Has no effect on one that has ended, and where
/// the run is not traced.
pub struct SpanHandle {
    live: Option<Live>,
}

struct Live {
    run: Rc<Run>,
    span: SpanRef,
}

impl SpanHandle {
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

    /// The trace context of this span, `None` where the run is not traced.
    pub fn trace_context(&self) -> Option<TraceContext> {
        let live = self.live.as_ref()?;
        Some(live.run.context_below(live.span.id(), false))
    }

    fn scope(&self) -> Option<Scope> {
        let live = self.live.as_ref()?;
        Some(Scope { run: live.run.clone(), current: live.span.clone() })
    }

    fn update(&self, change: impl FnOnce(&mut Span)) {
        if let Some(live) = &self.live {
            live.run.update(&live.span, change);
        }
    }
}

/// A span that has begun, and ends with this guard: when dropped with SUCCESS, unless something
/// else was said. What can be added to it meanwhile is at [`SpanHandle`].
///
/// Eviction from the worker's cache drops it without ending the span: replay makes it again.
#[must_use = "dropping the guard ends the span"]
pub struct WorkflowSpan {
    handle: SpanHandle,
}

impl Deref for WorkflowSpan {
    type Target = SpanHandle;

    fn deref(&self) -> &SpanHandle {
        &self.handle
    }
}

impl WorkflowSpan {
    /// Ends the span with SUCCESS.
    pub fn end(mut self) {
        self.finish(Outcome::Success);
    }

    /// Ends the span with ERROR.
    pub fn fail(mut self, error: SpanError) {
        self.finish(Outcome::Error(error));
    }

    /// Ends the span with CANCELED.
    pub fn cancel(mut self) {
        self.finish(Outcome::Canceled);
    }

    fn finish(&mut self, outcome: Outcome) {
        if let Some(live) = self.handle.live.take() {
            live.run.end(&live.span, outcome);
        }
    }
}

impl Drop for WorkflowSpan {
    fn drop(&mut self) {
        self.finish(Outcome::Success);
    }
}

struct CanceledOnDrop(WorkflowSpan);

impl Drop for CanceledOnDrop {
    fn drop(&mut self) {
        self.0.finish(Outcome::Canceled);
    }
}
