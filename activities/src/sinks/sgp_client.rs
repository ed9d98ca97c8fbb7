use std::fmt;

use durable_spans_model::{Span, SpanId, TraceId};
use reqwest::{Method, Url};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    InvalidOptions, SgpOptions, SinkError,
    http::{Http, Request, SPANS_BYTES},
    options::shown,
};

/// Reads spans from Scale's SGP spans API, and creates single ones. To send many, use an
/// [`SgpSink`](crate::SgpSink).
///
/// A call makes one attempt. Its error says, as for a sink, whether to try again.
///
/// ```no_run
/// use durable_spans_activity::{SgpClient, SgpOptions, SgpSearch};
/// use durable_spans_model::TraceId;
///
/// # async fn read() -> Result<(), Box<dyn std::error::Error>> {
/// let client = SgpClient::new(SgpOptions::from_env()?)?;
/// let trace: TraceId = "c58c5e1e-bcff-46d8-81c5-4dc1a5fdafea".parse()?;
/// for span in client.search_all(SgpSearch::traces([trace]).oldest_first()).await? {
///     println!("{} {}", span.start_timestamp, span.name);
/// }
/// # Ok(())
/// # }
/// ```
pub struct SgpClient {
    http: Http,
    spans: Url,
}

impl SgpClient {
    /// A client with connections of its own. Does not connect before the first call.
    ///
    /// # Errors
    ///
    /// As [`SgpSink::new`](crate::SgpSink::new).
    pub fn new(options: SgpOptions) -> Result<Self, InvalidOptions> {
        let spans = options.url_of(&[])?;
        Ok(Self { http: options.http(&spans)?, spans })
    }

    /// Stores one span and returns it as it was stored: SGP replaces what looks like a credential.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses the span.
    pub async fn create(&self, span: &Span) -> Result<Span, SinkError> {
        let body = serde_json::to_vec(span).map_err(SinkError::retryable)?;
        let mut request = Request::json(Method::POST, &self.spans, body);
        request.wanted_bytes = SPANS_BYTES;
        parse::<Stored>(&self.http.send(request).await?).map(|stored| stored.0)
    }

    /// The span of that id, `None` if there is none. SGP keys spans by trace and id, and finds by id
    /// alone here: where ids of several traces could be the same, use [`search`](Self::search).
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses the reader.
    pub async fn get(&self, id: &SpanId) -> Result<Option<Span>, SinkError> {
        let url = self.url_of(&id.to_string());
        match self.http.send(Request::get(&url)).await {
            Ok(answer) => parse::<Stored>(&answer).map(|stored| Some(stored.0)),
            Err(error) if error.status() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// One page of what `search` asks for.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached, refuses the reader or does not know a filter.
    pub async fn search(&self, search: &SgpSearch) -> Result<SgpPage, SinkError> {
        let mut url = self.url_of("search");
        url.query_pairs_mut().extend_pairs(&search.query);
        let body = Value::Object(search.filters.clone()).to_string().into_bytes();
        let mut request = Request::json(Method::POST, &url, body);
        request.wanted_bytes = SPANS_BYTES;
        let page: Page = parse(&self.http.send(request).await?)?;
        let spans: Vec<Span> = page.items.into_iter().map(|stored| stored.0).collect();
        // The legacy store names no cursor: there it is the id of the page's last span.
        let last = || spans.last().map(|span| span.id.to_string());
        let next = if page.has_more { page.next_cursor.or_else(last) } else { None };
        Ok(SgpPage { spans, next })
    }

    /// All that `search` asks for, page after page.
    ///
    /// # Errors
    ///
    /// As [`search`](Self::search), at the first page that fails.
    pub async fn search_all(&self, mut search: SgpSearch) -> Result<Vec<Span>, SinkError> {
        let mut spans = Vec::new();
        let mut last = None;
        loop {
            let page = self.search(&search).await?;
            spans.extend(page.spans);
            match page.next {
                // A server that tells the same cursor again would be asked for ever.
                Some(next) if last.as_ref() != Some(&next) => {
                    last = Some(next.clone());
                    search = search.starting_after(next);
                }
                _ => return Ok(spans),
            }
        }
    }

    fn url_of(&self, segment: &str) -> Url {
        let mut url = self.spans.clone();
        // A URL of http or https has a path.
        if let Ok(mut path) = url.path_segments_mut() {
            path.push(segment);
        }
        url
    }
}

impl fmt::Debug for SgpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SgpClient").field("spans", &shown(&self.spans)).finish_non_exhaustive()
    }
}

/// One page of spans.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SgpPage {
    /// The spans, in the order that was asked for.
    pub spans: Vec<Span>,
    /// What to give to [`SgpSearch::starting_after`] for the next page, `None` if this is the last
    /// one.
    pub next: Option<String>,
}

/// What to search for. Default: the newest spans first, 100 a page.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct SgpSearch {
    query: Vec<(String, String)>,
    filters: Map<String, Value>,
}

impl SgpSearch {
    /// Spans of these traces. At most 10,000.
    pub fn traces(ids: impl IntoIterator<Item = TraceId>) -> Self {
        let ids: Vec<String> = ids.into_iter().map(|id| id.to_string()).collect();
        Self::new().filter("trace_ids", ids)
    }

    /// Spans without a parent: one for each trace.
    pub fn roots() -> Self {
        Self::new().filter("parents_only", true)
    }

    fn new() -> Self {
        // Without, SGP refuses a page over its byte budget. Here every reader follows has_more.
        let partial = ("allow_partial_results".to_owned(), "true".to_owned());
        Self { query: vec![partial], filters: Map::new() }
    }

    /// Another filter of SGP's, by its name: `names`, `statuses`, `extra_metadata` and so on. All
    /// filters must hold. The local collector knows `trace_ids` and `parents_only` alone, and
    /// refuses others by name.
    pub fn filter(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.filters.insert(name.into(), value.into());
        self
    }

    /// Most spans on a page, from 1 to 1,000. Default: 100. A page may hold fewer, as the server sees
    /// fit.
    pub fn limit(self, spans: usize) -> Self {
        self.parameter("limit", spans.to_string())
    }

    /// The oldest spans first.
    pub fn oldest_first(self) -> Self {
        self.parameter("sort_order", "asc".to_owned())
    }

    /// What follows the page that gave this cursor.
    pub fn starting_after(self, cursor: impl Into<String>) -> Self {
        self.parameter("starting_after", cursor.into())
    }

    /// Whether the server may give short pages where a full one would be too large or take too
    /// long. Default: yes; if not, it refuses such a search.
    pub fn allow_partial_results(self, allow: bool) -> Self {
        self.parameter("allow_partial_results", allow.to_string())
    }

    fn parameter(mut self, name: &str, value: String) -> Self {
        self.query.retain(|(known, _)| known != name);
        self.query.push((name.to_owned(), value));
        self
    }
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Stored>,
    #[serde(default)]
    has_more: bool,
    #[serde(default)]
    next_cursor: Option<String>,
}

/// A span as SGP tells it: what it does not know it may call null.
struct Stored(Span);

impl<'de> Deserialize<'de> for Stored {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut fields = Map::deserialize(deserializer)?;
        fields.retain(|_, value| !value.is_null());
        serde_json::from_value(Value::Object(fields)).map(Self).map_err(serde::de::Error::custom)
    }
}

fn parse<T: for<'de> Deserialize<'de>>(answer: &[u8]) -> Result<T, SinkError> {
    // Neither the answer nor serde's message, which may repeat parts of it.
    serde_json::from_slice(answer).map_err(|_| {
        SinkError::retryable("the answer is not what SGP answers: check SGP_CLIENT_BASE_URL")
    })
}
