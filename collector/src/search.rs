//! Search, rule for rule as SGP's tracing service documents it.
//!
//! `filters` reads the request, `plan` turns it into SQL with the help of `candidates`, `results`
//! fills the page, and `content` looks into spans by the rules of `terms` and `metadata`.

pub(crate) mod candidates;
pub(crate) mod content;
pub(crate) mod filters;
mod metadata;
mod plan;
pub(crate) mod results;
pub(crate) mod terms;
