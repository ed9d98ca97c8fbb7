//! What history adds to the spans that a replay gave: ends that no code saw, and the attempts of
//! activities.

use std::collections::{HashMap, HashSet};

use durable_spans_model::{Span, SpanId};
use serde_json::Value;

use super::{
    BACKFILLED,
    activities::{ActivityFacts, activities, local_activities},
    history::RunHistory,
    outcome::Close,
};

/// Completes the spans of a replay. Open ones get an end if the run has ended.
pub(super) fn complete(spans: &mut Vec<Span>, history: &RunHistory) {
    let [facts, local] = [activities(&history.events), local_activities(&history.events)];
    let mut calls = match_calls(spans, &facts);
    calls.extend(match_local_calls(spans, &local));
    let mut attempts = Vec::new();
    for (position, activity) in &calls {
        let call = &mut spans[*position];
        if history.ending.is_some()
            && call.end_timestamp.is_none()
            && let Some((at, close)) = &activity.closed
        {
            close.end(call, *at);
            call.metadata.insert(BACKFILLED.into(), true.into());
        }
        let group_id = call.group_id.as_ref();
        attempts.extend(activity.attempt_spans(&call.trace_id, &call.id, group_id));
    }
    for span in spans.iter_mut() {
        note_reset(span, history);
        end_with_run(span, history);
    }
    let own = own_ids(spans, history);
    attempts.retain(|attempt| attempt.parent_id.as_ref().is_some_and(|id| own.contains(id)));
    spans.retain(|span| own.contains(&span.id));
    spans.extend(attempts);
}

/// A replayer reports the run that was reset in place of the one that goes on, so the recorder could
/// not mark the spans of that.
pub(super) fn note_reset(span: &mut Span, history: &RunHistory) {
    let original = &history.started.original_execution_run_id;
    if *original == history.run_id || original.is_empty() {
        return;
    }
    span.metadata.insert("temporal.run_id".into(), history.run_id.as_str().into());
    if is_kind(span, "workflow") {
        span.metadata.insert("temporal.reset_of_run_id".into(), original.as_str().into());
    }
}

/// The spans that the run itself is to tell.
fn own_ids(spans: &[Span], history: &RunHistory) -> HashSet<SpanId> {
    let own = spans.iter().filter(|span| is_own(span, history));
    own.map(|span| span.id.clone()).collect()
}

/// Whether the run itself tells of a span, and not the one that goes on after a reset.
pub(super) fn is_own(span: &Span, history: &RunHistory) -> bool {
    history.told_from.is_none_or(|from| span.start_timestamp >= from)
}

/// Ends a span that is still open when its run has closed: the run itself as history says,
/// everything else as abandoned.
pub(super) fn end_with_run(span: &mut Span, history: &RunHistory) {
    let Some(ending) = &history.ending else { return };
    if span.end_timestamp.is_some() {
        return;
    }
    if is_kind(span, "workflow") {
        ending.close.end(span, ending.at);
        if let Some(identity) = &ending.terminated_by {
            span.metadata.insert("temporal.terminated_by".into(), identity.as_str().into());
        }
    } else {
        Close::Abandoned.end(span, ending.at);
    }
    span.metadata.insert(BACKFILLED.into(), true.into());
}

/// Which span is the call of which activity. Replay schedules activities in the order of history, and
/// spans come in the order of starting; where the two do not fit (a call that was cancelled before
/// it was sent), the header of the activity names its span.
fn match_calls<'a>(spans: &[Span], facts: &'a [ActivityFacts]) -> Vec<(usize, &'a ActivityFacts)> {
    let is_call = |span: &Span| is_kind(span, "activity") && !is_true(span, "temporal.local");
    let calls: Vec<usize> =
        (0..spans.len()).filter(|position| is_call(&spans[*position])).collect();
    let fits = |(position, fact): (&usize, &ActivityFacts)| {
        spans[*position].name == fact.activity_type
            && fact.span_id().is_none_or(|id| *id == spans[*position].id)
    };
    if calls.len() == facts.len() && calls.iter().zip(facts).all(fits) {
        return calls.into_iter().zip(facts).collect();
    }
    let positions: HashMap<&SpanId, usize> =
        calls.iter().map(|position| (&spans[*position].id, *position)).collect();
    let named = |fact: &'a ActivityFacts| Some((*positions.get(fact.span_id()?)?, fact));
    facts.iter().filter_map(named).collect()
}

/// Local activities have no header in history: only the order tells. What was never resolved has no
/// marker.
fn match_local_calls<'a>(
    spans: &[Span],
    facts: &'a [ActivityFacts],
) -> Vec<(usize, &'a ActivityFacts)> {
    let is_resolved = |span: &Span| {
        is_kind(span, "activity")
            && is_true(span, "temporal.local")
            && span.end_timestamp.is_some()
            && !is_true(span, "temporal.abandoned")
    };
    let calls: Vec<usize> =
        (0..spans.len()).filter(|position| is_resolved(&spans[*position])).collect();
    let names = calls.iter().map(|position| &spans[*position].name);
    match names.eq(facts.iter().map(|fact| &fact.activity_type)) {
        true => calls.into_iter().zip(facts).collect(),
        false => Vec::new(),
    }
}

fn is_kind(span: &Span, kind: &str) -> bool {
    span.metadata.get("temporal.kind").and_then(Value::as_str) == Some(kind)
}

fn is_true(span: &Span, name: &str) -> bool {
    span.metadata.get(name) == Some(&Value::Bool(true))
}
