use std::time::Duration;

use futures::{FutureExt, future::LocalBoxFuture};
use temporalio_client::{ClientOptions, ClientPlugin, PluginError};
use temporalio_sdk::{
    ClientAndWorkerPlugin, WorkerOptions, WorkerPlugin, WorkerRunError,
    interceptors::{Next, RunWorkerInput, WorkerInterceptor},
    workflow_replayer::WorkflowReplayerOptions,
};

use crate::DurableSpans;

const NAME: &str = "durable-spans";

impl DurableSpans {
    /// Everything in one line: a plugin which, registered on a client's options, traces that
    /// client and every worker made from it, and flushes when a worker has ended, for at most 10
    /// seconds.
    ///
    /// Needs the cargo feature `plugin`, which turns on the SDK's experimental plugin interface.
    ///
    /// ```
    /// use durable_spans::{DurableSpans, MemorySink};
    /// use temporalio_client::ClientOptions;
    ///
    /// let spans = DurableSpans::new(MemorySink::new());
    /// let options = ClientOptions::new("default").plugin(spans.plugin()).build();
    /// # let _ = options;
    /// ```
    pub fn plugin(&self) -> ClientAndWorkerPlugin {
        ClientAndWorkerPlugin::new(self.clone())
    }
}

impl ClientPlugin for DurableSpans {
    fn name(&self) -> &str {
        NAME
    }

    fn configure_client_options(&self, options: &mut ClientOptions) -> Result<(), PluginError> {
        self.install_client(options);
        Ok(())
    }
}

impl WorkerPlugin for DurableSpans {
    fn name(&self) -> &str {
        NAME
    }

    fn configure_worker_options(&self, options: &mut WorkerOptions) -> Result<(), PluginError> {
        self.install(options).map_err(PluginError::new)?;
        options.worker_interceptor(FlushAtEnd(self.clone()));
        Ok(())
    }

    fn configure_workflow_replayer_options(
        &self,
        options: &mut WorkflowReplayerOptions,
    ) -> Result<(), PluginError> {
        self.install_replayer(options);
        Ok(())
    }
}

/// How long a worker that has ended waits for the sink.
const FLUSH_AT_END: Duration = Duration::from_secs(10);

struct FlushAtEnd(DurableSpans);

impl WorkerInterceptor for FlushAtEnd {
    fn run_worker<'a>(
        &'a self,
        input: RunWorkerInput<'a>,
        next: Next<'a, RunWorkerInput<'a>, LocalBoxFuture<'a, Result<(), WorkerRunError>>>,
    ) -> LocalBoxFuture<'a, Result<(), WorkerRunError>> {
        async move {
            let ended = next.run(input).await;
            let statistics = self.0.flush(FLUSH_AT_END).await;
            if statistics.deferred > 0 {
                tracing::warn!(%statistics, "the worker has ended; what is deferred is lost with its process");
            }
            ended
        }
        .boxed_local()
    }
}
