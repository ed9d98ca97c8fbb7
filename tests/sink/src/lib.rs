//! A sink that fails on demand, for tests and examples.
//!
//! It speaks on loopback what a collector speaks (SGP's spans API, OTLP/HTTP in protobuf, Opper's
//! API, the ingest of OpenAI's traces), and keeps what it takes in a real collector's store. What it does with a call can be changed at any time:
//!
//! ```no_run
//! use durable_spans_test_sink::{Fault, FaultySink};
//!
//! # async fn a_test() -> Result<(), Box<dyn std::error::Error>> {
//! let sink = FaultySink::start("spans.sqlite").await?;
//! println!("point the SDK at SGP_CLIENT_BASE_URL={}", sink.url());
//! sink.set(Fault::Errors);
//! sink.until_met(1).await; // a batch came, and was answered with 500
//! sink.set(Fault::None);
//! # Ok(())
//! # }
//! ```

mod fault;
mod sink;
mod told;

pub use fault::Fault;
pub use sink::FaultySink;
