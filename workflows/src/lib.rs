//! Records spans in Temporal workflow code.
//!
//! Workflow code is replayed from history, so it may do no I/O, read no clock and draw no random
//! ids. This crate records spans under these rules. It has no network, no clock and no thread:
//!
//! - [`WorkflowSpans`] gives workflow contexts `ctx.span("name")`.
//! - [`WorkflowTracing`] makes the interceptor, which makes a span of the run itself, of its activities, child workflows
//!   and message handlers, carries the trace context onwards, and flushes the buffer.
//! - [`Timetable`] says which runs are traced, by the time when they started.
//! - [`FlushRequest`] and [`FlushReply`] are what the workflow half and the delivering half say to
//!   each other, through a local activity of type [`FLUSH_ACTIVITY`].
//!
//! # The flush rule
//!
//! A flush is a command in the run's history, so it must be issued at the same point at each
//! replay, whatever the code records by then. It depends on nothing but the user's own
//! operations: commands, their results as they arrive (a local activity counts twice when it begins
//! instead), and entered signal and update handlers. Adding, removing or renaming spans never breaks a run in flight, nor
//! does awaiting in another order, or awaiting what was dropped before. Runs of the first versions
//! of the rule, and those without a header unless their policy is
//! [`counting_arrivals`][arrivals], count results when the code sees them instead.
//!
//! | when | default | cost in history |
//! |---|---|---|
//! | R1: so many operations since the last flush | 200 | 1 event of about 300 bytes |
//! | R2: so long after the first operation that no flush covers, doubling up to 10 minutes | 10 s | 1 timer event when armed; when it fires 1 event more, a workflow task (3 events) and the flush (1 event) |
//! | R3: the run closes, by whatever end | always | 1 event of about 300 bytes |
//! | opt-in: so many spans in the buffer, see [`FlushPolicy::when_buffered`][buffered] | off | 1 event each, and a change of instrumentation becomes a versioning event |
//!
//! Where the sink is down when a run closes, or the buffer of a run grows large meanwhile, the
//! flush's result asks for couriers: abandoned child workflows of type [`COURIER_WORKFLOW`], which
//! keep trying for seven days. Each costs the run 2 events and a workflow task (3 events).
//!
//! With the cargo feature `nexus` (the SDK's experimental interface for it), Nexus operations have
//! spans, from their schedule to their result, or to their start where they go on after that: the SDK
//! shows that result to the workflow's code alone. Services get a W3C `traceparent`. Nexus operations
//! do not count for the rule, with the feature or without.
//!
//! A mid-run flush hands the spans to the worker and returns at once. Only the flush at the close
//! waits for the sink, about a second at most.
//!
//! # Example
//!
//! ```
//! use durable_spans_workflow::WorkflowSpans;
//! use temporalio_workflow::{WorkflowContext, WorkflowResult, run, workflow, workflow_methods};
//!
//! #[workflow]
//! #[derive(Default)]
//! struct Greeting;
//!
//! #[workflow_methods]
//! impl Greeting {
//!     #[run]
//!     async fn run(ctx: &mut WorkflowContext<Self>, name: String) -> WorkflowResult<String> {
//!         let span = ctx.span("compose").input("name", &name).start();
//!         let greeting = format!("Hello, {name}");
//!         span.output("greeting", &greeting);
//!         Ok(greeting)
//!     }
//! }
//! ```
//!
//! [arrivals]: durable_spans_model::FlushPolicy::counting_arrivals
//! [buffered]: durable_spans_model::FlushPolicy::when_buffered

mod arrival;
mod branch;
mod buffer;
mod courier;
mod flush;
mod flusher;
mod hand_over;
mod header;
mod interceptor;
mod limits;
mod logs;
#[cfg(feature = "nexus")]
mod nexus;
mod operation;
mod outcome;
mod recorder;
mod rule;
mod run;
mod scope;
mod span;
mod timetable;
mod values;

pub use courier::{
    COURIER_WORKFLOW, Courier, DELIVER_ACTIVITY, Delivery, FREIGHT_BYTES, Freight, Lack, Try,
};
pub use flush::{
    Acknowledgement, FLUSH_ACTIVITY, FLUSH_PACKED_ACTIVITY, FlushGroup, FlushReply, FlushRequest,
    PackedFlush, digest,
};
pub use hand_over::HandOver;
pub use header::{
    EXPLICIT_CONTEXT, from_payload, of_start as context_of_start, schedule_id, to_payload,
};
pub use interceptor::WorkflowTracing;
pub use limits::Limits;
pub use logs::{LOG_TARGET, is_in_workflow, is_replaying, log_span};
pub use run::{SEED_STREAM, place_stream};
pub use span::{InWorkflow, WorkflowRecording, WorkflowSpan, WorkflowSpans};
pub use timetable::Timetable;
pub use values::{ValueTypes, as_fields};
