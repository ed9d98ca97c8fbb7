//! The server, the sink and the crews, and runs of workflows on them.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use durable_spans_test_server::TemporalServer;
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message;
use temporalio_client::{
    Client, UntypedWorkflow, WorkflowExecutionInfo, WorkflowFetchHistoryOptions,
    WorkflowGetResultOptions, WorkflowHandle, WorkflowStartOptions,
};
use temporalio_common::{
    HasWorkflowDefinition,
    protos::temporal::api::history::v1::{HistoryEvent, history_event::Attributes},
};

use crate::{
    crew::{Crew, Side},
    setup::{OtelPeer, Python, target_folder},
    sink::{Arrived, Sink},
    work,
};

pub(crate) struct Stage {
    pub(crate) sink: Sink,
    pub(crate) python: Python,
    server: TemporalServer,
    client: Client,
    crews: HashMap<Side, Crew>,
}

/// What some runs on one side took and left.
pub(crate) struct Took {
    /// Of each run, as its starter sees it.
    pub(crate) walls: Vec<Duration>,
    pub(crate) all: Duration,
    /// Of the worker.
    pub(crate) cpu: Duration,
    pub(crate) arrived: Arrived,
    pub(crate) last_workflow_id: String,
}

impl Stage {
    /// Starts the workers of these sides and what they need, and has each do a little of each kind
    /// of work.
    pub(crate) async fn set(sides: &[Side]) -> Result<Self> {
        let python = Python::prepare().await?;
        let otel = match sides.iter().any(|side| side.is_otel_peer()) {
            true => Some(OtelPeer::build().await?),
            false => None,
        };
        let server = TemporalServer::start().await?;
        let sink = Sink::start().await?;
        let client = server.client().await?;
        let log = target_folder()?.join("bench-peers.log");
        eprintln!("the workers' logs are in {}", log.display());
        let mut stage = Self { sink, python, server, client, crews: HashMap::new() };
        for &side in sides {
            let (server, sink) = (stage.server.address(), stage.sink.url());
            let crew = Crew::start(side, server, &sink, &log, (&stage.python, otel.as_ref()))?;
            stage.crews.insert(side, crew);
        }
        for &side in sides {
            let limit = Duration::from_secs(60);
            let warm = async {
                if !side.is_otel_peer() {
                    stage.run(side, || work::Spans::run, 10, 3, 1).await?;
                }
                stage.run(side, || work::Steps::run, 1, 1, 1).await
            };
            let warm = tokio::time::timeout(limit, warm).await;
            warm.with_context(|| format!("the worker of {} does nothing", side.name()))??;
        }
        Ok(stage)
    }

    /// Runs the workflow so many times, so many at once.
    pub(crate) async fn run<W>(
        &mut self,
        side: Side,
        workflow: fn() -> W,
        input: u32,
        runs: usize,
        at_once: usize,
    ) -> Result<Took>
    where
        W: HasWorkflowDefinition<Input = u32>,
    {
        let crew = self.crews.get_mut(&side).context("every side has a crew")?;
        let before = (crew.usage().await?, self.sink.arrived());
        let (client, queue) = (&self.client, &crew.queue);
        let began = Instant::now();
        let one = |_| async move {
            let id = format!("{queue}-{}", rand::random::<u64>());
            let options = WorkflowStartOptions::new(queue, &id).build();
            let began = Instant::now();
            let handle = client.start_workflow(workflow(), input, options).await?;
            let result = handle.get_result(WorkflowGetResultOptions::default()).await;
            result.map(drop).map_err(|error| anyhow::anyhow!("{id}: {error}"))?;
            anyhow::Ok((began.elapsed(), id))
        };
        let done: Vec<(Duration, String)> =
            stream::iter(0..runs).map(one).buffer_unordered(at_once).try_collect().await?;
        let all = began.elapsed();
        self.settled().await;
        let crew = self.crews.get_mut(&side).context("every side has a crew")?;
        let cpu_us = crew.usage().await?.cpu_us - before.0.cpu_us;
        Ok(Took {
            all,
            cpu: Duration::from_micros(cpu_us.unsigned_abs()),
            arrived: self.sink.arrived().since(before.1),
            last_workflow_id: done.last().map(|(_, id)| id.clone()).unwrap_or_default(),
            walls: done.into_iter().map(|(wall, _)| wall).collect(),
        })
    }

    /// Waits until nothing has arrived at the sink for a while.
    async fn settled(&self) {
        let mut arrived = self.sink.arrived();
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = self.sink.arrived();
            if now.spans == arrived.spans {
                return;
            }
            arrived = now;
        }
    }

    pub(crate) async fn history(&self, workflow_id: &str) -> Result<Vec<HistoryEvent>> {
        let info =
            WorkflowExecutionInfo::builder().namespace("default").workflow_id(workflow_id).build();
        let handle = WorkflowHandle::<_, UntypedWorkflow>::new(self.client.clone(), info);
        let history = handle.fetch_history(WorkflowFetchHistoryOptions::default());
        Ok(history.into_events().await?)
    }
}

impl Took {
    pub(crate) fn median_wall_ms(&self) -> f64 {
        let walls: Vec<f64> = self.walls.iter().map(|wall| wall.as_secs_f64() * 1e3).collect();
        crate::row::median(&walls)
    }
}

/// The server's own bytes.
pub(crate) fn bytes(events: &[HistoryEvent]) -> f64 {
    events.iter().map(HistoryEvent::encoded_len).sum::<usize>() as f64
}

/// Bytes of the header of each activity, with its tag and length.
pub(crate) fn header_bytes(events: &[HistoryEvent]) -> Vec<f64> {
    let of_activity = |event: &HistoryEvent| match &event.attributes {
        Some(Attributes::ActivityTaskScheduledEventAttributes(scheduled)) => {
            Some(scheduled.header.as_ref().map_or(0, |header| {
                let bytes = header.encoded_len();
                1 + prost::length_delimiter_len(bytes) + bytes
            }) as f64)
        }
        _ => None,
    };
    events.iter().filter_map(of_activity).collect()
}
