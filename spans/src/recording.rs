//! The words by which spans are recorded, the same wherever code runs.

mod builder;
mod handle;

use std::{any::Any, borrow::Cow, fmt::Display, future::Future};

pub use builder::SpanBuilder;
pub use handle::{SpanGuard, SpanHandle};

use crate::{Span, SpanError, SpanId, Timestamp, TraceContext, TraceId};

/// How a span ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The work ended well.
    Success,
    /// The work failed.
    Error(SpanError),
    /// The work was cancelled before it ended.
    Canceled,
    /// Nobody waited for the end any more: the run closed, or the future was dropped.
    Abandoned,
}

impl Outcome {
    /// The outcome of an error: its type's name without path and generics, its message, and
    /// [`ErrorCategory::Application`](crate::ErrorCategory::Application).
    pub fn of_error<E: Display + ?Sized>(error: &E) -> Self {
        Self::Error(
            SpanError::new(short_type_name::<E>(), error.to_string())
                .category(crate::ErrorCategory::Application),
        )
    }
}

/// `alloc::boxed::Box<dyn core::error::Error>` is called `Error`.
fn short_type_name<E: ?Sized>() -> &'static str {
    let name = std::any::type_name::<E>();
    let name = name.strip_prefix("alloc::boxed::Box<").unwrap_or(name);
    let name = name.strip_prefix("dyn ").unwrap_or(name);
    let end = name.find(['<', '>', ' ', '+']).unwrap_or(name.len());
    let name = &name[..end];
    name.rsplit("::").next().unwrap_or(name)
}

/// A span that is being recorded, as the place that records it knows it.
///
/// Implemented by the workflow half and the activity half of durable-spans; users meet
/// [`SpanHandle`] and [`SpanGuard`].
pub trait Recording: Clone {
    /// Changes the span, unless it has ended.
    fn update(&self, change: impl FnOnce(&mut Span));

    /// Ends the span. Ending it again has no effect.
    fn end(&self, outcome: Outcome);

    /// The span's id.
    fn id(&self) -> &SpanId;

    /// What a part of the trace below the span needs to know. `None` if its run has left memory.
    fn trace_context(&self) -> Option<TraceContext>;

    /// The time here: in a workflow its own, which stands still within an activation.
    fn now(&self) -> Timestamp;

    /// What an error that the user's code returned means for the span.
    fn outcome_of<E: Display + Any>(error: &E) -> Outcome;
}

/// An error by which a span can end: whatever can be displayed, and the error type of activities.
///
/// `Kind` only keeps these two apart; the compiler finds it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no error that a span can end with",
    label = "needs `Display`",
    note = "implement `Display` for it, and let it borrow nothing; `#[traced(result = false)]` does \
            not look at errors"
)]
pub trait Failure<Kind> {
    /// What the error means for a span that is recorded by `R`.
    fn outcome<R: Recording>(&self) -> Outcome;
}

/// The kind of [`Failure`] that can be displayed.
#[derive(Debug)]
pub struct Displayed;

#[diagnostic::do_not_recommend]
impl<E: Display + Any> Failure<Displayed> for E {
    fn outcome<R: Recording>(&self) -> Outcome {
        R::outcome_of(self)
    }
}

/// Code that spans can begin in.
///
/// Implemented by the workflow half and the activity half of durable-spans; users meet
/// [`SpanBuilder`].
pub trait Place {
    /// How spans are recorded here.
    type Recording: Recording;

    /// Begins a span: takes what it needs out of the draft. `None` where nothing is traced.
    fn begin(&self, draft: &mut Draft<Self::Recording>) -> Option<Self::Recording>;

    /// Runs `work` with `span` as the current one.
    fn enter<R>(&self, span: &Self::Recording, work: impl FnOnce() -> R) -> R;
}

/// A [`Place`] where work can be awaited.
pub trait AsyncPlace: Place {
    /// The future with the current span around it.
    type Within<F: Future>: Future<Output = F::Output>;

    /// `future` with `span` as the current one across its awaits.
    fn within<F: Future>(&self, span: &Self::Recording, future: F) -> Self::Within<F>;
}

/// A span that has not begun. Made by [`SpanBuilder`].
#[derive(Debug)]
pub struct Draft<R> {
    /// The id that the user has chosen, `None` to derive one.
    pub id: Option<SpanId>,
    /// The span to hang under, `None` for the current one.
    pub parent: Option<R>,
    /// Its name, type, input, output and metadata; everything else in it is a blank.
    pub span: Span,
}

impl<R> Draft<R> {
    /// A span that is called this, and of which nothing else is known.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        let blank = Timestamp::from_unix_ns(0);
        let span = Span::new(TraceId::from_bits(0), SpanId::from_bits(0), name, blank);
        Self { id: None, parent: None, span }
    }

    /// Takes the span out, and leaves a blank one.
    pub fn take_span(&mut self) -> Span {
        std::mem::replace(&mut self.span, Self::new("").span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_called_by_its_type_without_path_and_generics() {
        fn name<E: Display>(error: E) -> String {
            let Outcome::Error(error) = Outcome::of_error(&error) else { panic!("no error") };
            error.error_type
        }
        assert_eq!(name(crate::InvalidSpan::new("name", "is bad")), "InvalidSpan");
        assert_eq!(name(Box::<dyn std::error::Error>::from("x")), "Error");
        assert_eq!(name(Box::<dyn std::error::Error + Send + Sync>::from("x")), "Error");
        assert_eq!(name(String::from("x")), "String");
    }
}
