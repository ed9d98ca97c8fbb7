use std::{collections::HashSet, fmt};

use durable_spans_model::{Span, SpanId, TraceId};
use futures::future::BoxFuture;
use reqwest::{Method, Url};

use crate::{
    Contract, InvalidOptions, SgpOptions, SinkError, SpanBatch, SpanSink,
    http::{Http, Request},
    options::shown,
};

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
/// # Ok::<(), durable_spans_activity::InvalidOptions>(())
/// ```
pub struct SgpSink {
    pub(super) http: Http,
    pub(super) url: Url,
}

impl SgpSink {
    /// A sink with connections of its own. Does not connect before the first batch.
    ///
    /// # Errors
    ///
    /// Says what to mend: a base URL, key, account or header that cannot be sent, a timeout of
    /// zero, or an `https` URL on a machine without certificate authorities.
    pub fn new(options: SgpOptions) -> Result<Self, InvalidOptions> {
        let url = options.endpoint()?;
        Ok(Self { http: options.http(&url)?, url })
    }

    async fn upsert(&self, batch: &SpanBatch) -> Result<(), SinkError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.http.send(Request::json(Method::PUT, &self.url, body(batch))).await.map(drop)
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

    fn contract(&self) -> Contract {
        Contract::upsert().check(Span::validate)
    }

    fn name(&self) -> &str {
        "sgp"
    }
}

impl fmt::Debug for SgpSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SgpSink")
            .field("endpoint", &shown(&self.url))
            .field("timeout", &self.http.timeout())
            .field("gzip", &self.http.compresses())
            .finish_non_exhaustive()
    }
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
