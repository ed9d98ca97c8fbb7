use durable_spans_model::{ErrorCategory, Span, SpanError, SpanStatus, Timestamp};
use temporalio_common::protos::temporal::api::{
    enums::v1::{ApplicationErrorCategory, TimeoutType},
    failure::v1::{Failure, failure::FailureInfo},
};

/// How something ended, as history tells it. Says the same of it as the recorder does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Close {
    Success,
    ContinuedAsNew,
    /// A failure that is no error, by its message.
    Benign(String),
    Error(SpanError),
    Canceled,
    /// The run closed before it did.
    Abandoned,
}

impl Close {
    /// The innermost cause says what went wrong; the wrapping failures only say where.
    pub(super) fn of_failure(failure: Option<&Failure>) -> Self {
        let Some(mut failure) = failure else {
            return Self::Error(SpanError::new("UnknownError", "history names no failure"));
        };
        while let Some(
            FailureInfo::ActivityFailureInfo(_) | FailureInfo::ChildWorkflowExecutionFailureInfo(_),
        ) = &failure.failure_info
            && let Some(cause) = &failure.cause
        {
            failure = cause;
        }
        let message = failure.message.clone();
        match &failure.failure_info {
            Some(FailureInfo::CanceledFailureInfo(_)) => Self::Canceled,
            Some(FailureInfo::ApplicationFailureInfo(info)) => {
                if info.category() == ApplicationErrorCategory::Benign {
                    return Self::Benign(message);
                }
                let error_type = match info.r#type.as_str() {
                    "" => "ApplicationFailure",
                    error_type => error_type,
                };
                let error = SpanError::new(error_type, message);
                Self::Error(error.category(ErrorCategory::Application))
            }
            Some(FailureInfo::TimeoutFailureInfo(info)) => {
                let kind = match info.timeout_type() {
                    TimeoutType::StartToClose => "StartToClose",
                    TimeoutType::ScheduleToStart => "ScheduleToStart",
                    TimeoutType::ScheduleToClose => "ScheduleToClose",
                    TimeoutType::Heartbeat => "Heartbeat",
                    TimeoutType::Unspecified => "Unspecified",
                };
                let error = SpanError::new("TimeoutError", format!("{message} ({kind})"));
                Self::Error(error.category(ErrorCategory::Platform))
            }
            Some(FailureInfo::TerminatedFailureInfo(_)) => {
                let error = SpanError::new("TerminatedError", message);
                Self::Error(error.category(ErrorCategory::Platform))
            }
            _ => Self::Error(SpanError::new("Failure", message)),
        }
    }

    /// Ends a span so, never before it started.
    pub(super) fn end(&self, span: &mut Span, at: Timestamp) {
        span.end_timestamp = Some(at.max(span.start_timestamp));
        let metadata = &mut span.metadata;
        match self {
            Self::Success => {}
            Self::ContinuedAsNew => {
                metadata.insert("temporal.continued_as_new".into(), true.into());
            }
            Self::Benign(message) => {
                metadata.insert("temporal.benign_failure".into(), message.as_str().into());
            }
            Self::Error(error) => span.set_error(error.clone()),
            Self::Canceled => span.status = SpanStatus::Canceled,
            Self::Abandoned => {
                metadata.insert("temporal.abandoned".into(), true.into());
                span.status = SpanStatus::Canceled;
            }
        }
    }
}
