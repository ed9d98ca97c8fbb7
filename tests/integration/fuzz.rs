//! Random workflows, under restarts, tiny caches, signals, updates, queries and outages of the sink
//! past their close: every history replays with the same, more and no spans, and with code that
//! issues the same commands, yet awaits otherwise or handles more; and live spans are those of the
//! replay. Every third run meets outages, every fourth counts as the first versions of the rule did,
//! every fifth flushes by normal activities, every seventh has a local activity that outlasts its
//! workflow task.
//!
//! `FUZZ_RUNS` sets how many (default 4), `FUZZ_SEED` the first seed (default 1); a failure names
//! the seed of its run. `FUZZ_KEEP` names a folder that keeps the histories. Caches of 0, 3 and 5 only in a release build:
//! `FUZZ_RUNS=100 cargo test --release --test integration fuzz`.
//!
//! For comparing: `FUZZ_RULE=first` or `arrivals` has every run count in that way, and
//! `FUZZ_QUERIES=all` queries every run, whatever its cache.

mod program;
mod sdk;

use std::time::Duration;

use durable_spans::{DurableSpans, FlushPolicy, MemorySink, SinkError, Span, new_trace};
use durable_spans_model::HEADER;
use durable_spans_workflow::to_payload;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use temporalio_client::{
    WorkflowExecuteUpdateOptions, WorkflowGetResultOptions, WorkflowHistory, WorkflowQueryOptions,
    WorkflowSignalOptions,
};
use temporalio_common::protos::temporal::api::{
    common::v1::Header,
    enums::v1::WorkflowTaskFailedCause,
    history::v1::{HistoryEvent, history_event::Attributes},
};
use temporalio_sdk::workflow_replayer::{
    WorkflowReplayError, WorkflowReplayFailure, WorkflowReplayer, WorkflowReplayerOptions,
};

use crate::{
    couriers::{couriers, until_ended},
    harness::{Fleet, LIMIT, all_ended, facts, of_workflow, replayed_spans, tree, while_running},
    workflows::{Ship, Work},
};

pub(crate) use program::{Random, RandomDropped, RandomMore, RandomReversed, RandomSilent};
use program::{RandomHandling, RandomHandlingRun, Step, orders};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread")]
async fn random_workflows_replay_with_other_spans_and_with_code_that_awaits_otherwise() {
    let first = number("FUZZ_SEED", 1);
    for seed in first..first + number("FUZZ_RUNS", 4) {
        println!("seed {seed}");
        one_run(seed).await;
    }
}

/// Returns the history as JSON.
pub(crate) async fn one_run(seed: u64) -> Vec<u8> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut steps: Vec<Step> = (0..4).map(|_| Step::random(&mut random, 2)).collect();
    let long = seed.is_multiple_of(7);
    if long {
        let beside = Step::random(&mut random, 1);
        steps.insert(random.random_range(0..4), Step::All(vec![Step::LongLocal, beside]));
    }
    for _ in 0..3 {
        let calls = Step::random_calls(&mut random);
        steps.insert(random.random_range(0..=steps.len()), calls);
    }
    let nudged = random.random_bool(0.3);
    let program = Step::InSequence(steps);
    let mut policy =
        FlushPolicy::new().operations(random.random_range(2..12)).linger(Duration::from_secs(1));
    if seed.is_multiple_of(5) {
        policy = policy.by_activity();
    }
    let outages = seed.is_multiple_of(3);
    let sink = MemorySink::new();
    let spans = DurableSpans::new(sink.clone()).flush_policy(policy);
    let fleet = Fleet::with("fuzz", spans, sink, Default::default()).await;
    let counts_arrivals = match std::env::var("FUZZ_RULE").as_deref() {
        Ok("first") => false,
        Ok("arrivals") => true,
        Ok(other) => panic!("FUZZ_RULE is first or arrivals, not {other}"),
        Err(_) => !seed.is_multiple_of(4),
    };
    let worker = |cache: usize| {
        let mut options = fleet.worker_options();
        options.max_cached_workflows = cache;
        options.sticky_queue_schedule_to_start_timeout = Duration::from_millis(300);
        options.register_activities(Work);
        options.register_workflow::<Random>().unwrap().register_workflow::<Ship>().unwrap();
        fleet.worker(options)
    };
    let input = serde_json::to_vec(&program).unwrap();
    let mut options = fleet.start_options();
    options.task_timeout = long.then_some(Duration::from_secs(2));
    if !counts_arrivals {
        // As a client of the first versions did.
        let context = to_payload(&new_trace().policy(policy));
        options.header = Some(Header { fields: [(HEADER.to_owned(), context)].into() });
    }
    let start = fleet.client.start_workflow(Random::run, input, options);
    let handle = start.await.unwrap();
    let id = handle.info().workflow_id.clone();
    let nudge = fleet.client.get_workflow_handle::<RandomHandlingRun>(id);

    // Not both in one run: a worker that stops while a local activity is under way completes its
    // task without commands, and the SDK replays an update that follows in another order than it
    // ran, with our local activity or one of the user's.
    let updates = seed.is_multiple_of(2);
    // With queries, and beside a local activity that outlasts its task, the SDK orders events otherwise in
    // replay now and then, see `sdk`: the run's own code meets that as our rule does, under each version
    // of it. So a run whose code has seen them in several orders may differ.
    let query_all = std::env::var("FUZZ_QUERIES").is_ok_and(|which| which == "all");
    let queries = query_all || seed % 4 == 2;
    let history = || fleet.history(&handle.info().workflow_id, None);
    let reordered = || {
        let orders = orders(&handle.info().workflow_id).filter(|_| queries || long);
        if let Some(orders) = &orders {
            println!("seed {seed}: differs, as its code has seen {}", orders.join(" and "));
        }
        orders.is_some()
    };
    let mut done = false;
    while !done {
        // A debug build of the SDK asserts wrongly when updates meet a cache that is too small.
        let cached = cfg!(debug_assertions) || (queries && !query_all);
        let caches: &[usize] = if cached { &[1000] } else { &[0, 3, 5, 1000] };
        let cache = caches[random.random_range(0..caches.len())];
        let pokes = random.random_range(0..6);
        let patience = match updates {
            true => LIMIT,
            false => Duration::from_millis(random.random_range(50..1500)),
        };
        let mut weather = SmallRng::seed_from_u64(random.random());
        done = while_running(worker(cache), async {
            let changes = async {
                if !outages {
                    return std::future::pending::<()>().await;
                }
                loop {
                    let down = weather.random_bool(0.6);
                    fleet.sink.fail_with(move |_| down.then(|| SinkError::retryable("down")));
                    let pause = Duration::from_millis(weather.random_range(20..600));
                    tokio::time::sleep(pause).await;
                }
            };
            let ended = handle.get_result(WorkflowGetResultOptions::default());
            let disturb = async {
                for poke in 0..pokes {
                    // The run may have ended meanwhile: whatever comes back is fine.
                    let options = WorkflowSignalOptions::default();
                    let _ = handle.signal(Random::poke, (), options).await;
                    if nudged {
                        let options = WorkflowSignalOptions::default();
                        let _ = nudge.signal(RandomHandling::nudge, (), options).await;
                    }
                    if updates {
                        let number = if poke % 2 == 0 { poke } else { 1000 };
                        let options = WorkflowExecuteUpdateOptions::default();
                        let _ = handle.execute_update(Random::push, number, options).await;
                    }
                    if queries {
                        let options = WorkflowQueryOptions::default();
                        let _ = handle.query(Random::count, (), options).await;
                    }
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                result = ended => { result.unwrap(); true }
                () = disturb => false,
                () = changes => false,
                () = tokio::time::sleep(patience) => false,
            }
        })
        .await;
        let json = history().to_json().await.unwrap();
        if let Ok(folder) = std::env::var("FUZZ_KEEP") {
            std::fs::write(format!("{folder}/{seed}.json"), &json).unwrap();
        }
        // A run that has failed so would be tried again for ever.
        let is_nondeterminism = |event: &HistoryEvent| match &event.attributes {
            Some(Attributes::WorkflowTaskFailedEventAttributes(failed)) => {
                failed.cause() == WorkflowTaskFailedCause::NonDeterministicError
            }
            _ => false,
        };
        let events = fleet.events(&handle.info().workflow_id).await;
        let failed = events.iter().find(|event| is_nondeterminism(event));
        if failed.is_some() && reordered() {
            return json;
        }
        assert!(failed.is_none(), "seed {seed}: cache {cache}: {failed:?}");
    }
    let json = history().to_json().await.unwrap();
    let events = fleet.events(&handle.info().workflow_id).await;
    fleet.sink.fail_with(|_| None);
    let couriers = couriers(&events);
    while_running(worker(1000), async {
        for courier in &couriers {
            until_ended(&fleet.client, courier).await;
        }
    })
    .await;
    let statistics = fleet.spans.flush(Duration::from_secs(40)).await;
    assert_eq!((statistics.deferred, statistics.dropped_total()), (0, 0), "seed {seed}");
    let live = of_workflow(&fleet.sink.spans());
    assert!(all_ended(&live), "seed {seed}: not ended:\n{}", tree(&live));

    let compared = compare(&fleet, &live, history, |mutation| match mutation.shifts {
        Shifts::Awaits => !counts_arrivals,
        Shifts::Messages => nudged,
    });
    if let Err(difference) = compared.await {
        assert!(reordered(), "seed {seed}: {difference}");
    }
    json
}

/// Compares what workflows recorded live with the replay, and replays with other versions of the code.
async fn compare(
    fleet: &Fleet,
    live: &[Span],
    history: impl Fn() -> WorkflowHistory,
    may_shift: impl Fn(&Mutation) -> bool,
) -> Result<(), String> {
    for register in [written, more, silent] {
        let replay = replay(&fleet.spans, register, history()).await;
        replay.map_err(|error| format!("{error:?}"))?;
    }
    let replayed = replayed_spans(history(), written).await;
    let known = facts(&replayed);
    let (of_run, of_children): (Vec<Span>, Vec<Span>) =
        live.iter().cloned().partition(|span| !in_child(live, span));
    let stored = facts(&of_run);
    // A signal that comes during the last flush may be handled live, and in replay come too late.
    let late = |fact: &String| fact.contains(r#""name":"poke"#);
    let lacking: Vec<_> = known.iter().filter(|fact| !stored.contains(fact)).collect();
    let foreign: Vec<_> =
        stored.iter().filter(|fact| !known.contains(fact) && !late(fact)).collect();
    if !(lacking.is_empty() && foreign.is_empty()) {
        let live = tree(live);
        return Err(format!("not delivered: {lacking:#?}\nforeign: {foreign:#?}\n{live}"));
    }
    // Each child has a root, "pack", and an activity.
    let is_child =
        |span: &&Span| span.metadata.get("temporal.kind") == Some(&"child_workflow".into());
    if of_children.len() > 3 * replayed.iter().filter(is_child).count() {
        return Err(format!("too many spans of children:\n{}", tree(live)));
    }
    for mutation in MUTATIONS {
        match replay(&fleet.spans, mutation.code, history()).await {
            Ok(()) => {}
            Err(WorkflowReplayError::Replay(WorkflowReplayFailure::Nondeterminism { .. }))
                if may_shift(&mutation) =>
            {
                println!("shifted, as its rule does, by code that {}", mutation.name);
            }
            Err(error) => return Err(format!("code that {}: {error:?}", mutation.name)),
        }
    }
    Ok(())
}

type Register = fn(&mut WorkflowReplayerOptions);

/// A change of the user's own code that issues the same commands.
struct Mutation {
    name: &'static str,
    code: Register,
    shifts: Shifts,
}

/// Where a change of the user's code can shift a flush of a run in flight.
enum Shifts {
    /// Under the first versions of the rule, which count results when the code sees them.
    Awaits,
    /// Where the run got the message that is handled by now.
    Messages,
}

const MUTATIONS: [Mutation; 3] = [
    Mutation {
        name: "awaits in another order",
        code: |options| {
            options.register_workflow::<RandomReversed>().unwrap();
        },
        shifts: Shifts::Awaits,
    },
    Mutation {
        name: "awaits what was dropped",
        code: |options| {
            options.register_workflow::<RandomDropped>().unwrap();
        },
        shifts: Shifts::Awaits,
    },
    Mutation {
        name: "handles another signal",
        code: |options| {
            options.register_workflow::<RandomHandling>().unwrap();
        },
        shifts: Shifts::Messages,
    },
];

async fn replay(
    spans: &DurableSpans,
    register: Register,
    history: WorkflowHistory,
) -> Result<(), WorkflowReplayError> {
    let mut options = WorkflowReplayerOptions::new().build();
    register(&mut options);
    spans.install_replayer(&mut options);
    WorkflowReplayer::new(options).unwrap().replay_workflow(history).await
}

/// Whether the span was recorded by a child workflow, not by the run itself.
fn in_child(spans: &[Span], span: &Span) -> bool {
    let parent = spans.iter().find(|other| Some(&other.id) == span.parent_id.as_ref());
    parent.is_some_and(|parent| {
        parent.metadata.get("temporal.kind") == Some(&"child_workflow".into())
            || in_child(spans, parent)
    })
}

fn written(options: &mut WorkflowReplayerOptions) {
    options.register_workflow::<Random>().unwrap();
}

fn more(options: &mut WorkflowReplayerOptions) {
    options.register_workflow::<RandomMore>().unwrap();
}

fn silent(options: &mut WorkflowReplayerOptions) {
    options.register_workflow::<RandomSilent>().unwrap();
}
