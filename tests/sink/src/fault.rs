use std::time::Duration;

use hyper::{header::AUTHORIZATION, http::request::Parts};

use crate::told::Told;

/// What the sink does with what it is sent. A request that only reads is answered all the same where
/// the fault is about storing.
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
    /// Stores the first half of the spans, then resets the connection. Of one span, that span.
    ResetsHalfway,
    /// Stores the first half of a batch that holds a workflow's spans and never answers. Spans of
    /// activities alone are stored.
    HangsHalfway,
    /// 422 for a batch with a span of this name.
    Refuses(&'static str),
    /// 401 for any other key, as `x-api-key` or as a bearer token.
    TakesKey(&'static str),
}

impl Fault {
    pub(crate) fn meets(&self, head: &Parts, told: &Told) -> bool {
        match self {
            Self::None => false,
            Self::Errors | Self::TooMany { .. } | Self::Hangs => true,
            Self::ResetsHalfway => !told.is_nothing(),
            Self::HangsHalfway => !told.is_of_attempts(),
            Self::Refuses(name) => told.has_name(name),
            Self::TakesKey(key) => !has_key(head, key),
        }
    }
}

fn has_key(head: &Parts, key: &str) -> bool {
    let header = |name: &str| head.headers.get(name)?.to_str().ok();
    header("x-api-key") == Some(key)
        || header(AUTHORIZATION.as_str()).and_then(|value| value.strip_prefix("Bearer "))
            == Some(key)
}
