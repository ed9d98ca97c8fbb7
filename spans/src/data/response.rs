use serde::Serialize;
use serde_json::Value;

use super::{SpanData, Usage, fields::Fields};
use crate::{Span, SpanType, to_json};

/// An answer of OpenAI's Responses API: [`SpanType::Completion`].
///
/// ```
/// use durable_spans_model::data::Response;
/// use serde_json::json;
///
/// # let body = json!({"id": "resp_1", "model": "gpt-4o", "output": []});
/// // The body of the answer, as JSON or as anything that serializes to it.
/// let answer = Response::of(&body).input("hi");
/// ```
///
/// The default names no answer: it describes a call before the answer is there.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Response(Fields);

impl Response {
    /// The answer with that id.
    pub fn new(response_id: impl Into<String>) -> Self {
        Self(Self::default().0.field("response_id", response_id.into()))
    }

    /// The answer with that body, which is kept as a whole. Its `id` and `output` are taken from it;
    /// its `usage` and `model` are found there.
    pub fn of(body: impl Serialize) -> Self {
        let body = to_json(body);
        let part = |name: &str| body.get(name).filter(|value| !value.is_null()).cloned();
        let mut fields = Self::default().0;
        if let Some(id) = part("id") {
            fields = fields.field("response_id", id);
        }
        if let Some(output) = part("output") {
            fields = fields.output("output", output);
        }
        Self(fields.field("openai_response", body))
    }

    /// What goes in: a text or a list of items.
    pub fn input(self, input: impl Serialize) -> Self {
        Self(self.0.input("input", input))
    }

    /// What came out: a list of items.
    pub fn output(self, output: impl Serialize) -> Self {
        Self(self.0.output("output", output))
    }

    /// The model, where no body names it.
    pub fn model(self, model: impl Into<String>) -> Self {
        Self(self.0.field("model", Value::String(model.into())))
    }

    /// Tokens and cost.
    pub fn usage(self, usage: Usage) -> Self {
        Self(self.0.usage(usage))
    }
}

impl Default for Response {
    fn default() -> Self {
        Self(Fields::openai("response"))
    }
}

impl SpanData for Response {
    const SPAN_TYPE: SpanType = SpanType::Completion;

    fn write_to(self, span: &mut Span) {
        self.0.write_to(span);
    }
}
