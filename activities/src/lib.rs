//! Delivers spans.
//!
//! - [`SpanSink`] is where spans go: [`SgpSink`] for Scale's SGP spans API, [`MemorySink`] for
//!   tests, or one of your own.
//! - [`Deliverer`] queues spans and sends them in batches, again and again until the sink takes
//!   them. [`Statistics`] says what became of them, [`BreakerState`] whether the sink is waited for.
//! - [`FlushActivity`] is how a run's spans leave the workflow, [`DeliverActivity`] how couriers
//!   deliver what it could not; [`ActivityInterceptor`] makes a span of each attempt of an activity.
//! - [`current_span`] gives activity code its span; [`in_trace`] gives client code a trace.
//!
//! Most users depend on the crate `durable-spans`, which installs all of this in one call.
//!
//! ```
//! use durable_spans_activity::{Deliverer, MemorySink};
//!
//! let sink = MemorySink::new();
//! let deliverer = Deliverer::new(sink.clone());
//! assert_eq!(deliverer.statistics().recorded, 0);
//! assert!(sink.spans().is_empty());
//! ```

mod breaker;
mod courier;
mod current;
mod deliverer;
mod flush;
mod interceptor;
mod memory;
mod parcel;
mod sgp;
mod sgp_options;
mod sgp_search;
mod sink;
mod sink_error;
mod statistics;

pub use breaker::BreakerState;
pub use courier::DeliverActivity;
pub use current::{ActivitySpan, current_context, current_span, in_trace};
pub use deliverer::Deliverer;
pub use flush::{FlushActivity, FlushPackedActivity};
pub use interceptor::ActivityInterceptor;
pub use memory::MemorySink;
pub use sgp::SgpSink;
pub use sgp_options::{InvalidSgpOptions, SgpOptions};
pub use sink::{EncodedSpan, MAX_BATCH_BYTES, MAX_BATCH_SPANS, SpanBatch, SpanSink};
pub use sink_error::SinkError;
pub use statistics::{DropReason, Statistics};
