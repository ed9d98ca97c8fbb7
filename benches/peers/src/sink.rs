//! A sink that parses what it gets, counts it and throws it away.

use std::{
    io::Read,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{post, put},
};
use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use serde::{Deserialize, de::IgnoredAny};
use tokio::net::TcpListener;

/// A sink on loopback. It listens until the runtime ends.
pub(crate) struct Sink {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    calls: AtomicU64,
    bytes: AtomicU64,
    spans: AtomicU64,
    delay_ms: AtomicU64,
}

/// What has arrived so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Arrived {
    pub(crate) calls: u64,
    /// Of bodies, as they came: compressed, if they were.
    pub(crate) bytes: u64,
    /// Records, so one that was announced and has ended counts twice.
    pub(crate) spans: u64,
}

impl Sink {
    pub(crate) async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let app = Router::new()
            .route("/v5/spans/batch", put(sgp).post(sgp))
            .route("/v1/traces", post(otlp))
            .layer(DefaultBodyLimit::disable())
            .with_state(shared.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(Self { address, shared })
    }

    /// The base URL of SGP's API; OTLP is at `/v1/traces` below it.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers this late from now on.
    pub(crate) fn answer_after(&self, delay: Duration) {
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.shared.delay_ms.store(delay_ms, Ordering::Relaxed);
    }

    pub(crate) fn arrived(&self) -> Arrived {
        let Shared { calls, bytes, spans, .. } = &*self.shared;
        let [calls, bytes, spans] =
            [calls, bytes, spans].map(|count| count.load(Ordering::Acquire));
        Arrived { calls, bytes, spans }
    }
}

impl Arrived {
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            calls: self.calls - before.calls,
            bytes: self.bytes - before.bytes,
            spans: self.spans - before.spans,
        }
    }
}

impl Shared {
    async fn count(&self, bytes: usize, spans: usize) {
        let delay = self.delay_ms.load(Ordering::Relaxed);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.spans.fetch_add(spans as u64, Ordering::Release);
    }
}

async fn sgp(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    #[derive(Deserialize)]
    struct Items {
        items: Vec<IgnoredAny>,
    }
    let Some(json) = unpacked(&headers, &body) else { return refused() };
    let Ok(Items { items }) = serde_json::from_slice(&json) else { return refused() };
    shared.count(body.len(), items.len()).await;
    // SGP answers with the spans, which costs a client more.
    json_answer(r#"{"items":[],"has_more":false,"limit":0,"total":0}"#)
}

async fn otlp(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let Some(unpacked) = unpacked(&headers, &body) else { return refused() };
    let is_json =
        headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().ends_with(b"json"));
    let request = if is_json {
        serde_json::from_slice::<ExportTraceServiceRequest>(&unpacked).ok()
    } else {
        ExportTraceServiceRequest::decode(&*unpacked).ok()
    };
    let Some(request) = request else { return refused() };
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    let spans = scopes.map(|scope| scope.spans.len()).sum();
    shared.count(body.len(), spans).await;
    if is_json { json_answer("{}") } else { StatusCode::OK.into_response() }
}

fn unpacked(headers: &HeaderMap, body: &Bytes) -> Option<Bytes> {
    if headers.get(header::CONTENT_ENCODING).is_none_or(|encoding| encoding != "gzip") {
        return Some(body.clone());
    }
    let mut unpacked = Vec::with_capacity(body.len() * 8);
    GzDecoder::new(&**body).read_to_end(&mut unpacked).ok()?;
    Some(unpacked.into())
}

fn json_answer(json: &'static str) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], json).into_response()
}

fn refused() -> Response {
    (StatusCode::BAD_REQUEST, "not understood").into_response()
}
