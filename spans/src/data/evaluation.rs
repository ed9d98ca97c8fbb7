use serde::Serialize;

use super::{SpanData, Usage, fields::Fields};
use crate::{Span, SpanType};

/// Judging a result: [`SpanType::Evaluation`]. The default names no measure.
///
/// The judgement is metadata by OpenTelemetry's names, such as `gen_ai.evaluation.score.value`.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Evaluation(Fields);

impl Evaluation {
    /// By the measure of that name, such as `relevance` (`gen_ai.evaluation.name`).
    pub fn new(name: impl Into<String>) -> Self {
        Self(Self::default().0.field("gen_ai.evaluation.name", name.into()))
    }

    /// What is judged.
    pub fn input(self, input: impl Serialize) -> Self {
        Self(self.0.input("input", input))
    }

    /// What it should have been.
    pub fn expected(self, expected: impl Serialize) -> Self {
        Self(self.0.input("expected", expected))
    }

    /// The score as a number, in the unit of the measure (`gen_ai.evaluation.score.value`).
    pub fn score(self, score: f64) -> Self {
        Self(self.0.field("gen_ai.evaluation.score.value", score))
    }

    /// The score as a word, such as `relevant` or `pass` (`gen_ai.evaluation.score.label`).
    pub fn label(self, label: impl Into<String>) -> Self {
        Self(self.0.field("gen_ai.evaluation.score.label", label.into()))
    }

    /// Why (`gen_ai.evaluation.explanation`).
    pub fn explanation(self, explanation: impl Into<String>) -> Self {
        Self(self.0.field("gen_ai.evaluation.explanation", explanation.into()))
    }

    /// Tokens and cost of the judge.
    pub fn usage(self, usage: Usage) -> Self {
        Self(self.0.usage(usage))
    }
}

impl Default for Evaluation {
    fn default() -> Self {
        Self(Fields::sgp())
    }
}

impl SpanData for Evaluation {
    const SPAN_TYPE: SpanType = SpanType::Evaluation;

    fn write_to(self, span: &mut Span) {
        self.0.write_to(span);
    }
}
