use std::time::Duration;

use anyhow::{Context, bail};
use durable_spans_collector::{MAX_PAGE_SPANS, tree::printable};
use durable_spans_model::Span;
use reqwest::{
    Client, RequestBuilder, Response, StatusCode, Url,
    header::{HeaderMap, HeaderValue},
    redirect,
};
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

use crate::args::Server;

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Least spans to ask for at once, since not all may be wanted.
const MIN_PAGE_SPANS: usize = 100;

/// Asks a collector, or SGP itself, for spans.
pub(crate) struct SpansClient {
    http: Client,
    base: Url,
    /// The URL as users may see it.
    shown: String,
}

/// A span as the server sent it.
pub(crate) type RawSpan = Box<RawValue>;

/// What names a span.
#[derive(Clone, Deserialize, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) id: String,
    pub(crate) trace_id: String,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<RawSpan>,
    has_more: Option<bool>,
}

impl SpansClient {
    pub(crate) fn new(server: Server) -> anyhow::Result<Self> {
        let Server { mut url, api_key, account_id } = server;
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-api-key", api_key), ("x-selected-account-id", account_id)] {
            if let Some(value) = value {
                let mut value = HeaderValue::try_from(value)
                    .with_context(|| format!("the value for {name} is no text for a header"))?;
                value.set_sensitive(true);
                headers.insert(name, value);
            }
        }
        // The workspace builds reqwest without a TLS provider of its own. Fails only if one is
        // installed already, which will do as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut http = Client::builder()
            .default_headers(headers)
            .timeout(TIMEOUT)
            .read_timeout(TIMEOUT)
            // A redirect would carry the key elsewhere.
            .redirect(redirect::Policy::none());
        if is_loopback(&url) {
            http = http.no_proxy();
        }
        let http = http.build().context("cannot set up HTTP")?;

        let mut base = url.clone();
        base.set_query(None);
        base.set_fragment(None);
        // A URL may hold a password; one without a host holds none, and is refused on use.
        let _ = (url.set_username(""), url.set_password(None));
        url.set_query(None);
        Ok(Self { http, base, shown: url.as_str().trim_end_matches('/').to_owned() })
    }

    /// The server's URL, fit for messages.
    pub(crate) fn url(&self) -> &str {
        &self.shown
    }

    /// The spans that a search finds and `keep` wants, page by page, at most `limit` of them.
    pub(crate) async fn search(
        &self,
        filters: &Value,
        sort_order: &str,
        limit: usize,
        mut keep: impl FnMut(&Identity) -> bool,
    ) -> anyhow::Result<Vec<RawSpan>> {
        let mut found: Vec<RawSpan> = Vec::new();
        let mut starting_after: Option<String> = None;
        while found.len() < limit {
            let page_limit =
                (limit - found.len()).clamp(MIN_PAGE_SPANS, MAX_PAGE_SPANS).to_string();
            let mut query = vec![
                ("limit", page_limit.as_str()),
                ("sort_order", sort_order),
                // SGP refuses a page over its byte budget unless it may end early.
                ("allow_partial_results", "true"),
            ];
            if let Some(id) = &starting_after {
                query.push(("starting_after", id));
            }
            let page = self.page(filters, &query).await?;
            starting_after = None;
            for span in page.items {
                let identity: Identity = serde_json::from_str(span.get())
                    .context("the server sent a span without an id")?;
                if keep(&identity) {
                    found.push(span);
                }
                starting_after = Some(identity.id);
            }
            if page.has_more != Some(true) || starting_after.is_none() {
                break;
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    async fn page(&self, filters: &Value, query: &[(&str, &str)]) -> anyhow::Result<Page> {
        let request = self.http.post(self.at("v5/spans/search")).query(query);
        let request = request.header("content-type", "application/json").body(filters.to_string());
        // Siblings that began at the same time are shown as they were recorded. SGP ignores this.
        let request = request.header("x-order-of-ties", "arrival");
        let response = self.send(request).await?;
        let context = || format!("{} did not answer with spans", self.shown);
        let body = response.bytes().await.map_err(reqwest::Error::without_url);
        serde_json::from_slice(&body.with_context(context)?).with_context(context)
    }

    /// Stores spans, given as the body of a batch.
    pub(crate) async fn upsert(&self, body: String) -> anyhow::Result<()> {
        let request = self.http.put(self.at("v5/spans/batch"));
        self.send(request.header("content-type", "application/json").body(body)).await.map(drop)
    }

    /// What a collector exports. However long it takes as a whole, no part of it may.
    pub(crate) async fn export(&self, query: &[(&str, &str)]) -> anyhow::Result<Response> {
        let request = self.http.get(self.at("page/export")).query(query);
        self.send(request.timeout(Duration::MAX)).await
    }

    fn at(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/{path}", self.base.path().trim_end_matches('/')));
        url
    }

    async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        match request.send().await {
            Ok(response) if response.status() == StatusCode::OK => Ok(response),
            Ok(response) => bail!("{} {}", self.shown, refusal(response).await),
            Err(error) => {
                let context = if error.is_connect() {
                    "cannot be reached: start a collector with `durable-spans serve`, or name another with --url"
                } else {
                    "did not answer"
                };
                // Reqwest's own message holds the URL, and a URL may hold a password.
                let error = anyhow::Error::new(error.without_url());
                Err(error.context(format!("{} {context}", self.shown)))
            }
        }
    }
}

/// A span on one line, not a byte of its values changed: within a JSON text, line breaks are escaped.
pub(crate) fn one_line(raw: &RawValue) -> String {
    raw.get().replace(['\n', '\r'], " ")
}

/// Reads a span for showing. Where SGP says `null`, the model has a default.
pub(crate) fn parse(raw: &RawValue) -> anyhow::Result<Span> {
    let read = || {
        let mut fields: Map<String, Value> = serde_json::from_str(raw.get())?;
        fields.retain(|_, value| !value.is_null());
        serde_json::from_value(fields.into())
    };
    read().map_err(|error: serde_json::Error| {
        anyhow::Error::new(error).context("the server sent a span that cannot be read: try --json")
    })
}

/// What a server said that did not answer with spans, ending with what to do about it.
async fn refusal(response: Response) -> String {
    let status = response.status();
    let body = response.bytes().await.unwrap_or_default();
    let detail = serde_json::from_slice::<Value>(&body)
        .ok()
        .and_then(|body| Some(printable(body.get("detail")?.as_str()?)))
        .unwrap_or_else(|| status.canonical_reason().unwrap_or("no reason given").to_owned());
    let remedy = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => " (set SGP_API_KEY)",
        StatusCode::NOT_FOUND => " (is it the URL of a collector?)",
        _ => "",
    };
    format!("answered {}: {detail}{remedy}", status.as_u16())
}

/// A proxy for the internet does not lead to this machine.
fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(url: &str) -> SpansClient {
        let server = Server { url: url.parse().unwrap(), api_key: None, account_id: None };
        SpansClient::new(server).unwrap()
    }

    #[test]
    fn the_search_goes_below_the_base_url_and_passwords_are_not_shown() {
        let client = client("http://user:hunter2@example.com/sgp/?token=hunter2");
        let search = client.at("v5/spans/search");
        assert_eq!(search.path(), "/sgp/v5/spans/search");
        assert_eq!(search.query(), None);
        assert_eq!(client.url(), "http://example.com/sgp");
    }

    #[test]
    fn only_this_machine_is_reached_without_a_proxy() {
        for (url, expected) in [
            ("http://127.0.0.1:8790", true),
            ("http://localhost:8790", true),
            ("http://[::1]:8790", true),
            ("https://api.example.com", false),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(is_loopback(&url.parse().unwrap()), expected, "{url}");
        }
    }

    #[test]
    fn a_span_of_sgp_with_nulls_is_read() {
        let raw = r#"{"id":"a","trace_id":"t","name":"n","start_timestamp":"2026-11-21T08:00:00Z",
            "input":null,"status":null,"type":null,"end_timestamp":null,"created_by":{"id":1}}"#;
        let span = parse(&RawValue::from_string(raw.to_owned()).unwrap()).unwrap();
        assert_eq!(span.name, "n");
        let bad = RawValue::from_string(r#"{"id":"a"}"#.to_owned()).unwrap();
        assert!(parse(&bad).unwrap_err().to_string().contains("try --json"));
    }
}
