//! An OTLP/HTTP receiver that keeps what it gets, as a tracing backend would.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use axum::{Json, Router, extract::State, routing::post};
use serde::Deserialize;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::counts::Received;

/// It listens until it is dropped.
pub(crate) struct Receiver {
    address: SocketAddr,
    spans: Spans,
    serving: JoinHandle<()>,
}

type Spans = Arc<Mutex<Vec<OtlpSpan>>>;

impl Receiver {
    pub(crate) async fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let spans = Spans::default();
        let keep = async |State(spans): State<Spans>, Json(export): Json<Export>| {
            let scopes =
                export.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
            let mut kept = spans.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend(scopes.flat_map(|scope| scope.spans));
            Json(serde_json::json!({}))
        };
        let app = Router::new().route("/v1/traces", post(keep)).with_state(spans.clone());
        let serving = tokio::spawn(async move { drop(axum::serve(listener, app).await) });
        Ok(Self { address, spans, serving })
    }

    /// The endpoint to export to.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1/traces", self.address)
    }

    /// The spans of each trace, by the workflow id that one of them has to tell: the call that
    /// started the run, which no kill has touched.
    pub(crate) fn by_workflow(&self) -> HashMap<String, Vec<Received>> {
        let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        let workflow_of: HashMap<&str, &str> = spans
            .iter()
            .filter_map(|span| {
                Some((span.trace_id.as_str(), span.attribute("temporalWorkflowID")?))
            })
            .collect();
        let mut by_workflow: HashMap<String, Vec<Received>> = HashMap::new();
        for span in spans.iter() {
            if let Some(workflow) = workflow_of.get(span.trace_id.as_str()) {
                by_workflow.entry((*workflow).to_owned()).or_default().push(Received {
                    id: span.span_id.clone(),
                    name: span.name.clone(),
                    ended: span.end_time_unix_nano.as_deref().is_some_and(|end| end != "0"),
                });
            }
        }
        by_workflow
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Export {
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans {
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Deserialize)]
struct ScopeSpans {
    spans: Vec<OtlpSpan>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OtlpSpan {
    trace_id: String,
    span_id: String,
    name: String,
    end_time_unix_nano: Option<String>,
    #[serde(default)]
    attributes: Vec<Attribute>,
}

#[derive(Deserialize)]
struct Attribute {
    key: String,
    value: serde_json::Value,
}

impl OtlpSpan {
    fn attribute(&self, key: &str) -> Option<&str> {
        let attribute = self.attributes.iter().find(|attribute| attribute.key == key)?;
        attribute.value.get("stringValue")?.as_str()
    }
}
