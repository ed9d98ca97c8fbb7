//! Traces of Temporal workflows that survive what the workflows survive.
//!
//! Workflow code is replayed from history, so it may do no I/O, read no clock and draw no random
//! ids; tracing libraries do all three. durable-spans records spans in workflow state, by the
//! workflow's own clock and random numbers, and delivers them from a local activity, so that
//! crashes, deployments and outages of the sink lose nothing and change nothing.
//!
//! # Install
//!
//! One value per process, on the client's and on the worker's options:
//!
//! ```no_run
//! use durable_spans::{DurableSpans, SgpOptions, SgpSink};
//! use temporalio_client::ClientOptions;
//! use temporalio_sdk::WorkerOptions;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let spans = DurableSpans::new(SgpSink::new(SgpOptions::from_env()?)?);
//! let mut client_options = ClientOptions::new("default").build();
//! spans.install_client(&mut client_options);
//! let mut worker_options = WorkerOptions::new("orders").build();
//! // … register workflows and activities, then, last:
//! spans.install(&mut worker_options)?;
//! # Ok(())
//! # }
//! ```
//!
//! From here on every run, activity attempt, child workflow and message handler is a span.
//!
//! # Spans in workflow code
//!
//! [`WorkflowSpans`] adds `span` to the workflow's context:
//!
//! ```
//! use durable_spans::WorkflowSpans;
//! use temporalio_workflow::{WorkflowContext, WorkflowResult};
//!
//! async fn rank<W>(ctx: &mut WorkflowContext<W>) -> WorkflowResult<u32> {
//!     ctx.span("rank").input("k", 10).try_scope(async { Ok(3) }).await
//! }
//! ```
//!
//! # Spans in activity and client code
//!
//! [`span`] begins one under the current one, by the same words. In an activity that is the span of the
//! attempt, [`current_span`]; in client code, [`DurableSpans::trace`] begins the trace:
//!
//! ```
//! use durable_spans::{DurableSpans, MemorySink, current_span, span};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let spans = DurableSpans::new(MemorySink::new());
//! let ticket = spans.trace("ticket").tag("urgent").scope(async {
//!     span("look up").in_scope(|span| span.output("customer", 17));
//!     // client.start_workflow(…) hangs its run under "ticket".
//!     current_span().metric("quality", 4.5);
//! });
//! ticket.await;
//! # }
//! ```
//!
//! A synchronous activity runs on a thread of its own, where the SDK leaves no way to know its span: make
//! it `async` to record spans in it.
//!
//! # Typed spans
//!
//! [`data`] has the types of the OpenAI Agents SDK, and SGP's: a model call says its model, messages,
//! tokens and cost, and each sink tells them in its backend's own words.
//!
//! ```
//! use durable_spans::{WorkflowSpans, data::{Generation, Usage}};
//! use temporalio_workflow::WorkflowContext;
//!
//! fn note<W>(ctx: &WorkflowContext<W>) {
//!     ctx.span("draft").data(Generation::new("gpt-4o")).in_scope(|draft| {
//!         draft.usage(Usage::new(120, 9).cost_usd(0.0004));
//!     });
//! }
//! ```
//!
//! # What is recorded, and what is not
//!
//! Inputs and outputs are captured ([`DurableSpans::capture`]), but for what looks like a credential;
//! [`DurableSpans::redactor`] takes out more, [`Sampling`] chooses traces, `when(false)` leaves out a
//! span, and [`DurableSpans::disabled`] or `DISABLE_SCALE_TRACING=1` turn all of it off.
//!
//! # Functions as spans
//!
//! [`#[traced]`](macro@traced) makes a span of each call of a function, in any of these places, with
//! its arguments as inputs:
//!
//! ```
//! use durable_spans::traced;
//!
//! #[traced(skip(cache))]
//! async fn look_up(cache: &std::sync::Mutex<Vec<String>>, n: usize) -> Result<String, String> {
//!     let cache = cache.lock().map_err(|error| error.to_string())?;
//!     cache.get(n).cloned().ok_or_else(|| format!("there is no number {n}"))
//! }
//! ```
//!
//! # Joining a trace
//!
//! [`in_trace`] sets the trace of client code, [`new_trace`] makes one:
//!
//! ```
//! use durable_spans::{TraceContext, TraceId, current_context, in_trace};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), durable_spans::InvalidSpan> {
//! let trace: TraceId = "order-17".parse()?;
//! in_trace(TraceContext::new(trace), async {
//!     // client.start_workflow(…) joins the trace "order-17".
//!     assert!(current_context().is_some());
//! })
//! .await;
//! # Ok(())
//! # }
//! ```
//!
//! Where no header can be set (another language, a schedule), give the run a [`TraceContext`] in
//! its memo or in its first argument, under the name `trace_context`; or the plain fields `trace_id` and
//! `parent_span_id` in its first argument, as Python programs that use `scale_gp_beta` pass them.
//!
//! # Logs
//!
//! What code in a span logs by `tracing` carries its ids, see [`logs`].
//!
//! # Tests of your instrumentation
//!
//! [`testing`] compares traces with trees, without a server: of client and activity code, and of workflow
//! code that is replayed from a stored history.
//!
//! # Guarantees and limits
//!
//! The README of the project states them; the flush rule, and what each flush costs in history, is
//! described in the crate `durable-spans-workflow`.

#[doc(hidden)]
pub mod __private;
mod backfill;
mod client;
mod doctor;
mod install;
#[cfg(feature = "plugin")]
mod plugin;
pub mod testing;

pub use backfill::{
    Backfill, BackfillError, BackfillReport, BackfilledRun, FailedRun, Progress, RunError,
    SpanSource,
};
#[cfg(feature = "history-json")]
pub use backfill::{HistoryFileError, read_history};
pub use client::new_trace;
pub use doctor::{Doctor, ExamineError, Finding, Verdict};
pub use durable_spans_activity::{
    BreakerState, Contract, DropReason, EncodedSpan, FileSink, InvalidOptions, LocalSpan,
    MemorySink, OpenAiOptions, OpenAiSink, OpperOptions, OpperSink, OtlpOptions, OtlpProtocol,
    OtlpSink, Repeats, SgpClient, SgpOptions, SgpPage, SgpSearch, SgpSink, SinkError, SpanBatch,
    SpanProcessor, SpanSink, Statistics, StdoutSink, current_context, current_span, in_trace, logs,
    span, within,
};
pub use durable_spans_macros::traced;
pub use durable_spans_model::{
    Capture, ErrorCategory, Fields, FlushPolicy, InvalidSpan, Outcome, Sampling, Span, SpanBuilder,
    SpanError, SpanGuard, SpanHandle, SpanHook, SpanHooks, SpanId, SpanStatus, SpanType, Starting,
    Timestamp, TraceContext, TraceId, TraceParent, data,
};
pub use durable_spans_workflow::{
    Limits, Timetable, ValueTypes, WorkflowSpan, WorkflowSpans, WorkflowTracing,
};
pub use install::{DurableSpans, InstallError};

/// The README's examples compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The examples of `#[traced]` compile.
#[cfg(doctest)]
#[doc = include_str!("../macros/src/traced.md")]
struct Traced;
