use std::{
    collections::{HashMap, HashSet, VecDeque},
    env, fmt,
};

use durable_spans_model::{Fields, Span, SpanId, SpanStatus, TraceId};
use futures::{FutureExt, future::BoxFuture};
use reqwest::{Method, Url};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::{
    Contract, InvalidOptions, SinkError, SpanBatch, SpanSink,
    http::{Http, Request},
    options::{
        HttpOptions, OwnHeader, Service, http_setters, is_loopback, read_variable,
        require_variable, shown,
    },
    sinks::ids,
};

const NAME: &str = "opper";
const API_KEY: &str = "OPPER_API_KEY";
const DEFAULT_BASE_URL: &str = "https://api.opper.ai";

const OPPER: Service = Service {
    name: "Opper",
    key: API_KEY,
    identity: API_KEY,
    url: "OPPER_BASE_URL",
    example_url: DEFAULT_BASE_URL,
};

/// Each span is a request, and a call should end within seconds.
const BATCH_SPANS: usize = 20;

/// How many traces are known at a time. One that was forgotten is read again.
const KNOWN_TRACES: usize = 1_000;

/// By this name, our id of a span stands in its `meta`.
const OUR_ID: &str = "durable_spans_id";

/// Sends spans to Opper: `POST {base_url}/v3/spans` creates one, `PATCH {base_url}/v3/spans/{id}`
/// finishes it.
///
/// Opper gives a span an id of its own, so a create that is sent again makes a second span. To
/// prevent that, our id goes along in the span's `meta`, and the trace is read
/// (`GET {base_url}/v3/traces/{id}`) to find what is there already: before the first create of each
/// batch, since another worker may have gone on with a run meanwhile, and after a create that got no
/// answer. One create is under way at a time. So a span is there twice only where Opper does not tell,
/// when it is asked again, of a span that it has stored; or where two workers create the same span at
/// the same moment, since one of them was thought dead: at most the one batch of 20 spans that each of
/// them has under way.
///
/// Such a double is found at the next reading of its trace, which is read once more when its root
/// has ended. A warning then names the span and both ids that Opper gave to it, and the counter
/// `durable_spans_doubled` of the `metrics` facade (with the label `sink`) grows by one.
///
/// A child needs the id that Opper gave to its parent. A span that comes before its parent, as the
/// attempt of an activity may, hangs under the root of its trace, or beside it, and its `meta` names
/// the parent as `durable_spans_parent_id`: Opper lets nobody move it later.
///
/// ```no_run
/// use durable_spans_activity::{OpperOptions, OpperSink};
///
/// let sink = OpperSink::new(OpperOptions::from_env()?)?;
/// # Ok::<(), durable_spans_activity::InvalidOptions>(())
/// ```
pub struct OpperSink {
    http: Http,
    base: Url,
    traces: Mutex<Traces>,
}

impl OpperSink {
    /// A sink with connections of its own. Does not connect before the first batch.
    ///
    /// # Errors
    ///
    /// Says what to mend: a base URL, key or header that cannot be sent, a timeout of zero, or an
    /// `https` URL on a machine without certificate authorities.
    pub fn new(options: OpperOptions) -> Result<Self, InvalidOptions> {
        let base = options.http.url_of(&["v3"])?;
        let authorization = options.api_key.as_ref().map(|key| format!("Bearer {key}"));
        let own = [OwnHeader {
            name: "authorization",
            what: "the API key",
            setting: API_KEY,
            value: authorization.as_deref(),
        }];
        let http = Http::new(&options.http, &own, &[&base])?;
        Ok(Self { http, base, traces: Mutex::default() })
    }

    async fn upsert(&self, batch: &SpanBatch) -> Result<(), SinkError> {
        let mut traces = self.traces.lock().await;
        for span in batch.spans() {
            // Another worker may have gone on with the run meanwhile.
            traces.of(&span.trace_id).is_certain = false;
        }
        for span in parents_first(batch) {
            self.upsert_span(traces.of(&span.trace_id), span).await?;
        }
        for root in batch.spans().filter(|span| is_ended_root(span)) {
            // Only to find doubles: the spans have been delivered.
            if let Err(error) = self.read(traces.of(&root.trace_id), &root.trace_id).await {
                tracing::debug!(sink = NAME, %error, "a trace was not looked through for doubles");
            }
        }
        Ok(())
    }

    async fn upsert_span(&self, trace: &mut Trace, span: &Span) -> Result<(), SinkError> {
        if !trace.is_certain && !trace.rows.contains_key(&span.id) {
            self.read(trace, &span.trace_id).await?;
        }
        if let Some(row) = trace.rows.get_mut(&span.id) {
            if !row.finished && span.end_timestamp.is_some() {
                let url = self.url_of(&["spans", &row.id]);
                // Sent again, it writes the same.
                self.send(Method::PATCH, &url, finish(span)).await?;
                row.finished = true;
            }
            return Ok(());
        }
        // From here until the answer, nobody knows whether the span is there.
        trace.is_certain = false;
        let body = create(span, trace);
        let answer = match self.send(Method::POST, &self.url_of(&["spans"]), body).await {
            Ok(answer) => answer,
            Err(error) => {
                // What was refused is not there.
                trace.is_certain = error.is_rejection() || error.is_credentials();
                return Err(error);
            }
        };
        let created: Created = parse(&answer)?;
        trace.is_certain = true;
        if span.parent_id.is_none() {
            trace.root.get_or_insert_with(|| created.id.clone());
        }
        if !created.trace_id.is_empty() {
            trace.id.get_or_insert(created.trace_id);
        }
        let row = Row { id: created.id, finished: span.end_timestamp.is_some() };
        trace.rows.insert(span.id.clone(), row);
        Ok(())
    }

    /// Finds out which of our spans are there.
    async fn read(&self, trace: &mut Trace, id: &TraceId) -> Result<(), SinkError> {
        let url = self.url_of(&["traces", &trace.id_of(id)]);
        let stored = match self.http.send(Request::get(&url)).await {
            Ok(answer) => parse::<Stored>(&answer)?.spans,
            Err(error) if error.status() == Some(404) => Vec::new(),
            Err(error) => return Err(error),
        };
        trace.is_certain = true;
        for span in stored {
            let Some(Ok(our_id)) =
                span.meta.get(OUR_ID).and_then(Value::as_str).map(str::parse::<SpanId>)
            else {
                continue;
            };
            if span.parent_id.is_none() {
                trace.root.get_or_insert_with(|| span.id.clone());
            }
            let finished = span.end_time.is_some_and(|end| !end.is_null());
            let row = Row { id: span.id, finished };
            match trace.rows.get_mut(&our_id) {
                None => {
                    trace.rows.insert(our_id, row);
                }
                // Somebody else may have finished it.
                Some(known) if known.id == row.id => known.finished |= row.finished,
                Some(known) => {
                    if trace.doubles.insert(row.id.clone()) {
                        metrics::counter!("durable_spans_doubled", "sink" => NAME).increment(1);
                        tracing::warn!(
                            sink = NAME,
                            span_id = %our_id,
                            trace_id = %id,
                            first = known.id,
                            second = row.id,
                            "a span is there twice: its create was sent again"
                        );
                    }
                }
            }
        }
        Ok(())
    }

    async fn send(&self, method: Method, url: &Url, body: Value) -> Result<Vec<u8>, SinkError> {
        let body = body.to_string().into_bytes();
        self.http.send(Request::json(method, url, body)).await
    }

    fn url_of(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        // A URL of http or https has a path.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(path);
        }
        url
    }
}

impl SpanSink for OpperSink {
    fn upsert_batch<'a>(&'a self, batch: &'a SpanBatch) -> BoxFuture<'a, Result<(), SinkError>> {
        self.upsert(batch).boxed()
    }

    fn contract(&self) -> Contract {
        Contract::create_then_finish().batch_spans(BATCH_SPANS)
    }

    fn name(&self) -> &str {
        NAME
    }
}

impl fmt::Debug for OpperSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpperSink")
            .field("base_url", &shown(&self.base))
            .field("timeout", &self.http.timeout())
            .finish_non_exhaustive()
    }
}

/// What Opper is known to have.
#[derive(Default)]
struct Traces {
    known: HashMap<TraceId, Trace>,
    order: VecDeque<TraceId>,
}

#[derive(Default)]
struct Trace {
    /// The id that Opper knows it by, once it has said so.
    id: Option<String>,
    /// The id that Opper gave to the root.
    root: Option<String>,
    rows: HashMap<SpanId, Row>,
    /// Second rows of spans, by the ids that Opper gave to them, that have been told.
    doubles: HashSet<String>,
    /// Whether a span that is not in the rows is not there. So after a reading, within a batch.
    is_certain: bool,
}

struct Row {
    id: String,
    finished: bool,
}

impl Traces {
    fn of(&mut self, id: &TraceId) -> &mut Trace {
        if !self.known.contains_key(id) {
            self.order.push_back(id.clone());
            if self.order.len() > KNOWN_TRACES
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
        self.known.entry(id.clone()).or_default()
    }
}

impl Trace {
    fn id_of(&self, id: &TraceId) -> String {
        let ours = || Uuid::from_u128(ids::trace_bits(id)).to_string();
        self.id.clone().unwrap_or_else(ours)
    }
}

#[derive(Deserialize)]
struct Created {
    id: String,
    #[serde(default)]
    trace_id: String,
}

#[derive(Deserialize)]
struct Stored {
    #[serde(default)]
    spans: Vec<StoredSpan>,
}

#[derive(Deserialize)]
struct StoredSpan {
    id: String,
    #[serde(default)]
    parent_id: Option<String>,
    #[serde(default)]
    end_time: Option<Value>,
    #[serde(default)]
    meta: Value,
}

/// Opper wraps some answers into `data`.
fn parse<T: for<'de> Deserialize<'de>>(answer: &[u8]) -> Result<T, SinkError> {
    let strange =
        || SinkError::retryable("the answer is not what Opper answers: check OPPER_BASE_URL");
    let mut answer: Value = serde_json::from_slice(answer).map_err(|_| strange())?;
    if let Some(data @ Value::Object(_)) = answer.get_mut("data") {
        answer = data.take();
    }
    serde_json::from_value(answer).map_err(|_| strange())
}

fn is_ended_root(span: &Span) -> bool {
    span.parent_id.is_none() && span.end_timestamp.is_some()
}

/// The spans of a batch in an order in which each comes after its parent.
fn parents_first(batch: &SpanBatch) -> Vec<&Span> {
    let mut waiting: HashMap<(&TraceId, &SpanId), Vec<&Span>> = HashMap::new();
    let present: HashSet<_> = batch.spans().map(|span| (&span.trace_id, &span.id)).collect();
    let mut ready = VecDeque::new();
    for span in batch.spans() {
        match span.parent_id.as_ref().map(|parent| (&span.trace_id, parent)) {
            Some(parent) if present.contains(&parent) => {
                waiting.entry(parent).or_default().push(span)
            }
            _ => ready.push_back(span),
        }
    }
    let mut ordered = Vec::with_capacity(batch.len());
    while let Some(span) = ready.pop_front() {
        ordered.push(span);
        ready.extend(waiting.remove(&(&span.trace_id, &span.id)).into_iter().flatten());
    }
    // A cycle, which no server shows as a tree.
    ordered.extend(waiting.into_values().flatten());
    ordered
}

fn create(span: &Span, trace: &Trace) -> Value {
    let mut body = Map::new();
    let mut put = |name: &str, value: Value| body.insert(name.to_owned(), value);
    put("name", (*span.name).into());
    put("trace_id", trace.id_of(&span.trace_id).into());
    let mut meta = meta(span);
    if let Some(parent) = &span.parent_id {
        let known = trace.rows.get(parent).map(|row| &row.id);
        if known.is_none() {
            meta.insert("durable_spans_parent_id".into(), parent.to_string().into());
        }
        if let Some(id) = known.or(trace.root.as_ref()) {
            put("parent_id", id.as_str().into());
        }
    }
    put("type", span.span_type.as_str().to_lowercase().into());
    if !span.input.is_empty() {
        put("input", text(&span.input));
    }
    put("start_time", json!(span.start_timestamp));
    put("meta", meta.into());
    if let Some(group_id) = &span.group_id {
        put("tags", json!({ "group_id": group_id }));
    }
    if span.end_timestamp.is_some() {
        body.extend(outcome(span));
    }
    body.into()
}

fn finish(span: &Span) -> Value {
    let mut body = outcome(span);
    body.insert("meta".to_owned(), meta(span).into());
    body.into()
}

fn outcome(span: &Span) -> Map<String, Value> {
    let mut body = Map::new();
    if !span.output.is_empty() {
        body.insert("output".to_owned(), text(&span.output));
    }
    let said = |name: &str| span.metadata.get(name).and_then(Value::as_str);
    if let Some(message) = said("error_message") {
        let error = match said("error_type") {
            Some(error_type) => format!("{error_type}: {message}"),
            None => message.to_owned(),
        };
        body.insert("error".to_owned(), error.into());
    }
    body.insert("end_time".to_owned(), json!(span.end_timestamp));
    body
}

fn meta(span: &Span) -> Fields {
    let mut meta = span.metadata.clone();
    meta.insert(OUR_ID.into(), span.id.to_string().into());
    if span.status == SpanStatus::Canceled {
        meta.insert("status".into(), "CANCELED".into());
    }
    meta
}

fn text(values: &Fields) -> Value {
    serde_json::to_string(values).unwrap_or_default().into()
}

/// Where an [`OpperSink`] sends spans, and as whom.
///
/// Nothing is checked before [`OpperSink::new`]. `Debug` shows neither the API key, nor values of
/// headers, nor a user name, password or query of the URL.
#[derive(Clone)]
#[must_use]
pub struct OpperOptions {
    http: HttpOptions,
    api_key: Option<String>,
}

impl OpperOptions {
    /// Sends to `https://api.opper.ai` with that key.
    pub fn new(api_key: impl Into<String>) -> Self {
        Self { http: HttpOptions::new(OPPER, DEFAULT_BASE_URL), api_key: Some(api_key.into()) }
    }

    /// Reads the variables that Opper's own clients read: `OPPER_API_KEY` and `OPPER_BASE_URL`
    /// (default `https://api.opper.ai`). The key may be missing if the URL points at this very
    /// machine. White space around a value is cut off; an empty variable counts as missing.
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
        let base_url = read_variable(&variable, "OPPER_BASE_URL")?;
        let http = HttpOptions::new(OPPER, base_url.unwrap_or_else(|| DEFAULT_BASE_URL.to_owned()));
        let api_key = if is_loopback(&http.url_of(&[])?) {
            read_variable(&variable, API_KEY)?
        } else {
            Some(require_variable(&variable, API_KEY, "your Opper project")?)
        };
        Ok(Self { http, api_key })
    }

    /// Sends to `{base_url}/v3/spans`.
    pub fn base_url(mut self, base_url: impl Into<String>) -> Self {
        self.http.url = base_url.into();
        self
    }

    http_setters!();
}

impl fmt::Debug for OpperOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpperOptions")
            .field("base_url", &self.http.shown_url())
            .field("api_key", &self.api_key.as_ref().map(|_| "***"))
            .field("timeout", &self.http.timeout)
            .field("headers", &self.http.header_names())
            .field("gzip", &self.http.gzip)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use durable_spans_model::Timestamp;

    use super::*;
    use crate::options::variables;

    #[test]
    fn a_missing_key_is_named() {
        let error = OpperOptions::from_variables(variables(&[])).unwrap_err().to_string();
        assert!(error.starts_with("OPPER_API_KEY is not set: set it"), "{error}");
        let local = [("OPPER_BASE_URL", "http://localhost:1")];
        assert!(OpperOptions::from_variables(variables(&local)).unwrap().api_key.is_none());
    }

    #[test]
    fn parents_come_before_their_children_whatever_the_order_of_the_batch() {
        let start = Timestamp::from_unix_ns(0);
        let span = |id: u128, parent: Option<u128>| Span {
            parent_id: parent.map(SpanId::from_bits),
            ..Span::new(TraceId::from_bits(1), SpanId::from_bits(id), "s", start)
        };
        let batch = SpanBatch::from_iter([
            span(3, Some(2)),
            span(2, Some(1)),
            span(5, Some(9)),
            span(1, None),
            span(7, Some(8)),
            span(8, Some(7)),
        ]);
        let mut order: Vec<_> =
            parents_first(&batch).iter().map(|span| span.id.bits().unwrap()).collect();
        assert_eq!(order[..4], [5, 1, 2, 3]);
        order[4..].sort_unstable();
        assert_eq!(order[4..], [7, 8]);
    }
}
