//! Runs of every kind: with retries, children, local activities, signals, updates, continue-as-new;
//! completed, failed, cancelled, terminated and timed out.

use std::time::Duration;

use anyhow::Result;
use durable_spans::{SpanType, WorkflowSpans, current_span};
use temporalio_client::{
    Client, WorkflowCancelOptions, WorkflowExecuteUpdateOptions, WorkflowGetResultOptions,
    WorkflowHandle, WorkflowSignalOptions, WorkflowTerminateOptions,
};
use temporalio_common::{RetryPolicy, error::ApplicationFailure};
use temporalio_macros::{activities, workflow, workflow_methods};
use temporalio_sdk::{
    ActivityOptions, ChildWorkflowOptions, ContinueAsNewOptions, LocalActivityOptions,
    SyncWorkflowContext, WorkflowContext, WorkflowResult,
    activities::{ActivityContext, ActivityError},
    workflows::join_all,
};

use crate::support::Setup;

/// How long a run that is to time out may take.
const RUN_TIMEOUT: Duration = Duration::from_secs(4);

pub(crate) struct Shop;

#[activities]
impl Shop {
    /// The card reader is busy at first.
    #[activity(name = "charge")]
    pub(crate) async fn charge(ctx: ActivityContext, amount: u32) -> Result<u32, ActivityError> {
        if ctx.info().attempt == 1 {
            let busy = ApplicationFailure::builder("the card reader is busy");
            return Err(busy.type_name("Busy".to_owned()).build().into());
        }
        current_span().output("charged", amount);
        Ok(amount)
    }

    #[activity(name = "price")]
    pub(crate) async fn price(_ctx: ActivityContext, item: u32) -> Result<u32, ActivityError> {
        Ok(item * 3)
    }

    #[activity(name = "deliver")]
    pub(crate) async fn deliver(_ctx: ActivityContext, item: u32) -> Result<u32, ActivityError> {
        let no_such_item = || ApplicationFailure::builder("no such item").non_retryable(true);
        if item == 0 { Err(no_such_item().build().into()) } else { Ok(item) }
    }
}

fn quickly() -> ActivityOptions {
    let mut retry = RetryPolicy::default();
    retry.set_initial_interval(Duration::from_millis(20));
    ActivityOptions::with_start_to_close_timeout(Duration::from_secs(10))
        .retry_policy(retry)
        .build()
}

/// Pays for some items, has them delivered, and goes on with the next order in a new run.
#[workflow]
#[derive(Default)]
pub(crate) struct Order;

#[workflow_methods]
impl Order {
    #[run(name = "Order")]
    pub(crate) async fn run(
        ctx: &mut WorkflowContext<Self>,
        orders: Vec<u32>,
    ) -> WorkflowResult<()> {
        let Some((item, rest)) = orders.split_first() else { return Ok(()) };
        let prices = (0..3u32).map(|part| {
            let ctx = &*ctx;
            ctx.span(format!("part {part}"))
                .input("part", part)
                .try_scope(async move { ctx.execute_activity(Shop::price, part, quickly()).await })
        });
        let sum: u32 = join_all(prices).await.into_iter().filter_map(|price| price.ok()).sum();
        ctx.span("pay")
            .span_type(SpanType::Custom)
            .input("sum", sum)
            .try_scope(async { ctx.execute_activity(Shop::charge, sum, quickly()).await })
            .await?;
        ctx.execute_local_activity(Shop::price, sum, LocalActivityOptions::default()).await?;
        ctx.timer(Duration::from_millis(50)).await;
        let delivery = ChildWorkflowOptions::default();
        ctx.start_child_workflow(Delivery::run, *item, delivery).await?.result().await?;
        if !rest.is_empty() {
            ctx.continue_as_new(rest.to_vec(), ContinueAsNewOptions::default())?;
        }
        Ok(())
    }
}

#[workflow]
#[derive(Default)]
pub(crate) struct Delivery;

#[workflow_methods]
impl Delivery {
    #[run(name = "Delivery")]
    pub(crate) async fn run(ctx: &mut WorkflowContext<Self>, item: u32) -> WorkflowResult<u32> {
        let pack = ctx.span("pack").input("item", item);
        let packed =
            pack.try_scope(async { ctx.execute_activity(Shop::deliver, item, quickly()).await });
        Ok(packed.await?)
    }
}

/// Answers until it is told to close.
#[workflow]
#[derive(Default)]
pub(crate) struct Desk {
    closed: bool,
}

/// What a desk records that was asked once, waits to be closed, and is not: the run, the shift, the
/// question with its span, activity and attempt, the note with its span, the unfinished last call.
pub(crate) const SPANS_OF_AN_UNFINISHED_DESK: usize = 9;

#[workflow_methods]
impl Desk {
    #[run(name = "Desk")]
    pub(crate) async fn run(ctx: &mut WorkflowContext<Self>, _: ()) -> WorkflowResult<()> {
        let shift = ctx.span("shift").input("desk", 7).start();
        let call = ctx.span("last call").child_of(&shift);
        call.scope(async {
            ctx.wait_condition(|desk: &Self| desk.closed).await.ok();
        })
        .await;
        Ok(())
    }

    #[signal(name = "note")]
    pub(crate) fn note(&mut self, ctx: &mut SyncWorkflowContext<Self>, text: String) {
        ctx.span("noted").input("text", &text).in_scope(|_| self.closed = text == "close");
    }

    #[update(name = "ask")]
    pub(crate) async fn ask(
        ctx: &mut WorkflowContext<Self>,
        item: u32,
    ) -> Result<u32, Box<dyn std::error::Error + Send + Sync>> {
        let look = ctx
            .span("look it up")
            .try_scope(async { ctx.execute_activity(Shop::price, item, quickly()).await });
        Ok(look.await?)
    }
}

/// How many runs [`run`] makes.
pub(crate) const RUNS: usize = 12;

/// Makes the runs, and waits until all have ended. Returns the query that finds them.
pub(crate) async fn run(setup: &Setup) -> Result<String> {
    let client = &setup.client;
    // Three runs with a child each, the last of which fails.
    let orders = client.start_workflow(Order::run, vec![2, 1, 0], setup.start_options("orders"));
    let orders = orders.await?;
    let single = client.start_workflow(Order::run, vec![5], setup.start_options("order")).await?;
    let cancelled = client.start_workflow(Order::run, vec![5, 6], setup.start_options("cancelled"));
    let cancelled = cancelled.await?;
    cancelled.cancel(WorkflowCancelOptions::default()).await?;

    for close in [true, false] {
        let desk = asked(setup, None).await?;
        if close {
            let signal =
                desk.signal(Desk::note, "close".to_owned(), WorkflowSignalOptions::default());
            signal.await?;
            desk.get_result(WorkflowGetResultOptions::default()).await?;
        } else {
            let reason = "the shop is closed";
            desk.terminate(WorkflowTerminateOptions::builder().reason(reason).build()).await?;
        }
    }
    let timed_out = asked(setup, Some(RUN_TIMEOUT)).await?;

    single.get_result(WorkflowGetResultOptions::default()).await?;
    // How these end is no news.
    let _ = orders.get_result(WorkflowGetResultOptions::default()).await;
    let _ = cancelled.get_result(WorkflowGetResultOptions::default()).await;
    let _ = timed_out.get_result(WorkflowGetResultOptions::default()).await;
    Ok(format!("TaskQueue = '{}'", setup.start_options("").task_queue))
}

async fn asked(
    setup: &Setup,
    run_timeout: Option<Duration>,
) -> Result<WorkflowHandle<Client, desk::Run>> {
    let mut options = setup.start_options("desk");
    options.run_timeout = run_timeout;
    let desk = setup.client.start_workflow(Desk::run, (), options).await?;
    let note = desk.signal(Desk::note, "open".to_owned(), WorkflowSignalOptions::default());
    note.await?;
    desk.execute_update(Desk::ask, 4u32, WorkflowExecuteUpdateOptions::default()).await?;
    Ok(desk)
}
