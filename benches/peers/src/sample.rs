//! The span that is measured: about 440 bytes of JSON, as a step of an agent leaves behind.

/// Name of each span.
pub(crate) const NAME: &str = "look up invoice";

/// Name of its one attribute.
pub(crate) const FIELD: &str = "document";

/// Value of its one attribute. Of one length, and another text for each number.
pub(crate) fn text(number: u32) -> String {
    let scattered = number.wrapping_mul(2_654_435_761);
    format!(
        "invoice {number:06} of customer {scattered:010}: total 1,{:03} EUR, due",
        number % 1000
    )
}
