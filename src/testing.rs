//! Tests of your instrumentation: traces as trees, in a test without a server.
//!
//! # Write the trace first
//!
//! Say which trace you want, see the test fail with what was recorded, instrument until it passes.
//! Spans of client and activity code need nothing but a [`MemorySink`](crate::MemorySink):
//!
//! ```
//! use std::time::Duration;
//! use durable_spans::{DurableSpans, MemorySink, SpanType, span, testing::{Trace, assert_trace}};
//!
//! // The code under test: the body of an activity, say.
//! async fn answer(question: &str) -> Result<u32, String> {
//!     let found = span("search").input("query", question).scope(async { 3 }).await;
//!     let think = span("think").span_type(SpanType::Completion).metric("documents", 3.0);
//!     think.try_scope(async { if found > 5 { Ok(42) } else { Err("too little".to_owned()) } }).await
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() { // #[tokio::test]
//! let sink = MemorySink::new();
//! let spans = DurableSpans::new(sink.clone());
//! let answered = spans.trace("test").scope(answer("why?")).await;
//! assert!(answered.is_err());
//!
//! let trace = Trace::complete(&sink, Duration::from_secs(5)).await;
//! assert_trace!(trace, "
//!     test
//!       search SUCCESS input.query=\"why?\"
//!       think COMPLETION ERROR
//! ");
//! assert_eq!(trace.span("think").metadata["error_message"], "too little");
//! # }
//! ```
//!
//! [`assert_trace!`] tells how much of each span a line has to say. [`Trace`] finds spans, waits for
//! what a sink has not got yet, and cuts trees down to what a test is about.
//!
//! # Workflow code
//!
//! Workflow code needs a history to run on, and no server. Keep one of a real run in your repository,
//! and replay it with the code of today ([`Trace::replayed`]): it records every span again. Make
//! the history with Temporal's command line,
//!
//! ```text
//! temporal server start-dev            # run the workflow once, with or without tracing
//! temporal workflow show --workflow-id order-17 --output json > tests/histories/order.json
//! ```
//!
//! and read it with `read_history`, which needs the cargo feature `history-json`:
//!
//! ```toml
//! [dev-dependencies]
//! durable-spans = { version = "0.1", features = ["history-json"] }
//! ```
//!
//! ```
//! use std::time::Duration;
//! use durable_spans::{WorkflowSpans, read_history, testing::{Trace, assert_trace}};
//! use temporalio_macros::{workflow, workflow_methods};
//! use temporalio_sdk::{WorkflowContext, WorkflowResult, workflow_replayer::WorkflowReplayerOptions};
//!
//! #[workflow]
//! #[derive(Default)]
//! struct Invoice;
//!
//! #[workflow_methods]
//! impl Invoice {
//!     #[run]
//!     async fn run(ctx: &mut WorkflowContext<Self>, prices: Vec<u64>) -> WorkflowResult<u64> {
//!         let sum = ctx.span("add up").in_scope(|span| {
//!             span.output("lines", prices.len());
//!             prices.iter().sum::<u64>()
//!         });
//!         ctx.span("remind").scope(async { ctx.timer(Duration::from_secs(3600)).await }).await;
//!         Ok(ctx.span("discount").in_scope(|_| if sum > 10_000 { sum - sum / 10 } else { sum }))
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> { // #[tokio::test]
//! let history = read_history("examples/testing/history.json")?;
//! let workflows = WorkflowReplayerOptions::new().register_workflow::<Invoice>()?.build();
//! let trace = Trace::replayed(history, workflows).await?;
//! assert_trace!(trace, "
//!     Invoice AGENT_WORKFLOW workflow
//!       add up output.lines=3
//!       remind
//!       discount
//! ");
//! # Ok(())
//! # }
//! ```
//!
//! A history that no longer fits the code is an error: so the test finds changes that would break runs
//! in flight, too.
//!
//! # Golden traces
//!
//! [`assert_golden_trace`] compares a trace with a file of your repository, which
//! `UPDATE_GOLDEN=1 cargo test` writes: continuous integration then tells when instrumentation changes, and
//! the difference is reviewed with the code. `examples/testing/` has all of this.

mod compare;
mod expected;
mod golden;
mod line;
mod shape;
mod trace;

use std::fmt;

#[doc(inline)]
pub use crate::__assert_trace as assert_trace;
pub use golden::assert_golden_trace;
pub use trace::{AsTrace, Trace};

use expected::parse;
use line::Line;

/// Asserts that spans make a tree: `assert_trace!(spans, expected)`.
///
/// The spans are whatever a trace can be had of ([`AsTrace`](crate::testing::AsTrace)): a
/// [`Trace`](crate::testing::Trace), a [`MemorySink`](crate::MemorySink), or some
/// [`Span`](crate::Span)s. The tree is a text that is indented like code: how far does not matter,
/// and lines without text are passed over. Children stand below their parent by start, then in the
/// order in which they arrived.
///
/// A line has the name of the span and as much of the following as the test cares for, in any order:
///
/// | | for example |
/// |---|---|
/// | type | `CUSTOM` |
/// | status, `open` while there is no end | `SUCCESS`, `ERROR`, `CANCELED` |
/// | what the span is to Temporal | `workflow`, `activity`, `activity_attempt`, `child_workflow`, `signal`, … |
/// | its parent is not among the spans | `(parent elsewhere)` |
/// | data, by its JSON, or `…` for any | `input.amount=7`, `metadata.error_type="Busy"`, `output=…` |
///
/// A line `…` (or `...`) stands for any number of further children there, with all that is below them.
/// Otherwise every span must have its line. To be told the whole tree, assert an empty one.
///
/// ```
/// use durable_spans::{DurableSpans, MemorySink, span, testing::{Trace, assert_trace}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let sink = MemorySink::new();
/// let spans = DurableSpans::new(sink.clone());
/// spans.trace("order").in_scope(|_| {
///     span("pay").input("amount", 7).in_scope(|_| span("check").start().end());
///     span("pack").start().end();
///     span("send").start().end();
/// });
/// spans.flush(std::time::Duration::from_secs(5)).await;
/// assert_trace!(sink, "
///     order
///       pay STANDALONE SUCCESS input.amount=7
///         check
///       …
/// ");
/// # }
/// ```
///
/// More arguments are a message of your own, as with [`assert!`].
///
/// # Panics
///
/// When the tree is another one, with what differs line by line: `-` was expected, `+` was recorded.
/// When the indent of the expected text makes no tree.
#[doc(hidden)]
#[macro_export]
macro_rules! __assert_trace {
    ($spans:expr, $expected:expr $(,)?) => {
        $crate::testing::__assert(&$spans, $expected, ::core::option::Option::None)
    };
    ($spans:expr, $expected:expr, $($message:tt)+) => {
        $crate::testing::__assert(
            &$spans,
            $expected,
            ::core::option::Option::Some(::core::format_args!($($message)+)),
        )
    };
}

#[doc(hidden)]
#[track_caller]
pub fn __assert(
    trace: impl AsTrace,
    expected: impl AsRef<str>,
    message: Option<fmt::Arguments<'_>>,
) {
    if let Err(report) = check(&trace.as_trace(), expected.as_ref()) {
        match message {
            Some(message) => panic!("{message}: {report}"),
            None => panic!("{report}"),
        }
    }
}

fn check(trace: &Trace, text: &str) -> Result<(), String> {
    let expected = parse(text).map_err(|error| format!("the expected tree is none: {error}"))?;
    let rows = trace.rows();
    let lines: Vec<Line<'_>> = rows.iter().map(Line::of).collect();
    let depths: Vec<usize> = rows.iter().map(|row| row.depth).collect();
    let steps = compare::compare(&expected, &depths, |i, j| lines[j].meets(expected[i].text));
    let mut fields = trace.fields().to_vec();
    for field in line::fields_in(text) {
        if !fields.iter().any(|known| known == field) {
            fields.push(field.to_owned());
        }
    }
    let report = compare::report(&steps, &expected, |j| (depths[j], lines[j].full(&fields)));
    report.map_or(Ok(()), |report| {
        Err(format!("the trace is another one (- expected, + recorded):\n{report}"))
    })
}

#[cfg(test)]
mod tests;
