use std::{fmt, time::Duration};

use durable_spans_activity::MemorySink;
use durable_spans_model::Span;
use durable_spans_workflow::WorkflowTracing;
use temporalio_client::WorkflowHistory;
use temporalio_sdk::workflow_replayer::WorkflowReplayerOptions;

use super::{
    line::{self, Line},
    shape::{Place, Row, rows},
};
use crate::{DurableSpans, RunError, backfill};

/// Spans to make assertions on: of one trace, or of several side by side.
///
/// Made from a sink or from spans, or by replaying a history. It does not change when the sink gets
/// more.
///
/// Its `Display` is the tree that [`assert_trace!`](super::assert_trace) reads: a line for each
/// span, children under their parents by start, then in the order in which they arrived. A line
/// has the name, the type if it is not the default one, the status (`open` while the span has no
/// end), what it is to Temporal (`workflow`, `activity`, …), `(parent elsewhere)` if its parent is
/// not among the spans, and the data that one asks for with [`show`](Self::show).
///
/// ```
/// use durable_spans::{DurableSpans, MemorySink, SpanType, span, testing::Trace};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let sink = MemorySink::new();
/// DurableSpans::new(sink.clone()).trace("order").in_scope(|_| {
///     span("pay").span_type(SpanType::Custom).input("amount", 7).start().end();
/// });
/// let trace = Trace::complete(&sink, std::time::Duration::from_secs(5)).await;
/// assert_eq!(trace.span("pay").input["amount"], 7);
/// assert_eq!(
///     trace.show("input.amount").to_string(),
///     "order SUCCESS\n  pay CUSTOM SUCCESS input.amount=7\n",
/// );
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trace {
    spans: Vec<Span>,
    fields: Vec<String>,
}

impl Trace {
    /// What the sink holds now.
    pub fn of(sink: &MemorySink) -> Self {
        sink.spans().into()
    }

    /// Waits until the sink holds a complete trace ([`is_complete`](Self::is_complete)), and returns all
    /// that it holds then.
    ///
    /// # Panics
    ///
    /// After `limit`, with the tree and with what it lacks.
    pub async fn complete(sink: &MemorySink, limit: Duration) -> Self {
        Self::when(sink, limit, Self::is_complete).await
    }

    /// Waits until `is_enough` says so of what the sink holds, and returns that. It is asked at once,
    /// and whenever the sink has stored more.
    ///
    /// # Panics
    ///
    /// After `limit`, with the tree and with what it lacks to be complete.
    ///
    /// ```
    /// # use durable_spans::{DurableSpans, MemorySink, testing::Trace};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # let sink = MemorySink::new();
    /// # let limit = std::time::Duration::from_secs(5);
    /// # DurableSpans::new(sink.clone()).trace("charge").in_scope(|_| ());
    /// let trace = Trace::when(&sink, limit, |trace| trace.named("charge").count() == 1).await;
    /// # }
    /// ```
    pub async fn when(
        sink: &MemorySink,
        limit: Duration,
        mut is_enough: impl FnMut(&Self) -> bool,
    ) -> Self {
        let waiting = sink.wait_for(|spans| is_enough(&spans.as_trace()));
        match tokio::time::timeout(limit, waiting).await {
            Ok(spans) => spans.into(),
            Err(_) => {
                let trace = Self::of(sink);
                let lacks = trace.lacks();
                panic!("not all has arrived after {limit:?}; the trace {lacks}:\n{trace}");
            }
        }
    }

    /// Replays a history with the workflow's code and returns what that records: the same spans as
    /// those of the run itself, without those of activity attempts. Needs no server. The history may be that of a
    /// run without tracing.
    ///
    /// `workflows` has the workflow's code, and the data converter if it is not the default one; do not
    /// install tracing on it. Records as [`DurableSpans::new`] does.
    ///
    /// ```no_run
    /// # use temporalio_workflow::{WorkflowContext, WorkflowResult, run, workflow, workflow_methods};
    /// # #[workflow]
    /// # #[derive(Default)]
    /// # struct Order;
    /// # #[workflow_methods]
    /// # impl Order {
    /// #     #[run]
    /// #     async fn run(_ctx: &mut WorkflowContext<Self>) -> WorkflowResult<()> { Ok(()) }
    /// # }
    /// use durable_spans::{read_history, testing::{Trace, assert_golden_trace}};
    /// use temporalio_sdk::workflow_replayer::WorkflowReplayerOptions;
    ///
    /// # async fn test() -> Result<(), Box<dyn std::error::Error>> {
    /// let history = read_history("tests/histories/order.json")?;
    /// let workflows = WorkflowReplayerOptions::new().register_workflow::<Order>()?.build();
    /// let trace = Trace::replayed(history, workflows).await?;
    /// assert_golden_trace("tests/golden/order.txt", &trace);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// When the history cannot be fetched or understood, or the code does not fit it.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub async fn replayed(
        history: WorkflowHistory,
        workflows: WorkflowReplayerOptions,
    ) -> Result<Self, RunError> {
        Self::recorded(history, workflows, WorkflowTracing::new()).await
    }

    /// As [`replayed`](Self::replayed), recording as the workers of an installation do: with its limits,
    /// timer spans and other options.
    ///
    /// # Errors
    ///
    /// When the history cannot be fetched or understood, or the code does not fit it.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub async fn replayed_by(
        installation: &DurableSpans,
        history: WorkflowHistory,
        workflows: WorkflowReplayerOptions,
    ) -> Result<Self, RunError> {
        Self::recorded(history, workflows, installation.workflow_tracing()).await
    }

    async fn recorded(
        history: WorkflowHistory,
        workflows: WorkflowReplayerOptions,
        tracing: WorkflowTracing,
    ) -> Result<Self, RunError> {
        Ok(backfill::recorded(history, workflows, tracing).await?.into())
    }

    /// Shows data in the tree, where a span has it: `input`, `output` or `metadata`, or one thing in
    /// them, such as `input.amount`, `output.usage.tokens` or `metadata.temporal.attempt`.
    ///
    /// # Panics
    ///
    /// When `field` is anything else.
    #[must_use]
    #[track_caller]
    pub fn show(mut self, field: impl Into<String>) -> Self {
        let field = field.into();
        assert!(
            line::is_field(&field),
            "`{field}` names no data: begin with input, output or metadata, as in `input.amount`"
        );
        self.fields.push(field);
        self
    }

    /// The part of the tree that begins with the span of that name.
    ///
    /// # Panics
    ///
    /// When there is no such span, or more than one.
    #[must_use]
    #[track_caller]
    pub fn below(&self, name: &str) -> Self {
        let top = self.span(name);
        let rows = rows(&self.spans);
        let mut rest = rows.iter().skip_while(|row| !std::ptr::eq(row.span, top));
        let first = rest.next();
        let below = rest.take_while(|row| first.is_some_and(|first| row.depth > first.depth));
        self.with(first.into_iter().chain(below))
    }

    /// The tree without the spans that `is_unwanted` says, and without what is below them.
    #[must_use]
    pub fn without(&self, mut is_unwanted: impl FnMut(&Span) -> bool) -> Self {
        let mut cut_at = usize::MAX;
        let rows = rows(&self.spans);
        let wanted = rows.iter().filter(|row| {
            if row.depth > cut_at {
                return false;
            }
            cut_at = if is_unwanted(row.span) { row.depth } else { usize::MAX };
            cut_at == usize::MAX
        });
        self.with(wanted)
    }

    /// The tree without the attempts of activities and what activity code recorded. Of a live run,
    /// this is what its [replay](Self::replayed) gives, but for the runs of child workflows, whose
    /// histories are their own.
    #[must_use]
    pub fn without_attempts(&self) -> Self {
        let attempt = serde_json::Value::from("activity_attempt");
        self.without(|span| span.metadata.get("temporal.kind") == Some(&attempt))
    }

    fn with<'a>(&self, rows: impl Iterator<Item = &'a Row<'a>>) -> Self {
        let spans = rows.map(|row| row.span.clone()).collect();
        Self { spans, fields: self.fields.clone() }
    }

    /// The spans, in the order in which they arrived; those of a part of a tree in its order.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// The one span of that name.
    ///
    /// # Panics
    ///
    /// When there is none, or more than one: with the tree.
    #[track_caller]
    pub fn span(&self, name: &str) -> &Span {
        let mut found = self.named(name);
        match (found.next(), found.count()) {
            (Some(span), 0) => span,
            (None, _) => panic!("no span is named `{name}` in\n{self}"),
            (Some(_), others) => panic!("{} spans are named `{name}` in\n{self}", others + 1),
        }
    }

    /// All spans of that name, in the order of [`spans`](Self::spans).
    pub fn named(&self, name: &str) -> impl Iterator<Item = &Span> {
        self.spans.iter().filter(move |span| span.name == name)
    }

    /// The span that this one is part of, if it is among the spans.
    pub fn parent(&self, span: &Span) -> Option<&Span> {
        let parent = span.parent_id.as_ref()?;
        self.spans.iter().find(|other| &other.id == parent && other.trace_id == span.trace_id)
    }

    /// The spans right below this one, in the order of the tree.
    pub fn children(&self, span: &Span) -> Vec<&Span> {
        let is_child = |other: &&Span| {
            other.parent_id.as_ref() == Some(&span.id) && other.trace_id == span.trace_id
        };
        let mut children: Vec<&Span> = self.spans.iter().filter(is_child).collect();
        children.sort_by_key(|span| span.start_timestamp);
        children
    }

    /// Whether no span is open. True of no span at all.
    pub fn all_ended(&self) -> bool {
        self.spans.iter().all(|span| span.end_timestamp.is_some())
    }

    /// Whether there are spans, all of them have ended, and no one's parent is missing.
    pub fn is_complete(&self) -> bool {
        !self.spans.is_empty() && self.all_ended() && self.orphans() == 0
    }

    fn orphans(&self) -> usize {
        rows(&self.spans).iter().filter(|row| row.place == Place::ParentElsewhere).count()
    }

    fn lacks(&self) -> String {
        let open = self.spans.iter().filter(|span| span.end_timestamp.is_none()).count();
        match (self.spans.len(), open, self.orphans()) {
            (0, _, _) => "has no span".to_owned(),
            (_, 0, 0) => "is complete".to_owned(),
            (_, open, orphans) => {
                format!(
                    "is not complete: open spans: {open}, spans without their parent: {orphans}"
                )
            }
        }
    }

    pub(super) fn rows(&self) -> Vec<Row<'_>> {
        rows(&self.spans)
    }

    pub(super) fn fields(&self) -> &[String] {
        &self.fields
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in self.rows() {
            writeln!(f, "{}{}", "  ".repeat(row.depth), Line::of(&row).short(&self.fields))?;
        }
        Ok(())
    }
}

impl From<Vec<Span>> for Trace {
    fn from(spans: Vec<Span>) -> Self {
        Self { spans, fields: Vec::new() }
    }
}

impl FromIterator<Span> for Trace {
    fn from_iter<I: IntoIterator<Item = Span>>(spans: I) -> Self {
        spans.into_iter().collect::<Vec<_>>().into()
    }
}

/// What a [`Trace`] can be had of: itself, a [`MemorySink`], spans, and references to these.
pub trait AsTrace {
    /// The spans as they are now.
    fn as_trace(&self) -> Trace;
}

impl AsTrace for Trace {
    fn as_trace(&self) -> Trace {
        self.clone()
    }
}

impl AsTrace for MemorySink {
    fn as_trace(&self) -> Trace {
        Trace::of(self)
    }
}

impl AsTrace for [Span] {
    fn as_trace(&self) -> Trace {
        self.to_vec().into()
    }
}

impl AsTrace for Vec<Span> {
    fn as_trace(&self) -> Trace {
        self.clone().into()
    }
}

impl<T: AsTrace + ?Sized> AsTrace for &T {
    fn as_trace(&self) -> Trace {
        (**self).as_trace()
    }
}
