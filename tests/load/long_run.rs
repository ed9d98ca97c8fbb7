//! A run of 100,000 spans: what it costs in history and in memory.

use std::{env, fs, process::Stdio, time::Duration};

use durable_spans::{FlushPolicy, WorkflowSpans};
use serde::{Deserialize, Serialize};
use temporalio_client::WorkflowGetResultOptions;
use temporalio_common::protos::temporal::api::history::v1::HistoryEvent;
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{WorkflowContext, WorkflowResult};
use tokio::process::Command;

use crate::{
    harness::{Fleet, event_bytes, while_running},
    scene::{self, Scene, unharmed},
};

const ROUNDS: usize = 20;
const SPANS_PER_ROUND: usize = 5_000;

/// A flush about every other round. No linger timer fires meanwhile: one that fires while the run
/// closes makes the server ask for the workflow task again.
const POLICY: FlushPolicy = FlushPolicy::new().operations(4).linger(Duration::from_secs(60));

/// Beyond what the process had before. Measured: about 280 MB in a debug build, of a queue of 40 MB and the run.
const AT_MOST_MB: u64 = 400;

/// Tells the executable where the sink of the traced run is.
const SINK: &str = "LONG_RUN_SINK";

/// Records in bursts. The last one is over before the close: what the sink cannot take within the
/// patience of the close goes by couriers, whose freight is in history.
#[workflow]
#[derive(Default)]
struct LongRun;

#[workflow_methods]
impl LongRun {
    #[run(name = "LongRun")]
    async fn run(ctx: &mut WorkflowContext<Self>, _: ()) -> WorkflowResult<()> {
        // A second each, since the server's timers are no finer.
        let pause = Duration::from_millis(500);
        for _ in 0..ROUNDS {
            for _ in 1..SPANS_PER_ROUND {
                ctx.span("step").start().end();
            }
            ctx.span("round").scope(ctx.timer(pause)).await;
        }
        for _ in 0..4 {
            ctx.timer(pause).await;
        }
        Ok(())
    }
}

/// What the process of the traced run has to say.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    workflow_id: String,
    delivered: u64,
    /// Memory in use before the run, and the most that was in use.
    before_mb: u64,
    peak_mb: u64,
}

async fn run(fleet: &Fleet, traced: bool) -> String {
    let mut options = fleet.worker_options();
    options.register_workflow::<LongRun>().unwrap();
    let worker = if traced { fleet.worker(options) } else { fleet.untraced_worker(options) };
    while_running(worker, async {
        let start = fleet.client.start_workflow(LongRun::run, (), fleet.start_options());
        let handle = start.await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        handle.info().workflow_id.clone()
    })
    .await
}

fn bytes(events: &[HistoryEvent]) -> usize {
    events.iter().map(event_bytes).sum()
}

/// A line of what Linux knows of this process, in MB. Zero elsewhere.
fn memory_mb(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
    kib.map_or(0, |kib| kib.parse::<u64>().unwrap() * 1_024 / 1_000_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_a_hundred_thousand_spans_takes_little_history_and_bounded_memory() {
    if let Ok(url) = env::var(SINK) {
        return traced_run(&url).await;
    }
    let scene = Scene::new("long-run", POLICY).await;
    let server = durable_spans_test_server::shared().await;
    let traced_run = Command::new(env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("long_run::a_run_of_a_hundred_thousand_spans_takes_little_history_and_bounded_memory")
        .env(SINK, scene.sink.url())
        .env("TEMPORAL_ADDRESS", server.address())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .output();
    let (output, untraced) = tokio::join!(traced_run, run(&scene.fleet, false));
    let output = String::from_utf8(output.unwrap().stdout).unwrap();
    let told = output.lines().find_map(|line| serde_json::from_str::<Told>(line).ok());
    let Some(told) = told else { panic!("the traced run failed: {output}") };

    let histories = unharmed(&scene.fleet, &[told.workflow_id.clone(), untraced]).await;
    let added = bytes(&histories[0]) - bytes(&histories[1]);
    let spans = ROUNDS * SPANS_PER_ROUND + 1;
    let per_span = added as f64 / spans as f64;
    println!(
        "1 run of {spans} spans: {added} bytes of history more, {per_span:.2} per span, in {} events \
         more, {} calls; {} MB at the peak, {} before",
        histories[0].len() - histories[1].len(),
        scene.sink.calls(),
        told.peak_mb,
        told.before_mb,
    );
    assert_eq!(told.delivered, spans as u64);
    assert!(per_span <= 2.5, "{per_span} bytes per span");
    assert!(told.peak_mb - told.before_mb <= AT_MOST_MB, "{told:?}");
}

/// In a process of its own, so that the peak is that of the worker and of the queue of its spans.
async fn traced_run(url: &str) {
    let fleet = scene::fleet("long-run-traced", url, POLICY).await;
    let before_mb = memory_mb("VmRSS:");
    let workflow_id = run(&fleet, true).await;
    let delivered = fleet.spans.flush(Duration::from_secs(50)).await.delivered;
    let told = Told { workflow_id, delivered, before_mb, peak_mb: memory_mb("VmHWM:") };
    println!("\n{}", serde_json::to_string(&told).unwrap());
}
