use std::{collections::BTreeSet, time::Duration};

use durable_spans_model::Span;

use super::human;

/// Shortest queue time that a line tells, since every attempt is queued for a moment.
const NOTABLE_QUEUE: Duration = Duration::from_millis(20);

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
/// left no span.
pub(super) fn summary<'a>(span: &Span, children: impl Iterator<Item = &'a Span>) -> Option<String> {
    match kind(span)? {
        "activity" => {
            let numbers: BTreeSet<u64> = children
                .filter(|child| kind(child) == Some("activity_attempt"))
                .filter_map(number)
                .collect();
            let last = numbers.last().filter(|last| **last > 1)?;
            let mut text = format!("attempts {last}");
            for lost in gaps(&numbers) {
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
    let queue = Duration::from_millis(queue_ms);
    (queue >= NOTABLE_QUEUE).then(|| format!("queued {}", human(queue)))
}

fn message(span: &Span) -> Option<&str> {
    span.metadata.get("error_message")?.as_str()
}

fn kind(span: &Span) -> Option<&str> {
    span.metadata.get("temporal.kind")?.as_str()
}

fn number(span: &Span) -> Option<u64> {
    span.metadata.get("temporal.attempt")?.as_u64().filter(|number| *number > 0)
}

/// The numbers from 1 that are missing below each that is there, by runs: the numbers come from
/// outside and may be huge.
fn gaps(numbers: &BTreeSet<u64>) -> impl Iterator<Item = String> {
    let mut before = 0;
    numbers.iter().filter_map(move |number| {
        let (first, last) = (before + 1, number - 1);
        before = *number;
        match last.checked_sub(first)? {
            0 => Some(format!("attempt {first} lost with its worker")),
            _ => Some(format!("attempts {first}-{last} lost with their worker")),
        }
    })
}
