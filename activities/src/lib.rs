//! Delivers spans.
//!
//! - [`SpanSink`] is where spans go: [`SgpSink`] for Scale's SGP spans API, [`OtlpSink`] for what takes
//!   OpenTelemetry, [`OpenAiSink`], [`OpperSink`], [`FileSink`], [`StdoutSink`], [`MemorySink`] for
//!   tests, or one of your own. Its [`Contract`] says what it does with what it is given.
//! - [`Deliverer`] queues spans and sends them in batches, again and again until the sink takes
//!   them; [`FanOut`] does so for several sinks. [`Statistics`] says what became of them,
//!   [`BreakerState`] whether the sink is waited for.
//! - [`SgpClient`] reads back what SGP has stored.
//! - [`FlushActivity`] is how a run's spans leave the workflow, [`DeliverActivity`] how couriers
//!   deliver what it could not; [`ActivityInterceptor`] makes a span of each attempt of an activity.
//! - [`logs`] brings logs and traces together, by `tracing`.
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

mod adapters;
mod breaker;
mod contract;
mod courier;
mod current;
mod deliverer;
mod encoding;
mod fan_out;
mod flush;
mod http;
mod interceptor;
pub mod logs;
mod options;
mod outcome;
mod parcel;
mod processor;
mod sent;
mod sink;
mod sink_error;
mod sinks;
mod statistics;

pub use adapters::{Filter, Map};
pub use breaker::BreakerState;
pub use contract::{Contract, Repeats};
pub use courier::DeliverActivity;
pub use current::{
    Here, InTrace, LocalRecording, LocalSpan, Within, current_context, current_span, in_trace,
    span, within,
};
pub use deliverer::Deliverer;
pub use fan_out::FanOut;
pub use flush::{FlushActivity, FlushPackedActivity};
pub use interceptor::ActivityInterceptor;
pub use options::InvalidOptions;
pub use outcome::OfActivity;
pub use processor::{ProcessorSink, SpanProcessor};
pub use sink::{EncodedSpan, MAX_BATCH_BYTES, MAX_BATCH_SPANS, SpanBatch, SpanSink};
pub use sink_error::SinkError;
pub use sinks::{
    file::FileSink,
    memory::MemorySink,
    openai::{OpenAiOptions, OpenAiSink},
    opper::{OpperOptions, OpperSink},
    otlp::{OtlpOptions, OtlpProtocol, OtlpSink},
    sgp::SgpSink,
    sgp_client::{SgpClient, SgpPage, SgpSearch},
    sgp_options::SgpOptions,
    stdout::StdoutSink,
};
pub use statistics::{DropReason, Statistics};
