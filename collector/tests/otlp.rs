//! OTLP/HTTP by hand: JSON, partial success and refusals. The conformance tests send protobuf with
//! a real exporter.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use durable_spans_collector::{Collector, RunningCollector};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

struct Setup {
    _dir: tempfile::TempDir,
    running: RunningCollector,
    client: Client,
}

impl Setup {
    async fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let collector = Collector::open(dir.path().join("spans.sqlite")).unwrap();
        let running = collector.serve(([127, 0, 0, 1], 0)).await.unwrap();
        Self { _dir: dir, running, client: Client::builder().no_proxy().build().unwrap() }
    }

    async fn post(
        &self,
        content_type: &str,
        body: impl Into<reqwest::Body>,
    ) -> (StatusCode, Vec<u8>) {
        let url = format!("{}/v1/traces", self.running.url());
        let request = self.client.post(url).header("content-type", content_type).body(body);
        let response = request.send().await.unwrap();
        let answered = response.headers()["content-type"].to_str().unwrap().to_owned();
        if !content_type.contains("text") {
            assert_eq!(answered, content_type.split(';').next().unwrap());
        }
        (response.status(), response.bytes().await.unwrap().to_vec())
    }

    async fn export(&self, spans: Value) -> Value {
        let body = json!({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).to_string();
        let (status, answer) = self.post("application/json; charset=utf-8", body).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
        serde_json::from_slice(&answer).unwrap()
    }

    fn items(&self) -> Vec<Value> {
        self.running.store().items(&TRACE.parse().unwrap()).unwrap()
    }
}

fn span(id: &str, parent: &str) -> Value {
    json!({
        "traceId": TRACE, "spanId": id, "parentSpanId": parent, "name": "step", "kind": 1,
        "startTimeUnixNano": "1795248000000001000", "endTimeUnixNano": "1795248000000002000",
        "attributes": [{"key": "n", "value": {"intValue": "7"}}], "status": {},
    })
}

#[tokio::test]
async fn json_is_read_as_well_as_protobuf() {
    let setup = Setup::new().await;
    assert_eq!(setup.export(json!([span("00f067aa0ba902b7", "")])).await, json!({}));
    let items = setup.items();
    assert_eq!(
        items,
        [json!({
            "id": "00f067aa0ba902b7", "trace_id": TRACE, "name": "step", "type": "STANDALONE",
            "start_timestamp": "2026-11-21T08:00:00.000001+00:00",
            "end_timestamp": "2026-11-21T08:00:00.000002+00:00",
            "metadata": {"n": 7, "otel": {"kind": "internal"}},
            "account_id": "local", "object": "span",
        })]
    );
}

#[tokio::test]
async fn spans_that_cannot_be_stored_are_told_and_the_others_are_stored() {
    let setup = Setup::new().await;
    let mut reversed = span("00f067aa0ba902b1", "");
    reversed["endTimeUnixNano"] = "1795248000000000000".into();
    let answer = setup
        .export(json!([
            span("00f067aa0ba902b7", ""),
            reversed,
            span("0000000000000000", ""),
            span("00f067aa0ba902b8", "00f067aa0ba902b8"),
            span("00f067aa0ba902b9", "00f067aa0ba902b7"),
        ]))
        .await;
    assert_eq!(answer["partialSuccess"]["rejectedSpans"], "3");
    let message = answer["partialSuccess"]["errorMessage"].as_str().unwrap();
    assert!(message.contains("end_timestamp must not be before"), "{message}");
    let ids: Vec<_> = setup.items().iter().map(|item| item["id"].clone()).collect();
    assert_eq!(ids, ["00f067aa0ba902b7", "00f067aa0ba902b9"]);
}

#[tokio::test]
async fn what_is_no_export_is_refused_in_the_way_it_came() {
    let setup = Setup::new().await;
    let (status, answer) = setup.post("application/json", "{").await;
    assert_eq!(status, 400);
    assert!(String::from_utf8_lossy(&answer).contains("not valid JSON"));
    let (status, answer) = setup.post("application/json", r#"{"resourceSpans": 7}"#).await;
    assert_eq!(status, 400);
    assert!(String::from_utf8_lossy(&answer).contains("OTLP/JSON"));
    let (status, answer) = setup.post("application/x-protobuf", "no protobuf").await;
    assert_eq!(status, 400);
    // The second field of google.rpc.Status.
    assert_eq!(answer[0], 0x12);
    assert!(String::from_utf8_lossy(&answer).contains("body is not a trace export"));
    assert_eq!(setup.post("text/plain", "x").await.0, 415);
    assert_eq!(setup.post("application/x-protobuf", "").await.0, 200);
}
