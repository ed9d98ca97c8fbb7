//! The same spans live, after a restart, without a cache and in replay; and no change of
//! instrumentation breaks a run.

use durable_spans::{DurableSpans, FlushPolicy, MemorySink, Span, testing::Trace};
use temporalio_client::{Client, WorkflowGetResultOptions, WorkflowHandle, WorkflowSignalOptions};
use temporalio_sdk::{
    Worker,
    workflow_replayer::{WorkflowReplayer, WorkflowReplayerOptions},
};

use crate::{
    harness::{Fleet, all_ended, facts, of_workflow, replayed_spans, while_running},
    workflows::{
        Fewer, Mutable, Mutated, Order, Paused, PausedRun, Recorded, Renamed, Ship, Silent,
        TenTimesMore, Work,
    },
};

fn paused_worker(fleet: &Fleet, cache: usize) -> Worker {
    let mut options = fleet.worker_options();
    options.max_cached_workflows = cache;
    options.register_activities(Work).register_workflow::<Paused>().unwrap();
    fleet.worker(options)
}

async fn release(handle: &WorkflowHandle<Client, PausedRun>) {
    let options = WorkflowSignalOptions::default();
    handle.signal(Paused::release, "go".to_owned(), options).await.unwrap();
}

/// Waits until the run has got so far that the sink holds an attempt of each of these activities.
async fn until_attempts(sink: &MemorySink, count: usize) {
    let is_attempt = |span: &&Span| span.metadata.contains_key("temporal.attempt");
    sink.wait_for(|spans| spans.iter().filter(is_attempt).count() >= count).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_are_the_same_live_after_a_restart_and_in_replay() {
    let fleet = Fleet::new("restart").await;
    let handle = while_running(paused_worker(&fleet, 1000), async {
        let start = fleet.client.start_workflow(Paused::run, 3u32, fleet.start_options());
        let handle = start.await.unwrap();
        release(&handle).await;
        until_attempts(&fleet.sink, 2).await;
        handle
    })
    .await;
    while_running(paused_worker(&fleet, 1000), async {
        release(&handle).await;
        until_attempts(&fleet.sink, 3).await;
    })
    .await;
    while_running(paused_worker(&fleet, 1000), async {
        release(&handle).await;
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
    })
    .await;
    let live = of_workflow(&fleet.sink.spans());
    assert!(all_ended(&live));
    // The run, "whole", 3 steps, 3 activities, 3 signals with a span each.
    assert_eq!(live.len(), 14);
    let tree = Trace::of(&fleet.sink).without_attempts().show("input").show("output").to_string();

    let history = fleet.history(handle.info().workflow_id.as_str(), None);
    let replayed = replayed_spans(history, |options| {
        options.register_workflow::<Paused>().unwrap();
    })
    .await;
    assert_eq!(facts(&replayed), facts(&live));
    let replayed: Trace = replayed.into();
    assert_eq!(replayed.show("input").show("output").to_string(), tree);
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_are_the_same_without_a_cache() {
    let fleet = Fleet::new("no-cache").await;
    let mut options = fleet.worker_options();
    options.max_cached_workflows = 0;
    options.register_activities(Work);
    options.register_workflow::<Order>().unwrap().register_workflow::<Ship>().unwrap();
    let handle = while_running(fleet.worker(options), async {
        let start = fleet.client.start_workflow(Order::run, 0u32, fleet.start_options());
        let handle = start.await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        handle
    })
    .await;
    let live = fleet.sink.spans();
    assert!(all_ended(&live));
    let statistics = fleet.spans.statistics();
    assert_eq!(statistics.recorded, live.len() as u64, "nothing recorded twice");
    let history = fleet.history(handle.info().workflow_id.as_str(), None);
    let replayed = replayed_spans(history, |options| {
        options.register_workflow::<Order>().unwrap();
    })
    .await;
    let child = live.iter().find(|span| span.name == "pack").unwrap().parent_id.clone();
    let of_parent: Vec<Span> = of_workflow(&live)
        .into_iter()
        .filter(|span| Some(&span.id) != child.as_ref() && !below(&live, span, child.as_ref()))
        .collect();
    assert_eq!(facts(&replayed), facts(&of_parent));
}

fn below(spans: &[Span], span: &Span, ancestor: Option<&durable_spans::SpanId>) -> bool {
    let Some(parent) = &span.parent_id else { return false };
    Some(parent) == ancestor
        || spans.iter().find(|other| &other.id == parent).is_some_and(|p| below(spans, p, ancestor))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_replays_with_more_fewer_other_and_no_spans() {
    let fleet = Fleet::new("versions").await;
    let mut options = fleet.worker_options();
    options.register_activities(Work).register_workflow::<Recorded>().unwrap();
    // A flush about every other round, so that the history holds many of them.
    let spans = fleet.spans.clone().flush_policy(FlushPolicy::new().operations(5));
    let fleet = Fleet::with("versions", spans, fleet.sink.clone(), Default::default()).await;
    options.task_queue = fleet.queue.clone();
    let handle = while_running(fleet.worker(options), async {
        let start = fleet.client.start_workflow(Recorded::run, 12u32, fleet.start_options());
        let handle = start.await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        handle
    })
    .await;
    let id = handle.info().workflow_id.clone();
    let live = of_workflow(&fleet.sink.spans());

    let replay = |register: fn(&mut WorkflowReplayerOptions)| {
        let history = fleet.history(&id, None);
        replayed_spans(history, register)
    };
    let same = replay(|options| {
        options.register_workflow::<Recorded>().unwrap();
    });
    assert_eq!(facts(&same.await), facts(&live));
    let more = replay(|options| {
        options.register_workflow::<TenTimesMore>().unwrap();
    });
    // 12 rounds with 30 spans more than the timer's, its activity, and the root.
    assert_eq!(more.await.len(), 12 * 32 + 1);
    let fewer = replay(|options| {
        options.register_workflow::<Fewer>().unwrap();
    });
    assert_eq!(fewer.await.len(), 12 * 3 + 1);
    let renamed = replay(|options| {
        options.register_workflow::<Renamed>().unwrap();
    });
    assert_eq!(renamed.await.len(), live.len());
    let silent = replay(|options| {
        options.register_workflow::<Silent>().unwrap();
    });
    assert_eq!(silent.await.len(), 12 + 1);
}

/// Runs the workflow, and replays its history with the code that awaits otherwise.
async fn awaited_otherwise(policy: FlushPolicy) -> Result<(), String> {
    let sink = MemorySink::new();
    let spans = DurableSpans::new(sink.clone()).flush_policy(policy);
    let fleet = Fleet::with("awaits", spans, sink, Default::default()).await;
    let mut options = fleet.worker_options();
    options.register_activities(Work).register_workflow::<Mutable>().unwrap();
    let handle = while_running(fleet.worker(options), async {
        let start = fleet.client.start_workflow(Mutable::run, 5u32, fleet.start_options());
        let handle = start.await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        handle
    })
    .await;
    let mut options = WorkflowReplayerOptions::new().build();
    options.register_workflow::<Mutated>().unwrap();
    fleet.spans.install_replayer(&mut options);
    let history = fleet.history(&handle.info().workflow_id, None);
    let replay = WorkflowReplayer::new(options).unwrap().replay_workflow(history).await;
    replay.map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn awaiting_otherwise_shifts_no_flush() {
    let policy = FlushPolicy::new().operations(2);
    awaited_otherwise(policy).await.unwrap();
    awaited_otherwise(policy.by_activity()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_from_before_the_install_is_left_alone_and_goes_on() {
    use durable_spans::{Timestamp, Timetable};

    let fleet = Fleet::new("since").await;
    let mut options = fleet.worker_options();
    options.register_activities(Work).register_workflow::<Paused>().unwrap();
    let untraced = fleet.untraced_worker(options.clone());
    let handle = while_running(untraced, async {
        let start = fleet.client.start_workflow(Paused::run, 2u32, fleet.start_options());
        let handle = start.await.unwrap();
        release(&handle).await;
        while handle.query(Paused::notes, (), Default::default()).await.unwrap().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        handle
    })
    .await;

    // Its header names a trace, since the client came before the workers. The date decides.
    let now = Timestamp::from(std::time::SystemTime::now());
    let sink = MemorySink::new();
    let spans = DurableSpans::new(sink.clone()).timetable(Timetable::since(now));
    spans.install(&mut options).unwrap();
    while_running(fleet.untraced_worker(options), async {
        release(&handle).await;
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        let start = fleet.client.start_workflow(Paused::run, 0u32, fleet.start_options());
        start.await.unwrap().get_result(WorkflowGetResultOptions::default()).await.unwrap();
    })
    .await;
    let traced: Vec<String> = sink.spans().into_iter().map(|span| span.name.into_owned()).collect();
    assert_eq!(traced, ["Paused", "whole"], "only the run that started after the date");
}
