//! What a span is.
//!
//! This crate is the vocabulary of durable-spans: [`Span`] with the wire form of Scale's SGP spans
//! API, what typed spans say ([`data`]), ids ([`TraceId`], [`SpanId`]) and how a workflow derives
//! them ([`Seed`]), the [`TraceContext`] that travels from caller to workflow to activity, and the
//! [`FlushPolicy`] that is pinned with it. It knows nothing of Temporal and does no I/O.
//!
//! Most users depend on the crate `durable-spans`, which re-exports what they need.
//!
//! ```
//! use durable_spans_model::{Span, SpanId, SpanStatus, Timestamp, TraceId};
//!
//! let json = r#"{
//!     "id": "d7b120b6-aaee-4219-a7ce-b3252a18c3fa",
//!     "trace_id": "c58c5e1e-bcff-46d8-81c5-4dc1a5fdafea",
//!     "name": "rank",
//!     "start_timestamp": "2026-11-21T08:03:55.245743+00:00"
//! }"#;
//! let span: Span = serde_json::from_str(json)?;
//! assert_eq!(span.status, SpanStatus::Success);
//! assert_eq!(span.end_timestamp, None);
//! # Ok::<(), serde_json::Error>(())
//! ```

mod context;
pub mod data;
mod derive;
mod error;
mod fields;
mod hooks;
mod id;
mod notes;
mod policy;
mod recording;
pub mod redact;
mod sampling;
mod span;
mod span_type;
mod timestamp;
mod w3c;

pub use context::{HEADER, TraceContext};
pub use derive::{Children, Seed, attempt_span_id, next_trace_id};
pub use error::InvalidSpan;
pub use fields::Fields;
pub use hooks::{Capture, SpanHook, SpanHooks};
pub use id::{MAX_ID_BYTES, SpanId, TraceId};
pub use policy::{FlushPolicy, RULE_VERSION};
pub use recording::{
    AsyncPlace, Displayed, Draft, Failure, Outcome, Place, Recording, SpanBuilder, SpanGuard,
    SpanHandle,
};
pub use sampling::{Sampling, Starting};
pub use span::{ErrorCategory, Span, SpanError, SpanStatus, to_json};
pub use span_type::SpanType;
pub use timestamp::Timestamp;
pub use w3c::{TRACER_HEADER, TraceParent};
