//! The traces page: a small bundle without a build step, and the data that it asks for.
//!
//! The page itself is the same for everybody and needs no key; its data does, where a key is set.
//! All that comes from spans is text to the page: it is never markup and never code.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use axum::{
    Extension, Router,
    body::{Body, Bytes},
    extract::{Query as Parameters, Request, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use durable_spans_model::Timestamp;
use futures_util::stream;
use serde_json::json;
use tokio::sync::mpsc;

use crate::{body, http::blocking, refusal::Refusal, store::Store};

mod assets;
pub(crate) mod export;
mod list;
mod queries;
mod query;
mod record;
mod shortlist;
mod summary;
mod trace;
mod version;

use export::Format;
use list::Kept;
use query::Query;
use trace::Answer;
use version::Versions;

/// Traces of a list where the request does not say, and at most.
const LIST_TRACES: usize = 60;
const MAX_LIST_TRACES: usize = 500;

/// Most traces that one request for summaries may name.
const MAX_SUMMARIES: usize = 500;

/// Nothing but what this server serves, and nothing inline.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What the page's requests share.
#[derive(Debug)]
struct Page {
    kept: Mutex<Kept>,
    versions: Versions,
    temporal_ui: Option<String>,
}

/// The page's data, which may need a key.
pub(crate) fn data(temporal_ui: Option<String>) -> Router<Arc<Store>> {
    let page = Page { kept: Mutex::default(), versions: Versions::default(), temporal_ui };
    Router::new()
        .route("/page/changes", get(changes))
        .route("/page/traces", get(traces))
        .route("/page/summaries", post(summaries))
        .route("/page/names", get(names))
        .route("/page/trace", get(one_trace))
        .route("/page/span", get(span))
        .route("/page/search", get(search))
        .route("/page/export", get(export))
        .layer(Extension(Arc::new(page)))
        .layer(middleware::map_response(secure))
}

/// The page itself, which says nothing that is not public.
pub(crate) fn bundle() -> Router {
    assets::router().layer(middleware::map_response(secure))
}

async fn secure(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "no-referrer");
    response
}

type Given = Result<Parameters<Vec<(String, String)>>, QueryRejection>;

/// The parameters of a request.
struct Asked(Vec<(String, String)>);

impl Asked {
    fn read(given: Given) -> Result<Self, Refusal> {
        match given {
            Ok(Parameters(parameters)) => Ok(Self(parameters)),
            Err(_) => Err(Refusal::new(StatusCode::BAD_REQUEST, "the query string cannot be read")),
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(given, value)| given == name && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    }

    fn need(&self, name: &str) -> Result<&str, Refusal> {
        self.get(name).ok_or_else(|| Refusal::invalid(name, "is missing"))
    }

    fn query(&self) -> Result<Query, Refusal> {
        Query::parse(&self.0, Timestamp::from(SystemTime::now()).unix_ns())
    }
}

/// A text that changes with each write, and what the page should know of this collector.
async fn changes(
    State(store): State<Arc<Store>>,
    Extension(page): Extension<Arc<Page>>,
) -> Result<Response, Refusal> {
    blocking(move || {
        let version = page.versions.current(&store)?;
        let now = Timestamp::from(SystemTime::now()).unix_ns().to_string();
        let temporal_ui = &page.temporal_ui;
        Ok(json_text(&json!({ "version": version, "now": now, "temporal_ui": temporal_ui })))
    })
    .await
}

async fn traces(
    State(store): State<Arc<Store>>,
    Extension(page): Extension<Arc<Page>>,
    given: Given,
) -> Result<Response, Refusal> {
    let asked = Asked::read(given)?;
    blocking(move || {
        let query = asked.query()?;
        let after = asked.get("after").map(|after| {
            list::read_cursor(after)
                .ok_or_else(|| Refusal::invalid("after", "must be the next of the page before"))
        });
        let limit = asked.get("limit").map_or(Ok(LIST_TRACES), |limit| {
            let limit = limit.parse().ok().filter(|n| (1..=MAX_LIST_TRACES).contains(n));
            let reason = || format!("must be a number from 1 to {MAX_LIST_TRACES}");
            limit.ok_or_else(|| Refusal::invalid("limit", &reason()))
        })?;
        let after = after.transpose()?;
        let mut kept = page.kept();
        Ok(json_text(&store.read(|c| list::list(c, &mut kept, &query, after, limit))?))
    })
    .await
}

async fn summaries(
    State(store): State<Arc<Store>>,
    Extension(page): Extension<Arc<Page>>,
    request: Request,
) -> Result<Response, Refusal> {
    let body = body::read(request.into_body()).await?;
    blocking(move || {
        let wrong = || Refusal::invalid("body", "must be an array of at most 500 trace ids");
        let trace_ids: Vec<String> = serde_json::from_slice(&body).map_err(|_| wrong())?;
        if trace_ids.len() > MAX_SUMMARIES {
            return Err(wrong());
        }
        let mut kept = page.kept();
        Ok(json_text(&store.read(|c| list::summaries(c, &mut kept, &trace_ids))?))
    })
    .await
}

async fn names(
    State(store): State<Arc<Store>>,
    Extension(page): Extension<Arc<Page>>,
    given: Given,
) -> Result<Response, Refusal> {
    let asked = Asked::read(given)?;
    blocking(move || {
        let query = asked.query()?;
        let mut kept = page.kept();
        Ok(json_text(&store.read(|c| list::overview(c, &mut kept, &query))?))
    })
    .await
}

async fn one_trace(State(store): State<Arc<Store>>, given: Given) -> Result<Response, Refusal> {
    let asked = Asked::read(given)?;
    blocking(move || {
        let trace_id = asked.need("id")?;
        match store.read(|c| trace::trace(c, trace_id, asked.get("version")))? {
            Answer::Trace(trace) => Ok(json_text(&trace)),
            Answer::Unchanged => Ok(StatusCode::NO_CONTENT.into_response()),
            Answer::Unknown => Err(not_here("trace")),
        }
    })
    .await
}

async fn span(State(store): State<Arc<Store>>, given: Given) -> Result<Response, Refusal> {
    let asked = Asked::read(given)?;
    blocking(move || {
        let (trace_id, id) = (asked.need("trace")?, asked.need("id")?);
        let span = store.read(|c| queries::span(c, trace_id, id))?;
        Ok(json_body(span.ok_or_else(|| not_here("span"))?.body))
    })
    .await
}

async fn search(State(store): State<Arc<Store>>, given: Given) -> Result<Response, Refusal> {
    let asked = Asked::read(given)?;
    blocking(move || {
        let (trace_id, text) = (asked.need("trace")?, asked.need("text")?);
        Ok(json_text(&store.read(|c| trace::search(c, trace_id, text))?))
    })
    .await
}

/// A trace, a part of one, or all traces of a query, as a file.
async fn export(State(store): State<Arc<Store>>, given: Given) -> Result<Response, Refusal> {
    let asked = Asked::read(given)?;
    let format = Format::parse(asked.need("format")?)
        .ok_or_else(|| Refusal::invalid("format", "must be jsonl, otlp, csv or compact"))?;
    let headers = [
        (header::CONTENT_TYPE, format.media_type().to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}\"", format.file_name())),
    ];
    if asked.get("trace").is_some() {
        return blocking(move || {
            let trace_id = asked.need("trace")?;
            let text = store.read(|c| export::trace(c, format, trace_id, asked.get("span")))?;
            let text = text.ok_or_else(|| not_here("trace or span"))?;
            Ok((headers, format!("{}{text}", format.head())).into_response())
        })
        .await;
    }
    if format == Format::Compact {
        return Err(Refusal::invalid("format", "compact is for one trace: name it as trace"));
    }
    let query = asked.query()?;
    let (sender, mut receiver) = mpsc::channel::<Result<Bytes, rusqlite::Error>>(2);
    tokio::task::spawn_blocking(move || {
        let mut kept = Kept::default();
        let mut next = None;
        // Ends early when the reader hangs up.
        let _ = sender.blocking_send(Ok(format.head().into()));
        loop {
            // One step at a time, so that others get to read in between.
            match store.read(|c| export::step(c, &mut kept, format, &query, next.as_deref())) {
                Ok((text, cursor)) => {
                    if sender.blocking_send(Ok(text.into())).is_err() || cursor.is_none() {
                        return;
                    }
                    next = cursor;
                }
                Err(error) => {
                    // Breaks the answer off, so that nobody takes a part for the whole.
                    let _ = sender.blocking_send(Err(error));
                    return;
                }
            }
        }
    });
    let chunks = stream::poll_fn(move |cx| receiver.poll_recv(cx));
    Ok((headers, Body::from_stream(chunks)).into_response())
}

impl Page {
    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        // What a panic leaves behind is checked against the file before it is used.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_here(what: &str) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, format!("no such {what} is stored here"))
}

fn json_text(value: &impl serde::Serialize) -> Response {
    json_body(durable_spans_model::to_json(value).to_string())
}

fn json_body(body: String) -> Response {
    let headers: HeaderMap = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ]
    .into_iter()
    .collect();
    (headers, body).into_response()
}
