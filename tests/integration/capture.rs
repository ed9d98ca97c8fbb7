//! What goes in and comes out, what is taken out of spans, and who is told of them.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use durable_spans::{
    Capture, DurableSpans, MemorySink, Span, SpanProcessor, WorkflowSpans, in_trace, new_trace,
    span,
};
use futures::{FutureExt, future::BoxFuture};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use temporalio_client::{WorkflowExecuteUpdateOptions, WorkflowGetResultOptions};
use temporalio_macros::{activities, workflow, workflow_methods};
use temporalio_sdk::{
    SyncWorkflowContext, WorkflowContext, WorkflowResult,
    activities::{ActivityContext, ActivityError},
};

use crate::{
    harness::{Fleet, facts, of_workflow, replayed_spans, tree, while_running},
    workflows::quickly,
};

#[derive(Clone, Serialize, Deserialize)]
struct Order {
    item: String,
    api_key: String,
}

#[derive(Serialize, Deserialize)]
struct Parcel {
    weight: u32,
}

struct Shop;

#[activities]
impl Shop {
    #[activity(name = "pack")]
    async fn pack(_ctx: ActivityContext, order: Order) -> Result<Parcel, ActivityError> {
        span("wrap").in_scope(|wrap| wrap.input("paper", "brown"));
        Ok(Parcel { weight: order.item.len() as u32 })
    }

    #[activity(name = "post")]
    async fn post(_ctx: ActivityContext, to: String) -> Result<String, ActivityError> {
        Ok(format!("posted to {to}"))
    }
}

#[workflow]
#[derive(Default)]
struct Sale {
    coupon: u32,
}

#[workflow_methods]
impl Sale {
    #[run(name = "Sale")]
    async fn run(ctx: &mut WorkflowContext<Self>, order: Order) -> WorkflowResult<u32> {
        let packing = ctx.span("packing").input("order", &order).tag("mine");
        let parcel = packing
            .try_scope(async { ctx.execute_activity(Shop::pack, order, quickly()).await })
            .await?;
        ctx.execute_activity(Shop::post, "Ada".to_owned(), quickly()).await?;
        ctx.wait_condition(|sale| sale.coupon > 0).await?;
        Ok(parcel.weight)
    }

    #[update(name = "redeem")]
    fn redeem(&mut self, _ctx: &mut SyncWorkflowContext<Self>, coupon: u32) -> String {
        self.coupon = coupon;
        "thanks".to_owned()
    }
}

/// Runs a sale and returns its spans.
async fn sale(spans: impl FnOnce(DurableSpans) -> DurableSpans) -> (Fleet, Vec<Span>, String) {
    let sink = MemorySink::new();
    let spans = spans(DurableSpans::new(sink.clone()));
    let fleet = Fleet::with("capture", spans, sink, Default::default()).await;
    let mut options = fleet.worker_options();
    options.register_activities(Shop).register_workflow::<Sale>().unwrap();
    let workflow_id = while_running(fleet.worker(options), async {
        let order = Order { item: "book".into(), api_key: "hunter2".into() };
        let context = new_trace().shared("tenant", "acme").unwrap().shared_tag("beta").unwrap();
        let start = fleet.client.start_workflow(Sale::run, order, fleet.start_options());
        let handle = in_trace(context, start).await.unwrap();
        let options = WorkflowExecuteUpdateOptions::default();
        handle.execute_update(Sale::redeem, 5u32, options).await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        handle.info().workflow_id.clone()
    })
    .await;
    fleet.spans.flush(Duration::from_secs(5)).await;
    let spans = fleet.sink.spans();
    (fleet, spans, workflow_id)
}

/// Input and output of the span of that name and kind.
fn data(spans: &[Span], name: &str, kind: Option<&str>) -> (Value, Value) {
    let kind = kind.map(Value::from);
    let found = spans
        .iter()
        .find(|span| span.name == name && span.metadata.get("temporal.kind") == kind.as_ref())
        .unwrap_or_else(|| panic!("no {kind:?} {name} in\n{}", tree(spans)));
    (found.input.clone().into(), found.output.clone().into())
}

const MARK: &str = "[REDACTED:credential]";

#[tokio::test(flavor = "multi_thread")]
async fn inputs_and_outputs_are_captured_without_credentials_and_replay_the_same() {
    let (fleet, spans, workflow_id) = sale(|spans| spans.show_values_of::<Order>()).await;
    let order = json!({"item": "book", "api_key": MARK});
    let (run, update) = (Some("workflow"), Some("update"));
    let (activity, attempt) = (Some("activity"), Some("activity_attempt"));
    assert_eq!(data(&spans, "Sale", run), (order.clone(), json!({"output": 4})));
    assert_eq!(data(&spans, "packing", None), (json!({"order": order.clone()}), json!({})));
    assert_eq!(data(&spans, "pack", activity), (order, json!({})));
    // Of a type that only the activity's own worker knows how to write.
    assert_eq!(data(&spans, "pack", attempt), (json!({}), json!({"weight": 4})));
    assert_eq!(data(&spans, "wrap", None), (json!({"paper": "brown"}), json!({})));
    let posted = (json!({"input": "Ada"}), json!({"output": "posted to Ada"}));
    assert_eq!(data(&spans, "post", activity), posted);
    assert_eq!(data(&spans, "post", attempt), (json!({}), json!({})));
    assert_eq!(data(&spans, "redeem", update), (json!({"input": 5}), json!({"output": "thanks"})));
    assert!(!format!("{spans:?}").contains("hunter2"));

    assert!(spans.iter().all(|span| span.metadata["tenant"] == "acme"), "{}", tree(&spans));
    for span in &spans {
        let mine = if span.name == "packing" { json!(["beta", "mine"]) } else { json!(["beta"]) };
        assert_eq!(span.metadata["tags"], mine, "{}", span.name);
    }

    let history = fleet.history(&workflow_id, None);
    let replayed = replayed_spans(history, |options| {
        options.register_workflow::<Sale>().unwrap();
    })
    .await;
    // The replayer of this test was not told to show orders.
    let without_order = |spans: &[Span]| {
        let mut spans: Vec<Span> =
            of_workflow(spans).into_iter().filter(|span| span.name != "wrap").collect();
        spans.iter_mut().filter(|span| span.name == "pack").for_each(|span| span.input.clear());
        facts(&spans)
    };
    assert_eq!(without_order(&replayed), without_order(&spans));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_switch_keeps_outputs_only_or_nothing_and_types_can_be_hidden() {
    let (_, spans, _) = sale(|spans| spans.capture(Capture::Outputs)).await;
    assert!(spans.iter().all(|span| span.input.is_empty()));
    assert_eq!(spans.iter().filter(|span| !span.output.is_empty()).count(), 4);

    let (_, spans, _) = sale(|spans| spans.capture(Capture::Nothing)).await;
    assert!(spans.iter().all(|span| span.input.is_empty() && span.output.is_empty()));

    let hide = |spans: DurableSpans| spans.hide_values_of::<Order>().hide_values_of::<Parcel>();
    let (_, spans, _) = sale(hide).await;
    assert_eq!(data(&spans, "Sale", Some("workflow")).0, json!({}));
    assert_eq!(data(&spans, "pack", Some("activity_attempt")).1, json!({}));
    assert_eq!(data(&spans, "post", Some("activity")).0, json!({"input": "Ada"}));
}

#[derive(Clone, Default)]
struct Told {
    log: Arc<Mutex<Vec<String>>>,
    flushed: Arc<AtomicBool>,
    shut_down: Arc<AtomicBool>,
}

impl SpanProcessor for Told {
    fn on_start(&self, span: &Span) {
        self.log.lock().unwrap().push(format!("start {}", span.id));
    }

    fn on_end(&self, span: &Span) {
        self.log.lock().unwrap().push(format!("end {}", span.id));
    }

    fn force_flush(&self) -> BoxFuture<'_, ()> {
        async { self.flushed.store(true, Ordering::Relaxed) }.boxed()
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        async { self.shut_down.store(true, Ordering::Relaxed) }.boxed()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_change_spans_everywhere_and_processors_are_told_of_each_once() {
    let (first, second) = (Told::default(), Told::default());
    let (fleet, spans, _) = sale(|spans| {
        spans
            .on_start(|span| span.add_tag("seen"))
            .on_end(|span| span.set_metric("fields", span.input.len() as f64))
            .redactor(|span| {
                span.input.remove("item");
            })
            .processor(first.clone())
            .processor(second.clone())
    })
    .await;
    assert!(!spans.is_empty());
    for span in &spans {
        assert!(span.metadata["tags"].as_array().unwrap().contains(&json!("seen")), "{span:?}");
        assert!(span.metadata["metrics"]["fields"].is_number(), "{span:?}");
        assert!(!span.input.contains_key("item"), "{span:?}");
    }
    fleet.spans.shutdown(Duration::from_secs(5)).await;
    for told in [first, second] {
        assert!(told.flushed.load(Ordering::Relaxed) && told.shut_down.load(Ordering::Relaxed));
        let log = told.log.lock().unwrap().clone();
        assert_eq!(log.len(), 2 * spans.len());
        for span in &spans {
            let at = |what| log.iter().position(|line| *line == format!("{what} {}", span.id));
            assert!(at("start").unwrap() < at("end").unwrap());
        }
    }
}
