use std::rc::Rc;

use durable_spans_model::{Outcome, SpanType};

use crate::{
    recorder::{Parent, SpanRef},
    run::Run,
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
        operation
    }

    /// The span to hang further ones under.
    pub(crate) fn span(&self) -> Option<&SpanRef> {
        self.span.as_ref()
    }

    pub(crate) fn note(&self, name: &'static str, value: impl Into<serde_json::Value>) {
        if let Some(span) = &self.span {
            self.run.update(span, |span| {
                span.metadata.insert(name.into(), value.into());
            });
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
