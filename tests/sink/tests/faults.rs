//! Each fault as the real sink of durable-spans meets it.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::time::{Duration, Instant};

use durable_spans_activity::{
    OpenAiOptions, OpenAiSink, OpperOptions, OpperSink, OtlpOptions, OtlpSink, SgpOptions, SgpSink,
    SinkError, SpanBatch, SpanSink,
};
use durable_spans_model::{Span, SpanId, Timestamp, TraceId};
use durable_spans_test_sink::{Fault, FaultySink};

struct Scene {
    faulty: FaultySink,
    sink: SgpSink,
    _folder: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let faulty = FaultySink::start(folder.path().join("spans.sqlite")).await.unwrap();
        let options = SgpOptions::new(faulty.url()).api_key("right");
        let sink = SgpSink::new(options.timeout(Duration::from_secs(1))).unwrap();
        Self { faulty, sink, _folder: folder }
    }

    async fn send(&self, fault: Fault, spans: &[Span]) -> Result<(), SinkError> {
        self.faulty.set(fault);
        self.sink.upsert_batch(&spans.iter().cloned().collect::<SpanBatch>()).await
    }

    async fn names(&self) -> Vec<String> {
        let stored = self.faulty.stored(&trace()).await.unwrap();
        stored.into_iter().map(|span| span.name.into_owned()).collect()
    }
}

fn trace() -> TraceId {
    TraceId::from_bits(7)
}

/// Spans of these names, in this order. Large enough for compression.
fn spans(names: &[&'static str]) -> Vec<Span> {
    let span = |(index, name): (usize, &&'static str)| {
        let start = Timestamp::from_unix_ns(index as i64);
        let mut span = Span::new(trace(), SpanId::from_bits(index as u128), *name, start);
        span.metadata.insert("text".into(), "x".repeat(2_000).into());
        span
    };
    names.iter().enumerate().map(span).collect()
}

#[tokio::test]
async fn without_a_fault_it_stores_and_counts_what_comes() {
    let scene = Scene::new().await;
    scene.send(Fault::None, &spans(&["a", "b"])).await.unwrap();
    scene.send(Fault::None, &spans(&["a", "b"])).await.unwrap();
    assert_eq!(scene.names().await, ["a", "b"]);
    assert_eq!((scene.faulty.calls(), scene.faulty.rows(), scene.faulty.faults_met()), (2, 4, 0));
}

#[tokio::test]
async fn refusals_have_their_status_and_store_nothing() {
    let scene = Scene::new().await;
    let retry_after = Duration::from_secs(30);
    for (fault, status) in [
        (Fault::Errors, 500),
        (Fault::TooMany { retry_after }, 429),
        (Fault::Refuses("b"), 422),
        (Fault::TakesKey("another"), 401),
    ] {
        let error = scene.send(fault, &spans(&["a", "b", "c"])).await.unwrap_err();
        assert_eq!(error.status(), Some(status));
        assert_eq!(error.retry_after().is_some(), status == 429);
    }
    assert!(scene.names().await.is_empty());
    scene.send(Fault::Refuses("b"), &spans(&["a"])).await.unwrap();
    scene.send(Fault::TakesKey("right"), &spans(&["a"])).await.unwrap();
    assert_eq!(scene.names().await, ["a"]);
}

#[tokio::test]
async fn a_reset_leaves_the_first_half_and_no_answer() {
    let scene = Scene::new().await;
    let error = scene.send(Fault::ResetsHalfway, &spans(&["a", "b", "c"])).await.unwrap_err();
    assert!(error.is_retryable() && error.status().is_none(), "{error:?}");
    assert_eq!(scene.names().await, ["a", "b"]);
}

#[tokio::test]
async fn what_hangs_is_seen_and_ends_with_the_sender() {
    let scene = Scene::new().await;
    let error = scene.send(Fault::Hangs, &spans(&["a"])).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("within 1s"), "{error}");
    scene.faulty.until_met(1).await;
    assert!(scene.names().await.is_empty());
    assert!(scene.send(Fault::HangsHalfway, &spans(&["a", "b"])).await.is_err());
    assert_eq!(scene.names().await, ["a"]);
    let mut attempt = spans(&["attempt"]);
    attempt[0].id = SpanId::from_bits(99);
    attempt[0].metadata.insert("temporal.kind".into(), "activity_attempt".into());
    scene.send(Fault::HangsHalfway, &attempt).await.unwrap();
    assert_eq!(scene.names().await, ["a", "attempt"]);
}

#[tokio::test]
async fn an_answer_takes_the_time_that_was_set() {
    let scene = Scene::new().await;
    scene.faulty.answer_after(Duration::from_millis(80));
    let start = Instant::now();
    scene.send(Fault::None, &spans(&["a"])).await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(80));
}

#[tokio::test]
async fn after_a_restart_it_has_the_same_store_at_the_same_port() {
    let mut scene = Scene::new().await;
    scene.send(Fault::None, &spans(&["a"])).await.unwrap();
    let url = scene.faulty.url();
    scene.faulty.stop().await;
    assert!(scene.send(Fault::None, &spans(&["a", "b"])).await.unwrap_err().is_retryable());
    scene.faulty.start_again().await.unwrap();
    assert_eq!(scene.faulty.url(), url);
    scene.send(Fault::None, &spans(&["a", "b"])).await.unwrap();
    assert_eq!(scene.names().await, ["a", "b"]);
}

/// The others that a collector listens to, with the ids by which it knows the trace.
fn others(url: &str) -> [(Box<dyn SpanSink>, String); 3] {
    let otlp = OtlpOptions::new(url).header("authorization", "Bearer right");
    let openai = OpenAiOptions::new("right").base_url(format!("{url}/v1"));
    let opper = OpperOptions::new("right").base_url(url);
    [
        (Box::new(OtlpSink::new(otlp).unwrap()), format!("{:032x}", 7)),
        (Box::new(OpenAiSink::new(openai).unwrap()), format!("trace_{:032x}", 7)),
        (Box::new(OpperSink::new(opper).unwrap()), trace().to_string()),
    ]
}

#[tokio::test]
async fn every_form_in_which_spans_come_meets_the_faults() {
    let scene = Scene::new().await;
    let mut spans = spans(&["", "a", "b", "c"]).split_off(1);
    spans.iter_mut().for_each(|span| {
        span.start_timestamp = Timestamp::from_unix_ns(1_000_000_000);
        span.end_timestamp = Some(span.start_timestamp);
    });
    for (sink, trace) in others(&scene.faulty.url()) {
        let batch = || spans.iter().cloned().collect::<SpanBatch>();
        let send = async |fault| {
            scene.faulty.set(fault);
            sink.upsert_batch(&batch()).await
        };
        let stored = async || {
            let stored = scene.faulty.stored(&trace.parse().unwrap()).await.unwrap();
            // OpenAI's ingest makes a span of the trace itself.
            let spans = stored.into_iter().filter(|span| span.id.to_string() != trace);
            let mut names: Vec<_> = spans.map(|span| span.name.into_owned()).collect();
            names.sort_unstable();
            names
        };
        assert_eq!(send(Fault::TakesKey("another")).await.unwrap_err().status(), Some(401));
        assert_eq!(send(Fault::Errors).await.unwrap_err().status(), Some(500));
        assert!(stored().await.is_empty());
        // One at a time, the answer to the first is lost; a list, its second half.
        let error = send(Fault::ResetsHalfway).await.unwrap_err();
        assert!(error.is_retryable() && error.may_be_stored(), "{error:?}");
        let first = stored().await;
        assert!(first == ["a"] || first == ["a", "b"], "{} {first:?}", sink.name());
        let refused = send(Fault::Refuses("c")).await.unwrap_err();
        assert_eq!(refused.status(), Some(422));
        send(Fault::TakesKey("right")).await.unwrap();
        assert_eq!(stored().await, ["a", "b", "c"]);
    }
    let copies = |id: u128| {
        let trace: TraceId = format!("{:032x}", 7).parse().unwrap();
        scene.faulty.copies(&trace, &format!("{id:016x}").parse().unwrap())
    };
    assert_eq!((copies(1), copies(2), copies(3)), (2, 2, 1));
}
