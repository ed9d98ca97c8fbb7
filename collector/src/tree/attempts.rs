use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Duration,
};

use durable_spans_model::{Span, SpanId};

use super::{kind, message};
use crate::lost::{self, Activity, Missing};

/// Which of these parents are attempts that left no span.
pub(super) fn missing<'a>(
    spans: &[&'a Span],
    parents: HashSet<&'a SpanId>,
) -> HashMap<&'a SpanId, Missing<'a>> {
    if parents.is_empty() {
        return HashMap::new();
    }
    let mut last: HashMap<&SpanId, u64> = HashMap::new();
    for span in spans.iter().filter(|span| kind(span) == Some("activity_attempt")) {
        if let (Some(activity), Some(number)) = (&span.parent_id, number(span)) {
            let last = last.entry(activity).or_default();
            *last = number.max(*last);
        }
    }
    let activities = spans.iter().filter(|span| kind(span) == Some("activity"));
    let activities = activities.map(|span| Activity {
        id: &span.id,
        has_ended: span.end_timestamp.is_some(),
        last: last.get(&span.id).copied().unwrap_or(0),
    });
    lost::find(parents, activities)
}

/// The attempt that says nothing which its activity does not say: the only one, which ended as the
/// activity did.
pub(super) fn only<'a>(span: &Span, children: impl Iterator<Item = &'a Span>) -> Option<&'a Span> {
    if kind(span)? != "activity" {
        return None;
    }
    let mut attempts = children.filter(|child| kind(child) == Some("activity_attempt"));
    let only = attempts.next()?;
    let ended = span.end_timestamp.is_some() && only.end_timestamp.is_some();
    let same = span.status == only.status && message(span) == message(only);
    (attempts.next().is_none() && number(only) == Some(1) && ended && same).then_some(only)
}

/// What a row says about attempts: how many an activity took, or which one this is. For an activity
/// that shares its row with its [`only`] attempt, how long that was queued.
///
/// Attempts are counted by the highest number, because an attempt that died with its worker has
/// left no span. `lost` are such attempts that spans below them tell of.
pub(super) fn summary<'a>(
    span: &Span,
    children: impl Iterator<Item = &'a Span>,
    lost: &[u64],
) -> Option<String> {
    match kind(span)? {
        "activity" => {
            let numbers: BTreeSet<u64> = children
                .filter(|child| kind(child) == Some("activity_attempt"))
                .filter_map(number)
                .collect();
            let last = *numbers.last().max(lost.iter().max())?;
            if last < 2 && lost.is_empty() {
                return None;
            }
            let mut text = format!("attempts {last}");
            for lost in gaps(&numbers, last) {
                text.push_str(", ");
                text.push_str(&lost);
            }
            Some(text)
        }
        "activity_attempt" => {
            let mut text = format!("attempt {}", number(span)?);
            if let Some(queued) = queued(span) {
                text.push_str(", ");
                text.push_str(&queued);
            }
            Some(text)
        }
        _ => None,
    }
}

/// How long an attempt was queued, if that is worth a word.
pub(super) fn queued(attempt: &Span) -> Option<String> {
    let queue_ms = attempt.metadata.get("temporal.queue_ms")?.as_u64()?;
    super::queued(Duration::from_millis(queue_ms))
}

fn number(span: &Span) -> Option<u64> {
    span.metadata.get("temporal.attempt")?.as_u64().filter(|number| *number > 0)
}

/// The numbers from 1 to the last one that are missing, by runs: the numbers come from outside and
/// may be huge.
fn gaps(numbers: &BTreeSet<u64>, last: u64) -> impl Iterator<Item = String> {
    let mut before = 0_u64;
    let end = last.saturating_add(1);
    numbers.iter().copied().chain([end]).filter_map(move |number| {
        let (first, last) = (before.saturating_add(1), number - 1);
        before = number;
        match last.checked_sub(first)? {
            0 => Some(format!("attempt {first} lost with its worker")),
            _ => Some(format!("attempts {first}-{last} lost with their worker")),
        }
    })
}
