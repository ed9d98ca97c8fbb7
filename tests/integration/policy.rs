//! What the header pins: the flush policy and the sampling decision.

use std::time::Duration;

use durable_spans::{DurableSpans, FlushPolicy, MemorySink, Span, TraceContext, in_trace};
use temporalio_client::{
    ClientOptions, WorkflowGetResultOptions, WorkflowSignalOptions, WorkflowStartOptions,
    WorkflowTerminateOptions,
};
use temporalio_common::protos::temporal::api::{
    common::v1::{Header, Payload},
    history::v1::{HistoryEvent, history_event::Attributes},
};

use temporalio_sdk::workflow_replayer::{WorkflowReplayer, WorkflowReplayerOptions};

use crate::{
    harness::{
        Fleet, all_ended, assert_tree, client, facts, of_workflow, replayed_spans, unique,
        while_running,
    },
    workflows::{Fewer, Paused, Quiet, TenTimesMore, Work},
};

async fn fleet(name: &str, policy: FlushPolicy) -> Fleet {
    let sink = MemorySink::new();
    let spans = DurableSpans::new(sink.clone()).flush_policy(policy);
    Fleet::with(name, spans, sink, Default::default()).await
}

/// Asks again and again until there is an answer. The test's own limit ends it otherwise.
async fn until<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn flushes(events: &[HistoryEvent]) -> usize {
    let is_marker = |event: &&HistoryEvent| {
        matches!(event.attributes, Some(Attributes::MarkerRecordedEventAttributes(_)))
    };
    events.iter().filter(is_marker).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_run_is_seen_while_it_runs_and_replays() {
    let fleet = fleet("linger", FlushPolicy::new().linger(Duration::from_secs(1))).await;
    let mut options = fleet.worker_options();
    options.register_activities(Work).register_workflow::<Paused>().unwrap();
    let handle = while_running(fleet.worker(options), async {
        let start = fleet.client.start_workflow(Paused::run, 1u32, fleet.start_options());
        let handle = start.await.unwrap();
        let mid_run = until(async || {
            let spans = of_workflow(&fleet.sink.spans());
            (spans.len() == 4).then_some(spans)
        });
        assert_tree(
            &mid_run.await,
            "
            Paused AGENT_WORKFLOW open workflow
              whole STANDALONE open
                step 0 STANDALONE open
                  look_up CUSTOM SUCCESS activity
            ",
        );
        let options = WorkflowSignalOptions::default();
        handle.signal(Paused::release, "go".to_owned(), options).await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        handle
    })
    .await;
    let live = of_workflow(&fleet.sink.spans());
    assert!(all_ended(&live));
    let history = || fleet.history(handle.info().workflow_id.as_str(), None);
    assert_eq!(flushes(&history().into_events().await.unwrap()), 2);
    let replayed = replayed_spans(history(), |options| {
        options.register_workflow::<Paused>().unwrap();
    });
    assert_eq!(facts(&replayed.await), facts(&live));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_opt_in_trigger_flushes_by_the_number_of_spans_at_its_stated_cost() {
    let fleet = fleet("when-buffered", FlushPolicy::new().when_buffered(50)).await;
    let mut options = fleet.worker_options();
    options.register_activities(Work).register_workflow::<TenTimesMore>().unwrap();
    let handle = while_running(fleet.worker(options), async {
        let start = fleet.client.start_workflow(TenTimesMore::run, 12u32, fleet.start_options());
        let handle = start.await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        handle
    })
    .await;
    let history = || fleet.history(handle.info().workflow_id.as_str(), None);
    // 12 rounds with 32 spans each, 2 rounds to a flush, and the close.
    let flushes = flushes(&history().into_events().await.unwrap());
    assert!((6..=8).contains(&flushes), "{flushes} flushes");

    let replay = async |register: fn(&mut WorkflowReplayerOptions)| {
        let mut options = WorkflowReplayerOptions::new().build();
        register(&mut options);
        fleet.spans.install_replayer(&mut options);
        WorkflowReplayer::new(options).unwrap().replay_workflow(history()).await
    };
    let same = replay(|options| {
        options.register_workflow::<TenTimesMore>().unwrap();
    });
    same.await.unwrap();
    let fewer = replay(|options| {
        options.register_workflow::<Fewer>().unwrap();
    });
    // As the documentation of the trigger says: here instrumentation is a versioning event.
    fewer.await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsampled_trace_records_nothing_and_adds_no_command() {
    let fleet = fleet("unsampled", FlushPolicy::new()).await;
    let mut options = fleet.worker_options();
    options.register_activities(Work);
    options.register_workflow::<crate::workflows::Order>().unwrap();
    options.register_workflow::<crate::workflows::Ship>().unwrap();
    let mut context = TraceContext::new("unsampled".parse().unwrap());
    context.sampled = false;
    let handle = while_running(fleet.worker(options), async {
        let start =
            fleet.client.start_workflow(crate::workflows::Order::run, 1u32, fleet.start_options());
        let handle = in_trace(context, start).await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        handle
    })
    .await;
    assert_eq!(fleet.sink.spans(), Vec::<Span>::new(), "children and the next run learn it, too");
    let history = fleet.history(handle.info().workflow_id.as_str(), handle.run_id());
    // The one marker is that of the user's own local activity.
    assert_eq!(flushes(&history.into_events().await.unwrap()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_version_of_the_flush_rule_fails_the_task_with_the_remedy() {
    let fleet = fleet("future-rule", FlushPolicy::new()).await;
    let mut options = fleet.worker_options();
    options.register_activities(Work).register_workflow::<Quiet>().unwrap();
    let header = Payload {
        metadata: [("encoding".to_owned(), b"json/plain".to_vec())].into(),
        data: br#"{"t":"trace","p":[99,200,10000,0]}"#.to_vec(),
        ..Default::default()
    };
    let start = WorkflowStartOptions::new(fleet.queue.clone(), unique("future-rule"))
        .header(Header { fields: [("_spans".to_owned(), header)].into() })
        .build();
    let plain = client(ClientOptions::new("default").build()).await;
    while_running(fleet.worker(options), async {
        let handle = plain.start_workflow(Quiet::run, 1, start).await.unwrap();
        let message = until(async || {
            let history = fleet.history(handle.info().workflow_id.as_str(), None);
            let events = history.into_events().await.unwrap();
            events.into_iter().find_map(|event| match event.attributes {
                Some(Attributes::WorkflowTaskFailedEventAttributes(failed)) => {
                    Some(failed.failure.unwrap_or_default().message)
                }
                _ => None,
            })
        })
        .await;
        assert!(message.contains("version 99 of the flush rule"), "{message}");
        assert!(message.contains("upgrade durable-spans"), "{message}");
        handle.terminate(WorkflowTerminateOptions::default()).await.unwrap();
    })
    .await;
    assert!(fleet.sink.spans().is_empty());
}
