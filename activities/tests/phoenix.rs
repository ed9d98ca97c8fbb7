//! A trace in a real OpenTelemetry backend, Arize Phoenix, read back through its API.
//!
//! Not part of `cargo test`, since the first run installs 850 MB from PyPI (about a minute, into a
//! virtual environment under cargo's target folder). Needs Python 3 with pip:
//!
//! ```sh
//! cargo test -p durable-spans-activity --test phoenix
//! ```

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use durable_spans_activity::{Deliverer, OtlpOptions, OtlpSink};
use durable_spans_model::{Span, SpanError, SpanId, SpanType, Timestamp, TraceId};
use durable_spans_workflow::{FlushGroup, digest};
use serde_json::{Value, json};

const VERSION: &str = "20.26.1";

/// A Phoenix of its own, on loopback and with a folder of its own. Ends with the test.
struct Phoenix {
    process: Child,
    url: String,
    _dir: tempfile::TempDir,
}

impl Phoenix {
    async fn start() -> Self {
        let program = installed();
        let dir = tempfile::tempdir().unwrap();
        let [port, grpc_port] = [free_port(), free_port()];
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let mut process = Command::new(program)
            .arg("serve")
            .env("PHOENIX_HOST", "127.0.0.1")
            .env("PHOENIX_PORT", port.to_string())
            .env("PHOENIX_GRPC_PORT", grpc_port.to_string())
            .env("PHOENIX_WORKING_DIR", dir.path())
            .env("PHOENIX_TELEMETRY_ENABLED", "false")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let url = format!("http://127.0.0.1:{port}");
        let health = format!("{url}/healthz");
        let ready = async {
            while !reqwest::get(&health).await.is_ok_and(|answer| answer.status().is_success()) {
                let ended = process.try_wait().unwrap();
                assert!(ended.is_none(), "phoenix ended: {}", log_of(dir.path()));
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(120), ready).await;
        assert!(in_time.is_ok(), "phoenix is not ready: {}", log_of(dir.path()));
        Self { process, url, _dir: dir }
    }

    /// All spans of a trace once there are `expected` or more of them: Phoenix stores them some time
    /// after it has taken them.
    async fn spans(&self, trace_id: &str, expected: usize) -> Vec<Value> {
        let url = format!("{}/v1/projects/default/spans?limit=1000&trace_id={trace_id}", self.url);
        let stored = async {
            loop {
                let answer = reqwest::get(&url).await.unwrap();
                if answer.status().is_success() {
                    let mut answer: Value =
                        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
                    let spans = answer["data"].as_array_mut().unwrap();
                    spans.retain(|span| span["context"]["trace_id"] == trace_id);
                    if spans.len() >= expected {
                        return std::mem::take(spans);
                    }
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), stored).await.expect("spans are stored")
    }
}

impl Drop for Phoenix {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn log_of(dir: &Path) -> String {
    fs::read_to_string(dir.join("log")).unwrap_or_default()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The program, installed if it is not there.
fn installed() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("arize-phoenix-{VERSION}"));
    let program = dir.join("bin/phoenix");
    if !dir.join("complete").exists() {
        let run = |command: &mut Command| {
            let status = command.stdin(Stdio::null()).status().expect("Python 3 is installed");
            assert!(status.success(), "{command:?} failed");
        };
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&dir));
        run(Command::new(dir.join("bin/pip"))
            .args(["install", "--quiet", "--disable-pip-version-check"])
            .arg(format!("arize-phoenix=={VERSION}")));
        fs::write(dir.join("complete"), "").unwrap();
    }
    program
}

/// A run with 20 steps, each with a call of a model; one of them failed.
fn trace(trace_id: TraceId) -> Vec<Span> {
    let start_ns = 1_795_248_000_000_000_000;
    let span = |id: u128, parent: Option<u128>, name: String, start_us: i64, us: i64| {
        let start = Timestamp::from_unix_ns(start_ns + start_us * 1_000);
        // Ids of which the upper half alone says nothing.
        let id_of = |id: u128| SpanId::from_bits((7 << 64) + id);
        let mut span = Span::new(trace_id.clone(), id_of(id), name, start);
        span.parent_id = parent.map(id_of);
        span.end_timestamp = Some(Timestamp::from_unix_ns(start.unix_ns() + us * 1_000));
        span
    };
    let mut spans = vec![span(1, None, "run".into(), 0, 900_001)];
    spans[0].span_type = SpanType::AgentWorkflow;
    for step in 0..20 {
        let (id, start) = (100 + step, i64::try_from(step).unwrap() * 40_000);
        spans.push(span(id, Some(1), format!("step {step}"), start, 39_999));
        let mut call = span(id + 100, Some(id), "call".into(), start + 5, 1_234 + start);
        call.span_type = SpanType::Completion;
        call.input.insert("input".into(), json!([{"role": "user", "content": "hi"}]));
        call.output.insert("output".into(), json!([{"role": "assistant", "content": "yo"}]));
        call.metadata.insert("model".into(), "gpt-x".into());
        call.metadata.insert("usage".into(), json!({"input_tokens": 3, "output_tokens": 4}));
        if step == 7 {
            call.set_error(SpanError::new("Timeout", "no answer"));
        }
        spans.push(call);
    }
    spans
}

/// Name, microseconds and status of each span, by its path of ids from the root.
type Rows = BTreeMap<Vec<String>, (String, i64, bool)>;

fn rows<'a>(spans: impl Iterator<Item = (String, Option<String>, String, i64, bool)> + 'a) -> Rows {
    let spans: Vec<_> = spans.collect();
    let parents: BTreeMap<_, _> =
        spans.iter().map(|(id, parent, ..)| (id.clone(), parent.clone())).collect();
    assert_eq!(parents.len(), spans.len(), "no span twice");
    let path = |id: &String| {
        let up = |id: &String| parents[id].clone();
        let mut path: Vec<_> = std::iter::successors(Some(id.clone()), up).collect();
        path.reverse();
        path
    };
    spans.iter().map(|(id, _, name, us, error)| (path(id), (name.clone(), *us, *error))).collect()
}

fn sent_rows(spans: &[Span]) -> Rows {
    let id = |id: &SpanId| format!("{:016x}", id.bits().unwrap() as u64);
    rows(spans.iter().map(|span| {
        let duration = span.end_timestamp.unwrap().since(span.start_timestamp);
        let us = i64::try_from(duration.as_micros()).unwrap();
        let error = span.metadata.contains_key("error");
        (id(&span.id), span.parent_id.as_ref().map(id), span.name.clone(), us, error)
    }))
}

fn stored_rows(spans: &[Value]) -> Rows {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let time = |value: &Value| value.as_str().unwrap().parse::<Timestamp>().unwrap();
    rows(spans.iter().map(|span| {
        let duration = time(&span["end_time"]).since(time(&span["start_time"]));
        let us = i64::try_from(duration.as_micros()).unwrap();
        let id = text(&span["context"]["span_id"]).unwrap();
        let error = span["status_code"] == "ERROR";
        (id, text(&span["parent_id"]), text(&span["name"]).unwrap(), us, error)
    }))
}

#[tokio::test]
async fn a_trace_arrives_as_it_was_recorded_and_nothing_is_there_twice() {
    // For the reading half of the test: the sink brings its own.
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let phoenix = Phoenix::start().await;
    let trace_id = TraceId::from_bits(0x1234_5678);
    let spans = trace(trace_id.clone());
    let group =
        FlushGroup { flush: 1, digest: digest(&spans), part_of: None, spans: spans.clone().into() };
    // A span of a trace of its own: once it is stored, so is what was sent before it. With an id of
    // its own, too, since Phoenix tells spans apart by their id alone, whatever the trace.
    let (trace, id) = (TraceId::from_bits(9), SpanId::from_bits(9));
    let marker = vec![Span { parent_id: None, trace_id: trace, id, ..spans[1].clone() }];
    let marker =
        FlushGroup { flush: 1, digest: digest(&marker), part_of: None, spans: marker.into() };
    // Another worker sends all of it again, as one does that takes over from one that was killed.
    for worker in 0..2 {
        let sink = OtlpSink::new(OtlpOptions::new(&phoenix.url).service_name("test")).unwrap();
        let deliverer = Deliverer::new(sink);
        deliverer.take_last("run", &group);
        let statistics = deliverer.flush(Duration::from_secs(30)).await;
        assert_eq!((statistics.delivered, statistics.deferred), (41, 0));
        if worker == 1 {
            deliverer.take_last("marker", &marker);
            deliverer.flush(Duration::from_secs(30)).await;
        }
    }
    phoenix.spans(&format!("{:032x}", 9), 1).await;
    let trace_id = format!("{:032x}", trace_id.bits().unwrap());
    let stored = phoenix.spans(&trace_id, 41).await;
    assert_eq!(stored_rows(&stored), sent_rows(&spans));

    let call = stored.iter().find(|span| span["span_kind"] == "LLM").unwrap();
    assert_eq!(call["attributes"]["session.id"], Value::Null);
    assert_eq!(call["attributes"]["gen_ai.request.model"], "gpt-x", "{call:#}");
    assert_eq!(call["attributes"]["gen_ai.usage.input_tokens"], 3, "{call:#}");
    assert_eq!(call["attributes"]["input.mime_type"], "application/json", "{call:#}");
    let failed = stored.iter().find(|span| span["status_code"] == "ERROR").unwrap();
    assert_eq!(failed["status_message"], "no answer");
}
