use std::collections::{HashMap, HashSet};

use durable_spans_model::{Span, SpanId, TraceId};

/// Why a row is where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    UnderItsParent,
    Root,
    /// At the top, since its parent is not among the spans.
    ParentElsewhere,
    /// At the top, since it is its own ancestor.
    Cycle,
}

/// A span and how many ancestors stand above it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub(super) span: &'a Span,
    pub(super) depth: usize,
    pub(super) place: Place,
}

/// Key of a span: the same id may name spans of several traces.
type Key<'a> = (&'a TraceId, &'a SpanId);

/// The spans from the roots down, each followed by its children by start, then in the order in which
/// they are given.
pub(super) fn rows(spans: &[Span]) -> Vec<Row<'_>> {
    let mut ordered: Vec<&Span> = spans.iter().collect();
    ordered.sort_by_key(|span| span.start_timestamp);
    let known: HashSet<Key<'_>> = spans.iter().map(|span| (&span.trace_id, &span.id)).collect();
    let mut children: HashMap<Key<'_>, Vec<usize>> = HashMap::new();
    let mut tops = Vec::new();
    for (index, span) in ordered.iter().enumerate() {
        match span.parent_id.as_ref().map(|parent| (&span.trace_id, parent)) {
            None => tops.push((index, Place::Root)),
            Some(parent) if known.contains(&parent) => {
                children.entry(parent).or_default().push(index);
            }
            Some(_) => tops.push((index, Place::ParentElsewhere)),
        }
    }
    // What no top leads to hangs on a cycle.
    tops.extend((0..ordered.len()).map(|index| (index, Place::Cycle)));

    let mut rows = Vec::with_capacity(spans.len());
    let mut seen = HashSet::new();
    for (top, place) in tops {
        let mut stack = vec![(top, 0, place)];
        while let Some((index, depth, place)) = stack.pop() {
            if !seen.insert(index) {
                continue;
            }
            let span = ordered[index];
            rows.push(Row { span, depth, place });
            let below = children.get(&(&span.trace_id, &span.id)).into_iter().flatten();
            stack.extend(below.rev().map(|child| (*child, depth + 1, Place::UnderItsParent)));
        }
    }
    rows
}
