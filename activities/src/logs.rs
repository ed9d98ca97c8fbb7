//! Logs and traces together, by `tracing`.
//!
//! # Events know their span
//!
//! Workflow code, the bodies of activities, and client code in a scope of ours run inside a `tracing`
//! span called `span`, with target [`TARGET`] and the fields `trace_id` and `span_id`. So every
//! subscriber shows with each event where in the trace it belongs, be it text, JSON or OpenTelemetry,
//! and there is nothing to install. Where nobody listens nothing is made.
//!
//! Its level is the highest, so that filters by level leave it in. Filters by target must name it:
//! `RUST_LOG=my_app=info,durable_spans=error`.
//!
//! # Replay logs nothing twice
//!
//! Temporal runs workflow code again to rebuild its state, and what it logs comes again each time.
//! [`not_replayed`] leaves that out:
//!
//! ```
//! use durable_spans_activity::logs;
//! use tracing_subscriber::prelude::*;
//!
//! let subscriber = tracing_subscriber::registry()
//!     .with(tracing_subscriber::fmt::layer().with_filter(logs::not_replayed()));
//! # drop(subscriber);
//! ```
//!
//! # `tracing` spans become spans
//!
//! With the layer [`TracingSpans`], by choice.

mod not_replayed;
mod tracing_spans;

pub use durable_spans_workflow::LOG_TARGET as TARGET;
pub use not_replayed::{NotReplayed, not_replayed};
pub use tracing_spans::TracingSpans;
pub(crate) use tracing_spans::recorded;
