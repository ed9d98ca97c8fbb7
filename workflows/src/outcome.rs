//! What a Temporal result means for a span: its status, and the error's type, message and category.

use std::any::Any;

use durable_spans_model::{ErrorCategory, Outcome, SpanError};
use temporalio_workflow::{
    ActivityExecutionError, ChildWorkflowExecutionError, ChildWorkflowStartError,
    WorkflowSignalError, WorkflowTermination,
    common::{
        error::{
            ApplicationErrorCategory, ApplicationFailure, IncomingError, OutgoingWorkflowError,
        },
        protos::temporal::api::failure::v1::Failure,
    },
};

/// How the main routine of a run ended.
pub(crate) enum RunEnd {
    /// The run closes, and its root span ends like this.
    Closes(Outcome),
    /// The run continues as new: no error, and noted on the root.
    ContinuesAsNew,
    /// A failure that Temporal does not count as one; its message is noted on the root.
    Benign(String),
    /// Not an end: the workflow task fails and is retried, or the run leaves the cache.
    GoesOn,
}

/// `cancelled` tells whether the run was asked to cancel: only then a failure that was caused by a
/// cancellation counts as cancelled, as in the SDK.
pub(crate) fn run_end<T>(result: &Result<T, WorkflowTermination>, cancelled: bool) -> RunEnd {
    let termination = match result {
        Ok(_) => return RunEnd::Closes(Outcome::Success),
        Err(termination) => termination,
    };
    match termination {
        WorkflowTermination::Evicted
        | WorkflowTermination::Failed(OutgoingWorkflowError::PayloadConversion(_)) => {
            RunEnd::GoesOn
        }
        WorkflowTermination::ContinueAsNew(_) => RunEnd::ContinuesAsNew,
        WorkflowTermination::Failed(OutgoingWorkflowError::Application(failure))
            if failure.category() == ApplicationErrorCategory::Benign =>
        {
            RunEnd::Benign(failure.to_string())
        }
        WorkflowTermination::Failed(error) if cancelled && error.as_cancelled().is_some() => {
            RunEnd::Closes(Outcome::Canceled)
        }
        other => RunEnd::Closes(termination_outcome(other)),
    }
}

/// Whether the run closes with the command that fails it. That is the user's own, whatever the failure
/// says and whatever it means for the root span.
pub(crate) fn fails<T>(result: &Result<T, WorkflowTermination>, cancelled: bool) -> bool {
    match result {
        Err(WorkflowTermination::Failed(error)) => !(cancelled && error.as_cancelled().is_some()),
        _ => false,
    }
}

fn termination_outcome(termination: &WorkflowTermination) -> Outcome {
    match termination {
        WorkflowTermination::Cancelled { .. } => Outcome::Canceled,
        // Neither is an error of the work inside the span.
        WorkflowTermination::ContinueAsNew(_) => Outcome::Success,
        WorkflowTermination::Evicted => Outcome::Abandoned,
        WorkflowTermination::Failed(error) => match error {
            OutgoingWorkflowError::Application(failure) => application(failure),
            OutgoingWorkflowError::ActivityExecution(error) => activity(error),
            OutgoingWorkflowError::ChildWorkflowExecution(error) => child(error),
            OutgoingWorkflowError::ChildWorkflowStart(error) => child_start(error),
            OutgoingWorkflowError::WorkflowSignal(error) => signal(error),
            other => Outcome::Error(
                SpanError::new("WorkflowError", other.to_string())
                    .category(ErrorCategory::Platform),
            ),
        },
    }
}

/// The outcome of an error that user code returned from a scope of its own.
pub(crate) fn user_error(error: &(impl std::fmt::Display + Any)) -> Outcome {
    let any: &dyn Any = error;
    if let Some(error) = any.downcast_ref::<ActivityExecutionError>() {
        activity(error)
    } else if let Some(error) = any.downcast_ref::<ChildWorkflowExecutionError>() {
        child(error)
    } else if let Some(error) = any.downcast_ref::<ChildWorkflowStartError>() {
        child_start(error)
    } else if let Some(error) = any.downcast_ref::<WorkflowSignalError>() {
        signal(error)
    } else if let Some(error) = any.downcast_ref::<WorkflowTermination>() {
        termination_outcome(error)
    } else if let Some(failure) = any.downcast_ref::<ApplicationFailure>() {
        application(failure)
    } else {
        Outcome::of_error(error)
    }
}

/// The outcome of an update handler that returned an error.
pub(crate) fn handler_error(error: &(impl std::error::Error + 'static)) -> Outcome {
    let mut source: &(dyn std::error::Error + 'static) = error;
    while let Some(inner) = source.source() {
        source = inner;
    }
    Outcome::Error(
        SpanError::new("UpdateFailed", source.to_string()).category(ErrorCategory::Application),
    )
}

pub(crate) fn activity(error: &ActivityExecutionError) -> Outcome {
    if error.as_cancelled().is_some() {
        return Outcome::Canceled;
    }
    caused(error.reason(), error.failure(), error, "ActivityError")
}

pub(crate) fn child(error: &ChildWorkflowExecutionError) -> Outcome {
    if let ChildWorkflowExecutionError::Failed(failed) = error
        && failed.as_cancelled().is_some()
    {
        return Outcome::Canceled;
    }
    caused(error.reason(), error.failure(), error, "ChildWorkflowError")
}

pub(crate) fn child_start(error: &ChildWorkflowStartError) -> Outcome {
    if error.as_cancelled().is_some() {
        return Outcome::Canceled;
    }
    caused(error.cause(), error.failure(), error, "ChildWorkflowStartError")
}

pub(crate) fn signal(error: &WorkflowSignalError) -> Outcome {
    caused(error.reason(), error.failure(), error, "SignalError")
}

/// The outcome of a Nexus operation that failed before it started. The innermost cause says why.
#[cfg(feature = "nexus")]
pub(crate) fn nexus_start(failure: &Failure) -> Outcome {
    use temporalio_workflow::common::protos::temporal::api::failure::v1::failure::FailureInfo;
    let mut cause = failure;
    while let Some(inner) = &cause.cause {
        cause = inner;
    }
    let error = |error_type: &str| SpanError::new(error_type, cause.message.clone());
    Outcome::Error(match &cause.failure_info {
        Some(FailureInfo::CanceledFailureInfo(_)) => return Outcome::Canceled,
        Some(FailureInfo::ApplicationFailureInfo(info)) => {
            let known = Some(info.r#type.as_str()).filter(|name| !name.is_empty());
            error(known.unwrap_or("ApplicationFailure")).category(ErrorCategory::Application)
        }
        Some(FailureInfo::TimeoutFailureInfo(_)) => {
            error("TimeoutError").category(ErrorCategory::Platform)
        }
        _ => error("NexusOperationError"),
    })
}

fn application(failure: &ApplicationFailure) -> Outcome {
    let error_type = failure.type_name().filter(|name| !name.is_empty());
    Outcome::Error(
        SpanError::new(error_type.unwrap_or("ApplicationFailure"), failure.to_string())
            .category(ErrorCategory::Application),
    )
}

/// The innermost cause says what went wrong; the wrapping failures only say where.
fn caused(
    cause: Option<&IncomingError>,
    failure: Option<&Failure>,
    error: &dyn std::fmt::Display,
    fallback_type: &str,
) -> Outcome {
    let mut cause = cause;
    while let Some(IncomingError::Activity(_) | IncomingError::ChildWorkflowExecution(_)) = cause
        && let Some(inner) = cause.and_then(IncomingError::cause)
    {
        cause = Some(inner);
    }
    let message = |failure: &Failure| failure.message.clone();
    Outcome::Error(match cause {
        Some(IncomingError::Application(failure)) => return application(failure),
        Some(IncomingError::Cancelled(_)) => return Outcome::Canceled,
        Some(IncomingError::Timeout(timeout)) => {
            let kind = format!("{:?}", timeout.timeout_type());
            SpanError::new("TimeoutError", format!("{} ({kind})", message(timeout.failure())))
                .category(ErrorCategory::Platform)
        }
        Some(IncomingError::Terminated(error)) => {
            SpanError::new("TerminatedError", message(error.failure()))
                .category(ErrorCategory::Platform)
        }
        Some(other) => SpanError::new(fallback_type, message(other.failure())),
        None => SpanError::new(fallback_type, failure.map_or_else(|| error.to_string(), message))
            .category(ErrorCategory::Platform),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(failure: ApplicationFailure) -> Result<(), WorkflowTermination> {
        Err(failure.into())
    }

    #[test]
    fn an_application_failure_gives_type_message_and_category() {
        let failure = ApplicationFailure::builder("no money").type_name("Broke".to_owned()).build();
        let RunEnd::Closes(outcome) = run_end(&failed(failure), false) else { panic!("no end") };
        assert_eq!(
            outcome,
            Outcome::Error(
                SpanError::new("Broke", "no money").category(ErrorCategory::Application)
            )
        );
    }

    #[test]
    fn benign_failures_and_task_failures_are_not_errors() {
        let benign = ApplicationFailure::builder("expected")
            .category(ApplicationErrorCategory::Benign)
            .build();
        let benign = failed(benign);
        assert!(matches!(run_end(&benign, false), RunEnd::Benign(m) if m == "expected"));
        // The command is the same, and so is what depends on it.
        assert!(fails(&benign, false) && !fails(&Ok(()), false));
        assert!(matches!(run_end::<()>(&Err(WorkflowTermination::Evicted), false), RunEnd::GoesOn));
        let cancelled = run_end::<()>(&Err(WorkflowTermination::cancelled()), true);
        assert!(matches!(cancelled, RunEnd::Closes(Outcome::Canceled)));
    }

    #[test]
    fn an_error_of_the_users_own_gives_its_type_name() {
        #[derive(Debug)]
        struct OutOfStock;
        impl std::fmt::Display for OutOfStock {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("shelf is empty")
            }
        }
        let Outcome::Error(error) = user_error(&OutOfStock) else { panic!("no error") };
        assert_eq!(error.error_type, "OutOfStock");
        assert_eq!(error.message, "shelf is empty");
    }
}
