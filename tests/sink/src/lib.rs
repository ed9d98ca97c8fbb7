//! A sink that fails on demand, for tests and examples.
//!
//! It speaks SGP's spans API, `PUT /v5/spans/batch`, on loopback, and keeps what it takes in a real
//! collector's store. What it does with a call can be changed at any time:
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

pub use fault::Fault;
pub use sink::FaultySink;
