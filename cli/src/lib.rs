//! The command `durable-spans`: serve a collector on a laptop, and list, show, watch, export and
//! import its traces.
//!
//! ```text
//! durable-spans serve                    # spans go to durable-spans.sqlite
//! export SGP_CLIENT_BASE_URL=http://127.0.0.1:8790
//! durable-spans traces list
//! durable-spans traces show c58c5e1e-bcff-46d8-81c5-4dc1a5fdafea
//! durable-spans traces watch
//! durable-spans traces export --query 'status:error' --format csv --output errors.csv
//! durable-spans backfill --query "ExecutionStatus = 'Terminated'"
//! source <(durable-spans completions bash)
//! ```
//!
//! It ends with 0 when all went well, with 1 and a message on stderr when something failed, a trace
//! that is not known included, and with 2 when it was called wrongly.
//!
//! The rooms: [`Cli`] is what was asked for, `serve` runs a collector, `traces` prints,
//! `watch` goes on printing, `transfer` moves spans to and from files, `client` asks a collector (or
//! SGP itself) over HTTP, `backfill` rebuilds traces from Temporal's histories, and `doctor` checks a
//! fleet.

mod args;
mod backfill;
mod client;
mod codec;
mod doctor;
mod quantity;
mod serve;
mod traces;
mod transfer;
mod watch;

pub use args::Cli;
