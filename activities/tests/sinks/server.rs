//! A real HTTP server on this machine that records what it gets.

use std::{
    error::Error,
    future::pending,
    io::Read,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{ConnectInfo, Request},
    http::{HeaderMap, Method, Response},
};
use durable_spans_activity::SinkError;
use tokio::net::TcpListener;

/// One request as it came over the wire.
#[derive(Clone)]
pub(crate) struct Received {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) peer: SocketAddr,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn is_gzip(&self) -> bool {
        self.header("content-encoding") == Some("gzip")
    }

    /// The body, uncompressed if need be.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        if !self.is_gzip() {
            return self.body.clone();
        }
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(&self.body[..]).read_to_end(&mut bytes).unwrap();
        bytes
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.bytes()).unwrap()
    }
}

/// A server that records what it gets and answers what the test says. It stops with the test.
pub(crate) struct Server {
    pub(crate) base_url: String,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Server {
    pub(crate) async fn start(
        answer: impl Fn(&Received) -> Response<Body> + Clone + Send + Sync + 'static,
    ) -> Self {
        Self::start_silent(move |received| Some(answer(received))).await
    }

    /// One that never answers where the test says nothing.
    pub(crate) async fn start_silent(
        answer: impl Fn(&Received) -> Option<Response<Body>> + Clone + Send + Sync + 'static,
    ) -> Self {
        Self::start_at("127.0.0.1:0", answer).await
    }

    pub(crate) async fn start_at(
        address: &str,
        answer: impl Fn(&Received) -> Option<Response<Body>> + Clone + Send + Sync + 'static,
    ) -> Self {
        let received = Arc::<Mutex<Vec<Received>>>::default();
        let record = Arc::clone(&received);
        let handler = move |ConnectInfo(peer): ConnectInfo<SocketAddr>, request: Request| {
            let (record, answer) = (Arc::clone(&record), answer.clone());
            async move {
                let (parts, body) = request.into_parts();
                let received = Received {
                    method: parts.method,
                    target: parts.uri.to_string(),
                    headers: parts.headers,
                    body: to_bytes(body, usize::MAX).await.unwrap().to_vec(),
                    peer,
                };
                record.lock().unwrap().push(received.clone());
                let answer = answer(&received);
                match answer {
                    Some(answer) => answer,
                    None => pending().await,
                }
            }
        };
        Self { base_url: serve_at(address, Router::new().fallback(handler)).await, received }
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

/// The base URL of `router`, which is ready to take connections.
pub(crate) async fn serve(router: Router) -> String {
    serve_at("127.0.0.1:0", router).await
}

async fn serve_at(address: &str, router: Router) -> String {
    let listener = TcpListener::bind(address).await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    base_url
}

pub(crate) fn status(code: u16) -> Response<Body> {
    Response::builder().status(code).body(Body::empty()).unwrap()
}

pub(crate) fn ok(_: &Received) -> Response<Body> {
    status(200)
}

/// Everything that an error shows, with its whole chain.
pub(crate) fn shown(error: &SinkError) -> String {
    let mut text = format!("{error} {error:?} {error:#?}");
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(" {error} {error:?}");
        source = error.source();
    }
    text
}

/// The base URL of a port that nobody listens on.
pub(crate) async fn closed_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}
