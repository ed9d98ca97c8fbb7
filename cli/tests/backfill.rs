//! The built command against a real collector, and against a real Temporal server.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use axum::{Json, Router, http::HeaderMap, routing::post};
use serde_json::{Value, json};
use temporalio_client::{
    Client, ClientOptions, UntypedSignal, WorkflowHandle, WorkflowSignalOptions,
    WorkflowStartOptions, WorkflowTerminateOptions,
};
use temporalio_common::{UntypedWorkflow, data_converters::RawValue};

fn durable_spans() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_durable-spans"));
    for (name, _) in std::env::vars() {
        if name.starts_with("TEMPORAL_") || name.starts_with("SGP_") {
            command.env_remove(name);
        }
    }
    command.env("TEMPORAL_CONFIG_FILE", "/dev/null").env_remove("DURABLE_SPANS_API_KEY");
    command
}

/// A collector in a process of its own, killed when dropped.
struct Serving {
    process: Child,
    url: String,
}

impl Serving {
    fn start(folder: &Path) -> Self {
        let mut command = durable_spans();
        command.args(["serve", "--port", "0", "--db"]).arg(folder.join("spans.sqlite"));
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let url = lines
            .map(Result::unwrap)
            .find_map(|line| Some(line.split_once("SGP_CLIENT_BASE_URL=")?.1.to_owned()));
        Self { process, url: url.unwrap() }
    }

    fn run(&self, args: &[&str]) -> Output {
        durable_spans().args(args).env("SGP_CLIENT_BASE_URL", &self.url).output().unwrap()
    }

    fn print(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn report(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.print(args)).unwrap()
    }

    /// The one trace that is there, as a tree.
    fn trace(&self) -> String {
        let list = self.print(&["traces", "list"]);
        let trace = list.split_whitespace().nth(1).unwrap();
        self.print(&["traces", "show", trace])
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Exported by `temporal workflow show --output json` of Temporal's CLI 1.9.1.
const ORDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/histories/order.json");

#[test]
fn a_history_of_temporals_cli_becomes_a_skeleton_and_adds_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let serving = Serving::start(folder.path());
    let report = serving.report(&["backfill", "--file", ORDER, "--json"]);
    assert_eq!(
        (&report["runs"], &report["sent"], &report["known"]),
        (&1.into(), &14.into(), &0.into())
    );
    let tree = serving.trace();
    let names: Vec<&str> = tree.lines().map(|line| line.split(" [").next().unwrap()).collect();
    assert_eq!(
        names,
        // The tree folds a call with its only attempt.
        [
            "Order",
            "  price",
            "  price",
            "  price",
            "  charge",
            "    charge",
            "    charge",
            "  price",
            "  timer",
            "  Delivery (call)",
        ],
        "{tree}"
    );
    assert!(tree.contains("attempt 1: the card reader is busy"), "{tree}");
    // The ids are those in the headers of the activities.
    let list = serving.print(&["traces", "list", "--json"]);
    let roots: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(roots[0]["metadata"]["temporal.backfilled"], true);
    assert_eq!(roots[0]["metadata"]["temporal.workflow_id"], "order-17");

    let report = serving.report(&["backfill", "--file", ORDER, "--json"]);
    assert_eq!((&report["sent"], &report["known"]), (&0.into(), &14.into()));
}

/// The history with its trace headers hidden, and what is behind each.
fn hidden(history: &str) -> (String, Vec<Value>) {
    fn hide(value: &mut Value, behind: &mut Vec<Value>) {
        match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    if name == "_spans" {
                        let data = format!("{:04}", behind.len());
                        let hidden = json!({"metadata": {"encoding": "aGlkZGVu"}, "data": data});
                        behind.push(std::mem::replace(field, hidden));
                    } else {
                        hide(field, behind);
                    }
                }
            }
            Value::Array(values) => values.iter_mut().for_each(|value| hide(value, behind)),
            _ => {}
        }
    }
    let mut history: Value = serde_json::from_str(history).unwrap();
    let mut behind = Vec::new();
    hide(&mut history, &mut behind);
    (history.to_string(), behind)
}

/// A codec server that knows what it has hidden, and asks for authorization.
async fn codec_server(behind: Vec<Value>) -> String {
    let decode = async move |headers: HeaderMap, Json(asked): Json<Value>| {
        assert_eq!(headers["authorization"], "Bearer codec");
        assert_eq!(headers["x-namespace"], "default");
        let payloads = asked["payloads"].as_array().unwrap().iter();
        let decoded = payloads.map(|payload| match payload["data"].as_str().unwrap().parse() {
            Ok(index) => {
                let index: usize = index;
                behind[index].clone()
            }
            Err(_) => payload.clone(),
        });
        Json(json!({ "payloads": decoded.collect::<Vec<_>>() }))
    };
    let router = Router::new().route("/codec/decode", post(decode));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/codec", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_codec_hides_the_trace_the_codec_server_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let serving = Serving::start(folder.path());
    let (history, behind) = hidden(&std::fs::read_to_string(ORDER).unwrap());
    assert!(behind.len() > 5);
    let file = folder.path().join("hidden.json");
    std::fs::write(&file, history).unwrap();
    let file = file.to_str().unwrap();
    let refused = serving.run(&["backfill", "--file", file]);
    let errors = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(errors.contains("--codec-endpoint"), "{errors}");

    let url = codec_server(behind).await;
    let codec = ["--codec-endpoint", &url, "--codec-auth", "Bearer codec"];
    let report = serving.report(&[&["backfill", "--file", file, "--json"], &codec[..]].concat());
    assert_eq!((&report["sent"], &report["known"]), (&14.into(), &0.into()), "{report}");
    // The same rows as from the history in clear.
    let report = serving.report(&["backfill", "--file", ORDER, "--json"]);
    assert_eq!((&report["sent"], &report["known"]), (&0.into(), &14.into()), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_found_by_its_id_and_by_a_query() {
    let server = durable_spans_test_server::shared().await;
    let client =
        Client::new(server.connection().await.unwrap(), ClientOptions::new("default").build());
    let client = client.unwrap();
    let id = format!("cli-backfill-{}", std::process::id());
    // No worker serves it: the history has its start, a signal and the termination.
    let options = WorkflowStartOptions::new(format!("{id}-queue"), id.clone()).build();
    let workflow = UntypedWorkflow::new("Order");
    let start = client.start_workflow(workflow, RawValue::empty(), options).await;
    let handle: WorkflowHandle<_, _> = start.unwrap();
    let signal = UntypedSignal::new("hurry");
    handle.signal(signal, RawValue::empty(), WorkflowSignalOptions::default()).await.unwrap();
    let reason = "nobody cooks";
    let options = WorkflowTerminateOptions::builder().reason(reason).build();
    handle.terminate(options).await.unwrap();

    let folder = tempfile::tempdir().unwrap();
    let serving = Serving::start(folder.path());
    let address = server.address().to_owned();
    let run = |args: &[&str]| {
        let temporal = ["backfill", "--json", "--temporal-address", &address];
        serving.report(&[&temporal, args].concat())
    };
    let report = run(&["--workflow-id", &id]);
    assert_eq!((&report["runs"], &report["sent"]), (&1.into(), &2.into()), "{report}");
    let tree = serving.trace();
    assert!(tree.starts_with("Order [AGENT_WORKFLOW]"), "{tree}");
    assert!(tree.contains("ERROR: nobody cooks") && tree.contains("  hurry ["), "{tree}");

    let query = format!("WorkflowId = '{id}'");
    let journal = folder.path().join("journal");
    let journal = journal.to_str().unwrap();
    // Visibility lags behind.
    let report = loop {
        let report = run(&["--query", &query, "--journal", journal]);
        if report["runs"] == 1 {
            break report;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    assert_eq!((&report["sent"], &report["known"]), (&0.into(), &2.into()), "{report}");
    let report = run(&["--query", &query, "--journal", journal]);
    assert_eq!((&report["runs"], &report["skipped"]), (&0.into(), &1.into()), "{report}");

    let unknown =
        serving.run(&["backfill", "--temporal-address", &address, "--workflow-id", "none"]);
    assert_eq!(unknown.status.code(), Some(1));
    let errors = String::from_utf8(unknown.stderr).unwrap();
    assert!(errors.contains("could not be fetched: Workflow not found"), "{errors}");
}

#[test]
fn a_wrong_call_says_what_to_do() {
    let failed = |args: &[&str], status: i32, expected: &str| {
        let output = durable_spans().arg("backfill").args(args).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{errors}");
        assert!(errors.contains(expected), "{errors}");
    };
    failed(&[], 2, "--query");
    failed(&["--workflow-id", "w", "--query", "q"], 2, "cannot be used with");
    failed(&["--workflow-id", "w", "--temporal-address", "a b"], 2, "HOST:PORT");
    failed(&["--file", env!("CARGO_MANIFEST_PATH")], 1, "temporal workflow show");
    failed(&["--workflow-id", "w", "--temporal-address", "127.0.0.1:1"], 1, "--temporal-address");
}
