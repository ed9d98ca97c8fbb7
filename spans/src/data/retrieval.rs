use serde::Serialize;

use super::{SpanData, fields::Fields};
use crate::{Span, SpanType};

/// A search in a knowledge base: [`SpanType::KbRetrieval`]. The default has no query.
///
/// For a search of another kind set its type afterwards, such as [`SpanType::DocumentSearch`] or
/// [`SpanType::Reranking`]. The query is the input `query`, the documents are the output `documents`;
/// the metadata has OpenTelemetry's names, such as `gen_ai.data_source.id`.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Retrieval(Fields);

impl Retrieval {
    /// A search for that.
    pub fn new(query: impl Serialize) -> Self {
        Self(Self::default().0.input("query", query))
    }

    /// What is searched: the id of a knowledge base or index (`gen_ai.data_source.id`).
    pub fn source(self, id: impl Into<String>) -> Self {
        Self(self.0.field("gen_ai.data_source.id", id.into()))
    }

    /// How many documents are wanted (`gen_ai.request.top_k`).
    pub fn top_k(self, documents: u32) -> Self {
        Self(self.0.field("gen_ai.request.top_k", documents))
    }

    /// The model that makes vectors of the query (`gen_ai.request.model`).
    pub fn model(self, model: impl Into<String>) -> Self {
        Self(self.0.field("gen_ai.request.model", model.into()))
    }

    /// What was found: a list of objects with `id` and `score`, by OpenTelemetry's conventions, and
    /// whatever else is worth knowing, such as `content`.
    pub fn documents(self, documents: impl Serialize) -> Self {
        Self(self.0.output("documents", documents))
    }
}

impl Default for Retrieval {
    fn default() -> Self {
        Self(Fields::sgp())
    }
}

impl SpanData for Retrieval {
    const SPAN_TYPE: SpanType = SpanType::KbRetrieval;

    fn write_to(self, span: &mut Span) {
        self.0.write_to(span);
    }
}
