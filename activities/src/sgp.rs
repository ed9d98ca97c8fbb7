use std::{
    collections::HashSet,
    fmt,
    io::{self, Write},
    sync::{Arc, OnceLock},
    time::Duration,
};

use durable_spans_model::{SpanId, TraceId};
use flate2::{Compression, write::GzEncoder};
use futures::future::BoxFuture;
use reqwest::{
    Client, Response, Url,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap},
    redirect,
};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;
use serde_json::Value;

use crate::{
    InvalidSgpOptions, SgpOptions, SinkError, SpanBatch, SpanSink,
    sgp_options::{is_loopback, shown},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A smaller body fits into one network packet anyway.
const MIN_GZIP_BYTES: usize = 1_024;

/// How much of an answer is kept, to find out what the server says.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// How much of an answer is read so that the connection can be used again. SGP answers with all
/// the spans that it stored, so this is above [`MAX_BATCH_BYTES`](crate::MAX_BATCH_BYTES).
const MAX_DRAINED_BYTES: usize = 4 * 1024 * 1024;

/// Sends spans to Scale's SGP spans API, or to anything that speaks it, such as the local
/// collector: `PUT {base_url}/v5/spans/batch`.
///
/// Connections are kept and used again. Redirects are not followed. TLS trusts the certificate
/// authorities of the machine. The proxies named in `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` are
/// used, except for an address on this very machine.
///
/// ```no_run
/// use durable_spans_activity::{SgpOptions, SgpSink};
///
/// let sink = SgpSink::new(SgpOptions::from_env()?)?;
/// # Ok::<(), durable_spans_activity::InvalidSgpOptions>(())
/// ```
pub struct SgpSink {
    pub(crate) client: Client,
    pub(crate) url: Url,
    /// The URL as it may be shown.
    pub(crate) endpoint: String,
    pub(crate) timeout: Duration,
    gzip: bool,
    /// Whether the server takes compressed bodies, once that is known.
    takes_gzip: OnceLock<bool>,
    secrets: Vec<String>,
}

impl SgpSink {
    /// A sink with connections of its own. Does not connect before the first batch.
    ///
    /// # Errors
    ///
    /// Says what to mend: a base URL, key, account or header that cannot be sent, a timeout of
    /// zero, or an `https` URL on a machine without certificate authorities.
    pub fn new(options: SgpOptions) -> Result<Self, InvalidSgpOptions> {
        let url = options.endpoint()?;
        let timeout = options.checked_timeout()?;
        let mut client = Client::builder()
            .tls_backend_preconfigured(tls(&url)?)
            .default_headers(options.header_map()?)
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(timeout);
        if is_loopback(&url) {
            client = client.no_proxy();
        }
        let client = client.build().map_err(|error| {
            InvalidSgpOptions::new("no HTTP client could be made").caused_by(error.without_url())
        })?;
        Ok(Self {
            client,
            endpoint: shown(&url),
            url,
            timeout,
            gzip: options.compresses(),
            takes_gzip: OnceLock::new(),
            secrets: options.secrets(),
        })
    }

    async fn upsert(&self, batch: &SpanBatch) -> Result<(), SinkError> {
        if batch.is_empty() {
            return Ok(());
        }
        let body = body(batch);
        let compress = self.gzip && body.len() >= MIN_GZIP_BYTES;
        if !compress || self.takes_gzip.get() == Some(&false) {
            return self.put(body, Encoding::Identity).await;
        }
        let Ok(compressed) = gzip(&body) else {
            return self.put(body, Encoding::Identity).await;
        };
        match self.put(compressed, Encoding::Gzip).await {
            Ok(()) => {
                self.takes_gzip.get_or_init(|| true);
                Ok(())
            }
            // Servers do not say whether they take gzip. One that does not answers as if the
            // spans were at fault, which would cost them all.
            Err(error) if error.is_rejection() && self.takes_gzip.get().is_none() => {
                self.put(body, Encoding::Identity).await?;
                if !*self.takes_gzip.get_or_init(|| false) {
                    tracing::info!(
                        endpoint = self.endpoint,
                        "the server refuses gzip, spans are sent uncompressed"
                    );
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn put(&self, body: Vec<u8>, encoding: Encoding) -> Result<(), SinkError> {
        let mut request =
            self.client.put(self.url.clone()).header(CONTENT_TYPE, "application/json").body(body);
        if encoding == Encoding::Gzip {
            request = request.header(CONTENT_ENCODING, "gzip");
        }
        let mut response = request
            .send()
            .await
            .map_err(|error| SinkError::from_transport(error, &self.endpoint, self.timeout))?;
        let answer = drain(&mut response).await;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let reason = reason(response.headers(), &answer).map(|text| self.without_secrets(text));
        Err(SinkError::from_answer(status, response.headers(), &self.endpoint, reason.as_deref()))
    }

    fn without_secrets(&self, text: String) -> String {
        let text = self.secrets.iter().fold(text, |text, secret| text.replace(secret, "***"));
        shorten_urls(&text)
    }
}

impl SpanSink for SgpSink {
    fn upsert_batch<'a>(&'a self, batch: &'a SpanBatch) -> BoxFuture<'a, Result<(), SinkError>> {
        Box::pin(self.upsert(batch))
    }

    fn ended_spans<'a>(
        &'a self,
        trace_id: &'a TraceId,
    ) -> BoxFuture<'a, Result<Option<HashSet<SpanId>>, SinkError>> {
        Box::pin(async move { self.search_ended(trace_id).await.map(Some) })
    }
}

impl fmt::Debug for SgpSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SgpSink")
            .field("endpoint", &self.endpoint)
            .field("timeout", &self.timeout)
            .field("gzip", &self.gzip)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Identity,
    Gzip,
}

/// TLS by ring, whatever the process has installed or not, trusting what the machine trusts.
fn tls(url: &Url) -> Result<ClientConfig, InvalidSgpOptions> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| InvalidSgpOptions::new("TLS is not available").caused_by(error))?;
    let config = match Verifier::new(provider) {
        Ok(verifier) => config.dangerous().with_custom_certificate_verifier(Arc::new(verifier)),
        // A bare container has none, and reaches its collector without.
        Err(_) if url.scheme() == "http" => config.with_root_certificates(RootCertStore::empty()),
        Err(error) => {
            let message = "this machine has no certificate authorities: install them (often as \
                           package ca-certificates) or point SSL_CERT_FILE at them";
            return Err(InvalidSgpOptions::new(message).caused_by(error));
        }
    };
    Ok(config.with_no_client_auth())
}

fn body(batch: &SpanBatch) -> Vec<u8> {
    let mut body = Vec::with_capacity(batch.encoded_len() + batch.len() + 16);
    body.extend_from_slice(br#"{"items":["#);
    for (index, span) in batch.encoded().iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(span.json().as_bytes());
    }
    body.extend_from_slice(b"]}");
    body
}

fn gzip(body: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
}

/// Reads the answer to its end, within bounds, and returns how it begins. A connection that breaks
/// meanwhile is no error: the status has been received.
async fn drain(response: &mut Response) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut read = 0;
    while read < MAX_DRAINED_BYTES
        && let Ok(Some(chunk)) = response.chunk().await
    {
        read += chunk.len();
        let room = MAX_ANSWER_BYTES - kept.len();
        kept.extend_from_slice(&chunk[..chunk.len().min(room)]);
    }
    kept
}

/// What the server says about a refusal. Of JSON only the fields that hold messages: others repeat
/// what was sent, and the content of spans does not belong into logs.
fn reason(headers: &HeaderMap, answer: &[u8]) -> Option<String> {
    let content_type = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    if content_type.starts_with("text/plain") {
        return Some(String::from_utf8_lossy(answer).into_owned());
    }
    let answer: Value = serde_json::from_slice(answer).ok()?;
    ["detail", "message", "error"].iter().find_map(|field| message(answer.get(field)?))
}

fn message(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Object(_) => {
            ["message", "detail"].iter().find_map(|field| match value.get(field)? {
                Value::String(text) => Some(text.clone()),
                _ => None,
            })
        }
        Value::Array(errors) => {
            let errors: Vec<_> = errors.iter().filter_map(validation_error).collect();
            (!errors.is_empty()).then(|| errors.join("; "))
        }
        _ => None,
    }
}

/// One entry of the list that FastAPI answers with 422: `items.3.name: must not be empty`.
fn validation_error(error: &Value) -> Option<String> {
    let message = error.get("msg")?.as_str()?;
    let place = error.get("loc").and_then(Value::as_array).into_iter().flatten();
    let place: Vec<_> = place
        .filter(|step| *step != "body")
        .map(|step| step.as_str().map_or_else(|| step.to_string(), str::to_owned))
        .collect();
    Some(if place.is_empty() {
        message.to_owned()
    } else {
        format!("{}: {message}", place.join("."))
    })
}

/// `text` with each URL in it cut to scheme, host and path.
fn shorten_urls(text: &str) -> String {
    let mut parts = text.split("://");
    let mut short = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c.is_whitespace() || "'\"`<>()".contains(c));
        let (url, rest) = part.split_at(end.unwrap_or(part.len()));
        let path = url.split(['?', '#']).next().unwrap_or_default();
        let host = path.split('/').next().unwrap_or_default();
        let user_info = host.rfind('@').map_or(0, |at| at + 1);
        short.push_str("://");
        short.push_str(&path[user_info..]);
        short.push_str(rest);
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(answer: &Value) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, "application/json".parse().unwrap());
        reason(&headers, answer.to_string().as_bytes())
    }

    #[test]
    fn the_message_of_a_server_is_found_in_its_usual_places() {
        let text = || Some("no".to_owned());
        assert_eq!(said(&json!({"detail": "no"})), text());
        assert_eq!(said(&json!({"message": "no", "status": 400})), text());
        assert_eq!(said(&json!({"error": "no"})), text());
        assert_eq!(said(&json!({"error": {"message": "no", "code": 1}})), text());
        assert_eq!(said(&json!({"detail": {"code": 1}, "message": "no"})), text());
        assert_eq!(said(&json!(["no"])), None);
    }

    #[test]
    fn a_validation_error_is_told_with_its_place_and_without_what_was_sent() {
        let answer = json!({"detail": [
            {"loc": ["body", "items", 3, "name"], "msg": "too short", "input": "private"},
            {"loc": [], "msg": "second", "ctx": {"given": "private"}},
            {"input": "private"},
        ]});
        assert_eq!(said(&answer).unwrap(), "items.3.name: too short; second");
        assert_eq!(said(&json!({"input": "private", "items": ["private"]})), None);
    }

    #[test]
    fn only_plain_text_is_repeated_as_it_is() {
        let of_type = |content_type: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
            reason(&headers, b"<p>no")
        };
        assert_eq!(of_type("text/plain; charset=utf-8").as_deref(), Some("<p>no"));
        assert_eq!(of_type("text/html"), None);
        assert_eq!(of_type("application/json"), None);
        assert_eq!(reason(&HeaderMap::new(), b"no"), None);
    }

    #[test]
    fn urls_lose_user_password_and_query() {
        let text = "see 'https://u:p@h:81/a@b?key=1#f' (http://k@h) or ftp://h/x?y, a://b";
        let short = "see 'https://h:81/a@b' (http://h) or ftp://h/x a://b";
        assert_eq!(shorten_urls(text), short);
        assert_eq!(shorten_urls("50 % at 10:00"), "50 % at 10:00");
    }
}
