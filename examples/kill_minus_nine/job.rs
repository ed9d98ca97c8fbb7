//! What the worker of durable-spans and that of the OpenTelemetry plugin have in common: where
//! everything is, the activity, the options, and how a worker's process goes about its work.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, anyhow};
use serde::{Deserialize, Serialize};
use temporalio_client::{
    Client, ClientOptions, Connection, ConnectionOptions, Url, WorkflowStartOptions,
};
use temporalio_common::RetryPolicy;
use temporalio_macros::activities;
use temporalio_sdk::{
    ActivityOptions, Runtime, Worker, WorkerOptions,
    activities::{ActivityContext, ActivityError},
    runtime::RuntimeOptions,
};

/// How long each activity takes.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

/// How long it takes to find out that a worker is gone.
const NOTICED_WITHIN: Duration = Duration::from_secs(2);

/// The line by which a process says that it is at work: a worker, when it does its first activity.
pub(crate) const READY: &str = "ready";

/// What a worker's process is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The Temporal server's address.
    pub(crate) server: String,
    /// Where the spans go.
    pub(crate) receiver: String,
    pub(crate) queue: String,
    pub(crate) runs: usize,
    pub(crate) steps: u32,
    /// How many workflows the worker keeps in memory.
    pub(crate) cache: usize,
}

impl Job {
    pub(crate) fn workflow_id(&self, run: usize) -> String {
        format!("{}-{run}", self.queue)
    }

    pub(crate) fn start_options(&self, run: usize) -> WorkflowStartOptions {
        WorkflowStartOptions::new(&self.queue, self.workflow_id(run))
            .task_timeout(NOTICED_WITHIN)
            .build()
    }

    pub(crate) fn worker_options(&self) -> WorkerOptions {
        let mut options = WorkerOptions::new(&self.queue).build();
        // So that a run goes on soon after its worker's process is gone.
        options.sticky_queue_schedule_to_start_timeout = Duration::from_millis(500);
        options.max_cached_workflows = self.cache;
        options.register_activities(Work::default());
        options
    }

    pub(crate) async fn client(&self, options: ClientOptions) -> Result<Client> {
        let server = ConnectionOptions::new(Url::parse(&self.server)?).build();
        Ok(Client::new(Connection::connect(server).await?, options)?)
    }
}

/// Is the worker until the process is killed.
pub(crate) async fn work(client: Client, options: WorkerOptions) -> Result<()> {
    let runtime = Runtime::from_current_tokio(RuntimeOptions::default())?;
    let mut worker = Worker::new(&runtime, client, options)
        .map_err(|error| anyhow!("the worker's options are refused: {error}"))?;
    Ok(worker.run().await?)
}

pub(crate) fn say_ready() -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{READY}")?;
    Ok(out.flush()?)
}

/// Options of the activity: an attempt that was lost is done again soon.
pub(crate) fn activity_options() -> ActivityOptions {
    let mut retry = RetryPolicy::default();
    retry.set_initial_interval(Duration::from_millis(100));
    ActivityOptions::with_start_to_close_timeout(NOTICED_WITHIN).retry_policy(retry).build()
}

/// The activity of each step.
#[derive(Default)]
pub(crate) struct Work {
    at_work: AtomicBool,
}

#[activities]
impl Work {
    #[activity(name = "work")]
    pub(crate) async fn work(
        self: Arc<Self>,
        _ctx: ActivityContext,
        step: u32,
    ) -> Result<u32, ActivityError> {
        if !self.at_work.swap(true, Ordering::Relaxed) {
            // Who does not read it does not need it.
            drop(say_ready());
        }
        tokio::time::sleep(PAUSE).await;
        Ok(step)
    }
}
