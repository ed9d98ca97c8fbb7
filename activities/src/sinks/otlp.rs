use std::fmt;

use futures::{FutureExt, future::BoxFuture};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    common::v1::InstrumentationScope,
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans},
};
use prost::Message;
use reqwest::{Method, Url};
use serde_json::Value;

use crate::{
    Contract, InvalidOptions, SinkError, SpanBatch, SpanSink,
    http::{Http, REASON_BYTES, Request},
    options::shown,
};

mod attributes;
mod genai;
mod messages;
mod options;
mod presets;

pub use options::{OtlpOptions, OtlpProtocol};

/// Sends spans to anything that takes OpenTelemetry traces over HTTP: `POST {endpoint}/v1/traces`.
///
/// Such a backend has no open spans, and may keep every copy that it gets, so a span is sent once,
/// when it has ended. Its id is the lower half of ours. What language models and agents did is told
/// by OpenTelemetry's conventions for generative AI, inputs and outputs as `input.value` and
/// `output.value` in JSON, metadata as attributes, events as events and each metric as
/// `metrics.{name}`.
///
/// There is no convention for a cost. One in US dollars is `gen_ai.usage.cost`, which Langfuse reads, and
/// `llm.cost.total`, which is OpenInference's; one in another currency is told by the metadata alone.
///
/// Spans that the backend says it has rejected, without saying which (a partial success), are
/// counted as dropped and logged with its reason.
///
/// ```no_run
/// use durable_spans_activity::{OtlpOptions, OtlpSink};
///
/// let sink = OtlpSink::new(OtlpOptions::from_env()?)?;
/// # Ok::<(), durable_spans_activity::InvalidOptions>(())
/// ```
pub struct OtlpSink {
    http: Http,
    url: Url,
    protocol: OtlpProtocol,
    resource: Resource,
    dialect: attributes::Dialect,
    name: &'static str,
    contract: Contract,
}

impl OtlpSink {
    /// A sink with connections of its own. Does not connect before the first batch.
    ///
    /// # Errors
    ///
    /// Says what to mend: a URL or header that cannot be sent, a timeout of zero, or an `https` URL
    /// on a machine without certificate authorities.
    pub fn new(options: OtlpOptions) -> Result<Self, InvalidOptions> {
        let url = options.endpoint()?;
        Ok(Self {
            http: Http::new(options.http(), &[], &[&url])?,
            url,
            protocol: options.chosen_protocol(),
            resource: options.resource(),
            dialect: options.dialect(),
            name: options.name(),
            contract: options.contract(),
        })
    }

    async fn export(&self, batch: &SpanBatch) -> Result<(), SinkError> {
        if batch.is_empty() {
            return Ok(());
        }
        let request = self.request(batch);
        let (content_type, body) = match self.protocol {
            OtlpProtocol::Protobuf => ("application/x-protobuf", request.encode_to_vec()),
            OtlpProtocol::Json => {
                let body = serde_json::to_vec(&request).map_err(SinkError::retryable)?;
                ("application/json", body)
            }
        };
        let request = Request {
            method: Method::POST,
            url: &self.url,
            content_type,
            body,
            wanted_bytes: REASON_BYTES,
        };
        let answer = self.http.send(request).await?;
        let Some((rejected, message)) = partial_success(self.protocol, &answer) else {
            return Ok(());
        };
        let message = self.http.without_secrets(message);
        if rejected > 0 {
            return Err(SinkError::partly_rejected(rejected, message));
        }
        if !message.is_empty() {
            tracing::warn!(
                sink = self.name,
                message,
                "the OTLP backend took the spans with a warning"
            );
        }
        Ok(())
    }

    fn request(&self, batch: &SpanBatch) -> ExportTraceServiceRequest {
        let scope = InstrumentationScope {
            name: "durable-spans".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        let spans = batch.spans().map(|span| attributes::otlp_span(span, self.dialect)).collect();
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, schema_url: String::new() }];
        let resource_spans = vec![ResourceSpans {
            resource: Some(self.resource.clone()),
            scope_spans,
            schema_url: String::new(),
        }];
        ExportTraceServiceRequest { resource_spans }
    }
}

impl SpanSink for OtlpSink {
    fn upsert_batch<'a>(&'a self, batch: &'a SpanBatch) -> BoxFuture<'a, Result<(), SinkError>> {
        self.export(batch).boxed()
    }

    fn contract(&self) -> Contract {
        self.contract
    }

    fn name(&self) -> &str {
        self.name
    }
}

impl fmt::Debug for OtlpSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtlpSink")
            .field("endpoint", &shown(&self.url))
            .field("protocol", &self.protocol)
            .field("timeout", &self.http.timeout())
            .field("gzip", &self.http.compresses())
            .finish_non_exhaustive()
    }
}

/// How many spans were rejected, and why. An answer that cannot be read says nothing: some backends
/// answer with no body or with one of their own.
fn partial_success(protocol: OtlpProtocol, answer: &[u8]) -> Option<(u64, String)> {
    match protocol {
        OtlpProtocol::Protobuf => {
            let partial = ExportTraceServiceResponse::decode(answer).ok()?.partial_success?;
            Some((u64::try_from(partial.rejected_spans).unwrap_or(0), partial.error_message))
        }
        OtlpProtocol::Json => {
            let answer: Value = serde_json::from_slice(answer).ok()?;
            let partial = answer.get("partialSuccess")?;
            // 64-bit numbers are text in the JSON of protobuf, and numbers in that of some.
            let rejected = match partial.get("rejectedSpans") {
                Some(Value::String(text)) => text.parse().unwrap_or(0),
                Some(number) => number.as_u64().unwrap_or(0),
                None => 0,
            };
            let message = partial.get("errorMessage").and_then(Value::as_str).unwrap_or_default();
            Some((rejected, message.to_owned()))
        }
    }
}
