//! What `tracing` is told of workflow code: the ids of the span that it is in, and whether it is
//! being replayed.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
};

use durable_spans_model::{SpanId, TraceContext};
use temporalio_workflow::workflow_interceptors::WorkflowInterceptorContext;
use tracing::Span;

use crate::run::Run;

/// The target of the `tracing` spans that carry `trace_id` and `span_id`.
pub const LOG_TARGET: &str = "durable_spans";

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Code {
    #[default]
    Other,
    Workflow,
    Replayed,
}

thread_local! {
    /// What this thread is running at this moment. Set while it polls workflow code, and then set
    /// back: a filter of events has no other way to learn it.
    static CODE: Cell<Code> = const { Cell::new(Code::Other) };
}

/// Whether the calling thread is running workflow code at this moment.
pub fn is_in_workflow() -> bool {
    code() != Code::Other
}

/// Whether the calling thread is running workflow code that ran before, to rebuild its state.
pub fn is_replaying() -> bool {
    code() == Code::Replayed
}

/// Also asked by destructors of threads that end, where thread-locals are gone.
fn code() -> Code {
    CODE.try_with(Cell::get).unwrap_or_default()
}

/// A `tracing` span with `trace_id` and `span_id`, for code where `context` is the current one.
///
/// Nothing is made where no subscriber listens. Its level is the highest, so that a filter by level,
/// which is meant for events, leaves it in.
pub fn log_span(context: &TraceContext) -> Span {
    tracing::error_span!(
        target: LOG_TARGET,
        "span",
        trace_id = %context.trace_id,
        span_id = context.span_id.as_ref().map(tracing::field::display),
    )
}

/// [`log_span`] of a span of a run, for which nothing is looked up where nobody listens.
pub(crate) fn log_span_of(run: &Run, span: &SpanId) -> Span {
    tracing::error_span!(
        target: LOG_TARGET,
        "span",
        trace_id = %run.context_below(span, false).trace_id,
        span_id = %span,
    )
}

/// Marks what the thread runs until the guard is dropped as code of this run.
pub(crate) fn mark(ctx: &WorkflowInterceptorContext) -> impl Drop + use<> {
    struct Guard(Code);
    impl Drop for Guard {
        fn drop(&mut self) {
            let _ = CODE.try_with(|code| code.set(self.0));
        }
    }
    let now = if ctx.is_replaying_history_events() { Code::Replayed } else { Code::Workflow };
    Guard(CODE.try_with(|code| code.replace(now)).unwrap_or_default())
}

/// Workflow code that starts at once and goes on in the future that it returns: marked, and inside of
/// `log_span`, in both.
pub(crate) fn logged<F: Future>(
    ctx: WorkflowInterceptorContext,
    log_span: Span,
    start: impl FnOnce() -> F,
) -> impl Future<Output = F::Output> {
    let future = {
        let _mark = mark(&ctx);
        log_span.in_scope(start)
    };
    async move {
        let mut future = pin!(future);
        poll_fn(|cx| {
            let _mark = mark(&ctx);
            log_span.in_scope(|| future.as_mut().poll(cx))
        })
        .await
    }
}
