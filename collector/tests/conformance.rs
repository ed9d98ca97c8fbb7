//! The real clients from PyPI against the collector: whatever their own types and documentation say
//! of the API must hold. The scripts stand in `conformance/`, with the versions that they are run
//! with. Needs Python 3.10 or newer with pip, which fetches the clients into cargo's target folder
//! once.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../tests/python/packages.rs"]
mod packages;

use std::{path::Path, process::Command};

use durable_spans_collector::{Collector, RunningCollector, tree};
use durable_spans_model::Span;
use packages::{packages, run};

const REQUIREMENTS: &str = include_str!("conformance/requirements.txt");

/// A collector, and what a script has sent to it.
struct Sent {
    _dir: tempfile::TempDir,
    running: RunningCollector,
}

impl Sent {
    /// Runs a script against a collector of its own, and fails if the script does.
    async fn by(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let collector = Collector::open(dir.path().join("spans.sqlite")).unwrap();
        let running = collector.api_key("key-1").serve(([127, 0, 0, 1], 0)).await.unwrap();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance").join(script);
        let url = running.url();
        let script = move || {
            let mut command = Command::new("python3");
            // -s: nothing that the user has installed.
            command
                .args(["-s", "-W", "ignore::DeprecationWarning"])
                .arg(path)
                .env("PYTHONPATH", packages(REQUIREMENTS))
                .env("PYTHONDONTWRITEBYTECODE", "1")
                .env("NO_PROXY", "127.0.0.1")
                .env("SGP_CLIENT_BASE_URL", &url)
                .env("SGP_API_KEY", "key-1")
                .env("SGP_ACCOUNT_ID", "account-1")
                .env("COLLECTOR_URL", &url);
            for name in ["DISABLE_SCALE_TRACING", "OPENAI_API_KEY", "OTEL_SDK_DISABLED"] {
                command.env_remove(name);
            }
            run(&mut command)
        };
        let output = tokio::task::spawn_blocking(script).await.unwrap();
        eprintln!("{}", String::from_utf8_lossy(&output.stderr));
        Self { _dir: dir, running }
    }

    fn spans(&self, trace_id: &str) -> Vec<Span> {
        self.running.store().spans(&trace_id.parse().unwrap()).unwrap()
    }

    /// The trace as a tree, without the durations.
    fn tree(&self, trace_id: &str) -> String {
        let is_duration = |word: &str| word.starts_with(|c: char| c.is_ascii_digit());
        let line = |row: tree::Row<'_>| {
            let line = row.to_string();
            let indent = line.len() - line.trim_start().len();
            let words: Vec<_> = line.split(' ').filter(|word| !is_duration(word)).collect();
            format!("{}{}\n", " ".repeat(indent), words.join(" ").trim())
        };
        tree::rows(&self.spans(trace_id)).into_iter().map(line).collect()
    }

    fn find(&self, trace_id: &str, name: &str) -> Span {
        self.spans(trace_id).into_iter().find(|span| span.name == name).unwrap()
    }
}

#[tokio::test]
async fn the_official_client_finds_every_method_and_rule() {
    let sent = Sent::by("sgp_client.py").await;
    assert_eq!(
        sent.tree("t"),
        "Rank-Documents [AGENT_WORKFLOW] SUCCESS\n  step [STANDALONE] ERROR\n  step [COMPLETION] CANCELED\n"
    );
}

#[tokio::test]
async fn the_tracing_library_of_the_official_client_arrives_whole() {
    let sent = Sent::by("sgp_tracing.py").await;
    assert_eq!(
        sent.tree("traced"),
        "agent [TRACER] SUCCESS\n  think [COMPLETION] SUCCESS\n  act [CODE_EXECUTION] ERROR: the tool is broken\n"
    );
    assert_eq!(sent.find("traced", "think").output["answer"], 42);
    assert_eq!(sent.find("traced", "act").metadata["error_type"], "ValueError");
    assert!(sent.spans("traced").iter().all(|span| span.group_id.as_deref() == Some("session")));
    let many = sent.spans("many");
    assert_eq!(many.len(), 1001);
    assert!(many.iter().all(|span| span.end_timestamp.is_some()));
}

/// The trace of `scripted_agent.py`.
const FORECAST: &str = "\
forecast [AGENT_WORKFLOW] SUCCESS
  task [CUSTOM] SUCCESS
    Forecaster [AGENT_WORKFLOW] SUCCESS
      turn [CUSTOM] SUCCESS
        Generation [COMPLETION] SUCCESS
        weather [CODE_EXECUTION] SUCCESS
      turn [CUSTOM] SUCCESS
        Generation [COMPLETION] SUCCESS
";

#[tokio::test]
async fn an_agent_of_openai_is_traced_through_sgps_processor() {
    let sent = Sent::by("agents_processor.py").await;
    let trace_id = format!("trace_{:032x}", 1);
    assert_eq!(sent.tree(&trace_id), FORECAST);
    assert!(sent.spans(&trace_id).iter().all(|span| span.end_timestamp.is_some()));
    let first = sent.find(&trace_id, "Generation");
    let items = sent.running.store().items(&trace_id.parse().unwrap()).unwrap();
    let item = items.iter().find(|item| item["id"] == first.id.to_string()).unwrap();
    assert_eq!((&item["input_tokens"], &item["output_tokens"]), (&10.into(), &1.into()));
    let tool = sent.find(&trace_id, "weather");
    assert_eq!(
        (&tool.input["city"], &tool.output["output"]),
        (&"Bern".into(), &"rain in Bern".into())
    );
}

#[tokio::test]
async fn the_exporter_of_opentelemetry_arrives_with_its_conventions() {
    let sent = Sent::by("otlp_exporter.py").await;
    let trace_id = format!("{:032x}", 1);
    assert_eq!(
        sent.tree(&trace_id),
        "\
order [STANDALONE] SUCCESS
  chat gpt [COMPLETION] SUCCESS
  charge [STANDALONE] ERROR: ValueError: card declined
  ship [STANDALONE] SUCCESS
"
    );
    let order = sent.find(&trace_id, "order");
    assert_eq!(order.group_id.as_deref(), Some("chat-1"));
    assert_eq!(order.metadata["items"], serde_json::json!([1, 2]));
    assert_eq!(order.metadata["otel"]["resource"]["service.name"], "shop");
    assert_eq!(order.metadata["otel"]["scope"], "shop.orders");

    let chat = sent.find(&trace_id, "chat gpt");
    assert_eq!(chat.input["messages"][0]["content"], "hi");
    assert_eq!(chat.output["messages"][0]["content"], "yo");
    assert_eq!(chat.metadata["api_key"], "[REDACTED:credential]");
    assert_eq!(chat.metadata["otel"]["events"][0]["attributes"]["after_ms"], 12.5);
    let items = sent.running.store().items(&trace_id.parse().unwrap()).unwrap();
    let item = items.iter().find(|item| item["id"] == chat.id.to_string()).unwrap();
    assert_eq!((&item["input_tokens"], &item["output_tokens"]), (&7.into(), &3.into()));

    assert_eq!(sent.find(&trace_id, "charge").metadata["error_type"], "ValueError");
    let ship = sent.find(&trace_id, "ship");
    assert_eq!(ship.metadata["otel"]["links"][0]["span_id"], chat.id.to_string());
    assert_eq!(sent.running.store().traces(10).unwrap().len(), 2);
}

#[tokio::test]
async fn the_client_of_opper_finds_its_spans_and_traces() {
    let sent = Sent::by("opper_client.py").await;
    let traces = sent.running.store().traces(10).unwrap();
    assert_eq!(traces.len(), 1);
    let tree = sent.tree(&traces[0].trace_id.to_string());
    assert_eq!(tree, "direct [COMPLETION] SUCCESS\n");
}

#[tokio::test]
async fn an_agent_of_openai_is_traced_by_its_own_exporter() {
    let sent = Sent::by("agents_exporter.py").await;
    let trace_id = format!("trace_{:032x}", 1);
    assert_eq!(sent.tree(&trace_id), FORECAST);
    let tool = sent.find(&trace_id, "weather");
    assert_eq!(
        (&tool.input["city"], &tool.output["output"]),
        (&"Bern".into(), &"rain in Bern".into())
    );

    let trace_id = format!("trace_{:032x}", 2);
    assert_eq!(
        sent.tree(&trace_id),
        "\
manual [AGENT_WORKFLOW] SUCCESS
  first [CODE_EXECUTION] SUCCESS
  second [CODE_EXECUTION] ERROR: tool failed
"
    );
    let root = sent.find(&trace_id, "manual");
    assert_eq!(root.metadata["openai_metadata"]["k"], "v");
    assert_eq!(root.group_id.as_deref(), Some("g"));
    let (first, second) = (sent.find(&trace_id, "first"), sent.find(&trace_id, "second"));
    assert_eq!(
        (root.start_timestamp, root.end_timestamp),
        (first.start_timestamp, second.end_timestamp)
    );
    assert_eq!((&first.input["input"], &first.output["b"]), (&"plain".into(), &2.into()));
}
