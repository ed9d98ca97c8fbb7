//! The same faults for every class of sink over HTTP: nothing is lost, nothing is there twice, and a
//! bad span is dropped alone.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{body::Body, http::Response};
use durable_spans_activity::{
    Deliverer, OpenAiOptions, OpenAiSink, OpperOptions, OpperSink, OtlpOptions, OtlpSink,
    SgpOptions, SgpSink, SpanSink,
};
use durable_spans_model::{Span, SpanId, Timestamp, TraceId};
use durable_spans_workflow::{FlushGroup, digest};
use futures::future::join_all;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use serde_json::Value;

use crate::{
    opper::Opper,
    server::{Received, Server, status},
};

/// Short, since a hanging server is waited for.
const TIMEOUT: Duration = Duration::from_millis(300);

const SINKS: [&str; 4] = ["sgp", "otlp", "openai", "opper"];

fn sink(name: &str, url: &str) -> Box<dyn SpanSink> {
    match name {
        "sgp" => {
            let options = SgpOptions::new(url).timeout(TIMEOUT).gzip(false);
            Box::new(SgpSink::new(options).unwrap())
        }
        "otlp" => {
            let options = OtlpOptions::new(url).timeout(TIMEOUT).gzip(false);
            Box::new(OtlpSink::new(options).unwrap())
        }
        "openai" => {
            let options = OpenAiOptions::new("k").base_url(url).timeout(TIMEOUT).gzip(false);
            Box::new(OpenAiSink::new(options).unwrap())
        }
        _ => {
            let options = OpperOptions::new("k").base_url(url).timeout(TIMEOUT).gzip(false);
            Box::new(OpperSink::new(options).unwrap())
        }
    }
}

/// What a server does with a request before it has recovered.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Status(u16),
    Busy,
    Hang,
}

impl Fault {
    fn answer(self) -> Option<Response<Body>> {
        match self {
            Self::Status(code) => Some(status(code)),
            Self::Busy => {
                let answer = Response::builder().status(429).header("retry-after-ms", "150");
                Some(answer.body(Body::empty()).unwrap())
            }
            Self::Hang => None,
        }
    }
}

/// A backend of any class: what it has stored, by the names of the spans.
#[derive(Clone, Default)]
struct Backend {
    opper: Opper,
    stored: Arc<Mutex<Vec<String>>>,
}

impl Backend {
    fn answer(&self, request: &Received) -> Response<Body> {
        if request.target.starts_with("/v3/") {
            return self.opper.answer(request);
        }
        self.stored.lock().unwrap().extend(names(request));
        status(200)
    }

    /// How often each span is there.
    fn copies(&self) -> BTreeMap<String, usize> {
        let opper = self.opper.names();
        let stored = self.stored.lock().unwrap().clone();
        stored.into_iter().chain(opper).fold(BTreeMap::new(), |mut copies, name| {
            *copies.entry(name).or_default() += 1;
            copies
        })
    }
}

fn names(request: &Received) -> Vec<String> {
    if request.header("content-type") == Some("application/x-protobuf") {
        let told = ExportTraceServiceRequest::decode(&request.bytes()[..]).unwrap();
        let spans = told.resource_spans.into_iter().flat_map(|of| of.scope_spans);
        return spans.flat_map(|of| of.spans).map(|span| span.name).collect();
    }
    let told: Value = serde_json::from_str(&request.text()).unwrap();
    let items = told["items"].as_array().or(told["data"].as_array()).unwrap().iter();
    let name = |item: &Value| {
        item["name"].as_str().or(item["span_data"]["name"].as_str()).map(str::to_owned)
    };
    items.filter_map(name).collect()
}

/// A root and 29 children, all ended.
fn spans() -> Vec<Span> {
    let start: Timestamp = "2026-11-21T08:04:12.385716+00:00".parse().unwrap();
    let span = |id: u128| {
        let mut span =
            Span::new(TraceId::from_bits(1), SpanId::from_bits(id), format!("span {id:02}"), start);
        span.end_timestamp = Some(start);
        span.parent_id = (id > 1).then(|| SpanId::from_bits(1));
        span
    };
    (1..=30).map(span).collect()
}

fn group() -> FlushGroup {
    let spans = spans();
    FlushGroup { flush: 1, digest: digest(&spans), part_of: None, spans: spans.into() }
}

fn each_once() -> BTreeMap<String, usize> {
    spans().into_iter().map(|span| (span.name.into_owned(), 1)).collect()
}

#[tokio::test]
async fn after_an_outage_of_any_kind_every_span_is_there_once() {
    let faults = [
        Fault::Status(500),
        Fault::Status(503),
        Fault::Status(401),
        Fault::Status(404),
        Fault::Busy,
        Fault::Hang,
    ];
    let all = SINKS.into_iter().flat_map(|name| faults.map(|fault| outage(name, fault)));
    join_all(all).await;
}

async fn outage(name: &str, fault: Fault) {
    let backend = Backend::default();
    let (answers, left) = (backend.clone(), Arc::new(Mutex::new(3)));
    let server = Server::start_silent(move |request| {
        let mut left = left.lock().unwrap();
        *left -= 1;
        // Opper's 404 means that it does not know the trace, which is none of an outage.
        let is_answer = matches!(fault, Fault::Status(404)) && request.method == "GET";
        if *left >= 0 && !is_answer { fault.answer() } else { Some(answers.answer(request)) }
    })
    .await;
    let deliverer = Deliverer::new(sink(name, &server.base_url));
    deliverer.take_last("run", &group());
    let statistics = deliverer.flush(Duration::from_secs(30)).await;
    let counts = (statistics.delivered, statistics.deferred, statistics.dropped_total());
    assert_eq!(counts, (30, 0, 0), "{name} {fault:?}");
    // Who hangs or fails may have stored the batch; it was sent again after each of the three.
    let leaves_doubt = name == "otlp" && matches!(fault, Fault::Status(500) | Fault::Hang);
    assert_eq!(statistics.doubtful, if leaves_doubt { 90 } else { 0 }, "{name} {fault:?}");
    assert_eq!(backend.copies(), each_once(), "{name} {fault:?}");
}

#[tokio::test]
async fn one_bad_span_is_dropped_alone() {
    for name in SINKS {
        for code in [400, 413, 422] {
            let backend = Backend::default();
            let answers = backend.clone();
            let server = Server::start(move |request| {
                let bytes = request.bytes();
                let bad = bytes.windows(7).any(|window| window == b"span 17");
                if bad { status(code) } else { answers.answer(request) }
            })
            .await;
            let deliverer = Deliverer::new(sink(name, &server.base_url));
            deliverer.take_last("run", &group());
            let statistics = deliverer.flush(Duration::from_secs(30)).await;
            let counts = (statistics.delivered, statistics.deferred, statistics.dropped_total());
            assert_eq!(counts, (29, 0, 1), "{name} {code}");
            let mut expected = each_once();
            expected.remove("span 17");
            assert_eq!(backend.copies(), expected, "{name} {code}");
        }
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_yet_gets_everything_once_it_is() {
    for name in SINKS {
        let url = crate::server::closed_port().await;
        let deliverer = Deliverer::new(sink(name, &url));
        deliverer.take_last("run", &group());
        let statistics = deliverer.flush(Duration::from_millis(300)).await;
        assert_eq!((statistics.delivered, statistics.deferred), (0, 30), "{name}");

        let backend = Backend::default();
        let answers = backend.clone();
        let address = url.strip_prefix("http://").unwrap();
        let _server = Server::start_at(address, move |request| Some(answers.answer(request))).await;
        let statistics = deliverer.flush(Duration::from_secs(30)).await;
        assert_eq!((statistics.delivered, statistics.deferred), (30, 0), "{name}");
        assert_eq!(statistics.doubtful, 0, "{name}: nobody was there to store anything");
        assert_eq!(backend.copies(), each_once(), "{name}");
    }
}
