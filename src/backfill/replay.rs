//! What the user's code records when a history is replayed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use durable_spans_model::{Span, SpanId, TraceId};
use durable_spans_workflow::WorkflowTracing;
use temporalio_client::WorkflowHistory;
use temporalio_common::protos::temporal::api::history::v1::History;
use temporalio_sdk::workflow_replayer::{
    WorkflowReplayError, WorkflowReplayFailure, WorkflowReplayer, WorkflowReplayerOptions,
};

use super::{error::RunError, history::RunHistory};

/// What a replay of the history records, without what only history knows. Runs on a thread of its own,
/// as [`Backfill`](super::Backfill) does.
pub(crate) async fn recorded(
    history: WorkflowHistory,
    workflows: WorkflowReplayerOptions,
    tracing: WorkflowTracing,
) -> Result<Vec<Span>, RunError> {
    let workflow_id = history.workflow_id().map(str::to_owned);
    let events = history.into_events().await.map_err(RunError::fetch)?;
    let history = RunHistory::new(events, workflow_id.as_deref(), None)?;
    if !history.has_run() {
        return Ok(Vec::new());
    }
    let runtime = tokio::runtime::Handle::current();
    let work = move || runtime.block_on(replay(&workflows, &tracing, &history, &history));
    let replayed = tokio::task::spawn_blocking(work).await.map_err(RunError::replay)?;
    Ok(replayed?.spans)
}

/// How long the replay of one history may take. The SDK's replayer can wait for ever on a history
/// that it does not understand.
const LONGEST_REPLAY: Duration = Duration::from_secs(300);

/// How a history was replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// With the flushes that it holds.
    Traced,
    /// Recording without commands: the run was not traced.
    Anew,
}

/// The spans of a run, parents first, open ones as the code left them.
pub(super) struct Replayed {
    pub(super) spans: Vec<Span>,
    pub(super) way: Way,
}

/// Replays with flushes or without, as the `readable` history tells. Where it does not tell (it ends
/// before the first flush), one of the two fits.
pub(super) async fn replay(
    options: &WorkflowReplayerOptions,
    tracing: &WorkflowTracing,
    history: &RunHistory,
    readable: &RunHistory,
) -> Result<Replayed, RunError> {
    let mut failure = None;
    for way in ways(readable) {
        let tracing = match way {
            Way::Traced => tracing.clone(),
            Way::Anew => tracing.clone().without_commands(),
        };
        match replay_so(options, tracing, history).await {
            // Traced by nobody: left alone by the timetable.
            Ok(spans) if spans.is_empty() && *way == Way::Traced => {}
            Ok(spans) => return Ok(Replayed { spans, way: *way }),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    match failure {
        Some(error) => Err(error),
        None => Ok(Replayed { spans: Vec::new(), way: Way::Traced }),
    }
}

fn ways(history: &RunHistory) -> &'static [Way] {
    let sampled = history.context().is_none_or(|context| context.sampled);
    let closed_by_code = history.ending.as_ref().is_some_and(|ending| ending.by_code);
    match history.holds_flushes() {
        true => &[Way::Traced],
        false if !sampled => &[Way::Anew],
        // Every traced run flushes at its close.
        false if closed_by_code => &[Way::Anew, Way::Traced],
        false => &[Way::Traced, Way::Anew],
    }
}

async fn replay_so(
    options: &WorkflowReplayerOptions,
    tracing: WorkflowTracing,
    history: &RunHistory,
) -> Result<Vec<Span>, RunError> {
    let merged = Arc::new(Mutex::new(Merged::default()));
    let (flushed, left) = (merged.clone(), merged.clone());
    let tracing = tracing
        .observer(move |group| add(&flushed, &group.spans))
        .leaving(move |spans| add(&left, spans));
    let mut options = options.clone();
    if let Some(task_queue) = &history.started.task_queue {
        options.task_queue.clone_from(&task_queue.name);
    }
    if let Some(namespace) = &history.namespace {
        options.namespace.clone_from(namespace);
    }
    options.workflow_interceptor(tracing.interceptor());
    let events = History { events: history.events.clone() };
    let replayer = WorkflowReplayer::new(options).map_err(RunError::replay)?;
    let replay = replayer.replay_workflow(events.into());
    match tokio::time::timeout(LONGEST_REPLAY, replay).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(explained(error)),
        Err(_) => return Err(RunError::replay("it did not end within 5 minutes")),
    }
    let mut merged = merged.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(std::mem::take(&mut *merged).spans)
}

fn explained(error: WorkflowReplayError) -> RunError {
    match error {
        WorkflowReplayError::Replay(WorkflowReplayFailure::Nondeterminism { message }) => {
            RunError::replay(format!(
                "the registered workflow code does not fit it ({message}): use the code that the \
                 run ran"
            ))
        }
        error => RunError::replay(error),
    }
}

fn add(merged: &Mutex<Merged>, spans: &[Span]) {
    merged.lock().unwrap_or_else(PoisonError::into_inner).add(spans);
}

/// Each span once, in the order of first sight, which is that of starting. The record of the end
/// replaces the one of the start.
#[derive(Default)]
struct Merged {
    spans: Vec<Span>,
    positions: HashMap<(TraceId, SpanId), usize>,
}

impl Merged {
    fn add(&mut self, spans: &[Span]) {
        for span in spans {
            let key = (span.trace_id.clone(), span.id.clone());
            let position = *self.positions.entry(key).or_insert(self.spans.len());
            match self.spans.get_mut(position) {
                None => self.spans.push(span.clone()),
                Some(known) if known.end_timestamp.is_none() => *known = span.clone(),
                Some(_) => {}
            }
        }
    }
}
