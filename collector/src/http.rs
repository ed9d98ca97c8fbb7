use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    extract::{FromRequestParts, Path, Query, Request, State},
    http::{HeaderMap, StatusCode, header, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use tokio::sync::Semaphore;

use crate::{
    api_key::ApiKey,
    batch, body, guard, import, openai, opper, otlp,
    rate::RateLimit,
    read,
    refusal::Refusal,
    search::filters::{self, Search, Ties},
    store::{Mode, Store, update::Change},
    web,
};

mod assessments;

const API_KEY: &str = "x-api-key";
const ACCOUNT_ID: &str = "x-selected-account-id";
const PROJECT_ID: &str = "x-project-id";

/// Asks a search for spans of equal keys in the order of their `arrival`. SGP, which does not know
/// this header, and a search without it order them by id.
const TIES: &str = "x-order-of-ties";

/// The account of spans whose sender named none.
const DEFAULT_ACCOUNT: &str = "local";

pub(crate) fn router(
    store: Arc<Store>,
    api_key: Option<ApiKey>,
    temporal_ui: Option<String>,
    rate: Option<RateLimit>,
    most_in_flight: usize,
) -> Router {
    let in_flight = Arc::new(Semaphore::new(most_in_flight));
    let has_key = api_key.is_some();
    let router = Router::new()
        .route("/v5/spans", post(create_span))
        .route("/v5/spans/batch", put(upsert_batch).post(create_batch))
        .route("/v5/spans/{span_id}", get(retrieve_span).patch(update_span))
        .route("/v5/spans/search", post(search_spans))
        .merge(web::data(temporal_ui))
        .merge(import::routes())
        .merge(assessments::routes())
        .merge(otlp::routes())
        .merge(openai::routes())
        .merge(opper::routes())
        .with_state(store)
        // Only routes added before a layer are behind it: health needs no key.
        .layer(middleware::from_fn_with_state(api_key, require_key))
        .layer(middleware::from_fn_with_state(rate.map(Arc::new), limit_rate))
        .layer(middleware::from_fn_with_state(in_flight, guard::limit_in_flight));
    let router =
        if has_key { router } else { router.layer(middleware::from_fn(guard::require_local)) };
    router
        .route("/healthz", get(health))
        .merge(web::bundle())
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
}

async fn require_key(State(key): State<Option<ApiKey>>, request: Request, next: Next) -> Response {
    if key.is_some_and(|key| !key.matches(given_key(request.headers()))) {
        body::discard(request.into_body()).await;
        let status = StatusCode::UNAUTHORIZED;
        return Refusal::of_field(status, API_KEY, "is missing or wrong").into_response();
    }
    next.run(request).await
}

/// Other clients than those of SGP send their key as a bearer token.
fn given_key(headers: &HeaderMap) -> &[u8] {
    match headers.get(API_KEY) {
        Some(key) => key.as_bytes(),
        None => headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "))
            .unwrap_or_default(),
    }
}

async fn limit_rate(
    State(rate): State<Option<Arc<RateLimit>>>,
    request: Request,
    next: Next,
) -> Response {
    if rate.is_some_and(|rate| !rate.allows(Instant::now())) {
        body::discard(request.into_body()).await;
        let detail = "more requests per second than this collector serves: try again";
        return Refusal::new(StatusCode::TOO_MANY_REQUESTS, detail).into_response();
    }
    next.run(request).await
}

async fn health() -> Response {
    json(r#"{"status":"ok"}"#.to_owned())
}

async fn create_span(
    State(store): State<Arc<Store>>,
    request: Request,
) -> Result<Response, Refusal> {
    with_body(request, move |headers, body| {
        Ok(json(store.create(batch::parse_one(body, account_id(headers)?)?)?))
    })
    .await
}

async fn retrieve_span(
    State(store): State<Arc<Store>>,
    Path(span_id): Path<String>,
) -> Result<Response, Refusal> {
    blocking(move || Ok(json(store.span(&span_id)?))).await
}

async fn update_span(
    State(store): State<Arc<Store>>,
    Path(span_id): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    with_body(request, move |_, body| {
        let change = read::body::<Change>(body)?;
        Ok(json(store.update(&span_id, |stored| change.of(stored))?))
    })
    .await
}

async fn create_batch(
    State(store): State<Arc<Store>>,
    request: Request,
) -> Result<Response, Refusal> {
    write_batch(store, request, Mode::Create).await
}

async fn upsert_batch(
    State(store): State<Arc<Store>>,
    request: Request,
) -> Result<Response, Refusal> {
    write_batch(store, request, Mode::Upsert).await
}

async fn write_batch(store: Arc<Store>, request: Request, mode: Mode) -> Result<Response, Refusal> {
    with_body(request, move |headers, body| {
        let items = store.write(batch::parse(body, account_id(headers)?)?, mode)?;
        Ok(json(format!(r#"{{"items":[{}],"object":"list"}}"#, items.join(","))))
    })
    .await
}

async fn search_spans(
    State(store): State<Arc<Store>>,
    QueryPairs(query): QueryPairs,
    request: Request,
) -> Result<Response, Refusal> {
    // A filter too, though it comes as a header.
    if request.headers().contains_key(PROJECT_ID) {
        return Err(filters::unknown(PROJECT_ID));
    }
    with_body(request, move |headers, body| {
        let mut search = Search::parse(&query, body)?;
        if headers.get(TIES).is_some_and(|ties| ties == "arrival") {
            search.ties = Ties::Arrival;
        }
        Ok(json(store.search(&search)?.json()))
    })
    .await
}

/// The parameters of the query string, as they come.
pub(crate) struct QueryPairs(pub(crate) Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for QueryPairs {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(pairs)) => Ok(Self(pairs)),
            Err(_) => Err(Refusal::new(StatusCode::BAD_REQUEST, "the query string cannot be read")),
        }
    }
}

/// Reads the body of a request and works with it where waiting is allowed.
pub(crate) async fn with_body(
    request: Request,
    work: impl FnOnce(&HeaderMap, &[u8]) -> Result<Response, Refusal> + Send + 'static,
) -> Result<Response, Refusal> {
    let (head, body) = request.into_parts();
    let body = body::read(body).await?;
    blocking(move || work(&head.headers, &body::decode(&head.headers, &body)?)).await
}

async fn not_found() -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        "the collector serves /v5/spans, /v5/spans/batch, /v5/spans/search and /healthz",
    )
}

async fn wrong_method() -> Refusal {
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "the collector does not take this method here: see its documentation",
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

pub(crate) fn account_id(headers: &HeaderMap) -> Result<&str, Refusal> {
    match headers.get(ACCOUNT_ID).map(|value| value.to_str()) {
        None | Some(Ok("")) => Ok(DEFAULT_ACCOUNT),
        Some(Ok(account_id)) => Ok(account_id),
        Some(Err(_)) => Err(Refusal::invalid(ACCOUNT_ID, "must be printable ASCII")),
    }
}

pub(crate) fn json(body: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
