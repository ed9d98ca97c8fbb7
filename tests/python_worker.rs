//! Workers in Python and in Rust in one trace: contexts are plain inputs, spans come from Scale's own
//! package there and from durable-spans here. Needs Python 3.10 or newer with pip, which fetches the
//! packages into cargo's target folder once.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![expect(dead_code, reason = "what only Python calls has constants for callers in Rust")]

#[path = "python/packages.rs"]
mod packages;

use std::{env, path::Path, pin::pin, process::Stdio, sync::Arc, time::Duration};

use durable_spans::{
    DurableSpans, SgpClient, SgpOptions, SgpSearch, SgpSink, Span, TraceContext, WorkflowSpans,
    current_span, span,
};
use durable_spans_collector::{Collector, RunningCollector};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use temporalio_client::{Client, ClientOptions, WorkflowGetResultOptions, WorkflowStartOptions};
use temporalio_macros::{activities, workflow, workflow_methods};
use temporalio_sdk::{
    ActivityOptions, Runtime, Worker, WorkerOptions, WorkflowContext, WorkflowResult,
    activities::{ActivityContext, ActivityError},
    runtime::RuntimeOptions,
};
use tokio::io::{AsyncBufReadExt, BufReader};

const REQUIREMENTS: &str = include_str!("python/requirements.txt");
const LIMIT: Duration = Duration::from_secs(60);

/// The activity of the worker in Python, as Rust knows it.
struct Python;

#[activities]
impl Python {
    #[activity(name = "py_answer")]
    async fn answer(_ctx: ActivityContext, _request: Request) -> Result<String, ActivityError> {
        unreachable!("only the worker in Python has it")
    }
}

#[derive(Serialize, Deserialize)]
struct Request {
    question: String,
    trace_context: Option<TraceContext>,
}

/// Calls Python.
#[workflow]
#[derive(Default)]
struct Asker;

#[workflow_methods]
impl Asker {
    #[run(name = "Asker")]
    async fn run(ctx: &mut WorkflowContext<Self>, python_queue: String) -> WorkflowResult<String> {
        let options = ActivityOptions::with_start_to_close_timeout(Duration::from_secs(20))
            .task_queue(python_queue)
            .build();
        let answer = ctx
            .span("ask")
            .try_scope(async {
                let trace_context = ctx.trace_context();
                let request = Request { question: "why".to_owned(), trace_context };
                ctx.execute_activity(Python::answer, request, options).await
            })
            .await?;
        Ok(answer)
    }
}

/// The workflow of the worker in Python, as Rust knows it.
#[workflow]
#[derive(Default)]
struct PyPipeline;

#[workflow_methods]
impl PyPipeline {
    #[run(name = "PyPipeline")]
    async fn run(_ctx: &mut WorkflowContext<Self>, _request: Value) -> WorkflowResult<String> {
        unreachable!("only the worker in Python has it")
    }
}

/// Is called by Python as a child.
#[workflow]
#[derive(Default)]
struct RustStep;

#[workflow_methods]
impl RustStep {
    #[run(name = "RustStep")]
    async fn run(ctx: &mut WorkflowContext<Self>, request: Value) -> WorkflowResult<String> {
        let question = request["question"].clone();
        ctx.span("think").input("question", question).start().end();
        Ok("because".to_owned())
    }
}

#[derive(Deserialize, Serialize)]
struct Measure {
    trace_context: TraceContext,
}

/// Is called by Python as an activity.
struct Rust {
    spans: DurableSpans,
}

#[activities]
impl Rust {
    #[activity(name = "rust_measure")]
    async fn measure(
        self: Arc<Self>,
        _ctx: ActivityContext,
        input: Measure,
    ) -> Result<String, ActivityError> {
        let measure = self.spans.trace_in(input.trace_context, "rust measures");
        let measured = measure.scope(async {
            span("read the scale").start().end();
            current_span().output("weight_g", 21);
            "21 g".to_owned()
        });
        Ok(measured.await)
    }
}

/// A collector, a traced worker in Rust and one in Python.
struct Fleet {
    collector: RunningCollector,
    spans: DurableSpans,
    client: Client,
    rust_queue: String,
    python_queue: String,
}

impl Fleet {
    /// Runs both workers until `scenario` has ended, and returns what it says and the spans of the
    /// trace, read through the API.
    async fn run<T>(
        name: &str,
        scenario: impl AsyncFnOnce(&Self) -> (T, String),
    ) -> (T, Vec<Span>) {
        let dir = tempfile::tempdir().unwrap();
        let collector = Collector::open(dir.path().join("spans.sqlite")).unwrap();
        let collector = collector.api_key("key-1").serve(([127, 0, 0, 1], 0)).await.unwrap();
        let options = SgpOptions::new(collector.url()).api_key("key-1").account_id("account-1");
        let spans = DurableSpans::new(SgpSink::new(options.clone()).unwrap());
        let server = durable_spans_test_server::shared().await;
        let mut client_options = ClientOptions::new("default").build();
        spans.install_client(&mut client_options);
        let client = Client::new(server.connection().await.unwrap(), client_options).unwrap();
        let rust_queue = format!("python-worker-{name}-{}", std::process::id());
        let python_queue = format!("{rust_queue}-python");
        let fleet = Self { collector, spans, client, rust_queue, python_queue };

        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/worker.py");
        let packages =
            tokio::task::spawn_blocking(|| packages::packages(REQUIREMENTS)).await.unwrap();
        let mut python = tokio::process::Command::new("python3")
            // -s: nothing that the user has installed.
            .args(["-s".as_ref(), script.as_os_str()])
            .env("PYTHONPATH", packages)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("NO_PROXY", "127.0.0.1")
            .env("TEMPORAL_ADDRESS", server.address())
            .env("TASK_QUEUE", &fleet.python_queue)
            .env("SGP_CLIENT_BASE_URL", fleet.collector.url())
            .env("SGP_API_KEY", "key-1")
            .env("SGP_ACCOUNT_ID", "account-1")
            .env_remove("DISABLE_SCALE_TRACING")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(python.stdout.take().unwrap()).lines();
        let ready = tokio::time::timeout(LIMIT, lines.next_line()).await.unwrap().unwrap();
        assert_eq!(ready.as_deref(), Some("ready"), "the worker in Python did not start");

        let (said, trace_id) = fleet.while_working(scenario(&fleet)).await;
        drop(python.stdin.take());
        let ended = tokio::time::timeout(LIMIT, python.wait()).await.unwrap().unwrap();
        assert!(ended.success(), "{ended}");
        fleet.spans.flush(Duration::from_secs(5)).await;
        let search = SgpSearch::traces([trace_id.parse().unwrap()]);
        let found = SgpClient::new(options).unwrap().search_all(search).await.unwrap();
        (said, found)
    }

    async fn while_working<T>(&self, scenario: impl Future<Output = T>) -> T {
        let mut options = WorkerOptions::new(self.rust_queue.clone()).build();
        options.register_activities(Rust { spans: self.spans.clone() });
        options.register_workflow::<Asker>().unwrap().register_workflow::<RustStep>().unwrap();
        self.spans.install(&mut options).unwrap();
        let runtime = Runtime::from_current_tokio(RuntimeOptions::builder().build().unwrap());
        let mut worker = Worker::new(&runtime.unwrap(), self.client.clone(), options).unwrap();
        let stop = worker.shutdown_handle();
        let mut run = pin!(worker.run());
        let result = tokio::select! {
            result = tokio::time::timeout(LIMIT, scenario) => result.unwrap(),
            ended = &mut run => panic!("the worker ended early: {ended:?}"),
        };
        stop();
        run.await.unwrap();
        result
    }
}

/// Each span as "name < name of the one above".
fn edges(spans: &[Span]) -> Vec<String> {
    let name = |id| spans.iter().find(|span| span.id == id).map_or("missing", |span| &span.name);
    let above = |span: &Span| span.parent_id.clone().map_or("nothing", name).to_owned();
    let mut edges: Vec<_> =
        spans.iter().map(|span| format!("{} < {}", span.name, above(span))).collect();
    edges.sort();
    edges
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_of_a_python_activity_hang_under_the_rust_workflow_that_called_it() {
    let (answer, spans) = Fleet::run("down", async |fleet: &Fleet| {
        let trace = durable_spans::new_trace();
        let trace_id = trace.trace_id.to_string();
        let answer = durable_spans::in_trace(trace, async {
            let id = fleet.rust_queue.clone();
            let start = WorkflowStartOptions::new(id.clone(), id).build();
            let queue = fleet.python_queue.clone();
            let handle = fleet.client.start_workflow(Asker::run, queue, start).await.unwrap();
            handle.get_result(WorkflowGetResultOptions::default()).await.unwrap()
        })
        .await;
        (answer, trace_id)
    })
    .await;
    assert_eq!(answer, "42");
    assert_eq!(
        edges(&spans),
        [
            "Asker < nothing",
            "ask < Asker",
            "py_answer < ask",
            "python answers < ask",
            "python looks up < python answers",
        ]
    );
    assert!(spans.iter().all(|span| span.end_timestamp.is_some()));
}

#[tokio::test(flavor = "multi_thread")]
async fn rust_workflows_and_activities_hang_under_the_python_workflow_that_called_them() {
    let (said, spans) = Fleet::run("up", async |fleet: &Fleet| {
        let trace_id = durable_spans::new_trace().trace_id.to_string();
        let id = format!("{}-workflow", fleet.python_queue);
        let start = WorkflowStartOptions::new(fleet.python_queue.clone(), id).build();
        let request = json!({"trace_id": trace_id, "rust_queue": fleet.rust_queue});
        let handle = fleet.client.start_workflow(PyPipeline::run, request, start).await.unwrap();
        let said = handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        (said, trace_id)
    })
    .await;
    assert_eq!(said, "because 21 g");
    assert_eq!(
        edges(&spans),
        [
            "RustStep < python pipeline",
            "python pipeline < nothing",
            "python step < python pipeline",
            "read the scale < rust measures",
            "rust measures < python pipeline",
            "think < RustStep",
        ]
    );
    assert!(spans.iter().all(|span| span.end_timestamp.is_some()));
}
