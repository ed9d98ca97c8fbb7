//! What an error of an activity's code means for its span.

use std::{any::Any, fmt::Display};

use durable_spans_model::{ErrorCategory, Failure, Outcome, Recording, Span, SpanError};
use temporalio_common::error::{ApplicationErrorCategory, ApplicationFailure};
use temporalio_sdk::activities::ActivityError;

/// Ends the span of an attempt.
pub(crate) fn of_attempt(span: &mut Span, error: &ActivityError) -> Outcome {
    match benign(error) {
        Some(failure) => {
            span.metadata.insert("temporal.benign_failure".into(), failure.to_string().into());
            Outcome::Success
        }
        None => of_activity(error),
    }
}

/// The kind of [`Failure`] that ends activities: their error cannot be displayed.
#[derive(Debug)]
pub struct OfActivity;

impl Failure<OfActivity> for ActivityError {
    fn outcome<R: Recording>(&self) -> Outcome {
        of_activity(self)
    }
}

/// The outcome of an error that user code returned from a scope of its own.
pub(crate) fn of_user(error: &(impl Display + Any)) -> Outcome {
    let any: &dyn Any = error;
    if let Some(failure) = any.downcast_ref::<ApplicationFailure>() {
        of_application(failure)
    } else {
        Outcome::of_error(error)
    }
}

fn benign(error: &ActivityError) -> Option<&ApplicationFailure> {
    match error {
        ActivityError::Application(failure)
            if failure.category() == ApplicationErrorCategory::Benign =>
        {
            Some(failure)
        }
        _ => None,
    }
}

fn of_activity(error: &ActivityError) -> Outcome {
    match error {
        ActivityError::WillCompleteAsync => Outcome::Success,
        ActivityError::Cancelled { .. } => Outcome::Canceled,
        ActivityError::Application(failure) => of_application(failure),
        _ => Outcome::Error(SpanError::new("ActivityError", "activity failed")),
    }
}

fn of_application(failure: &ApplicationFailure) -> Outcome {
    if failure.category() == ApplicationErrorCategory::Benign {
        return Outcome::Success;
    }
    let error_type = failure.type_name().filter(|name| !name.is_empty());
    let error = SpanError::new(error_type.unwrap_or("ApplicationFailure"), failure.to_string());
    Outcome::Error(error.category(ErrorCategory::Application))
}
