use durable_spans_model::Span;

use super::{kind, message};

/// The run of a child workflow that says what its call says, too: the only one, which ended alike,
/// or goes on in other runs until the call ends.
pub(super) fn run_of<'a>(
    call: &Span,
    mut children: impl Iterator<Item = &'a Span>,
) -> Option<&'a Span> {
    if kind(call)? != "child_workflow" {
        return None;
    }
    let run = children.next()?;
    let is_only = children.next().is_none() && kind(run) == Some("workflow");
    let ended_alike = call.end_timestamp.is_some() == run.end_timestamp.is_some()
        && call.status == run.status
        && message(call) == message(run);
    let goes_on = run.metadata.get("temporal.continued_as_new") == Some(&true.into());
    (is_only && call.name == run.name && (ended_alike || goes_on)).then_some(run)
}

/// How long the run waited for a worker, if that is worth a word.
pub(super) fn queued(call: &Span, run: &Span) -> Option<String> {
    super::queued(run.start_timestamp.since(call.start_timestamp))
}
