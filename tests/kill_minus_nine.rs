//! Workers killed with SIGKILL at random moments: of the spans that workflows record, none is lost,
//! none comes twice, none stays open.
//!
//! This target is its own harness: the test runs its own executable again as the worker's process.
//! `KILL_SEED` sets the moments (default 1); a failure prints it.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use durable_spans::{
    DurableSpans, SgpOptions, SgpSink, Span, TraceContext, TraceId, WorkflowSpans, in_trace,
};
use durable_spans_collector::Collector;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use temporalio_client::{
    Client, ClientOptions, Connection, ConnectionOptions, Url, WorkflowGetResultOptions,
    WorkflowStartOptions,
};
use temporalio_common::RetryPolicy;
use temporalio_macros::{activities, workflow, workflow_methods};
use temporalio_sdk::{
    ActivityOptions, Runtime, Worker, WorkerOptions, WorkflowContext, WorkflowResult,
    activities::{ActivityContext, ActivityError},
    runtime::RuntimeOptions,
};

const RUNS: usize = 8;
const STEPS: u32 = 12;
const KILLS: usize = 4;
const LIMIT: Duration = Duration::from_secs(150);

/// Tells the executable to be the worker of this task queue.
const QUEUE: &str = "KILL_MINUS_NINE_QUEUE";
const SERVER: &str = "KILL_MINUS_NINE_SERVER";
const COLLECTOR: &str = "KILL_MINUS_NINE_COLLECTOR";

struct Work;

#[activities]
impl Work {
    #[activity(name = "work")]
    async fn work(_ctx: ActivityContext, step: u32) -> Result<u32, ActivityError> {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok(step)
    }
}

#[workflow]
#[derive(Default)]
struct Steps;

#[workflow_methods]
impl Steps {
    #[run(name = "Steps")]
    async fn run(ctx: &mut WorkflowContext<Self>, steps: u32) -> WorkflowResult<()> {
        let mut retry = RetryPolicy::default();
        retry.set_initial_interval(Duration::from_millis(100));
        let timeout = Duration::from_secs(2);
        let options = ActivityOptions::with_start_to_close_timeout(timeout).retry_policy(retry);
        let options = options.build();
        for step in 0..steps {
            ctx.span(format!("step {step}"))
                .try_scope(async {
                    ctx.span("before").start().end();
                    ctx.execute_activity(Work::work, step, options.clone()).await
                })
                .await?;
        }
        Ok(())
    }
}

fn main() -> Result<()> {
    // What cargo passes on to every test target means nothing here, but for the listing.
    if std::env::args().any(|argument| argument == "--list") {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if let Ok(queue) = std::env::var(QUEUE) {
        return runtime.block_on(worker(queue));
    }
    let seed = std::env::var("KILL_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let test = async { tokio::time::timeout(LIMIT, test(seed)).await? };
    runtime.block_on(test).with_context(|| format!("KILL_SEED={seed}"))
}

/// The worker's process. It ends by being killed.
async fn worker(queue: String) -> Result<()> {
    let spans = DurableSpans::new(SgpSink::new(SgpOptions::new(std::env::var(COLLECTOR)?))?);
    let client = client(&std::env::var(SERVER)?, &spans).await?;
    let mut options = WorkerOptions::new(queue).build();
    options.sticky_queue_schedule_to_start_timeout = Duration::from_millis(500);
    options.register_activities(Work).register_workflow::<Steps>()?;
    spans.install(&mut options)?;
    let runtime = Runtime::from_current_tokio(RuntimeOptions::default())?;
    Ok(Worker::new(&runtime, client, options)?.run().await?)
}

async fn client(server: &str, spans: &DurableSpans) -> Result<Client> {
    let connection =
        Connection::connect(ConnectionOptions::new(Url::parse(server)?).build()).await?;
    let mut options = ClientOptions::new("default").build();
    spans.install_client(&mut options);
    Ok(Client::new(connection, options)?)
}

async fn test(seed: u64) -> Result<()> {
    let mut random = SmallRng::seed_from_u64(seed);
    let server = durable_spans_test_server::TemporalServer::start().await?;
    let folder = tempfile::tempdir()?;
    let collector = Collector::open(folder.path().join("spans.sqlite"))?;
    let serving = collector.serve(([127, 0, 0, 1], 0)).await?;
    let sink = SgpSink::new(SgpOptions::new(serving.url()))?;
    let client = client(server.address(), &DurableSpans::new(sink)).await?;
    let queue = format!("kill-{}", std::process::id());
    let spawn = || {
        tokio::process::Command::new(std::env::current_exe()?)
            .env(QUEUE, &queue)
            .env(SERVER, server.address())
            .env(COLLECTOR, serving.url())
            .kill_on_drop(true)
            .spawn()
            .context("the worker's process starts")
    };

    let mut handles = Vec::new();
    for run in 0..RUNS {
        let trace: TraceId = format!("run-{run}").parse()?;
        let options = WorkflowStartOptions::new(queue.clone(), format!("{queue}-{run}"))
            .task_timeout(Duration::from_secs(2))
            .build();
        let start = client.start_workflow(Steps::run, STEPS, options);
        handles.push((trace.clone(), in_trace(TraceContext::new(trace), start).await?));
    }
    for _ in 0..KILLS {
        let mut worker = spawn()?;
        tokio::time::sleep(Duration::from_millis(random.random_range(400..1500))).await;
        worker.kill().await?;
    }
    let _worker = spawn()?;
    for (_, handle) in &handles {
        handle.get_result(WorkflowGetResultOptions::default()).await?;
    }

    let (mut recorded, mut attempts) = (0, 0);
    for (trace, _) in &handles {
        let spans = collector.store().spans(trace)?;
        let (of_attempts, of_workflow): (Vec<Span>, Vec<Span>) =
            spans.into_iter().partition(|span| span.metadata.contains_key("temporal.attempt"));
        ensure!(of_workflow.iter().all(|span| span.end_timestamp.is_some()), "{trace}: open");
        let mut names: BTreeMap<String, u32> = BTreeMap::new();
        for span in &of_workflow {
            *names.entry(span.name.clone()).or_default() += 1;
        }
        let steps = (0..STEPS).map(|step| (format!("step {step}"), 1));
        let others = [("Steps", 1), ("before", STEPS), ("work", STEPS)];
        let others = others.into_iter().map(|(name, count)| (name.to_owned(), count));
        let expected: BTreeMap<String, u32> = steps.chain(others).collect();
        ensure!(names == expected, "{trace}: {names:?} instead of {expected:?}");
        recorded += of_workflow.len();
        attempts += of_attempts.len();
    }
    let activities = RUNS * STEPS as usize;
    let expected = RUNS + 3 * activities;
    ensure!(recorded == expected, "{recorded} of {expected} spans");
    println!(
        "{KILLS} x SIGKILL, {RUNS} runs: {recorded} of {expected} spans of workflows, none twice, \
         none open; {attempts} attempts of {activities} activities"
    );
    serving.shutdown().await;
    server.stop().await;
    Ok(())
}
