use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

/// How long a client should wait after a 503, in seconds.
const RETRY_AFTER_S: u32 = 1;

/// Why a request was not served, as the client will read it.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    detail: String,
    field: Option<String>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), field: None }
    }

    /// A refusal for the sake of one field, whose `reason` continues the sentence that the field's
    /// name begins.
    pub(crate) fn of_field(status: StatusCode, field: impl Into<String>, reason: &str) -> Self {
        let field = field.into();
        Self { status, detail: format!("{field} {reason}"), field: Some(field) }
    }

    /// The usual case of [`Refusal::of_field`]: 422.
    pub(crate) fn invalid(field: impl Into<String>, reason: &str) -> Self {
        Self::of_field(StatusCode::UNPROCESSABLE_ENTITY, field, reason)
    }

    #[cfg(test)]
    pub(crate) fn status(&self) -> u16 {
        self.status.as_u16()
    }

    #[cfg(test)]
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }
}

/// What SQLite cannot do now (locked, disk full), it may be able to do later.
impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, format!("the span store failed: {error}"))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut body = json!({ "detail": self.detail });
        if let Some(field) = self.field {
            body["field"] = field.into();
        }
        let json = [(header::CONTENT_TYPE, "application/json")];
        let response = (self.status, json, body.to_string());
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            return ([(header::RETRY_AFTER, RETRY_AFTER_S.to_string())], response).into_response();
        }
        response.into_response()
    }
}
