use std::{fmt, time::Duration};

use durable_spans_model::{HEADER, Timestamp};
use durable_spans_workflow::{
    COURIER_WORKFLOW, Courier, FLUSH_ACTIVITY, FLUSH_PACKED_ACTIVITY, Freight, from_payload,
};
use futures::StreamExt;
use temporalio_client::{
    Client, NamespacedClient, WorkflowExecution, WorkflowExecutionInfo,
    WorkflowFetchHistoryOptions, WorkflowGetResultOptions, WorkflowHandle, WorkflowListOptions,
    WorkflowStartOptions, WorkflowTerminateOptions,
    errors::{ClientError, WorkflowInteractionError},
};
use temporalio_common::{
    UntypedWorkflow,
    protos::temporal::api::{
        common::v1::Payload,
        enums::v1::EventType,
        history::v1::{HistoryEvent, history_event::Attributes},
    },
};
use uuid::Uuid;

/// How many runs of a task queue are looked at.
const SAMPLE: usize = 20;

/// How many couriers are sent to a task queue, so that most of its workers get one.
const COURIERS: usize = 5;

/// Examines a fleet: whether what the rollout guide asks for holds.
///
/// It reads the histories of recent runs, and sends a few empty couriers to each task queue to see
/// whether its workers know them. It changes nothing else.
///
/// ```no_run
/// # async fn examine(client: temporalio_client::Client) -> Result<(), durable_spans::ExamineError> {
/// use durable_spans::Doctor;
///
/// let since = "2026-12-01T06:00:00Z".parse().ok();
/// for finding in Doctor::new(client).task_queue("orders").since(since).examine().await? {
///     println!("{finding}");
/// }
/// # Ok(())
/// # }
/// ```
pub struct Doctor {
    client: Client,
    task_queues: Vec<String>,
    since: Option<Timestamp>,
    patience: Duration,
}

/// What the doctor thinks of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It may be as it should be, look at it.
    Warning,
    /// Spans will be lost, or runs will break, until it is mended.
    Problem,
}

/// One thing that the doctor has looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What the doctor thinks of it.
    pub verdict: Verdict,
    /// The task queue, or the namespace.
    pub subject: String,
    /// What was found and, unless it is good, what to do.
    pub text: String,
}

/// `problem: orders: …`
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.verdict, self.subject, self.text)
    }
}

/// `good`, `warning` or `problem`.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Good => "good",
            Self::Warning => "warning",
            Self::Problem => "problem",
        })
    }
}

/// The server did not answer what the doctor asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExamineError {
    /// Runs could not be listed.
    #[error("could not list the runs of the namespace: {0}")]
    List(#[from] ClientError),
    /// A history could not be read.
    #[error("could not read the history of a run: {0}")]
    History(#[from] WorkflowInteractionError),
}

impl Doctor {
    /// A doctor with the client's namespace as its patient. With the client's payload codec, the
    /// couriers that it sends are encoded as the fleet expects.
    pub fn new(client: Client) -> Self {
        Self { client, task_queues: Vec::new(), since: None, patience: Duration::from_secs(15) }
    }

    /// Examines a task queue of workflows, too. Call it once for each.
    #[must_use]
    pub fn task_queue(mut self, name: impl Into<String>) -> Self {
        self.task_queues.push(name.into());
        self
    }

    /// The date of the fleet's [`Timetable::since`](crate::Timetable::since), if it has one.
    #[must_use]
    pub fn since(mut self, date: Option<Timestamp>) -> Self {
        self.since = date;
        self
    }

    /// How long to wait for the couriers of a task queue. Default 15 seconds.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Examines everything, in this order: couriers of the namespace, then each task queue.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub async fn examine(&self) -> Result<Vec<Finding>, ExamineError> {
        let mut findings = self.couriers().await?;
        for queue in &self.task_queues {
            findings.push(self.courier_arrives(queue).await);
            findings.extend(self.early_runs(queue).await?);
            findings.extend(self.closed_runs(queue).await?);
        }
        Ok(findings)
    }

    /// Couriers that are at work or have given up.
    async fn couriers(&self) -> Result<Vec<Finding>, ExamineError> {
        let subject = self.client.namespace();
        let of = |status: &str| {
            format!("WorkflowType = '{COURIER_WORKFLOW}' AND ExecutionStatus = '{status}'")
        };
        let running = self.list(&of("Running")).await?;
        let failed = self.list(&of("Failed")).await?;
        let some = |runs: &[WorkflowExecution]| {
            let more = if runs.len() == SAMPLE { " or more" } else { "" };
            format!("{}{more}", runs.len())
        };
        let mut findings = Vec::new();
        if running.is_empty() && failed.is_empty() {
            let text = "no courier is at work, none has given up".to_owned();
            findings.push(Finding { verdict: Verdict::Good, subject: subject.clone(), text });
        }
        if let Some(oldest) = running.last() {
            let text = format!(
                "{} couriers are at work, such as {}: look whether the sink of their workers is down",
                some(&running),
                oldest.id(),
            );
            findings.push(Finding { verdict: Verdict::Warning, subject: subject.clone(), text });
        }
        if let Some(newest) = failed.first() {
            let text = format!(
                "{} couriers have given up, the last one is {}: its failure names what is lost; \
                 Backfill brings it back while the runs' histories are kept",
                some(&failed),
                newest.id(),
            );
            findings.push(Finding { verdict: Verdict::Problem, subject, text });
        }
        Ok(findings)
    }

    /// Sends empty couriers: whoever serves the task queue should know them.
    async fn courier_arrives(&self, queue: &str) -> Finding {
        let found = |verdict, text: String| Finding { verdict, subject: queue.to_owned(), text };
        for _ in 0..COURIERS {
            let id = format!("durable-spans-doctor-{}", Uuid::new_v4());
            let options =
                WorkflowStartOptions::new(queue, id).execution_timeout(self.patience * 2).build();
            let empty = Freight { run_id: String::new(), groups: Vec::new() }.pack();
            let handle = match self.client.start_workflow(Courier::run, empty, options).await {
                Ok(handle) => handle,
                Err(error) => {
                    return found(Verdict::Problem, format!("no courier could start: {error}"));
                }
            };
            let ended = handle.get_result(WorkflowGetResultOptions::default());
            match tokio::time::timeout(self.patience, ended).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    let text = format!(
                        "a courier failed ({error}): do all its workers have the payload codec of \
                         this client?"
                    );
                    return found(Verdict::Warning, text);
                }
                Err(_) => {
                    let options = WorkflowTerminateOptions::default();
                    // It ends by its timeout otherwise.
                    let _ = handle.terminate(options).await;
                    let text = format!(
                        "a courier did not arrive within {:?}: no worker serves the task queue, or \
                         one without durable-spans does; install it on all of them",
                        self.patience
                    );
                    return found(Verdict::Problem, text);
                }
            }
        }
        found(Verdict::Good, format!("{COURIERS} of {COURIERS} couriers arrived"))
    }

    /// Runs that started before the date and are still running: they must not hold flushes.
    async fn early_runs(&self, queue: &str) -> Result<Option<Finding>, ExamineError> {
        let Some(since) = self.since else { return Ok(None) };
        let query = format!(
            "TaskQueue = '{queue}' AND ExecutionStatus = 'Running' AND StartTime < '{since}' \
             AND WorkflowType != '{COURIER_WORKFLOW}'"
        );
        let runs = self.list(&query).await?;
        for run in &runs {
            if Traits::of(&self.history(run).await?).flushes {
                let text = format!(
                    "run {} of {} started before {since} and was traced already: with this date, \
                     its replay fails; choose the date of the first rollout",
                    run.run_id(),
                    run.id(),
                );
                return Ok(Some(Finding {
                    verdict: Verdict::Problem,
                    subject: queue.to_owned(),
                    text,
                }));
            }
        }
        let text = format!("{} running runs from before {since} are left alone", runs.len());
        Ok(Some(Finding { verdict: Verdict::Good, subject: queue.to_owned(), text }))
    }

    /// Closed runs that started after the date: each ends with a flush, and what is encoded is
    /// encoded throughout.
    async fn closed_runs(&self, queue: &str) -> Result<Vec<Finding>, ExamineError> {
        let after = match self.since {
            Some(since) => format!(" AND StartTime >= '{since}'"),
            None => String::new(),
        };
        let query = format!(
            "TaskQueue = '{queue}' AND ExecutionStatus != 'Running'{after} \
             AND WorkflowType != '{COURIER_WORKFLOW}'"
        );
        let runs = self.list(&query).await?;
        let found = |verdict, text| Finding { verdict, subject: queue.to_owned(), text };
        let mut findings = Vec::new();
        let (mut without_header, mut in_clear, mut unflushed) = (None, None, None);
        for run in &runs {
            let traits = Traits::of(&self.history(run).await?);
            if traits.ran_to_its_close && traits.sampled && !traits.flushes {
                unflushed.get_or_insert(run);
            }
            if !traits.has_header {
                without_header.get_or_insert(run);
            }
            if traits.header_in_clear {
                in_clear.get_or_insert(run);
            }
        }
        if let Some(run) = unflushed {
            let text = format!(
                "run {} of {} closed without a flush: a worker without durable-spans had it; \
                 install it on all workers, and choose a date after that for those in flight",
                run.run_id(),
                run.id()
            );
            findings.push(found(Verdict::Problem, text));
        }
        if let Some(run) = in_clear {
            let text = format!(
                "run {} of {} has an encoded input and a trace context in clear: install \
                 durable-spans on the client after its data converter is set",
                run.run_id(),
                run.id()
            );
            findings.push(found(Verdict::Problem, text));
        }
        if let Some(run) = without_header {
            let text = format!(
                "run {} of {} was started without a trace context, as schedules and other SDKs do: \
                 it has a trace of its own and the policy of the workers' timetable",
                run.run_id(),
                run.id()
            );
            findings.push(found(Verdict::Warning, text));
        }
        if findings.is_empty() {
            findings.push(found(Verdict::Good, format!("{} closed runs are in order", runs.len())));
        }
        Ok(findings)
    }

    /// The newest runs that the query finds.
    async fn list(&self, query: &str) -> Result<Vec<WorkflowExecution>, ExamineError> {
        let options = WorkflowListOptions::builder().limit(SAMPLE).build();
        let mut runs = Vec::new();
        let mut stream = self.client.list_workflows(query, options);
        while let Some(run) = stream.next().await {
            runs.push(run?);
        }
        Ok(runs)
    }

    async fn history(&self, run: &WorkflowExecution) -> Result<Vec<HistoryEvent>, ExamineError> {
        let info = WorkflowExecutionInfo::builder()
            .namespace(self.client.namespace())
            .workflow_id(run.id())
            .run_id(run.run_id().to_owned())
            .build();
        let handle = WorkflowHandle::<_, UntypedWorkflow>::new(self.client.clone(), info);
        let history = handle.fetch_history(WorkflowFetchHistoryOptions::default());
        Ok(history.into_events().await?)
    }
}

/// What a history tells of tracing.
struct Traits {
    has_header: bool,
    sampled: bool,
    header_in_clear: bool,
    flushes: bool,
    /// Whether code of the run decided that it ends.
    ran_to_its_close: bool,
}

impl Traits {
    fn of(events: &[HistoryEvent]) -> Self {
        let mut traits = Self {
            has_header: false,
            sampled: true,
            header_in_clear: false,
            flushes: events.iter().any(is_flush),
            ran_to_its_close: false,
        };
        if let Some(Attributes::WorkflowExecutionStartedEventAttributes(start)) =
            events.first().and_then(|event| event.attributes.as_ref())
            && let Some(header) = start.header.as_ref().and_then(|h| h.fields.get(HEADER))
        {
            let inputs = start.input.as_ref().map_or(&[][..], |input| &input.payloads);
            traits.has_header = true;
            traits.header_in_clear = is_clear(header) && inputs.iter().any(|p| !is_clear(p));
            traits.sampled = from_payload(header).map_or(true, |context| context.sampled);
        }
        traits.ran_to_its_close = events.last().is_some_and(|event| {
            matches!(
                event.event_type(),
                EventType::WorkflowExecutionCompleted
                    | EventType::WorkflowExecutionFailed
                    | EventType::WorkflowExecutionCanceled
                    | EventType::WorkflowExecutionContinuedAsNew
            )
        });
        traits
    }
}

fn is_clear(payload: &Payload) -> bool {
    let encoding = payload.metadata.get("encoding").map(Vec::as_slice).unwrap_or_default();
    [&b"json/plain"[..], b"json/protobuf", b"binary/plain", b"binary/protobuf", b"binary/null"]
        .contains(&encoding)
}

fn is_flush(event: &HistoryEvent) -> bool {
    match &event.attributes {
        Some(Attributes::MarkerRecordedEventAttributes(marker)) => {
            let payloads = marker.details.values().flat_map(|details| &details.payloads);
            let name = FLUSH_ACTIVITY.as_bytes();
            payloads.into_iter().any(|p| p.data.windows(name.len()).any(|bytes| bytes == name))
        }
        Some(Attributes::ActivityTaskScheduledEventAttributes(activity)) => {
            activity.activity_type.as_ref().is_some_and(|kind| kind.name == FLUSH_PACKED_ACTIVITY)
        }
        _ => false,
    }
}
