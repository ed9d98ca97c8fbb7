use std::{borrow::Cow, future::Future};

use serde::Serialize;

use super::{
    AsyncPlace, Draft, Failure, Outcome, Place, SpanGuard, SpanHandle,
    handle::{Working, outcome},
};
use crate::{SpanId, SpanType, data::SpanData, to_json};

/// Describes a span, then begins it.
///
/// | to begin it | the span is current | it ends |
/// |---|---|---|
/// | [`start`](Self::start) | no | with the guard |
/// | [`in_scope`](Self::in_scope), [`try_in_scope`](Self::try_in_scope) | within the closure | with the closure |
/// | [`scope`](Self::scope), [`try_scope`](Self::try_scope) | within the future, across its awaits | with the future; CANCELED if that is dropped |
///
/// Those that begin with `try` look at the `Result`: an `Err` ends the span with ERROR.
#[must_use = "a span begins with start(), in_scope(), scope() or one of their try_ forms"]
#[derive(Debug)]
pub struct SpanBuilder<P: Place> {
    place: P,
    enabled: bool,
    draft: Draft<P::Recording>,
}

impl<P: Place> SpanBuilder<P> {
    /// Begins to describe a span under the current one.
    pub fn new(place: P, name: impl Into<Cow<'static, str>>) -> Self {
        Self { place, enabled: true, draft: Draft::new(name.into()) }
    }

    /// What kind of work the span covers. Default [`SpanType::Standalone`].
    pub fn span_type(mut self, span_type: SpanType) -> Self {
        self.draft.span.span_type = span_type;
        self
    }

    /// What a typed span knows, such as the model and messages of a
    /// [`Generation`](crate::data::Generation). Sets the type, too.
    pub fn data(mut self, data: impl SpanData) -> Self {
        self.draft.span.set(data);
        self
    }

    /// Adds a named value to what goes in. A value that serde cannot turn into JSON is noted as
    /// such in its place.
    pub fn input(mut self, name: impl Into<Cow<'static, str>>, value: impl Serialize) -> Self {
        self.draft.span.input.insert(name.into(), to_json(value));
        self
    }

    /// Adds a named value to the metadata.
    pub fn metadata(mut self, name: impl Into<Cow<'static, str>>, value: impl Serialize) -> Self {
        self.draft.span.metadata.insert(name.into(), to_json(value));
        self
    }

    /// Adds a tag.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.draft.span.add_tag(tag);
        self
    }

    /// Adds a metric, see [`SpanHandle::metric`].
    pub fn metric(mut self, name: impl Into<String>, value: f64) -> Self {
        self.draft.span.set_metric(name, value);
        self
    }

    /// An id of your own, kept as it is. By default ids are derived, and unique. Two spans of a
    /// trace with one id are one span.
    pub fn id(mut self, id: SpanId) -> Self {
        self.draft.id = Some(id);
        self
    }

    /// Hangs the span under `parent` instead of the current span.
    pub fn child_of(mut self, parent: &SpanHandle<P::Recording>) -> Self {
        self.draft.parent = parent.recording().cloned();
        self
    }

    /// Records the span only if `enabled`. Else what is recorded inside of it hangs under the current
    /// span.
    pub fn when(mut self, enabled: bool) -> Self {
        self.enabled &= enabled;
        self
    }

    /// Begins the span and returns a guard. The span ends when the guard is ended or dropped; it
    /// does not become the current span.
    pub fn start(mut self) -> SpanGuard<P::Recording> {
        self.begin()
    }

    /// Runs `work` inside the span, which ends with it.
    pub fn in_scope<T>(mut self, work: impl FnOnce(&SpanHandle<P::Recording>) -> T) -> T {
        let mut span = self.begin();
        let output = enter(&self.place, &span, work);
        span.finish(Outcome::Success);
        output
    }

    /// Like [`in_scope`](Self::in_scope), and an `Err` ends the span with ERROR and the error's type,
    /// message and category, or with CANCELED if it stands for a cancellation.
    ///
    /// # Errors
    ///
    /// Those of `work`, as they are.
    pub fn try_in_scope<T, E: Failure<K>, K>(
        mut self,
        work: impl FnOnce(&SpanHandle<P::Recording>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut span = self.begin();
        let result = enter(&self.place, &span, work);
        span.finish(outcome::<P::Recording, T, E, K>(&result));
        result
    }

    fn begin(&mut self) -> SpanGuard<P::Recording> {
        let recording = if self.enabled { self.place.begin(&mut self.draft) } else { None };
        SpanGuard::new(recording)
    }
}

impl<P: AsyncPlace> SpanBuilder<P> {
    /// Runs `future` inside the span, which is the current one across its awaits and ends with it.
    /// Dropped before its end (the losing branch of a `select`), the span is CANCELED.
    pub fn scope<F: Future>(self, future: F) -> impl Future<Output = F::Output> {
        self.scope_with(|_| future)
    }

    /// Like [`scope`](Self::scope), with the span for `work` to add to.
    ///
    /// ```
    /// # async fn count<P: durable_spans_model::AsyncPlace>(span: durable_spans_model::SpanBuilder<P>) {
    /// span.scope_with(|count| {
    ///     let count = count.clone();
    ///     async move { count.output("words", 17) }
    /// })
    /// .await;
    /// # }
    /// ```
    pub async fn scope_with<F: Future>(
        mut self,
        work: impl FnOnce(&SpanHandle<P::Recording>) -> F,
    ) -> F::Output {
        let mut span = Working(self.begin());
        let future = enter(&self.place, &span.0, work);
        let output = match span.0.recording() {
            Some(recording) => self.place.within(recording, future).await,
            None => future.await,
        };
        span.0.finish(Outcome::Success);
        output
    }

    /// Like [`scope`](Self::scope), and an `Err` ends the span with ERROR and the error's type,
    /// message and category, or with CANCELED if it stands for a cancellation.
    ///
    /// # Errors
    ///
    /// Those of `future`, as they are.
    pub fn try_scope<T, E, F, K>(self, future: F) -> impl Future<Output = Result<T, E>>
    where
        E: Failure<K>,
        F: Future<Output = Result<T, E>>,
    {
        self.try_scope_with(|_| future)
    }

    /// Like [`try_scope`](Self::try_scope), with the span for `work` to add to.
    ///
    /// # Errors
    ///
    /// Those of the future, as they are.
    pub async fn try_scope_with<T, E, F, K>(
        mut self,
        work: impl FnOnce(&SpanHandle<P::Recording>) -> F,
    ) -> Result<T, E>
    where
        E: Failure<K>,
        F: Future<Output = Result<T, E>>,
    {
        let mut span = Working(self.begin());
        let future = enter(&self.place, &span.0, work);
        let result = match span.0.recording() {
            Some(recording) => self.place.within(recording, future).await,
            None => future.await,
        };
        span.0.finish(outcome::<P::Recording, T, E, K>(&result));
        result
    }
}

fn enter<P: Place, T>(
    place: &P,
    span: &SpanGuard<P::Recording>,
    work: impl FnOnce(&SpanHandle<P::Recording>) -> T,
) -> T {
    match span.recording() {
        Some(recording) => place.enter(recording, || work(span)),
        None => work(span),
    }
}
