//! Where spans go: one file per kind of sink.

pub(crate) mod file;
mod ids;
pub(crate) mod memory;
pub(crate) mod openai;
pub(crate) mod opper;
pub(crate) mod otlp;
pub(crate) mod sgp;
pub(crate) mod sgp_client;
pub(crate) mod sgp_options;
mod sgp_search;
pub(crate) mod stdout;
