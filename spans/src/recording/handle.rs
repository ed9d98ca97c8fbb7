use std::{borrow::Cow, ops::Deref};

use serde::Serialize;
use serde_json::{Map, Value};

use super::{Failure, Outcome, Recording};
use crate::{
    ErrorCategory, Span, SpanError, SpanId, TraceContext,
    data::{SpanData, Usage},
    to_json,
};

/// A span that has begun, to add what is known of it by now.
///
/// Nothing here fails: on a span that has ended, and where the code is not traced, every method
/// works and has no effect.
#[derive(Clone, Debug)]
pub struct SpanHandle<R> {
    recording: Option<R>,
}

impl<R: Recording> SpanHandle<R> {
    /// The handle of a span that is recorded, or of none.
    pub fn new(recording: Option<R>) -> Self {
        Self { recording }
    }

    /// What the place knows of the span, `None` where nothing is traced.
    pub fn recording(&self) -> Option<&R> {
        self.recording.as_ref()
    }

    /// Adds a named value to what went in. A value that serde cannot turn into JSON is noted as
    /// such in its place.
    pub fn input(&self, name: impl Into<Cow<'static, str>>, value: impl Serialize) {
        self.update(|span| {
            span.input.insert(name.into(), to_json(value));
        });
    }

    /// Adds a named value to what came out.
    pub fn output(&self, name: impl Into<Cow<'static, str>>, value: impl Serialize) {
        self.update(|span| {
            span.output.insert(name.into(), to_json(value));
        });
    }

    /// Adds a named value to the metadata.
    pub fn metadata(&self, name: impl Into<Cow<'static, str>>, value: impl Serialize) {
        self.update(|span| {
            span.metadata.insert(name.into(), to_json(value));
        });
    }

    /// Adds what a typed span knows, such as the output of a
    /// [`Generation`](crate::data::Generation). The span gets the type of that data.
    pub fn data(&self, data: impl SpanData) {
        self.update(|span| span.set(data));
    }

    /// Notes the tokens, and the cost, of a call of a model.
    pub fn usage(&self, usage: Usage) {
        self.update(|span| span.set_usage(usage));
    }

    /// Notes a number that tells how well the work was done, such as `("quality", 4.5)`.
    pub fn metric(&self, name: impl Into<String>, value: f64) {
        self.update(|span| span.set_metric(name, value));
    }

    /// Adds a tag, once.
    pub fn tag(&self, tag: impl Into<String>) {
        self.update(|span| span.add_tag(tag));
    }

    /// Notes that something happened just now.
    ///
    /// ```
    /// # fn work<R: durable_spans_model::Recording>(span: durable_spans_model::SpanHandle<R>) {
    /// span.event("cache miss", serde_json::json!({"key": "orders/17"}));
    /// # }
    /// ```
    pub fn event(&self, name: impl Into<String>, attributes: impl Serialize) {
        let Some(recording) = &self.recording else { return };
        let at = recording.now();
        let attributes = match to_json(attributes) {
            Value::Object(attributes) => attributes,
            Value::Null => Map::new(),
            other => Map::from_iter([("value".to_owned(), other)]),
        };
        recording.update(|span| span.add_event(name, at, attributes));
    }

    /// Notes that something went wrong: the span will end with ERROR.
    pub fn error(&self, error: SpanError) {
        self.update(|span| span.set_error(error));
    }

    /// The span's id, `None` where nothing is traced.
    pub fn id(&self) -> Option<&SpanId> {
        self.recording.as_ref().map(Recording::id)
    }

    /// What to pass on, in a message or to a program in another language, so that it hangs its
    /// spans under this one. `None` where nothing is traced.
    pub fn trace_context(&self) -> Option<TraceContext> {
        self.recording.as_ref()?.trace_context()
    }

    fn update(&self, change: impl FnOnce(&mut Span)) {
        if let Some(recording) = &self.recording {
            recording.update(change);
        }
    }
}

/// A span that has begun, and ends with this guard: when dropped with SUCCESS, with ERROR if by a
/// panic, unless something else was said. What can be added to it meanwhile is at [`SpanHandle`].
///
/// In workflow code, eviction from the worker's cache drops it without ending the span: replay makes
/// it again.
#[must_use = "dropping the guard ends the span"]
#[derive(Debug)]
pub struct SpanGuard<R: Recording> {
    handle: SpanHandle<R>,
}

impl<R: Recording> Deref for SpanGuard<R> {
    type Target = SpanHandle<R>;

    fn deref(&self) -> &SpanHandle<R> {
        &self.handle
    }
}

impl<R: Recording> SpanGuard<R> {
    /// A guard of a span that has begun, or of none.
    pub fn new(recording: Option<R>) -> Self {
        Self { handle: SpanHandle::new(recording) }
    }

    /// Ends the span with SUCCESS, or with ERROR if one was noted.
    pub fn end(mut self) {
        self.finish(Outcome::Success);
    }

    /// Ends the span as `result` says: `Err` is ERROR, with the error's type, message and category, or
    /// CANCELED if it stands for a cancellation.
    pub fn end_with<T, E: Failure<K>, K>(mut self, result: &Result<T, E>) {
        self.finish(outcome::<R, T, E, K>(result));
    }

    /// Ends the span with ERROR.
    pub fn fail(mut self, error: SpanError) {
        self.finish(Outcome::Error(error));
    }

    /// Ends the span with CANCELED.
    pub fn cancel(mut self) {
        self.finish(Outcome::Canceled);
    }

    pub(super) fn finish(&mut self, outcome: Outcome) {
        if let Some(recording) = self.handle.recording.take() {
            recording.end(outcome);
        }
    }
}

impl<R: Recording> Drop for SpanGuard<R> {
    fn drop(&mut self) {
        self.finish(if std::thread::panicking() { panicked() } else { Outcome::Success });
    }
}

/// The guard of a span whose work is under way: dropped before its end (the losing branch of a
/// `select`, a timeout), the span is CANCELED.
pub(super) struct Working<R: Recording>(pub(super) SpanGuard<R>);

impl<R: Recording> Drop for Working<R> {
    fn drop(&mut self) {
        self.0.finish(if std::thread::panicking() { panicked() } else { Outcome::Canceled });
    }
}

pub(super) fn outcome<R: Recording, T, E: Failure<K>, K>(result: &Result<T, E>) -> Outcome {
    result.as_ref().err().map_or(Outcome::Success, E::outcome::<R>)
}

fn panicked() -> Outcome {
    let error = SpanError::new("Panic", "the code panicked");
    Outcome::Error(error.category(ErrorCategory::Application))
}
