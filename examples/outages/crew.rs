//! The workers: a traced and an untraced one, in this process or in one that can be killed.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, Result, anyhow};
use durable_spans::{DurableSpans, FlushPolicy};
use serde::{Deserialize, Serialize};
use temporalio_client::{Client, ClientOptions, Connection, ConnectionOptions, Url};
use temporalio_sdk::{Runtime, Worker, WorkerOptions, runtime::RuntimeOptions};
use tokio::{
    process::{Child, Command},
    runtime::Handle,
    sync::oneshot,
    task::JoinHandle,
};

use crate::{
    class::Class,
    stage::PATIENCE,
    steps::{Steps, Work},
};

/// Tells an executable to be the workers of this place.
const PLACE: &str = "OUTAGES_WORKERS_OF";

/// Where the two workers find everything.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) server: String,
    pub(crate) class: Class,
    /// The URL of the server that takes spans, or the path of the file.
    pub(crate) sink: String,
    pub(crate) sink_timeout: Duration,
    /// Task queues with the same work, by a traced and by an untraced worker.
    pub(crate) traced: String,
    pub(crate) untraced: String,
}

impl Place {
    /// An installation as a process makes one.
    pub(crate) fn spans(&self) -> Result<DurableSpans> {
        let sink = self.class.sink(&self.sink, self.sink_timeout)?;
        // About every third step, so that there are flushes in every outage.
        let policy = FlushPolicy::new().operations(6).linger(Duration::from_secs(1));
        Ok(DurableSpans::new(sink).flush_policy(policy))
    }

    pub(crate) async fn client(&self, spans: Option<&DurableSpans>) -> Result<Client> {
        let server = ConnectionOptions::new(Url::parse(&self.server)?).build();
        let mut options = ClientOptions::new("default").build();
        if let Some(spans) = spans {
            spans.install_client(&mut options);
        }
        Ok(Client::new(Connection::connect(server).await?, options)?)
    }

    /// Starts a process with both workers. It ends by being killed, at the latest with `Child`.
    pub(crate) fn spawn_process(&self) -> Result<Child> {
        Command::new(std::env::current_exe()?)
            .env(PLACE, serde_json::to_string(self)?)
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("the workers' process does not start")
    }

    /// The place whose workers this process shall be, if it was started as one.
    pub(crate) fn of_this_process() -> Result<Option<Self>> {
        match std::env::var(PLACE) {
            Ok(place) => Ok(Some(serde_json::from_str(&place)?)),
            Err(_) => Ok(None),
        }
    }

    /// Is the workers, for ever.
    pub(crate) async fn be_workers(&self) -> Result<()> {
        let crew = Crew::start(self, &self.spans()?).await?;
        let [traced, untraced] = crew.members.map(|member| member.ended);
        tokio::select! {
            ended = traced => ended?,
            ended = untraced => ended?,
        }
    }
}

/// Both workers in this process, each on a thread of its own.
pub(crate) struct Crew {
    work: Work,
    members: [Member; 2],
}

impl Crew {
    pub(crate) async fn start(place: &Place, spans: &DurableSpans) -> Result<Self> {
        let work = Work::default();
        let mut traced = worker_options(&place.traced, work.clone())?;
        spans.install(&mut traced)?;
        let untraced = worker_options(&place.untraced, Work::default())?;
        let members = [
            Member::start(place.client(Some(spans)).await?, traced).await?,
            Member::start(place.client(None).await?, untraced).await?,
        ];
        Ok(Self { work, members })
    }

    /// Waits until the traced worker has done that many activities.
    pub(crate) async fn until_done(&self, activities: u32) -> Result<()> {
        let done = tokio::time::timeout(PATIENCE, self.work.until_done(activities));
        done.await.context("the run does not get on")
    }

    /// Stops both in order.
    pub(crate) async fn stop(self) -> Result<()> {
        for member in &self.members {
            (member.stop)();
        }
        for mut member in self.members {
            (&mut member.ended).await?.context("a worker did not stop in order")?;
        }
        Ok(())
    }
}

struct Member {
    stop: Box<dyn Fn() + Send + Sync>,
    ended: JoinHandle<Result<()>>,
}

impl Member {
    async fn start(client: Client, options: WorkerOptions) -> Result<Self> {
        let (started, has_started) = oneshot::channel();
        let runtime = Handle::current();
        // A worker stays on one thread.
        let run = move || {
            runtime.block_on(async {
                let runtime = Runtime::from_current_tokio(RuntimeOptions::default())?;
                let mut worker = Worker::new(&runtime, client, options)
                    .map_err(|error| anyhow!("the worker's options are refused: {error}"))?;
                drop(started.send(worker.shutdown_handle()));
                Ok(worker.run().await?)
            })
        };
        let ended = tokio::task::spawn_blocking(run);
        match has_started.await {
            Ok(stop) => Ok(Self { stop: Box::new(stop), ended }),
            Err(_) => Err(ended.await?.err().unwrap_or_else(|| anyhow!("the worker is gone"))),
        }
    }
}

fn worker_options(queue: &str, work: Work) -> Result<WorkerOptions> {
    let mut options = WorkerOptions::new(queue).build();
    // So that a run goes on soon after its worker's process is gone.
    options.sticky_queue_schedule_to_start_timeout = Duration::from_millis(500);
    options.register_activities(work).register_workflow::<Steps>()?;
    Ok(options)
}
