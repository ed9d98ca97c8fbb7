use std::{
    collections::{HashSet, VecDeque},
    env, fmt,
    sync::{Mutex, PoisonError},
};

use durable_spans_model::{Span, TraceId};
use futures::{FutureExt, future::BoxFuture};
use reqwest::{Method, Url};
use serde_json::{Map, Value, json};

use crate::{
    Contract, InvalidOptions, SinkError, SpanBatch, SpanSink,
    http::{Http, Request},
    options::{
        HttpOptions, OwnHeader, Service, http_setters, is_loopback, read_variable,
        require_variable, shown,
    },
    sinks::ids,
};

mod span_data;

const API_KEY: &str = "OPENAI_API_KEY";
const DEFAULT_BASE_URL: &str = "https://api.openai.com/v1";

const OPENAI: Service = Service {
    name: "OpenAI",
    key: API_KEY,
    identity: "OPENAI_API_KEY, OPENAI_ORG_ID and OPENAI_PROJECT_ID",
    url: "OPENAI_BASE_URL",
    example_url: DEFAULT_BASE_URL,
};

/// Most items of a batch, as OpenAI's own exporter sends them.
const BATCH_SPANS: usize = 128;

/// How many traces are remembered as told.
const REMEMBERED_TRACES: usize = 10_000;

/// What a trace is called whose root is not in the batch that tells of it.
const UNNAMED: &str = "Agent workflow";

/// Sends spans to the traces dashboard of OpenAI, as its Agents SDK does:
/// `POST {base_url}/traces/ingest`.
///
/// Each trace is told once, with the first of its spans that comes here, and each span once, when it
/// has ended. OpenAI keeps what came first. The type of a span and its fields are those of the
/// metadata `openai_metadata`, where SGP's own tracing puts them, or else follow from its
/// [`SpanType`](durable_spans_model::SpanType); a span of no kind that OpenAI knows is a custom one
/// with its input, output and metadata as data. An input or output over 100,000 bytes of JSON is cut
/// with a mark.
///
/// A trace's name is that of its root, if that is in the same batch, and `Agent workflow` otherwise:
/// what is told once cannot be told better later.
///
/// ```no_run
/// use durable_spans_activity::{OpenAiOptions, OpenAiSink};
///
/// let sink = OpenAiSink::new(OpenAiOptions::from_env()?)?;
/// # Ok::<(), durable_spans_activity::InvalidOptions>(())
/// ```
pub struct OpenAiSink {
    http: Http,
    url: Url,
    workflow_name: Option<String>,
    told: Mutex<Told>,
}

impl OpenAiSink {
    /// A sink with connections of its own. Does not connect before the first batch.
    ///
    /// # Errors
    ///
    /// Says what to mend: a base URL, key or header that cannot be sent, a timeout of zero, or an
    /// `https` URL on a machine without certificate authorities.
    pub fn new(options: OpenAiOptions) -> Result<Self, InvalidOptions> {
        let url = options.http.url_of(&["traces", "ingest"])?;
        let authorization = options.api_key.as_ref().map(|key| format!("Bearer {key}"));
        let own = |name, what, setting, value| OwnHeader { name, what, setting, value };
        let headers = [
            own("authorization", "the API key", API_KEY, authorization.as_deref()),
            own("openai-beta", "", "", Some("traces=v1")),
            own(
                "openai-organization",
                "the organization",
                "OPENAI_ORG_ID",
                options.organization.as_deref(),
            ),
            own("openai-project", "the project", "OPENAI_PROJECT_ID", options.project.as_deref()),
        ];
        Ok(Self {
            http: Http::new(&options.http, &headers, &[&url])?,
            url,
            workflow_name: options.workflow_name,
            told: Mutex::default(),
        })
    }

    async fn ingest(&self, batch: &SpanBatch) -> Result<(), SinkError> {
        if batch.is_empty() {
            return Ok(());
        }
        let traces = self.new_traces(batch);
        let items = traces.iter().map(|(_, item)| item.clone());
        let items: Vec<Value> = items.chain(batch.spans().map(item)).collect();
        let body = json!({ "data": items }).to_string().into_bytes();
        self.http.send(Request::json(Method::POST, &self.url, body)).await?;
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        traces.into_iter().for_each(|(id, _)| told.insert(id));
        Ok(())
    }

    /// The traces of the batch that OpenAI has not been told of, with what to tell.
    fn new_traces(&self, batch: &SpanBatch) -> Vec<(TraceId, Value)> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let mut traces: Vec<(TraceId, Value)> = Vec::new();
        for span in batch.spans() {
            let id = &span.trace_id;
            if told.ids.contains(id) || traces.iter().any(|(known, _)| known == id) {
                continue;
            }
            let of_trace = || batch.spans().filter(|span| &span.trace_id == id);
            let root = of_trace().find(|span| span.parent_id.is_none());
            let name = self.workflow_name.as_deref().or(root.map(|root| &*root.name));
            let metadata = root.and_then(|root| root.metadata.get("openai_trace_metadata"));
            traces.push((
                id.clone(),
                json!({
                    "object": "trace",
                    "id": trace_id(id),
                    "workflow_name": name.unwrap_or(UNNAMED),
                    "group_id": of_trace().find_map(|span| span.group_id.as_ref()),
                    "metadata": metadata,
                }),
            ));
        }
        traces
    }
}

impl SpanSink for OpenAiSink {
    fn upsert_batch<'a>(&'a self, batch: &'a SpanBatch) -> BoxFuture<'a, Result<(), SinkError>> {
        self.ingest(batch).boxed()
    }

    fn contract(&self) -> Contract {
        Contract::first_write_wins().batch_spans(BATCH_SPANS).id_bits(96)
    }

    fn name(&self) -> &str {
        "openai"
    }
}

impl fmt::Debug for OpenAiSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenAiSink")
            .field("endpoint", &shown(&self.url))
            .field("timeout", &self.http.timeout())
            .field("gzip", &self.http.compresses())
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Told {
    ids: HashSet<TraceId>,
    order: VecDeque<TraceId>,
}

impl Told {
    fn insert(&mut self, id: TraceId) {
        if self.ids.insert(id.clone()) {
            self.order.push_back(id);
        }
        if self.order.len() > REMEMBERED_TRACES
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}

fn item(span: &Span) -> Value {
    json!({
        "object": "trace.span",
        "id": span_id(&span.id),
        "trace_id": trace_id(&span.trace_id),
        "parent_id": span.parent_id.as_ref().map(span_id),
        "started_at": span.start_timestamp,
        "ended_at": span.end_timestamp,
        "span_data": span_data::of(span),
        "error": error(span),
    })
}

/// `trace_` and 32 hex digits; one that came from OpenAI's own SDK stays as it is.
fn trace_id(id: &TraceId) -> String {
    let text = id.to_string();
    if is_theirs(&text, "trace_", 32) {
        text
    } else {
        format!("trace_{:032x}", ids::trace_bits(id))
    }
}

/// `span_` and 24 hex digits, the lower 96 bits.
fn span_id(id: &durable_spans_model::SpanId) -> String {
    let text = id.to_string();
    let low = ids::span_bits(id) & ((1 << 96) - 1);
    if is_theirs(&text, "span_", 24) { text } else { format!("span_{low:024x}") }
}

fn is_theirs(text: &str, prefix: &str, digits: usize) -> bool {
    text.strip_prefix(prefix)
        .is_some_and(|hex| hex.len() == digits && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Message and data of what went wrong.
fn error(span: &Span) -> Value {
    let message = match span.metadata.get("error_message") {
        Some(Value::String(message)) => message,
        _ => return Value::Null,
    };
    let data = match span.metadata.get("error_data") {
        Some(data) => data.clone(),
        None => {
            let named = |name: &str| Some((name.to_owned(), span.metadata.get(name)?.clone()));
            let data: Map<_, _> =
                ["error_type", "error_category"].iter().filter_map(|name| named(name)).collect();
            if data.is_empty() { Value::Null } else { Value::Object(data) }
        }
    };
    json!({ "message": message, "data": data })
}

/// Where an [`OpenAiSink`] sends spans, and as whom.
///
/// Nothing is checked before [`OpenAiSink::new`]. `Debug` shows neither the API key, nor values of
/// headers, nor a user name, password or query of the URL.
#[derive(Clone)]
#[must_use]
pub struct OpenAiOptions {
    http: HttpOptions,
    api_key: Option<String>,
    organization: Option<String>,
    project: Option<String>,
    workflow_name: Option<String>,
}

impl OpenAiOptions {
    /// Sends to `https://api.openai.com/v1/traces/ingest` with that key.
    pub fn new(api_key: impl Into<String>) -> Self {
        Self { api_key: Some(api_key.into()), ..Self::without_key(DEFAULT_BASE_URL.to_owned()) }
    }

    fn without_key(base_url: String) -> Self {
        Self {
            http: HttpOptions::new(OPENAI, base_url),
            api_key: None,
            organization: None,
            project: None,
            workflow_name: None,
        }
    }

    /// Reads the variables that OpenAI's own clients read: `OPENAI_API_KEY`, `OPENAI_ORG_ID`,
    /// `OPENAI_PROJECT_ID` and `OPENAI_BASE_URL` (default `https://api.openai.com/v1`). The key may
    /// be missing if the URL points at this very machine. White space around a value is cut off; an
    /// empty variable counts as missing.
    ///
    /// # Errors
    ///
    /// Names the variable that is missing or is not Unicode, and says what to do.
    pub fn from_env() -> Result<Self, InvalidOptions> {
        Self::from_variables(env::var)
    }

    fn from_variables(
        variable: impl Fn(&'static str) -> Result<String, env::VarError>,
    ) -> Result<Self, InvalidOptions> {
        let read = |name| read_variable(&variable, name);
        let base_url = read("OPENAI_BASE_URL")?.unwrap_or_else(|| DEFAULT_BASE_URL.to_owned());
        let mut options = Self::without_key(base_url);
        options.api_key = if is_loopback(&options.http.url_of(&[])?) {
            read(API_KEY)?
        } else {
            Some(require_variable(&variable, API_KEY, "your OpenAI project")?)
        };
        options.organization = read("OPENAI_ORG_ID")?;
        options.project = read("OPENAI_PROJECT_ID")?;
        Ok(options)
    }

    /// Sends to `{base_url}/traces/ingest`.
    pub fn base_url(mut self, base_url: impl Into<String>) -> Self {
        self.http.url = base_url.into();
        self
    }

    /// The organization, sent as `OpenAI-Organization`. Default: none is sent.
    pub fn organization(mut self, organization: impl Into<String>) -> Self {
        self.organization = Some(organization.into());
        self
    }

    /// The project, sent as `OpenAI-Project`. Default: none is sent.
    pub fn project(mut self, project: impl Into<String>) -> Self {
        self.project = Some(project.into());
        self
    }

    /// What every trace is called. Default: as its root, see [`OpenAiSink`].
    pub fn workflow_name(mut self, name: impl Into<String>) -> Self {
        self.workflow_name = Some(name.into());
        self
    }

    http_setters!();
}

impl fmt::Debug for OpenAiOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenAiOptions")
            .field("base_url", &self.http.shown_url())
            .field("api_key", &self.api_key.as_ref().map(|_| "***"))
            .field("organization", &self.organization)
            .field("project", &self.project)
            .field("timeout", &self.http.timeout)
            .field("headers", &self.http.header_names())
            .field("gzip", &self.http.gzip)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::variables;

    /// What was ingested carries these ids, so they may never change.
    #[test]
    fn ids_have_openais_form() {
        let of_trace = |text: &str| trace_id(&text.parse().unwrap());
        let of_span = |text: &str| span_id(&text.parse().unwrap());
        let uuid = "c58c5e1e-bcff-46d8-81c5-4dc1a5fdafea";
        assert_eq!(of_trace(uuid), "trace_c58c5e1ebcff46d881c54dc1a5fdafea");
        assert_eq!(of_span(uuid), "span_bcff46d881c54dc1a5fdafea");
        let theirs = "trace_cdaf3a500e8546329795a6305eb9035c";
        assert_eq!(of_trace(theirs), theirs);
        let theirs = "span_09055c2d9a08493ba8ae2793";
        assert_eq!(of_span(theirs), theirs);
        assert_eq!(of_span("order-17").len(), theirs.len());
    }

    #[test]
    fn a_missing_key_is_named() {
        let error = OpenAiOptions::from_variables(variables(&[])).unwrap_err().to_string();
        assert!(error.starts_with("OPENAI_API_KEY is not set: set it"), "{error}");
        let local = [("OPENAI_BASE_URL", "http://127.0.0.1:1/v1"), ("OPENAI_ORG_ID", "o")];
        let options = OpenAiOptions::from_variables(variables(&local)).unwrap();
        assert_eq!((options.api_key, options.organization.as_deref()), (None, Some("o")));
    }
}
