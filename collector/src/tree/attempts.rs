use std::{collections::BTreeSet, time::Duration};

use durable_spans_model::Span;
use serde_json::Value;

use super::human;

/// What a row says about attempts: how many an activity took, or which one this is.
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
            let mut text = format!("attempts {}", numbers.last()?);
            for lost in gaps(&numbers) {
                text.push_str(", ");
                text.push_str(&lost);
            }
            Some(text)
        }
        "activity_attempt" => {
            let mut text = format!("attempt {}", number(span)?);
            let queue_ms = span.metadata.get("temporal.queue_ms").and_then(Value::as_u64);
            if let Some(queue_ms @ 1..) = queue_ms {
                text.push_str(&format!(", queued {}", human(Duration::from_millis(queue_ms))));
            }
            Some(text)
        }
        _ => None,
    }
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
