//! Draws a trace as an indented text tree.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    time::Duration,
};

use durable_spans_model::{Span, SpanId, SpanStatus};

use crate::lost::Missing;

mod attempts;
mod calls;

/// Deepest level that is still indented further than the one above. Without a bound, a chain of a
/// hundred thousand spans would make ten gigabytes of blanks.
const MAX_INDENT: usize = 40;

/// Shortest queue time that a line tells, since everything is queued for a moment.
const NOTABLE_QUEUE: Duration = Duration::from_millis(20);

/// Longest error message that is shown, in characters.
const MAX_MESSAGE_CHARS: usize = 200;

/// The spans of one trace as text, one line each, children under their parents by start, then in
/// the order in which they are given.
///
/// A line shows the name, the type, how long it took, how it ended and the first line of the error
/// message. A span without an end is `open`. A span whose parent is not among `spans` stands at
/// the top, marked `(parent pending)`, unless the parent is an attempt of an activity that is known: then
/// it stands below the activity and names the attempt. At the top, marked `(cycle)`, also stands one that is its own ancestor. An
/// activity and its only attempt share a line where they ended alike. Otherwise the activity tells
/// its number of attempts, and which of them left no span because their worker died. A child
/// workflow has one line, too, from its call to the end of its run, unless its call has more to tell: several runs, or another
/// end. Otherwise the call is marked `(call)`. A run that continues another one is marked `(continued)`. How
/// long an attempt or a child run was queued is told from 20 milliseconds on.
///
/// ```
/// use durable_spans_collector::tree;
/// use durable_spans_model::{Span, SpanId, Timestamp, TraceId};
///
/// let trace_id = TraceId::from_bits(1);
/// let at = Timestamp::from_unix_ns;
/// let mut order = Span::new(trace_id.clone(), SpanId::from_bits(1), "order", at(0));
/// order.end_timestamp = Some(at(1_234_000_000));
/// let mut charge = Span::new(trace_id, SpanId::from_bits(2), "charge", at(5));
/// charge.parent_id = Some(SpanId::from_bits(1));
///
/// assert_eq!(
///     tree::render(&[charge, order]),
///     "order [STANDALONE] 1.234s SUCCESS\n  charge [STANDALONE] open\n",
/// );
/// ```
pub fn render(spans: &[Span]) -> String {
    rows(spans).iter().map(|row| format!("{row}\n")).collect()
}

/// One span of a drawn tree. Its `Display` is its line, with the indent, without a line break.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    span: &'a Span,
    depth: usize,
    place: Place,
    attempt: Option<&'a Span>,
    call: Option<&'a Span>,
    /// What is told after how the span ended.
    note: Option<String>,
}

/// Why a row is where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    UnderItsParent,
    Root,
    ParentPending,
    /// Under the activity whose attempt is the parent, by its number.
    InAttempt {
        number: u32,
        is_lost: bool,
    },
    Cycle,
}

/// The rows of [`render`], for those who want to colour them.
pub fn rows(spans: &[Span]) -> Vec<Row<'_>> {
    let mut ordered: Vec<&Span> = spans.iter().collect();
    // Stable: spans that began at the same time stay in the order in which they came.
    ordered.sort_by_key(|span| span.start_timestamp);
    let known: HashSet<&SpanId> = spans.iter().map(|span| &span.id).collect();
    let missing = ordered.iter().filter_map(|span| span.parent_id.as_ref());
    let missing = missing.filter(|parent| !known.contains(parent)).collect();
    let missing = attempts::missing(&ordered, missing);
    let mut children: HashMap<&SpanId, Vec<usize>> = HashMap::new();
    let mut tops = Vec::new();
    for (index, span) in ordered.iter().enumerate() {
        match &span.parent_id {
            None => tops.push((index, Place::Root)),
            Some(parent) => {
                let attempt = missing.get(parent);
                if attempt.is_none() && !known.contains(parent) {
                    tops.push((index, Place::ParentPending));
                } else {
                    let above = attempt.map_or(parent, |attempt| attempt.activity);
                    children.entry(above).or_default().push(index);
                }
            }
        }
    }

    let (seen, rows) = (HashSet::new(), Vec::new());
    let mut walk = Walk { ordered: &ordered, children, missing, seen, rows };
    for (index, place) in tops {
        walk.draw(index, place);
    }
    // What no top leads to hangs on a cycle. A store refuses those, a file may still hold one.
    for index in 0..ordered.len() {
        walk.draw(index, Place::Cycle);
    }
    walk.rows
}

struct Walk<'a, 'b> {
    ordered: &'b [&'a Span],
    children: HashMap<&'a SpanId, Vec<usize>>,
    /// Parents that are attempts without a span.
    missing: HashMap<&'a SpanId, Missing<'a>>,
    seen: HashSet<usize>,
    rows: Vec<Row<'a>>,
}

impl Walk<'_, '_> {
    /// Draws a span and all below it that was not drawn yet, with a stack of its own.
    fn draw(&mut self, top: usize, place: Place) {
        let mut stack = vec![(top, 0, place)];
        while let Some((index, depth, place)) = stack.pop() {
            if !self.seen.insert(index) {
                continue;
            }
            let span = self.ordered[index];
            let children = self.children.get(&span.id).map_or(&[][..], Vec::as_slice);
            let spans = || children.iter().map(|n| self.ordered[*n]);
            let parents = spans().filter_map(|child| self.missing.get(child.parent_id.as_ref()?));
            let lost: Vec<u64> = parents
                .filter(|parent| parent.is_lost)
                .map(|parent| parent.number.into())
                .collect();
            let attempt = attempts::only(span, spans()).filter(|_| lost.is_empty());
            let run = calls::run_of(span, spans());
            let note = match (attempt, run) {
                (Some(attempt), _) => attempts::queued(attempt),
                (None, Some(run)) => calls::queued(span, run),
                (None, None) => attempts::summary(span, spans(), &lost),
            };
            let (shown, call) = run.map_or((span, None), |run| (run, Some(span)));
            self.rows.push(Row { span: shown, depth, place, attempt, call, note });
            let mut below = children.to_vec();
            if let Some(sharing) = attempt.or(run) {
                // What is below the other span of the row hangs below the row.
                below.retain(|n| self.ordered[*n].id != sharing.id || !self.seen.insert(*n));
                below.extend(self.children.get(&sharing.id).into_iter().flatten());
                below.sort_unstable();
            }
            let below = below.into_iter().rev();
            stack.extend(below.map(|child| (child, depth + 1, self.place(child))));
        }
    }
}

impl Walk<'_, '_> {
    /// Where a span is that is below another one.
    fn place(&self, index: usize) -> Place {
        let parent = self.ordered[index].parent_id.as_ref();
        match parent.and_then(|parent| self.missing.get(parent)) {
            Some(Missing { number, is_lost, .. }) => {
                Place::InAttempt { number: *number, is_lost: *is_lost }
            }
            None => Place::UnderItsParent,
        }
    }
}

impl<'a> Row<'a> {
    /// The span of the row.
    pub fn span(&self) -> &'a Span {
        self.span
    }

    /// The only attempt of an activity, where it shares the activity's row.
    pub fn attempt(&self) -> Option<&'a Span> {
        self.attempt
    }

    /// The span of a child workflow as its parent saw it, where it shares the row of the run.
    pub fn call(&self) -> Option<&'a Span> {
        self.call
    }

    /// How many ancestors are drawn above it.
    pub fn depth(&self) -> usize {
        self.depth
    }
}

impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { span, depth, place, attempt: _, call, note } = self;
        write!(f, "{:indent$}", "", indent = 2 * depth.min(&MAX_INDENT))?;
        if *depth > MAX_INDENT {
            write!(f, "(level {depth}) ")?;
        }
        write!(f, "{}{} [{}] ", printable(&span.name), role(span), span.span_type)?;
        match span.end_timestamp {
            Some(end) => {
                // As with activities, from when it was asked for.
                let start = call.map_or(span.start_timestamp, |call| {
                    call.start_timestamp.min(span.start_timestamp)
                });
                let took = human(end.since(start));
                write!(f, "{took} {}", span.status.as_str())?;
            }
            None => f.write_str("open")?,
        }
        if let Some(note) = note {
            write!(f, ", {note}")?;
        }
        match place {
            Place::UnderItsParent | Place::Root => {}
            Place::ParentPending => f.write_str(" (parent pending)")?,
            Place::InAttempt { number, is_lost: true } => {
                write!(f, " (in attempt {number}, lost with its worker)")?;
            }
            Place::InAttempt { number, is_lost: false } => {
                write!(f, " (in attempt {number}, pending)")?;
            }
            Place::Cycle => f.write_str(" (cycle)")?,
        }
        if span.status != SpanStatus::Success
            && let Some(message) = error_message(span)
        {
            write!(f, ": {message}")?;
        }
        Ok(())
    }
}

/// Tells a call from the runs below it, and a run that continues another one.
fn role(span: &Span) -> &'static str {
    if kind(span) == Some("child_workflow") {
        " (call)"
    } else if span.metadata.get("temporal.continued") == Some(&true.into()) {
        " (continued)"
    } else {
        ""
    }
}

/// How long something was queued, if that is worth a word.
fn queued(queue: Duration) -> Option<String> {
    (queue >= NOTABLE_QUEUE).then(|| format!("queued {}", human(queue)))
}

fn kind(span: &Span) -> Option<&str> {
    span.metadata.get("temporal.kind")?.as_str()
}

fn message(span: &Span) -> Option<&str> {
    span.metadata.get("error_message")?.as_str()
}

fn error_message(span: &Span) -> Option<String> {
    let line = message(span)?.trim().lines().next()?;
    let mut shown: String = line.chars().take(MAX_MESSAGE_CHARS).collect();
    if shown.len() < line.len() {
        shown.push('…');
    }
    Some(printable(&shown))
}

/// `text` without control characters: a name, a message or a foreign id must not be able to steer
/// the terminal that shows it. Rows are printable already.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Three digits or two units, whichever tells more: `850us`, `12ms`, `1.234s`, `2m 05s`.
fn human(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match duration.as_millis() {
        0 => format!("{}us", duration.as_micros()),
        millis @ 1..1_000 => format!("{millis}ms"),
        1_000..60_000 => format!("{seconds}.{:03}s", duration.subsec_millis()),
        60_000..3_600_000 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        _ if seconds < 86_400 => format!("{}h {:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d {:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests;
