//! The main job: a collector, a server, a worker, and one run of the pipeline.

use std::{convert::Infallible, sync::Arc, sync::atomic::Ordering, time::Duration};

use anyhow::{Context, Result};
use durable_spans::{
    DurableSpans, SgpOptions, SgpSink, TraceContext, TraceId, in_trace, new_trace,
};
use durable_spans_collector::{Collector, CollectorError, RunningCollector};
use durable_spans_test_server::TemporalServer;
use tempfile::TempDir;
use temporalio_client::{WorkflowExecutionInfo, WorkflowGetResultOptions};

use crate::{
    activities::{Progress, TextWork},
    cost::Cost,
    files::Corpus,
    pipeline::{Digest, DigestGroup, Stage},
    report::Outcome,
    support::Setup,
};

/// How long the last spans may take to reach the collector.
const LONGEST_FLUSH: Duration = Duration::from_secs(10);

/// What runs for the job, and ends with it.
pub(crate) struct Job {
    collector: Collector,
    serving: RunningCollector,
    spans: DurableSpans,
    setup: Setup,
    // Dropped last: the collector's file is in it.
    _folder: TempDir,
}

impl Job {
    /// Starts the collector, and finds or starts a server, with its web UI if `ui`.
    pub(crate) async fn start(ui: bool) -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let collector = Collector::open(folder.path().join("spans.sqlite"))?;
        let serving = collector.serve(([127, 0, 0, 1], 0)).await?;
        let spans = DurableSpans::new(SgpSink::new(SgpOptions::new(serving.url()))?);
        let server = TemporalServer::options().ui(ui);
        let setup = Setup::start(server, &spans).await?;
        Ok(Self { collector, serving, spans, setup, _folder: folder })
    }

    /// Where spans are collected.
    pub(crate) fn collector_url(&self) -> String {
        self.serving.url()
    }

    /// Where the server is, and its web UI if it was started with one.
    pub(crate) fn server_urls(&self) -> (&str, Option<&str>) {
        (self.setup.server.address(), self.setup.server.ui_url())
    }

    /// Runs the pipeline once. `None` when `interrupt` was first: the worker, which must not be
    /// dropped at work, has stopped in order then, too.
    pub(crate) async fn run(
        &self,
        corpus: &Corpus,
        interrupt: impl Future<Output = ()> + Clone,
    ) -> Result<Option<Outcome>> {
        let progress = Arc::new(Progress::default());
        let mut worker = self.setup.worker_options();
        worker.register_activities(TextWork {
            root: corpus.root.clone(),
            locked: corpus.groups.first().and_then(|group| group.files.first()).cloned(),
            progress: progress.clone(),
        });
        worker.register_workflow::<Digest>()?.register_workflow::<DigestGroup>()?;

        let trace = new_trace();
        let trace_id = trace.trace_id.clone();
        let pipeline = self.setup.while_working(worker, async {
            tokio::select! {
                ended = self.pipeline(corpus, trace) => ended.map(Some),
                never = self.show(&progress, corpus) => match never {},
                () = interrupt.clone() => Ok(None),
            }
        });
        let Some((first_run, result)) = pipeline.await? else { return Ok(None) };
        eprintln!("{}", self.how_far(&progress, corpus));
        tokio::select! {
            outcome = self.account(trace_id, first_run, result) => outcome.map(Some),
            () = interrupt => Ok(None),
        }
    }

    /// The first run of the pipeline, and what the last one returned.
    async fn pipeline(
        &self,
        corpus: &Corpus,
        trace: TraceContext,
    ) -> Result<(WorkflowExecutionInfo, String)> {
        let stage = Stage::Read(corpus.groups.clone());
        let options = self.setup.start_options("digest");
        let start = self.setup.client.start_workflow(Digest::run, stage, options);
        // The trace could be left to the library, but then it would have to be searched for.
        let handle = in_trace(trace, start).await?;
        let result = handle.get_result(WorkflowGetResultOptions::default()).await;
        Ok((handle.info().clone(), result.context("the pipeline failed")?))
    }

    async fn account(
        &self,
        trace_id: TraceId,
        first_run: WorkflowExecutionInfo,
        result: String,
    ) -> Result<Outcome> {
        let statistics = self.spans.flush(LONGEST_FLUSH).await;
        let cost = Cost::of_chain(&self.setup.client, first_run).await?;
        let (collector, trace) = (self.collector.clone(), trace_id.clone());
        let read = tokio::task::spawn_blocking(move || {
            let store = collector.store();
            Ok::<_, CollectorError>((store.spans(&trace)?, store.items(&trace)?))
        });
        let (spans, items) = read.await??;
        Ok(Outcome { trace_id, result, statistics, cost, spans, items })
    }

    /// Stops what was started.
    pub(crate) async fn stop(self) {
        self.setup.server.stop().await;
        self.serving.shutdown().await;
    }

    /// Tells on stderr how far the pipeline is, whenever that has changed.
    async fn show(&self, progress: &Progress, corpus: &Corpus) -> Infallible {
        let mut shown = String::new();
        loop {
            let now = self.how_far(progress, corpus);
            if now != shown {
                eprintln!("{now}");
                shown = now;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    fn how_far(&self, progress: &Progress, corpus: &Corpus) -> String {
        format!(
            "  {} of {} files read, {} of {} groups done, {} spans delivered",
            progress.files.load(Ordering::Relaxed),
            corpus.file_count(),
            progress.groups.load(Ordering::Relaxed),
            corpus.groups.len(),
            self.spans.statistics().delivered,
        )
    }
}
