//! Rebuilds traces from the histories that Temporal keeps.

use std::{path::PathBuf, sync::Arc, time::Duration};

use durable_spans_activity::SpanSink;
use durable_spans_model::{Sampling, Span, TraceId};
use durable_spans_workflow::{COURIER_WORKFLOW, WorkflowTracing};
use futures::{Stream, TryStreamExt, stream};
use temporalio_client::{Client, WorkflowHistory, WorkflowListOptions};
use temporalio_common::data_converters::DataConverter;
use temporalio_sdk::workflow_replayer::WorkflowReplayerOptions;

use crate::DurableSpans;

mod activities;
mod delivery;
mod draws;
mod error;
#[cfg(feature = "history-json")]
mod file;
mod history;
mod ids;
mod journal;
mod outcome;
mod replay;
mod report;
mod skeleton;
mod source;
mod truth;

pub use error::{BackfillError, RunError};
#[cfg(feature = "history-json")]
pub use file::{HistoryFileError, read_history};
pub(crate) use replay::recorded;
pub use report::{BackfillReport, BackfilledRun, FailedRun, Progress, SpanSource};

use delivery::Delivery;
use history::RunHistory;
use journal::Journal;
use replay::Way;
use skeleton::Skeleton;
use source::{Fetched, Reader, Source};

/// Metadata of what was told by history and not recorded by code.
const BACKFILLED: &str = "temporal.backfilled";

type OnProgress = Arc<dyn Fn(Progress<'_>) + Send + Sync>;

/// Rebuilds the traces of runs from their histories: after an outage of the sink, for runs that were
/// terminated or timed out (they run no code at their end), for runs that sampling left out, and
/// for runs from before the install.
///
/// With the [`workflows`](Self::workflows) registered, each history is replayed with the user's code,
/// which records every span again, with the very ids that it gave live. Spans left open by a
/// termination or a timeout are closed with what history says of it. A run that goes on keeps its
/// open spans open.
///
/// Without them, a skeleton is drawn from the history alone: the run, its activities, timers,
/// signals, updates and child workflows. Ids of runs, activities and children of traced runs are
/// those of the recorded spans; a span of user code between the run and an activity is not known,
/// so the activity hangs under the run then and says `temporal.parent_unknown`. What the skeleton
/// knows too little of to match it with a recorded span is added only where the sink holds no
/// ended span of the run itself.
///
/// In both cases the attempts of activities are added as far as history knows them: the number of
/// attempts, the times and worker of the last one, the failures of the last two; the other attempts
/// say `temporal.times_unknown`. Metadata `temporal.backfilled` marks what history told and no code
/// recorded.
///
/// A span that the sink holds as ended already is left as it is, where the sink can tell
/// ([`SpanSink::ended_spans`]). A sink that cannot is sent every span; give it no skeleton of runs
/// whose trace it holds.
///
/// A run that was reset has spans in common with the run that goes on in its place: those that began
/// before the point of the reset, the root first. They are told by that other run.
///
/// Each run of a continue-as-new chain and each child workflow is a run of its own; a query finds
/// them all.
///
/// ```no_run
/// use durable_spans::{Backfill, SgpOptions, SgpSink};
/// use temporalio_client::Client;
/// use temporalio_sdk::workflow_replayer::WorkflowReplayerOptions;
/// # use temporalio_workflow::{WorkflowContext, WorkflowResult, run, workflow, workflow_methods};
/// # #[workflow]
/// # #[derive(Default)]
/// # struct Order;
/// # #[workflow_methods]
/// # impl Order {
/// #     #[run]
/// #     async fn run(_ctx: &mut WorkflowContext<Self>) -> WorkflowResult<()> { Ok(()) }
/// # }
///
/// # async fn backfill(client: &Client) -> Result<(), Box<dyn std::error::Error>> {
/// let workflows = WorkflowReplayerOptions::new().register_workflow::<Order>()?.build();
/// let report = Backfill::new(SgpSink::new(SgpOptions::from_env()?)?)
///     .workflows(workflows)
///     .query(client, "WorkflowType = 'Order' AND StartTime > '2026-11-20T00:00:00Z'")
///     .await?;
/// println!("{report}");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct Backfill {
    sink: Arc<dyn SpanSink>,
    workflows: Option<Arc<WorkflowReplayerOptions>>,
    data_converter: Option<DataConverter>,
    tracing: WorkflowTracing,
    parallel: usize,
    patience: Duration,
    journal: Option<PathBuf>,
    progress: Option<OnProgress>,
}

impl Backfill {
    /// A backfill into `sink`, of skeletons unless [`workflows`](Self::workflows) are given.
    pub fn new(sink: impl SpanSink) -> Self {
        Self {
            sink: Arc::new(sink),
            workflows: None,
            data_converter: None,
            tracing: WorkflowTracing::new(),
            parallel: 4,
            patience: Duration::from_secs(60),
            journal: None,
            progress: None,
        }
    }

    /// The workflow code to replay histories with, and the data converter (with its codec) of its
    /// workers. It must be the code that the runs ran, or compatible with it. Do not install
    /// tracing on these options. A run of a type that is not registered fails and is reported.
    pub fn workflows(mut self, workflows: WorkflowReplayerOptions) -> Self {
        self.workflows = Some(Arc::new(workflows));
        self
    }

    /// The data converter whose codec encodes the trace headers, for skeletons. Default: that of the
    /// client. Needed for histories from a file only. A header that no codec decodes does not tell the
    /// trace, and nothing else does: a skeleton in a trace of its own would tell the run twice, so the
    /// run fails and is reported.
    pub fn data_converter(mut self, data_converter: DataConverter) -> Self {
        self.data_converter = Some(data_converter);
        self
    }

    /// Records as the workers of this installation do: by its timetable, limits, hooks and options. Runs
    /// that the timetable or sampling leaves alone are backfilled, too. Default: as
    /// [`DurableSpans::new`](crate::DurableSpans::new) does.
    pub fn installation(mut self, spans: &DurableSpans) -> Self {
        self.tracing = spans.workflow_tracing().sampling(Sampling::all()).disabled(false);
        self
    }

    /// How many runs are fetched and replayed at once, at least 1. Each holds its history in memory.
    /// Default 4.
    pub fn parallel(mut self, runs: usize) -> Self {
        self.parallel = runs.max(1);
        self
    }

    /// How long a batch is tried again while the sink is down, before its run counts as failed.
    /// Default 60 seconds.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Keeps the ids of closed runs that are done in a file, and leaves out those that it holds, so
    /// that a backfill can be interrupted and started again. Made if it does not exist. Default:
    /// none.
    pub fn journal(mut self, path: impl Into<PathBuf>) -> Self {
        self.journal = Some(path.into());
        self
    }

    /// Calls `progress` when a run is done, has failed or is left out. It must not block.
    pub fn progress(mut self, progress: impl Fn(Progress<'_>) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(progress));
        self
    }

    /// Backfills one run, the latest one of the workflow id where none is named.
    ///
    /// # Errors
    ///
    /// When the journal cannot be used. A run that fails is in the report.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub async fn run(
        &self,
        client: &Client,
        workflow_id: &str,
        run_id: Option<&str>,
    ) -> Result<BackfillReport, BackfillError> {
        let run = Source::Server {
            client: client.clone(),
            workflow_id: workflow_id.to_owned(),
            run_id: run_id.map(str::to_owned),
        };
        self.all(stream::iter([Ok(run)])).await
    }

    /// Backfills every run that a query of Temporal's visibility finds, such as
    /// `ExecutionStatus = 'Terminated'`. Couriers are left out.
    ///
    /// # Errors
    ///
    /// When the server does not list the runs, or the journal cannot be used. A run that fails is
    /// in the report.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub async fn query(
        &self,
        client: &Client,
        query: &str,
    ) -> Result<BackfillReport, BackfillError> {
        let listed = client.list_workflows(query, WorkflowListOptions::default());
        let runs = listed
            .try_filter(|run| futures::future::ready(run.workflow_type() != COURIER_WORKFLOW))
            .map_ok(|run| Source::Server {
                client: client.clone(),
                workflow_id: run.id().to_owned(),
                run_id: Some(run.run_id().to_owned()),
            })
            .map_err(|error| BackfillError::List(error.into()));
        self.all(runs).await
    }

    /// Backfills a run from its history, for example from a file (`read_history`, with the cargo feature
    /// `history-json`). `workflow_id` is needed where the
    /// events do not hold it, as those of older servers.
    ///
    /// # Errors
    ///
    /// When the journal cannot be used. A run that fails is in the report.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub async fn history(
        &self,
        history: WorkflowHistory,
        workflow_id: Option<&str>,
    ) -> Result<BackfillReport, BackfillError> {
        let workflow_id = workflow_id.or(history.workflow_id()).map(str::to_owned);
        self.all(stream::iter([Ok(Source::History { history, workflow_id })])).await
    }

    async fn all(
        &self,
        runs: impl Stream<Item = Result<Source, BackfillError>>,
    ) -> Result<BackfillReport, BackfillError> {
        let journal = self.journal.as_deref().map(Journal::open).transpose()?;
        let journal = journal.as_ref();
        let mut report = BackfillReport::default();
        let results = runs.map_ok(|source| async move {
            match (journal, source.run_id()) {
                (Some(journal), Some(run_id)) if journal.holds(run_id) => {
                    Ok(Ended::Skipped(run_id.to_owned()))
                }
                _ => Ok(self.one(source).await),
            }
        });
        let mut results = std::pin::pin!(results.try_buffer_unordered(self.parallel));
        while let Some(ended) = results.try_next().await? {
            match ended {
                Ended::Skipped(run_id) => {
                    report.skipped += 1;
                    self.tell(Progress::Skipped(&run_id));
                }
                Ended::Done(run) => {
                    if let Some(journal) = journal
                        && !run.is_open
                    {
                        journal.add(&run.run_id)?;
                    }
                    report.runs += 1;
                    report.sent += run.sent;
                    report.known += run.known;
                    report.refused += run.refused.len() as u64;
                    self.tell(Progress::Done(&run));
                }
                Ended::Failed(run) => {
                    self.tell(Progress::Failed(&run));
                    report.failed.push(run);
                }
            }
        }
        Ok(report)
    }

    fn tell(&self, progress: Progress<'_>) {
        if let Some(tell) = &self.progress {
            tell(progress);
        }
    }

    async fn one(&self, source: Source) -> Ended {
        let (workflow_id, run_id) = source.names();
        match self.backfill(source).await {
            Ok(run) => Ended::Done(run),
            Err(error) => Ended::Failed(FailedRun { workflow_id, run_id, error }),
        }
    }

    async fn backfill(&self, source: Source) -> Result<BackfilledRun, RunError> {
        let data_converter = match &self.workflows {
            Some(workflows) => workflows.data_converter.clone(),
            None => {
                let given = self.data_converter.clone();
                given.or_else(|| source.data_converter()).unwrap_or_default()
            }
        };
        let reader = Reader { data_converter, tracing: &self.tracing };
        let Fetched { history, readable } = source.fetch(&reader).await?;
        let rebuilt = self.rebuilt(history.clone(), readable).await?;
        let delivery = Delivery { sink: self.sink.clone(), patience: self.patience };
        let trace_id = rebuilt.trace_id();
        let ended = match &trace_id {
            Some(trace_id) => delivery.retried(|| self.sink.ended_spans(trace_id)).await,
            None => Ok(None),
        };
        let ended = ended.map_err(RunError::deliver)?.unwrap_or_default();
        let (source, all) = (rebuilt.source(), rebuilt.len());
        let spans = match rebuilt {
            Rebuilt::Skeleton(skeleton) => skeleton.missing(&ended),
            Rebuilt::Recorded(mut spans, _) => {
                spans.retain(|span| !ended.contains(&span.id));
                spans
            }
        };
        let (sent, all) = (spans.len() as u64, all as u64);
        let refused = delivery.deliver(spans).await.map_err(RunError::deliver)?;
        Ok(BackfilledRun {
            workflow_id: history.workflow_id,
            run_id: history.run_id,
            workflow_type: history.workflow_type,
            source,
            is_open: history.ending.is_none(),
            sent: sent - refused.len() as u64,
            known: all - sent,
            refused,
        })
    }

    /// Replay is work for the processor, and the SDK's replayer cannot be sent between threads, so
    /// each runs on a thread of its own.
    async fn rebuilt(
        &self,
        history: RunHistory,
        readable: RunHistory,
    ) -> Result<Rebuilt, RunError> {
        let workflows = self.workflows.clone();
        let tracing = self.tracing.clone();
        let runtime = tokio::runtime::Handle::current();
        let work = move || {
            runtime.block_on(async {
                match workflows {
                    // A run whose code never ran has recorded nothing.
                    Some(workflows) if history.has_run() => {
                        let replayed = replay::replay(&workflows, &tracing, &history, &readable);
                        let mut replayed = replayed.await?;
                        truth::complete(&mut replayed.spans, &readable);
                        Ok(Rebuilt::Recorded(replayed.spans, replayed.way))
                    }
                    _ if readable.hides_trace() => Err(RunError::history(
                        "a payload codec has encoded its trace headers, so that nothing tells its \
                         trace: give the codec (Backfill::data_converter, or --codec-endpoint)",
                    )),
                    _ => {
                        let known = readable.clone();
                        let draw =
                            move |seed, draw: &draws::Draw<'_>| Skeleton::of(&known, seed, draw);
                        draws::with_draws(&readable, draw).await.map(Rebuilt::Skeleton)
                    }
                }
            })
        };
        tokio::task::spawn_blocking(work).await.map_err(RunError::replay)?
    }
}

enum Ended {
    Done(BackfilledRun),
    Failed(FailedRun),
    Skipped(String),
}

enum Rebuilt {
    Recorded(Vec<Span>, Way),
    Skeleton(Skeleton),
}

impl Rebuilt {
    fn trace_id(&self) -> Option<TraceId> {
        match self {
            Self::Recorded(spans, _) => spans.first().map(|span| span.trace_id.clone()),
            Self::Skeleton(skeleton) => Some(skeleton.trace_id().clone()),
        }
    }

    fn source(&self) -> SpanSource {
        match self {
            Self::Recorded(_, Way::Traced) => SpanSource::Replay,
            Self::Recorded(_, Way::Anew) => SpanSource::NewRecording,
            Self::Skeleton(_) => SpanSource::Skeleton,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Recorded(spans, _) => spans.len(),
            Self::Skeleton(skeleton) => skeleton.len(),
        }
    }
}
