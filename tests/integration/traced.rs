//! `#[traced]` in client, workflow and activity code, on a real server.

mod functions;

use std::sync::Arc;

use durable_spans::{Span, WorkflowSpans, current_span, traced};
use serde_json::json;
use temporalio_client::{WorkflowGetResultOptions, WorkflowSignalOptions};
use temporalio_common::error::ApplicationFailure;
use temporalio_macros::{activities, workflow, workflow_methods};
use temporalio_sdk::{
    SyncWorkflowContext, WorkflowContext, WorkflowResult, WorkflowTermination,
    activities::{ActivityContext, ActivityError},
};

use crate::{
    harness::{Fleet, all_ended, assert_tree, facts, named, replayed_spans, while_running},
    workflows::quickly,
};

struct Kitchen {
    oven: String,
}

#[activities]
impl Kitchen {
    #[traced(output)]
    #[activity(name = "bake")]
    async fn bake(self: Arc<Self>, ctx: ActivityContext, cakes: u32) -> Result<u32, ActivityError> {
        let _ = (&self.oven, ctx);
        mix(cakes, &["flour"])?;
        Ok(cakes)
    }

    #[activity(name = "unlock")]
    #[traced(redact(code))]
    async fn unlock(_ctx: ActivityContext, door: String, code: u32) -> Result<(), ActivityError> {
        let _ = code;
        current_span().metadata("opened", door);
        Ok(())
    }
}

/// A function that activities call.
#[traced]
fn mix(cakes: u32, with: &[&str]) -> Result<(), ActivityError> {
    if cakes == 0 {
        let failure = ApplicationFailure::builder("nothing to mix");
        return Err(failure.type_name("Empty".to_owned()).build().into());
    }
    let _ = with;
    Ok(())
}

#[workflow]
#[derive(Default)]
struct Bakery {
    guests: Vec<String>,
}

#[workflow_methods]
impl Bakery {
    #[traced(output)]
    #[run(name = "TracedBakery")]
    async fn run(ctx: &mut WorkflowContext<Self>, cakes: u32) -> WorkflowResult<u32> {
        ctx.wait_condition(|bakery| !bakery.guests.is_empty()).await?;
        let recipe = weigh(ctx, cakes);
        let baked = shift(ctx, cakes, &recipe).await?;
        let counter = Counter { ctx: ctx.clone(), price: 3 };
        assert_eq!(counter.sell(2), 6);
        assert!(refuse(ctx, "bread").is_err());
        let helpers = futures::future::join(step(ctx.clone(), 1), step(ctx.clone(), 2));
        assert_eq!(helpers.await, (1, 2));
        Ok(baked)
    }

    #[signal]
    #[traced]
    fn come(&mut self, ctx: &mut SyncWorkflowContext<Self>, guest: String) {
        greet(ctx, &guest);
        self.guests.push(guest);
    }
}

#[traced(span_type = DataManipulation)]
fn weigh(ctx: &impl WorkflowSpans, cakes: u32) -> Vec<u32> {
    ctx.current_span().metric("grams", 0.5);
    vec![cakes; 2]
}

#[traced(name = "morning shift", output)]
async fn shift<W>(
    ctx: &mut WorkflowContext<W>,
    cakes: u32,
    recipe: &[u32],
) -> Result<u32, WorkflowTermination> {
    assert_eq!(recipe.len(), 2);
    ctx.execute_activity(Kitchen::unlock, ("front".to_owned(), 1234), quickly()).await?;
    Ok(ctx.execute_activity(Kitchen::bake, cakes, quickly()).await?)
}

#[traced]
async fn step<W>(ctx: WorkflowContext<W>, number: u32) -> u32 {
    ctx.timer(std::time::Duration::from_millis(1)).await;
    ctx.span("inside").start().end();
    number
}

#[traced(ctx = place)]
fn refuse<C: WorkflowSpans>(place: &C, wish: &str) -> Result<(), String> {
    place.current_span().tag("sold out");
    Err(format!("no {wish}"))
}

#[traced]
fn greet(ctx: &mut SyncWorkflowContext<Bakery>, guest: &str) {
    ctx.span("wave").start().end();
    let _ = guest;
}

struct Counter<W> {
    ctx: WorkflowContext<W>,
    price: u32,
}

impl<W> Counter<W> {
    #[traced(ctx = self.ctx, output)]
    fn sell(&self, pieces: u32) -> u32 {
        pieces * self.price
    }
}

#[traced(skip(fleet))]
async fn order(fleet: &Fleet, cakes: u32) -> Result<(u32, String), anyhow::Error> {
    let start = fleet.start_options();
    let handle = fleet.client.start_workflow(Bakery::run, cakes, start).await?;
    let guest = "Ada".to_owned();
    handle.signal(Bakery::come, guest, WorkflowSignalOptions::default()).await?;
    let baked = handle.get_result(WorkflowGetResultOptions::default()).await?;
    Ok((baked, handle.info().workflow_id.clone()))
}

#[tokio::test(flavor = "multi_thread")]
async fn traced_functions_of_client_workflow_and_activity_code_make_one_tree() {
    let fleet = Fleet::new("traced").await;
    let mut options = fleet.worker_options();
    let kitchen = Kitchen { oven: "left".to_owned() };
    options.register_activities(kitchen).register_workflow::<Bakery>().unwrap();
    let (baked, workflow_id) = while_running(fleet.worker(options), async {
        fleet.spans.trace("bake a cake").scope(order(&fleet, 12)).await.unwrap()
    })
    .await;
    fleet.spans.flush(std::time::Duration::from_secs(5)).await;
    assert_eq!(baked, 12);

    let spans = fleet.sink.spans();
    assert!(all_ended(&spans));
    // The signal hangs under its sender, and may come before or with the run's start.
    let (of_signal, others): (Vec<Span>, Vec<Span>) =
        spans.iter().cloned().partition(|span| ["come", "greet", "wave"].contains(&&*span.name));
    assert_tree(
        &of_signal,
        "
        come STANDALONE SUCCESS signal
          greet STANDALONE SUCCESS
            wave STANDALONE SUCCESS
        ",
    );
    assert_eq!(named(&spans, "come").parent_id.as_ref(), Some(&named(&spans, "order").id));
    assert_tree(
        &others,
        "
        bake a cake STANDALONE SUCCESS
          order STANDALONE SUCCESS
            TracedBakery AGENT_WORKFLOW SUCCESS workflow
              weigh DATA_MANIPULATION SUCCESS
              morning shift STANDALONE SUCCESS
                unlock CUSTOM SUCCESS activity
                  unlock CUSTOM SUCCESS activity_attempt
                bake CUSTOM SUCCESS activity
                  bake CUSTOM SUCCESS activity_attempt
                    mix STANDALONE SUCCESS
              sell STANDALONE SUCCESS
              refuse STANDALONE ERROR
              step STANDALONE SUCCESS
                inside STANDALONE SUCCESS
              step STANDALONE SUCCESS
                inside STANDALONE SUCCESS
        ",
    );
    let input = |name| serde_json::Value::from(named(&spans, name).input.clone());
    assert_eq!(input("order"), json!({"cakes": 12}));
    assert_eq!(input("morning shift"), json!({"cakes": 12, "recipe": [12, 12]}));
    assert_eq!(named(&spans, "morning shift").output["output"], 12);
    assert_eq!(named(&spans, "weigh").metadata["metrics"]["grams"], 0.5);
    assert_eq!(input("mix"), json!({"cakes": 12, "with": ["flour"]}));
    assert_eq!(named(&spans, "sell").output["output"], 6);
    assert_eq!(input("refuse"), json!({"wish": "bread"}));
    assert_eq!(named(&spans, "refuse").metadata["tags"][0], "sold out");

    // What is a span already gets the arguments of its function, and no second span.
    let run = named(&spans, "TracedBakery");
    assert_eq!((&run.input["cakes"], &run.output["output"]), (&json!(12), &json!(12)));
    assert_eq!(named(&spans, "come").input["guest"], "Ada");
    let attempt = |name| {
        let is_attempt = |span: &&Span| span.metadata["temporal.kind"] == "activity_attempt";
        spans.iter().filter(|span| span.name == name).find(is_attempt).unwrap()
    };
    assert_eq!(
        (&attempt("bake").input["cakes"], &attempt("bake").output["output"]),
        (&json!(12), &json!(12))
    );
    let unlock = attempt("unlock");
    assert_eq!(json!(unlock.input), json!({"door": "front", "code": "[REDACTED]"}));
    assert_eq!(unlock.metadata["opened"], "front");

    let replayed = replayed_spans(fleet.history(&workflow_id, None), |options| {
        options.register_workflow::<Bakery>().unwrap();
    })
    .await;
    let replayed_ids: Vec<_> = replayed.iter().map(|span| &span.id).collect();
    let live: Vec<Span> =
        spans.iter().filter(|span| replayed_ids.contains(&&span.id)).cloned().collect();
    assert_eq!(live.len(), 14);
    assert_eq!(facts(&replayed), facts(&live));
}
