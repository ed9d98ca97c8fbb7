use serde::Serialize;
use serde_json::json;

use super::{SpanData, Usage, fields::Fields};
use crate::{Span, SpanType, Timestamp};

/// Speech to text: [`SpanType::Standalone`]. The default names no model.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Transcription(Fields);

impl Transcription {
    /// With the model of that name.
    pub fn new(model: impl Into<String>) -> Self {
        Self(Self::default().0.field("model", model.into()))
    }

    /// The audio, as base64 text (empty to leave it out), and its format, such as `pcm`.
    pub fn audio(self, base64: impl Into<String>, format: impl Into<String>) -> Self {
        Self(self.0.input("input", audio(base64, format)))
    }

    /// The text.
    pub fn output(self, text: impl Into<String>) -> Self {
        Self(self.0.output("output", text.into()))
    }

    /// A setting of the model. Settings merge by name.
    pub fn config(self, name: &str, value: impl Serialize) -> Self {
        Self(self.0.entry("model_config", name, value))
    }

    /// Tokens and cost.
    pub fn usage(self, usage: Usage) -> Self {
        Self(self.0.usage(usage))
    }
}

impl Default for Transcription {
    fn default() -> Self {
        Self(Fields::openai("transcription"))
    }
}

impl SpanData for Transcription {
    const SPAN_TYPE: SpanType = SpanType::Standalone;

    fn write_to(self, span: &mut Span) {
        self.0.write_to(span);
    }
}

/// Text to speech: [`SpanType::Standalone`]. The default names no model.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Speech(Fields);

impl Speech {
    /// With the model of that name.
    pub fn new(model: impl Into<String>) -> Self {
        Self(Self::default().0.field("model", model.into()))
    }

    /// The text.
    pub fn input(self, text: impl Into<String>) -> Self {
        Self(self.0.input("input", text.into()))
    }

    /// The audio, as base64 text (empty to leave it out), and its format, such as `pcm`.
    pub fn audio(self, base64: impl Into<String>, format: impl Into<String>) -> Self {
        Self(self.0.output("output", audio(base64, format)))
    }

    /// A setting of the model. Settings merge by name.
    pub fn config(self, name: &str, value: impl Serialize) -> Self {
        Self(self.0.entry("model_config", name, value))
    }

    /// When the first of the audio was there.
    pub fn first_content_at(self, at: Timestamp) -> Self {
        Self(self.0.field("first_content_at", at))
    }

    /// Tokens and cost.
    pub fn usage(self, usage: Usage) -> Self {
        Self(self.0.usage(usage))
    }
}

impl Default for Speech {
    fn default() -> Self {
        Self(Fields::openai("speech"))
    }
}

impl SpanData for Speech {
    const SPAN_TYPE: SpanType = SpanType::Standalone;

    fn write_to(self, span: &mut Span) {
        self.0.write_to(span);
    }
}

/// Several [`Speech`] spans for one text: [`SpanType::Standalone`].
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct SpeechGroup(Fields);

impl SpeechGroup {
    /// For that text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Self::default().0.input("input", text.into()))
    }
}

impl Default for SpeechGroup {
    fn default() -> Self {
        Self(Fields::openai("speech_group"))
    }
}

impl SpanData for SpeechGroup {
    const SPAN_TYPE: SpanType = SpanType::Standalone;

    fn write_to(self, span: &mut Span) {
        self.0.write_to(span);
    }
}

fn audio(base64: impl Into<String>, format: impl Into<String>) -> serde_json::Value {
    json!({ "data": base64.into(), "format": format.into() })
}
