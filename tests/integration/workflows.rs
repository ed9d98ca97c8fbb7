//! The workflows and activities under test.

use std::time::Duration;

use durable_spans::{SpanType, WorkflowSpans, current_span};
use futures::FutureExt;
use temporalio_common::error::ApplicationFailure;
use temporalio_macros::{activities, workflow, workflow_methods};
use temporalio_sdk::{
    ActivityOptions, ChildWorkflowOptions, ContinueAsNewOptions, LocalActivityOptions,
    ParentClosePolicy, SignalWorkflowOptions, SyncWorkflowContext, WorkflowContext,
    WorkflowContextView, WorkflowResult, WorkflowTermination,
    activities::{ActivityContext, ActivityError},
    workflows::{join, join_all, select},
};

pub(crate) struct Work;

#[activities]
impl Work {
    /// Fails at its first attempt.
    #[activity(name = "charge")]
    pub(crate) async fn charge(ctx: ActivityContext, amount: u32) -> Result<u32, ActivityError> {
        if ctx.info().attempt == 1 {
            return Err(ApplicationFailure::builder("card reader is busy")
                .type_name("Busy".to_owned())
                .build()
                .into());
        }
        current_span().output("charged", amount);
        Ok(amount)
    }

    #[activity(name = "look_up")]
    pub(crate) async fn look_up(_ctx: ActivityContext, item: u32) -> Result<u32, ActivityError> {
        Ok(item * 2)
    }

    /// Takes so many milliseconds.
    #[activity(name = "doze")]
    pub(crate) async fn doze(_ctx: ActivityContext, ms: u64) -> Result<(), ActivityError> {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        Ok(())
    }

    /// Never ends by itself, and never says that it is alive.
    #[activity(name = "hang")]
    pub(crate) async fn hang(ctx: ActivityContext, _: ()) -> Result<(), ActivityError> {
        ctx.cancelled().await;
        Err(ActivityError::cancelled())
    }

    /// Fails at each attempt.
    #[activity(name = "fail")]
    pub(crate) async fn fail(_ctx: ActivityContext, _secret: String) -> Result<(), ActivityError> {
        let failure = ApplicationFailure::builder("card reader is broken");
        Err(failure.type_name("Broken".to_owned()).build().into())
    }

    /// Fails for ever.
    #[activity(name = "explode")]
    pub(crate) async fn explode(_ctx: ActivityContext, _: ()) -> Result<(), ActivityError> {
        Err(ApplicationFailure::builder("no way")
            .type_name("Impossible".to_owned())
            .non_retryable(true)
            .build()
            .into())
    }
}

pub(crate) fn quickly() -> ActivityOptions {
    let mut retry = temporalio_common::RetryPolicy::default();
    retry.set_initial_interval(Duration::from_millis(10));
    ActivityOptions::with_start_to_close_timeout(Duration::from_secs(10))
        .retry_policy(retry)
        .build()
}

/// A bit of everything, continued as new once.
#[workflow]
#[derive(Default)]
pub(crate) struct Order;

#[workflow_methods]
impl Order {
    #[run(name = "Order")]
    pub(crate) async fn run(ctx: &mut WorkflowContext<Self>, rest: u32) -> WorkflowResult<u32> {
        let charged = ctx
            .span("pay")
            .span_type(SpanType::Custom)
            .input("amount", 7)
            .try_scope(async {
                ctx.current_span().metadata("currency", "EUR");
                ctx.span("check").start().output("ok", true);
                ctx.execute_activity(Work::charge, 7u32, quickly()).await
            })
            .await?;
        let branches = (0..2u32).map(|item| {
            let ctx = &*ctx;
            ctx.span(format!("branch {item}")).try_scope(async move {
                let found = ctx.execute_activity(Work::look_up, item, quickly()).await?;
                ctx.span("use").metadata("found", found).start().end();
                WorkflowResult::Ok(found)
            })
        });
        join_all(branches).await;
        ctx.execute_local_activity(Work::look_up, 21u32, LocalActivityOptions::default()).await?;
        let child =
            ctx.start_child_workflow(Ship::run, charged, ChildWorkflowOptions::default()).await?;
        child.result().await?;
        ctx.current_span().output("charged", charged);
        if rest > 0 {
            ctx.continue_as_new(rest - 1, ContinueAsNewOptions::default())?;
        }
        Ok(charged)
    }
}

#[workflow]
#[derive(Default)]
pub(crate) struct Ship;

#[workflow_methods]
impl Ship {
    #[run(name = "Ship")]
    pub(crate) async fn run(ctx: &mut WorkflowContext<Self>, item: u32) -> WorkflowResult<u32> {
        let packed = ctx.span("pack").scope(async { item }).await;
        Ok(ctx.execute_activity(Work::look_up, packed, quickly()).await?)
    }
}

/// Waits between its steps, so that a test can stop the worker in the middle.
#[workflow]
#[derive(Default)]
pub(crate) struct Paused {
    released: u32,
    notes: Vec<String>,
}

#[workflow_methods]
impl Paused {
    #[run(name = "Paused")]
    pub(crate) async fn run(ctx: &mut WorkflowContext<Self>, steps: u32) -> WorkflowResult<u32> {
        let whole = ctx.span("whole").start();
        for step in 0..steps {
            ctx.span(format!("step {step}"))
                .child_of(&whole)
                .try_scope(async {
                    ctx.execute_activity(Work::look_up, step, quickly()).await?;
                    ctx.wait_condition(|state: &Self| state.released > step).await?;
                    WorkflowResult::Ok(())
                })
                .await?;
        }
        whole.output("steps", steps);
        Ok(steps)
    }

    #[signal(name = "release")]
    pub(crate) fn release(&mut self, ctx: &mut SyncWorkflowContext<Self>, note: String) {
        ctx.span("noted").input("note", &note).in_scope(|_| self.notes.push(note));
        self.released += 1;
    }

    #[update(name = "ask")]
    pub(crate) async fn ask(
        ctx: &mut WorkflowContext<Self>,
        item: u32,
    ) -> Result<u32, Box<dyn std::error::Error + Send + Sync>> {
        let found = ctx
            .span("asking")
            .try_scope(async { ctx.execute_activity(Work::look_up, item, quickly()).await })
            .await?;
        Ok(found)
    }

    #[update_validator(ask)]
    pub(crate) fn check_ask(
        &self,
        _ctx: &WorkflowContextView,
        item: &u32,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if *item > 100 { Err("too large".into()) } else { Ok(()) }
    }

    #[query(name = "notes")]
    pub(crate) fn notes(&self, _ctx: &WorkflowContextView) -> Vec<String> {
        self.notes.clone()
    }
}

pub(crate) use paused::Run as PausedRun;
pub(crate) use quiet::Run as QuietRun;

/// Fails, or waits to be cancelled.
#[workflow]
#[derive(Default)]
pub(crate) struct Doomed;

#[workflow_methods]
impl Doomed {
    #[run(name = "Doomed")]
    pub(crate) async fn run(ctx: &mut WorkflowContext<Self>, how: String) -> WorkflowResult<()> {
        ctx.span("before").start().end();
        let _open = ctx.span("open").start();
        match how.as_str() {
            "fail" => {
                ctx.span("risky")
                    .try_scope(async { ctx.execute_activity(Work::explode, (), quickly()).await })
                    .await?;
            }
            "benign" => {
                let failure = ApplicationFailure::builder("nothing to do")
                    .category(temporalio_common::error::ApplicationErrorCategory::Benign)
                    .build();
                return Err(failure.into());
            }
            _ => {
                ctx.cancelled().await;
                return Err(WorkflowTermination::cancelled());
            }
        }
        Ok(())
    }
}

/// Ten activities in a row, for what they cost.
#[workflow]
#[derive(Default)]
pub(crate) struct Ten;

#[workflow_methods]
impl Ten {
    #[run(name = "Ten")]
    pub(crate) async fn run(ctx: &mut WorkflowContext<Self>, _: ()) -> WorkflowResult<()> {
        for item in 0..10u32 {
            ctx.execute_activity(Work::look_up, item, quickly()).await?;
        }
        Ok(())
    }
}

/// In-workflow spans and nothing else.
#[workflow]
#[derive(Default)]
pub(crate) struct Quiet;

#[workflow_methods]
impl Quiet {
    #[run(name = "Quiet")]
    pub(crate) async fn run(ctx: &mut WorkflowContext<Self>, spans: u32) -> WorkflowResult<()> {
        record(ctx, spans);
        Ok(())
    }
}

fn record<W>(ctx: &WorkflowContext<W>, spans: u32) {
    for step in 0..spans {
        ctx.span("step").input("n", step).start().output("text", "x".repeat(300));
    }
}

/// The same workflow as several versions of its code would have it: the same operations, other
/// spans: so many of them per round, with this name and type, before or after the operations.
macro_rules! versions {
    ($($name:ident = $spans:literal, $label:literal, $span_type:ident, $early:literal;)*) => {$(
        #[workflow]
        #[derive(Default)]
        pub(crate) struct $name;

        #[workflow_methods]
        impl $name {
            #[run(name = "Versioned")]
            pub(crate) async fn run(ctx: &mut WorkflowContext<Self>, rounds: u32) -> WorkflowResult<()> {
                for round in 0..rounds {
                    let spans: u32 = $spans;
                    let record = || {
                        for _ in 0..spans {
                            ctx.span($label).span_type(SpanType::$span_type).start().end();
                        }
                    };
                    if $early {
                        record();
                    }
                    let slow = async {
                        if spans > 0 {
                            ctx.span($label).scope(ctx.timer(Duration::from_millis(20))).await;
                        } else {
                            ctx.timer(Duration::from_millis(20)).await;
                        }
                    };
                    join!(slow, async {
                        ctx.execute_activity(Work::look_up, round, quickly()).await.ok();
                    });
                    if !$early {
                        record();
                    }
                }
                Ok(())
            }
        }
    )*};
}

versions! {
    Recorded = 3, "a", Standalone, true;
    TenTimesMore = 30, "a", Standalone, true;
    Fewer = 1, "a", Standalone, true;
    Renamed = 3, "b", Standalone, true;
    Retyped = 3, "a", Custom, true;
    Reordered = 3, "a", Standalone, false;
    Silent = 0, "", Standalone, true;
}

#[derive(serde::Serialize, serde::Deserialize)]
pub(crate) struct ToldInput {
    pub(crate) trace_context: durable_spans::TraceContext,
    pub(crate) words: u32,
}

/// Is told its trace in its input.
#[workflow]
#[derive(Default)]
pub(crate) struct Told;

#[workflow_methods]
impl Told {
    #[run(name = "Told")]
    pub(crate) async fn run(
        _ctx: &mut WorkflowContext<Self>,
        input: ToldInput,
    ) -> WorkflowResult<u32> {
        Ok(input.words)
    }
}

/// Spans with names of the caller's choice, and one activity.
#[workflow]
#[derive(Default)]
pub(crate) struct Named;

#[workflow_methods]
impl Named {
    #[run(name = "Named")]
    pub(crate) async fn run(
        ctx: &mut WorkflowContext<Self>,
        names: Vec<String>,
    ) -> WorkflowResult<()> {
        for name in names {
            ctx.span(name).start().end();
        }
        ctx.execute_activity(Work::look_up, 1u32, quickly()).await?;
        Ok(())
    }
}

/// Waits for the first of two, and drops the other.
#[workflow]
#[derive(Default)]
pub(crate) struct Race;

#[workflow_methods]
impl Race {
    #[run(name = "Race")]
    pub(crate) async fn run(ctx: &mut WorkflowContext<Self>, _: ()) -> WorkflowResult<()> {
        let ctx = &*ctx;
        let mut loser = Box::pin(
            ctx.span("loser")
                .scope(async {
                    let nobody_waits = ctx.execute_activity(Work::look_up, 1u32, quickly());
                    ctx.timer(Duration::from_secs(3600)).await;
                    nobody_waits.await.ok();
                })
                .fuse(),
        );
        let mut winner =
            Box::pin(ctx.span("winner").scope(ctx.timer(Duration::from_millis(50))).fuse());
        select! {
            _ = winner => (),
            _ = loser => (),
        }
        drop(loser);
        ctx.span("after").start().end();
        Ok(())
    }
}

/// More than its buffer may hold.
#[workflow]
#[derive(Default)]
pub(crate) struct Large;

#[workflow_methods]
impl Large {
    #[run(name = "Large")]
    pub(crate) async fn run(ctx: &mut WorkflowContext<Self>, spans: u32) -> WorkflowResult<()> {
        ctx.span("large").input("text", "x".repeat(5_000_000)).start().end();
        record(ctx, spans);
        Ok(())
    }
}

/// Hardly compressible text in its spans, and an operation after each.
#[workflow]
#[derive(Default)]
pub(crate) struct Bulky;

#[workflow_methods]
impl Bulky {
    #[run(name = "Bulky")]
    pub(crate) async fn run(ctx: &mut WorkflowContext<Self>, spans: u32) -> WorkflowResult<()> {
        for step in 0..spans {
            let noise = ctx.random_stream("noise");
            let text: String =
                (0..1_900).map(|_| format!("{:032x}", noise.random::<u128>())).collect();
            ctx.span("bulk").input("text", text).start().end();
            ctx.execute_local_activity(Work::look_up, step, LocalActivityOptions::default())
                .await?;
        }
        Ok(())
    }
}

/// An activity that ends as it is told, and children in every state of being waited for.
#[workflow]
#[derive(Default)]
pub(crate) struct Endings;

#[workflow_methods]
impl Endings {
    #[run(name = "Endings")]
    pub(crate) async fn run(ctx: &mut WorkflowContext<Self>, how: String) -> WorkflowResult<()> {
        let short = Duration::from_millis(300);
        match how.as_str() {
            "start_to_close" => {
                let options = ActivityOptions::with_start_to_close_timeout(short);
                ctx.execute_activity(Work::hang, (), options.retry_policy(once()).build()).await?;
            }
            "schedule_to_start" => {
                let options = ActivityOptions::with_start_to_close_timeout(short)
                    .schedule_to_start_timeout(short)
                    .task_queue("nobody is here".to_owned());
                ctx.execute_activity(Work::hang, (), options.build()).await?;
            }
            "heartbeat" => {
                let options = ActivityOptions::with_start_to_close_timeout(short * 100)
                    .heartbeat_timeout(short)
                    .retry_policy(once());
                ctx.execute_activity(Work::hang, (), options.build()).await?;
            }
            "exhausted" => {
                let mut retry = once();
                retry.set_maximum_attempts(2).set_initial_interval(Duration::from_millis(10));
                let options =
                    ActivityOptions::with_start_to_close_timeout(short * 10).retry_policy(retry);
                ctx.execute_activity(Work::fail, "card 4711".to_owned(), options.build()).await?;
            }
            "child_abandoned" => {
                let options = ChildWorkflowOptions::builder()
                    .parent_close_policy(ParentClosePolicy::Abandon)
                    .build();
                ctx.start_child_workflow(Ship::run, 1u32, options).await?;
            }
            "child_left" => {
                let options = ChildWorkflowOptions::default();
                ctx.start_child_workflow(Doomed::run, "wait".to_owned(), options).await?;
            }
            "child_cancelled" => {
                let options = ChildWorkflowOptions::default();
                let child =
                    ctx.start_child_workflow(Doomed::run, "wait".to_owned(), options).await?;
                child.cancel("enough".to_owned());
                child.result().await.ok();
            }
            "child_failed" => {
                let options = ChildWorkflowOptions::default();
                let child =
                    ctx.start_child_workflow(Doomed::run, "fail".to_owned(), options).await?;
                child.result().await?;
            }
            other => panic!("unknown ending {other}"),
        }
        Ok(())
    }
}

fn once() -> temporalio_common::RetryPolicy {
    let mut retry = temporalio_common::RetryPolicy::default();
    retry.set_maximum_attempts(1);
    retry
}

/// A workflow and its next version: the same commands in the same order, but it awaits in another
/// order, awaits what was dropped before, and handles a signal that nobody handled.
#[workflow]
#[derive(Default)]
pub(crate) struct Mutable;

#[workflow_methods]
impl Mutable {
    #[run(name = "Mutable")]
    pub(crate) async fn run(ctx: &mut WorkflowContext<Self>, rounds: u32) -> WorkflowResult<()> {
        for round in 0..rounds {
            let first = ctx.execute_activity(Work::look_up, round, quickly());
            let second = ctx.execute_activity(Work::look_up, round + 1, quickly());
            let dropped = ctx.execute_activity(Work::look_up, round + 2, quickly());
            ctx.span("both").scope(async { (first.await.ok(), second.await.ok()) }).await;
            drop(dropped);
            ctx.timer(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

#[workflow]
#[derive(Default)]
pub(crate) struct Mutated {
    nudges: u32,
}

#[workflow_methods]
impl Mutated {
    #[run(name = "Mutable")]
    pub(crate) async fn run(ctx: &mut WorkflowContext<Self>, rounds: u32) -> WorkflowResult<()> {
        for round in 0..rounds {
            let first = ctx.execute_activity(Work::look_up, round, quickly());
            let second = ctx.execute_activity(Work::look_up, round + 1, quickly());
            let third = ctx.execute_activity(Work::look_up, round + 2, quickly());
            let mut third = Box::pin(third.fuse());
            let mut both = Box::pin(async { (second.await.ok(), first.await.ok()) }.fuse());
            loop {
                select! {
                    _ = both => break,
                    _ = third => (),
                }
            }
            ctx.timer(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    #[signal(name = "nudge")]
    pub(crate) fn nudge(&mut self, _ctx: &mut SyncWorkflowContext<Self>, _: ()) {
        self.nudges += 1;
    }
}

/// Ends at its first signal, whatever its handlers still do.
#[workflow]
#[derive(Default)]
pub(crate) struct Leaves {
    signals: u32,
}

#[workflow_methods]
impl Leaves {
    #[run(name = "Leaves")]
    pub(crate) async fn run(ctx: &mut WorkflowContext<Self>, _: ()) -> WorkflowResult<u32> {
        ctx.wait_condition(|state: &Self| state.signals > 0).await?;
        Ok(ctx.state(|state| state.signals))
    }

    #[signal(name = "leave")]
    pub(crate) fn leave(&mut self, ctx: &mut SyncWorkflowContext<Self>, _: ()) {
        ctx.span("told").start().end();
        self.signals += 1;
    }

    #[update(name = "linger")]
    pub(crate) async fn linger(ctx: &mut WorkflowContext<Self>, _: ()) {
        ctx.span("waiting").scope(ctx.timer(Duration::from_secs(3600))).await;
    }
}

/// Signals another workflow, and waits a little.
#[workflow]
#[derive(Default)]
pub(crate) struct Tells;

#[workflow_methods]
impl Tells {
    #[run(name = "Tells")]
    pub(crate) async fn run(ctx: &mut WorkflowContext<Self>, whom: String) -> WorkflowResult<()> {
        ctx.timer(Duration::from_millis(50)).await;
        let other = ctx.external_workflow(whom, None);
        ctx.span("telling")
            .try_scope(async {
                other.signal(Leaves::leave, (), SignalWorkflowOptions::default()).await
            })
            .await?;
        Ok(())
    }
}
