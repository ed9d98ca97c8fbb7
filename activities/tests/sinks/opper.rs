//! The Opper sink against a server on this machine that does what Opper does: it gives each span an
//! id of its own, so a create that is sent again makes another span.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    body::Body,
    http::{Method, Response},
};
use durable_spans_activity::{Deliverer, OpperOptions, OpperSink, SpanBatch, SpanSink};
use durable_spans_model::{Span, SpanError, SpanId, SpanType, Timestamp, TraceId};
use durable_spans_workflow::{FlushGroup, digest};
use serde_json::{Value, json};

use crate::server::{Received, Server, shown, status};

#[derive(Clone, Default)]
pub(crate) struct Opper {
    /// In the order of their creation.
    spans: Arc<Mutex<Vec<Value>>>,
    requests: Arc<Mutex<usize>>,
}

impl Opper {
    pub(crate) fn answer(&self, request: &Received) -> Response<Body> {
        *self.requests.lock().unwrap() += 1;
        let mut spans = self.spans.lock().unwrap();
        let path: Vec<&str> = request.target.split('/').skip(1).collect();
        let body = || serde_json::from_str::<Value>(&request.text()).unwrap();
        let answer = match (&request.method, &path[..]) {
            (&Method::POST, ["v3", "spans"]) => {
                let mut span = body();
                span["id"] = format!("opper-{}", spans.len()).into();
                spans.push(span.clone());
                json!({"data": {"id": span["id"], "trace_id": span["trace_id"], "name": span["name"]}})
            }
            (&Method::PATCH, ["v3", "spans", id]) => {
                let span = spans.iter_mut().find(|span| span["id"] == *id).unwrap();
                span.as_object_mut().unwrap().extend(body().as_object().unwrap().clone());
                return status(204);
            }
            (&Method::GET, ["v3", "traces", id]) => {
                let of_trace: Vec<_> =
                    spans.iter().filter(|span| span["trace_id"] == *id).cloned().collect();
                if of_trace.is_empty() {
                    return status(404);
                }
                json!({"id": id, "spans": of_trace})
            }
            other => panic!("Opper has no {other:?}"),
        };
        let response = Response::builder().status(200).header("content-type", "application/json");
        response.body(Body::from(answer.to_string())).unwrap()
    }

    /// Does as told, and then loses every answer for which `lost` says so.
    async fn losing(&self, lost: impl Fn(usize) -> bool + Clone + Send + Sync + 'static) -> Server {
        let opper = self.clone();
        Server::start(move |request| {
            let answer = opper.answer(request);
            let count = *opper.requests.lock().unwrap();
            if lost(count) { status(502) } else { answer }
        })
        .await
    }

    /// The names of the spans under each span, by name; spans without a parent under the empty name.
    fn tree(&self) -> BTreeMap<String, Vec<String>> {
        let spans = self.spans.lock().unwrap();
        let name = |span: &Value| span["name"].as_str().unwrap().to_owned();
        let mut tree: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for span in spans.iter() {
            let parent = spans.iter().find(|other| other["id"] == span["parent_id"]);
            tree.entry(parent.map(name).unwrap_or_default()).or_default().push(name(span));
        }
        tree.values_mut().for_each(|names| names.sort());
        tree
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let spans = self.spans.lock().unwrap();
        spans.iter().map(|span| span["name"].as_str().unwrap().to_owned()).collect()
    }

    fn all_ended(&self) -> bool {
        self.spans.lock().unwrap().iter().all(|span| span["end_time"].is_string())
    }
}

fn sink(server: &Server) -> OpperSink {
    OpperSink::new(OpperOptions::new("op-x").base_url(&server.base_url).gzip(false)).unwrap()
}

fn span(id: u128, parent: Option<u128>) -> Span {
    let start: Timestamp = "2026-11-21T08:04:12.385716+00:00".parse().unwrap();
    let name = format!("s{id:03}");
    let mut span = Span::new(TraceId::from_bits(1), SpanId::from_bits(id), name, start);
    span.parent_id = parent.map(SpanId::from_bits);
    span
}

fn ended(span: &Span) -> Span {
    Span { end_timestamp: Some(span.start_timestamp), ..span.clone() }
}

/// A root with ten children of ten children each.
fn spans() -> Vec<Span> {
    let children = (1..=10).flat_map(|child| {
        let grandchildren = (0..10).map(move |n| span(child * 10 + n + 100, Some(child)));
        std::iter::once(span(child, Some(500))).chain(grandchildren)
    });
    std::iter::once(span(500, None)).chain(children).collect()
}

fn expected_tree() -> BTreeMap<String, Vec<String>> {
    let mut tree = BTreeMap::from([(String::new(), vec!["s500".to_owned()])]);
    tree.insert("s500".into(), (1..=10).map(|child| format!("s{child:03}")).collect());
    for child in 1..=10 {
        let names = (0..10).map(|n| format!("s{:03}", child * 10 + n + 100));
        tree.insert(format!("s{child:03}"), names.collect());
    }
    tree
}

fn group(flush: u32, spans: Vec<Span>) -> FlushGroup {
    FlushGroup { flush, digest: digest(&spans), part_of: None, spans: spans.into() }
}

#[tokio::test]
async fn create_and_finish_have_the_wire_form_of_oppers_own_client() {
    let opper = Opper::default();
    let server = opper.losing(|_| false).await;
    let sink = sink(&server);
    let mut call = span(2, Some(1));
    call.span_type = SpanType::Completion;
    call.input.insert("a".into(), 1.into());
    call.metadata.insert("k".into(), 1.into());
    call.group_id = Some("g".into());
    sink.upsert_batch(&SpanBatch::from_iter([call.clone(), span(1, None)])).await.unwrap();
    call.output.insert("b".into(), 2.into());
    call.set_error(SpanError::new("Timeout", "no answer"));
    sink.upsert_batch(&SpanBatch::from_iter([ended(&call)])).await.unwrap();

    let received = server.received();
    let lines: Vec<_> = received.iter().map(|r| format!("{} {}", r.method, r.target)).collect();
    assert_eq!(
        lines,
        [
            "GET /v3/traces/00000000-0000-0000-0000-000000000001",
            "POST /v3/spans",
            "POST /v3/spans",
            "PATCH /v3/spans/opper-1",
        ]
    );
    for request in &received {
        assert_eq!(request.header("authorization"), Some("Bearer op-x"));
    }
    let body = |index: usize| serde_json::from_str::<Value>(&received[index].text()).unwrap();
    assert_eq!(
        body(2),
        json!({
            "name": "s002",
            "trace_id": "00000000-0000-0000-0000-000000000001",
            "parent_id": "opper-0",
            "type": "completion",
            "input": r#"{"a":1}"#,
            "start_time": "2026-11-21T08:04:12.385716+00:00",
            "meta": {"k": 1, "durable_spans_id": "00000000-0000-0000-0000-000000000002"},
            "tags": {"group_id": "g"},
        })
    );
    assert_eq!(
        body(3),
        json!({
            "output": r#"{"b":2}"#,
            "error": "Timeout: no answer",
            "end_time": "2026-11-21T08:04:12.385716+00:00",
            "meta": {
                "k": 1, "durable_spans_id": "00000000-0000-0000-0000-000000000002", "error": true,
                "error_type": "Timeout", "error_message": "no answer", "error_category": "unknown",
            },
        })
    );
}

#[tokio::test]
async fn no_span_is_there_twice_though_every_thirteenth_answer_is_lost() {
    let opper = Opper::default();
    let server = opper.losing(|count| count % 13 == 0).await;
    let deliverer = Deliverer::new(sink(&server));
    deliverer.take_last("run", &group(1, spans()));
    deliverer.take_last("run", &group(2, spans().iter().map(ended).collect()));
    let statistics = deliverer.flush(Duration::from_secs(60)).await;
    assert_eq!((statistics.delivered, statistics.deferred), (111, 0));
    assert_eq!(opper.tree(), expected_tree());
    assert!(opper.all_ended());
}

#[tokio::test]
async fn a_worker_that_takes_over_from_one_that_was_killed_finds_what_is_there() {
    let opper = Opper::default();
    // The first worker is killed after 60 requests: an answer never comes, and nothing follows.
    let server = opper.losing(|_| false).await;
    let first = sink(&server);
    for spans in spans()[..60].chunks(20) {
        first.upsert_batch(&spans.iter().cloned().collect()).await.unwrap();
    }
    drop(first);
    // The second one has it all from history: open spans first, then their ends.
    let second = sink(&server);
    for spans in [spans(), spans().iter().map(ended).collect()] {
        for spans in spans.chunks(20) {
            second.upsert_batch(&spans.iter().cloned().collect()).await.unwrap();
        }
    }
    assert_eq!(opper.tree(), expected_tree());
    assert!(opper.all_ended());
    let reads = server.received().iter().filter(|request| request.method == Method::GET).count();
    // Each batch with a create, those of the second worker of which the first has created nothing, and
    // once more after the root's end.
    assert_eq!(reads, 3 + 4 + 1);
}

#[tokio::test]
async fn a_span_that_comes_before_its_parent_hangs_under_the_root_and_names_the_parent() {
    let opper = Opper::default();
    let server = opper.losing(|_| false).await;
    let sink = sink(&server);
    sink.upsert_batch(&SpanBatch::from_iter([span(500, None)])).await.unwrap();
    sink.upsert_batch(&SpanBatch::from_iter([ended(&span(7, Some(6)))])).await.unwrap();
    assert_eq!(opper.tree()["s500"], ["s007"]);
    let spans = opper.spans.lock().unwrap();
    let parent = &spans[1]["meta"]["durable_spans_parent_id"];
    assert_eq!(*parent, SpanId::from_bits(6).to_string());
}

#[tokio::test]
async fn a_span_that_opper_refuses_is_dropped_alone() {
    let opper = Opper::default();
    let answers = opper.clone();
    let server = Server::start(move |request| {
        let bad = request.method == Method::POST && request.text().contains("s115");
        if bad { status(422) } else { answers.answer(request) }
    })
    .await;
    let deliverer = Deliverer::new(sink(&server));
    deliverer.take_last("run", &group(1, spans().iter().map(ended).collect()));
    let statistics = deliverer.flush(Duration::from_secs(60)).await;
    assert_eq!((statistics.delivered, statistics.dropped_total()), (110, 1));
    assert_eq!(opper.spans.lock().unwrap().len(), 110);
}

#[tokio::test]
async fn the_key_is_never_shown() {
    let server = Server::start(|request| {
        let response = Response::builder().status(400).header("content-type", "text/plain");
        response.body(Body::from(format!("{:?}", request.headers))).unwrap()
    })
    .await;
    let options = OpperOptions::new("op-secret").base_url(&server.base_url);
    let shown_options = format!("{options:?}");
    let sink = OpperSink::new(options).unwrap();
    let error = sink.upsert_batch(&SpanBatch::from_iter([span(1, None)])).await.unwrap_err();
    for text in [shown_options, format!("{sink:?}"), shown(&error)] {
        assert!(!text.contains("op-secret"), "{text}");
    }
}
