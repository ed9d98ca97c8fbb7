//! What a recorded span costs in memory, counted in workflow code on a worker.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use allocation_counter::AllocationInfo;
use durable_spans::{DurableSpans, MemorySink, SpanType, WorkflowSpans};
use temporalio_client::{Client, ClientOptions, WorkflowGetResultOptions, WorkflowStartOptions};
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{
    Runtime, Worker, WorkerOptions, WorkflowContext, WorkflowResult, runtime::RuntimeOptions,
};

/// How often the memory allocator was called, and how many bytes stayed.
type Cost = (u64, i64);

#[workflow]
#[derive(Default)]
struct Steps;

#[workflow_methods]
impl Steps {
    #[run]
    async fn run(ctx: &mut WorkflowContext<Self>, spans: usize) -> WorkflowResult<Cost> {
        let texts: Vec<String> = (0..spans).map(text).collect();
        let AllocationInfo { count_total, bytes_current, .. } = allocation_counter::measure(|| {
            for text in &texts {
                let span = ctx.span("look up invoice").span_type(SpanType::Custom);
                span.input("document", text).start().end();
            }
        });
        Ok((count_total, bytes_current))
    }
}

fn text(number: usize) -> String {
    format!("invoice {number:06} of customer 2654435761: total 1,042 EUR, due on the day after")
}

/// The cost of so many spans that a run buffers, and the bytes of JSON of one of them.
async fn cost(spans: usize) -> (Cost, usize) {
    let server = durable_spans_test_server::shared().await;
    let connection = server.connection().await.unwrap();
    let client = Client::new(connection, ClientOptions::new("default").build()).unwrap();
    let queue = format!("memory-{spans}-{}", std::process::id());
    let sink = MemorySink::new();
    let tracing = DurableSpans::new(sink.clone());
    let mut options = WorkerOptions::new(&queue).build();
    options.register_workflow::<Steps>().unwrap();
    tracing.install(&mut options).unwrap();
    let runtime = Runtime::from_current_tokio(RuntimeOptions::default()).unwrap();
    let mut worker = Worker::new(&runtime, client.clone(), options).unwrap();
    let stop = worker.shutdown_handle();
    let scenario = async {
        let start = WorkflowStartOptions::new(&queue, &queue).build();
        let run = client.start_workflow(Steps::run, spans, start).await.unwrap();
        let cost = run.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        stop();
        cost
    };
    let (ended, cost) = tokio::join!(worker.run(), scenario);
    ended.unwrap();
    let recorded = sink.spans();
    let steps: Vec<_> = recorded.iter().filter(|span| span.parent_id.is_some()).collect();
    assert_eq!(steps.len(), spans);
    let json: usize = steps.iter().map(|span| serde_json::to_vec(span).unwrap().len()).sum();
    (cost, json / spans)
}

/// For the text and for the list of values that has it. Names that are known at compile time need none.
#[tokio::test(flavor = "multi_thread")]
async fn a_span_with_a_text_needs_two_allocations() {
    let ((allocations, _), _) = cost(5_000).await;
    let of_growth_and_first_use = 300;
    assert!(
        allocations <= 2 * 5_000 + of_growth_and_first_use,
        "{allocations} allocations for 5,000 spans"
    );
}

/// Also where the buffer has just grown to twice the size.
#[tokio::test(flavor = "multi_thread")]
async fn a_buffered_span_needs_at_most_one_and_a_half_times_its_bytes_of_json() {
    for spans in [6_000, 8_200] {
        let ((_, bytes), json) = cost(spans).await;
        assert!((420..460).contains(&json), "{json} bytes of JSON");
        let each = bytes as f64 / spans as f64;
        println!("{spans} spans: {each:.0} bytes each, of {json} bytes of JSON");
        assert!(each <= 1.5 * json as f64, "{each:.0} bytes for {json} of JSON, {spans} spans");
    }
}
