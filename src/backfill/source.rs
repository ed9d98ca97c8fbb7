use temporalio_client::{
    Client, NamespacedClient, WorkflowDescribeOptions, WorkflowExecutionInfo,
    WorkflowFetchHistoryOptions, WorkflowHandle, WorkflowHistory,
};
use temporalio_common::{UntypedWorkflow, data_converters::DataConverter};

use durable_spans_workflow::WorkflowTracing;

use super::{error::RunError, history::RunHistory};

/// Where the history of a run is.
pub(super) enum Source {
    Server { client: Client, workflow_id: String, run_id: Option<String> },
    History { history: WorkflowHistory, workflow_id: Option<String> },
}

impl Source {
    pub(super) fn run_id(&self) -> Option<&str> {
        match self {
            Self::Server { run_id, .. } => run_id.as_deref(),
            Self::History { .. } => None,
        }
    }

    /// That of the client, with its codec.
    pub(super) fn data_converter(&self) -> Option<DataConverter> {
        match self {
            Self::Server { client, .. } => Some(client.data_converter().clone()),
            Self::History { .. } => None,
        }
    }

    /// The workflow id and the run id, as far as they are known.
    pub(super) fn names(&self) -> (String, String) {
        let workflow_id = match self {
            Self::Server { workflow_id, .. } => workflow_id.clone(),
            Self::History { workflow_id, .. } => workflow_id.clone().unwrap_or_default(),
        };
        (workflow_id, self.run_id().unwrap_or_default().to_owned())
    }

    pub(super) async fn fetch(self, reader: &Reader<'_>) -> Result<Fetched, RunError> {
        let (client, workflow_id, run_id) = match self {
            Self::History { history, workflow_id } => {
                let events = history.into_events().await.map_err(RunError::fetch)?;
                return reader.read(RunHistory::new(events, workflow_id.as_deref(), None)?).await;
            }
            Self::Server { client, workflow_id, run_id } => (client, workflow_id, run_id),
        };
        let run = |run_id: Option<String>| {
            let mut info = WorkflowExecutionInfo::builder()
                .namespace(client.namespace())
                .workflow_id(workflow_id.clone())
                .build();
            info.run_id = run_id;
            WorkflowHandle::<_, UntypedWorkflow>::new(client.clone(), info)
        };
        let history = async |run_id: Option<String>| {
            let history = run(run_id.clone()).fetch_history(WorkflowFetchHistoryOptions::default());
            let events = history.into_events().await.map_err(RunError::fetch)?;
            let mut history = RunHistory::new(events, Some(&workflow_id), run_id.as_deref())?;
            history.namespace = Some(client.namespace());
            reader.read(history).await
        };
        let mut found = history(run_id).await?;
        if found.history.ending.is_some() {
            let options = WorkflowDescribeOptions::default();
            let described = run(Some(found.history.run_id.clone())).describe(options).await;
            let described = described.map_err(RunError::fetch)?.raw_description;
            let reset_to = described.workflow_extended_info.map(|more| more.reset_run_id);
            if let Some(other) = reset_to.filter(|run_id| !run_id.is_empty()) {
                let told_from = history(Some(other)).await?.readable.parted_at();
                found.history.told_from = told_from;
                found.readable.told_from = told_from;
            }
        }
        Ok(found)
    }
}

/// What histories are read with.
pub(super) struct Reader<'a> {
    pub(super) data_converter: DataConverter,
    pub(super) tracing: &'a WorkflowTracing,
}

/// A history for replayers, and the same [`readable`](RunHistory::readable) for us.
pub(super) struct Fetched {
    pub(super) history: RunHistory,
    pub(super) readable: RunHistory,
}

impl Reader<'_> {
    async fn read(&self, history: RunHistory) -> Result<Fetched, RunError> {
        let mut readable = history.readable(&self.data_converter).await;
        let pinned = readable.context().and_then(|context| context.policy);
        let policy = pinned.or_else(|| self.tracing.policy_at(readable.start_time));
        readable.policy = policy.unwrap_or_default();
        Ok(Fetched { history, readable })
    }
}
