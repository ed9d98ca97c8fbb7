//! The side of durable-spans: its worker's process, its runs, and what its collector holds of them.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use durable_spans::{
    DurableSpans, FlushPolicy, SgpOptions, SgpSink, Span, SpanId, TraceContext, TraceId,
    WorkflowTracing, in_trace,
};
use durable_spans_collector::{Store, tree};
use durable_spans_model::attempt_span_id;
use temporalio_client::{Client, ClientOptions};
use temporalio_common::protos::temporal::api::history::v1::History;
use temporalio_sdk::workflow_replayer::{WorkflowReplayer, WorkflowReplayerOptions};
use tokio::process::Command;

use crate::{
    counts::{Counts, Names, Received},
    history::CompletedRun,
    job::{self, Job},
    steps::Steps,
};

/// Tells an executable to be the worker of this job.
const JOB: &str = "KILL_MINUS_NINE_JOB";

const NAMES: Names = Names { root: "Steps", call: "work" };

/// What the collector holds of all runs.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) counts: Counts,
    pub(crate) attempts: Attempts,
}

/// What the collector holds of the attempts of the runs' activities, whose spans are the worker's
/// and not the workflow's.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    /// By the histories.
    pub(crate) made: usize,
    pub(crate) received: usize,
    /// Killed with their worker, and named as such by the tree.
    pub(crate) named: usize,
}

/// The job whose worker this process shall be, if it was started as one.
pub(crate) fn job_of_this_process() -> Result<Option<Job>> {
    match std::env::var(JOB) {
        Ok(job) => Ok(Some(serde_json::from_str(&job)?)),
        Err(_) => Ok(None),
    }
}

/// This executable, as the job's worker.
pub(crate) fn command(job: &Job) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(JOB, serde_json::to_string(job)?);
    Ok(command)
}

/// Is the worker until the process is killed.
pub(crate) async fn be_worker(job: &Job) -> Result<()> {
    let spans = spans(job)?;
    let client = client(job, &spans).await?;
    let mut options = job.worker_options();
    options.register_workflow::<Steps>()?;
    spans.install(&mut options)?;
    job::work(client, options).await
}

/// Starts the runs. The client can ask for them later.
pub(crate) async fn start_runs(job: &Job) -> Result<Client> {
    let client = client(job, &spans(job)?).await?;
    for run in 0..job.runs {
        let start = client.start_workflow(Steps::run, job.steps, job.start_options(run));
        in_trace(TraceContext::new(trace(job, run)?), start).await?;
    }
    Ok(client)
}

/// Waits for the runs and everything that they left to others.
pub(crate) async fn complete(
    job: &Job,
    client: &Client,
    limit: Duration,
) -> Result<Vec<CompletedRun>> {
    let mut runs = Vec::new();
    for run in 0..job.runs {
        let run = CompletedRun::of(client, &job.workflow_id(run), limit).await?;
        for courier in run.couriers() {
            CompletedRun::of(client, &courier, limit).await?;
        }
        runs.push(run);
    }
    Ok(runs)
}

/// Compares the histories with what the store holds.
pub(crate) async fn account(job: &Job, runs: Vec<CompletedRun>, store: &Store) -> Result<Found> {
    let mut found = Found::default();
    for (number, run) in runs.into_iter().enumerate() {
        let trace = trace(job, number)?;
        let stored = store.spans(&trace)?;
        account_attempts(&run, &stored, &mut found.attempts).with_context(|| trace.to_string())?;

        let of_workflow: Vec<&Span> = stored.iter().filter(|span| !is_attempt(span)).collect();
        let received = of_workflow.iter().map(|span| Received {
            id: span.id.to_string(),
            name: span.name.to_string(),
            ended: span.end_timestamp.is_some(),
        });
        let counts = Counts::of(&run, &NAMES, &Vec::from_iter(received));
        let ids: BTreeSet<SpanId> = of_workflow.iter().map(|span| span.id.clone()).collect();
        let recorded = recorded(run).await?;
        if counts.are_right() {
            // The right number under the right names; and they are the very ones.
            let foreign: Vec<_> = ids.symmetric_difference(&recorded).collect();
            ensure!(foreign.is_empty(), "{trace}: not both recorded and stored: {foreign:?}");
        } else {
            eprintln!("{trace} is not right:\n{}", tree::render(&stored));
        }
        found.counts += counts;
    }
    Ok(found)
}

/// Checks what the tree says of attempts that have left no span.
fn account_attempts(run: &CompletedRun, stored: &[Span], attempts: &mut Attempts) -> Result<()> {
    let ids: BTreeSet<&SpanId> = stored.iter().map(|span| &span.id).collect();
    let open = stored.iter().find(|span| is_attempt(span) && span.end_timestamp.is_none());
    ensure!(open.is_none(), "an attempt is open: {open:?}");
    let rows = tree::rows(stored);
    for activity in run.activities() {
        let span = activity.span.context("an activity has no span")?;
        let received = |number: &u32| ids.contains(&attempt_span_id(&span, *number));
        let all = 1..=activity.attempts;
        attempts.made += all.clone().count();
        attempts.received += all.clone().filter(received).count();
        // Of attempts after the last one with a span, the tree cannot know.
        let last = all.rev().find(received).unwrap_or(0);
        let lost = (1..last).filter(|number| !received(number)).count();
        let row = rows.iter().find(|row| row.span().id == span).map(ToString::to_string);
        let row = row.unwrap_or_default();
        ensure!(named_as_lost(&row) == lost, "{lost} attempts left no span, the tree says: {row}");
        attempts.named += lost;
    }
    Ok(())
}

/// How many attempts a row of the tree names as lost: one, or a range of them.
fn named_as_lost(row: &str) -> usize {
    let lost =
        row.split(", ").filter(|part| part.starts_with("attempt") && part.ends_with(" worker"));
    lost.map(|part| {
        let numbers = part.split(' ').nth(1).unwrap_or_default();
        let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
        let range = first.parse().ok().zip(last.parse().ok());
        range.map_or(0, |(first, last): (usize, usize)| last + 1 - first)
    })
    .sum()
}

/// The ids that the run's code gave to its spans, by replaying it.
async fn recorded(run: CompletedRun) -> Result<BTreeSet<SpanId>> {
    let recorded = Arc::new(Mutex::new(BTreeSet::new()));
    let kept = recorded.clone();
    let tracing = WorkflowTracing::new().observer(move |group| {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(group.spans.iter().map(|span| span.id.clone()));
    });
    let mut options = WorkflowReplayerOptions::new().build();
    options.register_workflow::<Steps>()?;
    options.workflow_interceptor(tracing.interceptor());
    let history = History { events: run.events };
    WorkflowReplayer::new(options)?.replay_workflow(history.into()).await?;
    let mut recorded = recorded.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(std::mem::take(&mut recorded))
}

fn spans(job: &Job) -> Result<DurableSpans> {
    // Busier than by default, so that many flushes are under way when a worker is killed.
    let policy = FlushPolicy::new().operations(6).linger(Duration::from_secs(1));
    Ok(DurableSpans::new(SgpSink::new(SgpOptions::new(&job.receiver))?).flush_policy(policy))
}

async fn client(job: &Job, spans: &DurableSpans) -> Result<Client> {
    let mut options = ClientOptions::new("default").build();
    spans.install_client(&mut options);
    job.client(options).await
}

fn trace(job: &Job, run: usize) -> Result<TraceId> {
    Ok(job.workflow_id(run).parse()?)
}

fn is_attempt(span: &Span) -> bool {
    span.metadata.contains_key("temporal.attempt")
}
