//! One row's stage: a sink of its own, two runs of the same work, one of them traced, and what
//! became of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use durable_spans::{DurableSpans, Span, SpanId, Statistics, TraceContext, in_trace, new_trace};
use durable_spans_model::attempt_span_id;
use durable_spans_test_sink::FaultySink;
use tempfile::TempDir;
use temporalio_client::{Client, WorkflowStartOptions};
use uuid::Uuid;

use crate::{
    crew::Place,
    history::ClosedRun,
    log::LossLog,
    steps::{Plan, Steps},
};

/// How long the runs may take beyond what their plan says, and the sink to get everything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How long the sink takes when it works, as if it were somewhere else.
const LATENCY: Duration = Duration::from_millis(20);

pub(crate) struct Stage {
    pub(crate) sink: FaultySink,
    pub(crate) place: Place,
    pub(crate) trace: TraceContext,
    // Dropped last: the store is in it.
    _folder: TempDir,
}

/// A run, and a client that can ask for it.
pub(crate) struct StartedRun {
    client: Client,
    workflow_id: String,
}

/// What a row of the table is made of.
pub(crate) struct Outcome {
    /// How long the run's own commands and its close were held up: what they took in all, less what
    /// they took in the untraced run.
    pub(crate) delayed: Duration,
    /// How much later than the untraced run it closed, by whatever reason: the results of activities
    /// wait for their spans, too.
    pub(crate) later: Duration,
    pub(crate) recorded: usize,
    /// Recorded, and not in the store at the end, or there without its end.
    /// By id and name.
    pub(crate) lost: Vec<(String, String)>,
    /// In the store, and not recorded.
    pub(crate) duplicates: usize,
    pub(crate) status: &'static str,
    /// Workflow tasks that failed, and those that timed out.
    pub(crate) spoilt_tasks: (usize, usize),
    pub(crate) couriers: usize,
    /// Batches that the sink got.
    pub(crate) calls: u64,
    /// Lost spans of which the log tells the reason, by id and name.
    pub(crate) named_in_log: Vec<(String, String)>,
    /// What the processes that have lived to the end say.
    pub(crate) statistics: Vec<Statistics>,
}

impl Stage {
    pub(crate) async fn set(name: &str, server: &str, sink_timeout: Duration) -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let sink = FaultySink::start(folder.path().join("spans.sqlite")).await?;
        sink.answer_after(LATENCY);
        let unique = Uuid::new_v4();
        let place = Place {
            server: server.to_owned(),
            sink: sink.url(),
            sink_timeout,
            traced: format!("outages-{name}-traced-{unique}"),
            untraced: format!("outages-{name}-untraced-{unique}"),
        };
        Ok(Self { sink, place, trace: new_trace(), _folder: folder })
    }

    /// Starts both runs.
    pub(crate) async fn start_runs(
        &self,
        plan: Plan,
        task_timeout: Option<Duration>,
    ) -> Result<[StartedRun; 2]> {
        // Its policy is pinned to the run; nothing is recorded through it.
        let spans = self.place.spans()?;
        let start = async |spans: Option<&DurableSpans>, queue: &str| {
            let client = self.place.client(spans).await?;
            let mut options = WorkflowStartOptions::new(queue, queue).build();
            options.task_timeout = task_timeout;
            client.start_workflow(Steps::run, plan, options).await?;
            anyhow::Ok(StartedRun { client, workflow_id: queue.to_owned() })
        };
        let traced = in_trace(self.trace.clone(), start(Some(&spans), &self.place.traced)).await?;
        Ok([traced, start(None, &self.place.untraced).await?])
    }

    /// Compares what the histories say with what the store holds, once the couriers are done.
    ///
    /// The span of an activity's attempt waits in memory, so it counts as recorded only where its
    /// process has lived to the end, and has given its `statistics`.
    pub(crate) async fn account(
        &self,
        plan: &Plan,
        [traced, untraced]: [ClosedRun; 2],
        statistics: Vec<Statistics>,
        log: &LossLog,
    ) -> Result<Outcome> {
        let delayed = traced.took_to_go_on(plan)?.saturating_sub(untraced.took_to_go_on(plan)?);
        let later = traced.lasted()?.saturating_sub(untraced.lasted()?);
        let status = traced.status();
        let spoilt_tasks = traced.task_failures();
        let couriers = traced.couriers().len();

        let (mut recorded, mut possible) = (BTreeMap::new(), BTreeSet::new());
        for activity in traced.activities() {
            // Of attempts before the last one, history does not say how they ended.
            let attempt = |number| attempt_span_id(&activity.span, number);
            possible.extend((1..=activity.attempts).map(attempt));
            if activity.completed && !statistics.is_empty() {
                recorded.insert(attempt(activity.attempts), "an attempt".to_owned());
            }
        }
        let of_code = traced.recorded().await?;
        recorded.extend(of_code.into_iter().map(|(id, span)| (id, span.name)));

        let stored = self.sink.stored(&self.trace.trace_id).await?;
        ensure!(self.sink.rows() >= stored.len() as u64, "rows have come around the sink");
        let known = |row: &&Span| recorded.contains_key(&row.id) || possible.contains(&row.id);
        let duplicates = stored.iter().filter(|row| !known(row)).count();
        let ended = stored.iter().filter(|row| row.end_timestamp.is_some());
        let ended: BTreeSet<&SpanId> = ended.map(|row| &row.id).collect();
        let lost = recorded.iter().filter(|(id, _)| !ended.contains(id));
        let lost = lost.map(|(id, name)| (id.to_string(), name.clone())).collect();
        Ok(Outcome {
            delayed,
            later,
            recorded: recorded.len(),
            lost,
            duplicates,
            status,
            spoilt_tasks,
            couriers,
            calls: self.sink.calls(),
            named_in_log: log.of_trace(&self.trace.trace_id.to_string()),
            statistics,
        })
    }
}

impl StartedRun {
    /// Waits for the close, and for the end of the couriers.
    pub(crate) async fn closed(&self, limit: Duration) -> Result<ClosedRun> {
        ClosedRun::of(&self.client, &self.workflow_id, limit).await
    }

    pub(crate) async fn couriers_ended(&self, run: &ClosedRun, limit: Duration) -> Result<()> {
        for courier in run.couriers() {
            let courier = ClosedRun::of(&self.client, &courier, limit).await?;
            ensure!(courier.status() == "completed", "a courier {}", courier.status());
        }
        Ok(())
    }
}
