//! Spans of Nexus operations, as far as the SDK's experimental interface for them shows these.
//!
//! **They are no operations of the flush rule**, so that turning the cargo feature on or off is no
//! versioning event for runs that use Nexus.

use std::rc::Rc;

use durable_spans_model::{Outcome, SpanType, TraceParent};
use temporalio_workflow::{
    NexusOperationOptions,
    workflow_interceptors::{CancellableWorkflowOutboundFuture, StartNexusOperationResult},
};

use crate::{
    operation::Operation,
    outcome,
    recorder::{Parent, SpanRef},
    run::Run,
};

/// The header in which HTTP services look for the trace.
const TRACEPARENT: &str = "traceparent";

type Starting = CancellableWorkflowOutboundFuture<StartNexusOperationResult>;

/// Opens the span of an operation that is about to be scheduled, and tells the service of it.
pub(crate) fn schedule(
    run: &Rc<Run>,
    parent: SpanRef,
    options: &mut NexusOperationOptions,
) -> Operation {
    let NexusOperationOptions { endpoint, service, operation, .. } = &*options;
    let name = format!("{service}/{operation}");
    let kind = "nexus_operation";
    let span = Operation::start(run, &Parent::Here(parent), &name, SpanType::Custom, kind);
    span.note("temporal.nexus_endpoint", endpoint.as_str());
    let has_own = options.nexus_header.keys().any(|name| name.eq_ignore_ascii_case(TRACEPARENT));
    if let Some(parent) = traceparent(run, &span)
        && !has_own
    {
        options.nexus_header.insert(TRACEPARENT.to_owned(), parent.to_string());
    }
    span
}

/// Ends the span with the operation where that is done when it starts. The result of one that goes on
/// is shown to the user's code alone.
#[expect(clippy::result_large_err, reason = "the error is the SDK's")]
pub(crate) fn started(span: Operation, starting: Starting) -> Starting {
    starting.map(|started| {
        let outcome = match &started {
            Ok(started) => {
                if started.operation_token.is_some() {
                    span.note("temporal.nexus_result_unseen", true);
                }
                Outcome::Success
            }
            Err(failure) => outcome::nexus_start(failure),
        };
        span.finish(outcome);
        started
    })
}

fn traceparent(run: &Run, span: &Operation) -> Option<TraceParent> {
    let id = span.span()?.id();
    run.observed_below(id).or_else(|| TraceParent::of(&run.context_below(id, false).trace_id, id))
}
