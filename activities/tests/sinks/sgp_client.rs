//! The SGP client, against the collector for what that serves.

use axum::{
    body::Body,
    http::{Method, Response},
};
use durable_spans_activity::{SgpClient, SgpOptions, SgpSearch, SgpSink, SpanBatch, SpanSink};
use durable_spans_collector::{Collector, RunningCollector};
use durable_spans_model::{Span, SpanId, SpanType, Timestamp, TraceId};
use serde_json::json;

use crate::server::Server;

fn span(id: u128) -> Span {
    let start = Timestamp::from_unix_ns(i64::try_from(id).unwrap() * 1_000_000);
    let mut span = Span::new(TraceId::from_bits(1), SpanId::from_bits(id), format!("s{id}"), start);
    span.end_timestamp = Some(start);
    span
}

async fn collector() -> (tempfile::TempDir, RunningCollector) {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::open(dir.path().join("spans.sqlite")).unwrap();
    (dir, collector.serve(([127, 0, 0, 1], 0)).await.unwrap())
}

#[tokio::test]
async fn what_the_sink_sent_is_found_page_by_page() {
    let (_dir, collector) = collector().await;
    let options = SgpOptions::new(collector.url());
    let mut spans: Vec<Span> = (1..=250).map(span).collect();
    spans[7].parent_id = Some(SpanId::from_bits(1));
    spans[7].span_type = SpanType::Completion;
    spans[7].input.insert("q".into(), json!({"deep": [1, null]}));
    let sink = SgpSink::new(options.clone()).unwrap();
    sink.upsert_batch(&SpanBatch::from_iter(spans.clone())).await.unwrap();

    let client = SgpClient::new(options).unwrap();
    let search = || SgpSearch::traces([TraceId::from_bits(1)]);
    assert_eq!(client.search_all(search().oldest_first().limit(99)).await.unwrap(), spans);
    let page = client.search(&search()).await.unwrap();
    assert_eq!(page.spans.len(), 100);
    assert_eq!(page.spans[0], spans[249]);
    let next = client.search(&search().starting_after(page.next.unwrap())).await.unwrap();
    assert_eq!(next.spans[0], spans[149]);
    let roots = client.search_all(SgpSearch::roots()).await.unwrap();
    assert_eq!(roots.len(), 249);
    let none = client.search_all(SgpSearch::traces([TraceId::from_bits(2)])).await.unwrap();
    assert_eq!(none, []);
    collector.shutdown().await;
}

#[tokio::test]
async fn a_filter_that_the_server_does_not_have_is_named() {
    let (_dir, collector) = collector().await;
    let client = SgpClient::new(SgpOptions::new(collector.url())).unwrap();
    let failed = SgpSearch::roots().filter("statuses", vec!["ERROR"]);
    assert_eq!(client.search(&failed).await.unwrap().spans, []);
    let error = client.search(&SgpSearch::roots().filter("colours", "red")).await.unwrap_err();
    assert!(error.is_rejection());
    assert!(error.to_string().contains("colours"), "{error}");
    collector.shutdown().await;
}

/// As scale-gp-beta 0.7.0 does it.
#[tokio::test]
async fn create_get_and_search_ask_as_the_official_python_client() {
    let answer = json!({
        "id": SpanId::from_bits(7), "trace_id": TraceId::from_bits(1), "name": "s7",
        "start_timestamp": "1970-01-01T00:00:00.007Z", "end_timestamp": null, "account_id": "ACC",
        "object": "span", "input": null, "output": {}, "metadata": {"k": null}, "type": null,
    });
    let server = Server::start(move |request| {
        let body = if request.target.starts_with("/v5/spans/search") {
            json!({"items": [answer], "has_more": true, "next_cursor": "c/1", "object": "list"})
        } else {
            answer.clone()
        };
        Response::builder()
            .status(if request.target.ends_with("/nobody") { 404 } else { 200 })
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()))
            .unwrap()
    })
    .await;
    let options = SgpOptions::new(&server.base_url).api_key("KEY").project_id("PROJ");
    let client = SgpClient::new(options).unwrap();

    let mut stored = client.create(&span(7)).await.unwrap();
    assert_eq!(stored.metadata.remove("k"), Some(json!(null)));
    assert_eq!(stored, Span { end_timestamp: None, ..span(7) });
    assert!(client.get(&SpanId::from_bits(7)).await.unwrap().is_some());
    assert_eq!(client.get(&"nobody".parse().unwrap()).await.unwrap(), None);
    let search = SgpSearch::traces([TraceId::from_bits(1)]).limit(1).starting_after("a b");
    let page = client.search(&search).await.unwrap();
    assert_eq!((page.spans.len(), page.next.as_deref()), (1, Some("c/1")));
    client.search(&search.allow_partial_results(false)).await.unwrap();

    let received = server.received();
    let lines: Vec<_> = received.iter().map(|r| format!("{} {}", r.method, r.target)).collect();
    assert_eq!(
        lines,
        [
            "POST /v5/spans",
            "GET /v5/spans/00000000-0000-0000-0000-000000000007",
            "GET /v5/spans/nobody",
            "POST /v5/spans/search?allow_partial_results=true&limit=1&starting_after=a+b",
            "POST /v5/spans/search?limit=1&starting_after=a+b&allow_partial_results=false",
        ]
    );
    assert_eq!(received[0].text(), serde_json::to_string(&span(7)).unwrap());
    assert_eq!(received[3].text(), r#"{"trace_ids":["00000000-0000-0000-0000-000000000001"]}"#);
    assert_eq!(received[1].method, Method::GET);
    for request in received {
        assert_eq!(request.header("x-api-key"), Some("KEY"));
        assert_eq!(request.header("x-project-id"), Some("PROJ"));
    }
}
