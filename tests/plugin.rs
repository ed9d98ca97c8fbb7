//! One line on the client traces the client and every worker made from it.

#![cfg(feature = "plugin")]

use durable_spans::{DurableSpans, MemorySink, SinkError, WorkflowSpans};
use temporalio_client::{Client, ClientOptions, WorkflowGetResultOptions, WorkflowStartOptions};
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{
    Runtime, Worker, WorkerOptions, WorkflowContext, WorkflowResult, runtime::RuntimeOptions,
};

#[workflow]
#[derive(Default)]
struct Hello;

#[workflow_methods]
impl Hello {
    #[run(name = "Hello")]
    async fn run(ctx: &mut WorkflowContext<Self>, _: ()) -> WorkflowResult<()> {
        ctx.span("hello").start().end();
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_made_from_a_client_with_the_plugin_is_traced_and_flushes_at_its_end() {
    let sink = MemorySink::new();
    let spans = DurableSpans::new(sink.clone());
    let server = durable_spans_test_server::shared().await;
    let connection = server.connection().await.unwrap();
    let options = ClientOptions::new("default").plugin(spans.plugin()).build();
    let client = Client::new(connection, options).unwrap();

    let queue = format!("plugin-{}", std::process::id());
    let options = WorkerOptions::new(queue.clone()).register_workflow::<Hello>().unwrap().build();
    let runtime = Runtime::from_current_tokio(RuntimeOptions::builder().build().unwrap()).unwrap();
    let mut failures = 4;
    sink.fail_with(move |_| {
        failures -= 1;
        (failures >= 0).then(|| SinkError::retryable("down"))
    });
    let mut worker = Worker::new(&runtime, client.clone(), options).unwrap();
    let stop = worker.shutdown_handle();
    let scenario = async {
        let start = WorkflowStartOptions::new(queue.clone(), queue.clone()).build();
        let handle = client.start_workflow(Hello::run, (), start).await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        stop();
    };
    let (ended, ()) = tokio::join!(worker.run(), scenario);
    ended.unwrap();
    let names: Vec<String> = sink.spans().into_iter().map(|span| span.name.into_owned()).collect();
    assert_eq!(names, ["Hello", "hello"]);
}
