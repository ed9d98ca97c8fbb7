//! The collector over HTTP, on a free port, with a real file.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};

use durable_spans_collector::{Collector, MAX_BODY_BYTES, RunningCollector};
use durable_spans_model::{Span, SpanId, SpanStatus, Timestamp, TraceId};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};

/// A collector that serves, its file, and a client.
struct Setup {
    dir: tempfile::TempDir,
    running: RunningCollector,
    client: Client,
}

impl Setup {
    async fn new() -> Self {
        Self::with(|collector| collector).await
    }

    async fn with(configure: impl FnOnce(Collector) -> Collector) -> Self {
        // Fails only where a test before has done it in this process.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let collector = configure(Collector::open(dir.path().join("spans.sqlite")).unwrap());
        let running = collector.serve(([127, 0, 0, 1], 0)).await.unwrap();
        Self { dir, running, client: Client::builder().no_proxy().build().unwrap() }
    }

    fn put(&self) -> RequestBuilder {
        self.client.put(format!("{}/v5/spans/batch", self.running.url()))
    }

    /// Sends a batch that must be stored, and gives its items back.
    async fn store(&self, items: Value) -> Vec<Value> {
        let (status, answer) = send(self.put().body(json!({ "items": items }).to_string())).await;
        assert_eq!(status, 200, "{answer}");
        answer["items"].as_array().unwrap().clone()
    }

    /// Sends a batch that must be refused, and checks that nothing of it was stored.
    async fn refuse(&self, items: Value, status: u16) -> Value {
        let before = self.running.store().traces(usize::MAX).unwrap();
        let answer = send(self.put().body(json!({ "items": items }).to_string())).await;
        assert_eq!(answer.0, status, "{}", answer.1);
        assert_eq!(self.running.store().traces(usize::MAX).unwrap(), before);
        answer.1
    }

    async fn search(&self, query: &str, body: Value) -> (StatusCode, Value) {
        let url = format!("{}/v5/spans/search?{query}", self.running.url());
        send(self.client.post(url).body(body.to_string())).await
    }

    fn spans(&self, trace_id: &str) -> Vec<Span> {
        self.running.store().spans(&trace_id.parse().unwrap()).unwrap()
    }
}

async fn send(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    assert_eq!(response.headers()["content-type"], "application/json");
    (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap())
}

fn span(trace_id: &str, id: &str) -> Value {
    json!({
        "name": "rank",
        "id": id,
        "trace_id": trace_id,
        "start_timestamp": "2026-11-21T08:03:54.911208+00:00",
    })
}

fn with(mut span: Value, field: &str, value: impl Into<Value>) -> Value {
    span[field] = value.into();
    span
}

fn ids(page: &Value) -> Vec<&str> {
    page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_span_of_the_model_comes_back_as_it_was_sent() {
    let setup = Setup::new().await;
    let at = Timestamp::from_unix_ns;
    let mut sent = Span::new(TraceId::from_bits(1), SpanId::from_bits(2), "rank", at(1_000));
    sent.end_timestamp = Some(at(2_000));
    sent.parent_id = Some(SpanId::from_bits(3));
    sent.group_id = Some("session".into());
    sent.status = SpanStatus::Error;
    sent.input = json!({"text": "a\0b", "n": [1, 2.5, null]}).as_object().unwrap().clone().into();
    sent.metadata.insert("k".into(), "v".into());

    let stored = setup.store(json!([sent])).await;
    let mut expected = serde_json::to_value(&sent).unwrap();
    expected["account_id"] = "local".into();
    expected["object"] = "span".into();
    assert_eq!(stored, [expected.clone()]);
    assert_eq!(setup.running.store().spans(&sent.trace_id).unwrap(), [sent.clone()]);
    let (status, page) = setup.search("", json!({"trace_ids": [sent.trace_id]})).await;
    assert_eq!(status, 200);
    assert_eq!(page, json!({"items": [expected], "has_more": false, "object": "list", "total": 0}));
}

#[tokio::test]
async fn foreign_ids_and_the_rarer_fields_of_sgp_are_kept() {
    let setup = Setup::new().await;
    let mut sent = span("C58C5E1EBCFF46D881C54DC1A5FDAFEA", "no_trace ' \" é");
    for field in ["application_interaction_id", "application_variant_id"] {
        sent[field] = field.into();
    }
    sent["obs_trace_id"] = "0af7651916cd43dd8448eb211c80319c".into();
    sent["obs_span_id"] = "00f067aa0ba902b7".into();
    sent["expected"] = json!({"answer": 42});
    let body = json!({ "items": [sent] }).to_string();
    let request = setup.put().header("x-selected-account-id", "ACC").body(body);
    let (_, answer) = send(request).await;
    let expected = with(with(sent, "account_id", "ACC"), "object", "span");
    assert_eq!(answer, json!({"items": [expected.clone()], "object": "list"}));
    let trace = json!({"trace_ids": ["C58C5E1EBCFF46D881C54DC1A5FDAFEA"]});
    assert_eq!(setup.search("", trace).await.1["items"], json!([expected]));
    assert!(setup.spans("c58c5e1e-bcff-46d8-81c5-4dc1a5fdafea").is_empty());
}

#[tokio::test]
async fn a_completed_span_wins_over_an_open_one_in_either_order() {
    let setup = Setup::new().await;
    let open = span("t", "a");
    let done = with(open.clone(), "end_timestamp", "2026-11-21T08:03:55Z");
    setup.store(json!([open])).await;
    setup.store(json!([done])).await;
    let answered = setup.store(json!([open])).await;
    assert_eq!(answered[0]["end_timestamp"], "2026-11-21T08:03:55Z");
    assert!(setup.spans("t")[0].end_timestamp.is_some());

    // Of two that are alike, the later one stays.
    setup.store(json!([with(done, "name", "renamed")])).await;
    assert_eq!(setup.spans("t")[0].name, "renamed");

    // The key is the pair: the same id in another trace is another span.
    setup.store(json!([span("u", "a")])).await;
    assert_eq!((setup.spans("t").len(), setup.spans("u").len()), (1, 1));
}

#[tokio::test]
async fn gzip_bodies_are_read_and_bombs_are_refused() {
    let setup = Setup::new().await;
    let gzip = |data: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    };
    let put = |body| send(setup.put().header("content-encoding", "gzip").body(body));
    let batch = json!({ "items": [span("t", "a")] }).to_string();
    assert_eq!(put(gzip(batch.as_bytes())).await.0, 200);
    assert_eq!(setup.spans("t").len(), 1);

    let (status, answer) = put(gzip(&vec![b' '; 4 * MAX_BODY_BYTES])).await;
    assert_eq!((status.as_u16(), &answer["field"]), (413, &json!("body")));
    assert_eq!(put(b"{}".to_vec()).await.0, 400);
    let other = setup.put().header("content-encoding", "br").body("{}");
    assert_eq!(send(other).await.0, 415);
}

/// Many clients write the whole request before they look for an answer. They must not find a
/// broken connection, which reads like an outage and is tried again for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_limit_is_answered_with_413() {
    let setup = Setup::new().await;
    let answer = send_all_then_read(&setup.running, 2 * MAX_BODY_BYTES).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains(r#""field":"body""#), "{answer}");

    let item = with(span("t", "a"), "input", json!({"text": "x".repeat(MAX_BODY_BYTES - 1000)}));
    setup.store(json!([item])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_big_body_without_the_key_is_answered_with_401() {
    let setup = Setup::with(|collector| collector.api_key("hunter2")).await;
    let answer = send_all_then_read(&setup.running, MAX_BODY_BYTES).await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
}

/// Puts a batch of blanks, to the last byte, and reads the answer only then.
async fn send_all_then_read(running: &RunningCollector, length: usize) -> String {
    let addr = running.addr();
    let exchange = tokio::task::spawn_blocking(move || {
        let mut connection = std::net::TcpStream::connect(addr).unwrap();
        let head = format!(
            "PUT /v5/spans/batch HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        connection.write_all(head.as_bytes()).unwrap();
        connection.write_all(&vec![b' '; length]).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer
    });
    exchange.await.unwrap()
}

#[tokio::test]
async fn a_field_at_fault_refuses_the_whole_batch_and_is_named() {
    let setup = Setup::new().await;
    let long = "x".repeat(257);
    for (field, value, status) in [
        ("id", json!(long), 422),
        ("id", json!("a\0b"), 400),
        ("trace_id", json!("a\0b"), 400),
        ("group_id", json!(long), 422),
        ("name", json!(1), 422),
        ("input", json!("secret"), 422),
        ("output", json!([]), 422),
        ("metadata", json!(1), 422),
        ("end_timestamp", json!("2026-11-21T08:03:53Z"), 422),
        ("status", json!("secret"), 422),
    ] {
        let bad = with(span("t", "bad"), field, value);
        let answer = setup.refuse(json!([span("t", "a"), bad]), status).await;
        assert_eq!(answer["field"], format!("items[1].{field}"));
        assert!(answer["detail"].as_str().unwrap().starts_with(&format!("items[1].{field} ")));
        assert!(!answer.to_string().contains("secret"), "{answer}");
    }
    let too_many: Vec<_> = (0..1001).map(|n| span("t", &n.to_string())).collect();
    assert_eq!(setup.refuse(json!(too_many), 422).await["field"], "items");
    for (body, status) in [("{\"items\":[", 400), ("", 400), ("{}", 422), ("[]", 422)] {
        assert_eq!(send(setup.put().body(body)).await.0, status, "{body}");
    }
    assert!(setup.spans("t").is_empty());
}

#[tokio::test]
async fn a_parent_of_another_trace_refuses_the_whole_batch() {
    let setup = Setup::new().await;
    setup.store(json!([span("other", "p")])).await;
    let child = with(span("t", "a"), "parent_id", "p");
    let answer = setup.refuse(json!([span("t", "b"), child]), 409).await;
    assert_eq!(answer["field"], "items[1].parent_id");
    // A parent that nobody knows may still come, and then it is one.
    let child = with(span("t", "a"), "parent_id", "later");
    setup.store(json!([child])).await;
    setup.store(json!([span("t", "later")])).await;
    assert_eq!(setup.spans("t").len(), 2);
}

#[tokio::test]
async fn a_cycle_refuses_the_whole_batch() {
    let setup = Setup::new().await;
    let under = |id, parent| with(span("t", id), "parent_id", parent);
    setup.refuse(json!([span("t", "x"), under("a", "a")]), 409).await;
    setup.refuse(json!([under("a", "b"), under("b", "a")]), 409).await;
    setup.store(json!([under("a", "b"), under("b", "c")])).await;
    let answer = setup.refuse(json!([span("t", "x"), under("c", "a")]), 409).await;
    assert_eq!(answer["field"], "items[1].parent_id");
    assert_eq!(setup.spans("t").len(), 2);
}

#[tokio::test]
async fn pages_cover_a_trace_without_gaps_or_repeats_in_both_orders() {
    let setup = Setup::new().await;
    // Many share a start, so that ids decide.
    let item = |n: usize| {
        let start = format!("2026-11-21T08:00:0{}Z", n % 3);
        with(span("t", &format!("{n:02}")), "start_timestamp", start)
    };
    setup.store((0..25).map(item).collect()).await;
    setup.store(json!([span("u", "not mine")])).await;
    let mut expected: Vec<String> = (0..25).map(|n| format!("{n:02}")).collect();
    expected.sort_by_key(|id| (id.parse::<usize>().unwrap() % 3, id.clone()));

    for order in ["asc", "desc"] {
        let mut seen: Vec<String> = Vec::new();
        let mut after = String::new();
        loop {
            let query = format!("limit=10&sort_order={order}{after}");
            let (_, page) = setup.search(&query, json!({"trace_ids": ["t"]})).await;
            seen.extend(ids(&page).into_iter().map(str::to_owned));
            after = format!("&starting_after={}", seen.last().unwrap());
            if page["has_more"] == false {
                break;
            }
            assert_eq!(ids(&page).len(), 10);
        }
        assert_eq!(seen, expected);
        expected.reverse();
    }
}

#[tokio::test]
async fn roots_are_listed_newest_first() {
    let setup = Setup::new().await;
    let root = |trace: &str, second: u32| {
        with(span(trace, trace), "start_timestamp", format!("2026-11-21T08:00:0{second}Z"))
    };
    let child = with(span("b", "child"), "parent_id", "b");
    setup.store(json!([root("a", 1), root("b", 3), root("c", 2), child])).await;
    let (_, page) = setup.search("", json!({"parents_only": true})).await;
    assert_eq!(ids(&page), ["b", "c", "a"]);
    let (_, page) = setup.search("", json!({"parents_only": true, "trace_ids": ["a", "b"]})).await;
    assert_eq!(ids(&page), ["b", "a"]);
    let (_, page) = setup.search("limit=1", json!({"parents_only": true})).await;
    assert_eq!((ids(&page), &page["has_more"]), (vec!["b"], &json!(true)));
}

#[tokio::test]
async fn a_filter_that_nobody_has_is_refused_by_name() {
    let setup = Setup::new().await;
    let (status, answer) = setup.search("", json!({"tpyo": ["x"]})).await;
    assert_eq!((status.as_u16(), &answer["field"]), (422, &json!("tpyo")));
    let (status, answer) = setup.search("tpyo=1", json!({})).await;
    assert_eq!((status.as_u16(), &answer["field"]), (422, &json!("tpyo")));
    let url = format!("{}/v5/spans/search", setup.running.url());
    let request = setup.client.post(url).header("x-project-id", "p").body(r#"{"trace_ids":["t"]}"#);
    let (status, answer) = send(request).await;
    assert_eq!((status.as_u16(), &answer["field"]), (422, &json!("x-project-id")));
}

#[tokio::test]
async fn equal_starts_are_ordered_by_ids_or_by_arrival_on_request() {
    let setup = Setup::new().await;
    setup.store(json!([span("t", "c"), span("t", "a"), span("t", "b")])).await;
    let (_, page) = setup.search("sort_order=asc", json!({"trace_ids": ["t"]})).await;
    assert_eq!(ids(&page), ["a", "b", "c"]);
    let mut seen = Vec::new();
    for after in ["", "&starting_after=c", "&starting_after=a"] {
        let url = format!("{}/v5/spans/search", setup.running.url());
        let url = format!("{url}?sort_order=asc&limit=1{after}");
        let request = setup.client.post(url).header("x-order-of-ties", "arrival");
        let (_, page) = send(request.body(r#"{"trace_ids":["t"]}"#)).await;
        seen.extend(ids(&page).into_iter().map(str::to_owned));
    }
    assert_eq!(seen, ["c", "a", "b"]);
}

#[tokio::test]
async fn a_span_is_created_once_read_and_changed() {
    let setup = Setup::new().await;
    let url = format!("{}/v5/spans", setup.running.url());
    let create = |item: &Value| send(setup.client.post(&url).body(item.to_string()));
    let (status, created) = create(&with(span("t", "a/b"), "group_id", "g")).await;
    assert_eq!((status.as_u16(), &created["account_id"]), (200, &json!("local")));
    let (status, answer) = create(&span("t", "a/b")).await;
    assert_eq!((status.as_u16(), &answer["field"]), (409, &json!("id")));
    let (status, answer) = create(&with(span("t", "c"), "status", "secret")).await;
    assert_eq!((status.as_u16(), &answer["field"]), (422, &json!("status")));

    let one = format!("{url}/a%2Fb");
    assert_eq!(send(setup.client.get(&one)).await.1, created);
    let patch = |change: Value| send(setup.client.patch(&one).body(change.to_string()));
    let change = json!({
        "end_timestamp": "2026-11-21T08:03:55Z", "status": "ERROR",
        "output": {"n": 1, "usage": {"output_tokens": 3}}, "input": {"ignored": true},
    });
    let (status, changed) = patch(change).await;
    assert_eq!(status, 200, "{changed}");
    let expected = with(created, "end_timestamp", "2026-11-21T08:03:55Z");
    let expected = with(with(expected, "status", "ERROR"), "output_tokens", 3);
    let expected = with(expected, "output", json!({"n": 1, "usage": {"output_tokens": 3}}));
    assert_eq!(changed, expected);
    assert_eq!(send(setup.client.get(&one)).await.1, expected);

    let (status, answer) = patch(json!({"end_timestamp": "2026-11-21T08:03:53Z"})).await;
    assert_eq!((status.as_u16(), &answer["field"]), (422, &json!("end_timestamp")));
    assert_eq!(send(setup.client.get(format!("{url}/none"))).await.0, 404);
    assert_eq!(send(setup.client.patch(format!("{url}/none")).body("{}")).await.0, 404);

    let batch = |items: Value| {
        let body = json!({ "items": items }).to_string();
        send(setup.client.post(format!("{url}/batch")).body(body))
    };
    assert_eq!(batch(json!([span("t", "d"), span("u", "d")])).await.0, 200);
    let (status, answer) = batch(json!([span("t", "e"), span("t", "d")])).await;
    assert_eq!((status.as_u16(), &answer["field"]), (409, &json!("items[1].id")));
    assert_eq!(batch(json!([span("t", "f"), span("t", "f")])).await.0, 409);
    assert_eq!(setup.spans("t").len(), 2);
}

#[tokio::test]
async fn credentials_are_not_stored() {
    let setup = Setup::new().await;
    let mut item = with(span("t", "a"), "input", json!({"api_key": "hunter2", "n": 1}));
    item["name"] = "GET redis://:hunter2@cache".into();
    let stored = setup.store(json!([item])).await;
    assert_eq!(stored[0]["input"], json!({"api_key": "[REDACTED:credential]", "n": 1}));
    assert_eq!(stored[0]["name"], "GET redis://:[REDACTED:credential]@cache");
    let change = json!({"output": {"password": "hunter2"}}).to_string();
    let url = format!("{}/v5/spans/a", setup.running.url());
    assert!(!send(setup.client.patch(url).body(change)).await.1.to_string().contains("hunter2"));
    let spans = setup.spans("t");
    assert!(!serde_json::to_string(&spans).unwrap().contains("hunter2"));
}

#[tokio::test]
async fn too_many_requests_are_told_to_come_back() {
    let one = std::num::NonZeroU32::MIN;
    let setup = Setup::with(move |collector| collector.max_requests_per_second(one)).await;
    let mut statuses = Vec::new();
    for _ in 0..20 {
        let batch = json!({ "items": [span("t", "a")] }).to_string();
        let response = setup.put().body(batch).send().await.unwrap();
        if response.status() == 429 {
            assert_eq!(response.headers()["retry-after"], "1");
        }
        statuses.push(response.status().as_u16());
        // Whether it is well does not count.
        let health = setup.client.get(format!("{}/healthz", setup.running.url()));
        assert_eq!(send(health).await.0, 200);
    }
    assert_eq!(statuses[0], 200);
    assert!(statuses.contains(&429), "{statuses:?}");
}

#[tokio::test]
async fn a_key_is_asked_for_where_one_is_set() {
    let setup = Setup::with(|collector| collector.api_key("hunter2")).await;
    let batch = json!({ "items": [span("t", "a")] }).to_string();
    for key in [None, Some("hunter"), Some("")] {
        let request = setup.put().body(batch.clone());
        let request = match key {
            Some(key) => request.header("x-api-key", key),
            None => request,
        };
        let (status, answer) = send(request).await;
        assert_eq!(status, 401);
        assert!(!answer.to_string().contains("hunter"), "{answer}");
    }
    assert_eq!(setup.search("", json!({"parents_only": true})).await.0, 401);
    assert!(setup.spans("t").is_empty());
    assert_eq!(send(setup.put().header("x-api-key", "hunter2").body(batch)).await.0, 200);
    let bearer = |key: &str| {
        setup.put().header("authorization", format!("Bearer {key}")).body(r#"{"items":[]}"#)
    };
    assert_eq!(send(bearer("hunter2")).await.0, 200);
    assert_eq!(send(bearer("hunter")).await.0, 401);
    let health = setup.client.get(format!("{}/healthz", setup.running.url()));
    assert_eq!(send(health).await.0, 200);
    assert!(!format!("{:?}", setup.running).contains("hunter"));
}

#[tokio::test]
async fn other_paths_and_methods_are_answered_in_json() {
    let setup = Setup::new().await;
    let url = setup.running.url();
    assert_eq!(send(setup.client.get(format!("{url}/v4/spans"))).await.0, 404);
    let delete = setup.client.delete(format!("{url}/v5/spans/batch")).body("{}");
    assert_eq!(send(delete).await.0, 405);
}

#[tokio::test]
async fn listening_to_the_network_takes_a_key() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::open(dir.path().join("spans.sqlite")).unwrap();
    let error = collector.serve(([0, 0, 0, 0], 0)).await.unwrap_err();
    assert!(error.is_unsafe_listener());
    assert!(error.to_string().contains("without an api key"), "{error}");
    let empty = collector.clone().api_key("");
    assert!(empty.serve(([127, 0, 0, 1], 0)).await.unwrap_err().is_unsafe_listener());
    let running = collector.api_key("k").serve(([0, 0, 0, 0], 0)).await.unwrap();
    assert_eq!(running.url(), format!("http://127.0.0.1:{}", running.addr().port()));
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error() {
    let setup = Setup::new().await;
    let collector = Collector::open(setup.dir.path().join("other.sqlite")).unwrap();
    let error = collector.serve(setup.running.addr()).await.unwrap_err();
    assert!(!error.is_unsafe_listener());
    assert!(error.to_string().contains("cannot listen"), "{error}");
}

#[tokio::test]
async fn spans_survive_a_restart_and_a_stopped_collector_answers_nobody() {
    let Setup { dir, running, client } = Setup::new().await;
    let url = format!("{}/v5/spans/batch", running.url());
    let batch = json!({ "items": [span("t", "a")] }).to_string();
    assert_eq!(send(client.put(&url).body(batch.clone())).await.0, 200);
    running.shutdown().await;
    assert!(client.put(&url).body(batch).send().await.unwrap_err().is_connect());

    let collector = Collector::open(dir.path().join("spans.sqlite")).unwrap();
    assert_eq!(collector.store().spans(&"t".parse().unwrap()).unwrap().len(), 1);
}

#[tokio::test]
async fn a_writer_of_another_process_is_waited_for_and_then_answered_with_503() {
    let setup = Setup::new().await;
    let other = rusqlite::Connection::open(setup.dir.path().join("spans.sqlite")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let batch = json!({ "items": [span("t", "a")] }).to_string();
    let response = setup.put().body(batch.clone()).send().await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "1");
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(send(setup.put().body(batch)).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_come_at_once_are_all_stored() {
    let setup = Setup::new().await;
    let batches = (0..16).map(|batch| {
        let items: Vec<_> = (0..100).map(|n| span("t", &format!("{batch}-{n}"))).collect();
        tokio::spawn(send(setup.put().body(json!({ "items": items }).to_string())))
    });
    for batch in batches.collect::<Vec<_>>() {
        assert_eq!(batch.await.unwrap().0, 200);
    }
    assert_eq!(setup.spans("t").len(), 1600);
}

#[tokio::test]
async fn without_a_key_no_web_site_gets_at_the_api() {
    let setup = Setup::new().await;
    let items = json!({"items": [span("t", "a")]}).to_string();
    for (method, path) in [
        ("PUT", "/v5/spans/batch"),
        ("POST", "/v5/spans/search"),
        ("GET", "/v5/spans/a"),
        ("POST", "/v1/traces"),
        ("POST", "/v1/traces/ingest"),
        ("GET", "/v3/traces"),
        ("GET", "/page/traces"),
    ] {
        let request = || {
            let url = format!("{}{path}", setup.running.url());
            let request = setup.client.request(method.parse().unwrap(), url);
            if method == "GET" { request } else { request.body(items.clone()) }
        };
        for (header, value, reason) in [
            ("host", "evil.example", "a local name only"),
            ("origin", "https://evil.example", "no web pages of other origins"),
            ("origin", "null", "no web pages of other origins"),
        ] {
            let (status, answer) = send(request().header(header, value)).await;
            assert_eq!(status, 403, "{path} {value}");
            let detail = answer["detail"].as_str().unwrap();
            assert!(detail.contains(reason) && detail.contains("key"), "{detail}");
        }
        let own = request().header("host", "localhost:1").header("origin", "http://localhost:1");
        assert_ne!(own.send().await.unwrap().status(), 403, "{path}");
    }
    let health = setup.client.get(format!("{}/healthz", setup.running.url()));
    assert_eq!(health.header("host", "evil.example").send().await.unwrap().status(), 200);

    let with_key = Setup::with(|collector| collector.api_key("hunter2")).await;
    let put = with_key.put().body(items).header("x-api-key", "hunter2");
    let (status, _) = send(put.header("host", "traces.example")).await;
    assert_eq!(status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_requests_at_a_time_than_there_is_room_for_are_told_to_come_again() {
    let setup =
        Setup::with(|collector| collector.max_requests_in_flight(1.try_into().unwrap())).await;
    let body = json!({"items": [span("t", "a")]}).to_string();
    // A request that does not end.
    let mut slow = std::net::TcpStream::connect(setup.running.addr()).unwrap();
    let length = body.len();
    write!(
        slow,
        "PUT /v5/spans/batch HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n"
    )
    .unwrap();
    let refused = loop {
        let search = format!("{}/v5/spans/search", setup.running.url());
        let answer = setup.client.post(search).body("{}").send().await.unwrap();
        if answer.status() != 200 {
            break answer;
        }
    };
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "1");
    assert!(refused.text().await.unwrap().contains("more requests at a time"));

    slow.write_all(body.as_bytes()).unwrap();
    slow.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let mut answer = [0; 12];
    slow.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    setup.store(json!([span("t", "b")])).await;
}
