use std::rc::Rc;

use durable_spans_model::{Fields, Outcome, Span, SpanType};
use serde_json::Value;

use crate::{
    recorder::{Parent, SpanRef},
    run::Run,
    values::as_fields,
};

/// The span of something that the workflow waits for: an activity, a child workflow, a handler.
///
/// Dropped before the end is known (nobody waits any more), the span ends as abandoned.
pub(crate) struct Operation {
    run: Rc<Run>,
    span: Option<SpanRef>,
}

impl Operation {
    /// `kind` says in the metadata what the span stands for.
    pub(crate) fn start(
        run: &Rc<Run>,
        parent: &Parent,
        name: &str,
        span_type: SpanType,
        kind: &'static str,
    ) -> Self {
        let span = run.start(Some(parent), name.to_owned().into(), span_type);
        let operation = Self { run: run.clone(), span };
        operation.note("temporal.kind", kind);
        if let Some(span) = &operation.span {
            run.described(span);
        }
        operation
    }

    /// The span to hang further ones under.
    pub(crate) fn span(&self) -> Option<&SpanRef> {
        self.span.as_ref()
    }

    pub(crate) fn note(&self, name: &'static str, value: impl Into<Value>) {
        if let Some(span) = &self.span {
            self.run.update(span, |span| {
                span.metadata.insert(name.into(), value.into());
            });
        }
    }

    /// Adds what goes in, if it was captured.
    pub(crate) fn input(&self, value: Option<Value>) {
        self.add(value, "input", |span| &mut span.input);
    }

    /// Adds what came out, if it was captured.
    pub(crate) fn output(&self, value: Option<Value>) {
        self.add(value, "output", |span| &mut span.output);
    }

    fn add(&self, value: Option<Value>, name: &str, part: impl FnOnce(&mut Span) -> &mut Fields) {
        if let (Some(span), Some(value)) = (&self.span, value) {
            self.run.update(span, |span| part(span).extend(as_fields(value, name)));
        }
    }

    /// What it stands for goes on when its run has closed: if nobody waits for it, that is no
    /// cancellation.
    pub(crate) fn outlives_its_run(&self) {
        if let Some(span) = &self.span {
            self.run.outlive(span);
        }
    }

    pub(crate) fn finish(mut self, outcome: Outcome) {
        if let Some(span) = self.span.take() {
            self.run.end(&span, outcome);
        }
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if let Some(span) = self.span.take() {
            self.run.end(&span, Outcome::Abandoned);
        }
    }
}
