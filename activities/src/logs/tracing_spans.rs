use std::fmt;

use durable_spans_model::{ErrorCategory, SpanError, SpanHandle};
use durable_spans_workflow::is_in_workflow;
use serde_json::{Map, Value};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    Layer, Registry,
    layer::Context,
    registry::{LookupSpan, SpanRef},
};

use super::TARGET;
use crate::current::{LocalRecording, LocalSpan, innermost, span as span_here};

/// Makes a span of ours from each `tracing` span that is opened in an activity, or in client code in
/// a span of ours: `#[tracing::instrument]`ed functions of the user, and what libraries trace.
///
/// Each has the span's name, its fields as metadata, its target as `tracing.target`, and hangs under
/// the innermost span, whichever kind that is; spans of ours that are opened inside of it hang under it. It
/// ends when the `tracing` span closes, with SUCCESS, or with ERROR if an event of level ERROR was
/// recorded directly in it, as `#[instrument(err)]` does, or the code panicked. That a future was
/// dropped before its end cannot be seen.
///
/// Like all spans of activities, they are lost with their process. In workflow code nothing is made,
/// since replay would make it again: use `ctx.span("name")`.
///
/// Libraries open many spans, so filter:
///
/// ```
/// use durable_spans_activity::logs::TracingSpans;
/// use tracing_subscriber::{filter::Targets, prelude::*};
///
/// let mine = Targets::new().with_target("my_app", tracing::Level::INFO);
/// let subscriber = tracing_subscriber::registry()
///     .with(TracingSpans::new().with_filter(mine))
///     .with(tracing_subscriber::fmt::layer());
/// # drop(subscriber);
/// ```
///
/// It needs a subscriber that is made on [`Registry`].
#[derive(Clone, Copy, Debug, Default)]
pub struct TracingSpans {
    _private: (),
}

impl TracingSpans {
    /// The layer. Without a filter, it takes all spans.
    pub fn new() -> Self {
        Self::default()
    }
}

/// Kept with a `tracing` span: what is recorded for it, or inside of it.
struct Recorded {
    recording: LocalRecording,
    /// Ends the span when dropped. `None` in the `tracing` span that tells the ids of a span of ours,
    /// which ends by itself.
    guard: Option<LocalSpan>,
}

/// What is recorded for the innermost of this `tracing` span and those around it.
pub(crate) fn recorded(span: &tracing::Span) -> Option<LocalRecording> {
    span.with_subscriber(|(id, dispatch)| around(dispatch.downcast_ref::<Registry>()?.span(id)?))?
}

fn around<'a, S: LookupSpan<'a>>(span: SpanRef<'a, S>) -> Option<LocalRecording> {
    span.scope().find_map(|span| {
        span.extensions().get::<Recorded>().map(|recorded| recorded.recording.clone())
    })
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for TracingSpans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        if is_in_workflow() {
            return;
        }
        let Some(span) = ctx.span(id) else { return };
        let outer = span.parent().and_then(around);
        let explicit = if attributes.parent().is_some() { outer.clone() } else { None };
        let Some(parent) = explicit.or_else(|| innermost(|| outer)?.span) else { return };
        let recorded = if attributes.metadata().target() == TARGET {
            Recorded { recording: parent, guard: None }
        } else {
            let fields = Fields::of(|fields| attributes.record(fields));
            let mut builder = span_here(attributes.metadata().name())
                .child_of(&SpanHandle::new(Some(parent)))
                .metadata("tracing.target", attributes.metadata().target());
            for (name, value) in fields.all() {
                builder = builder.metadata(name, value);
            }
            let guard = builder.start();
            let Some(recording) = guard.recording().cloned() else { return };
            Recorded { recording, guard: Some(guard) }
        };
        span.extensions_mut().replace(recorded);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        let Some(handle) = ctx.span(id).and_then(handle) else { return };
        for (name, value) in Fields::of(|fields| values.record(fields)).all() {
            handle.metadata(name, value);
        }
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        if *event.metadata().level() != Level::ERROR {
            return;
        }
        if let Some(handle) = ctx.event_span(event).and_then(handle) {
            handle.error(Fields::of(|fields| event.record(fields)).into_error());
        }
    }

    fn on_close(&self, id: Id, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(&id) else { return };
        // Out of its extensions first: the end of a span may log, which comes back to this layer.
        let recorded = span.extensions_mut().remove::<Recorded>();
        drop(recorded);
    }
}

/// The span that is made from this `tracing` span.
fn handle<'a, S: LookupSpan<'a>>(span: SpanRef<'a, S>) -> Option<SpanHandle<LocalRecording>> {
    let extensions = span.extensions();
    Some((**extensions.get::<Recorded>()?.guard.as_ref()?).clone())
}

/// The fields of a span or an event.
#[derive(Default)]
struct Fields {
    message: Option<String>,
    others: Map<String, Value>,
}

impl Fields {
    fn of(record: impl FnOnce(&mut Self)) -> Self {
        let mut fields = Self::default();
        record(&mut fields);
        fields
    }

    fn all(self) -> impl Iterator<Item = (String, Value)> {
        let message = self.message.map(|message| ("message".to_owned(), message.into()));
        message.into_iter().chain(self.others)
    }

    /// The message is the event's own, else the field `error`, which `#[instrument(err)]` sets.
    fn into_error(mut self) -> SpanError {
        let message = self.message.or_else(|| match self.others.remove("error")? {
            Value::String(error) => Some(error),
            other => Some(other.to_string()),
        });
        let message = message.unwrap_or_else(|| "an error was logged".to_owned());
        let error = SpanError::new("LoggedError", message).category(ErrorCategory::Application);
        self.others.into_iter().fold(error, |error, (name, value)| error.data(name, value))
    }

    fn set(&mut self, field: &Field, value: impl Into<Value>) {
        self.others.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = Some(value.to_owned()),
            _ => self.set(field, value),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.set(field, value.to_string());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value);
    }
}
