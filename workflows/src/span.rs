use std::{any::Any, borrow::Cow, fmt::Display, future::Future, rc::Rc};

use durable_spans_model::{
    AsyncPlace, Draft, Outcome, Place, Recording, Span, SpanBuilder, SpanGuard, SpanHandle, SpanId,
    Timestamp, TraceContext,
};
use temporalio_workflow::{SyncWorkflowContext, WorkflowContext, WorkflowContextFuture};
use tracing::{Instrument, instrument::Instrumented};

use crate::{
    logs, outcome,
    recorder::{Parent, SpanRef},
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
    fn span(&self, name: impl Into<Cow<'static, str>>) -> SpanBuilder<InWorkflow<'_, Self>> {
        SpanBuilder::new(InWorkflow(self), name)
    }

    /// The span that this code is in: the innermost scope, or the run's own span. To add what is
    /// known only inside of it.
    fn current_span(&self) -> SpanHandle<WorkflowRecording> {
        SpanHandle::new(self.scope().map(|scope| WorkflowRecording::of(&scope)))
    }

    /// The trace context of the current span, to be passed on by hand: in the input of an activity
    /// in another language, or in a message. `None` where the run is not traced.
    fn trace_context(&self) -> Option<TraceContext> {
        self.current_span().trace_context()
    }
}

impl<W> WorkflowSpans for WorkflowContext<W> {}
impl<W> WorkflowSpans for SyncWorkflowContext<W> {}

/// A span in workflow code that ends with this guard.
pub type WorkflowSpan = SpanGuard<WorkflowRecording>;

/// Workflow code, as a place where spans begin.
#[derive(Debug)]
pub struct InWorkflow<'a, C>(&'a C);

/// A span of a run. Has no effect once the run has left memory.
#[derive(Clone)]
pub struct WorkflowRecording {
    run: Rc<Run>,
    span: SpanRef,
}

impl WorkflowRecording {
    fn of(scope: &Scope) -> Self {
        Self { run: scope.run.clone(), span: scope.current.clone() }
    }

    fn scope(&self) -> Scope {
        Scope { run: self.run.clone(), current: self.span.clone() }
    }

    fn log_span(&self) -> tracing::Span {
        logs::log_span_of(&self.run, self.span.id())
    }
}

impl Recording for WorkflowRecording {
    fn update(&self, change: impl FnOnce(&mut Span)) {
        self.run.update(&self.span, change);
    }

    fn end(&self, outcome: Outcome) {
        self.run.end(&self.span, outcome);
    }

    fn id(&self) -> &SpanId {
        self.span.id()
    }

    fn trace_context(&self) -> Option<TraceContext> {
        Some(self.run.context_below(self.span.id(), false))
    }

    fn now(&self) -> Timestamp {
        self.run.now()
    }

    fn outcome_of<E: Display + Any>(error: &E) -> Outcome {
        outcome::user_error(error)
    }
}

impl std::fmt::Debug for WorkflowRecording {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkflowRecording").field("id", self.span.id()).finish_non_exhaustive()
    }
}

impl<C: Scoped> Place for InWorkflow<'_, C> {
    type Recording = WorkflowRecording;

    fn begin(&self, draft: &mut Draft<WorkflowRecording>) -> Option<WorkflowRecording> {
        let scope = self.0.scope()?;
        let parent =
            draft.parent.take().map_or_else(|| scope.current.clone(), |parent| parent.span);
        let span = scope.run.start_draft(&Parent::Here(parent), draft)?;
        Some(WorkflowRecording { run: scope.run.clone(), span })
    }

    fn enter<R>(&self, span: &WorkflowRecording, work: impl FnOnce() -> R) -> R {
        self.0.within(span.scope(), || span.log_span().in_scope(work))
    }
}

impl<W> AsyncPlace for InWorkflow<'_, WorkflowContext<W>> {
    type Within<F: Future> = WorkflowContextFuture<Instrumented<F>>;

    fn within<F: Future>(&self, span: &WorkflowRecording, future: F) -> Self::Within<F> {
        let future = future.instrument(span.log_span());
        self.0.with_context_value::<ScopeKey, _>(span.scope(), future)
    }
}
