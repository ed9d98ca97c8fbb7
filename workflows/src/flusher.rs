//! Issues what the rule says: the flushes while the run goes on, and those at its close.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use durable_spans_model::Outcome;
use futures_util::{FutureExt, future::FusedFuture};
use temporalio_workflow::{
    ActivityCancellationType, ActivityOptions, ChildWorkflowCancellationType, ChildWorkflowOptions,
    LocalActivityOptions, ParentClosePolicy, RetryPolicy, TimerOptions, WorkflowCancellationToken,
    common::Priority, workflow_interceptors::WorkflowInterceptorContext,
};

use crate::{
    courier::{Courier, Freight},
    flush::{FlushPacked, FlushReply, FlushSpans},
    outcome::RunEnd,
    recorder::SpanRef,
    rule::{Due, Linger},
    run::Run,
};

/// The longest that the flush activity may hold a workflow task. Mid-run it only hands over, which
/// takes milliseconds, and at the close it bounds its wait by itself; this is for a worker that is
/// too busy for that, and under the 8 seconds after which the SDK asks for another workflow task. The
/// SDK does not count the wait for a free slot for local activities here.
const LONGEST_FLUSH: Duration = Duration::from_secs(5);

/// The longest that a flush by a normal activity may hold the close of a run.
const LONGEST_CLOSING_ACTIVITY: Duration = Duration::from_millis(1_200);

/// The longest that a flush by a normal activity may take while the run goes on. It holds nothing.
const LONGEST_FLUSH_UNDER_WAY: Duration = Duration::from_secs(30);

/// Temporal's lowest, by default.
const LOWEST_PRIORITY: u32 = 5;

/// Name of the random stream that names couriers.
const COURIER_STREAM: &str = "durable-spans/courier";

/// Flushes whenever the rule says so, for as long as it is polled.
///
/// A flush does not wait for the one before it: when a local activity resolves, compared with
/// signals that arrive meanwhile, is not always the same live and in replay, so no command may
/// depend on it. It waits without a waker: the SDK polls the main routine of a run in every
/// activation.
pub(crate) async fn flush_by_rule(run: &Run, ctx: &WorkflowInterceptorContext) -> Infallible {
    let mut timer: Option<Pin<Box<dyn Future<Output = _>>>> = None;
    let mut in_flight: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> = Vec::new();
    poll_fn(|cx| {
        run.look_for_arrivals(cx);
        in_flight.retain_mut(|flush| flush.as_mut().poll(cx).is_pending());
        loop {
            let linger = match timer.as_mut().map(|timer| timer.as_mut().poll(cx)) {
                None => Linger::Unarmed,
                Some(Poll::Pending) => Linger::Armed,
                Some(Poll::Ready(_)) => {
                    timer = None;
                    Linger::Fired
                }
            };
            match run.due(linger) {
                Due::Nothing => return Poll::Pending,
                // Around again, so that the new timer is polled once.
                Due::ArmLinger(period) => timer = Some(Box::pin(arm(run, ctx, period))),
                Due::Flush => {
                    let mut flush = Box::pin(flush(run, ctx));
                    // The first poll issues the command.
                    if flush.as_mut().poll(cx).is_pending() {
                        in_flight.push(flush);
                    }
                }
            }
        }
    })
    .await
}

/// Ends the root span as the run ends, flushes what is left, and waits for this and every other
/// flush. What handlers record while it waits goes to the last resort.
pub(crate) async fn close(
    run: &Run,
    ctx: &WorkflowInterceptorContext,
    root: &SpanRef,
    end: RunEnd,
    mut flusher: Pin<&mut impl Future<Output = Infallible>>,
) {
    let outcome = match end {
        RunEnd::GoesOn => return,
        RunEnd::Closes(outcome) => outcome,
        RunEnd::ContinuesAsNew => {
            run.update(root, |span| {
                span.metadata.insert("temporal.continued_as_new".into(), true.into());
            });
            Outcome::Success
        }
        RunEnd::Benign(message) => {
            run.update(root, |span| {
                span.metadata.insert("temporal.benign_failure".into(), message.into());
            });
            Outcome::Success
        }
    };
    if run.is_without_commands() {
        run.end(root, outcome);
        run.end_all();
        return run.rescue_late_spans();
    }
    run.note_counts(root);
    run.end(root, outcome);
    run.end_all();
    run.begin_closing();
    if !run.flushes_at_close() {
        return;
    }
    let mut last = Box::pin(flush(run, ctx)).fuse();
    poll_fn(|cx| {
        let done = last.poll_unpin(cx).is_ready() || last.is_terminated();
        if let Poll::Ready(never) = flusher.as_mut().poll(cx) {
            match never {}
        }
        // Normal activities that still flush are left alone: the last flush carried the same.
        if done && run.flushes_in_flight() == 0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    run.end_all();
    run.rescue_late_spans();
}

async fn flush(run: &Run, ctx: &WorkflowInterceptorContext) {
    // History tells whether the second follows the first.
    if !run.flushes_by_activity() || !flush_by_activity(run, ctx).await {
        flush_locally(run, ctx).await;
    }
}

async fn flush_locally(run: &Run, ctx: &WorkflowInterceptorContext) {
    let mut request = run.begin_flush();
    let (closing, groups) = (request.closing, request.groups.clone());
    // Until the answer is here, or the run has left memory and this future with it.
    let left = run.hand_over().map(|place| place.leave(&groups));
    if let Some(left) = &left {
        request.groups.clear();
        request.handed_over = Some(left.number());
    }
    let options = LocalActivityOptions::builder()
        .schedule_to_close_timeout(LONGEST_FLUSH)
        .retry_policy(once())
        .cancellation_token(WorkflowCancellationToken::new())
        .build();
    let activity = {
        let _own = run.own_commands();
        ctx.execute_local_activity(FlushSpans, request, options)
    };
    let answer = activity.await;
    drop(left);
    match answer {
        Ok(reply) => settle(run, ctx, &reply).await,
        Err(error) => {
            if !ctx.is_replaying() {
                let spans: usize = groups.iter().map(|group| group.spans.len()).sum();
                let workflow_id = run.workflow_id();
                tracing::warn!(workflow_id, closing, spans, %error, "a flush failed");
            }
            if closing {
                run.rescue(&groups);
            }
        }
    }
    run.end_flush();
}

/// Flushes by a normal activity. Returns whether that settles it: if it fails while the run goes
/// on, the spans wait for the next flush, but at the close they cannot.
async fn flush_by_activity(run: &Run, ctx: &WorkflowInterceptorContext) -> bool {
    let closing = run.is_closing();
    let packed = run.begin_packed_flush();
    let longest = if closing { LONGEST_CLOSING_ACTIVITY } else { LONGEST_FLUSH_UNDER_WAY };
    let mut options = ActivityOptions::with_schedule_to_close_timeout(longest)
        .retry_policy(once())
        .cancellation_type(ActivityCancellationType::Abandon)
        .cancellation_token(WorkflowCancellationToken::new())
        .do_not_eagerly_execute(true)
        .build();
    options.task_queue = run.egress();
    let activity = {
        let _own = run.own_commands();
        ctx.execute_activity(FlushPacked, packed.input.clone(), options)
    };
    let result = activity.await;
    run.end_packed_flush(&packed);
    match result {
        Ok(reply) => settle(run, ctx, &reply).await,
        Err(error) => {
            if !ctx.is_replaying() {
                let workflow_id = run.workflow_id();
                tracing::warn!(workflow_id, closing, %error, "a flush by an activity failed");
            }
            return !closing;
        }
    }
    true
}

async fn settle(run: &Run, ctx: &WorkflowInterceptorContext, reply: &FlushReply) {
    run.acknowledge(reply);
    if reply.couriers > 0 {
        send_couriers(run, ctx, reply.couriers).await;
    }
}

/// Starts couriers one after the other, since each start may carry a megabyte of a command. Their
/// start is awaited, for an abandoned child that has not started when its parent closes never
/// does; their end is not.
async fn send_couriers(run: &Run, ctx: &WorkflowInterceptorContext, couriers: u32) {
    for freight in run.freights(couriers) {
        let id: u128 = ctx.random_stream(COURIER_STREAM).random();
        let mut options = ChildWorkflowOptions::builder()
            .workflow_id(format!("durable-spans-courier-{id:032x}"))
            .parent_close_policy(ParentClosePolicy::Abandon)
            .cancel_type(ChildWorkflowCancellationType::Abandon)
            .cancellation_token(WorkflowCancellationToken::new())
            .build();
        options.task_queue = run.egress();
        options.priority = Some(last());
        let start = {
            let _own = run.own_commands();
            ctx.start_child_workflow(Courier::run, freight.clone(), options)
        };
        if let Err(error) = start.await {
            if !ctx.is_replaying() {
                tracing::warn!(workflow_id = run.workflow_id(), %error, "a courier did not start");
            }
            if let Ok(freight) = Freight::unpack(&freight) {
                let groups: Vec<_> = freight.groups.into_iter().map(Rc::new).collect();
                run.rescue(&groups);
            }
        }
    }
}

/// The timer is detached from cancellation: cancelling a run must not add a command of ours.
fn arm(
    run: &Run,
    ctx: &WorkflowInterceptorContext,
    period: Duration,
) -> impl Future<Output = temporalio_workflow::TimerResult> + use<> {
    let options =
        TimerOptions::builder(period).cancellation_token(WorkflowCancellationToken::new()).build();
    let _own = run.own_commands();
    ctx.timer(options)
}

/// Couriers come after whatever else waits in the task queue.
fn last() -> Priority {
    let mut priority = Priority::default();
    priority.priority_key = Some(LOWEST_PRIORITY);
    priority
}

fn once() -> RetryPolicy {
    let mut policy = RetryPolicy::default();
    policy.set_maximum_attempts(1);
    policy
}
