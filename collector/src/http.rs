use std::sync::Arc;

use axum::{
    Router,
    extract::{Query, Request, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};

use crate::{
    api_key::ApiKey, batch, body, page::Page, refusal::Refusal, search, store::Store, web,
};

const API_KEY: &str = "x-api-key";
const ACCOUNT_ID: &str = "x-selected-account-id";
const PROJECT_ID: &str = "x-project-id";

/// The account of spans whose sender named none.
const DEFAULT_ACCOUNT: &str = "local";

pub(crate) fn router(
    store: Arc<Store>,
    api_key: Option<ApiKey>,
    temporal_ui: Option<String>,
) -> Router {
    Router::new()
        .route("/v5/spans/batch", put(upsert_batch))
        .route("/v5/spans/search", post(search_spans))
        .merge(web::data(temporal_ui, api_key.is_some()))
        .with_state(store)
        // Only routes added before a layer are behind it: health needs no key.
        .layer(middleware::from_fn_with_state(api_key, require_key))
        .route("/healthz", get(health))
        .merge(web::bundle())
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
}

async fn require_key(State(key): State<Option<ApiKey>>, request: Request, next: Next) -> Response {
    let given = request.headers().get(API_KEY).map_or(&b""[..], |value| value.as_bytes());
    if key.is_some_and(|key| !key.matches(given)) {
        body::discard(request.into_body()).await;
        let status = StatusCode::UNAUTHORIZED;
        return Refusal::of_field(status, API_KEY, "is missing or wrong").into_response();
    }
    next.run(request).await
}

async fn health() -> Response {
    json(r#"{"status":"ok"}"#.to_owned())
}

async fn upsert_batch(
    State(store): State<Arc<Store>>,
    request: Request,
) -> Result<Response, Refusal> {
    let (head, body) = request.into_parts();
    let body = body::read(body).await?;
    blocking(move || {
        let body = body::decode(&head.headers, &body)?;
        let items = store.upsert(batch::parse(&body, account_id(&head.headers)?)?)?;
        Ok(json(format!(r#"{{"items":[{}],"object":"list"}}"#, items.join(","))))
    })
    .await
}

async fn search_spans(
    State(store): State<Arc<Store>>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
    request: Request,
) -> Result<Response, Refusal> {
    let Query(query) = query
        .map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "the query string cannot be read"))?;
    let (head, body) = request.into_parts();
    // A filter too, though it comes as a header.
    if head.headers.contains_key(PROJECT_ID) {
        return Err(search::unknown(PROJECT_ID));
    }
    let body = body::read(body).await?;
    blocking(move || {
        let search = search::parse(&query, &body::decode(&head.headers, &body)?)?;
        let Page { items, has_more } = store.search(&search)?;
        let items = items.join(",");
        Ok(json(format!(r#"{{"items":[{items}],"has_more":{has_more},"object":"list"}}"#)))
    })
    .await
}

async fn not_found() -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        "the collector serves PUT /v5/spans/batch, POST /v5/spans/search and GET /healthz",
    )
}

async fn wrong_method() -> Refusal {
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "the collector takes PUT for /v5/spans/batch, POST for /v5/spans/search, GET for /healthz",
    )
}

/// Parsing and SQLite must not hold up the threads that serve connections.
pub(crate) async fn blocking(
    work: impl FnOnce() -> Result<Response, Refusal> + Send + 'static,
) -> Result<Response, Refusal> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Err(Refusal::new(status, "the collector gave up on this request: please report it"))
    })
}

fn account_id(headers: &HeaderMap) -> Result<&str, Refusal> {
    match headers.get(ACCOUNT_ID).map(|value| value.to_str()) {
        None | Some(Ok("")) => Ok(DEFAULT_ACCOUNT),
        Some(Ok(account_id)) => Ok(account_id),
        Some(Err(_)) => Err(Refusal::invalid(ACCOUNT_ID, "must be printable ASCII")),
    }
}

fn json(body: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
