//! The SGP sink against a real HTTP server on this machine.

use std::{
    error::Error,
    future::pending,
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{Method, Response},
};
use durable_spans_activity::{SgpOptions, SgpSink, SinkError, SpanBatch, SpanSink};
use durable_spans_model::{Span, SpanError, SpanId, SpanType, Timestamp, TraceId};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::server::{Received, Server, closed_port, ok, serve, shown, status};

fn sink(server: &Server) -> SgpSink {
    SgpSink::new(SgpOptions::new(&server.base_url)).unwrap()
}

/// The error that the sink makes of one such answer.
async fn error_of(answer: fn(&Received) -> Response<Body>) -> SinkError {
    sink(&Server::start(answer).await).upsert_batch(&batch(1)).await.unwrap_err()
}

fn batch(count: u128) -> SpanBatch {
    let start = Timestamp::from_unix_ns(0);
    (0..count)
        .map(|id| Span::new(TraceId::from_bits(1), SpanId::from_bits(id), "step", start))
        .collect()
}

/// What scale-gp-beta 0.7.0 sent for this span, byte for byte.
#[tokio::test]
async fn the_request_is_that_of_the_official_python_client() {
    let mut outer = Span::new(
        "c58c5e1e-bcff-46d8-81c5-4dc1a5fdafea".parse().unwrap(),
        "8f0b39cc-1972-4605-a116-8050044808ad".parse().unwrap(),
        "outer",
        "2026-11-21T08:03:54.911208+00:00".parse().unwrap(),
    );
    outer.span_type = SpanType::AgentWorkflow;
    outer.input.insert("url".into(), "u".into());
    outer.parent_id = Some("4f823389-ad28-4528-9660-4200ba6253cb".parse().unwrap());
    outer.group_id = Some("grp-1".into());

    let server = Server::start(ok).await;
    let options = SgpOptions::new(&server.base_url).api_key("KEY").account_id("ACC");
    let sink = SgpSink::new(options).unwrap();
    sink.upsert_batch(&SpanBatch::from_iter([outer])).await.unwrap();

    let [request] = &server.received()[..] else { panic!("one request") };
    assert_eq!((&request.method, &request.target[..]), (&Method::PUT, "/v5/spans/batch"));
    assert_eq!(
        request.text(),
        r#"{"items":[{"name":"outer","id":"8f0b39cc-1972-4605-a116-8050044808ad","trace_id":"c58c5e1e-bcff-46d8-81c5-4dc1a5fdafea","start_timestamp":"2026-11-21T08:03:54.911208+00:00","input":{"url":"u"},"output":{},"metadata":{},"status":"SUCCESS","type":"AGENT_WORKFLOW","parent_id":"4f823389-ad28-4528-9660-4200ba6253cb","group_id":"grp-1"}]}"#
    );
    let user_agent = concat!("durable-spans/", env!("CARGO_PKG_VERSION"));
    for (name, value) in [
        ("content-length", Some("334")),
        ("content-type", Some("application/json")),
        ("content-encoding", None),
        ("x-api-key", Some("KEY")),
        ("x-selected-account-id", Some("ACC")),
        ("user-agent", Some(user_agent)),
        ("authorization", None),
    ] {
        assert_eq!(request.header(name), value, "{name}");
    }
}

#[tokio::test]
async fn a_batch_over_a_kilobyte_is_compressed_unless_told_otherwise() {
    let mut failed = Span::new(
        "c58c5e1e-bcff-46d8-81c5-4dc1a5fdafea".parse().unwrap(),
        "d7b120b6-aaee-4219-a7ce-b3252a18c3fa".parse().unwrap(),
        "inner",
        "2026-11-21T08:03:55.245743+00:00".parse().unwrap(),
    );
    failed.span_type = SpanType::Completion;
    failed.metadata.insert("k".into(), json!([1, 2.5, null, true]));
    failed.end_timestamp = Some("2026-11-21T08:03:55.277882+00:00".parse().unwrap());
    failed.set_error(SpanError::new("ValueError", "bad thing"));
    let batch: SpanBatch = batch(3).spans().cloned().chain([failed]).collect();
    let expected = json!({"items": batch.spans().collect::<Vec<_>>()});

    let server = Server::start(ok).await;
    let plain = SgpSink::new(SgpOptions::new(&server.base_url).gzip(false)).unwrap();
    sink(&server).upsert_batch(&batch).await.unwrap();
    plain.upsert_batch(&batch).await.unwrap();

    let [compressed, plain] = &server.received()[..] else { panic!("two requests") };
    assert!(compressed.is_gzip() && !plain.is_gzip());
    assert_eq!(serde_json::from_str::<Value>(&compressed.text()).unwrap(), expected);
    assert_eq!(compressed.text(), plain.text());
    assert!(plain.body.len() > batch.encoded_len());
    assert!(compressed.body.len() < plain.body.len() / 2, "{}", compressed.body.len());
}

#[tokio::test]
async fn a_server_that_refuses_gzip_gets_batches_uncompressed() {
    let server = Server::start(|request| status(if request.is_gzip() { 415 } else { 200 })).await;
    let sink = sink(&server);
    sink.upsert_batch(&batch(10)).await.unwrap();
    sink.upsert_batch(&batch(10)).await.unwrap();
    let gzip: Vec<_> = server.received().iter().map(Received::is_gzip).collect();
    assert_eq!(gzip, [true, false, false]);
}

#[tokio::test]
async fn a_refusal_is_final_once_the_server_has_taken_gzip() {
    let server =
        Server::start(|request| status(if request.text().contains("bad") { 422 } else { 200 }))
            .await;
    let sink = sink(&server);
    let mut bad: Vec<_> = batch(10).spans().cloned().collect();
    bad[3].name = "bad".into();
    let bad = SpanBatch::from_iter(bad);

    // Not known yet: whether the spans are at fault or the compression shows without it.
    assert!(sink.upsert_batch(&bad).await.unwrap_err().is_rejection());
    sink.upsert_batch(&batch(10)).await.unwrap();
    assert!(sink.upsert_batch(&bad).await.unwrap_err().is_rejection());
    let gzip: Vec<_> = server.received().iter().map(Received::is_gzip).collect();
    assert_eq!(gzip, [true, false, true, true]);
}

#[tokio::test]
async fn an_empty_batch_sends_nothing() {
    let server = Server::start(ok).await;
    sink(&server).upsert_batch(&SpanBatch::default()).await.unwrap();
    assert!(server.received().is_empty());
}

#[tokio::test]
async fn users_may_add_headers_a_path_a_query_and_a_password() {
    let server = Server::start(ok).await;
    let base_url = server.base_url.replace("http://", "http://user:pass@") + "/gateway/?tenant=1";
    let options = SgpOptions::new(base_url)
        .header("x-team", "search")
        .header("user-agent", "mine")
        .header("content-type", "text/plain");
    SgpSink::new(options).unwrap().upsert_batch(&batch(1)).await.unwrap();

    let request = &server.received()[0];
    assert_eq!(request.target, "/gateway/v5/spans/batch?tenant=1");
    assert_eq!(request.header("authorization"), Some("Basic dXNlcjpwYXNz"));
    assert_eq!(request.header("x-team"), Some("search"));
    assert_eq!(request.header("user-agent"), Some("mine"));
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.header("x-api-key"), None);
}

#[tokio::test]
async fn each_status_says_what_becomes_of_the_spans() {
    let code = Arc::new(Mutex::new(200));
    let current = Arc::clone(&code);
    let server = Server::start(move |_| status(*current.lock().unwrap())).await;
    let sink: Arc<dyn SpanSink> = Arc::new(sink(&server));
    for (codes, class) in [
        (&[400, 409, 413, 418, 422][..], "rejection"),
        (&[401, 403], "credentials"),
        (&[404, 405, 408, 429, 500, 502, 503, 504], "retryable"),
    ] {
        for &status in codes {
            *code.lock().unwrap() = status;
            let error = sink.upsert_batch(&batch(1)).await.unwrap_err();
            assert_eq!(error.status(), Some(status));
            assert_eq!(error.is_retryable(), class == "retryable", "{status}");
            assert_eq!(error.is_rejection(), class == "rejection", "{status}");
            assert_eq!(error.is_credentials(), class == "credentials", "{status}");
            assert_eq!(error.is_too_large(), status == 413, "{status}");
            assert!(error.to_string().contains(&status.to_string()), "{error}");
        }
    }
    for status in [200, 201, 202, 204] {
        *code.lock().unwrap() = status;
        sink.upsert_batch(&batch(1)).await.unwrap();
    }
}

#[tokio::test]
async fn errors_say_which_setting_to_mend() {
    let unknown = error_of(|_| status(401)).await.to_string();
    assert_eq!(unknown, "SGP refused the API key (401): check SGP_API_KEY and SGP_ACCOUNT_ID");
    let forbidden = error_of(|_| status(403)).await.to_string();
    assert!(forbidden.contains("SGP_API_KEY") && forbidden.contains("SGP_ACCOUNT_ID"));
    let elsewhere = error_of(|_| status(404)).await.to_string();
    assert!(elsewhere.contains("/v5/spans/batch does not take spans (404)"), "{elsewhere}");
    assert!(elsewhere.ends_with("check SGP_CLIENT_BASE_URL"), "{elsewhere}");
}

#[tokio::test]
async fn the_server_says_when_to_come_back() {
    fn answer(name: &str, value: &str) -> Response<Body> {
        Response::builder().status(503).header(name, value).body(Body::empty()).unwrap()
    }
    let seconds = error_of(|_| answer("retry-after", "7")).await;
    assert_eq!(seconds.retry_after(), Some(Duration::from_secs(7)));
    let millis = error_of(|_| answer("retry-after-ms", "250")).await;
    assert_eq!(millis.retry_after(), Some(Duration::from_millis(250)));
    let date = error_of(|_| answer("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT")).await;
    assert_eq!(date.retry_after(), Some(Duration::from_secs(600)));
    let past = error_of(|_| answer("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")).await;
    assert_eq!(past.retry_after(), None);
    assert_eq!(error_of(|_| status(503)).await.retry_after(), None);
}

#[tokio::test]
async fn a_server_may_ask_for_a_retry_but_not_for_loss() {
    fn answer(code: u16, value: &str) -> Response<Body> {
        let answer = Response::builder().status(code).header("x-should-retry", value);
        answer.body(Body::empty()).unwrap()
    }
    assert!(error_of(|_| answer(409, "true")).await.is_retryable());
    assert!(error_of(|_| answer(409, "false")).await.is_rejection());
    assert!(error_of(|_| answer(500, "false")).await.is_retryable());
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let server = Server::start(|_| {
        let answer = Response::builder().status(307).header("location", "/elsewhere");
        answer.body(Body::empty()).unwrap()
    })
    .await;
    let error = sink(&server).upsert_batch(&batch(1)).await.unwrap_err();
    assert!(error.is_retryable());
    assert!(error.to_string().ends_with("(307): check SGP_CLIENT_BASE_URL"), "{error}");
    assert_eq!(server.received().len(), 1);
}

#[tokio::test]
async fn a_refusal_tells_the_servers_reason_without_what_was_sent() {
    let error = error_of(|_| {
        let answer = json!({"detail": [{
            "loc": ["body", "items", 0, "end_timestamp"],
            "msg": "must not be\nbefore start_timestamp",
            "input": {"prompt": "private"},
        }]});
        let response = Response::builder().status(422).header("content-type", "application/json");
        response.body(Body::from(answer.to_string())).unwrap()
    })
    .await;
    assert_eq!(
        error.to_string(),
        "SGP refused the batch (422): items.0.end_timestamp: must not be before start_timestamp"
    );
    assert!(!shown(&error).contains("private"));
}

#[tokio::test]
async fn a_long_reason_is_cut_and_a_huge_answer_is_not_kept() {
    let error = error_of(|_| {
        let response = Response::builder().status(400).header("content-type", "text/plain");
        response.body(Body::from("no ".repeat(5_000_000))).unwrap()
    })
    .await;
    let message = error.to_string();
    assert!(message.starts_with("SGP refused the batch (400): no no "), "{message}");
    assert!(message.chars().count() < 340, "{message}");
}

#[tokio::test]
async fn no_secret_is_ever_shown() {
    const SECRETS: [&str; 5] = ["sk-secret", "Bearer-secret", "user", "pass", "token=1"];
    let server = Server::start(|request| {
        // A server that repeats all that it got.
        let url = format!("http://user:pass@sgp{}", request.target);
        let text = format!("{url} {:?} token=1 pass {}", request.headers, request.target);
        let response = Response::builder().status(400).header("content-type", "text/plain");
        response.body(Body::from(text)).unwrap()
    })
    .await;
    let options = |base_url: &str| {
        SgpOptions::new(base_url.replace("://", "://user:pass@") + "?token=1")
            .api_key("sk-secret")
            .header("x-gateway", "Bearer-secret")
            .header("user-agent", "test")
    };
    let sink = SgpSink::new(options(&server.base_url)).unwrap();
    let refused = sink.upsert_batch(&batch(1)).await.unwrap_err();
    assert!(refused.to_string().contains("http://sgp/v5/spans/batch "), "{refused}");

    let nobody = options(&closed_port().await);
    let unreachable = SgpSink::new(nobody).unwrap().upsert_batch(&batch(1)).await.unwrap_err();
    let tls = options(&server.base_url.replace("http", "https"));
    let tls = SgpSink::new(tls).unwrap().upsert_batch(&batch(1)).await.unwrap_err();

    let everything = [
        format!("{:?} {sink:?}", options(&server.base_url)),
        shown(&refused),
        shown(&unreachable),
        shown(&tls),
    ];
    for text in everything {
        for secret in SECRETS {
            // The name of a header is none.
            let text = text.replace("user-agent", "");
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}

#[tokio::test]
async fn a_refused_connection_is_retryable() {
    let base_url = closed_port().await;
    let sink = SgpSink::new(SgpOptions::new(&base_url)).unwrap();
    let error = sink.upsert_batch(&batch(1)).await.unwrap_err();
    assert!(error.is_retryable());
    assert_eq!(error.status(), None);
    let begin = format!("could not reach {base_url}/v5/spans/batch: ");
    assert!(error.to_string().starts_with(&begin), "{error}");
    assert!(error.source().is_some());
}

#[tokio::test]
async fn a_server_that_hangs_up_is_retryable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let sink = SgpSink::new(SgpOptions::new(base_url)).unwrap();
    assert!(sink.upsert_batch(&batch(1)).await.unwrap_err().is_retryable());
}

#[tokio::test]
async fn a_server_that_does_not_answer_in_time_is_retryable() {
    let base_url = serve(Router::new().fallback(pending::<()>)).await;
    let options = SgpOptions::new(&base_url).timeout(Duration::from_millis(50));
    let error = SgpSink::new(options).unwrap().upsert_batch(&batch(1)).await.unwrap_err();
    assert!(error.is_retryable());
    assert_eq!(error.to_string(), format!("no answer from {base_url}/v5/spans/batch within 50ms"));
}

#[tokio::test]
async fn an_acknowledgement_counts_even_if_the_rest_of_the_answer_never_comes() {
    let server = Server::start(|_| {
        let never = futures::stream::pending::<Result<Vec<u8>, std::io::Error>>();
        Response::new(Body::from_stream(never))
    })
    .await;
    let options = SgpOptions::new(&server.base_url).timeout(Duration::from_millis(200));
    SgpSink::new(options).unwrap().upsert_batch(&batch(1)).await.unwrap();
}

#[tokio::test]
async fn one_connection_serves_many_batches_whatever_the_answers() {
    let server = Server::start(|request| {
        let code = if request.text().contains("bad") { 422 } else { 200 };
        let echo = Body::from("x".repeat(1_000_000));
        Response::builder().status(code).body(echo).unwrap()
    })
    .await;
    let sink = sink(&server);
    let mut bad = batch(1).spans().next().unwrap().clone();
    bad.name = "bad".into();
    for _ in 0..3 {
        sink.upsert_batch(&batch(50)).await.unwrap();
        let bad = SpanBatch::from_iter([bad.clone()]);
        assert!(sink.upsert_batch(&bad).await.unwrap_err().is_rejection());
    }
    let received = server.received();
    assert_eq!(received.len(), 6);
    assert!(received.iter().all(|request| request.peer == received[0].peer));
}

#[tokio::test]
async fn a_refusal_that_comes_before_the_body_was_read_is_seen() {
    let base_url = serve(Router::new().fallback(async || status(413))).await;
    let sink = SgpSink::new(SgpOptions::new(base_url).gzip(false)).unwrap();
    for _ in 0..20 {
        let error = sink.upsert_batch(&batch(5_000)).await.unwrap_err();
        assert!(error.is_too_large(), "{error}");
    }
}

#[tokio::test]
async fn tls_needs_nothing_that_the_process_has_installed() {
    let server = Server::start(ok).await;
    let https = server.base_url.replace("http://", "https://");
    let sink = SgpSink::new(SgpOptions::new(&https)).unwrap();
    // A plain server is no TLS server, and the client notices.
    let error = sink.upsert_batch(&batch(1)).await.unwrap_err();
    assert!(error.is_retryable());
    assert!(error.to_string().starts_with("could not reach https://127.0.0.1:"), "{error}");
    assert!(rustls::crypto::CryptoProvider::get_default().is_none());
}

/// Runs itself again in a process without certificate authorities.
#[tokio::test]
async fn only_https_needs_certificate_authorities() {
    const CHILD: &str = "DURABLE_SPANS_TEST_WITHOUT_CERTIFICATES";
    if std::env::var_os(CHILD).is_some() {
        let server = Server::start(ok).await;
        sink(&server).upsert_batch(&batch(1)).await.unwrap();
        let https = SgpSink::new(SgpOptions::new("https://sgp.example.com"));
        let error = https.unwrap_err();
        assert!(error.to_string().contains("SSL_CERT_FILE"), "{error}");
        assert!(error.source().is_some());
        return;
    }
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "only_https_needs_certificate_authorities"])
        .env(CHILD, "1")
        .env("SSL_CERT_FILE", "/dev/null")
        .env("SSL_CERT_DIR", "/dev/null")
        .status();
    assert!(status.unwrap().success());
}

#[test]
fn options_that_cannot_work_are_refused_at_once() {
    let refusal = |options: SgpOptions| SgpSink::new(options).unwrap_err().to_string();
    assert!(refusal(SgpOptions::new("sgp.example.com")).contains("SGP_CLIENT_BASE_URL"));
    assert!(refusal(SgpOptions::new("http://h").api_key("a\nb")).contains("SGP_API_KEY"));
    assert!(refusal(SgpOptions::new("http://h").timeout(Duration::ZERO)).contains("timeout"));
}
