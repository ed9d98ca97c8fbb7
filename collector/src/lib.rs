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
//! | `POST /v5/spans` | stores a new span |
//! | `GET /v5/spans/{id}` | the span of this id, the one that came last if several traces have it |
//! | `PATCH /v5/spans/{id}` | changes name, end, output, metadata or status of a span |
//! | `POST /v5/spans/batch` | stores at most 1000 new spans |
//! | `PUT /v5/spans/batch` | stores at most 1000 spans, new or not |
//! | `POST /v5/spans/search` | a page of the spans that pass all filters |
//! | `/v5/span-assessments` | what people say about spans: create, list, get, change, delete |
//! | `POST /v1/traces` | spans of any OpenTelemetry program, as OTLP/HTTP: protobuf or JSON |
//! | `/v3/spans`, `/v3/traces` | spans and traces as Opper's clients write and read them |
//! | `POST /v1/traces/ingest` | traces of the OpenAI Agents SDK |
//! | `GET /healthz` | 200 once requests are served; needs no key |
//! | `GET /` and `GET /traces/{trace_id}` | the traces page, for browsers; it asks for a key if there is one |
//!
//! This is the surface of the official Python client `scale-gp-beta` 0.7, by the rules that its
//! documentation states for SGP's tracing service. What it leaves open, or where its two stores
//! differ, the collector does as follows.
//!
//! A batch is stored as a whole or not at all. A span is keyed by trace id and id, on whatever day
//! it began. Of two writes by `PUT`, one that has ended wins over one that has not, otherwise the
//! later wins; `POST` overwrites nothing. A span comes back as it was sent, ids and numbers to the
//! letter, plus `account_id`, `object`, and the token counts that its output or metadata report;
//! one that was sent without an id gets a random UUID. Fields that SGP does not know are dropped.
//! Values that look like credentials, or have the name of one, are stored as
//! `[REDACTED:credential]`. Times need an offset: a local time could mean anything.
//!
//! A search that names no traces searches all of them. An empty array is refused as a filter. Text
//! is looked for in the keys and values of a JSON object, each for itself, without JSON's escapes.
//! `$and` and `$or` compose filters of metadata. Next to ids of spans, `next_cursor` and
//! `prev_cursor` of an answer are cursors. With the header `x-order-of-ties: arrival`, spans that
//! are alike in what the answer is sorted by come in the order in which they arrived instead of by
//! id. There are no projects: a search with `x-project-id` is refused.
//!
//! A span of OpenTelemetry keeps its ids as lower-case hex text. Its attributes become metadata under
//! their names; kind, scope, resource, events and links stand under `otel`. The conventions for
//! language models and agents (GenAI, OpenInference) say which SGP type it is, what went in and out,
//! and which tokens were used. Spans that cannot be stored are left out and told as partial success.
//!
//! Opper's fields `meta`, `metadata` and `tags` stand under these names in the metadata. A trace of
//! the OpenAI Agents SDK becomes a root of the trace's id, which reaches from the first to the last
//! of its spans that are known; the spans are mapped as SGP's own processor does. Both send their key
//! as a bearer token, which is as good as `x-api-key`.
//!
//! Refused with a JSON body `{"detail", "field", "code"}` that names the field and never holds its
//! content:
//!
//! - 400: the body is not JSON or not the gzip that it claims to be; an id with a NUL byte or of
//!   more than 256 bytes; `SEARCH_RESULT_TOO_LARGE` and `QUERY_TOO_BROAD`, unless partial results
//!   are allowed.
//! - 401: the API key is missing or wrong, where one is configured.
//! - 403: where there is no API key, a request that calls the collector by a name that is not local,
//!   or that comes from a web page of another machine.
//! - 404: no span or assessment of this id.
//! - 409: a parent belongs to another trace, a span would be its own ancestor, or a span that is to
//!   be created exists. A parent that nobody has sent yet is fine.
//! - 413: the body is over [`MAX_BODY_BYTES`], counted after decompression.
//! - 415: an encoding other than gzip.
//! - 422: a field that SGP would not take, or a filter that nobody knows.
//! - 429 with `Retry-After`: more requests than [`Collector::max_requests_per_second`].
//! - 503 with `Retry-After`: more requests at a time than [`Collector::max_requests_in_flight`], or
//!   SQLite could not do it now (locked by another process, disk full).
//!
//! # What it keeps
//!
//! Everything, unless [`Collector::max_age`] or [`Collector::max_bytes`] bounds it. A file of an
//! older version is brought up to date when it is opened; one of a newer version is refused.
//!
//! The traces page is part of the binary and asks nobody but the collector. What it asks for is below
//! `/page/` and may change with any version, but for two. `GET /page/export` gives spans as `format`
//! `jsonl`, `otlp`, `csv` or `compact`, of either `trace` (and `span` for a part of it) or the search
//! of the page's address (`q`, `status`, `range`, `from`, `to`). `POST /page/import` stores what the
//! first three of these gave, as the body; [`import`] says what it can read. Without a key, only requests to a local name are
//! answered there, since a web site could make its own name lead to this machine.
//!
//! Commits survive the end of the process; the last ones before a power cut may be lost (SQLite in
//! WAL mode, `synchronous=NORMAL`).

mod api_key;
mod assessment;
mod batch;
mod body;
mod collector;
mod error;
mod guard;
mod http;
pub mod import;
mod item;
mod lost;
mod openai;
mod opper;
mod otlp;
mod rate;
mod read;
mod refusal;
mod rules;
mod schema;
mod search;
mod store;
pub mod tree;
mod upkeep;
mod web;

pub use batch::MAX_BATCH_SPANS;
pub use body::MAX_BODY_BYTES;
pub use collector::{Collector, RunningCollector};
pub use error::CollectorError;
pub use search::filters::MAX_PAGE_SPANS;
pub use store::{RootSummary, Store, TraceSummary};
