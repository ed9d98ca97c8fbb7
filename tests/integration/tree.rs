//! One tree from the caller to the continued run, and the data on it.

use durable_spans::{DurableSpans, MemorySink, SpanStatus, TraceContext, TraceId, in_trace};
use temporalio_client::WorkflowGetResultOptions;

use crate::{
    harness::{Fleet, all_ended, assert_tree, errors, named, while_running},
    workflows::{Order, Ship, Work},
};

#[tokio::test(flavor = "multi_thread")]
async fn parent_children_attempts_and_the_continued_run_hang_in_one_tree() {
    let fleet = Fleet::new("tree").await;
    let mut options = fleet.worker_options();
    options.register_activities(Work);
    options.register_workflow::<Order>().unwrap().register_workflow::<Ship>().unwrap();
    let trace: TraceId = "a-trace-of-the-caller".parse().unwrap();

    while_running(fleet.worker(options), async {
        let context = TraceContext::new(trace.clone()).group_id("group-1").unwrap();
        let start = fleet.client.start_workflow(Order::run, 1u32, fleet.start_options());
        let handle = in_trace(context, start).await.unwrap();
        let result = handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        assert_eq!(result, 7);
    })
    .await;

    let spans = fleet.sink.spans();
    assert!(spans.iter().all(|span| span.trace_id == trace));
    assert!(spans.iter().all(|span| span.group_id.as_deref() == Some("group-1")));
    assert!(all_ended(&spans));
    let one_run = "
          pay CUSTOM SUCCESS
            check STANDALONE SUCCESS
            charge CUSTOM SUCCESS activity
              charge CUSTOM ERROR activity_attempt
              charge CUSTOM SUCCESS activity_attempt
          branch 0 STANDALONE SUCCESS
            look_up CUSTOM SUCCESS activity
              look_up CUSTOM SUCCESS activity_attempt
            use STANDALONE SUCCESS
          branch 1 STANDALONE SUCCESS
            look_up CUSTOM SUCCESS activity
              look_up CUSTOM SUCCESS activity_attempt
            use STANDALONE SUCCESS
          look_up CUSTOM SUCCESS activity
            look_up CUSTOM SUCCESS activity_attempt
          Ship AGENT_WORKFLOW SUCCESS child_workflow
            Ship AGENT_WORKFLOW SUCCESS workflow
              pack STANDALONE SUCCESS
              look_up CUSTOM SUCCESS activity
                look_up CUSTOM SUCCESS activity_attempt";
    let deeper = one_run.replace('\n', "\n  ");
    let root = "\n        Order AGENT_WORKFLOW SUCCESS workflow";
    assert_tree(&spans, &format!("{root}{one_run}{}{deeper}", root.replace('\n', "\n  ")));

    assert_eq!(errors(&spans), ["charge", "charge"]);
    let failed = spans.iter().find(|span| span.status == SpanStatus::Error).unwrap();
    assert_eq!(failed.metadata["error_type"], "Busy");
    assert_eq!(failed.metadata["error_message"], "card reader is busy");
    assert_eq!(failed.metadata["error_category"], "application");
    assert_eq!(failed.metadata["temporal.attempt"], 1);
    assert!(failed.metadata["temporal.queue_ms"].is_u64());
    let second = spans
        .iter()
        .find(|span| {
            span.name == "charge" && span.metadata.get("temporal.attempt") == Some(&2.into())
        })
        .unwrap();
    assert_eq!(second.output["charged"], 7);

    for span in spans.iter().filter(|span| span.name == "pay") {
        assert_eq!((&span.input["amount"], &span.metadata["currency"]), (&7.into(), &"EUR".into()));
    }
    let runs = spans.iter().filter(|span| span.name == "Order");
    assert!(runs.clone().count() == 2 && runs.clone().all(|run| run.output["charged"] == 7));
    assert!(runs.clone().all(|run| run.metadata["temporal.namespace"] == "default"));

    let statistics = fleet.spans.statistics();
    assert_eq!(statistics.recorded, spans.len() as u64);
    assert_eq!(statistics.delivered, spans.len() as u64);
    assert_eq!((statistics.deferred, statistics.dropped_total()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_a_caller_makes_a_trace_of_its_own_and_pins_ids() {
    let fleet = Fleet::new("own-trace").await;
    let mut options = fleet.worker_options();
    options.register_activities(Work).register_workflow::<Ship>().unwrap();

    while_running(fleet.worker(options), async {
        for _ in 0..2 {
            let start = fleet.client.start_workflow(Ship::run, 1u32, fleet.start_options());
            start.await.unwrap().get_result(WorkflowGetResultOptions::default()).await.unwrap();
        }
    })
    .await;

    let spans = fleet.sink.spans();
    let packs: Vec<_> = spans.iter().filter(|span| span.name == "pack").collect();
    assert_eq!(packs.len(), 2);
    assert_ne!(packs[0].trace_id, packs[1].trace_id);
    assert_ne!(packs[0].id, packs[1].id);
    assert!(spans.iter().all(|span| span.id.bits().is_some() && span.trace_id.bits().is_some()));
    let of_one = fleet.sink.trace(&packs[0].trace_id);
    assert_eq!(named(&of_one, "pack").parent_id, Some(named(&of_one, "Ship").id.clone()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memo_of_a_run_leads_to_its_trace() {
    use temporalio_common::MemoValues;

    let sink = MemorySink::new();
    let spans = DurableSpans::new(sink.clone()).traces_page("http://127.0.0.1:8790/");
    let fleet = Fleet::with("traces-page", spans, sink, Default::default()).await;
    let mut options = fleet.worker_options();
    options.register_activities(Work).register_workflow::<Ship>().unwrap();

    while_running(fleet.worker(options), async {
        let mut own = MemoValues::new();
        own.insert("trace_url", "mine".to_owned()).insert("other", 1u32);
        let mut with_own = fleet.start_options();
        with_own.memo = Some(own);
        for (options, expected) in [(fleet.start_options(), None), (with_own, Some("mine"))] {
            let handle = fleet.client.start_workflow(Ship::run, 1u32, options).await.unwrap();
            handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
            let run_id = handle.info().run_id.clone().unwrap();
            let spans = fleet.sink.spans();
            let root = spans
                .iter()
                .find(|span| span.metadata.get("temporal.run_id") == Some(&run_id.clone().into()));
            let trace_id = &root.unwrap().trace_id;
            let url = format!("http://127.0.0.1:8790/traces/{trace_id}");
            let memo = handle.describe(Default::default()).await.unwrap().memo();
            let stored = memo.get::<String>("trace_url").unwrap().unwrap();
            assert_eq!(stored, expected.map_or(url, str::to_owned));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memo_and_input_carry_a_context_where_no_header_can() {
    use temporalio_client::{ClientOptions, WorkflowStartOptions};
    use temporalio_common::MemoValues;

    let fleet = Fleet::new("explicit").await;
    let mut options = fleet.worker_options();
    options.register_activities(Work).register_workflow::<Ship>().unwrap();
    options.register_workflow::<crate::workflows::Told>().unwrap();
    // A client without our interceptor, as one in another language would be.
    let foreign = crate::harness::client(ClientOptions::new("default").build()).await;
    let context = TraceContext::new("ABC".parse().unwrap()).under("DEF".parse().unwrap());

    while_running(fleet.worker(options), async {
        let mut memo = MemoValues::new();
        memo.insert("trace_context", context.clone());
        let start = WorkflowStartOptions::new(fleet.queue.clone(), crate::harness::unique("memo"));
        let handle =
            foreign.start_workflow(Ship::run, 1u32, start.memo(memo).build()).await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();

        let input = crate::workflows::ToldInput { trace_context: context.clone(), words: 3 };
        let start = WorkflowStartOptions::new(fleet.queue.clone(), crate::harness::unique("input"));
        let handle = foreign
            .start_workflow(crate::workflows::Told::run, input, start.build())
            .await
            .unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
    })
    .await;

    let spans = fleet.sink.trace(&context.trace_id);
    assert_eq!(spans.len(), fleet.sink.spans().len());
    for name in ["Ship", "Told"] {
        assert_eq!(named(&spans, name).parent_id, context.span_id, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_generation_has_a_trace_of_its_own_by_choice_linked_to_the_one_before() {
    let sink = MemorySink::new();
    let spans = DurableSpans::new(sink.clone()).linked_generations(true);
    let fleet = Fleet::with("generations", spans, sink, Default::default()).await;
    let mut options = fleet.worker_options();
    options.register_activities(Work);
    options.register_workflow::<Order>().unwrap().register_workflow::<Ship>().unwrap();
    while_running(fleet.worker(options), async {
        let start = fleet.client.start_workflow(Order::run, 2u32, fleet.start_options());
        let handle = start.await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
    })
    .await;
    let spans = fleet.sink.spans();
    let roots: Vec<_> = spans.iter().filter(|span| span.name == "Order").collect();
    assert_eq!(roots.len(), 3);
    assert!(roots.iter().all(|root| root.parent_id.is_none()));
    for pair in roots.windows(2) {
        let [before, after] = pair else { unreachable!() };
        assert_ne!(before.trace_id, after.trace_id);
        let previous = |name| after.metadata[name].as_str().unwrap().to_owned();
        assert_eq!(previous("temporal.previous_trace_id"), before.trace_id.to_string());
        assert_eq!(previous("temporal.previous_span_id"), before.id.to_string());
    }
    let in_trace = |root: &&durable_spans::Span| fleet.sink.trace(&root.trace_id).len();
    assert_eq!(roots.iter().map(in_trace).collect::<Vec<_>>(), [in_trace(&roots[0]); 3]);
}
