use serde::Serialize;

use super::{SpanData, fields::Fields};
use crate::{Span, SpanType};

/// A check on what goes in or comes out. The default names none.
///
/// Its type is [`SpanType::Standalone`], as SGP's processor has it. SGP also knows
/// [`SpanType::Guardrail`] and [`SpanType::OutputGuardrail`]: set one of them afterwards to tell
/// the two apart.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Guardrail(Fields);

impl Guardrail {
    /// The check of that name.
    pub fn new(name: impl Into<String>) -> Self {
        Self(Self::default().0.field("name", name.into()))
    }

    /// Whether it has found something to stop.
    pub fn triggered(self, triggered: bool) -> Self {
        Self(self.0.field("triggered", triggered))
    }

    /// What is checked.
    pub fn input(self, input: impl Serialize) -> Self {
        Self(self.0.input("input", input))
    }

    /// What the check says.
    pub fn output(self, output: impl Serialize) -> Self {
        Self(self.0.output("output", output))
    }
}

impl Default for Guardrail {
    fn default() -> Self {
        Self(Fields::openai("guardrail"))
    }
}

impl SpanData for Guardrail {
    const SPAN_TYPE: SpanType = SpanType::Standalone;

    fn write_to(self, span: &mut Span) {
        self.0.write_to(span);
    }
}
