//! `/v3/spans` and `/v3/traces`, as Opper's clients speak.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Path, Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use durable_spans_model::{SpanStatus, Timestamp, TraceId};
use serde_json::{Value, json};

use crate::{
    CollectorError, TraceSummary,
    http::{QueryPairs, account_id, blocking, json as answer, with_body},
    opper::span::{Change, NewSpan},
    read,
    refusal::Refusal,
    store::Store,
};

mod span;

/// Traces of a list where the request does not say.
const DEFAULT_TRACES: usize = 50;

/// Latest traces that a list looks at.
const MAX_TRACES: usize = 10_000;

pub(crate) fn routes() -> Router<Arc<Store>> {
    Router::new()
        .route("/v3/spans", axum::routing::post(create))
        .route("/v3/spans/{id}", get(retrieve).patch(update).delete(delete))
        .route("/v3/traces", get(list_traces))
        .route("/v3/traces/{id}", get(retrieve_trace).delete(delete_trace))
}

async fn create(State(store): State<Arc<Store>>, request: Request) -> Result<Response, Refusal> {
    with_body(request, move |headers, body| {
        let record = read::body::<NewSpan>(body)?.into_record(account_id(headers)?)?;
        shown(&store.create(record)?)
    })
    .await
}

async fn retrieve(
    State(store): State<Arc<Store>>,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    blocking(move || shown(&store.span(&id)?)).await
}

async fn update(
    State(store): State<Arc<Store>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    with_body(request, move |_, body| {
        let change = read::body::<Change>(body)?;
        shown(&store.update(&id, |stored| change.of(stored))?)
    })
    .await
}

async fn delete(
    State(store): State<Arc<Store>>,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    blocking(move || gone(store.forget_span(&id)?, "span")).await
}

async fn list_traces(
    State(store): State<Arc<Store>>,
    QueryPairs(query): QueryPairs,
) -> Result<Response, Refusal> {
    blocking(move || {
        let number = |name: &str, default| match query.iter().find(|(known, _)| known == name) {
            None => Ok(default),
            Some((_, value)) => {
                value.parse().map_err(|_| Refusal::invalid(name, "must be a number, not negative"))
            }
        };
        let (limit, offset) = (number("limit", DEFAULT_TRACES)?, number("offset", 0)?);
        let name = query.iter().find(|(known, _)| known == "name").map(|(_, name)| name);
        let has_name = |trace: &TraceSummary| {
            name.is_none_or(|name| trace.root.as_ref().is_some_and(|root| root.name == *name))
        };
        let traces = store.traces(MAX_TRACES)?;
        let found: Vec<_> = traces.iter().filter(|trace| has_name(trace)).collect();
        let page: Vec<_> =
            found.iter().skip(offset).take(limit).map(|trace| summary(trace)).collect();
        let meta = json!({ "total_count": found.len() });
        Ok(answer(json!({ "data": page, "meta": meta }).to_string()))
    })
    .await
}

fn summary(trace: &TraceSummary) -> Value {
    let root = trace.root.as_ref();
    let end = root.and_then(|root| root.end_timestamp);
    let status = root.map(|root| match (root.status, end) {
        (SpanStatus::Error, _) => "error",
        (SpanStatus::Canceled, _) => "canceled",
        (SpanStatus::Success, Some(_)) => "success",
        (SpanStatus::Success, None) => "running",
    });
    json!({
        "id": trace.trace_id,
        "name": root.map(|root| &root.name),
        "span_count": trace.span_count,
        "start_time": trace.start_timestamp,
        "end_time": end,
        "duration_ms": end.map(|end| duration_ms(trace.start_timestamp, end)),
        "status": status,
    })
}

async fn retrieve_trace(
    State(store): State<Arc<Store>>,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    blocking(move || {
        let trace_id: TraceId = id.parse().map_err(|_| Refusal::not_found("trace"))?;
        let items = store.items(&trace_id)?;
        let first = items.first().ok_or_else(|| Refusal::not_found("trace"))?;
        let root = items.iter().find(|item| item["parent_id"].is_null());
        let time = |item: &Value, field: &str| item[field].as_str()?.parse::<Timestamp>().ok();
        let start = time(first, "start_timestamp");
        let end = root.and_then(|root| time(root, "end_timestamp"));
        let duration = start.zip(end).map(|(start, end)| duration_ms(start, end));
        let trace = json!({
            "id": trace_id,
            "name": root.map(|root| &root["name"]),
            "span_count": items.len(),
            "spans": items.iter().map(span::shown).collect::<Vec<_>>(),
            "start_time": start,
            "end_time": end,
            "duration_ms": duration,
            "status": root.map(span::status),
        });
        Ok(answer(trace.to_string()))
    })
    .await
}

async fn delete_trace(
    State(store): State<Arc<Store>>,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    blocking(move || gone(store.forget_trace(&id)?, "trace")).await
}

fn duration_ms(start: Timestamp, end: Timestamp) -> u64 {
    u64::try_from(end.since(start).as_millis()).unwrap_or(u64::MAX)
}

fn shown(body: &str) -> Result<Response, Refusal> {
    let item: Value = serde_json::from_str(body).map_err(Refusal::corrupt)?;
    Ok(answer(span::shown(&item).to_string()))
}

fn gone(was_there: bool, what: &str) -> Result<Response, Refusal> {
    if was_there {
        Ok(StatusCode::NO_CONTENT.into_response())
    } else {
        Err(Refusal::not_found(what))
    }
}

impl From<CollectorError> for Refusal {
    fn from(error: CollectorError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}
