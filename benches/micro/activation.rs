//! Spans in workflow code: in a run on a real server, and in a replay of it.

use std::{
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput};
use durable_spans::{
    Contract, DurableSpans, SinkError, SpanBatch, SpanSink, SpanType, WorkflowSpans,
    WorkflowTracing,
};
use durable_spans_workflow::HandOver;
use fastrace::{
    collector::{Config, SpanContext, SpanRecord},
    local::LocalSpan,
};
use futures::{FutureExt, future, future::BoxFuture};
use serde::{Deserialize, Serialize};
use temporalio_client::{
    Client, ClientOptions, WorkflowFetchHistoryOptions, WorkflowGetResultOptions, WorkflowHistory,
    WorkflowStartOptions,
};
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{
    Runtime, Worker, WorkerOptions, WorkflowContext, WorkflowResult,
    runtime::RuntimeOptions,
    workflow_replayer::{WorkflowReplayer, WorkflowReplayerOptions},
};

use crate::sample;

/// How many spans a run records at the most, as in the other benchmarks.
const SPANS_PER_RUN: u64 = 1_000;

/// How long the loops of workflow code took since the last look.
static NANOSECONDS: AtomicU64 = AtomicU64::new(0);

/// What the loop of a workflow does for each span.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Way {
    /// Nothing but what the loop does itself.
    Loop,
    /// Pushes a bare struct with the same data.
    Push,
    /// `ctx.span()`: recorded on a traced worker, without effect on another.
    Span,
    /// The span of a fast tracing library, which is lost with the process.
    Fastrace,
}

#[workflow]
#[derive(Default)]
struct Spans;

#[workflow_methods]
impl Spans {
    #[run(name = "Spans")]
    async fn run(ctx: &mut WorkflowContext<Self>, (way, spans): (Way, u64)) -> WorkflowResult<()> {
        let text = sample::text(1);
        let began = Instant::now();
        match way {
            Way::Loop => (0..spans).for_each(|number| _ = black_box(number)),
            Way::Push => push(&text, spans),
            Way::Span => {
                for _ in 0..spans {
                    let span = ctx.span(sample::NAME).span_type(SpanType::Custom);
                    span.input(sample::FIELD, &*text).start().end();
                }
            }
            Way::Fastrace => trace_fast(&text, spans),
        }
        NANOSECONDS.fetch_add(began.elapsed().as_nanos() as u64, Ordering::Relaxed);
        Ok(())
    }
}

fn push(text: &str, spans: u64) {
    struct Bare {
        _name: &'static str,
        _id: u128,
        _start_and_end: [i64; 2],
        _field: (&'static str, String),
    }
    let mut buffer = Vec::new();
    for number in 0..spans {
        buffer.push(black_box(Bare {
            _name: sample::NAME,
            _id: number.into(),
            _start_and_end: [1, 2],
            _field: (sample::FIELD, text.to_owned()),
        }));
    }
}

fn trace_fast(text: &str, spans: u64) {
    let root = fastrace::Span::root("run", SpanContext::random());
    let _scope = root.set_local_parent();
    for _ in 0..spans {
        let span = LocalSpan::enter_with_local_parent(sample::NAME);
        drop(span.with_property(|| (sample::FIELD, text.to_owned())));
    }
}

pub(crate) fn benches(criterion: &mut Criterion) {
    fastrace::set_reporter(Forget, Config::default());
    let stage = Stage::new();
    record(criterion, &stage);
    replay(criterion, &stage);
}

fn record(criterion: &mut Criterion, stage: &Stage) {
    let mut group = criterion.benchmark_group("record");
    group.throughput(Throughput::Elements(1));
    let ways = [
        ("floor: empty loop", Way::Loop, UNTRACED),
        ("floor: push of a bare struct", Way::Push, UNTRACED),
        ("control: ctx.span(), untraced", Way::Span, UNTRACED),
        ("fastrace, not durable", Way::Fastrace, UNTRACED),
        ("ctx.span()", Way::Span, TRACED),
    ];
    for (name, way, queue) in ways {
        group.bench_function(name, |b| {
            b.iter_custom(|spans| {
                let mut left = spans;
                let mut took = Duration::ZERO;
                while left > 0 {
                    let now = left.min(SPANS_PER_RUN);
                    stage.run(queue, way, now);
                    took += Duration::from_nanos(NANOSECONDS.swap(0, Ordering::Relaxed));
                    left -= now;
                }
                took
            });
        });
    }
    group.finish();
}

/// Of the traced run and of the untraced one, to compare: the loop alone, and the whole replay.
fn replay(criterion: &mut Criterion, stage: &Stage) {
    let mut group = criterion.benchmark_group("replay");
    for spans in [1_000, 10_000, 100_000] {
        group.throughput(Throughput::Elements(spans));
        for queue in [TRACED, UNTRACED] {
            let history = stage.run(queue, Way::Span, spans);
            let name = BenchmarkId::new(format!("loop, {queue}"), spans);
            group.bench_with_input(name, &history, |b, history| {
                b.iter_custom(|rounds| {
                    NANOSECONDS.store(0, Ordering::Relaxed);
                    (0..rounds).for_each(|_| stage.replay(queue, history));
                    Duration::from_nanos(NANOSECONDS.swap(0, Ordering::Relaxed))
                });
            });
            let name = BenchmarkId::new(format!("whole, {queue}"), spans);
            group.bench_with_input(name, &history, |b, history| {
                b.iter(|| stage.replay(queue, history));
            });
        }
    }
    group.finish();
}

const TRACED: &str = "traced";
const UNTRACED: &str = "untraced";

/// A server, and a worker of each kind.
struct Stage {
    runtime: tokio::runtime::Runtime,
    client: Client,
}

impl Stage {
    fn new() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let client = runtime.block_on(client());
        for queue in [TRACED, UNTRACED] {
            // Until the process ends.
            std::thread::spawn(move || work(queue));
        }
        Self { runtime, client }
    }

    /// Runs the workflow, and returns its history as JSON.
    fn run(&self, queue: &str, way: Way, spans: u64) -> Vec<u8> {
        self.runtime.block_on(async {
            let id = format!("micro-{}", rand::random::<u64>());
            let options = WorkflowStartOptions::new(queue, id).build();
            let handle =
                self.client.start_workflow(Spans::run, (way, spans), options).await.unwrap();
            handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
            let history = handle.fetch_history(WorkflowFetchHistoryOptions::default());
            history.to_json().await.unwrap()
        })
    }

    fn replay(&self, queue: &str, history: &[u8]) {
        let mut options = WorkflowReplayerOptions::new().build();
        options.register_workflow::<Spans>().unwrap();
        if queue == TRACED {
            let tracing = WorkflowTracing::new().hand_over(HandOver::new());
            options.workflow_interceptor(tracing.interceptor());
        }
        let replayer = WorkflowReplayer::new(options).unwrap();
        let history = WorkflowHistory::from_json(history).unwrap();
        self.runtime.block_on(replayer.replay_workflow(history)).unwrap();
    }
}

async fn client() -> Client {
    let server = durable_spans_test_server::shared().await;
    let options = ClientOptions::new("default").build();
    Client::new(server.connection().await.unwrap(), options).unwrap()
}

#[tokio::main]
async fn work(queue: &str) {
    let mut options = WorkerOptions::new(queue).build();
    options.register_workflow::<Spans>().unwrap();
    if queue == TRACED {
        DurableSpans::new(Discard).install(&mut options).unwrap();
    }
    let runtime = Runtime::from_current_tokio(RuntimeOptions::default()).unwrap();
    Worker::new(&runtime, client().await, options).unwrap().run().await.unwrap();
}

struct Discard;

impl SpanSink for Discard {
    fn upsert_batch<'a>(&'a self, _: &'a SpanBatch) -> BoxFuture<'a, Result<(), SinkError>> {
        future::ready(Ok(())).boxed()
    }

    fn contract(&self) -> Contract {
        Contract::upsert()
    }
}

struct Forget;

impl fastrace::collector::Reporter for Forget {
    fn report(&mut self, spans: Vec<SpanRecord>) {
        drop(black_box(spans));
    }
}
