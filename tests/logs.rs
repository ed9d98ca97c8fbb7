//! What a user's subscriber shows of workflow and activity code on a real server. A binary of its own,
//! since there is one subscriber per process.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::{
    collections::BTreeMap,
    io::{self, Write},
    pin::pin,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use durable_spans::{
    DurableSpans, MemorySink, Sampling, Span, SpanStatus, WorkflowSpans, logs, span,
};
use serde_json::Value;
use temporalio_client::{
    Client, ClientOptions, WorkflowExecuteUpdateOptions, WorkflowGetResultOptions,
    WorkflowQueryOptions, WorkflowSignalOptions, WorkflowStartOptions,
};
use temporalio_macros::{activities, workflow, workflow_methods};
use temporalio_sdk::{
    ActivityOptions, LocalActivityOptions, Runtime, SyncWorkflowContext, Worker, WorkerOptions,
    WorkflowContext, WorkflowContextView, WorkflowResult,
    activities::{ActivityContext, ActivityError},
    runtime::RuntimeOptions,
};
use tracing::{Instrument, info, info_span, instrument};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt, Targets},
    fmt::MakeWriter,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// Lines of JSON, as `tracing_subscriber::fmt` writes them.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

struct Log {
    /// Without what is replayed.
    once: Lines,
    all: Lines,
}

/// What one event was logged with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    message: String,
    trace_id: String,
    span_id: String,
}

impl Lines {
    /// The lines of a test, which has its name in each message.
    fn of(&self, test: &str) -> Vec<Line> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines
            .filter_map(|line| {
                let message =
                    line["fields"]["message"].as_str()?.strip_prefix(test)?.trim().to_owned();
                // The innermost one that has it: `tracing` spans of the user's are in between.
                let id = |name: &str| {
                    let mut spans = line["spans"].as_array().into_iter().flatten().rev();
                    let id = spans.find_map(|span| span[name].as_str());
                    id.unwrap_or("none").to_owned()
                };
                Some(Line { message, trace_id: id("trace_id"), span_id: id("span_id") })
            })
            .collect()
    }
}

/// The one subscriber of this process, as a user would put it together.
fn log() -> &'static Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    LOG.get_or_init(|| {
        let log = Log { once: Lines::default(), all: Lines::default() };
        let wanted = || EnvFilter::new("logs=info,durable_spans=error");
        let mine = Targets::new().with_target("logs", tracing::Level::INFO);
        tracing_subscriber::registry()
            .with(
                tracing_subscriber::fmt::layer()
                    .json()
                    .with_writer(log.all.clone())
                    .with_filter(wanted()),
            )
            .with(
                tracing_subscriber::fmt::layer()
                    .json()
                    .with_writer(log.once.clone())
                    .with_filter(wanted().and(logs::not_replayed())),
            )
            .with(logs::TracingSpans::new().with_filter(mine))
            .init();
        log
    })
}

struct Work;

#[instrument(err)]
async fn measure(depth: u32) -> Result<(), String> {
    span("ours").scope(async { info_span!("innermost").in_scope(|| info!("work measures")) }).await;
    let spawned = tokio::spawn(
        async { span("spawned").in_scope(|_| info!("work measures elsewhere")) }.in_current_span(),
    );
    spawned.await.unwrap();
    Err(format!("{depth} m is too deep"))
}

#[activities]
impl Work {
    #[activity(name = "dig")]
    async fn dig(_ctx: ActivityContext, test: String) -> Result<u32, ActivityError> {
        info!("{test} digs");
        span("scoop").scope(async { info!("{test} scoops") }).await;
        Ok(1)
    }

    #[activity(name = "survey")]
    async fn survey(_ctx: ActivityContext, depth: u32) -> Result<(), ActivityError> {
        assert!(measure(depth).await.is_err());
        let late = info_span!("late", found = tracing::field::Empty, sure = true);
        late.record("found", "gold");
        tracing::error!("work went wrong, but not in a tracing span");
        Ok(())
    }
}

#[workflow]
#[derive(Default)]
struct Diary {
    closed: bool,
}

#[workflow_methods]
impl Diary {
    #[run(name = "Diary")]
    async fn run(ctx: &mut WorkflowContext<Self>, test: String) -> WorkflowResult<()> {
        info!("{test} begins");
        let options = || ActivityOptions::start_to_close_timeout(Duration::from_secs(10));
        ctx.span("think")
            .try_scope(async {
                info!("{test} thinks");
                let _not_made = info_span!("in workflow code").entered();
                ctx.execute_activity(Work::dig, test.clone(), options()).await
            })
            .await?;
        info!("{test} has thought");
        ctx.span("note").in_scope(|_| info!("{test} notes"));
        ctx.execute_local_activity(Work::survey, 7u32, LocalActivityOptions::default()).await?;
        info!("{test} has surveyed");
        ctx.timer(Duration::from_millis(10)).await;
        ctx.wait_condition(|diary| diary.closed).await?;
        ctx.execute_activity(Work::survey, 8u32, options()).await?;
        info!("{test} ends");
        Ok(())
    }

    #[signal(name = "read")]
    fn read(&mut self, _ctx: &mut SyncWorkflowContext<Self>, test: String) {
        info!("{test} is read");
    }

    #[update(name = "close")]
    async fn close(ctx: &mut WorkflowContext<Self>, test: String) {
        info!("{test} is about to close");
        ctx.timer(Duration::from_millis(10)).await;
        info!("{test} closes");
        ctx.state_mut(|diary| diary.closed = true);
    }

    #[query(name = "title")]
    fn title(&self, _ctx: &WorkflowContextView, test: String) -> String {
        info!("{test} is asked");
        test
    }
}

/// Runs the workflow without a cache, so that each of its workflow tasks replays what was before.
async fn write_diary(test: &'static str, spans: &DurableSpans) {
    let server = durable_spans_test_server::shared().await;
    let mut options = ClientOptions::new("default").build();
    spans.install_client(&mut options);
    let client = Client::new(server.connection().await.unwrap(), options).unwrap();
    let queue = format!("logs-{test}-{}", std::process::id());
    let mut options = WorkerOptions::new(queue.clone()).max_cached_workflows(0usize).build();
    options.register_activities(Work).register_workflow::<Diary>().unwrap();
    spans.install(&mut options).unwrap();
    let runtime = Runtime::from_current_tokio(RuntimeOptions::builder().build().unwrap()).unwrap();
    let mut worker = Worker::new(&runtime, client.clone(), options).unwrap();
    let stop = worker.shutdown_handle();
    let scenario = async {
        let start = WorkflowStartOptions::new(queue.clone(), queue.clone()).build();
        let handle = client.start_workflow(Diary::run, test.to_owned(), start).await.unwrap();
        let text = test.to_owned();
        handle.signal(Diary::read, text.clone(), WorkflowSignalOptions::default()).await.unwrap();
        let asked = handle.query(Diary::title, text.clone(), WorkflowQueryOptions::default()).await;
        assert_eq!(asked.unwrap(), test);
        let update = WorkflowExecuteUpdateOptions::default();
        handle.execute_update(Diary::close, text, update).await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
    };
    let mut run = pin!(worker.run());
    tokio::select! {
        ended = tokio::time::timeout(Duration::from_secs(60), scenario) => ended.unwrap(),
        ended = &mut run => panic!("the worker ended early: {ended:?}"),
    }
    stop();
    run.await.unwrap();
    spans.flush(Duration::from_secs(5)).await;
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let mut found = spans.iter().filter(|span| span.name == name);
    let span = found.next().unwrap_or_else(|| panic!("no span {name}"));
    assert!(found.next().is_none(), "several spans {name}");
    span
}

/// Name of each span and of the one above.
fn edges(spans: &[Span]) -> Vec<(&str, &str)> {
    let name = |id| spans.iter().find(|span| span.id == id).map_or("", |span| &span.name);
    let mut edges: Vec<_> = spans
        .iter()
        .map(|span| (&*span.name, span.parent_id.clone().map_or("", |parent| name(parent))))
        .collect();
    edges.sort_unstable();
    edges
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_is_logged_once_with_the_ids_of_the_span_that_it_was_in() {
    let log = log();
    let sink = MemorySink::new();
    write_diary("once", &DurableSpans::new(sink.clone())).await;

    let spans = sink.spans();
    let run = named(&spans, "Diary");
    let attempt = spans
        .iter()
        .find(|span| span.name == "dig" && span.metadata["temporal.kind"] == "activity_attempt")
        .unwrap();
    let mut expected: Vec<Line> = [
        ("begins", run),
        ("thinks", named(&spans, "think")),
        ("digs", attempt),
        ("scoops", named(&spans, "scoop")),
        ("has thought", run),
        ("notes", named(&spans, "note")),
        ("has surveyed", run),
        ("is read", named(&spans, "read")),
        ("is asked", run),
        ("is about to close", named(&spans, "close")),
        ("closes", named(&spans, "close")),
        ("ends", run),
    ]
    .map(|(message, span)| Line {
        message: message.to_owned(),
        trace_id: span.trace_id.to_string(),
        span_id: span.id.to_string(),
    })
    .into();
    expected.sort();
    let mut once = log.once.of("once");
    once.sort();
    assert_eq!(once, expected);

    let mut times = BTreeMap::<String, u32>::new();
    log.all.of("once").into_iter().for_each(|line| *times.entry(line.message).or_default() += 1);
    assert!(times["begins"] > 2, "the code was not replayed: {times:?}");
    assert_eq!(times["digs"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn tracing_spans_of_activities_nest_with_ours_and_end_as_their_events_say() {
    log();
    let sink = MemorySink::new();
    write_diary("nest", &DurableSpans::new(sink.clone())).await;

    let spans = sink.spans();
    // Two activities of this name, a local and a normal one.
    for survey in spans.iter().filter(|span| {
        span.name == "survey" && span.metadata["temporal.kind"] == "activity_attempt"
    }) {
        let mut below = vec![survey.clone()];
        while let Some(more) = {
            let more: Vec<_> = spans
                .iter()
                .filter(|span| !below.contains(span))
                .filter(|span| below.iter().any(|above| Some(&above.id) == span.parent_id.as_ref()))
                .cloned()
                .collect();
            (!more.is_empty()).then_some(more)
        } {
            below.extend(more);
        }
        assert_eq!(
            edges(&below),
            [
                ("innermost", "ours"),
                ("late", "survey"),
                ("measure", "survey"),
                ("ours", "measure"),
                ("spawned", "measure"),
                ("survey", ""),
            ]
        );
        assert_eq!(survey.status, SpanStatus::Success);
        let measure = named(&below, "measure");
        assert_eq!(measure.status, SpanStatus::Error);
        assert!(
            measure.metadata["error_message"].as_str().unwrap().ends_with(" m is too deep"),
            "{measure:?}"
        );
        assert!([7, 8].map(Value::from).contains(&measure.metadata["depth"]), "{measure:?}");
        assert_eq!(measure.metadata["tracing.target"], "logs");
        let late = named(&below, "late");
        assert_eq!(
            (&late.metadata["found"], &late.metadata["sure"]),
            (&"gold".into(), &true.into())
        );
    }
    assert_eq!(spans.iter().filter(|span| span.name == "measure").count(), 2);
    assert!(spans.iter().all(|span| span.name != "in workflow code"));
    assert!(spans.iter().all(|span| span.end_timestamp.is_some()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_sampled_logs_once_and_with_its_trace_all_the_same() {
    let log = log();
    let sink = MemorySink::new();
    let spans = DurableSpans::new(sink.clone()).sampling(Sampling::ratio(0.0));
    write_diary("unsampled", &spans).await;

    assert_eq!(sink.spans(), []);
    let lines = log.once.of("unsampled");
    assert_eq!(lines.len(), 12, "{lines:#?}");
    assert!(lines.iter().all(|line| line.trace_id == lines[0].trace_id && line.trace_id != "none"));
    assert!(log.all.of("unsampled").len() > 12);
}
