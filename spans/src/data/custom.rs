use serde::Serialize;

use super::{SpanData, fields::Fields};
use crate::{Span, SpanType};

/// Data of the user's own: [`SpanType::Custom`]. The default has no name of its own.
///
/// ```
/// use durable_spans_model::data::Custom;
///
/// let query = Custom::new("db").field("rows", 3);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Custom(Fields);

impl Custom {
    /// Data by that name.
    pub fn new(name: impl Into<String>) -> Self {
        Self(Self::default().0.field("name", name.into()))
    }

    /// A field of the data. Fields merge by name.
    pub fn field(self, name: &str, value: impl Serialize) -> Self {
        Self(self.0.entry("data", name, value))
    }
}

impl Default for Custom {
    fn default() -> Self {
        Self(Fields::openai("custom"))
    }
}

impl SpanData for Custom {
    const SPAN_TYPE: SpanType = SpanType::Custom;

    fn write_to(self, span: &mut Span) {
        self.0.write_to(span);
    }
}
