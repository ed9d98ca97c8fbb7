//! Keeps spans in one SQLite file and speaks the spans API of Scale's SGP.
//!
//! The collector is for laptops and tests: whatever sends spans to SGP (durable-spans, or Scale's
//! Python client `scale-gp-beta`) sends them here when its base URL says so. Beyond one machine,
//! point the sink at SGP or OTLP instead.
//!
//! # Run it
//!
//! [`Collector::open`] opens or makes the file, [`Collector::serve`] listens. Port 0 takes a free
//! port, which makes it easy to start one within a test:
//!
//! ```
//! use durable_spans_collector::Collector;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("spans.sqlite");
//! let collector = Collector::open(path)?;
//! let running = collector.serve(([127, 0, 0, 1], 0)).await?;
//! println!("point the SDK at SGP_CLIENT_BASE_URL={}", running.url());
//! running.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Read what arrived
//!
//! [`Collector::store`] gives the spans without HTTP, and [`tree::render`] shows a trace:
//!
//! ```
//! # use durable_spans_collector::{Collector, CollectorError, tree};
//! # fn show(collector: &Collector) -> Result<(), CollectorError> {
//! for trace in collector.store().traces(20)? {
//!     println!("{}", tree::render(&collector.store().spans(&trace.trace_id)?));
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What it serves
//!
//! | Request | Answer |
//! |---|---|
//! | `PUT /v5/spans/batch` | stores at most 1000 spans, answers with each as stored |
//! | `POST /v5/spans/search` | spans of `trace_ids`, or only roots with `parents_only` |
//! | `GET /healthz` | 200 once requests are served; needs no key |
//! | `GET /` and `GET /traces/{trace_id}` | the traces page, for browsers; it asks for a key if there is one |
//!
//! A batch is stored as a whole or not at all. A span is keyed by trace id and id; one that has
//! ended wins over one that has not, otherwise the later write wins. Refused with a JSON body
//! `{"detail", "field"}` that names the field and never holds its content:
//!
//! - 400: the body is not JSON or not the gzip that it claims to be.
//! - 401: the API key is missing or wrong, where one is configured.
//! - 409: a parent belongs to another trace, or a span would be its own ancestor. A parent that
//!   nobody has sent yet is fine.
//! - 413: the body is over [`MAX_BODY_BYTES`], counted after decompression.
//! - 415: an encoding other than gzip.
//! - 422: a field that SGP would not take, or a search filter that the collector does not have.
//! - 503 with `Retry-After`: SQLite could not do it now (locked by another process, disk full).
//!
//! A span comes back as it was sent, ids and numbers to the letter, plus `account_id` and
//! `object`; one that was sent without an id gets a random UUID. Fields that SGP does not know are
//! dropped.
//!
//! The traces page is part of the binary and asks nobody but the collector. What it asks for is below
//! `/page/` and may change with any version, but for `GET /page/export`, with `format` `jsonl`, `otlp`,
//! `csv` or `compact` and either `trace` (and `span` for a part of it) or the search of the page's
//! address (`q`, `status`, `range`, `from`, `to`). Without a key, only requests to a local name are
//! answered there, since a web site could make its own name lead to this machine.
//!
//! Commits survive the end of the process; the last ones before a power cut may be lost (SQLite in
//! WAL mode, `synchronous=NORMAL`).

mod api_key;
mod batch;
mod body;
mod collector;
mod error;
mod http;
mod page;
mod refusal;
mod rules;
mod schema;
mod search;
mod store;
pub mod tree;
mod web;

pub use batch::MAX_BATCH_SPANS;
pub use body::MAX_BODY_BYTES;
pub use collector::{Collector, RunningCollector};
pub use error::CollectorError;
pub use search::MAX_PAGE_SPANS;
pub use store::{RootSummary, Store, TraceSummary};
