//! What SGP has stored already.

use std::collections::HashSet;

use durable_spans_model::{SpanId, TraceId};
use reqwest::{Method, Url};
use serde::Deserialize;
use serde_json::json;

use crate::{SgpSink, SinkError, http::Request};

/// Most spans of a page, SGP's limit.
const PAGE_SPANS: &str = "1000";

#[derive(Deserialize)]
struct Page {
    items: Vec<Stored>,
    #[serde(default)]
    has_more: Option<bool>,
}

/// What is read of a span.
#[derive(Deserialize)]
struct Stored {
    id: SpanId,
    #[serde(default)]
    end_timestamp: Option<String>,
}

impl SgpSink {
    /// The ids of the ended spans of a trace, page by page: `POST {base_url}/v5/spans/search`.
    pub(crate) async fn search_ended(
        &self,
        trace_id: &TraceId,
    ) -> Result<HashSet<SpanId>, SinkError> {
        let mut ended = HashSet::new();
        let mut last: Option<SpanId> = None;
        loop {
            let page = self.page(trace_id, last.as_ref()).await?;
            last = page.items.last().map(|span| span.id.clone());
            let items = page.items.into_iter();
            ended.extend(items.filter(|span| span.end_timestamp.is_some()).map(|span| span.id));
            if page.has_more != Some(true) || last.is_none() {
                return Ok(ended);
            }
        }
    }

    async fn page(&self, trace_id: &TraceId, after: Option<&SpanId>) -> Result<Page, SinkError> {
        let url = search_url(&self.url, after);
        let body = json!({ "trace_ids": [trace_id] }).to_string().into_bytes();
        let request = Request { method: Method::POST, body, ..Request::get(&url) };
        let answer = self.http.send(request).await?;
        serde_json::from_slice(&answer).map_err(|_| {
            SinkError::retryable("the search for spans did not answer with spans: check the URL")
        })
    }
}

/// Beside `…/v5/spans/batch`.
fn search_url(batch: &Url, after: Option<&SpanId>) -> Url {
    let mut url = batch.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().pop().push("search");
    }
    let mut query = url.query_pairs_mut();
    // SGP refuses a page over its byte budget unless it may end early.
    query.append_pair("limit", PAGE_SPANS).append_pair("sort_order", "asc");
    query.append_pair("allow_partial_results", "true");
    if let Some(id) = after {
        query.append_pair("starting_after", &id.to_string());
    }
    drop(query);
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_is_beside_the_batch_and_keeps_the_query_of_the_user() {
        let batch = "https://sgp.example.com/sub/v5/spans/batch?tenant=1".parse().unwrap();
        let url = search_url(&batch, Some(&"a b".parse().unwrap()));
        assert_eq!(url.path(), "/sub/v5/spans/search");
        assert_eq!(
            url.query(),
            Some(
                "tenant=1&limit=1000&sort_order=asc&allow_partial_results=true&starting_after=a+b"
            )
        );
    }
}
