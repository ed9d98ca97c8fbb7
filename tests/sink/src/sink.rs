use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use durable_spans_collector::{Collector, RunningCollector};
use durable_spans_model::{Span, SpanId, TraceId};
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, RETRY_AFTER},
    http::request::Parts,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use serde_json::json;
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use crate::{Fault, told::Told};

/// A sink that fails on demand: HTTP in front of a real collector.
///
/// It ends when it is dropped, as by a crash. [`Fault`] says what it can do.
#[derive(Debug)]
pub struct FaultySink {
    shared: Arc<Shared>,
    file: PathBuf,
    addr: SocketAddr,
    serving: Option<(RunningCollector, JoinHandle<()>)>,
}

#[derive(Debug)]
struct Shared {
    fault: watch::Sender<Fault>,
    delay: watch::Sender<Duration>,
    /// Calls that met a fault.
    met: watch::Sender<u64>,
    calls: AtomicU64,
    rows: AtomicU64,
    /// How often OpenTelemetry's spans were taken.
    copies: Mutex<HashMap<(TraceId, SpanId), usize>>,
    store: Client<HttpConnector, Full<Bytes>>,
}

impl FaultySink {
    /// Serves a store in this SQLite file, which is made if it is missing, on a free port of
    /// 127.0.0.1.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened, or nothing can listen on loopback.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O and time enabled.
    pub async fn start(file: impl Into<PathBuf>) -> Result<Self> {
        let shared = Arc::new(Shared {
            fault: watch::Sender::default(),
            delay: watch::Sender::default(),
            met: watch::Sender::default(),
            calls: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            copies: Mutex::default(),
            store: Client::builder(TokioExecutor::new()).build_http(),
        });
        let addr = ([127, 0, 0, 1], 0).into();
        let mut sink = Self { shared, file: file.into(), addr, serving: None };
        sink.start_again().await?;
        Ok(sink)
    }

    /// Serves the same store at the same port, after [`stop`](Self::stop).
    ///
    /// # Errors
    ///
    /// When somebody else has taken the port meanwhile.
    pub async fn start_again(&mut self) -> Result<()> {
        let collector = Collector::open(&self.file)?.serve(([127, 0, 0, 1], 0)).await?;
        let listener = TcpListener::bind(self.addr).await.context("the sink's port is taken")?;
        self.addr = listener.local_addr()?;
        let task = tokio::spawn(listen(listener, self.shared.clone(), collector.url()));
        self.serving = Some((collector, task));
        Ok(())
    }

    /// Ends every connection and refuses new ones.
    pub async fn stop(&mut self) {
        if let Some((collector, task)) = self.serving.take() {
            task.abort();
            // Cancelled, as asked for. Its listener is gone once it has ended.
            drop(task.await);
            collector.shutdown().await;
        }
    }

    /// The base URL for clients.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Sets what happens from the next call on. A call that hangs already goes on hanging.
    pub fn set(&self, fault: Fault) {
        self.shared.fault.send_replace(fault);
    }

    /// Waits this long before it stores a batch that meets no fault, and answers. Default: not at
    /// all.
    pub fn answer_after(&self, delay: Duration) {
        self.shared.delay.send_replace(delay);
    }

    /// Waits until that many calls have met a fault.
    pub async fn until_met(&self, calls: u64) {
        // The sender is alive, in `self`.
        drop(self.shared.met.subscribe().wait_for(|met| *met >= calls).await);
    }

    /// Calls that have met a fault so far.
    pub fn faults_met(&self) -> u64 {
        *self.shared.met.borrow()
    }

    /// Requests that have come so far.
    pub fn calls(&self) -> u64 {
        self.shared.calls.load(Ordering::Relaxed)
    }

    /// Spans that were given to the store and taken by it, those that it had already included.
    pub fn rows(&self) -> u64 {
        self.shared.rows.load(Ordering::Relaxed)
    }

    /// How often a span has been stored that came by OpenTelemetry, whose backends may keep every
    /// copy. This one keeps the last.
    pub fn copies(&self, trace: &TraceId, span: &SpanId) -> usize {
        let copies = self.shared.copies.lock().unwrap_or_else(PoisonError::into_inner);
        copies.get(&(trace.clone(), span.clone())).copied().unwrap_or(0)
    }

    /// What the store holds of a trace, under the ids that the collector gave to the spans if they
    /// came by another API than SGP's.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub async fn stored(&self, trace: &TraceId) -> Result<Vec<Span>> {
        let (file, trace) = (self.file.clone(), trace.clone());
        let read = move || Ok(Collector::open(file)?.store().spans(&trace)?);
        tokio::task::spawn_blocking(read).await?
    }
}

impl Drop for FaultySink {
    fn drop(&mut self) {
        if let Some((_, task)) = &self.serving {
            task.abort();
        }
    }
}

async fn listen(listener: TcpListener, shared: Arc<Shared>, store_url: String) {
    // Connections end with the task that holds them.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        // A connection that is dropped in the middle is reset, as by a server that crashes.
        let prepared = stream.set_nodelay(true).and_then(|()| stream.set_zero_linger());
        if prepared.is_err() {
            continue;
        }
        let (shared, store_url) = (shared.clone(), store_url.clone());
        connections.spawn(async move {
            let service = service_fn(|request| serve(shared.clone(), store_url.clone(), request));
            // An error ends the connection, which is all that it shall do.
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

/// An error ends the connection without an answer.
async fn serve(
    shared: Arc<Shared>,
    store_url: String,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let mut told = Told::read(&head, &body)?;
    shared.calls.fetch_add(1, Ordering::Relaxed);
    let fault = *shared.fault.borrow();
    if !fault.meets(&head, &told) {
        let delay = *shared.delay.borrow();
        tokio::time::sleep(delay).await;
        return shared.store(&store_url, head, &told).await;
    }
    if matches!(fault, Fault::ResetsHalfway | Fault::HangsHalfway) {
        told.halve();
        shared.store(&store_url, head, &told).await?;
    }
    shared.met.send_modify(|met| *met += 1);
    match fault {
        Fault::None | Fault::Hangs | Fault::HangsHalfway => std::future::pending().await,
        Fault::ResetsHalfway => Err(io::Error::from(io::ErrorKind::ConnectionReset).into()),
        Fault::Errors => Ok(refusal(StatusCode::INTERNAL_SERVER_ERROR, "out of order")),
        Fault::TooMany { retry_after } => {
            let mut answer = refusal(StatusCode::TOO_MANY_REQUESTS, "too many requests");
            answer.headers_mut().insert(RETRY_AFTER, retry_after.as_secs().into());
            Ok(answer)
        }
        Fault::Refuses(_) => {
            Ok(refusal(StatusCode::UNPROCESSABLE_ENTITY, "a span has a name that is not allowed"))
        }
        Fault::TakesKey(_) => {
            Ok(refusal(StatusCode::UNAUTHORIZED, "x-api-key is missing or wrong"))
        }
    }
}

impl Shared {
    /// Passes a request on to the store, and its answer back.
    async fn store(
        &self,
        store_url: &str,
        mut head: Parts,
        told: &Told,
    ) -> Result<Response<Full<Bytes>>> {
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        head.uri = format!("{store_url}{path}").parse()?;
        // These are of the message that came.
        for name in [CONTENT_ENCODING, CONTENT_LENGTH, HOST] {
            head.headers.remove(name);
        }
        let body = Full::from(told.write());
        let answer = self.store.request(Request::from_parts(head, body)).await?;
        if answer.status().is_success() {
            self.rows.fetch_add(told.len() as u64, Ordering::Relaxed);
            let mut copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
            told.otlp_ids().into_iter().for_each(|id| *copies.entry(id).or_default() += 1);
        }
        let (head, body) = answer.into_parts();
        Ok(Response::from_parts(head, Full::from(body.collect().await?.to_bytes())))
    }
}

fn refusal(status: StatusCode, detail: &str) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::from(json!({ "detail": detail }).to_string()));
    *answer.status_mut() = status;
    let json = hyper::header::HeaderValue::from_static("application/json");
    answer.headers_mut().insert(CONTENT_TYPE, json);
    answer
}
