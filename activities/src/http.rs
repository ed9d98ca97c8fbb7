//! HTTP as all sinks speak it.

use std::{
    io::{self, Write},
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use reqwest::{
    Client, Method, Response, Url,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap},
    redirect,
};

use crate::{
    InvalidOptions, SinkError,
    options::{HttpOptions, OwnHeader, Service, is_loopback, shown},
};

mod answer;
pub(crate) mod tls;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A smaller body fits into one network packet anyway.
const MIN_GZIP_BYTES: usize = 1_024;

/// Of spans, two thirds of the bytes of level 1 in half as much time again. Further levels gain nothing.
const GZIP_LEVEL: Compression = Compression::new(2);

/// How much of an answer is kept where only its status and a reason matter.
pub(crate) const REASON_BYTES: usize = 64 * 1024;

/// How much of an answer is kept where it holds spans.
pub(crate) const SPANS_BYTES: usize = 64 * 1024 * 1024;

/// How much of an answer is read so that the connection can be used again. SGP answers with all
/// the spans that it stored, so this is above [`MAX_BATCH_BYTES`](crate::MAX_BATCH_BYTES).
const MAX_DRAINED_BYTES: usize = 4 * 1024 * 1024;

/// Speaks to one service: one attempt per call, with an error that says what became of it.
///
/// Connections are kept and used again. Redirects are not followed.
pub(crate) struct Http {
    client: Client,
    service: Service,
    timeout: Duration,
    gzip: bool,
    takes_gzip: TakesGzip,
    secrets: Vec<String>,
}

/// One request.
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    pub(crate) url: &'a Url,
    pub(crate) content_type: &'static str,
    /// Empty for none.
    pub(crate) body: Vec<u8>,
    /// Most bytes of the answer that are wanted.
    pub(crate) wanted_bytes: usize,
}

impl<'a> Request<'a> {
    /// A request with JSON in it, whose answer matters little.
    pub(crate) fn json(method: Method, url: &'a Url, body: Vec<u8>) -> Self {
        let content_type = "application/json";
        Self { method, url, content_type, body, wanted_bytes: REASON_BYTES }
    }

    /// A request for JSON.
    pub(crate) fn get(url: &'a Url) -> Self {
        Self { wanted_bytes: SPANS_BYTES, ..Self::json(Method::GET, url, Vec::new()) }
    }
}

impl Http {
    /// Does not connect yet. `urls` are all that will be asked for.
    pub(crate) fn new(
        options: &HttpOptions,
        own_headers: &[OwnHeader<'_>],
        urls: &[&Url],
    ) -> Result<Self, InvalidOptions> {
        let timeout = options.checked_timeout()?;
        let https = urls.iter().any(|url| url.scheme() == "https");
        let mut client = Client::builder()
            .tls_backend_preconfigured(tls::config(&options.tls, https)?)
            .default_headers(options.header_map(own_headers)?)
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(timeout);
        if urls.iter().all(|url| is_loopback(url)) {
            client = client.no_proxy();
        }
        let client = client.build().map_err(|error| {
            InvalidOptions::new("no HTTP client could be made").caused_by(error.without_url())
        })?;
        Ok(Self {
            client,
            service: options.service,
            timeout,
            gzip: options.gzip,
            takes_gzip: TakesGzip::default(),
            secrets: options.secrets(own_headers.iter().filter_map(|header| header.value)),
        })
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(crate) fn compresses(&self) -> bool {
        self.gzip
    }

    /// The body of a successful answer.
    pub(crate) async fn send(&self, request: Request<'_>) -> Result<Vec<u8>, SinkError> {
        let compress = self.gzip && request.body.len() >= MIN_GZIP_BYTES;
        if !compress || self.takes_gzip.get() == Some(false) {
            return self.attempt(&request, None).await;
        }
        let Ok(compressed) = gzip(&request.body) else {
            return self.attempt(&request, None).await;
        };
        match self.attempt(&request, Some(compressed)).await {
            Ok(answer) => {
                self.takes_gzip.set(true);
                Ok(answer)
            }
            // Servers do not say whether they take gzip. One that does not answers as if the
            // spans were at fault, which would cost them all.
            Err(error) if error.is_rejection() && self.takes_gzip.get().is_none() => {
                let answer = self.attempt(&request, None).await?;
                self.takes_gzip.set(false);
                tracing::info!(
                    endpoint = shown(request.url),
                    "the server refuses gzip, spans are sent uncompressed"
                );
                Ok(answer)
            }
            Err(error) => Err(error),
        }
    }

    async fn attempt(
        &self,
        request: &Request<'_>,
        compressed: Option<Vec<u8>>,
    ) -> Result<Vec<u8>, SinkError> {
        let mut sent = self.client.request(request.method.clone(), request.url.clone());
        if !request.body.is_empty() {
            sent = sent.header(CONTENT_TYPE, request.content_type);
            sent = match compressed {
                Some(compressed) => sent.header(CONTENT_ENCODING, "gzip").body(compressed),
                None => sent.body(request.body.clone()),
            };
        }
        let endpoint = shown(request.url);
        let mut response = sent
            .send()
            .await
            .map_err(|error| SinkError::from_transport(error, &endpoint, self.timeout))?;
        let status = response.status();
        if status.is_success() {
            return Ok(read(&mut response, request.wanted_bytes).await);
        }
        let answer = read(&mut response, REASON_BYTES).await;
        let reason = self.reason(response.headers(), &answer);
        Err(SinkError::from_answer(
            self.service,
            status,
            response.headers(),
            &endpoint,
            reason.as_deref(),
        ))
    }

    fn reason(&self, headers: &HeaderMap, answer: &[u8]) -> Option<String> {
        answer::reason(headers, answer).map(|text| self.without_secrets(text))
    }

    /// A text of the server's as it may be shown.
    pub(crate) fn without_secrets(&self, text: String) -> String {
        let text = self.secrets.iter().fold(text, |text, secret| text.replace(secret, "***"));
        answer::shorten_urls(&text)
    }
}

/// Whether the server takes compressed bodies, once that is known.
#[derive(Default)]
struct TakesGzip(AtomicU8);

impl TakesGzip {
    fn get(&self) -> Option<bool> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            known => Some(known == 1),
        }
    }

    /// What was found out first stays.
    fn set(&self, takes: bool) {
        let known = if takes { 1 } else { 2 };
        let _ = self.0.compare_exchange(0, known, Ordering::Relaxed, Ordering::Relaxed);
    }
}

fn gzip(body: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), GZIP_LEVEL);
    encoder.write_all(body)?;
    encoder.finish()
}

/// Reads the answer to its end, within bounds, and returns how it begins. A connection that breaks
/// meanwhile is no error: the status has been received.
async fn read(response: &mut Response, wanted_bytes: usize) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut read = 0;
    while read < MAX_DRAINED_BYTES.max(wanted_bytes)
        && let Ok(Some(chunk)) = response.chunk().await
    {
        read += chunk.len();
        let room = wanted_bytes - kept.len();
        kept.extend_from_slice(&chunk[..chunk.len().min(room)]);
    }
    kept
}
