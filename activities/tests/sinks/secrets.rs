//! Keys, passwords and queries of every sink, against servers that repeat all they get: never in the
//! log, whatever its level, nor in the statistics, nor in what Debug shows.

use std::{
    fmt::Debug,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{body::Body, http::Response};
use durable_spans_activity::{
    Deliverer, OpenAiOptions, OpenAiSink, OpperOptions, OpperSink, OtlpOptions, OtlpSink,
    SgpClient, SgpOptions, SgpSearch, SgpSink, SpanSink,
};
use durable_spans_model::{Span, SpanId, Timestamp, TraceId};
use durable_spans_workflow::{FlushGroup, digest};
use tracing_subscriber::fmt::MakeWriter;

use crate::server::{Server, shown};

/// The log as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn group() -> FlushGroup {
    let start = Timestamp::from_unix_ns(0);
    let mut span = Span::new(TraceId::from_bits(1), SpanId::from_bits(1), "s", start);
    span.end_timestamp = Some(start);
    let spans = vec![span];
    FlushGroup { flush: 1, digest: digest(&spans), part_of: None, spans: spans.into() }
}

/// What Debug says of the options and of the sink, and the sink.
fn told(options: &impl Debug, sink: impl SpanSink + Debug) -> (String, Box<dyn SpanSink>) {
    (format!("{options:?} {sink:?}"), Box::new(sink))
}

fn sinks(url: &str) -> Vec<(String, Box<dyn SpanSink>)> {
    let url = url.replace("://", "://user:s3cret-password@") + "/?token=s3cret-query";
    let sgp = SgpOptions::new(&url).api_key("s3cret-key").header("x-a", "s3cret-header");
    let otlp = OtlpOptions::new(&url).header("authorization", "Bearer s3cret-key");
    let langfuse = OtlpOptions::langfuse("s3cret-public", "s3cret-key").with_base_url(&url);
    let langsmith = OtlpOptions::langsmith("s3cret-key", None).with_base_url(&url);
    let braintrust = OtlpOptions::braintrust("s3cret-key", "project_name:p").with_base_url(&url);
    let openai = OpenAiOptions::new("s3cret-key").base_url(&url);
    let opper = OpperOptions::new("s3cret-key").base_url(&url);
    vec![
        told(&sgp, SgpSink::new(sgp.clone()).unwrap()),
        told(&otlp, OtlpSink::new(otlp.clone()).unwrap()),
        told(&langfuse, OtlpSink::new(langfuse.clone()).unwrap()),
        told(&langsmith, OtlpSink::new(langsmith.clone()).unwrap()),
        told(&braintrust, OtlpSink::new(braintrust.clone()).unwrap()),
        told(&openai, OpenAiSink::new(openai.clone()).unwrap()),
        told(&opper, OpperSink::new(opper.clone()).unwrap()),
    ]
}

#[tokio::test]
async fn no_secret_of_any_sink_is_in_the_log_or_in_debug() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    // For all tests of the process, whose lines may be in it as well.
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let answers = Arc::new(Mutex::new(0));
    let count = answers.clone();
    let server = Server::start(move |request| {
        let mut count = count.lock().unwrap();
        *count += 1;
        // An outage, a refused key and a refused span in turn, and each with all that was sent.
        let code = [503, 401, 422][*count % 3];
        let all = format!("http://user:s3cret-password@h{} {:?}", request.target, request.headers);
        let response = Response::builder().status(code).header("content-type", "text/plain");
        response.header("retry-after-ms", "10").body(Body::from(all)).unwrap()
    })
    .await;
    for (debug, sink) in sinks(&server.base_url) {
        assert!(!debug.contains("s3cret"), "{debug}");
        let deliverer = Deliverer::new(sink);
        deliverer.take_last("run", &group());
        let statistics = deliverer.flush(Duration::from_secs(10)).await;
        assert_eq!(statistics.dropped_total(), 1, "{statistics}");
    }
    let options = SgpOptions::new(&server.base_url).api_key("s3cret-key");
    let error = SgpClient::new(options).unwrap().search(&SgpSearch::roots()).await.unwrap_err();
    assert!(!shown(&error).contains("s3cret"), "{error:?}");

    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("span dropped") && log.contains("***"), "{log}");
    for line in log.lines() {
        assert!(!line.contains("s3cret") && !line.contains("czNjcmV0"), "{line}");
    }
}
