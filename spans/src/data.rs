//! What typed spans say: a call of a model, an agent, a tool and so on.
//!
//! A type is a plain value, made by `new` and bare-name setters. It describes a span before its work
//! begins, and again when more is known; setting it again merges, and what is new wins:
//!
//! ```
//! use durable_spans_model::{
//!     Span, SpanId, SpanType, Timestamp, TraceId,
//!     data::{Generation, Usage},
//! };
//! use serde_json::json;
//!
//! let start: Timestamp = "2026-11-21T08:03:54.911208+00:00".parse()?;
//! let mut span = Span::new(TraceId::from_bits(1), SpanId::from_bits(2), "draft", start);
//! let question = json!([{"role": "user", "content": "hi"}]);
//! span.set(Generation::new("gpt-4o").messages(question).config("temperature", 0.2));
//! // The answer is there.
//! let answer = json!([{"role": "assistant", "content": "yo"}]);
//! span.set(Generation::default().output(answer).usage(Usage::new(12, 34).cost_usd(0.0012)));
//!
//! assert_eq!(span.span_type, SpanType::Completion);
//! assert_eq!(span.metadata["openai_metadata"]["model"], "gpt-4o");
//! assert_eq!(Usage::of(&span).total_tokens(), Some(46));
//! # Ok::<(), durable_spans_model::InvalidSpan>(())
//! ```
//!
//! The types are those of the OpenAI Agents SDK, and lie in a span where SGP's own processor for that
//! SDK puts them: messages and results in input and output, everything else in the metadata
//! `openai_metadata`. [`Retrieval`] and [`Evaluation`] are types of SGP itself; nothing says how to
//! write their fields, so these have the names of OpenTelemetry's conventions for generative AI.
//!
//! What is not set is not written, so a type costs no more bytes than it says. Values that cannot
//! be JSON are noted as such, see [`to_json`](crate::to_json).

mod agent;
mod custom;
mod evaluation;
mod fields;
mod generation;
mod guardrail;
mod response;
mod retrieval;
mod speech;
mod tool;
mod usage;

pub(crate) use fields::as_object;

pub use agent::{Agent, Handoff, Task, Turn};
pub use custom::Custom;
pub use evaluation::Evaluation;
pub use generation::Generation;
pub use guardrail::Guardrail;
pub use response::Response;
pub use retrieval::Retrieval;
pub use speech::{Speech, SpeechGroup, Transcription};
pub use tool::{Function, McpTools};
pub use usage::{Usage, Values};

use crate::{Span, SpanType};

/// What a span of one type says beyond its name and times.
///
/// Implement it for data of your own: it is then taken wherever the types of this module are.
///
/// ```
/// use durable_spans_model::{Span, SpanType, data::SpanData};
///
/// /// A search in our own index.
/// struct Search<'a> { index: &'a str }
///
/// impl SpanData for Search<'_> {
///     const SPAN_TYPE: SpanType = SpanType::DocumentSearch;
///
///     fn write_to(self, span: &mut Span) {
///         span.metadata.insert("index".into(), self.index.into());
///     }
/// }
/// ```
pub trait SpanData {
    /// The type that a span has once this is set.
    const SPAN_TYPE: SpanType;

    /// Writes into input, output and metadata. Keeps what it does not know, so that it can be called
    /// several times for a span. [`Span::set`] calls it and sets the type.
    fn write_to(self, span: &mut Span);
}

impl Span {
    /// Sets type and data, and merges the data with what was set before: objects by name, anything
    /// else is replaced. To give the span another type than the data has, set it afterwards.
    pub fn set<D: SpanData>(&mut self, data: D) {
        self.span_type = D::SPAN_TYPE;
        data.write_to(self);
    }

    /// Notes tokens and cost, and keeps the type. Merges with what was noted before.
    ///
    /// They stand in the metadata as `usage`; in a span with data of OpenAI's types, where that has
    /// its usage.
    pub fn set_usage(&mut self, usage: Usage) {
        usage.write_to(self);
    }
}

#[cfg(test)]
mod tests;
