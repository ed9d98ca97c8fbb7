use std::{collections::HashMap, sync::Arc, time::Duration};

use durable_spans_model::{
    Span, SpanError, SpanId, SpanType, Timestamp, TraceContext, TraceId, attempt_span_id,
};
use durable_spans_workflow::{DELIVER_ACTIVITY, FLUSH_ACTIVITY, FLUSH_PACKED_ACTIVITY};
use temporalio_common::protos::{
    coresdk::common::extract_local_activity_marker_data,
    temporal::api::{
        common::v1::RetryPolicy,
        failure::v1::Failure,
        history::v1::{HistoryEvent, history_event::Attributes},
    },
};

use super::{
    BACKFILLED,
    history::{context_in, duration, time_of, timestamp},
    outcome::Close,
};

/// Only so many attempts of an activity become spans, the last ones: a poller may have millions.
const MOST_ATTEMPTS: u32 = 100;

/// What Temporal's server does where the retry policy does not say.
const FIRST_INTERVAL: Duration = Duration::from_secs(1);
const COEFFICIENT: f64 = 2.0;
const LONGEST_INTERVALS: u32 = 100;

/// An activity of the user's, as history tells it.
#[derive(Debug)]
pub(super) struct ActivityFacts {
    pub(super) activity_type: String,
    pub(super) activity_id: String,
    pub(super) task_queue: String,
    /// The trace context in its header: that of the activity's span, if the caller was traced.
    pub(super) context: Option<TraceContext>,
    pub(super) scheduled: Timestamp,
    /// That of its marker if it is a local one.
    scheduled_event_id: i64,
    retry_policy: Option<RetryPolicy>,
    last_attempt: Option<LastAttempt>,
    pub(super) closed: Option<(Timestamp, Close)>,
}

/// History keeps the last attempt of an activity only, and the failure of the one before.
#[derive(Debug)]
struct LastAttempt {
    number: u32,
    started: Timestamp,
    worker: String,
    failure_before: Option<Failure>,
}

/// The activities of a history in the order in which they were scheduled, without our own.
pub(super) fn activities(events: &[HistoryEvent]) -> Vec<ActivityFacts> {
    let mut activities: Vec<ActivityFacts> = Vec::new();
    let mut positions: HashMap<i64, usize> = HashMap::new();
    for event in events {
        let at = time_of(event);
        let (scheduled_event_id, close) = match &event.attributes {
            Some(Attributes::ActivityTaskScheduledEventAttributes(scheduled)) => {
                let activity_type = scheduled.activity_type.clone().unwrap_or_default().name;
                if activity_type != FLUSH_PACKED_ACTIVITY {
                    positions.insert(event.event_id, activities.len());
                    activities.push(ActivityFacts {
                        activity_type,
                        activity_id: scheduled.activity_id.clone(),
                        task_queue: scheduled.task_queue.clone().unwrap_or_default().name,
                        context: context_in(scheduled.header.as_ref()),
                        scheduled: at,
                        scheduled_event_id: event.event_id,
                        retry_policy: scheduled.retry_policy.clone(),
                        last_attempt: None,
                        closed: None,
                    });
                }
                continue;
            }
            Some(Attributes::ActivityTaskStartedEventAttributes(started)) => {
                if let Some(position) = positions.get(&started.scheduled_event_id) {
                    activities[*position].last_attempt = Some(LastAttempt {
                        number: started.attempt.try_into().unwrap_or(1).max(1),
                        started: at,
                        worker: started.identity.clone(),
                        failure_before: started.last_failure.clone(),
                    });
                }
                continue;
            }
            Some(Attributes::ActivityTaskCompletedEventAttributes(completed)) => {
                (completed.scheduled_event_id, Close::Success)
            }
            Some(Attributes::ActivityTaskFailedEventAttributes(failed)) => {
                (failed.scheduled_event_id, Close::of_failure(failed.failure.as_ref()))
            }
            Some(Attributes::ActivityTaskTimedOutEventAttributes(timed_out)) => {
                (timed_out.scheduled_event_id, Close::of_failure(timed_out.failure.as_ref()))
            }
            Some(Attributes::ActivityTaskCanceledEventAttributes(canceled)) => {
                (canceled.scheduled_event_id, Close::Canceled)
            }
            _ => continue,
        };
        if let Some(position) = positions.get(&scheduled_event_id) {
            activities[*position].closed = Some((at, close));
        }
    }
    activities
}

/// The local activities of a history that have ended, in the order in which they were scheduled,
/// without our own. Their markers are all that history has of them.
pub(super) fn local_activities(events: &[HistoryEvent]) -> Vec<ActivityFacts> {
    let mut activities: Vec<(u32, ActivityFacts)> = Vec::new();
    for event in events {
        let Some(Attributes::MarkerRecordedEventAttributes(marker)) = &event.attributes else {
            continue;
        };
        let Some(data) = extract_local_activity_marker_data(&marker.details) else { continue };
        if [FLUSH_ACTIVITY, DELIVER_ACTIVITY].contains(&data.activity_type.as_str()) {
            continue;
        }
        let recorded = time_of(event);
        let scheduled = data.original_schedule_time.and_then(timestamp).unwrap_or(recorded);
        let ended = data.complete_time.and_then(timestamp).unwrap_or(recorded);
        let close = match &marker.failure {
            Some(failure) => Close::of_failure(Some(failure)),
            None => Close::Success,
        };
        let facts = ActivityFacts {
            activity_type: data.activity_type,
            activity_id: data.activity_id,
            task_queue: String::new(),
            context: None,
            scheduled,
            scheduled_event_id: event.event_id,
            retry_policy: None,
            last_attempt: Some(LastAttempt {
                number: data.attempt.max(1),
                started: scheduled,
                worker: String::new(),
                failure_before: None,
            }),
            closed: Some((ended, close)),
        };
        activities.push((data.seq, facts));
    }
    activities.sort_by_key(|(sequence, _)| *sequence);
    activities.into_iter().map(|(_, facts)| facts).collect()
}

impl ActivityFacts {
    pub(super) fn scheduled_event_id(&self) -> i64 {
        self.scheduled_event_id
    }

    /// The id of the call's span, where the caller was traced and the header can be read.
    pub(super) fn span_id(&self) -> Option<&SpanId> {
        let context = self.context.as_ref().filter(|context| context.sampled);
        context?.span_id.as_ref()
    }

    /// What the call's span can say besides what the recorder says.
    pub(super) fn describe(&self, span: &mut Span) {
        let mut note = |name: &str, value: serde_json::Value| {
            span.metadata.insert(format!("temporal.{name}").into(), value);
        };
        note("activity_id", self.activity_id.as_str().into());
        if self.task_queue.is_empty() {
            note("local", true.into());
        } else {
            note("task_queue", self.task_queue.as_str().into());
        }
        let Some(last) = &self.last_attempt else { return };
        note("attempts", last.number.into());
        let backoff = self.backoff(last.number);
        if !backoff.is_zero() && self.retry_policy.is_some() {
            note("backoff_ms", millis(backoff));
        }
    }

    /// The attempts below `activity`, with the ids that live tracing gives them. The times of all but
    /// the last are not in history.
    pub(super) fn attempt_spans(
        &self,
        trace_id: &TraceId,
        activity: &SpanId,
        group_id: Option<&Arc<str>>,
    ) -> Vec<Span> {
        let Some(last) = &self.last_attempt else { return Vec::new() };
        let first = last.number.saturating_sub(MOST_ATTEMPTS - 1).max(1);
        let of_number = |number| {
            let id = attempt_span_id(activity, number);
            let start = if number == last.number { last.started } else { self.scheduled };
            let mut span = Span::new(trace_id.clone(), id, self.activity_type.clone(), start);
            span.span_type = SpanType::Custom;
            span.parent_id = Some(activity.clone());
            span.group_id = group_id.cloned();
            let mut note = |name: &'static str, value: serde_json::Value| {
                span.metadata.insert(name.into(), value);
            };
            note("temporal.kind", "activity_attempt".into());
            note("temporal.attempt", number.into());
            note("temporal.activity_id", self.activity_id.as_str().into());
            note(BACKFILLED, true.into());
            if number == last.number {
                if !last.worker.is_empty() {
                    note("temporal.worker", last.worker.as_str().into());
                }
                if number == 1 {
                    note("temporal.queue_ms", millis(last.started.since(self.scheduled)));
                }
                if let Some((at, close)) = &self.closed {
                    close.end(&mut span, *at);
                }
            } else {
                note("temporal.times_unknown", true.into());
                let close = match &last.failure_before {
                    Some(failure) if number == last.number - 1 => Close::of_failure(Some(failure)),
                    _ => Close::Error(SpanError::new("ActivityError", "history does not say why")),
                };
                close.end(&mut span, start);
            }
            span
        };
        // An attempt that goes on will be told by its worker.
        let ended =
            (first..=last.number).map(of_number).filter(|span| span.end_timestamp.is_some());
        ended.collect()
    }

    /// The sum of the pauses before so many attempts by the retry policy. A failure may have asked
    /// for another pause, which history does not keep.
    fn backoff(&self, attempts: u32) -> Duration {
        let policy = self.retry_policy.as_ref();
        let first = policy.and_then(|policy| policy.initial_interval).and_then(duration);
        let first = first.filter(|first| !first.is_zero()).unwrap_or(FIRST_INTERVAL);
        let longest = policy.and_then(|policy| policy.maximum_interval).and_then(duration);
        let longest =
            longest.filter(|longest| !longest.is_zero()).unwrap_or(first * LONGEST_INTERVALS);
        let coefficient = policy.map_or(COEFFICIENT, |policy| policy.backoff_coefficient).max(1.0);
        let mut pause = first.min(longest).as_secs_f64();
        let mut sum = 0.0;
        for _ in 1..attempts {
            sum += pause;
            pause = (pause * coefficient).min(longest.as_secs_f64());
        }
        Duration::try_from_secs_f64(sum).unwrap_or(Duration::MAX)
    }
}

fn millis(duration: Duration) -> serde_json::Value {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use temporalio_common::protos::temporal::api::failure::v1::failure::FailureInfo;

    #[test]
    fn backoff_is_the_sum_of_the_pauses_of_the_policy() {
        let seconds = |seconds| Duration::from_secs(seconds).try_into().ok();
        let mut activity = ActivityFacts {
            activity_type: "a".into(),
            activity_id: "1".into(),
            task_queue: "q".into(),
            context: None,
            scheduled: Timestamp::from_unix_ns(0),
            scheduled_event_id: 5,
            retry_policy: Some(RetryPolicy {
                initial_interval: seconds(1),
                backoff_coefficient: 2.0,
                maximum_interval: seconds(3),
                ..RetryPolicy::default()
            }),
            last_attempt: None,
            closed: None,
        };
        assert_eq!(activity.backoff(1), Duration::ZERO);
        assert_eq!(activity.backoff(5), Duration::from_secs(1 + 2 + 3 + 3));
        activity.retry_policy = None;
        assert_eq!(activity.backoff(3), Duration::from_secs(1 + 2));
    }

    #[test]
    fn each_attempt_has_the_id_of_the_live_one_and_says_what_history_knows() {
        let failure = |message: &str| Failure {
            message: message.into(),
            failure_info: Some(FailureInfo::ApplicationFailureInfo(Default::default())),
            ..Failure::default()
        };
        let activity = ActivityFacts {
            activity_type: "charge".into(),
            activity_id: "1".into(),
            task_queue: "q".into(),
            context: None,
            scheduled: Timestamp::from_unix_ns(10),
            scheduled_event_id: 5,
            retry_policy: None,
            last_attempt: Some(LastAttempt {
                number: 3,
                started: Timestamp::from_unix_ns(40),
                worker: "w".into(),
                failure_before: Some(failure("busy")),
            }),
            closed: Some((Timestamp::from_unix_ns(50), Close::Success)),
        };
        let parent = SpanId::from_bits(7);
        let spans = activity.attempt_spans(&TraceId::from_bits(1), &parent, None);
        let ids: Vec<_> = (1..=3).map(|number| attempt_span_id(&parent, number)).collect();
        assert_eq!(spans.iter().map(|span| span.id.clone()).collect::<Vec<_>>(), ids);
        assert_eq!(spans[0].metadata["error_message"], "history does not say why");
        assert_eq!(spans[1].metadata["error_message"], "busy");
        assert_eq!(spans[1].metadata["temporal.times_unknown"], true);
        assert_eq!(spans[2].end_timestamp, Some(Timestamp::from_unix_ns(50)));
        assert!(!spans[2].metadata.contains_key("error"));
    }
}
