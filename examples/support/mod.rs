//! What every example needs: a Temporal server, a traced client, and a worker while a job runs.

use std::{future::Future, pin::pin, time::Duration};

use anyhow::{Context, Result, bail};
use durable_spans::DurableSpans;
use durable_spans_test_server::{ServerOptions, TemporalServer};
use temporalio_client::{Client, ClientOptions, WorkflowStartOptions};
use temporalio_sdk::{Runtime, Worker, WorkerOptions, runtime::RuntimeOptions};
use uuid::Uuid;

/// How long the sink may take for the last spans.
const LONGEST_FLUSH: Duration = Duration::from_secs(10);

/// A server with one traced client, and a task queue of its own.
pub(crate) struct Setup {
    pub(crate) server: TemporalServer,
    pub(crate) client: Client,
    spans: DurableSpans,
    queue: String,
}

impl Setup {
    /// Finds or starts a server. One that was started ends with this value.
    pub(crate) async fn start(server: ServerOptions, spans: &DurableSpans) -> Result<Self> {
        let server = server.start().await?;
        let mut options = ClientOptions::new("default").build();
        // The first of the two lines of an installation: the client tells runs their trace.
        spans.install_client(&mut options);
        let client = Client::new(server.connection().await?, options)?;
        // The server may be one that others use, too.
        let queue = format!("durable-spans-example-{}", Uuid::new_v4());
        Ok(Self { server, client, spans: spans.clone(), queue })
    }

    /// Options of a worker, to register workflows and activities on.
    pub(crate) fn worker_options(&self) -> WorkerOptions {
        WorkerOptions::new(self.queue.clone()).build()
    }

    /// Options of a run on the worker's task queue.
    pub(crate) fn start_options(&self, name: &str) -> WorkflowStartOptions {
        WorkflowStartOptions::new(self.queue.clone(), format!("{name}-{}", Uuid::new_v4())).build()
    }

    /// Runs a traced worker until `job` has ended, then stops it in order.
    pub(crate) async fn while_working<T>(
        &self,
        mut options: WorkerOptions,
        job: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        // The second of the two lines: last, when everything is registered.
        self.spans.install(&mut options)?;
        let runtime = Runtime::from_current_tokio(RuntimeOptions::default())?;
        let mut worker = Worker::new(&runtime, self.client.clone(), options)
            .map_err(|error| anyhow::anyhow!("the worker's options are refused: {error}"))?;
        let stop = worker.shutdown_handle();
        let mut work = pin!(worker.run());
        let result = tokio::select! {
            result = job => result,
            ended = &mut work => match ended {
                Ok(()) => bail!("the worker has ended before its job"),
                Err(error) => Err(error).context("the worker has failed"),
            },
        };
        stop();
        work.await.context("the worker did not stop in order")?;
        // What still waits for the sink would be lost with the process.
        self.spans.flush(LONGEST_FLUSH).await;
        result
    }
}
