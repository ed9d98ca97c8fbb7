//! Random programs, and the workflow that interprets them, in several versions of its code.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use durable_spans::WorkflowSpans;
use futures::FutureExt;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{
    ChildWorkflowOptions, LocalActivityOptions, SyncWorkflowContext, WorkflowContext,
    WorkflowContextView, WorkflowResult,
    workflows::{join_all, select},
};

use crate::workflows::{Ship, Work, quickly};

/// A program for the workflow below, from a seed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Step {
    Activity,
    Failing,
    Local,
    Timer(u64),
    Child,
    Spans(u32),
    Signal,
    All(Vec<Step>),
    First(Box<Step>, Box<Step>),
    InSequence(Vec<Step>),
    /// Longer than a workflow task may take.
    LongLocal,
    /// Begins all of them before it waits for any, and never waits for those in `dropped`.
    Calls {
        awaited: Vec<Call>,
        dropped: Vec<Call>,
    },
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Call {
    Activity,
    Failing,
    Local,
    Timer(u64),
    Child,
}

impl Step {
    pub(crate) fn random(random: &mut impl Rng, depth: u32) -> Self {
        let several =
            |random: &mut _| (0..2 + depth).map(|_| Self::random(random, depth - 1)).collect();
        match random.random_range(0..if depth == 0 { 7 } else { 10 }) {
            0 => Self::Activity,
            1 => Self::Failing,
            2 => Self::Local,
            3 => Self::Timer(random.random_range(1..80)),
            4 => Self::Child,
            5 => Self::Spans(random.random_range(1..5)),
            6 => Self::Signal,
            7 => Self::All(several(random)),
            8 => Self::First(
                Self::random(random, depth - 1).into(),
                Self::random(random, depth - 1).into(),
            ),
            _ => Self::InSequence(several(random)),
        }
    }

    /// Calls that another version of the code may wait for otherwise.
    pub(crate) fn random_calls(random: &mut impl Rng) -> Self {
        let mut calls = |kinds: u32| -> Vec<Call> {
            let count = random.random_range(0..4);
            (0..count).map(|_| Call::random(random, kinds)).collect()
        };
        // The SDK leaves local activities and children that nobody awaits unfinished at the close.
        Self::Calls { awaited: calls(5), dropped: calls(3) }
    }
}

impl Call {
    fn random(random: &mut impl Rng, kinds: u32) -> Self {
        match random.random_range(0..kinds) {
            0 => Self::Activity,
            1 => Self::Failing,
            2 => Self::Timer(random.random_range(1..80)),
            3 => Self::Local,
            _ => Self::Child,
        }
    }

    /// Issues its command at once.
    fn begin<'a, W: Running>(self, ctx: &'a WorkflowContext<W>) -> Done<'a> {
        match self {
            Self::Activity => {
                let call = ctx.execute_activity(Work::look_up, 1u32, quickly());
                Box::pin(call.map(|_| saw(ctx, 'a')))
            }
            Self::Failing => {
                let call = ctx.execute_activity(Work::explode, (), quickly());
                Box::pin(call.map(|_| saw(ctx, 'f')))
            }
            Self::Local => {
                let options = LocalActivityOptions::default();
                let call = ctx.execute_local_activity(Work::look_up, 1u32, options);
                Box::pin(call.map(|_| saw(ctx, 'l')))
            }
            Self::Timer(ms) => {
                Box::pin(ctx.timer(Duration::from_millis(ms)).map(|_| saw(ctx, 't')))
            }
            Self::Child => {
                let options = ChildWorkflowOptions::default();
                let start = ctx.start_child_workflow(Ship::run, 1u32, options);
                Box::pin(async move {
                    if let Ok(child) = start.await {
                        saw(ctx, 'b');
                        child.result().await.ok();
                    }
                    saw(ctx, 'c');
                })
            }
        }
    }
}

pub(crate) type Done<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// A version of the code: what differs issues no other commands.
#[derive(Clone, Copy)]
pub(crate) struct Code {
    /// So many times the spans that the program says.
    spans: u32,
    awaits: Awaits,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Awaits {
    AsWritten,
    /// What was begun first is awaited last.
    Reversed,
    /// What was dropped is polled while the others are awaited.
    Dropped,
}

impl Code {
    const WRITTEN: Self = Self { spans: 1, awaits: Awaits::AsWritten };
    const MORE: Self = Self { spans: 10, ..Self::WRITTEN };
    const SILENT: Self = Self { spans: 0, ..Self::WRITTEN };
    const REVERSED: Self = Self { awaits: Awaits::Reversed, ..Self::WRITTEN };
    const DROPPED: Self = Self { awaits: Awaits::Dropped, ..Self::WRITTEN };
}

/// State of a run.
#[derive(Default)]
pub(crate) struct State {
    signals: u32,
    /// Something for each event that the code has seen, in that order. Known to [`SEEN`], too.
    seen: OnceLock<Arc<Mutex<String>>>,
}

impl State {
    fn see(&self, workflow_id: &str, what: char) {
        let seen = self.seen.get_or_init(|| {
            let seen = Arc::<Mutex<String>>::default();
            let mut all = SEEN.lock().unwrap();
            all.entry(workflow_id.to_owned()).or_default().push(seen.clone());
            seen
        });
        seen.lock().unwrap().push(what);
    }
}

type AllSeen = BTreeMap<String, Vec<Arc<Mutex<String>>>>;

/// What the code of each run has seen, each time that the run was in memory.
static SEEN: Mutex<AllSeen> = Mutex::new(BTreeMap::new());

/// Where the SDK has shown the code of the run its events in one order here and in another one there:
/// these orders. Whatever the code does about that is not the same in replay.
pub(crate) fn orders(workflow_id: &str) -> Option<[String; 2]> {
    let seen = SEEN.lock().unwrap();
    let seen = seen.get(workflow_id).into_iter().flatten();
    let seen: Vec<String> = seen.map(|seen| seen.lock().unwrap().clone()).collect();
    let longest = seen.iter().max_by_key(|seen| seen.len())?;
    let other = seen.iter().find(|seen| !longest.starts_with(*seen))?;
    Some([longest.clone(), other.clone()])
}

pub(crate) trait Running {
    fn state(&self) -> &State;
}

fn saw<W: Running>(ctx: &WorkflowContext<W>, what: char) {
    ctx.state(|run| run.state().see(ctx.workflow_id(), what));
}

/// Interprets a step.
fn interpret<'a, W: Running>(ctx: &'a WorkflowContext<W>, step: &'a Step, code: Code) -> Done<'a> {
    Box::pin(async move {
        for _ in 0..code.spans {
            ctx.span("step").start().end();
        }
        match step {
            Step::Activity => {
                let activity = ctx.execute_activity(Work::look_up, 1u32, quickly());
                if code.spans > 0 {
                    ctx.span("wait").try_scope(activity).await.ok();
                } else {
                    activity.await.ok();
                }
                saw(ctx, 'a');
            }
            Step::Failing => Call::Failing.begin(ctx).await,
            Step::Local => Call::Local.begin(ctx).await,
            Step::LongLocal => {
                let options = LocalActivityOptions::default();
                ctx.execute_local_activity(Work::doze, 2_500u64, options).await.ok();
                saw(ctx, 'd');
            }
            Step::Timer(ms) => Call::Timer(*ms).begin(ctx).await,
            Step::Child => Call::Child.begin(ctx).await,
            Step::Spans(count) => {
                for _ in 0..count * code.spans {
                    ctx.span("more").start().end();
                }
            }
            Step::Signal => {
                let seen = ctx.state(|run| run.state().signals);
                let mut signal =
                    Box::pin(ctx.wait_condition(move |s: &W| s.state().signals > seen).fuse());
                let mut patience = Box::pin(ctx.timer(Duration::from_millis(150)).fuse());
                select! { _ = signal => (), _ = patience => saw(ctx, 'p') }
            }
            Step::All(steps) => {
                join_all(steps.iter().map(|step| interpret(ctx, step, code))).await;
            }
            Step::First(one, other) => {
                let mut one = interpret(ctx, one, code).fuse();
                let mut other = interpret(ctx, other, code).fuse();
                select! { _ = one => (), _ = other => () }
            }
            Step::InSequence(steps) => {
                for step in steps {
                    interpret(ctx, step, code).await;
                }
            }
            Step::Calls { awaited, dropped } => {
                let begin = |calls: &[Call]| -> Vec<Done<'a>> {
                    calls.iter().map(|call| call.begin(ctx)).collect()
                };
                let (awaited, dropped) = (begin(awaited), begin(dropped));
                await_calls(awaited, dropped, code.awaits).await;
            }
        }
    })
}

async fn await_calls(mut awaited: Vec<Done<'_>>, dropped: Vec<Done<'_>>, awaits: Awaits) {
    if awaits == Awaits::Reversed {
        awaited.reverse();
    }
    let in_turn = async {
        for call in awaited {
            call.await;
        }
    };
    if awaits != Awaits::Dropped {
        return in_turn.await;
    }
    let mut in_turn = Box::pin(in_turn.fuse());
    let mut beside = Box::pin(join_all(dropped).fuse());
    loop {
        select! {
            _ = in_turn => break,
            _ = beside => (),
        }
    }
}

macro_rules! versions {
    ($($name:ident = $code:ident $(, $handler:ident)?;)*) => {$(
        #[workflow]
        #[derive(Default)]
        pub(crate) struct $name(State);

        impl Running for $name {
            fn state(&self) -> &State {
                &self.0
            }
        }

        #[workflow_methods]
        impl $name {
            #[run(name = "Random")]
            pub(crate) async fn run(
                ctx: &mut WorkflowContext<Self>,
                program: Vec<u8>,
            ) -> WorkflowResult<()> {
                let program: Step = serde_json::from_slice(&program).unwrap();
                interpret(ctx, &program, Code::$code).await;
                saw(ctx, 'e');
                Ok(())
            }

            #[signal(name = "poke")]
            pub(crate) fn poke(&mut self, ctx: &mut SyncWorkflowContext<Self>, _: ()) {
                let spans = Code::$code.spans;
                for _ in 0..spans {
                    ctx.span("poked").start().end();
                }
                self.0.signals += 1;
                self.0.see(ctx.workflow_id(), 's');
            }

            $(
                #[signal(name = "nudge")]
                pub(crate) fn $handler(&mut self, ctx: &mut SyncWorkflowContext<Self>, _: ()) {
                    ctx.span("nudged").start().end();
                }
            )?

            #[update(name = "push")]
            pub(crate) async fn push(ctx: &mut WorkflowContext<Self>, n: u32) -> u32 {
                saw(ctx, 'u');
                let step = if n % 2 == 0 { Step::Activity } else { Step::Timer(5) };
                interpret(ctx, &step, Code::$code).await;
                n
            }

            #[update_validator(push)]
            pub(crate) fn check(
                &self,
                _ctx: &WorkflowContextView,
                n: &u32,
            ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
                if *n > 100 { Err("too large".into()) } else { Ok(()) }
            }

            #[query(name = "count")]
            pub(crate) fn count(&self, _ctx: &WorkflowContextView) -> u32 {
                self.0.signals
            }
        }
    )*};
}

versions! {
    Random = WRITTEN;
    RandomMore = MORE;
    RandomSilent = SILENT;
    RandomReversed = REVERSED;
    RandomDropped = DROPPED;
    RandomHandling = WRITTEN, nudge;
}

pub(crate) use random_handling::Run as RandomHandlingRun;
