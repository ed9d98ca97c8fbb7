use std::time::Duration;

use hyper::http::request::Parts;
use serde_json::Value;

/// What the sink does with the batches that it gets.
#[derive(Clone, Copy, Debug, Default)]
pub enum Fault {
    /// Stores them.
    #[default]
    None,
    /// 500.
    Errors,
    /// 429, with a Retry-After in whole seconds.
    TooMany {
        /// How long to stay away.
        retry_after: Duration,
    },
    /// Reads them and never answers.
    Hangs,
    /// Stores the first half, then resets the connection.
    ResetsHalfway,
    /// Stores the first half of a batch that holds a workflow's spans and never answers. Spans of
    /// activities alone are stored.
    HangsHalfway,
    /// 422 for a batch with a span of this name.
    Refuses(&'static str),
    /// 401 for any other key.
    TakesKey(&'static str),
}

impl Fault {
    pub(crate) fn meets(&self, head: &Parts, items: &[Value]) -> bool {
        match self {
            Self::None => false,
            Self::Errors | Self::TooMany { .. } | Self::Hangs | Self::ResetsHalfway => true,
            Self::HangsHalfway => !items.iter().all(is_attempt),
            Self::Refuses(name) => items.iter().any(|item| item["name"] == *name),
            Self::TakesKey(key) => {
                head.headers.get("x-api-key").is_none_or(|given| given.as_bytes() != key.as_bytes())
            }
        }
    }
}

fn is_attempt(item: &Value) -> bool {
    item["metadata"]["temporal.kind"] == "activity_attempt"
}
