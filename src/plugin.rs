use temporalio_client::{ClientOptions, ClientPlugin, PluginError};
use temporalio_sdk::{
    ClientAndWorkerPlugin, WorkerOptions, WorkerPlugin, workflow_replayer::WorkflowReplayerOptions,
};

use crate::DurableSpans;

const NAME: &str = "durable-spans";

impl DurableSpans {
    /// Everything in one line: a plugin which, registered on a client's options, traces that
    /// client and every worker made from it.
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
        self.install(options).map_err(PluginError::new)
    }

    fn configure_workflow_replayer_options(
        &self,
        options: &mut WorkflowReplayerOptions,
    ) -> Result<(), PluginError> {
        self.install_replayer(options);
        Ok(())
    }
}
