//! `/v5/span-assessments`.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Path, Request, State},
    response::Response,
    routing::get,
};
use serde_json::json as value;

use crate::{
    assessment::{Listing, NewAssessment, Said},
    http::{QueryPairs, account_id, blocking, json, with_body},
    read,
    refusal::Refusal,
    store::Store,
};

pub(super) fn routes() -> Router<Arc<Store>> {
    Router::new()
        .route("/v5/span-assessments", get(list).post(create))
        .route("/v5/span-assessments/{id}", get(retrieve).patch(update).delete(delete))
}

async fn create(State(store): State<Arc<Store>>, request: Request) -> Result<Response, Refusal> {
    with_body(request, move |headers, body| {
        Ok(json(store.assess(read::body::<NewAssessment>(body)?, account_id(headers)?)?))
    })
    .await
}

async fn list(
    State(store): State<Arc<Store>>,
    QueryPairs(query): QueryPairs,
) -> Result<Response, Refusal> {
    blocking(move || {
        let items = store.assessments(&Listing::parse(&query)?)?;
        Ok(json(format!(r#"{{"items":[{}],"object":"list"}}"#, items.join(","))))
    })
    .await
}

async fn retrieve(
    State(store): State<Arc<Store>>,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    blocking(move || Ok(json(store.assessment(&id)?))).await
}

async fn update(
    State(store): State<Arc<Store>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    with_body(request, move |_, body| Ok(json(store.reassess(&id, read::body::<Said>(body)?)?)))
        .await
}

async fn delete(
    State(store): State<Arc<Store>>,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    blocking(move || {
        store.forget_assessment(&id)?;
        Ok(json(value!({"id": id, "deleted": true, "object": "span.assessment"}).to_string()))
    })
    .await
}
