//! The random numbers of a run, without its code.

use std::sync::{Arc, Mutex, PoisonError};

use durable_spans_workflow::{SEED_STREAM, place_stream};
use temporalio_client::WorkflowHistory;
use temporalio_common::protos::temporal::api::{
    common::v1::WorkflowType,
    enums::v1::EventType,
    history::v1::{
        History, HistoryEvent, WorkflowTaskScheduledEventAttributes,
        WorkflowTaskStartedEventAttributes, history_event::Attributes,
    },
};
use temporalio_sdk::workflow_replayer::{WorkflowReplayer, WorkflowReplayerOptions};
use temporalio_workflow::{WorkflowContext, WorkflowResult, workflow, workflow_methods};

use super::{error::RunError, history::RunHistory};

/// Gives the number that the run drew for a place in the trace.
pub(super) type Draw<'a> = dyn Fn(u64) -> Option<u64> + 'a;

type Job = Box<dyn FnOnce(u128, &Draw<'_>) + Send>;

/// Replayed in the place of the user's workflow: has the run's random streams, since these follow
/// from what its start says, and does a job of ours with them.
#[workflow]
#[derive(Default)]
struct Stand {
    job: Arc<Mutex<Option<Job>>>,
}

const STAND_TYPE: &str = "durable_spans.stand_in";

#[workflow_methods]
impl Stand {
    #[run(name = STAND_TYPE)]
    async fn run(ctx: &mut WorkflowContext<Self>, _: ()) -> WorkflowResult<()> {
        let job = ctx.state(|stand| stand.job.clone());
        let job = job.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(job) = job {
            let seed = ctx.random_stream(SEED_STREAM).random();
            job(seed, &|place| Some(ctx.random_stream(place_stream(place)).random()));
        }
        Ok(())
    }
}

/// Calls `job` with what the run drew for its seed, and with its random streams as they were before
/// any reset.
pub(super) async fn with_draws<T: Send + 'static>(
    history: &RunHistory,
    job: impl FnOnce(u128, &Draw<'_>) -> T + Send + 'static,
) -> Result<T, RunError> {
    let result = Arc::new(Mutex::new(None));
    let kept = result.clone();
    let is_first_branch = history.first_seed_run_id() == history.started.original_execution_run_id;
    let job: Job = Box::new(move |seed, draw| {
        let first_branch = |_| None;
        let draw: &Draw<'_> = if is_first_branch { &first_branch } else { draw };
        *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(job(seed, draw));
    });
    let job = Arc::new(Mutex::new(Some(job)));
    let mut options = WorkflowReplayerOptions::new().build();
    options
        .register_workflow_with_factory::<Stand, _>(move || Stand { job: job.clone() })
        .map_err(RunError::replay)?;
    let replayer = WorkflowReplayer::new(options).map_err(RunError::replay)?;
    replayer.replay_workflow(start_of(history)).await.map_err(RunError::replay)?;
    let done = result.lock().unwrap_or_else(PoisonError::into_inner).take();
    done.ok_or_else(|| RunError::history("its start cannot be replayed"))
}

/// The start of the run and its first workflow task, as if of our type.
fn start_of(history: &RunHistory) -> WorkflowHistory {
    let mut started = history.started.clone();
    started.workflow_type = Some(WorkflowType { name: STAND_TYPE.to_owned() });
    started.original_execution_run_id = history.first_seed_run_id().to_owned();
    started.input = None;
    started.header = None;
    started.memo = None;
    started.continued_failure = None;
    started.last_completion_result = None;
    let time = history.events[0].event_time;
    let event = |event_id, event_type: EventType, attributes| HistoryEvent {
        event_id,
        event_time: time,
        event_type: event_type.into(),
        attributes: Some(attributes),
        ..HistoryEvent::default()
    };
    let scheduled = WorkflowTaskScheduledEventAttributes {
        task_queue: started.task_queue.clone(),
        attempt: 1,
        ..Default::default()
    };
    let task = WorkflowTaskStartedEventAttributes { scheduled_event_id: 2, ..Default::default() };
    let events = vec![
        event(
            1,
            EventType::WorkflowExecutionStarted,
            Attributes::WorkflowExecutionStartedEventAttributes(*started),
        ),
        event(
            2,
            EventType::WorkflowTaskScheduled,
            Attributes::WorkflowTaskScheduledEventAttributes(scheduled),
        ),
        event(
            3,
            EventType::WorkflowTaskStarted,
            Attributes::WorkflowTaskStartedEventAttributes(task),
        ),
    ];
    History { events }.into()
}
