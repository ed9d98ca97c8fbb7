//! Spans per second of one process, to a sink over loopback HTTP.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use durable_spans::{SgpOptions, SgpSink, Span, SpanId, SpanType, Timestamp, TraceId};
use durable_spans_activity::Deliverer;
use durable_spans_collector::Collector;
use durable_spans_workflow::{FlushGroup, digest};
use tokio::process::Command;

use crate::{
    row::{Goal, Row},
    sample,
    stage::Stage,
};

/// As many as a run hands over at once.
const SPANS_PER_RUN: u32 = 1_000;

/// So many may wait, so that none is refused for want of room.
const MOST_WAITING: u64 = 50_000;

pub(crate) async fn throughput(stage: &Stage, turns: usize, spans: u32) -> Result<Vec<Row>> {
    let (mut ours, mut direct, mut library) = (Vec::new(), Vec::new(), Vec::new());
    let (mut lost, mut library_lost) = (Vec::new(), Vec::new());
    let peers: u32 = 20_000;
    for _ in 0..turns {
        let (rate, arrived) = timed(stage, own(&stage.sink.url(), spans, 1)?).await?;
        ours.push(rate);
        lost.push(100.0 * (1.0 - arrived as f64 / f64::from(spans)));
        for (mode, rates) in [("direct", &mut direct), ("library", &mut library)] {
            let mut command = stage.python.command("throughput.py");
            command.args([mode, &stage.sink.url(), &peers.to_string()]);
            let (rate, arrived) = timed(stage, command).await?;
            // The library sends each span twice: when it begins and when it ends.
            rates.push(if mode == "library" { rate / 2.0 } else { rate });
            if mode == "library" {
                library_lost.push(100.0 * (1.0 - arrived as f64 / f64::from(2 * peers)));
            }
        }
    }
    let name = "spans delivered by one process over loopback HTTP";
    let goal = Goal::AtLeast(150_000.0);
    Ok(vec![
        Row::own(name, "1/s", ours.clone())
            .beside("scale-gp-beta, upsert_batch", direct)
            .goal(goal),
        Row::own(name, "1/s", ours).beside("scale-gp-beta, its tracing", library).goal(goal),
        Row::own("records dropped meanwhile", "%", lost)
            .beside("scale-gp-beta, its tracing", library_lost)
            .goal(Goal::AtMost(0.0)),
    ])
}

/// Spans per second into the collector's SQLite file, from two workers.
pub(crate) async fn stored(turns: usize, spans: u32) -> Result<Vec<Row>> {
    let mut rates = Vec::new();
    for _ in 0..turns {
        let folder = tempfile::tempdir()?;
        let collector = Collector::open(folder.path().join("spans.sqlite"))?;
        let running = collector.serve(([127, 0, 0, 1], 0)).await?;
        let worker = |number| own(&running.url(), spans / 2, number);
        let (mut one, mut other) = (worker(1)?, worker(2)?);
        let (one, other) = tokio::try_join!(one.output(), other.output())?;
        rates.push(f64::from(spans) / seconds(&one)?.max(seconds(&other)?));
        running.shutdown().await;
    }
    let name = "spans stored by the collector in SQLite, from two workers";
    Ok(vec![Row::own(name, "1/s", rates).goal(Goal::AtLeast(50_000.0))])
}

fn own(sink: &str, spans: u32, worker: u32) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["deliver", sink, &spans.to_string(), &worker.to_string()]).stdin(Stdio::null());
    Ok(command)
}

/// Runs a command that delivers and prints its seconds. Returns the spans per second that arrived,
/// and how many did.
async fn timed(stage: &Stage, mut command: Command) -> Result<(f64, u64)> {
    let before = stage.sink.arrived();
    let output = command.stderr(Stdio::null()).output().await?;
    let arrived = stage.sink.arrived().since(before).spans;
    Ok((arrived as f64 / seconds(&output)?, arrived))
}

fn seconds(output: &std::process::Output) -> Result<f64> {
    ensure!(output.status.success(), "a delivering process failed: {}", output.status);
    let printed = String::from_utf8_lossy(&output.stdout);
    printed.trim().parse().with_context(|| format!("a delivering process printed {printed:?}"))
}

/// The delivering process of ours: hands over made-up spans as runs do, and prints the seconds
/// until the sink had them all.
pub(crate) async fn deliver(sink: &str, spans: u32, worker: u32) -> Result<()> {
    let deliverer = Deliverer::new(SgpSink::new(SgpOptions::new(sink))?);
    let began = Instant::now();
    for run in 0..spans / SPANS_PER_RUN {
        while deliverer.statistics().deferred > MOST_WAITING {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        deliverer.take_last("run", &group(worker, run));
    }
    let statistics = deliverer.flush(Duration::from_secs(120)).await;
    println!("{}", began.elapsed().as_secs_f64());
    ensure!(statistics.delivered == u64::from(spans), "not all were delivered: {statistics}");
    Ok(())
}

/// A run, and what it did.
fn group(worker: u32, run: u32) -> FlushGroup {
    let id = |number: u32| {
        let number = u128::from(worker) << 64 | u128::from(run) << 32 | u128::from(number);
        number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
    };
    let start = Timestamp::from(std::time::SystemTime::now());
    let span = |number| {
        let ids = (TraceId::from_bits(id(0)), SpanId::from_bits(id(number)));
        let mut span = Span::new(ids.0, ids.1, sample::NAME, start);
        span.span_type = SpanType::Custom;
        span.parent_id = (number > 0).then(|| SpanId::from_bits(id(0)));
        span.end_timestamp = Some(start);
        span.input.insert(sample::FIELD.into(), sample::text(number).into());
        span
    };
    let spans: Vec<Span> = (0..SPANS_PER_RUN).map(span).collect();
    FlushGroup { flush: run, digest: digest(&spans), part_of: None, spans: spans.into() }
}
