//! How the spans leave the process: OTLP over HTTP, by one of OpenTelemetry's two processors.

use anyhow::Result;
use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::trace::{BatchSpanProcessor, SdkTracerProvider, SimpleSpanProcessor};
use temporalio_sdk::opentelemetry::{WorkflowIdGenerator, WorkflowSpanProcessor};
use tokio::runtime::{Builder, Runtime};

/// Tells the worker to send spans in batches instead of each when it ends.
const BATCH: &str = "OTEL_PEER_BATCH";

/// How spans leave the process, of OpenTelemetry's two ways.
pub(crate) enum Processor {
    /// Each when it ends.
    Simple,
    /// In batches, from a queue in memory.
    Batch,
}

impl Processor {
    pub(crate) fn from_env() -> Self {
        if std::env::var_os(BATCH).is_some() { Self::Batch } else { Self::Simple }
    }
}

pub(crate) fn provider(endpoint: &str, processor: Processor) -> Result<SdkTracerProvider> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Elsewhere::new()?)
        .with_protocol(Protocol::HttpJson)
        .with_endpoint(endpoint)
        .build()?;
    let provider = SdkTracerProvider::builder().with_id_generator(WorkflowIdGenerator::default());
    let provider = match processor {
        Processor::Batch => {
            let batch = BatchSpanProcessor::builder(exporter).build();
            provider.with_span_processor(WorkflowSpanProcessor::new(batch))
        }
        Processor::Simple => {
            let simple = SimpleSpanProcessor::new(exporter);
            provider.with_span_processor(WorkflowSpanProcessor::new(simple))
        }
    };
    Ok(provider.build())
}

/// An HTTP client on threads of its own: the processors block the thread on which they export, and
/// that may be one of the worker's.
#[derive(Debug)]
struct Elsewhere {
    runtime: Runtime,
    client: reqwest::Client,
}

impl Elsewhere {
    fn new() -> Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Self { runtime, client: reqwest::Client::new() })
    }
}

#[async_trait]
impl HttpClient for Elsewhere {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        self.runtime.spawn(async move { client.send_bytes(request).await }).await?
    }
}
