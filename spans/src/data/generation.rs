use serde::Serialize;

use super::{SpanData, Usage, fields::Fields};
use crate::{Span, SpanType};

/// A call of a language model: [`SpanType::Completion`].
///
/// ```
/// use durable_spans_model::data::{Generation, Usage};
/// use serde_json::json;
///
/// let call = Generation::new("gpt-4o")
///     .messages(json!([{"role": "user", "content": "hi"}]))
///     .config("temperature", 0.2)
///     .output(json!([{"role": "assistant", "content": "yo"}]))
///     .usage(Usage::new(12, 34).cost_usd(0.0012));
/// ```
///
/// The default names no model: it adds to a span whose model is known.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Generation(Fields);

impl Generation {
    /// A call of the model of that name, as it was asked for.
    pub fn new(model: impl Into<String>) -> Self {
        Self::default().model(model)
    }

    /// The model that is asked for.
    pub fn model(self, model: impl Into<String>) -> Self {
        Self(self.0.field("model", model.into()))
    }

    /// The model that has answered, where it is another than was asked for.
    pub fn response_model(self, model: impl Into<String>) -> Self {
        Self(self.0.field("response_model", model.into()))
    }

    /// Who runs the model, by OpenTelemetry's names: `openai`, `anthropic`, `aws.bedrock`.
    pub fn provider(self, provider: impl Into<String>) -> Self {
        Self(self.0.field("provider", provider.into()))
    }

    /// What goes in: a list of messages with role and content, or a text.
    pub fn messages(self, messages: impl Serialize) -> Self {
        Self(self.0.input("input", messages))
    }

    /// What came out: a list of messages with role and content, or a text.
    pub fn output(self, output: impl Serialize) -> Self {
        Self(self.0.output("output", output))
    }

    /// A setting of the model, such as `temperature`, `top_p` or `max_tokens`. Settings merge by name.
    pub fn config(self, name: &str, value: impl Serialize) -> Self {
        Self(self.0.entry("model_config", name, value))
    }

    /// The id that the provider gave to the answer.
    pub fn response_id(self, id: impl Into<String>) -> Self {
        Self(self.0.field("response_id", id.into()))
    }

    /// Why the model stopped, such as `stop`, `length` or `tool_calls`.
    pub fn finish_reason(self, reason: impl Into<String>) -> Self {
        Self(self.0.field("finish_reason", reason.into()))
    }

    /// Tokens and cost.
    pub fn usage(self, usage: Usage) -> Self {
        Self(self.0.usage(usage))
    }
}

impl Default for Generation {
    fn default() -> Self {
        Self(Fields::openai("generation"))
    }
}

impl SpanData for Generation {
    const SPAN_TYPE: SpanType = SpanType::Completion;

    fn write_to(self, span: &mut Span) {
        self.0.write_to(span);
    }
}
