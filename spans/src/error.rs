use std::borrow::Cow;

/// A span or trace context that no store would accept, with the field at fault.
///
/// The message says what is wrong with which field. It never holds the field's content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {reason}")]
pub struct InvalidSpan {
    field: Cow<'static, str>,
    reason: Cow<'static, str>,
}

impl InvalidSpan {
    /// An error about `field`, whose `reason` continues the sentence ("must not be empty").
    pub fn new(field: impl Into<Cow<'static, str>>, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }

    /// The field at fault, by its name on the wire.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// What is wrong with the field.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}
