//! One row's stage: a sink of its own, two runs of the same work, one of them traced, and what
//! became of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use durable_spans::{DurableSpans, Statistics, TraceContext, in_trace, new_trace};
use durable_spans_model::attempt_span_id;
use tempfile::TempDir;
use temporalio_client::{Client, WorkflowStartOptions};
use uuid::Uuid;

use crate::{
    backend::Backend,
    class::Class,
    crew::Place,
    history::ClosedRun,
    log::LossLog,
    steps::{Plan, Steps},
};

/// How long the runs may take beyond what their plan says, and the sink to get everything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Stage {
    pub(crate) sink: Backend,
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
    /// In the store, and not recorded, or there once already.
    pub(crate) duplicates: usize,
    /// How many of these there may be. Zero where the sink can tell.
    pub(crate) may_double: usize,
    pub(crate) status: &'static str,
    /// Workflow tasks that failed, and those that timed out.
    pub(crate) spoilt_tasks: (usize, usize),
    pub(crate) couriers: usize,
    /// Requests that the sink got.
    pub(crate) calls: u64,
    /// Lost spans of which the log tells the reason, by id and name.
    pub(crate) named_in_log: Vec<(String, String)>,
    /// What the processes that have lived to the end say.
    pub(crate) statistics: Vec<Statistics>,
}

impl Stage {
    pub(crate) async fn set(
        class: Class,
        name: &str,
        server: &str,
        sink_timeout: Duration,
    ) -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let sink = Backend::start(class, folder.path()).await?;
        let name = format!("{}-{name}", class.name());
        let unique = Uuid::new_v4();
        let place = Place {
            server: server.to_owned(),
            class,
            sink: sink.target(),
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

    /// How many spans a sink that keeps every copy may get again if the run goes on with another
    /// worker from here on: none that was not sent yet.
    pub(crate) async fn may_double(&self) -> Result<usize> {
        let keeps = self.place.class.keeps_copies();
        Ok(if keeps { self.sink.stored(&self.trace.trace_id).await?.len() } else { 0 })
    }

    /// Compares what the histories say with what the store holds, once the couriers are done.
    ///
    /// The span of an activity's attempt waits in memory, so it counts as recorded only where its
    /// process has lived to the end, and has given its `statistics`. `may_double` are the copies that
    /// these do not count.
    pub(crate) async fn account(
        &self,
        plan: &Plan,
        [traced, untraced]: [ClosedRun; 2],
        statistics: Vec<Statistics>,
        may_double: usize,
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
        recorded.extend(of_code.into_iter().map(|(id, span)| (id, span.name.into_owned())));

        let class = self.place.class;
        let known: BTreeSet<String> =
            recorded.keys().chain(&possible).map(|id| class.span_id(id)).collect();
        let stored = self.sink.stored(&self.trace.trace_id).await?;
        let distinct: BTreeSet<&String> = stored.iter().map(|row| &row.id).collect();
        let duplicates =
            stored.len() - distinct.into_iter().filter(|id| known.contains(*id)).count();
        let ended = stored.iter().filter(|row| row.has_ended);
        let ended: BTreeSet<&str> = ended.map(|row| row.id.as_str()).collect();
        let lost = recorded.iter().filter(|(id, _)| !ended.contains(&*class.span_id(id)));
        let counted: u64 = statistics.iter().map(|counted| counted.doubtful).sum();
        let may_double = may_double + usize::try_from(counted)?;
        let lost = lost.map(|(id, name)| (id.to_string(), name.clone())).collect();
        Ok(Outcome {
            delayed,
            later,
            recorded: recorded.len(),
            lost,
            duplicates,
            may_double,
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
